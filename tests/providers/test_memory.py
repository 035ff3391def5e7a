"""What a hostile or broken server can make us hold: no more than the stated limits.

Peaks are those of Python's own allocations, read by `tracemalloc` around one call over a real socket or through
the decoder that a stream is read with.
"""

from __future__ import annotations

import gc
import gzip
import time
import tracemalloc

import pytest

from allm_actors.data import Request, user
from allm_actors.engine import CallContext
from allm_actors.providers import OpenAI
from allm_actors.providers._sse import MAX_EVENT_BYTES, SSEDecoder
from allm_actors.testing import FakeServer, Reply
from tests.providers._net import HOST, raw_server, read_request

ASK = Request(messages=[user("hi")], model="m")
MIB = 1024 * 1024
CALL = CallContext(stream_timeout=10, request_timeout=10)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"


class Peak:
    """The most that was allocated inside the block on top of what there was before, in MiB."""

    def __enter__(self):
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *_):
        self.mib = (tracemalloc.get_traced_memory()[1] - self._before) / MIB
        tracemalloc.stop()


def pour(*parts):
    """A server that sends these parts, the last one until the client has enough."""

    def serve(sock):
        read_request(sock)
        *first, last = parts
        for part in first:
            sock.sendall(part)
        while True:
            sock.sendall(last)

    return serve


def ask(port):
    connection = OpenAI(base_url=f"http://{HOST}:{port}/v1").connect()
    *before, last = connection.stream(ASK, CALL)
    connection.close()
    return before, last.error


@pytest.mark.parametrize(
    ("first", "more", "fails"),
    [
        (b"data: ", b"x" * 65536, True),  # one line
        (b"", b"data: " + b"x" * 65536 + b"\n", True),  # one event of many lines
        (b"", b"data: " + b"x" * 250 + b"\n", True),
        (b"data: 1\n", b"".join(b"f%d: %s\n" % (n, b"x" * 4096) for n in range(16)), True),
        (b"", b"".join(b"f%d: %s\n" % (n, b"x" * 4096) for n in range(16)), False),  # no data: no event
        (b"never: ", b"x" * 65536, True),  # a field nobody knows
        (b"", b"x" * 65536, True),  # no field at all
        (b"{", b'"a": ' + b"1" * 4000 + b",\n", False),  # an object outside any field, and more of it
    ],
    ids=["line", "lines", "short lines", "fields and data", "fields", "unknown field", "no field", "object"],
)
def test_an_endless_event_is_given_up_at_its_limit(first, more, fails):
    """P-122: 16 MiB of data, and a small multiple of it while it is put together."""
    with Peak() as peak:
        decoder, sent = SSEDecoder(), 0
        decoder.feed(first)
        while decoder.failure is None and sent < 1.25 * MAX_EVENT_BYTES:
            assert decoder.feed(more) == []
            sent += len(more)
    assert peak.mib < 16 * 3
    assert (decoder.failure is not None) is fails


def test_an_endless_event_ends_the_stream():
    """P-109, P-122: as an error, over a socket, without waiting for the end that never comes."""
    with raw_server(pour(HEAD + b"\r\n", b'data: {"a": "', b"x" * 65536)) as port, Peak() as peak:
        before, error = ask(port)
    assert before == []
    assert error.reason == "malformed_event"
    assert "16 MiB" in error.message
    assert peak.mib < 16 * 4


def test_fields_without_data_are_not_piled_up():
    """P-119, P-122: each has another name, and no event ever comes of them."""
    with Peak() as peak:
        decoder = SSEDecoder()
        for n in range(640):
            decoder.feed(b"f%d: %s\n" % (n, b"x" * 65536))
        assert decoder.feed(b"\ndata: 1\n\n")[0].data == "1"
    assert peak.mib < 16 * 2


def test_closing_braces_outside_any_field_cost_no_more_than_their_size():
    """P-119: each might be the end of an object that has no end."""
    began = time.process_time()
    decoder = SSEDecoder()
    decoder.feed(b'{"error": [\n')
    decoder.feed(b"}\n" * 500_000)
    assert decoder.feed(b"\ndata: 1\n\n")[0].data == "1"
    assert time.process_time() - began < 10


def test_an_endless_comment_is_not_kept():
    """P-118, P-123: it may be as long as it likes."""
    with Peak() as peak:
        decoder = SSEDecoder()
        decoder.feed(b": ")
        for _ in range(1024):
            decoder.feed(b"x" * 65536)
        assert decoder.feed(b"\n\ndata: 1\n\n")[0].data == "1"
    assert peak.mib < 1


@pytest.mark.parametrize("line", [b"x: y\r\n" * 1000, b"x: " + b"y" * 65536], ids=["many", "one"])
def test_endless_headers_are_given_up(line):
    """P-101: the answer never begins, and nothing of it is kept."""
    with raw_server(pour(HEAD, line)) as port, Peak() as peak:
        before, error = ask(port)
    assert before == []
    assert error.reason == "network_error"
    assert peak.mib < 4


def test_a_bomb_inside_a_compressed_event_is_given_up_at_its_limit():
    """P-9, P-122: 100 KB that would be 100 MiB."""
    bomb = gzip.compress(b'data: {"a": "' + bytes(b"x" * (100 * MIB)), compresslevel=6)
    head = HEAD + b"content-encoding: gzip\r\n\r\n"

    def serve(sock):
        read_request(sock)
        sock.sendall(head + bomb)

    assert len(bomb) < MIB
    with raw_server(serve) as port, Peak() as peak:
        before, error = ask(port)
    assert before == []
    assert error.reason == "malformed_event"
    assert peak.mib < 16 * 4


def test_a_bomb_of_an_error_body_is_read_to_64_kib():
    """P-101: whatever it would unpack to."""
    bomb = gzip.compress(b"x" * (50 * MIB))
    headers = {"content-encoding": "gzip"}
    with FakeServer(default=Reply(body=bomb, status=500, headers=headers)) as server, Peak() as peak:
        *_, last = OpenAI(base_url=server.base_url).connect().stream(ASK, CALL)
    assert last.error.reason == "provider_unavailable"
    assert peak.mib < 8


def test_a_million_small_events_are_not_piled_up():
    """P-12: a reader that pauses holds the part it is reading, and the server waits."""
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n' * 1000
    with raw_server(pour(HEAD + b"\r\n", chunk)) as port:
        connection = OpenAI(base_url=f"http://{HOST}:{port}/v1").connect()
        stream = connection.stream(ASK, CALL)
        next(stream)
        with Peak() as peak:
            for _ in range(20_000):
                next(stream)
        stream.close()
        connection.close()
    assert peak.mib < 8
