"""What every HTTP connection does alike: checks, streams, ends of streams, times, halts, errors, secrets."""

from __future__ import annotations

import gc
import json
import logging
import math
import pickle
import queue
import socket
import threading
import time
from typing import ClassVar

import pydantic
import pytest
from pydantic import SecretStr

from allm_actors import beam
from allm_actors.data import Request, StreamCollector, user
from allm_actors.engine import CallContext
from allm_actors.errors import AdapterError, AllmError, EngineError, StreamError, ValidationError
from allm_actors.providers import OpenAI
from allm_actors.providers._preflight import encode
from allm_actors.providers.openai._wire import OpenAIWire
from allm_actors.testing import FakeServer, Reply
from tests.providers._net import HOST, Certificates, post, raw_server, read_request

KEY = "sk-canary-0123456789abcdef"
ASK = Request(messages=[user("hi")], model="m")


def call(**fields):
    return CallContext(**{"connect_timeout": 5, "stream_timeout": 5, "request_timeout": 5, **fields})


@pytest.fixture
def dial():
    """Connections to a server, closed after the test."""
    opened = []

    def connect(server, **fields):
        url = server if isinstance(server, str) else server.base_url
        opened.append(OpenAI(base_url=url, **fields).connect())
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def kinds(events):
    return [event.type for event in events]


def text(events):
    return StreamCollector.collect(events).text


def ask(connection, request=ASK, **fields):
    return list(connection.stream(request, call(**fields)))


def fail(connection, **fields):
    """The error a stream ends with, which is its last event."""
    *before, last = ask(connection, **fields)
    assert last.type == "error"
    assert "message_completed" not in kinds(before)
    assert "text_completed" not in kinds(before)
    return last.error


def chunk(content=None, finish=None):
    delta = {} if content is None else {"content": content}
    return {"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


# --- configuration --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1", "host/v1", "http://", "https:///v1", "http://h/v1?x=1", "http://h/v1?", "http://h/v1#f",
        "http://me@h/v1", "http://me:secret@h/v1", "http://h:port/v1", "http://h:99999/v1", "http://a b/v1", "",
        "http://h/v1\n", "http://[bad/v1",
    ],
)  # fmt: skip
def test_a_bad_base_url_fails_construction_and_is_not_quoted(url):
    """P-3, P-7, P-143."""
    with pytest.raises(pydantic.ValidationError) as caught:
        OpenAI(base_url=url)

    assert caught.value.errors()[0]["loc"] == ("base_url",)
    assert "secret" not in str(caught.value) + str(caught.value.errors())


@pytest.mark.parametrize("url", ["http://h/v1", "http://h/v1/", "http://h/v1///"])
def test_trailing_slashes_are_dropped(url):
    """P-7."""
    assert OpenAI(base_url=url).base_url == "http://h/v1"
    assert OpenAI(base_url=url).connect().prepare_request(ASK, call()).url == "http://h/v1/chat/completions"


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\nb"},
        {"x": "é"},
        {"x": "\x00"},
        {"é": "x"},
        {"": "x"},
        {"a b": "x"},
        {"a:": "x"},
        {"a\r\n": "x"},
    ],
)
def test_headers_that_cannot_be_sent_fail_construction(headers):
    """P-3."""
    with pytest.raises(pydantic.ValidationError, match="headers"):
        OpenAI(headers=headers)


@pytest.mark.parametrize(
    "fields", [{"api_key": KEY}, {"unknown": 1}, {"verify": 1}, {"auth": "no"}, {"headers": []}]
)
def test_unknown_and_ill_typed_fields_fail_construction(fields):
    """P-3."""
    with pytest.raises(pydantic.ValidationError) as caught:
        OpenAI(**fields)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["api-key", "X-Api-Key", "x-goog-api-key", "Authorization", "proxy-authorization", "COOKIE"]
)
def test_a_credential_header_is_no_configuration(name):
    """P-136."""
    with pytest.raises(pydantic.ValidationError) as caught:
        OpenAI(headers={name: "canary-value"})
    assert "canary" not in str(caught.value) + str(caught.value.errors())


@pytest.mark.parametrize("fields", [{"organization": KEY}, {"headers": {"x": KEY}}, {"base_url": KEY}])
def test_what_looks_like_a_key_is_no_configuration(fields):
    """P-136."""
    with pytest.raises(pydantic.ValidationError) as caught:
        OpenAI(**fields)
    assert "canary" not in str(caught.value) + str(caught.value.errors())


def test_an_adapter_is_a_value():
    """P-1."""
    adapter = OpenAI(base_url="http://h/v1/", headers={"a": "b"}, auth=False, verify="/ca.pem")

    assert OpenAI.model_validate_json(adapter.model_dump_json()) == adapter
    assert pickle.loads(pickle.dumps(adapter)) == adapter
    assert OpenAI() != adapter


# --- pre-flight -----------------------------------------------------------------------------------------


def prepared(stream=False, key=KEY, **fields):
    connection = OpenAI(**fields).connect()
    return connection.prepare_request(ASK, call(api_key=SecretStr(key)), stream=stream)


def test_headers_of_a_whole_call():
    """P-9."""
    request = prepared()

    assert request.method == "POST"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("allm_actors/")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert "stream" not in json.loads(request.body)


def test_headers_of_a_stream():
    """P-9."""
    request = prepared(stream=True)

    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["accept-encoding"] == "identity"
    assert json.loads(request.body)["stream"] is True


def test_the_adapters_headers_win_but_for_the_content_type():
    """P-3."""
    headers = {"User-Agent": "mine", "Content-Type": "text/plain", "X-More": "1", "ACCEPT": "*/*"}
    request = prepared(stream=True, headers=headers)

    assert (request.headers["user-agent"], request.headers["x-more"]) == ("mine", "1")
    assert request.headers["accept"] == "*/*"
    assert request.headers["content-type"] == "application/json"


def test_the_body_is_utf8_with_characters_as_they_are():
    """P-9."""
    connection = OpenAI(base_url="http://h/v1").connect()
    request = connection.prepare_request(Request(messages=[user("Привіт ∞")], model="m"), call())

    assert "Привіт ∞".encode() in request.body


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_json_does_not_have_is_refused(value):
    """P-9."""
    request = ASK.model_copy(update={"temperature": value})
    with pytest.raises(ValidationError) as caught:
        OpenAI(base_url="http://h/v1").connect().stream(request, call())

    assert caught.value.reason == "invalid_request"
    assert caught.value.errors == [(("temperature",), "not_finite")]


def test_a_text_that_is_no_unicode_is_refused_with_its_place():
    """P-9: also where it was put past the checks of a message."""
    half = user("whole").model_copy(update={"content": "half \ud83d"})
    request = Request(messages=[user("fine \ufffd"), half], model="m")
    with pytest.raises(ValidationError) as caught:
        OpenAI(base_url="http://h/v1").connect().stream(request, call())
    with pytest.raises(ValidationError) as of_a_name:
        encode({"a": [{"\udcff": 1}]})

    assert caught.value.errors == [(("messages", 1, "content"), "not_unicode")]
    assert of_a_name.value.errors == [(("a", 0, r"'\udcff'"), "not_unicode")]


def test_a_missing_key_raises_at_the_call_and_sends_nothing(monkeypatch):
    """P-4, P-131."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # a connection looks nowhere else than in the context
    connection = OpenAI().connect()
    for method in (connection.stream, connection.generate, connection.prepare_request):
        with pytest.raises(EngineError) as caught:
            method(ASK, call())
        assert (caught.value.reason, caught.value.provider) == ("missing_key", "openai")


@pytest.mark.parametrize("key", ["", "  ", "\n"])
def test_a_blank_key_is_none(key):
    """P-131."""
    with pytest.raises(EngineError, match="openai"):
        OpenAI().connect().stream(ASK, call(api_key=SecretStr(key)))


def test_whitespace_around_a_key_is_removed():
    """P-131."""
    assert prepared(key=f" {KEY}\n").headers["authorization"] == f"Bearer {KEY}"


def test_the_key_is_checked_last():
    """P-4."""
    connection = OpenAI().connect()
    with pytest.raises(EngineError) as caught:
        connection.stream(Request(messages=[user("hi")]), call())
    assert caught.value.reason == "missing_model"
    with pytest.raises(ValidationError):
        connection.stream(ASK.model_copy(update={"temperature": math.nan}), call())


@pytest.mark.parametrize("fields", [{"base_url": "http://localhost:1/v1"}, {"auth": False}])
def test_no_key_is_needed_elsewhere(fields):
    """P-8, P-131."""
    request = OpenAI(**fields).connect().prepare_request(ASK, call())
    assert "authorization" not in request.headers


def test_without_auth_a_key_is_not_sent():
    """P-3, P-131."""
    assert "authorization" not in prepared(auth=False).headers


def test_another_port_or_path_of_the_providers_host_is_no_custom_host():
    """P-8."""
    assert not OpenAI(base_url="https://API.openai.com:443/v2").custom_host
    assert OpenAI(base_url="https://eu.api.openai.com/v1").custom_host


@pytest.mark.parametrize("key", [f"{KEY}\nx", f"{KEY}é", f"{KEY}\x00", f"a\u2028{KEY}"])
def test_a_key_no_header_can_hold_is_refused_unseen(key):
    """P-135."""
    with pytest.raises(AdapterError) as caught:
        OpenAI().connect().stream(ASK, call(api_key=SecretStr(key)))

    assert caught.value.reason == "authentication_failed"
    assert "openai" in caught.value.message
    assert "canary" not in repr(caught.value)
    assert not holds(caught.value, "canary")


def test_a_key_that_is_no_string_is_a_type_error():
    """P-135."""
    context = call().model_copy(update={"api_key": 12345678})
    with pytest.raises(TypeError, match="int") as caught:
        OpenAI().connect().stream(ASK, context)
    assert "12345678" not in str(caught.value)


@pytest.mark.parametrize("name", ["connect_timeout", "stream_timeout", "request_timeout"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [(True, TypeError), ("1", TypeError), (0, ValueError), (-1, ValueError), (math.nan, ValueError)],
)
def test_bad_times_are_refused_before_sending(name, value, kind):
    """P-125."""
    context = call().model_copy(update={name: value})
    with pytest.raises(kind, match=name):
        OpenAI(base_url="http://h/v1").connect().stream(ASK, context)


def test_nothing_is_sent_before_the_first_event_is_asked_for(dial):
    """P-4, P-5."""
    with FakeServer(script=["Hello"]) as server:
        connection = dial(server)
        connection.prepare_request(ASK, call())
        unread = connection.stream(ASK, call())
        connection.stream(ASK, call()).close()
        assert server.connections == 0

        assert text(unread) == "Hello"
        assert len(server.requests) == 1


def test_an_unread_stream_that_was_closed_gives_nothing(dial):
    """P-5."""
    with FakeServer(script=["Hello"]) as server:
        stream = dial(server).stream(ASK, call())
        stream.close()

        assert list(stream) == []
        assert server.connections == 0


# --- good answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_a_stream_and_a_whole_call_give_the_same(dial, framing):
    """P-6."""
    with FakeServer(default=Reply("Hello big world", framing=framing)) as server:
        connection = dial(server)
        folded = StreamCollector.collect(ask(connection)).response()
        whole = connection.generate(ASK, call(request_id="r" * 22))

        assert whole.request_id == "r" * 22
        assert whole.raw is not None
        assert whole.model_copy(update={"raw": None, "request_id": None}) == folded
        streamed, plain = server.requests
        assert (streamed.json["stream"], plain.json.get("stream")) == (True, None)


def test_the_key_and_the_options_go_out(dial):
    """P-2, P-9."""
    with FakeServer(script=["x"]) as server:
        ask(dial(server), api_key=SecretStr(KEY), options={"top_k": 3})

        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert server.requests[0].json["top_k"] == 3


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_an_event_is_delivered_as_soon_as_its_frame_is_there(dial, framing):
    """P-12."""
    reply = Reply(chunks=["a", "b"], fault="stall", after=2, framing=framing)
    with FakeServer(script=[reply]) as server:
        stream = dial(server).stream(ASK, call())
        assert [next(stream).type, next(stream).delta] == ["message_started", "a"]
        server.resume()
        assert next(stream).delta == "b"
        assert kinds(stream)[-1] == "message_completed"


@pytest.mark.parametrize("piece", [1, 2, 3, 50])
def test_any_cut_of_the_bytes_gives_the_same_events(dial, piece):
    """P-116."""
    reply = Reply(chunks=["Ї", "жак ", "🦔"])
    with FakeServer(script=[reply, Reply(chunks=reply.chunks, piece=piece)]) as server:
        connection = dial(server)
        assert ask(connection) == ask(connection)


def test_a_compressed_stream_is_understood(dial):
    """P-9."""
    with FakeServer(script=[Reply("Hello there", gzip=True)]) as server:
        assert text(ask(dial(server))) == "Hello there"


@pytest.mark.parametrize(
    "kind",
    ["text/event-stream", "Text/Event-Stream; charset=latin-1", "text/plain", "application/octet-stream", ""],
)
def test_content_types_that_are_read_as_events(dial, kind):
    """P-13, P-14: UTF-8, whatever the charset says."""
    with FakeServer(script=[Reply("Ї", headers={"content-type": kind})]) as server:
        assert text(ask(dial(server))) == "Ї"


def test_a_missing_content_type_is_read_as_events(dial):
    """P-14."""

    def answer(sock):
        read_request(sock)
        frames = "".join(f"data: {json.dumps(each)}\n\n" for each in (chunk("Hi"), chunk(finish="stop")))
        sock.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + frames.encode())
        sock.close()

    with raw_server(answer) as port:
        assert text(ask(dial(f"http://{HOST}:{port}/v1"))) == "Hi"


def test_a_stream_may_be_answered_with_one_json_object(dial):
    """P-14."""
    body = {"id": "1", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    with FakeServer(script=[Reply(json=body), Reply(json=body)]) as server:
        connection = dial(server)
        events = ask(connection)

        assert kinds(events)[:2] == ["message_started", "text_delta"]
        assert kinds(events)[-1] == "message_completed"
        assert text(events) == connection.generate(ASK, call()).text == "Hi"


@pytest.mark.parametrize("body", ["[]", "null", "1", "{", "", "\xff", '{"no": "answer"}'])
def test_a_json_answer_that_is_none_is_malformed(dial, body):
    """P-14, P-15."""
    reply = Reply(body=body.encode("latin-1"), headers={"content-type": "application/json"})
    with FakeServer(script=[reply, reply]) as server:
        connection = dial(server)

        assert fail(connection).reason == "malformed_response"
        with pytest.raises(AdapterError) as caught:
            connection.generate(ASK, call())
        assert caught.value.reason == "malformed_response"


def test_a_json_error_with_status_200_is_an_error(dial):
    """P-14, P-15."""
    reply = Reply(json={"error": {"message": "slow down", "code": 429}})
    with FakeServer(script=[reply, reply]) as server:
        connection = dial(server)

        assert fail(connection).reason == "rate_limited"
        with pytest.raises(AdapterError) as caught:
            connection.generate(ASK, call())
        assert caught.value.reason == "rate_limited"


@pytest.mark.parametrize("kind", ["text/html", "application/x-ndjson", f"image/{KEY}"])
def test_another_content_type_is_malformed(dial, kind):
    """P-14, P-140."""
    with FakeServer(script=[Reply(body="<html>", headers={"content-type": kind})]) as server:
        error = fail(dial(server), api_key=SecretStr(KEY))

    assert error.reason == "malformed_response"
    assert "canary" not in repr(error)


def test_bytes_that_are_not_utf8(dial):
    """P-13."""
    with FakeServer(script=[Reply(frames=[chunk("a"), b"data: \xff\n\n", chunk(finish="stop")])]) as server:
        error = fail(dial(server))

    assert isinstance(error, StreamError)
    assert (error.reason, error.event_index, error.provider) == ("malformed_event", 1, "openai")


# --- ends of streams ------------------------------------------------------------------------------------


def complete(events):
    return kinds(events)[-1] == "message_completed"


def test_the_final_marker_ends_at_once_and_later_bytes_are_ignored(dial):
    """P-49."""
    frames = [chunk("a"), chunk(finish="stop"), "[DONE]", chunk("b"), "not json"]
    with FakeServer(script=[Reply(frames=frames, fault="stall", after=5)]) as server:
        began = time.monotonic()
        events = ask(dial(server))

        assert time.monotonic() - began < 1
        assert complete(events)
        assert text(events) == "a"


def test_the_closing_sequence_does_not_wait_for_the_end_of_the_body(dial):
    """P-49."""
    with FakeServer(script=[Reply("a", fault="stall", after=99)]) as server:
        stream = dial(server).stream(ASK, call(stream_timeout=30))
        began = time.monotonic()
        events = [next(stream) for _ in range(4)]

        assert time.monotonic() - began < 1
        assert events[-1].type == "message_completed" or next(stream).type == "message_completed"
        assert list(stream) == []


FINISHED = [chunk("a"), chunk(finish="stop")]
UNFINISHED = [chunk("a"), chunk("b")]


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_a_clean_end_after_the_finish(dial, framing):
    """P-49."""
    with FakeServer(script=[Reply(frames=FINISHED, framing=framing)]) as server:
        assert complete(ask(dial(server)))


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_a_clean_end_before_the_finish(dial, framing):
    """P-49, C-28."""
    with FakeServer(script=[Reply(frames=UNFINISHED, framing=framing)]) as server:
        events = ask(dial(server))
        error = events[-1].error

    assert kinds(events) == ["message_started", "text_delta", "text_delta", "error"]
    assert (error.reason, error.metadata) == ("network_error", {"premature_close": True})
    assert error.status is None


@pytest.mark.parametrize(
    ("fault", "framing"), [("drop", "chunked"), ("truncate", "chunked"), ("truncate", "length")]
)
def test_a_broken_connection_after_the_finish(dial, fault, framing):
    """P-49, C-28."""
    reply = Reply(frames=[*FINISHED, ": x\n\n" * 3], fault=fault, after=2, framing=framing)
    with FakeServer(script=[reply]) as server:
        assert complete(ask(dial(server)))


@pytest.mark.parametrize(
    ("fault", "framing"), [("drop", "chunked"), ("truncate", "chunked"), ("truncate", "length")]
)
def test_a_broken_connection_before_the_finish(dial, fault, framing):
    """P-49, P-101."""
    reply = Reply(frames=[*UNFINISHED, chunk(finish="stop")], fault=fault, after=1, framing=framing)
    with FakeServer(script=[reply]) as server:
        events = ask(dial(server))
        error = events[-1].error

    assert kinds(events)[:2] == ["message_started", "text_delta"]
    assert (error.reason, error.metadata) == ("network_error", {"premature_close": True})


def test_silence_after_the_finish(dial):
    """P-49, C-28."""
    with FakeServer(script=[Reply(frames=FINISHED, fault="stall", after=2)]) as server:
        assert complete(ask(dial(server), stream_timeout=0.1))


def test_silence_before_the_finish(dial):
    """P-49, P-125."""
    with FakeServer(script=[Reply(frames=UNFINISHED, fault="stall", after=1)]) as server:
        error = fail(dial(server), stream_timeout=0.1)

    assert (error.reason, error.metadata) == ("timeout", {"limit": "stream_timeout"})


def test_an_end_without_any_answer(dial):
    """P-101: nothing had begun, so nothing was closed too early."""
    with FakeServer(script=[Reply(fault="drop", after=-1)]) as server:
        error = fail(dial(server))

    assert (error.reason, error.metadata) == ("network_error", {})


@pytest.mark.parametrize("tail", [b'data: {"id": "1", "choi', b'data: {"a": "\xd0', b"data", b'data: ["x"]'])
def test_a_last_event_that_was_cut_off_says_nothing(dial, tail):
    """P-120, P-109."""
    with FakeServer(script=[Reply(frames=[*FINISHED, tail]), Reply(frames=[*UNFINISHED, tail])]) as server:
        connection = dial(server)

        assert complete(ask(connection))
        assert fail(connection).metadata == {"premature_close": True}


@pytest.mark.parametrize("marker", [b"data: [DONE]", b"data: [DONE]\n", b"data:  [DONE] \r\n"])
def test_an_unterminated_last_event_counts(dial, marker):
    """P-120, P-121."""
    with FakeServer(script=[Reply(frames=[chunk("a"), marker])]) as server:
        assert complete(ask(dial(server)))


def test_an_unterminated_last_event_counts_when_the_connection_breaks_too(dial):
    """P-120, P-49."""
    finish = f"data: {json.dumps(chunk(finish='stop'))}\n".encode()
    with FakeServer(
        script=[Reply(frames=[chunk("a"), finish, b": x" * 9], fault="truncate", after=2)]
    ) as server:
        assert complete(ask(dial(server)))


def test_data_that_is_no_json_object_ends_the_stream(dial):
    """P-109."""
    with FakeServer(
        script=[Reply(frames=[chunk("a"), chunk("b"), f"oops {KEY}", chunk(finish="stop")])]
    ) as server:
        events = ask(dial(server), api_key=SecretStr(KEY))
        error = events[-1].error

    assert kinds(events) == ["message_started", "text_delta", "text_delta", "error"]
    assert (error.reason, error.event_index) == ("malformed_event", 2)
    assert "canary" not in repr(error)


def test_an_oversized_event_ends_the_stream(dial):
    """P-122."""
    with FakeServer(script=[Reply(frames=[chunk("a"), b"data: " + b"x" * 17_000_000])]) as server:
        error = fail(dial(server))

    assert (error.kind, error.reason) == ("stream", "malformed_event")


def test_keep_alives_are_no_events_and_restart_the_clock(dial):
    """P-123, P-126."""
    reply = Reply(chunks=["a", "b"], chunk_delay=0.25, heartbeat=0.03)
    with FakeServer(script=[reply]) as server:
        events = ask(dial(server), stream_timeout=0.15)

    assert text(events) == "ab"
    assert complete(events)


@pytest.mark.parametrize(
    "bare", [b'{"error": {"message": "broke", "code": 503}}', b'error: {"code": 503}\n\n']
)
@pytest.mark.parametrize("before", [[], FINISHED])
def test_an_error_outside_any_frame(dial, bare, before):
    """P-64, P-119: even after a finish reason."""
    with FakeServer(script=[Reply(frames=[*before, bare])]) as server:
        assert fail(dial(server)).reason == "provider_unavailable"


# --- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (301, "unknown"), (307, "unknown"), (400, "invalid_request"), (401, "authentication_failed"),
        (402, "unknown"), (404, "invalid_request"), (408, "timeout"), (429, "rate_limited"),
        (500, "provider_unavailable"), (529, "provider_unavailable"),
    ],
)  # fmt: skip
def test_http_errors_are_one_event_or_raised(dial, status, reason):
    """P-40, P-101, P-107."""
    headers = {"retry-after": "7", "x-request-id": "req-1", "location": "http://elsewhere.invalid/"}
    reply = Reply("no", status=status, headers=headers)
    with FakeServer(script=[reply, reply]) as server:
        connection = dial(server)
        events = ask(connection)
        with pytest.raises(AdapterError) as caught:
            connection.generate(ASK, call())

    assert kinds(events) == ["error"]
    error = events[0].error
    assert (error.reason, error.status, error.provider) == (reason, status, "openai")
    assert (error.retry_after, error.request_id) == (7.0, "req-1")
    assert caught.value == error


def test_a_redirect_is_refused(dial):
    """P-10."""
    with FakeServer() as elsewhere:
        reply = Reply(status=308, headers={"location": f"{elsewhere.base_url}/chat/completions"})
        with FakeServer(script=[reply]) as server:
            error = fail(dial(server), api_key=SecretStr(KEY))
        assert elsewhere.connections == 0

    assert (error.reason, error.status) == ("unknown", 308)
    assert "redirect" in error.message


def test_of_an_error_body_at_most_64_kib_are_read(dial):
    """P-101."""
    body = json.dumps({"error": {"message": "start"}, "pad": "x" * 200_000})
    with FakeServer(
        script=[Reply(status=400, body=body), Reply(status=400, body="x" * 70_000, fault="stall")]
    ) as server:
        connection = dial(server)
        assert fail(connection).message == "OpenAI HTTP 400"
        server.requests[0].wait_disconnected()
        assert fail(connection, stream_timeout=0.1).status == 400


@pytest.mark.parametrize("fault", ["stall", "drop", "truncate"])
def test_an_error_body_that_does_not_come_leaves_the_status(dial, fault):
    """P-101: under the same timers."""
    with FakeServer(script=[Reply("no", status=503, fault=fault)]) as server:
        error = fail(dial(server), stream_timeout=0.1)

    assert (error.reason, error.status) == ("provider_unavailable", 503)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "https://127.0.0.1:1/v1"])
def test_nobody_there(dial, url):
    """P-101."""
    error = fail(dial(url))
    assert (error.reason, error.status, error.metadata) == ("network_error", None, {})
    with pytest.raises(AdapterError) as caught:
        dial(url).generate(ASK, call())
    assert caught.value.reason == "network_error"


def test_a_certificate_that_is_not_accepted(dial, tmp_path):
    """P-101."""
    certificates = Certificates(tmp_path)
    with FakeServer(script=["x", "y"], tls=certificates.server) as server:
        assert fail(dial(server)).reason == "network_error"
        assert text(ask(dial(server, verify=certificates.bundle))) == "x"
        assert text(ask(dial(server, verify=False))) == "y"


# --- times ----------------------------------------------------------------------------------------------


def timed(function):
    began = time.monotonic()
    result = function()
    return result, time.monotonic() - began


def test_stream_timeout_before_the_headers(dial):
    """P-125."""
    with FakeServer(script=[Reply(fault="stall", after=-1)]) as server:
        error, took = timed(lambda: fail(dial(server), stream_timeout=0.2))

    assert (error.reason, error.metadata) == ("timeout", {"limit": "stream_timeout"})
    assert 0.2 <= took < 0.3 + 0.2


def test_request_timeout_is_wall_clock_however_slowly_bytes_drip(dial):
    """P-125: headers that drip in, and a body that does."""

    def drip(sock):
        read_request(sock)
        for byte in b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 200:
            sock.sendall(bytes([byte]))
            time.sleep(0.01)

    reply = Reply(body=" " * 500, piece=1, chunk_delay=0.01)
    with FakeServer(script=[reply]) as server, raw_server(drip) as port:
        for url in (server.base_url, f"http://{HOST}:{port}/v1"):
            began = time.monotonic()
            with pytest.raises(AdapterError) as caught:
                dial(url).generate(ASK, call(request_timeout=0.2))
            assert 0.2 <= time.monotonic() - began < 0.3 + 0.2
            assert (caught.value.reason, caught.value.metadata) == ("timeout", {"limit": "request_timeout"})
        assert server.requests[0].wait_disconnected()


def test_request_timeout_means_nothing_to_a_stream_nor_stream_timeout_to_a_whole_call(dial):
    """P-125."""
    slow = Reply("a b", delay=0.15, chunk_delay=0.05)
    with FakeServer(script=[slow, slow]) as server:
        connection = dial(server)
        assert complete(ask(connection, request_timeout=0.05))
        assert connection.generate(ASK, call(stream_timeout=0.05)).text == "a b"


def test_connect_timeout(dial):
    """P-125."""
    with raw_server(lambda sock: sock.recv(1 << 16) and sock.recv(1)) as port:
        url = f"https://{HOST}:{port}/v1"
        error, took = timed(lambda: fail(dial(url), connect_timeout=0.1))
        assert (error.reason, error.metadata) == ("timeout", {"limit": "connect_timeout"})
        assert took < 1
    with raw_server(lambda sock: sock.recv(1 << 16) and sock.recv(1)) as port:
        with pytest.raises(AdapterError) as caught:
            dial(f"https://{HOST}:{port}/v1").generate(ASK, call(connect_timeout=0.1))
        assert caught.value.metadata == {"limit": "connect_timeout"}


def test_the_consumers_own_time_does_not_count(dial):
    """P-126."""
    with FakeServer(script=[Reply("a b c d")]) as server:
        events = []
        for event in dial(server).stream(ASK, call(stream_timeout=0.1)):
            events.append(event)
            time.sleep(0.04)

    assert complete(events)


@pytest.mark.parametrize("limit", [math.inf, 1e300])
def test_no_limit_at_all(dial, limit):
    """P-125."""
    with FakeServer(script=["a", "b"]) as server:
        connection = dial(server)
        limits = {"connect_timeout": limit, "stream_timeout": limit, "request_timeout": limit}
        assert complete(ask(connection, **limits))
        assert connection.generate(ASK, call(**limits)).text == "b"


# --- halts ----------------------------------------------------------------------------------------------

STALLS = [Reply("a b", fault="stall", after=after) for after in (-1, 0, 2)]


def blocked(stream, request_seen):
    """A thread that reads a stream to its end, once the server has the request."""
    seen: queue.SimpleQueue = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: seen.put(list(stream)))
    thread.start()
    request_seen()
    return thread, seen


@pytest.mark.parametrize("reply", STALLS)
@pytest.mark.parametrize("secure", [False, True])
def test_close_from_another_thread_ends_a_blocked_read(dial, reply, secure, tmp_path):
    """P-127, C-44: within half a second, and the server sees the connection end."""
    certificates = Certificates(tmp_path) if secure else None
    with FakeServer(script=[reply], tls=certificates and certificates.server) as server:
        stream = dial(server, verify=certificates.bundle if certificates else True).stream(ASK, call())
        thread, seen = blocked(stream, server.wait_for_requests)
        began = time.monotonic()
        stream.close()
        events = seen.get(timeout=5)

        assert time.monotonic() - began < 0.5
        assert "error" not in kinds(events)
        assert server.requests[0].wait_disconnected(0.5)
        stream.close()
        thread.join(5)
        assert list(stream) == []


def test_close_between_two_events(dial):
    """P-127, P-128."""
    with FakeServer(script=[Reply("a b c", fault="stall", after=99), "again"]) as server:
        connection = dial(server)
        stream = connection.stream(ASK, call())
        next(stream)
        next(stream)
        stream.close()

        assert list(stream) == []
        assert server.requests[0].wait_disconnected(0.5)
        assert text(ask(connection)) == "again"
        assert server.connections == 2


def test_a_dropped_stream_is_closed(dial):
    """P-128: nothing that is forgotten stays."""
    with FakeServer(script=[Reply("a b c", fault="stall", after=2)]) as server:
        stream = dial(server).stream(ASK, call())
        next(stream)
        del stream
        gc.collect()

        assert server.requests[0].wait_disconnected(0.5)


def test_a_halt_during_name_resolution_sends_nothing(dial, monkeypatch):
    """P-127, B-99."""
    resolving, go = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def slow(*args):
        resolving.set()
        assert go.wait(5)
        return real(*args)

    with FakeServer(default="a") as server:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        stream = dial(server).stream(ASK, call())
        thread, seen = blocked(stream, lambda: resolving.wait(5))
        stream.close()
        go.set()

        assert seen.get(timeout=5) == []
        thread.join(5)
        assert server.connections == 0


@pytest.mark.parametrize("reply", STALLS)
def test_closing_the_connection_ends_its_streams(dial, reply):
    """P-1."""
    with FakeServer(script=[reply]) as server:
        connection = dial(server)
        thread, seen = blocked(connection.stream(ASK, call()), server.wait_for_requests)
        connection.close()
        connection.close()
        *_, last = seen.get(timeout=1)
        thread.join(5)

        assert (last.type, last.error.reason, last.error.provider) == ("error", "adapter_down", "openai")
        assert server.requests[0].wait_disconnected(0.5)


def test_closing_the_connection_ends_whole_calls(dial):
    """P-1."""
    with FakeServer(script=[Reply(fault="stall", after=-1)]) as server:
        connection = dial(server)
        seen: queue.SimpleQueue = queue.SimpleQueue()

        def run():
            try:
                connection.generate(ASK, call())
            except AllmError as error:
                seen.put(error)

        thread = threading.Thread(target=run)
        thread.start()
        server.wait_for_requests()
        connection.close()

        assert seen.get(timeout=1).reason == "adapter_down"
        thread.join(5)


def test_a_closed_connection_refuses_calls_and_ends_unread_streams(dial):
    """P-1."""
    with FakeServer(default="a") as server:
        connection = dial(server)
        unread = connection.stream(ASK, call())
        connection.close()

        assert [event.error.reason for event in unread] == ["adapter_down"]
        for method in (connection.stream, connection.generate, connection.prepare_request):
            with pytest.raises(AdapterError) as caught:
                method(ASK, call())
            assert caught.value.reason == "adapter_down"
        assert server.connections == 0


@pytest.mark.logs_errors("a process that was killed is reported")
@pytest.mark.parametrize("reason", ["shutdown", "kill"])
def test_an_exit_of_the_reading_process_ends_the_read(dial, reason):
    """B-22, B-75."""
    ends: queue.SimpleQueue = queue.SimpleQueue()

    def work(stream):
        try:
            ends.put(list(stream))
        except BaseException as error:
            ends.put(error)
            raise

    with FakeServer(script=[Reply("a b", fault="stall", after=2)]) as server:
        pid = beam.spawn(work, dial(server).stream(ASK, call()))
        server.wait_for_requests()
        beam.exit(pid, reason)

        assert isinstance(ends.get(timeout=1), beam.Exit)
        assert server.requests[0].wait_disconnected(0.5)


# --- the pool -------------------------------------------------------------------------------------------


def test_finished_answers_share_one_socket(dial):
    """P-127: the stream, the whole call, the error."""
    script = ["a", "b", Reply(status=500), Reply(frames=FINISHED), Reply("c", piece=1), "d"]
    with FakeServer(script=script) as server:
        connection = dial(server)
        ask(connection)
        connection.generate(ASK, call())
        for _ in range(4):
            ask(connection)

        assert server.connections == 1


@pytest.mark.parametrize(
    "reply", [Reply("a", fault="drop", after=1), Reply(frames=["oops"], fault="stall", after=1)]
)
def test_failed_answers_do_not(dial, reply):
    """P-127, B-98."""
    with FakeServer(script=[reply, "b"]) as server:
        connection = dial(server)
        fail(connection)
        assert text(ask(connection)) == "b"
        assert server.connections == 2


def test_many_streams_at_once_do_not_mix_nor_wait(dial):
    """P-1."""
    count = 40
    script = [lambda request: Reply(request.json["messages"][0]["content"], chunk_delay=0.01)] * count
    with FakeServer(script=script) as server:
        connection = dial(server)
        found: dict = {}

        def run(name):
            found[name] = text(ask(connection, Request(messages=[user(name)], model="m")))

        threads = [threading.Thread(target=run, args=(f"I am {number}",)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

        assert found == {f"I am {number}": f"I am {number}" for number in range(count)}


def test_one_call_is_one_attempt(dial):
    """P-130."""
    with FakeServer(default=Reply(status=503)) as server:
        connection = dial(server)
        fail(connection)
        assert len(server.requests) == 1


def test_nothing_is_kept_of_a_finished_stream(dial):
    """P-1, P-128."""
    with FakeServer(default="a") as server:
        connection = dial(server)
        ask(connection)

        assert not connection._running


# --- facts of a failure that comes late -------------------------------------------------------------------


@pytest.mark.parametrize("header", ["x-request-id", "request-id"])
@pytest.mark.parametrize(
    "reply",
    [
        {"frames": [chunk("a"), {"error": {"message": "no", "code": 503}}]},
        {"frames": [chunk("a")]},
        {"text": "a b c", "fault": "drop", "after": 2},
        {"json": {"error": {"message": "no"}, "request_id": "of the body"}},
    ],
)
def test_an_answer_that_fails_late_names_the_request_too(dial, reply, header):
    """P-107: the id stands in the headers that came long before."""
    with FakeServer(default=Reply(**reply, headers={header: "req-1"})) as server:
        error = fail(dial(server))
        assert isinstance(error, AdapterError)
        assert error.request_id == "req-1"


@pytest.mark.parametrize(
    "reply",
    [
        {"frames": [{"error": {"message": "no", "code": 503}}]},
        {"text": "a b c", "fault": "drop", "after": 0},
        {"json": {"error": {"message": "no", "code": 429}}},
    ],
)
def test_headers_say_whether_and_when_to_ask_again_also_of_what_fails_late(dial, reply):
    """P-101, P-108."""
    headers = {"x-should-retry": "false", "retry-after": "7"}
    with FakeServer(default=Reply(**reply, headers=headers)) as server:
        error = fail(dial(server))
        assert (error.metadata["no_retry"], error.retry_after) == (True, 7.0)

    with FakeServer(default=Reply(**reply, headers={"x-should-retry": "true"})) as server:
        error = fail(dial(server))
        assert "no_retry" not in error.metadata
        assert error.retry_after is None


def test_a_whole_answer_that_is_none_names_the_request_too(dial):
    """P-107."""
    with FakeServer(default=Reply(json=[], headers={"x-request-id": KEY + "-r"})) as server:
        with pytest.raises(AdapterError) as caught:
            dial(server).generate(ASK, call())
    assert caught.value.request_id == "[REDACTED]"


def test_what_a_failing_frame_says_is_delivered_before_its_error(dial):
    """P-44, P-61: partial text is what the deltas carried, the last of them included."""
    with FakeServer(default=Reply(frames=[chunk("a"), chunk("b", "error"), chunk("c")])) as server:
        events = ask(dial(server))
        assert kinds(events) == ["message_started", "text_delta", "text_delta", "error"]
        assert [event.delta for event in events[1:3]] == ["a", "b"]
        assert events[-1].error.reason == "provider_unavailable"


def test_a_failing_first_frame_that_says_nothing_is_the_only_event(dial):
    """P-40, P-61."""
    with FakeServer(default=Reply(frames=[chunk("", "error")])) as server:
        assert kinds(ask(dial(server))) == ["error"]


def test_the_last_frame_that_the_end_ends_may_fail_after_its_text(dial):
    """P-44, P-120."""
    last = b"data: " + json.dumps(chunk("b", "error")).encode()
    with FakeServer(default=Reply(frames=[chunk("a"), last])) as server:
        assert kinds(ask(dial(server))) == ["message_started", "text_delta", "text_delta", "error"]


# --- secrets --------------------------------------------------------------------------------------------


def holds(error, secret, depth=6):
    """Whether a secret can be reached from an error: its state, its chain, the locals of its frames."""
    seen: set[int] = set()

    def look(value, left):
        if id(value) in seen or left < 0 or isinstance(value, SecretStr):
            return False
        seen.add(id(value))
        if isinstance(value, bytes | str):
            return (secret if isinstance(value, str) else secret.encode()) in value
        if isinstance(value, dict):
            return any(look(key, left - 1) or look(item, left - 1) for key, item in value.items())
        if isinstance(value, list | tuple | set):
            return any(look(item, left - 1) for item in value)
        return look(getattr(value, "__dict__", {}), left - 1)

    chain = error
    while chain is not None:
        if look((chain.args, vars(chain), str(chain), repr(chain)), depth):
            return True
        trace = chain.__traceback__
        while trace is not None:
            if "/allm_actors/" in trace.tb_frame.f_code.co_filename and look(
                dict(trace.tb_frame.f_locals), depth
            ):
                return True
            trace = trace.tb_next
        chain = chain.__cause__ or chain.__context__
    return False


FAILURES = [
    Reply(f"bad key {KEY}", status=401, headers={"x-request-id": KEY}), Reply(fault="drop", after=-1),
    Reply("a", fault="drop", after=1), Reply("a", fault="truncate", after=1), Reply(frames=[f"oops {KEY}"]),
    Reply(fault="stall", after=-1), Reply(body=KEY, headers={"content-type": "application/json"}),
    Reply(json={"error": {"message": KEY, "code": KEY, "type": KEY}}), Reply(status=302), Reply(json={"a": KEY}),
]  # fmt: skip


@pytest.mark.parametrize("reply", FAILURES)
def test_no_error_leads_to_the_key_or_to_the_http_library(dial, reply, caplog):
    """P-140, P-141, P-142."""
    caplog.set_level(logging.DEBUG)
    context = call(api_key=SecretStr(KEY), stream_timeout=0.2, request_timeout=0.2)
    with FakeServer(default=reply) as server:
        connection = dial(server)
        *_, last = connection.stream(ASK, context)
        caught = last.error
        try:
            connection.generate(ASK, context)
        except AllmError as error:
            errors = [error, caught]
        else:
            errors = [caught]
        for error in errors:
            assert isinstance(error, AllmError)
            assert error.__cause__ is None
            assert error.__context__ is None
            assert not holds(error, "canary")
            assert "canary" not in json.dumps(error.to_dict()) + str(pickle.dumps(error))
        assert caught.__traceback__ is None

    assert "canary" not in caplog.text
    assert "canary" not in repr(connection) + repr(context) + str(vars(connection))


def test_what_an_error_was_chained_to_is_cut_off(dial, monkeypatch):
    """P-141: a translation may raise while it handles something foreign."""

    def break_down(*_args, **_fields):
        try:
            raise ValueError("foreign")
        except ValueError as error:
            raise AdapterError("unknown") from error

    with FakeServer(default="a") as server:
        connection = dial(server)
        monkeypatch.setattr(OpenAIWire, "decoder", break_down)
        monkeypatch.setattr(OpenAIWire, "decode", break_down)
        with pytest.raises(AdapterError) as caught:
            connection.generate(ASK, call())
        for error in (fail(connection), caught.value):
            assert error.__cause__ is None
            assert error.__context__ is None


def test_the_key_is_not_in_the_url_or_in_thread_names(dial):
    """P-142."""
    with FakeServer(script=["a"]) as server:
        stream = dial(server).stream(ASK, call(api_key=SecretStr(KEY)))
        next(stream)
        assert "canary" not in "".join(thread.name for thread in threading.enumerate())
        assert "canary" not in server.requests[0].path
        stream.close()


def test_a_request_that_waits_to_be_sent_shows_no_key():
    """P-142: not even while it is held by a stream nobody has read."""
    connection = OpenAI().connect()
    stream = connection.stream(ASK, call(api_key=SecretStr(KEY)))

    assert "canary" not in repr(stream) + repr(connection)
    assert "canary" not in repr(connection._prepare(ASK, call(api_key=SecretStr(KEY)), stream=True))


class Unused(OpenAI):
    """Its own default host."""

    provider: ClassVar[str] = "unused"
    default_base_url: ClassVar[str] = "http://127.0.0.1:9/v1"
    base_url: str = default_base_url


def test_a_subclass_has_its_own_default_host():
    """P-8."""
    assert not Unused().custom_host
    with pytest.raises(EngineError, match="unused"):
        Unused().connect().stream(ASK, call())
    assert post("http://h").headers["content-length"]
