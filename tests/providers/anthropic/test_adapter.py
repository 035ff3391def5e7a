"""The adapter value, the request it leads to, and calls over real HTTP."""

import json
import pickle

import pydantic
import pytest

import allm_actors as allm
from allm_actors.data import (
    Message,
    Request,
    StreamCollector,
    TextDelta,
    Tool,
    ToolCall,
    json_schema,
    tool_result,
    user,
)
from allm_actors.engine import CallContext, Engine
from allm_actors.errors import AdapterError, EngineError
from allm_actors.providers import Anthropic
from allm_actors.testing import FakeServer, Reply
from tests.providers.anthropic.decoding import LIFTED, closing, messages_body, opening, text, thinking, tool
from tests.providers.openai.decoding import short

CALL = CallContext(api_key="key-of-the-call")
TOOL = Tool(name="add", description="adds", schema={"type": "object"})
SCHEMA = json_schema("answer", {"type": "object"})
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def ask(**fields):
    return Request(**({"messages": [user("hi")], "model": "claude"} | fields))


def prepared(adapter, request=None, call=CALL, *, stream=False):
    connection = adapter.connect()
    try:
        return connection.prepare_request(request or ask(), call, stream=stream)
    finally:
        connection.close()


# --- the value ------------------------------------------------------------------------------------------


def test_defaults():  # P-3, P-7
    adapter = Anthropic()
    assert (adapter.provider, adapter.base_url) == ("anthropic", "https://api.anthropic.com/v1")
    assert (adapter.api_version, adapter.betas, adapter.structured_output) == ("2023-06-01", [], "tool")
    assert (adapter.headers, adapter.auth, adapter.verify) == ({}, True, True)
    assert not adapter.custom_host


def test_a_value_comes_back():  # C-84, C-89
    adapter = Anthropic(
        base_url="http://localhost:8000/v1/", api_version="x", betas=["a"], structured_output="native"
    )
    assert Anthropic.model_validate_json(adapter.model_dump_json()) == adapter
    assert pickle.loads(pickle.dumps(adapter)) == adapter
    assert adapter.model_dump()["type"] == "anthropic"
    engine = Engine(adapter=adapter, model="claude")
    assert Engine.model_validate_json(engine.model_dump_json()) == engine


@pytest.mark.parametrize(
    "field",
    [
        {"structured_output": "json"},
        {"api_key": "sk-ant-0123456789abcdefghij"},
        {"api_version": 5},
        {"api_version": "a\nb"},
        {"betas": "one"},
        {"betas": ["é"]},
        {"betas": ["sk-ant-0123456789abcdefghij"]},
        {"api_version": "sk-ant-0123456789abcdefghij"},
        {"max_tokens": 5},
        {"base_url": "ftp://x"},
    ],
)
def test_bad_configuration(field):  # P-3, P-136
    with pytest.raises(pydantic.ValidationError) as caught:
        Anthropic(**field)
    assert next(iter(field)) in str(caught.value)
    assert "0123456789" not in f"{caught.value} {caught.value.errors()}"


def test_structured_answers_with_tools_take_two_passes():  # P-112
    both = ask(tools=[TOOL], response_format=SCHEMA)
    assert Anthropic().requires_structured_finalize(both)
    assert not Anthropic(structured_output="native").requires_structured_finalize(both)
    assert not Anthropic().requires_structured_finalize(ask(tools=[TOOL]))
    assert not Anthropic().requires_structured_finalize(ask(response_format=SCHEMA))


# --- the request ----------------------------------------------------------------------------------------


def test_the_request_that_would_be_sent():  # P-1, P-7, P-9, P-75
    http = prepared(Anthropic(betas=["one", "two"], headers={"x-extra": "1"}), stream=True)
    assert (http.method, http.url) == ("POST", "https://api.anthropic.com/v1/messages")
    assert http.headers["x-api-key"] == "key-of-the-call"
    assert "authorization" not in http.headers
    assert (http.headers["anthropic-version"], http.headers["anthropic-beta"]) == ("2023-06-01", "one,two")
    assert (http.headers["x-extra"], http.headers["content-type"]) == ("1", "application/json")
    assert http.headers["accept"] == "text/event-stream"
    assert json.loads(http.body) == {
        "model": "claude",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }


def test_the_body_is_the_same_bytes_without_a_prompt_cache():  # K-121
    http = prepared(Anthropic())
    assert http.body == b'{"model":"claude","max_tokens":1024,"messages":[{"role":"user","content":"hi"}]}'
    assert "anthropic-beta" not in http.headers


def test_the_version_may_be_another():  # P-3
    assert prepared(Anthropic(api_version="2030-01-01")).headers["anthropic-version"] == "2030-01-01"
    own = Anthropic(headers={"Anthropic-Version": "x"})
    assert prepared(own).headers["anthropic-version"] == "x"


def test_a_missing_key():  # P-8, P-131
    with pytest.raises(EngineError) as caught:
        prepared(Anthropic(), call=CallContext())
    assert (caught.value.reason, caught.value.provider) == ("missing_key", "anthropic")
    for adapter in (Anthropic(base_url="http://localhost:1/v1"), Anthropic(auth=False)):
        assert "x-api-key" not in prepared(adapter, call=CallContext()).headers


def test_the_key_is_looked_for_last():  # P-4
    with pytest.raises(EngineError) as caught:
        prepared(Anthropic(), ask(model=None), CallContext())
    assert caught.value.reason == "missing_model"
    with pytest.raises(allm.errors.ValidationError):
        prepared(Anthropic(), ask(messages=[]), CallContext())


# --- over HTTP ------------------------------------------------------------------------------------------


REPLY = Reply(
    "Hello big world",
    tool_calls=[
        ToolCall(id="c1", name="add", arguments={"a": 1, "b": [2]}),
        ToolCall(id="c2", name="now", arguments={}),
    ],
    reasoning="Let me see.",
)


def both_ways(server, request, **config):
    """The folded stream and the whole answer."""
    connection = Anthropic(base_url=server.base_url, **config).connect()
    try:
        with connection.stream(request, CallContext()) as stream:
            folded = StreamCollector.collect(stream).response()
        return folded, connection.generate(request, CallContext())
    finally:
        connection.close()


@pytest.mark.parametrize(
    "reply",
    [
        REPLY, Reply("Hi"), Reply(), Reply(tool_calls=REPLY.tool_calls), Reply("x", finish_reason="length"),
        Reply("x", finish_reason="content_filter"), Reply("x", usage=None), Reply("x", finish_reason="pause_turn"),
        Reply(tool_calls=[ToolCall(id="c", name="f", arguments={}, raw_arguments='{"broken')]),
    ],
)  # fmt: skip
def test_a_stream_and_a_whole_call_give_the_same(reply):  # P-6
    with FakeServer(default=reply) as server:
        folded, whole = both_ways(server, ask())

    assert folded == whole.model_copy(update={"raw": None, "request_id": None})
    assert whole.error is None
    assert whole.output_text == reply.text
    assert [(call.name, call.arguments) for call in whole.tool_calls] == [
        (call.name, call.arguments) for call in reply.tool_calls
    ]
    assert whole.reasoning == (reply.reasoning or None)
    assert whole.usage.input_tokens == (9 if reply.usage else None)


def test_a_lifted_answer_both_ways():  # P-6, P-88
    reply = Reply("Sure:", tool_calls=[ToolCall(id="c", name=LIFTED, arguments={"ä": 1})])
    with FakeServer(default=reply) as server:
        folded, whole = both_ways(server, ask(response_format=SCHEMA))
        sent = server.requests[0].json
    assert folded == whole.model_copy(update={"raw": None, "request_id": None})
    assert (whole.text, whole.tool_calls, whole.finish_reason) == ('{"ä":1}', [], "stop")
    assert whole.provider_data == {"anthropic": {"structured_output_tool": True, "preamble": "Sure:"}}
    assert sent["tool_choice"] == {"type": "tool", "name": LIFTED}


def streams(server, count):
    """The events of so many streams, one after the other."""
    connection = Anthropic(base_url=server.base_url).connect()
    try:
        return [list(connection.stream(ask(), CallContext())) for _ in range(count)]
    finally:
        connection.close()


def engine(server, **fields):
    return Engine(adapter=Anthropic(base_url=server.base_url), model="claude", **fields)


def test_a_stream_from_end_to_end():  # P-86, P-12
    with FakeServer(script=[Reply("Hello there")]) as server:
        main = engine(server)
        with allm.stream_generate(main, "hi", api_key="key-of-the-call", top_k=3) as stream:
            events = list(stream)
        (request,) = server.requests
    assert [event.delta for event in events if isinstance(event, TextDelta)] == ["Hello", " there"]
    assert events[-1].finish_reason == "stop"
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == "key-of-the-call"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert (request.json["top_k"], request.json["stream"]) == (3, True)


def test_a_tool_loop_sends_the_reasoning_back():  # P-84, P-77, P-78
    """What a provider refuses a tool loop without."""
    asked = messages_body(
        opening(), *thinking(0, "hm"), *tool(1, "toolu_1", "add", '{"a":1}'), *closing("tool_use")
    )
    with FakeServer(
        script=[Reply(body=asked, headers={"content-type": "text/event-stream"}), "Two."]
    ) as server:
        main = engine(server, tools=[TOOL])
        first = allm.generate(main, "1+1?")
        history = [
            user("1+1?"),
            Message.model_validate_json(first.message.model_dump_json()),
            tool_result("toolu_1", "2"),
        ]
        assert allm.generate(main, history).text == "Two."
        sent = server.requests[1].json["messages"]
    assert first.finish_reason == "tool_calls"
    assert sent[1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}},
    ]
    assert sent[2]["content"] == [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "2"}]


def test_an_http_error_is_raised_with_what_the_provider_says():  # P-101, P-107
    body = {
        "type": "error",
        "error": {"type": "authentication_error", "message": "invalid x-api-key: key-of-the-call"},
    }
    with FakeServer(default=Reply(status=401, json=body, headers={"request-id": "req_1"})) as server:
        with pytest.raises(AdapterError) as caught:
            allm.generate(engine(server), "hi", api_key="key-of-the-call").require_text()
        error = caught.value
    assert (error.reason, error.status, error.request_id) == ("authentication_failed", 401, "req_1")
    assert error.message == "invalid x-api-key: [REDACTED]"


def test_overloaded_in_first_position_is_tried_again():  # P-102, P-130
    overloaded = Reply(frames=[b"event: error\ndata: " + json.dumps(OVERLOADED).encode() + b"\n\n"])
    with FakeServer(script=[overloaded, Reply(status=529, json=OVERLOADED), "at last"]) as server:
        quick = engine(server).model_copy(update={"retry": allm.Retry(base_delay=0, jitter=0)})
        assert allm.generate(quick, "hi").text == "at last"
        assert len(server.requests) == 3


def test_an_error_after_some_text_ends_the_stream():  # P-44, P-102
    body = messages_body(opening(), *text(0, "half"), OVERLOADED)
    with FakeServer(default=Reply(body=body, headers={"content-type": "text/event-stream"})) as server:
        events = list(allm.stream_generate(engine(server), "hi"))
        assert len(server.requests) == 1
    assert short(events)[-1] == ("error", "AdapterError", "provider_unavailable")
    assert not any(event.type == "message_completed" for event in events)


@pytest.mark.parametrize("fault", ["drop", "end", "truncate"])
def test_a_stream_cut_off_is_no_answer(fault):  # P-49
    with FakeServer(default=Reply("Hello there", fault=fault, after=4)) as server:
        (events,) = streams(server, 1)
    assert (events[-1].error.reason, events[-1].error.metadata) == (
        "network_error",
        {"premature_close": True},
    )


@pytest.mark.parametrize("piece", [1, 3, 17])
def test_any_cut_of_the_bytes_gives_the_same_events(piece):  # P-116
    with FakeServer(script=[REPLY, Reply(**{**vars(REPLY), "piece": piece})]) as server:
        usual, cut = streams(server, 2)
    assert cut == usual
    assert usual[-1].type == "message_completed"
