"""Streams over real sockets: what is halted, dropped or crashed leaves no connection behind."""

import asyncio
import gc
import threading
import time

import pytest

import allm_actors as allm
from allm_actors import beam
from allm_actors.engine import Engine, Retry
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, Reply

from .helpers import SOON, in_thread, until, within
from .test_event_stream import gone, kill_adapter, stream_processes

HALF = 0.5
STALLED = Reply("Hello there", fault="stall", after=2)
DEAF = Reply("Hello there", fault="stall", after=-1)  # not even headers


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


def engine(server, **fields):
    return Engine(adapter=OpenAI(base_url=server.base_url), model="any", **fields)


def test_a_stream_and_a_whole_answer(server):
    """C-50, C-63: over HTTP as over the fake."""
    server.add("Hello there", "Hello again")
    stream = allm.stream_generate(engine(server), "hi")
    assert server.requests == []

    text = "".join(event.delta for event in stream if event.type == "text_delta")

    assert text == "Hello there"
    assert allm.generate(engine(server), "hi").text == "Hello again"
    assert len(server.requests) == 2


@pytest.mark.parametrize("reply", [STALLED, DEAF])
@pytest.mark.parametrize("how", ["close", "drop", "aclose"])
def test_a_halt_frees_the_connection_while_the_server_is_silent(server, reply, how):
    """C-55, P-127: in every phase, and the waiting consumer with it."""
    server.add(reply)
    told = []
    stream = allm.stream_generate(engine(server), "hi", on_event=told.append)
    if reply is STALLED:
        next(stream)
        next(stream)
    else:
        reader = in_thread(list, stream)
        server.wait_for_requests(1)
        if how == "drop":
            how = "close"  # somebody still reads it

    with within(HALF):
        if how == "close":
            stream.close()
        elif how == "aclose":
            asyncio.run(stream.aclose())
        del stream
        gc.collect()
        if reply is DEAF:
            assert reader() == []
        server.wait_for_connections(0)

    until(gone)


@pytest.mark.logs_errors("ends from outside are reported")
def test_fifty_streams_whose_adapter_is_killed_leave_nothing(server):
    """C-60: each hears of it, all connections end, and the same engine works on."""
    server.add(*[STALLED] * 50, "Hello again")
    with allm.start_engine(engine(server), name="fifty") as ref:
        told = []
        streams = [allm.stream_generate("fifty", str(n), on_event=told.append) for n in range(50)]
        readers = [in_thread(list, stream) for stream in streams]
        server.wait_for_requests(50)
        until(lambda: sum(event.type == "text_delta" for event in told) == 50)

        with within(2):
            kill_adapter()
            results = [reader() for reader in readers]
            server.wait_for_connections(0)

        assert {result[-1].error.reason for result in results} == {"adapter_down"}
        assert all(len(result) == 3 for result in results)
        assert gone()
        assert allm.generate(ref, "hi").text == "Hello again"


@pytest.mark.logs_errors("ends from outside are reported")
def test_a_stream_that_is_killed_leaves_no_connection(server):
    """C-60, B-72."""
    server.add(STALLED)
    stream = allm.stream_generate(engine(server), "hi")
    next(stream)

    beam.exit(stream_processes()[0], "kill")

    assert list(stream)[-1].error.reason == "adapter_down"
    server.wait_for_connections(0)


def test_a_consumer_thread_that_ends_without_closing(server):
    """B-86: what it alone held is collected with it."""
    server.add(STALLED)

    def consume(used):
        stream = allm.stream_generate(used, "hi")
        next(stream)

    in_thread(consume, engine(server))()
    gc.collect()

    server.wait_for_connections(0, timeout=HALF)
    until(gone)


def test_ctrl_c_in_on_event(server):
    """C-56."""
    server.add(STALLED)

    def on_event(event):
        if event.type == "text_delta":
            raise KeyboardInterrupt

    with within(1), pytest.raises(KeyboardInterrupt):
        allm.generate(engine(server), "hi", on_event=on_event)

    server.wait_for_connections(0, timeout=HALF)
    assert gone()


def test_a_halt_in_a_retry_wait_sends_nothing_more(server):
    """C-52, C-55."""
    server.add(Reply(status=429, headers={"retry-after": "60"}), "never sent")
    stream = allm.stream_generate(engine(server), "hi")
    reader = in_thread(list, stream)
    server.wait_for_requests(1)
    until(lambda: stream_processes() and beam.info(stream_processes()[0])["state"] == "waiting")

    with within(HALF):
        stream.close()
        assert reader() == []

    assert gone()
    assert len(server.requests) == 1


def test_a_retry_sends_the_same_bytes_again(server):
    """P-130."""
    server.add(Reply(status=503), Reply(status=429), "Hello")
    used = engine(server, retry=Retry(base_delay=0, jitter=0))

    assert allm.generate(used, "hi", temperature=0.5).text == "Hello"

    first, *others = [request.body for request in server.requests]
    assert others == [first, first]


@pytest.mark.parametrize("file", ["changed", "gone"])
def test_a_retry_sends_the_same_bytes_whatever_has_become_of_the_request(server, tmp_path, file):
    """P-130: what was checked and read at the call is what every attempt sends."""
    path = tmp_path / "image.png"
    path.write_bytes(b"as it was")
    server.add(Reply(status=503), "Hello")
    request = allm.Request(
        messages=[allm.user([allm.ImagePart(image=allm.Image.from_file(path))])],
        options={"marks": {"first": True}},
    )

    stream = allm.stream_generate(engine(server, retry=Retry(base_delay=0, jitter=0)), request)
    request.options["marks"]["first"] = False
    if file == "gone":
        path.unlink()
    else:
        path.write_bytes(b"other")

    assert [event.type for event in stream][-1] == "message_completed"
    first, second = [request.body for request in server.requests]
    assert second == first


def test_keep_alives_hold_off_the_idle_timeout_and_not_the_content_timeout(server):
    """C-42, P-123."""
    server.add(Reply("Hello there", fault="stall", after=2, heartbeat=0.02))
    stream = allm.stream_generate(engine(server, retry=None), "hi", stream_timeout=0.3, content_timeout=0.6)

    *_, last = stream

    assert last.error.metadata["limit"] == "content_timeout"
    server.wait_for_connections(0)


def test_engines_that_are_stopped_leave_no_connection(server):
    """C-95."""
    server.add(*[STALLED] * 5)
    ref = allm.start_engine(engine(server))
    streams = [allm.stream_generate(ref, "hi") for _ in range(5)]
    for stream in streams:
        next(stream)

    with within(2):
        ref.stop()
        server.wait_for_connections(0)

    assert all(list(stream)[-1].error.reason == "adapter_down" for stream in streams)


def test_a_mailbox_over_many_connections(server):
    """C-61."""
    server.add(*["one two three"] * 20)
    mailbox = allm.Mailbox()
    used = engine(server)
    handles = {allm.open_stream(used, str(n), into=mailbox): [] for n in range(20)}

    for envelope in mailbox:
        handles[envelope.stream].append(envelope.event)

    assert {"".join(e.delta for e in events if e.type == "text_delta") for events in handles.values()} == {
        "one two three"
    }
    assert gone()


def test_the_threads_of_finished_streams_are_gone(server):
    """P-128."""
    server.add(*["x"] * 20)
    used = engine(server)
    allm.generate(used, "hi")
    before = set(threading.enumerate())

    for _ in range(19):
        allm.generate(used, "hi")

    assert beam.processes()
    until(lambda: set(threading.enumerate()) <= before, SOON)


def test_the_server_sees_a_halt_at_once(server):
    """C-55: a halt from another thread while the server is silent; the fastest of a few, as machines are shared."""
    delays = []
    for _ in range(5):
        server.add(STALLED)
        stream = allm.stream_generate(engine(server), "hi")
        next(stream)
        reader = in_thread(list, stream)
        request = server.requests[-1]

        began = time.monotonic()
        stream.close()
        assert request.wait_disconnected(SOON)
        delays.append(request.disconnected_at - began)
        reader()

    assert min(delays) < 0.05
