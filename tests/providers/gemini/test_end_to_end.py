"""Real HTTP against a small server that speaks the format."""

import json

import pytest

import allm_actors as allm
from allm_actors.data import Message, StreamCollector, Tool, ToolCall, tool_result
from allm_actors.errors import AdapterError
from allm_actors.providers import Gemini
from allm_actors.testing import FakeServer, Reply
from tests.providers.gemini.decoding import answer, call, stream_body

KEY = "AIza0123456789abcdefghij"
REPLY = Reply(
    "Hello big world",
    tool_calls=[ToolCall(id="c1", name="add", arguments={"a": 1}), ToolCall(id="c2", name="now", arguments={})],
    reasoning="Let me see.",
    model="m-1",
)  # fmt: skip
RETRY_AT_ONCE = allm.Retry(base_delay=0, jitter=0)


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


def engine(server, **fields):
    return allm.Engine(adapter=Gemini(base_url=server.base_url), model="g-1", **fields)


def streamed(server, question="hi", **options):
    with allm.stream_generate(engine(server), question, **options) as stream:
        return list(stream)


def text(pieces):
    return "".join(event.delta for event in pieces if event.type == "text_delta")


def test_a_stream(server):  # P-7, P-9, P-40, P-42, P-90
    server.add(REPLY)
    events = streamed(server, api_key=KEY)
    response = StreamCollector.collect(events).response()
    assert (response.output_text, response.reasoning, response.model) == (
        "Hello big world",
        "Let me see.",
        "m-1",
    )
    assert [(made.id, made.name, made.arguments) for made in response.tool_calls] == [
        ("c1", "add", {"a": 1}),
        ("c2", "now", {}),
    ]
    assert (response.finish_reason, response.raw_finish_reason) == ("tool_calls", "STOP")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (9, 2)
    (request,) = server.requests
    assert request.path == "/v1/models/g-1:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == KEY
    assert request.json == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def test_the_connection_gives_the_same_answer_both_ways(server):  # P-6
    server.add(REPLY, REPLY)
    connection = Gemini(base_url=server.base_url).connect()
    request, context = allm.request("hi", model="g-1"), allm.CallContext()
    with connection.stream(request, context) as stream:
        folded = StreamCollector.collect(stream).response()
    whole = connection.generate(request, context)
    connection.close()
    assert folded == whole.model_copy(update={"raw": None, "request_id": None})
    assert server.requests[1].path == "/v1/models/g-1:generateContent"
    assert server.requests[0].body == server.requests[1].body


def test_generate(server):  # P-6, P-91
    server.add(Reply("Four.", finish_reason="length"))
    response = allm.generate(engine(server), "2+2?", max_tokens=5, top_k=3)
    assert (response.output_text, response.finish_reason) == ("Four.", "length")
    assert server.requests[0].json["generationConfig"] == {"maxOutputTokens": 5, "topK": 3}


@pytest.mark.parametrize("piece", [1, 7])
def test_any_framing(server, piece):  # P-12, P-116
    frames = [answer("Grü", "ße"), answer("!", finish="STOP"), {"usageMetadata": {"promptTokenCount": 3}}]
    for framing in ("chunked", "length", "close"):
        server.add(Reply(frames=frames, framing=framing, piece=piece))
        events = streamed(server)
        assert (text(events), events[-1].usage.input_tokens) == ("Grüße!", 3)


def test_a_tool_loop_sends_back_what_the_api_needs(server):  # P-94, P-95, P-93
    first = answer({"text": "", "thoughtSignature": "t"}, call("add", args={"a": 1}, signature="s"), call("add", args={"a": 2}), finish="STOP")  # fmt: skip
    server.add(Reply(frames=[first]), Reply("Three."))
    tool = Tool(name="add", description="", schema={}, handler=lambda arguments: str(arguments["a"]))
    result = allm.chat(engine(server), "1+2?", tools=[tool])
    assert result.text == "Three."
    contents = server.requests[1].json["contents"]
    assert contents[1] == {
        "role": "model",
        "parts": [
            {"functionCall": {"name": "add", "args": {"a": 1}}, "thoughtSignature": "s"},
            {"functionCall": {"name": "add", "args": {"a": 2}}},
        ],
    }
    assert contents[2:] == [
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "add", "response": {"output": "1"}}},
                {"functionResponse": {"name": "add", "response": {"output": "2"}}},
            ],
        }
    ]


def test_a_stored_conversation_goes_on(server):  # P-39, P-95, P-94
    frame = answer({"text": "a", "thoughtSignature": "t"}, call("f", args={}, signature="s"), finish="STOP")
    server.add(Reply(frames=[frame]), Reply("ok"))
    message = streamed(server)[-1].message
    stored = Message.model_validate_json(message.model_dump_json())
    answered = tool_result(stored.tool_calls[0].id, "done")
    streamed(server, [allm.user("hi"), stored, answered])
    assert server.requests[1].json["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "a", "thoughtSignature": "t"},
                {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s"},
            ],
        },
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "done"}}}]},
    ]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("drop", "network_error"), ("end", "network_error"), ("truncate", "network_error"), ("malformed", "malformed_event")],
)  # fmt: skip
def test_streams_that_go_wrong(server, fault, reason):  # P-49, P-109
    server.add(Reply("Hello big world", fault=fault, after=2))
    events = streamed(server)
    assert events[-1].type == "error"
    assert events[-1].error.reason == reason
    assert text(events) == "Hello big"


@pytest.mark.parametrize("fault", ["drop", "truncate"])
def test_a_connection_that_breaks_after_the_finish(server, fault):  # P-49
    frames = [answer("Four.", finish="STOP"), {"usageMetadata": {"promptTokenCount": 3}}]
    server.add(Reply(frames=frames, fault=fault, after=1))
    events = streamed(server)
    assert (events[-1].type, text(events)) == ("message_completed", "Four.")


def test_a_server_that_never_closes(server):  # P-49
    server.add(Reply(frames=[answer("Four.", finish="STOP"), {}], fault="stall", after=1))
    events = streamed(server, stream_timeout=0.2)
    assert (events[-1].type, events[-1].finish_reason) == ("message_completed", "stop")


def test_a_whole_body_in_place_of_a_stream(server):  # P-14
    server.add(Reply(json=answer("Four.", call("f", id="c"), finish="STOP")))
    events = streamed(server)
    assert [event.type for event in events] == [
        "message_started",
        "text_delta",
        "tool_call_started",
        "text_completed",
        "tool_call_completed",
        "message_completed",
    ]


@pytest.mark.parametrize("body", [[answer("x", finish="STOP")], {}, {"promptFeedback": {}}])
def test_a_body_that_is_no_answer(server, body):  # P-14, P-15, P-99
    server.add(Reply(json=body), Reply(json=body))
    assert streamed(server)[-1].error.reason == "malformed_response"
    connection = Gemini(base_url=server.base_url).connect()
    with pytest.raises(AdapterError) as caught:
        connection.generate(allm.request("hi", model="g-1"), allm.CallContext())
    connection.close()
    assert caught.value.reason == "malformed_response"


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (400, {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}, "authentication_failed"),
        (400, {"code": 400, "message": "Bad field.", "status": "INVALID_ARGUMENT"}, "invalid_request"),
        (400, {"code": 400, "message": "The input token count (9) exceeds the maximum number of tokens", "status": "INVALID_ARGUMENT"}, "context_length_exceeded"),
        (403, {"code": 403, "message": "No.", "status": "PERMISSION_DENIED"}, "authentication_failed"),
        (404, {"code": 404, "message": "No such model.", "status": "NOT_FOUND"}, "invalid_request"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("listed", [False, True])
def test_http_errors(server, status, error, reason, listed):  # P-101, P-105, P-106, P-107
    body = {"error": error | {"message": f"{error['message']} ({KEY})"}}
    server.add(Reply(json=[body] if listed else body, status=status))
    (event,) = streamed(server, api_key=KEY)
    found = event.error
    assert (found.reason, found.status, found.provider) == (reason, status, "gemini")
    assert found.message == f"{error['message']} ([REDACTED])"
    assert found.metadata == {"provider_code": status, "provider_type": error["status"]}


def test_an_overloaded_provider_is_asked_again(server):  # P-101, P-103, P-108, P-130
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.01s"}
    busy = {
        "error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED", "details": [retry]}
    }
    server.add(Reply(json=busy, status=429), Reply(frames=[busy]), Reply("at last"))
    with allm.stream_generate(engine(server, retry=RETRY_AT_ONCE), "hi") as stream:
        events = list(stream)
    assert text(events) == "at last"
    assert [event.type for event in events].count("message_started") == 1
    assert len(server.requests) == 3
    assert len({request.body for request in server.requests}) == 1


def test_a_bare_error_in_mid_stream(server):  # P-119, P-103
    error = json.dumps({"error": {"code": 499, "message": "cancelled", "status": "CANCELLED"}}, indent=2)
    server.add(Reply(frames=[stream_body(answer("a", finish="STOP")), error.encode()]))
    events = streamed(server)
    assert (events[-1].type, events[-1].error.message) == ("error", "cancelled")
