"""FakeServer: what users test their services with has to keep its own promises."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

import pytest
import trustme

from allm_actors.data import ToolCall
from allm_actors.testing import FakeServer, Reply

HOST = "127.0.0.1"


@pytest.fixture
def connect():
    """Raw client connections, closed after the test."""
    opened = []

    def dial(server, tls=None):
        parts = urlsplit(server.url)
        if tls is not None:
            connection = http.client.HTTPSConnection(HOST, parts.port, timeout=5, context=tls)
        else:
            connection = http.client.HTTPConnection(HOST, parts.port, timeout=5)
        opened.append(connection)
        return connection

    yield dial
    for each in opened:
        each.close()


def ask(connection, *, stream=True, path="/v1/chat/completions", **body):
    text = json.dumps({"model": "m", "stream": stream, **body})
    connection.request("POST", path, text, {"Content-Type": "application/json"})
    return connection.getresponse()


def frames(response):
    return [part.removeprefix("data: ") for part in response.read().decode().split("\n\n") if part]


def test_a_stream_speaks_chat_completions(connect):
    with FakeServer(script=["Hello big world"]) as server:
        response = ask(connect(server), stream_options={"include_usage": True})
        *chunks, last = frames(response)

    assert response.status == 200
    assert response.getheader("content-type") == "text/event-stream"
    assert last == "[DONE]"
    decoded = [json.loads(chunk) for chunk in chunks]
    deltas = [chunk["choices"][0]["delta"] for chunk in decoded if chunk["choices"]]
    assert [delta["content"] for delta in deltas if delta.get("content")] == ["Hello", " big", " world"]
    assert decoded[-2]["choices"][0]["finish_reason"] == "stop"
    assert decoded[-1]["usage"] == {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def test_usage_is_streamed_only_if_asked_for(connect):
    with FakeServer(script=["Hi"]) as server:
        assert '"usage"' not in "".join(frames(ask(connect(server))))


def test_a_whole_answer_is_one_json_object(connect):
    call = ToolCall(id="c1", name="add", arguments={"a": 1})
    with FakeServer(script=[Reply("Hi", tool_calls=[call], reasoning="hm", usage=None)]) as server:
        body = json.loads(ask(connect(server), stream=False).read())

    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Hi"
    assert choice["message"]["reasoning_content"] == "hm"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1}'}
    assert "usage" not in body


def test_tool_calls_are_streamed_in_pieces(connect):
    call = ToolCall(id="c1", name="add", arguments={}, raw_arguments='{"a": 1')
    with FakeServer(script=[Reply(tool_calls=[call], argument_pieces=3)]) as server:
        *chunks, _ = frames(ask(connect(server)))

    deltas = [json.loads(chunk)["choices"][0]["delta"].get("tool_calls", [{}])[0] for chunk in chunks]
    opening = next(delta for delta in deltas if "id" in delta)
    assert opening["id"] == "c1"
    assert opening["function"]["name"] == "add"
    assert "".join(delta.get("function", {}).get("arguments", "") for delta in deltas) == '{"a": 1'


def test_requests_are_recorded(connect):
    with FakeServer(script=["a"]) as server:
        before = time.monotonic()
        ask(connect(server), path="/v1/chat/completions?x=1").read()
        (request,) = server.wait_for_requests()

    assert (request.method, request.path) == ("POST", "/v1/chat/completions?x=1")
    assert request.headers["content-type"] == "application/json"
    assert request.json["model"] == "m"
    assert before <= request.received_at <= time.monotonic()
    assert request.connection == 1


def test_replies_are_taken_in_order_and_then_the_default_answers(connect):
    with FakeServer(script=["one", Reply(status=503)], default="more") as server:
        connection = connect(server)
        answers = [ask(connection, stream=False) for _ in range(1)]
        assert "one" in answers[0].read().decode()
        refused = ask(connection)
        assert refused.status == 503
        assert "error" in json.loads(refused.read())
        assert "more" in ask(connection, stream=False).read().decode()
        assert "more" in ask(connection, stream=False).read().decode()

        assert server.connections == 1


def test_a_script_that_is_used_up_says_so(connect):
    with FakeServer() as server:
        response = ask(connect(server))
        assert response.status == 404
        assert "no reply left" in response.read().decode()

        server.add("more")
        assert ask(connect(server)).status == 200


def test_a_function_may_answer(connect):
    with FakeServer(script=[lambda request: request.json["model"], lambda _: 1 / 0]) as server:
        assert '"content": "m"' in ask(connect(server), stream=False).read().decode()
        broken = ask(connect(server))
        assert broken.status == 500
        assert "ZeroDivisionError" in broken.read().decode()


def test_exact_bytes_frames_and_json(connect):
    script = [
        Reply(body=b"\x00raw", headers={"content-type": "audio/wav"}),
        Reply(frames=[{"a": 1}, "[DONE]", b": c\n\n"]),
        Reply(json=[1, "é"]),
    ]
    with FakeServer(script=script) as server:
        raw = ask(connect(server))
        assert (raw.getheader("content-type"), raw.read()) == ("audio/wav", b"\x00raw")
        assert ask(connect(server)).read() == b'data: {"a":1}\n\ndata: [DONE]\n\n: c\n\n'
        assert json.loads(ask(connect(server)).read()) == [1, "é"]


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_framings(framing, connect):
    with FakeServer(script=[Reply(body="x" * 100, framing=framing)]) as server:
        response = ask(connect(server))

        assert response.read() == b"x" * 100
        assert (response.getheader("content-length") == "100") == (framing == "length")
        assert response.chunked == (framing == "chunked")
        assert response.will_close == (framing == "close")


def test_headers_status_and_a_closed_connection(connect):
    reply = Reply(status=429, headers={"Retry-After": "2", "x-request-id": "r"}, keep_alive=False)
    with FakeServer(script=[reply]) as server:
        response = ask(connect(server))

        assert (response.status, response.getheader("retry-after")) == (429, "2")
        assert response.getheader("connection") == "close"


def test_a_body_may_be_compressed(connect):
    with FakeServer(script=[Reply(body="hello", gzip=True)]) as server:
        response = ask(connect(server))

        assert response.getheader("content-encoding") == "gzip"
        assert gzip.decompress(response.read()) == b"hello"


def received_parts(server, count):
    """What comes in, one `recv` at a time, from a client that reads at once."""
    with socket.create_connection((HOST, urlsplit(server.url).port), timeout=5) as sock:
        sock.sendall(b"POST /x HTTP/1.1\r\nhost: h\r\n\r\n")
        parts = []
        while b"".join(parts).count(b"|") < count:
            part = sock.recv(4096)
            if not part:
                break
            parts.append(part)
        return b"".join(parts)


def test_the_body_is_cut_where_it_is_asked():
    with FakeServer(script=[Reply(body="ab|cd|", split_at=[1, 4]), Reply(body="abc|", piece=3)]) as server:
        assert b"1\r\na\r\n3\r\nb|c\r\n2\r\nd|\r\n" in received_parts(server, 2)
        assert b"3\r\nabc\r\n1\r\n|\r\n" in received_parts(server, 1)


def test_delays(connect):
    reply = Reply(chunks=["a", "b"], delay=0.05, chunk_delay=0.02)
    with FakeServer(script=[reply]) as server:
        began = time.monotonic()
        response = ask(connect(server))
        headers = time.monotonic() - began
        response.read()

        assert headers >= 0.05
        assert time.monotonic() - began - headers >= 4 * 0.02 * 0.9


@pytest.mark.parametrize("after", [0, 2])
def test_drop_resets_the_connection(after, connect):
    with FakeServer(script=[Reply("a b c", fault="drop", after=after)]) as server:
        response = ask(connect(server))
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            response.read()


def test_drop_before_the_headers(connect):
    with FakeServer(script=[Reply(fault="drop", after=-1)]) as server:
        with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
            ask(connect(server))


def test_end_is_a_clean_early_end(connect):
    with FakeServer(script=[Reply("a b c", fault="end", after=2)]) as server:
        connection = connect(server)

        assert len(frames(ask(connection))) == 2


def test_truncate_breaks_a_chunk(connect):
    with FakeServer(script=[Reply("a b c", fault="truncate", after=2)]) as server:
        with pytest.raises(http.client.IncompleteRead):
            ask(connect(server)).read()


def test_malformed_adds_one_broken_frame(connect):
    with FakeServer(script=[Reply("a b", fault="malformed", after=2)]) as server:
        found = frames(ask(connect(server)))

    assert found[2] == '{"broken": '
    assert found[-1] == "[DONE]"


def test_stall_is_silent_until_resumed(connect):
    with FakeServer(script=[Reply("a b", fault="stall", after=2)]) as server:
        response = ask(connect(server))
        response.fp.readline()
        request = server.requests[0]
        timer = threading.Timer(0.05, request.resume)
        timer.start()
        began = time.monotonic()
        rest = response.fp.read(1)
        while b"[DONE]" not in rest:
            rest += response.fp.read1(100)
        timer.join()

        assert time.monotonic() - began >= 0.04


def test_a_heartbeat_is_sent_while_there_is_nothing_to_say(connect):
    with FakeServer(script=[Reply("a", fault="stall", after=0, heartbeat=0.01)]) as server:
        response = ask(connect(server))

        assert response.read1(100).startswith(b": ")
        assert response.read1(100).startswith(b": ")


@pytest.mark.parametrize(
    "reply", [Reply(fault="stall", after=-1), Reply(fault="stall", after=1), Reply(delay=9)]
)
def test_a_client_that_goes_is_noticed_in_silence(reply):
    """P-127 is tested with this: the server sees the connection end."""
    with FakeServer(script=[reply]) as server:
        sock = socket.create_connection((HOST, urlsplit(server.url).port), timeout=5)
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 15\r\n\r\n" + b'{"stream":true}')
        (request,) = server.wait_for_requests()
        assert not request.wait_disconnected(0.02)

        left = time.monotonic()
        sock.close()

        assert request.wait_disconnected(2)
        assert request.disconnected_at - left < 0.1


def test_a_client_that_only_shuts_down_is_noticed():
    with FakeServer(script=[Reply(fault="stall", after=1)]) as server:
        with socket.create_connection((HOST, urlsplit(server.url).port), timeout=5) as sock:
            sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n\r\n")
            (request,) = server.wait_for_requests()
            sock.shutdown(socket.SHUT_RDWR)

            assert request.wait_disconnected(2)


def test_the_end_of_an_idle_connection_is_noticed(connect):
    with FakeServer(script=["a"]) as server:
        connection = connect(server)
        ask(connection).read()
        (request,) = server.requests
        assert request.disconnected_at is None

        connection.close()

        assert request.wait_disconnected(2)
        server.wait_for_connections(0)
        assert server.open_connections == 0


@pytest.fixture(scope="module")
def tls():
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def test_tls(tls, connect):
    with FakeServer(script=["hello", Reply("x", fault="stall", after=1)], tls=tls[0]) as server:
        assert server.base_url.startswith("https://")
        assert len(frames(ask(connect(server, tls[1])))) == 4

        connection = connect(server, tls[1])
        ask(connection).read1(1)
        connection.sock.close()
        connection.close()

        assert server.requests[1].wait_disconnected(2)


def test_close_is_quick_whatever_the_clients_do(connect):
    script = [
        Reply(fault="stall", after=-1),
        Reply("x", fault="stall", after=1),
        Reply(body=b"x" * 50_000_000),
    ]
    server = FakeServer(script=script)
    sockets = []
    for _ in script:
        sock = socket.create_connection((HOST, urlsplit(server.url).port), timeout=5)
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n\r\n")
        sockets.append(sock)
    server.wait_for_requests(3)

    began = time.monotonic()
    server.close()
    server.close()

    assert time.monotonic() - began < 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fake-server")]
    for sock in sockets:
        sock.close()


def test_many_clients_at_once(connect):
    with FakeServer(default="hi") as server:
        found = []

        def client():
            found.append(frames(ask(connect(server)))[-1])

        threads = [threading.Thread(target=client) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)

        assert found == ["[DONE]"] * 20
        assert len(server.requests) == 20


def test_waiting_has_a_deadline():
    with FakeServer() as server:
        with pytest.raises(TimeoutError):
            server.wait_for_requests(1, timeout=0.01)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fault": "drops"}, "fault must be one of stall, drop, end, truncate, malformed; not 'drops'"),
        ({"framing": "none"}, "framing must be one of chunked, length, close; not 'none'"),
        ({"status": "503"}, "status must be a whole number, not str"),
        ({"status": 20}, "status must have three digits, not 20"),
        ({"delay": -1}, "delay must not be below zero, got -1"),
        ({"chunk_delay": "1"}, "chunk_delay must be a number of seconds, not str"),
        ({"text": 3}, "text must be str, not int"),
    ],
)
def test_a_reply_that_cannot_be_given_is_refused_where_it_is_written(fields, said):
    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        Reply(**fields)


def test_what_is_no_answer_is_refused_by_the_script():
    with pytest.raises(TypeError, match="not one string"):
        FakeServer(script="hello")
    with pytest.raises(TypeError, match="not int"):
        FakeServer(script=["hello", 3])
    with pytest.raises(TypeError, match="not dict"):
        FakeServer(default={})
    with FakeServer() as server, pytest.raises(TypeError, match="not NoneType"):
        server.add(None)


def test_a_function_that_gives_no_answer_is_an_answer_that_says_so(connect):
    with FakeServer(script=[lambda _request: 3]) as server:
        response = ask(connect(server))

        assert response.status == 500
        assert b"the script gave int" in response.read()


def test_it_knows_what_it_sent_and_when_it_was_done(connect):
    """A test that compares what was delivered with what was sent needs the other side's word for it."""
    with FakeServer(script=["Hello big world"]) as server:
        connection = connect(server)
        body = ask(connection).read()
        (request,) = server.requests
        connection.close()
        assert request.wait_disconnected()  # so it has written down the last of it
    assert request.sent == len(body)
    assert request.received_at <= request.answered_at


@pytest.mark.parametrize(("fault", "said"), [("stall", 2), ("drop", 2), ("truncate", 2), ("stall", -1)])
def test_a_reply_that_a_fault_ends_was_never_answered(connect, fault, said):
    """What a fault sends of its own does not count as said."""
    frames_of = [b"data: one\n\n", b"data: two\n\n", b"data: three\n\n"]
    with FakeServer(script=[Reply(frames=frames_of, fault=fault, after=said)]) as server:
        connection = connect(server)
        connection.request("POST", "/v1/chat/completions", "{}")
        (request,) = server.wait_for_requests()
        if fault == "stall" and said > 0:
            connection.getresponse().read(len(frames_of[0] + frames_of[1]))
        elif fault != "stall":
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                connection.getresponse().read()
        connection.close()
        assert request.wait_disconnected()
        assert request.sent == (len(frames_of[0] + frames_of[1]) if said > 0 else 0)
        assert request.answered_at is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tool_calls": [("id", "name")]}, r"tool_calls\[0\] must be a ToolCall, not tuple"),
        ({"tool_calls": "add"}, "tool_calls must be a list of ToolCall, not str"),
        ({"chunks": ["a", 1]}, r"chunks\[1\] must be a str, not int"),
    ],
)
def test_what_cannot_be_said_is_refused_before_a_server_tries_to(fields, said):
    with pytest.raises(TypeError, match=said):
        Reply(**fields)
