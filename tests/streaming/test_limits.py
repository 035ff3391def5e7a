"""The times of a call that are kept from outside the adapter."""

import asyncio
import threading
import time

import pytest

import allm_actors as allm
from allm_actors import beam
from allm_actors.data import RawChunk, ToolCallDelta, ToolCallStarted
from allm_actors.engine import AdapterStream, Engine, Retry
from allm_actors.streaming._limits import Limits, Watch

from .adapters import Handmade, Line, plays
from .helpers import SOON, START, Scripted, closing, delta, failing, in_thread, until
from .test_event_stream import gone

LATE = 0.1  # seconds a limit may be late
SLACK = 0.1  # and what a busy machine may add
ONCE = Retry(max_attempts=1)


class Dripping:
    """An adapter whose streams send a piece every so often, until they are closed."""

    def __init__(self, pieces, period=0.02, first=(START,)):
        opened = self.opened = []

        def make(request, call):
            over = threading.Event()
            opened.append(over)

            def events():
                yield from first
                for piece in pieces:
                    if over.wait(period):
                        return
                    yield piece

            return AdapterStream(events(), over.set)

        self.adapter = Handmade(make=make)


def timed(work):
    began = time.monotonic()
    result = work()
    return result, time.monotonic() - began


def limit_of(event):
    assert event.error.reason == "timeout"
    assert event.error.provider == "handmade"
    return event.error.metadata["limit"]


def collect(stream):
    return list(stream)


def collect_async(stream):
    async def main():
        return [event async for event in stream]

    return asyncio.run(asyncio.wait_for(main(), SOON))


both = pytest.mark.parametrize("collect", [collect, collect_async])


@both
@pytest.mark.parametrize("limit", ["content_timeout", "deadline"])
def test_a_silent_stream_is_closed_from_outside(collect, limit):
    """C-42: for every adapter, on threads and in asyncio, within 0.1 s."""
    line = Line()
    engine = Engine(adapter=line.adapter, retry=ONCE)
    allm.stream_generate(engine, "hi").close()  # its processes are up; a deadline counts from the call
    line.streams.clear()

    events, took = timed(lambda: collect(allm.stream_generate(engine, "hi", **{limit: 0.2})))

    assert events[:-1] == list(line.before)
    assert limit_of(events[-1]) == limit
    assert 0.19 <= took <= 0.2 + LATE + SLACK
    assert line.streams[0].released == 1
    assert gone()


@both
def test_keep_alives_are_no_content(collect):
    """C-42: neither usage reports nor unknown events are; the stream is not silent, and yet it ends."""
    chatter = [RawChunk(payload=1), RawChunk(kind="unknown_event", payload={})] * 500
    drip = Dripping(chatter)
    stream = allm.stream_generate(Engine(adapter=drip.adapter, retry=ONCE), "hi", content_timeout=0.2)

    events, took = timed(lambda: collect(stream))

    assert limit_of(events[-1]) == "content_timeout"
    assert took <= 0.2 + LATE + SLACK
    assert drip.opened[0].is_set()


@pytest.mark.parametrize(
    "piece",
    [
        delta("x"),
        ToolCallStarted(id="1", name="t"),
        ToolCallDelta(id="1", arguments_delta="x"),
        RawChunk(kind="thinking_delta", payload={"delta": "x"}),
        RawChunk(kind="refusal_delta", payload={"delta": "x"}),
    ],
)
def test_content_restarts_the_clock(piece):
    """C-42: text, reasoning, a piece of a tool call."""
    drip = Dripping([piece] * 15 + closing("x"))
    stream = allm.stream_generate(Engine(adapter=drip.adapter), "hi", content_timeout=0.2)

    events, took = timed(lambda: list(stream))

    assert events[-1] == closing("x")[-1]
    assert took >= 0.29


def test_the_consumers_own_time_is_no_silence():
    """C-42: it does not count for `content_timeout`, and does for `deadline`."""
    many = [START, *[delta("x")] * 200, *closing("x")]
    patient = allm.stream_generate(Engine(adapter=plays(many)), "hi", content_timeout=0.1)
    next(patient)
    pause(0.3)  # the buffer is full, the producer waits
    assert list(patient)[-1] == closing("x")[-1]

    hurried = allm.stream_generate(Engine(adapter=plays(many)), "hi", deadline=0.1)
    next(hurried)
    pause(0.3)
    events = list(hurried)
    assert events[-1].error.metadata == {"limit": "deadline"}
    assert len(events) < len(many)


def pause(seconds):
    threading.Event().wait(seconds)


def test_content_timeout_is_repeated_like_any_timeout():
    """C-42, C-52: while nothing usable was delivered."""
    line = Line(START)
    policy = Retry(max_attempts=2, base_delay=0, jitter=0)
    stream = allm.stream_generate(Engine(adapter=line.adapter, retry=policy), "hi", content_timeout=0.15)

    events, took = timed(lambda: list(stream))

    assert [event.type for event in events] == ["message_started", "error"]
    assert limit_of(events[-1]) == "content_timeout"
    assert len(line.streams) == 2
    assert took >= 0.29
    assert [each.released for each in line.streams] == [1, 1]


def test_the_deadline_is_for_all_attempts_and_never_repeated():
    """C-42."""
    line = Line(START)
    policy = Retry(max_attempts=9, base_delay=0, jitter=0)
    stream = allm.stream_generate(
        Engine(adapter=line.adapter, retry=policy), "hi", content_timeout=0.15, deadline=0.4
    )

    events, took = timed(lambda: list(stream))

    assert limit_of(events[-1]) == "deadline"
    assert len(line.streams) == 3
    assert took <= 0.4 + LATE + SLACK


def test_the_deadline_ends_a_retry_wait():
    """C-42: retry waits are part of the call."""
    engine = Engine(adapter=plays([failing("rate_limited", retry_after=60.0)]))
    stream = allm.stream_generate(engine, "hi", deadline=0.2)

    (event,), took = timed(lambda: list(stream))

    assert limit_of(event) == "deadline"
    assert took <= 0.2 + LATE + SLACK


def test_the_deadline_counts_from_the_call():
    """C-42: not from the first `next()`; what is over is not sent."""
    asked = []

    def events():
        asked.append(1)
        yield START

    stream = allm.stream_generate(
        Engine(adapter=Handmade(make=lambda *_: AdapterStream(events()))), "hi", deadline=0.05
    )
    pause(0.1)

    (event,) = stream

    assert limit_of(event) == "deadline"
    assert asked == []


def test_times_in_the_params_of_the_engine_are_kept_too():
    """C-49."""
    line = Line()
    stream = allm.stream_generate(Engine(adapter=line.adapter, params={"deadline": 0.15}), "hi")

    assert limit_of(list(stream)[-1]) == "deadline"


def test_they_hold_in_a_mailbox():
    """C-42, C-61."""
    line = Line()
    mailbox = allm.Mailbox()
    allm.open_stream(Engine(adapter=line.adapter, retry=ONCE), "hi", into=mailbox, content_timeout=0.15)

    events, took = timed(lambda: [envelope.event for envelope in mailbox])

    assert limit_of(events[-1]) == "content_timeout"
    assert took <= 0.15 + LATE + SLACK


def test_they_hold_for_whole_answers():
    """C-42, C-63."""
    line = Line()
    answer = allm.Runner(Engine(adapter=line.adapter, retry=ONCE)).run("hi", deadline=0.15)

    assert answer.error.metadata == {"limit": "deadline"}
    assert answer.output_text == "a"


def test_an_adapter_that_breaks_when_it_is_closed_is_a_timeout_all_the_same():
    """C-42, B-97: why it was closed counts, not how it ends."""
    over = threading.Event()

    def events():
        yield START
        over.wait(SOON)
        raise ValueError("I/O operation on closed file")

    adapter = Handmade(make=lambda *_: AdapterStream(events(), over.set))
    stream = allm.stream_generate(Engine(adapter=adapter, retry=ONCE), "hi", content_timeout=0.1)

    assert limit_of(list(stream)[-1]) == "content_timeout"


def test_a_close_that_blocks_holds_up_no_timer():
    """B-50: what closes the stream runs elsewhere."""
    stuck, over = threading.Event(), threading.Event()

    def release():
        over.set()
        stuck.wait(SOON)

    def events():
        yield START
        over.wait(SOON)

    adapter = Handmade(make=lambda *_: AdapterStream(events(), release))
    stream = allm.stream_generate(Engine(adapter=adapter, retry=ONCE), "hi", content_timeout=0.05)
    reading = in_thread(list, stream)
    assert over.wait(SOON)

    fired = threading.Event()
    beam.send_after(0, lambda _: fired.set(), None)
    assert fired.wait(0.5)

    stuck.set()
    assert limit_of(reading()[-1]) == "content_timeout"


def test_a_halt_before_the_limit_leaves_no_timer():
    """C-55."""
    timers = beam.info()["timers"]
    line = Line()
    stream = allm.stream_generate(Engine(adapter=line.adapter), "hi", content_timeout=600, deadline=600)
    next(stream)
    until(line.streams[0].waiting.is_set)

    stream.close()

    assert beam.info()["timers"] == timers
    assert gone()


def test_without_limits_there_is_no_timer_and_no_clock():
    """What is not asked for costs nothing."""
    reads = []
    script = Scripted(START, delta("a"))
    with Watch(script.stream, Limits(), clock=lambda: reads.append(1) or 0.0) as watch:
        assert list(watch.events()) == [START, delta("a")]

    assert reads == []
    assert watch.expired is None
