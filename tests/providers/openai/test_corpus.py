"""Recorded and published streams of real servers, against what the vendor's own library makes of them.

Where the two readings differ, the difference is named here with its reason, and nothing else may differ.
"""

import json
from pathlib import Path

import pytest

from allm_actors.providers.openai._chat_stream import ChatDecoder
from allm_actors.providers.openai._responses_stream import ResponsesDecoder
from tests.providers.openai.decoding import fold, play

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
DECODERS = {"openai_chat": ChatDecoder, "openai_responses": ResponsesDecoder}
FILES = [file for kind in DECODERS for file in sorted((CORPUS / kind).glob("*.sse"))]
COUNTERS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "total_tokens": "total_tokens",
    "cached_tokens": "cached_input_tokens",
    "reasoning_tokens": "reasoning_tokens",
}

IN_FAILURE = "an error ends the stream, and no completed message carries what came before"
RAW_REASONING = "the library shows summaries only; reasoning in the model's own words is readable too"

DIFFERENCES = {
    ("openai_chat/groq-tool-use-failed-error-streaming", "reasoning"): IN_FAILURE,
    ("openai_chat/groq-tool-use-failed-error-streaming-with-text", "reasoning"): IN_FAILURE,
    ("openai_chat/openrouter-openrouter-stream-error", "reasoning"): IN_FAILURE,
    ("openai_chat/openrouter-openrouter-stream-error", "finish_reason"): IN_FAILURE,
    ("openai_chat/mistral-mistral-reasoning", "text"): "the library gives up on content that is a list of parts",
    ("openai_chat/openai-tools-streaming-variant-a", "tool_calls"): "the library adds a repeated name to itself",
    ("openai_responses/openai-response-stream-incomplete", "finish_reason"): "the reason says more than the status",
    ("openai_responses/bedrock-providers-bedrock-mantle-responses-chat-streams-through-the-responses-surfac", "reasoning"): RAW_REASONING,
    ("openai_responses/deepseek-chat-responses-protocol-dialects-with-deepseek-deepseek-v4-flash-streams-re", "reasoning"): RAW_REASONING,
    ("openai_responses/deepseek-deepseek-responses-function-tool-stream", "reasoning"): RAW_REASONING,
    ("openai_responses/deepseek-deepseek-responses-text-stream", "reasoning"): RAW_REASONING,
    ("openai_responses/openrouter-openai-responses-raw-cot-stream-openrouter", "reasoning"): RAW_REASONING,
}  # fmt: skip

pytestmark = pytest.mark.skipif(not FILES, reason="the corpus of recorded streams is not beside the project")


def name(file):
    return f"{file.parent.name}/{file.stem}"


def decoder_of(file):
    return DECODERS[file.parent.name]()


def expected(file):
    found = json.loads(file.with_suffix(".expected.json").read_text())
    return {
        "text": found["text"] or "",
        "reasoning": found["reasoning"] or "",
        "refusal": found["refusal"] or "",
        "tool_calls": [(call["id"], call["name"], call["arguments"]) for call in found["tool_calls"]],
        "finish_reason": found["finish_reason"],
        "usage": {COUNTERS[key]: value for key, value in (found["usage"] or {}).items()},
        "failed": bool(found["error"]),
    }


def ours(file):
    response = fold(play(file.read_bytes(), decoder_of(file)))
    counted = response.usage.model_dump()
    wanted = expected(file)["usage"]
    return {
        "text": response.output_text,
        "reasoning": response.reasoning or "",
        "refusal": response.refusal or "",
        "tool_calls": [
            (call.id, call.name, call.raw_arguments if call.invalid_arguments else call.arguments)
            for call in response.tool_calls
        ],
        "finish_reason": response.raw_finish_reason,
        "usage": {key: value for key, value in counted.items() if key in wanted},
        "failed": response.error is not None,
    }


@pytest.mark.parametrize("kind", DECODERS)
def test_readings_agree_but_for_the_named_differences(kind):  # P-63, P-64, P-70, P-110
    """Both ways: nothing else differs, and what is named still does."""
    found = set()
    unnamed = {}
    for file in FILES:
        if file.parent.name != kind:
            continue
        theirs, mine = expected(file), ours(file)
        differing = {(name(file), part) for part in theirs if theirs[part] != mine[part]}
        found |= differing
        unnamed |= {key: (theirs[key[1]], mine[key[1]]) for key in differing - DIFFERENCES.keys()}
    assert unnamed == {}
    assert {key for key in DIFFERENCES if key[0].startswith(f"{kind}/")} - found == set(), "stale entries"


@pytest.mark.parametrize("kind", DECODERS)
def test_recorded_bodies_may_be_cut_anywhere(kind):  # P-116
    for file in FILES:
        if file.parent.name == kind and file.stat().st_size < 20_000:
            body = file.read_bytes()
            whole = play(body, decoder_of(file))
            assert stable(play(body, decoder_of(file), sizes=(7, 1, 64, 3))) == stable(whole), name(file)


def stable(events):
    """Events without the ids that are made up anew each time."""
    return [event.model_dump() for event in events if "generated_id" not in event.model_dump_json()]


def test_known_events_are_known():  # P-48, P-70
    """What is passed on as unknown belongs to tools that run on the server, or is no event of an answer."""
    served = (
        "_call",
        "mcp_",
        "image_generation",
        "code_interpreter",
        "file_search",
        "custom_tool",
        "shell",
        "apply_patch",
    )
    odd = {}
    for file in FILES:
        for event in play(file.read_bytes(), decoder_of(file)):
            if event.type == "raw_chunk" and event.kind == "unknown_event":
                kind = event.payload["event"] or json.dumps(event.payload["data"])[:200]
                if not any(word in kind for word in served):
                    odd.setdefault(kind, name(file))
    assert odd.keys() == {
        "response.reasoning_part.added",
        "response.reasoning_part.done",
    }  # one gateway's own
