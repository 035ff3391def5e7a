"""Recorded and published streams of real servers, against what the vendor's own library makes of them.

Where the two readings differ, the difference is named here with its reason, and nothing else may differ.
"""

import json
from pathlib import Path

import pytest

from allm_actors.providers.anthropic._stream import MessagesDecoder
from tests.providers.openai.decoding import fold, play

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "anthropic"
FILES = sorted(CORPUS.glob("*.sse"))

TWO_ANSWERS = (
    "the recording holds two answers one after the other; a stream ends with the first `message_stop`"
)

DIFFERENCES = {
    (f"anthropic-anthropic-tool-search-{kind}-1", part): TWO_ANSWERS
    for kind in ("bm25", "regex")
    for part in ("text", "finish_reason", "usage")
}

pytestmark = pytest.mark.skipif(not FILES, reason="the corpus of recorded streams is not beside the project")


def decoded(file, **options):
    return play(file.read_bytes(), MessagesDecoder(), **options)


def expected(file):
    found = json.loads(file.with_suffix(".expected.json").read_text())
    usage = found["usage"] or {}
    parts = [usage.get(name) for name in ("input_tokens", "cached_tokens", "cache_write_tokens")]
    whole = sum(part or 0 for part in parts)  # the library shows the parts, we the prompt as a whole
    return {
        "text": found["text"] or "",
        "reasoning": found["reasoning"] or "",
        "refusal": found["refusal"] or "",
        "tool_calls": [(call["id"], call["name"], call["arguments"]) for call in found["tool_calls"]],
        "finish_reason": found["finish_reason"],
        "usage": {
            "input_tokens": whole if parts[0] is not None else None,
            "output_tokens": usage.get("output_tokens"),
            "cached_tokens": usage.get("cached_tokens"),
            "cache_write_tokens": usage.get("cache_write_tokens"),
        },
        "failed": bool(found["error"]),
    }


def ours(file):
    response = fold(decoded(file))
    usage = response.usage
    return {
        "text": response.output_text,
        "reasoning": response.reasoning or "",
        "refusal": response.refusal or "",
        "tool_calls": [
            (call.id, call.name, call.raw_arguments if call.invalid_arguments else call.arguments)
            for call in response.tool_calls
        ],
        "finish_reason": response.raw_finish_reason,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
        },
        "failed": response.error is not None,
    }


def test_readings_agree_but_for_the_named_differences():  # P-83..P-87, P-110
    """Both ways: nothing else differs, and what is named still does."""
    found, unnamed = set(), {}
    for file in FILES:
        theirs, mine = expected(file), ours(file)
        differing = {(file.stem, part) for part in theirs if theirs[part] != mine[part]}
        found |= differing
        unnamed |= {key: (theirs[key[1]], mine[key[1]]) for key in differing - DIFFERENCES.keys()}
    assert unnamed == {}
    assert DIFFERENCES.keys() - found == set(), "stale entries"


def test_recorded_bodies_may_be_cut_anywhere():  # P-116
    for file in FILES:
        if file.stat().st_size < 20_000:
            assert decoded(file, sizes=(7, 1, 64, 3)) == decoded(file), file.stem


def test_known_events_are_known():  # P-48, P-86
    """What is passed on as unknown are the blocks of tools that run on the server, and a few betas."""
    odd = set()
    for file in FILES:
        for event in decoded(file):
            if event.type == "raw_chunk" and event.kind == "unknown_event":
                assert event.payload["event"] == "content_block_start", event.payload
                odd.add(event.payload["data"]["content_block"]["type"])
    assert {kind for kind in odd if not kind.endswith("_tool_result")} == {
        "server_tool_use", "mcp_tool_use", "compaction", "fallback",
    }  # fmt: skip


def test_every_reasoning_block_is_kept_as_it_was_sent():  # P-84
    """Against the deltas themselves, read without the decoder."""
    seen = 0
    for file in FILES:
        blocks = {}
        for line in file.read_text().split("\n"):
            event = json.loads(line[5:]) if line.startswith("data:") else {}
            index = event.get("index")
            if event.get("type") == "content_block_start" and "thinking" in event["content_block"]["type"]:
                blocks[index] = event["content_block"]
            elif event.get("type") == "content_block_delta" and index in blocks:
                delta = event["delta"]
                member = {"thinking_delta": "thinking", "signature_delta": "signature"}[delta["type"]]
                blocks[index][member] = blocks[index].get(member, "") + delta[member]
        kept = decoded(file)[-1].message.provider_data.get("anthropic", {}).get("thinking_blocks", [])
        assert kept == list(blocks.values()), file.stem
        seen += len(kept)
    assert seen >= 10
