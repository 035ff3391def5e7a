"""Decoding whole Chat Completions answers."""

import pytest

from allm_actors.data import Request, Usage
from allm_actors.errors import AdapterError
from allm_actors.providers._wire import StreamDecoder
from allm_actors.providers.openai._chat_decode import decode_chat
from allm_actors.providers.openai._wire import OpenAIWire
from tests.providers.openai.decoding import fold, short

REQUEST = Request(messages=[], model="gpt-4o")


def answer(message=None, finish="stop", **members):
    message = {"role": "assistant", "content": "Four."} if message is None else message
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "cc-1", "model": "m", "choices": [choice]} | members


def test_a_plain_answer():  # P-60, P-6
    body = answer(
        usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}, service_tier="default"
    )
    response = decode_chat(body)
    assert (response.id, response.model, response.output_text, response.text) == (
        "cc-1",
        "m",
        "Four.",
        "Four.",
    )
    assert (response.finish_reason, response.raw_finish_reason) == ("stop", "stop")
    assert response.message.role == "assistant"
    assert response.message.content == "Four."
    assert response.usage == Usage(input_tokens=9, output_tokens=2, total_tokens=11)
    assert response.provider_data == {"openai": {"service_tier": "default"}}
    assert response.raw == body
    assert response.error is None


def test_no_usage_is_an_empty_usage():  # P-111
    assert decode_chat(answer()).usage == Usage()


def test_the_choice_with_index_0_or_the_first():  # P-60
    first, second = answer()["choices"][0] | {"index": 1}, answer({"content": "zero"})["choices"][0]
    assert decode_chat({"choices": [first, second]}).output_text == "zero"
    assert decode_chat({"choices": [first, first | {"index": 2}]}).output_text == "Four."


def test_list_content():  # P-60
    parts = [{"type": "text", "text": "a"}, {"type": "thinking", "text": "no"}, {"type": "text", "text": "b"}]
    assert decode_chat(answer({"content": parts})).output_text == "ab"


def test_a_refusal():  # P-62, P-60
    response = decode_chat(answer({"content": None, "refusal": "no"}))
    assert (response.refusal, response.output_text) == ("no", "")
    assert (response.finish_reason, response.raw_finish_reason) == ("content_filter", "stop")
    assert decode_chat(answer({"content": "x", "refusal": ""})).refusal is None


def test_tool_calls():  # P-60, P-45, P-46, P-47
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"arguments": "{}"}},
        {"id": "c1", "type": "function", "function": {"name": "g", "arguments": "[1]"}},
        {"function": {"name": "h"}},
        {"id": "c4", "type": "custom", "custom": {"name": "x"}},
        7,
    ]
    response = decode_chat(answer({"content": None, "tool_calls": calls}))
    assert [call.name for call in response.tool_calls] == ["f", "g", "h"]
    first, second, third = response.tool_calls
    assert (first.id, first.arguments, first.raw_arguments) == ("c1", {"a": 1}, '{"a":1}')
    assert second.invalid_arguments
    assert (third.arguments, third.raw_arguments) == ({}, "{}")
    assert len({call.id for call in response.tool_calls}) == 3
    assert response.message.tool_calls == response.tool_calls
    assert (response.finish_reason, response.raw_finish_reason) == ("tool_calls", "stop")


def test_the_legacy_function_call():  # P-60, P-94
    (call,) = decode_chat(
        answer({"function_call": {"name": "f", "arguments": "{}"}}, "function_call")
    ).tool_calls
    assert call.id.startswith("call_")
    assert call.provider_data == {"openai": {"generated_id": True}}


def test_reasoning():  # P-39, P-63
    assert decode_chat(answer({"content": "x", "reasoning_content": "why"})).reasoning == "why"
    assert decode_chat(answer()).reasoning is None


@pytest.mark.parametrize("raw", [None, "", 5])
def test_an_answer_without_a_finish_reason(raw):  # P-43, P-61
    response = decode_chat(answer(finish=raw))
    assert (response.finish_reason, response.raw_finish_reason) == ("other", None)


def test_the_finish_reason_error_is_a_failure():  # P-61
    with pytest.raises(AdapterError) as caught:
        decode_chat(answer(finish="error"))
    assert caught.value.reason == "provider_unavailable"


@pytest.mark.parametrize(
    "body",
    [{}, {"choices": []}, {"choices": None}, {"choices": [1]}, {"choices": "x"}, {"choices": [{"index": 0}]}],
)
def test_no_answer_is_malformed(body):  # P-60, P-15
    with pytest.raises(AdapterError) as caught:
        decode_chat(body)
    assert (caught.value.reason, caught.value.provider) == ("malformed_response", "openai")


def test_an_error_with_a_2xx_status():  # P-15, P-103
    with pytest.raises(AdapterError) as caught:
        decode_chat(answer() | {"error": {"message": "slow down", "code": 429}})
    assert (caught.value.reason, caught.value.status) == ("rate_limited", 429)
    assert decode_chat(answer() | {"error": None}).output_text == "Four."


def test_a_whole_body_as_events():  # P-14, P-6, P-42
    calls = [{"id": "c1", "function": {"name": "f", "arguments": '{"a":1}'}}]
    body = answer({"content": "Hm.", "tool_calls": calls}, usage={"prompt_tokens": 1})
    wire = OpenAIWire()
    events = wire.replay(body, REQUEST)
    assert short(events) == [
        ("message_started",),
        ("text_delta", "Hm."),
        ("tool_call_started", "c1", "f"),
        ("text_completed", "Hm."),
        ("tool_call_completed", "c1", "f", {"a": 1}, '{"a":1}'),
        ("usage", {"input_tokens": 1}),
        ("message_completed", "tool_calls", "stop"),
    ]
    assert fold(events) == wire.decode(body, REQUEST).model_copy(update={"raw": None})


def test_a_body_may_hold_what_json_cannot_write_back():  # C-6
    assert decode_chat(answer(x=float("inf"), y="\ud83d")).raw["x"] is None


def test_the_wire_picks_the_decoder_by_model():  # P-50
    assert isinstance(OpenAIWire().decoder(REQUEST), StreamDecoder)
    assert type(OpenAIWire().decoder(REQUEST)).__name__ == "ChatDecoder"
    newer = REQUEST.model_copy(update={"model": "gpt-5"})
    assert type(OpenAIWire().decoder(newer)).__name__ == "ResponsesDecoder"
    assert OpenAIWire().decode({"output": []}, newer).finish_reason == "stop"
