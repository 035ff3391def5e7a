"""The wire formats of FakeServer: each says the same thing in its own words, streamed and whole."""

from __future__ import annotations

import json

import pytest

from allm_actors.data import Request, StreamCollector, ToolCall, user
from allm_actors.engine import CallContext
from allm_actors.providers import OpenAI
from allm_actors.providers._sse import SSEDecoder
from allm_actors.testing import FakeServer, Reply
from allm_actors.testing._wires import wire_for

REPLY = Reply(
    "Hello big world",
    tool_calls=[
        ToolCall(id="c1", name="add", arguments={"a": 1, "b": [2]}),
        ToolCall(id="c2", name="now", arguments={}),
    ],
    reasoning="Let me see.",
    model="m-1",
)


def events_of(path, reply, body):
    wire = wire_for(path)
    assert wire is not None
    frames = SSEDecoder().feed(b"".join(wire.stream(reply, body)))
    return [(each.event, each.data if each.data == "[DONE]" else json.loads(each.data)) for each in frames]


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize(
    "reply",
    [
        REPLY, Reply("Hi"), Reply(), Reply(tool_calls=REPLY.tool_calls), Reply("x", finish_reason="length"),
        Reply("x", finish_reason="content_filter"), Reply("x", usage=None),
        Reply(tool_calls=[ToolCall(id="c", name="f", arguments={}, raw_arguments='{"broken')]),
    ],
)  # fmt: skip
def test_openai_reads_what_was_meant(api, reply):
    """P-6: also the two ways of asking give the same answer."""
    with FakeServer(default=reply) as server:
        connection = OpenAI(base_url=server.base_url, api=api).connect()
        request = Request(messages=[user("hi")], model="m")
        context = CallContext()
        with connection.stream(request, context) as stream:
            folded = StreamCollector.collect(stream).response()
        whole = connection.generate(request, context)
        connection.close()

    assert folded == whole.model_copy(update={"raw": None, "request_id": None})
    assert whole.error is None
    assert (whole.output_text or "") == reply.text
    assert [call.name for call in whole.tool_calls] == [call.name for call in reply.tool_calls]
    assert [call.arguments for call in whole.tool_calls] == [call.arguments for call in reply.tool_calls]
    assert whole.reasoning == (reply.reasoning or None)
    assert whole.finish_reason == (reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop"))
    assert whole.usage.input_tokens == (9 if reply.usage else None)
    assert whole.model == (reply.model or "m")


def test_messages():
    body = {"model": "m", "stream": True}
    events = events_of("/v1/messages", REPLY, body)

    assert all(name == data["type"] for name, data in events)
    kinds = [name for name, _ in events]
    assert (kinds[0], kinds[-2], kinds[-1]) == ("message_start", "message_delta", "message_stop")
    opened = [data["content_block"]["type"] for name, data in events if name == "content_block_start"]
    assert opened == ["thinking", "text", "tool_use", "tool_use"]
    deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == "Hello big world"
    assert "".join(delta.get("partial_json", "") for delta in deltas) == '{"a":1,"b":[2]}{}'
    assert events[-2][1]["delta"]["stop_reason"] == "tool_use"
    assert events[-2][1]["usage"] == {"output_tokens": 2}
    whole = wire_for("/v1/messages").whole(REPLY, body)
    assert [block["type"] for block in whole["content"]] == opened
    assert whole["content"][2]["input"] == {"a": 1, "b": [2]}
    assert whole["usage"] == {"input_tokens": 9, "output_tokens": 2}


def test_gemini():
    path = "/v1beta/models/m:streamGenerateContent"
    events = [data for _, data in events_of(path, REPLY, {})]
    parts = [part for data in events for part in data["candidates"][0]["content"]["parts"]]

    assert "".join(part.get("text", "") for part in parts if not part.get("thought")) == "Hello big world"
    assert [part["functionCall"]["name"] for part in parts if "functionCall" in part] == ["add", "now"]
    assert events[-1]["candidates"][0]["finishReason"] == "STOP"
    assert events[-1]["usageMetadata"]["totalTokenCount"] == 11
    whole = wire_for("/v1beta/models/m:generateContent").whole(REPLY, {})
    assert whole["candidates"][0]["finishReason"] == "STOP"
    assert whole["modelVersion"] == "m-1"


def test_the_path_alone_says_whether_gemini_streams():
    wire = wire_for("/v1beta/models/m:generateContent")

    assert not wire.streams("/v1beta/models/m:generateContent", {})
    assert wire.streams("/v1beta/models/m:streamGenerateContent?alt=sse", {})


def test_other_paths_speak_nothing():
    assert wire_for("/v1/embeddings") is None
