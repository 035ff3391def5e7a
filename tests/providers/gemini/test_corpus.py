"""Recorded and published streams of the real API, against what the vendor's own library makes of them.

Where the two readings differ, the difference is named here with its reason, and nothing else may differ.
"""

import base64
import json
from pathlib import Path

import pytest

from allm_actors.providers.gemini._stream import GenerateDecoder
from tests.providers.gemini.decoding import fold, play

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "gemini"
FILES = sorted(CORPUS.glob("*.sse"))
COUNTERS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "total_tokens": "total_tokens",
    "cached_tokens": "cached_input_tokens",
    "reasoning_tokens": "reasoning_tokens",
}

IN_PIECES = "the library leaves it to its user to put streamed arguments together"
NO_FINISH = "an answer without a finish reason was cut off"
IN_FAILURE = "an error ends the stream, whatever the finish reason before it"

DIFFERENCES = {
    ("gemini-google-stream-no-args-tool-call", "tool_calls"): IN_PIECES,
    ("gemini-google-stream-tool-call-arguments", "tool_calls"): IN_PIECES,
    ("vertex-streaming-failure-empty-content", "failed"): NO_FINISH,
    ("vertex-streaming-failure-malformed-content", "failed"): NO_FINISH,
    ("vertex-streaming-success-quotes-escaped", "failed"): NO_FINISH,
    ("vertex-streaming-failure-error-mid-stream", "finish_reason"): IN_FAILURE,
}

pytestmark = pytest.mark.skipif(not FILES, reason="the corpus of recorded streams is not beside the project")


def events(file, **options):
    return play(file.read_bytes(), GenerateDecoder(), **options)


def expected(file):
    found = json.loads(file.with_suffix(".expected.json").read_text())
    usage = {COUNTERS[key]: value for key, value in (found["usage"] or {}).items()}
    if "output_tokens" in usage:  # the library counts thoughts apart
        usage["output_tokens"] += usage.get("reasoning_tokens", 0)
    return {
        "text": found["text"] or "",
        "reasoning": found["reasoning"] or "",
        "refusal": found["refusal"] or "",
        "tool_calls": [(call["name"], call["arguments"]) for call in found["tool_calls"]],
        "finish_reason": (found["finish_reason"] or "").removeprefix("blocked:") or None,
        "usage": usage,
        "failed": bool(found["error"]),
        "images": [tuple(image) for image in found.get("inline_data", [])],
    }


def ours(file):
    response = fold(events(file))
    counted = response.usage.model_dump()
    content = response.message.content if response.message else ""
    images = [part.image for part in content if part.type == "image"] if isinstance(content, list) else []
    return {
        "text": response.output_text,
        "reasoning": response.reasoning or "",
        "refusal": response.refusal or "",
        "tool_calls": [
            (call.name, call.raw_arguments if call.invalid_arguments else call.arguments)
            for call in response.tool_calls
        ],
        "finish_reason": response.raw_finish_reason,
        "usage": {key: value for key, value in counted.items() if key in expected(file)["usage"]},
        "failed": response.error is not None,
        "images": [(image.mime_type, len(base64.b64decode(image.source.value))) for image in images],
    }


def test_readings_agree_but_for_the_named_differences():  # P-97, P-98, P-99, P-100, P-110
    """Both ways: nothing else differs, and what is named still does."""
    found = set()
    unnamed = {}
    for file in FILES:
        theirs, mine = expected(file), ours(file)
        differing = {(file.stem, part) for part in theirs if theirs[part] != mine[part]}
        found |= differing
        unnamed |= {key: (theirs[key[1]], mine[key[1]]) for key in differing - DIFFERENCES.keys()}
    assert unnamed == {}
    assert DIFFERENCES.keys() - found == set(), "stale entries"


@pytest.mark.parametrize(
    ("stem", "calls"),
    [
        (
            "gemini-google-stream-no-args-tool-call",
            [("read_theme", {}), *[("read_screen", {"id": name}) for name in "ABC"]],
        ),
        (
            "gemini-google-stream-tool-call-arguments",
            [("getWeather", {"location": city}) for city in ("Boston", "San Francisco")],
        ),
    ],
)
def test_recorded_pieces_of_arguments(stem, calls):  # P-100
    file = CORPUS / f"{stem}.sse"
    made = fold(events(file)).tool_calls
    assert [(call.name, call.arguments) for call in made] == calls
    signed = ["thought_signature" in call.provider_data["gemini"] for call in made]
    assert signed == [True, *[False] * (len(calls) - 1)]


def test_recorded_ends():  # P-49, P-98, P-99
    """Each stream ends as its provider said it would."""
    ends = {}
    for file in FILES:
        *_, last = events(file)
        key = last.finish_reason if last.type == "message_completed" else last.error.reason
        ends.setdefault(key, []).append(file.stem)
    assert ends.keys() == {"stop", "tool_calls", "content_filter", "other", "network_error", "unknown"}
    assert len(ends["network_error"]) == 3
    assert ends["unknown"] == ["vertex-streaming-failure-error-mid-stream"]


def test_recorded_bodies_may_be_cut_anywhere():  # P-116
    for file in FILES:
        if file.stat().st_size < 20_000:
            assert stable(events(file, sizes=(7, 1, 64, 3))) == stable(events(file)), file.stem


def stable(found):
    """Events without the ids that are made up anew each time."""
    return [
        event.model_dump()
        for event in found
        if event.type not in ("tool_call_started", "error") and "generated_id" not in event.model_dump_json()
    ]


def test_known_parts_are_known():  # P-48, P-97
    """What is passed on as unknown belongs to tools that run at the provider's."""
    odd = {
        name
        for file in FILES
        for event in events(file)
        if event.type == "raw_chunk" and event.kind == "unknown_event"
        for name in event.payload["data"]
    }
    assert odd - {"thoughtSignature"} == {"executableCode", "codeExecutionResult", "toolCall", "toolResponse"}
