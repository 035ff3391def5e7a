"""What a provider tells about an answer may quote the key of the call; what we tell does not."""

import json

import pytest
from pydantic import SecretStr

from allm_actors.data import Message, Request
from allm_actors.providers._redact import Redactor
from allm_actors.providers.anthropic._wire import AnthropicWire
from allm_actors.providers.gemini._wire import GeminiWire
from allm_actors.providers.openai._wire import OpenAIWire
from tests.providers.openai.decoding import play

KEY = "canary-0123456789"
ASK = Request(model="m", messages=[Message(role="user", content="hi")])

CHAT = {
    "id": KEY, "model": KEY, "service_tier": KEY, "system_fingerprint": KEY, "debug": {KEY: [KEY]},
    "usage": {"prompt_tokens": 1, "billed_to": {KEY: KEY}},
    "choices": [{"index": 0, "finish_reason": KEY, "message": {"content": "x"}, "delta": {"content": "x"}}],
}  # fmt: skip
RESPONSES = {
    "id": KEY, "model": KEY, "service_tier": KEY, "status": "incomplete", "incomplete_details": {"reason": KEY},
    "reasoning": {"effort": KEY}, "usage": {"input_tokens": 1, "billed_to": KEY}, "metadata": {"who": KEY},
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}],
}  # fmt: skip
ANTHROPIC = {
    "id": KEY, "model": KEY, "content": [{"type": "text", "text": "x"}], "usage": {"input_tokens": 1, "billed_to": KEY},
    "stop_reason": "refusal", "stop_details": {"explanation": f"of {KEY}"}, "container": KEY,
}  # fmt: skip
GEMINI = {
    "responseId": KEY, "modelVersion": KEY, "usageMetadata": {"promptTokenCount": 1, "billedTo": [KEY]},
    "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP", "finishMessage": KEY, "z": KEY}],
}  # fmt: skip
STREAMS = {
    "chat": [CHAT],
    "responses": [{"type": "response.incomplete", "response": RESPONSES}],
    "anthropic": [
        {"type": "message_start", "message": ANTHROPIC},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "x"}},
        {
            "type": "message_delta",
            "delta": {name: ANTHROPIC[name] for name in ("stop_reason", "stop_details")},
        },
        {"type": "message_stop"},
    ],
    "gemini": [GEMINI],
}
BODIES = {"chat": CHAT, "responses": RESPONSES, "anthropic": ANTHROPIC, "gemini": GEMINI}
WIRES = {
    "chat": OpenAIWire(api="chat"), "responses": OpenAIWire(api="responses"), "anthropic": AnthropicWire(), "gemini": GeminiWire(),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_whole_answer_quotes_no_key(name):  # P-140, P-142
    response = WIRES[name].decode(BODIES[name], ASK, redactor=Redactor(SecretStr(KEY)))

    assert KEY not in response.model_dump_json() + repr(response)
    assert response.output_text == "x"
    assert "[REDACTED]" in json.dumps(response.usage.extra)
    assert WIRES[name].decode(BODIES[name], ASK).raw == BODIES[name]


@pytest.mark.parametrize("name", WIRES)
def test_the_excerpt_of_a_broken_frame_shows_no_part_of_a_long_key(name):  # P-109, P-140
    """Tokens that serve as keys have a thousand characters and more."""
    key = "canary" * 250
    decoder = WIRES[name].decoder(ASK, redactor=Redactor(SecretStr(key)))

    (event,) = play(b"data: " + key.encode() * 4 + b"\n\n", decoder)

    assert event.error.reason == "malformed_event"
    assert "canary" not in str(event.error)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_quotes_no_key(name):  # P-140, P-142
    body = "".join(f"data: {json.dumps(frame)}\n\n" for frame in STREAMS[name]).encode()

    events = play(body, WIRES[name].decoder(ASK, redactor=Redactor(SecretStr(KEY))))

    assert events[-1].type == "message_completed"
    assert "[REDACTED]" in events[-1].model_dump_json()
    assert not [event.type for event in events if KEY in event.model_dump_json() + repr(event)]
