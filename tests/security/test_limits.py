"""Whatever a server sends, what is read and kept of it has an end.

Limits are made small here where the real one would only cost time; the numbers themselves are checked at the end.
"""

from __future__ import annotations

import gzip
import itertools
import json
import threading

import pytest

import allm_actors as allm
from allm_actors.data import Request, user
from allm_actors.engine import CallContext
from allm_actors.errors import AdapterError
from allm_actors.providers import Anthropic, Gemini, OpenAI, _answer, _assembly, _sse
from allm_actors.providers import _json as wire_json
from allm_actors.testing import FakeServer, Reply
from tests.providers._net import HOST, raw_server, read_request

ASK = Request(messages=[user("hi")], model="m")
CALL = CallContext(connect_timeout=5, stream_timeout=5, request_timeout=10)
KIB = 1024
ADAPTERS = {
    "chat": (OpenAI, {"api": "chat"}),
    "responses": (OpenAI, {"api": "responses"}),
    "messages": (Anthropic, {}),
    "gemini": (Gemini, {}),
}


def connect(name, url):
    kind, fields = ADAPTERS[name]
    return kind(base_url=url, **fields).connect()


def failure(stream):
    """The error a stream ends with."""
    *_, last = stream
    assert last.type == "error"
    return last.error


def without_end(head, piece):
    """A server that never stops sending."""

    def serve(sock):
        read_request(sock)
        sock.sendall(head)
        while True:
            sock.sendall(piece)

    return serve


# --- whole bodies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_whole_body_is_read_to_its_limit(name, monkeypatch):
    """P-15: a server that never stops is given up, on both ways to ask."""
    monkeypatch.setattr(_answer, "MAX_BODY", 100 * KIB)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    with raw_server(without_end(head + b'{"a": "', b"x" * 4096), connections=2) as port:
        connection = connect(name, f"http://{HOST}:{port}/v1")
        with pytest.raises(AdapterError) as caught:
            connection.generate(ASK, CALL)
        streamed = failure(connection.stream(ASK, CALL))
        connection.close()
    assert caught.value.reason == streamed.reason == "malformed_response"
    assert "larger than" in caught.value.message
    assert "larger than" in streamed.message


def test_a_whole_body_of_exactly_the_limit_is_read(monkeypatch):
    body = json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}).encode()
    monkeypatch.setattr(_answer, "MAX_BODY", len(body))
    with FakeServer(script=[Reply(body=body), Reply(body=body + b" ")]) as server:
        connection = connect("chat", server.base_url)
        assert connection.generate(ASK, CALL).text == "x"
        with pytest.raises(AdapterError, match="larger than"):
            connection.generate(ASK, CALL)
        connection.close()


def test_what_a_body_unpacks_to_counts(monkeypatch):
    """A few kilobytes of gzip can be gigabytes."""
    monkeypatch.setattr(_answer, "MAX_BODY", 1024 * KIB)
    bomb = gzip.compress(b'{"a": "' + b"x" * (20 * 1024 * KIB))
    assert len(bomb) < 100 * KIB
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    with FakeServer(script=[Reply(body=bomb, headers=headers)]) as server:
        connection = connect("chat", server.base_url)
        with pytest.raises(AdapterError, match="larger than"):
            connection.generate(ASK, CALL)
        connection.close()


# --- streams ----------------------------------------------------------------------------------------------

BEGIN = {
    "messages": [
        {"type": "message_start", "message": {"id": "1", "model": "m", "role": "assistant", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "c", "name": "t"}},
    ],
    "responses": [
        {"type": "response.output_item.added", "output_index": 0,
         "item": {"type": "function_call", "id": "i", "call_id": "c", "name": "t"}},
    ],
}  # fmt: skip
CALLED = [{"index": 0, "id": "c", "function": {"name": "t", "arguments": "x" * 1000}}]
SAID = {
    "chat text": {"choices": [{"index": 0, "delta": {"content": "x" * 1000}}]},
    "chat reasoning": {"choices": [{"index": 0, "delta": {"reasoning_content": "x" * 1000}}]},
    "chat refusal": {"choices": [{"index": 0, "delta": {"refusal": "x" * 1000}}]},
    "chat arguments": {"choices": [{"index": 0, "delta": {"tool_calls": CALLED}}]},
    "responses text": {"type": "response.output_text.delta", "delta": "x" * 1000},
    "responses reasoning": {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "x" * 1000},
    "responses arguments": {
        "type": "response.function_call_arguments.delta", "item_id": "i", "delta": "x" * 1000,
    },
    "messages text": {
        "type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 1000},
    },
    "messages reasoning": {
        "type": "content_block_delta", "index": 1, "delta": {"type": "thinking_delta", "thinking": "x" * 1000},
    },
    "messages arguments": {
        "type": "content_block_delta", "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": "x" * 1000},
    },
    "gemini text": {"candidates": [{"content": {"parts": [{"text": "x" * 1000}]}}]},
    "gemini reasoning": {"candidates": [{"content": {"parts": [{"text": "x" * 1000, "thought": True}]}}]},
    "gemini images": {
        "candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA" * 250}}]}}],
    },
}  # fmt: skip


@pytest.mark.parametrize("said", SAID)
def test_an_answer_without_end_is_given_up(said, monkeypatch):
    """What is kept of an answer until it ends: text, reasoning, refusal, arguments, images."""
    monkeypatch.setattr(_assembly, "MAX_CHARACTERS", 50_000)
    name = said.split()[0]
    frames = [*BEGIN.get(name, []), *[SAID[said]] * 200]
    with FakeServer(script=[Reply(frames=frames)]) as server:
        connection = connect(name, server.base_url)
        events = list(connection.stream(ASK, CALL))
        server.requests[0].wait_disconnected()
        connection.close()
    assert events[-1].error.reason == "malformed_response"
    assert "longer than" in events[-1].error.message
    assert 40 <= sum(event.type in {"text_delta", "raw_chunk", "tool_call_delta"} for event in events) <= 51


def calls(name):
    """Frames that each begin another call."""
    for n in itertools.count():
        match name:
            case "chat":
                entry = {"index": n, "id": f"c{n}", "function": {"name": "t", "arguments": ""}}
                yield {"choices": [{"index": 0, "delta": {"tool_calls": [entry]}}]}
            case "responses":
                item = {"type": "function_call", "id": f"i{n}", "call_id": f"c{n}", "name": "t"}
                yield {"type": "response.output_item.added", "output_index": n, "item": item}
            case "messages":
                block = {"type": "tool_use", "id": f"c{n}", "name": "t", "input": {}}
                yield {"type": "content_block_start", "index": n, "content_block": block}
            case "gemini":
                yield {"candidates": [{"content": {"parts": [{"functionCall": {"name": "t", "args": {}}}]}}]}


@pytest.mark.parametrize("name", ADAPTERS)
def test_calls_without_end_are_given_up(name):
    frames = list(itertools.islice(calls(name), _assembly.MAX_PARTS + 50))
    with FakeServer(script=[Reply(frames=frames, framing="length", piece=65536)]) as server:
        connection = connect(name, server.base_url)
        events = list(connection.stream(ASK, CALL))
        connection.close()
    assert sum(event.type == "tool_call_started" for event in events) == _assembly.MAX_PARTS
    assert events[-1].error.reason == "malformed_response"
    assert "more than 1024" in events[-1].error.message


def test_a_body_with_too_many_calls_is_given_up():
    calls = [
        {"id": f"c{n}", "function": {"name": "t", "arguments": "{}"}} for n in range(_assembly.MAX_PARTS + 1)
    ]
    body = {"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]}
    with FakeServer(script=[Reply(json=body)]) as server:
        connection = connect("chat", server.base_url)
        with pytest.raises(AdapterError, match="more than 1024"):
            connection.generate(ASK, CALL)
        connection.close()


@pytest.mark.parametrize("kind", ["thinking", "redacted_thinking"])
def test_reasoning_blocks_without_end_are_given_up(kind):
    """P-84: they are kept whole, for the next turn."""
    block = {"type": kind, "thinking": "", "data": ""}
    frames = [
        {"type": "content_block_start", "index": n, "content_block": block}
        for n in range(_assembly.MAX_PARTS + 1)
    ]
    with FakeServer(script=[Reply(frames=frames, framing="length", piece=65536)]) as server:
        connection = connect("messages", server.base_url)
        assert "more than 1024" in failure(connection.stream(ASK, CALL)).message
        connection.close()


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_stream_that_says_nothing_for_ever_is_given_up(name, monkeypatch):
    """Frames nobody knows, and comments: the body as a whole has a limit, too."""
    monkeypatch.setattr(_answer, "MAX_STREAM", 300 * KIB)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    piece = b": nothing\n\n" + b'data: {"type": "nobody.knows", "nothing": "' + b"x" * 1000 + b'"}\n\n'
    with raw_server(without_end(head, piece)) as port:
        connection = connect(name, f"http://{HOST}:{port}/v1")
        error = failure(connection.stream(ASK, CALL))
        connection.close()
    assert error.reason == "malformed_response"
    assert "larger than" in error.message


ANSWER = b"".join(
    b"data: " + frame + b"\n\n"
    for frame in (
        b'{"choices": [{"index": 0, "delta": {"content": "x"}}]}',
        b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}',
        b"[DONE]",
    )
)


@pytest.mark.parametrize(
    ("end", "piece"),
    [(b"0\r\n", b"x: y\r\n"), (b"0\r\n", b"x"), (b"", b"0"), (b"0\r\n", b"x: y\r\n" * 10_000)],
    ids=["trailers", "one trailer", "a chunk's size", "a flood of trailers"],
)
def test_a_body_that_never_ends_holds_up_no_answer_that_has(end, piece):
    """P-49: without any limit of the caller's; the connection is closed."""
    closed, over = threading.Event(), threading.Event()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    def serve(sock):
        read_request(sock)
        sock.sendall(head + b"%x\r\n%s\r\n" % (len(ANSWER), ANSWER) + end)
        try:
            for _ in range(1000):  # as good as for ever: several seconds
                sock.sendall(piece)
                over.wait(0.005)
        except OSError:
            closed.set()

    with raw_server(serve) as port:
        connection = connect("chat", f"http://{HOST}:{port}/v1")
        *_, last = connection.stream(ASK, CallContext())
        assert closed.wait(5)
        over.set()
        connection.close()
    assert last.type == "message_completed"


# --- errors, headers, numbers, nesting --------------------------------------------------------------------


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_an_error_says_is_cut(name):
    """P-101, P-106: 64 KiB are read of its body, and 2,000 characters said of it."""
    with FakeServer(script=[Reply(status=400, json={"error": {"message": "y" * 60_000}})]) as server:
        connection = connect(name, server.base_url)
        with pytest.raises(AdapterError) as caught:
            connection.generate(ASK, CALL)
        connection.close()
    assert len(caught.value.message) <= 2001


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_error_without_end_is_not_read_to_its_end(name):
    """P-101: 64 KiB of it; what the system had taken in by then is thrown away with the connection."""
    sent, closed = [0], threading.Event()

    def serve(sock):
        read_request(sock)
        sock.sendall(b"HTTP/1.1 400 No\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{")
        try:
            while sent[0] < 60 * 1024 * KIB:
                sock.sendall(b"x" * 65536)
                sent[0] += 65536
        except OSError:
            closed.set()

    with raw_server(serve) as port:
        connection = connect(name, f"http://{HOST}:{port}/v1")
        assert failure(connection.stream(ASK, CALL)).status == 400
        assert closed.wait(10)
        connection.close()


def test_events_that_nobody_reads_hold_up_the_server():
    """Of an endless answer there is what the queue holds; all else is still the server's."""
    waits = threading.Event()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    word = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'

    def serve(sock):
        read_request(sock)
        sock.sendall(head)
        sock.settimeout(0.5)
        try:
            while True:
                sock.sendall(word * 100)
        except TimeoutError:
            waits.set()

    with raw_server(serve) as port:
        engine = allm.Engine(adapter=OpenAI(base_url=f"http://{HOST}:{port}/v1", api="chat"), model="m")
        with allm.stream_generate(engine, "hi") as stream:
            next(stream)
            assert waits.wait(30)
            assert stream._tap._reader.events.in_flight <= 64


@pytest.mark.parametrize(
    "headers",
    [b"".join(b"x-%d: y\r\n" % n for n in range(101)), b"x: " + b"y" * 65536 + b"\r\n"],
    ids=["many", "long"],
)
def test_headers_have_a_limit(headers):
    """A hundred of them, each of 64 KiB at most."""

    def serve(sock):
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + headers + b"content-length: 2\r\n\r\n{}")

    with raw_server(serve) as port:
        connection = connect("chat", f"http://{HOST}:{port}/v1")
        assert failure(connection.stream(ASK, CALL)).reason == "network_error"
        connection.close()


@pytest.mark.parametrize(
    "text",
    ["[" * 1_000_000, '{"a":' * 200_000, '{"a": ' + "9" * 1_000_000 + "}"],
    ids=["lists", "objects", "digits"],
)
def test_json_made_to_exhaust_its_reader_is_no_json(text):
    """P-15, P-109: a `ValueError` at once, neither a crash nor minutes."""
    with pytest.raises(ValueError):
        wire_json.parse(text)


def levels(value):
    """How deeply a value is nested."""
    depth = 0
    while isinstance(value, list) and value:
        depth, value = depth + 1, value[0]
    return depth


@pytest.mark.parametrize("deep", [201, 500, 800])
def test_what_lies_deeper_than_two_hundred_levels_is_dropped(deep):
    """P-15, P-109: no value that is handed on is deeper than our models hold."""
    assert levels(wire_json.parse("[" * 200 + "]" * 200)) == 199  # the innermost is empty
    assert levels(wire_json.parse("[" * deep + "]" * deep)) <= 200


def test_a_nested_body_is_an_error_not_a_crash():
    body = '{"choices": ' + "[" * 500_000
    with FakeServer(script=[Reply(body=body), Reply(frames=[body])]) as server:
        connection = connect("chat", server.base_url)
        with pytest.raises(AdapterError) as caught:
            connection.generate(ASK, CALL)
        assert failure(connection.stream(ASK, CALL)).reason == "malformed_event"
        connection.close()
    assert caught.value.reason == "malformed_response"


def test_the_limits_are_what_is_written():
    mib = 1024 * KIB
    assert (64 * mib, 256 * mib, 16 * mib) == (_answer.MAX_BODY, _answer.MAX_STREAM, _sse.MAX_EVENT_BYTES)
    assert (64 * mib, 1024) == (_assembly.MAX_CHARACTERS, _assembly.MAX_PARTS)
