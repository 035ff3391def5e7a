"""What a consumer sees of a stream: iteration, callbacks, filters, halting, failures; on threads and in asyncio."""

import asyncio
import gc
import threading
import time
import weakref

import pytest
from structlog.testing import capture_logs

import allm_actors as allm
from allm_actors import beam, errors
from allm_actors.data import (
    ErrorEvent,
    MessageCompleted,
    RawChunk,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from allm_actors.engine import AdapterStream, Engine, Retry
from allm_actors.providers import Fake
from allm_actors.streaming import EventStream

from .adapters import Handmade, Line, plays
from .helpers import SOON, START, Scripted, closing, delta, failing, good, in_thread, until, within

HALF = 0.5  # seconds within which a halt has to free everything


def open_(adapter, **options):
    return allm.stream_generate(Engine(adapter=adapter), "hi", **options)


def stream_processes():
    return [pid for pid in beam.processes() if "StreamActor" in str(pid)]


def gone():
    return not stream_processes()


# --- iteration ------------------------------------------------------------------------------------------


def test_a_stream_is_an_iterator_of_one_pass():
    """C-53."""
    stream = open_(plays(good()))

    assert iter(stream) is stream
    assert list(stream) == good()
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(stream)


def test_a_closed_stream_stays_closed():
    """C-53."""
    stream = open_(plays(good()))
    next(stream)

    stream.close()
    stream.close()
    stream.halt()

    for _ in range(3):
        with pytest.raises(StopIteration):
            next(stream)


def test_when_the_end_was_met_no_thread_of_the_stream_is_left():
    """B-82, P-128."""
    engine = Engine(adapter=plays(*[good()] * 20))
    list(allm.stream_generate(engine, "hi"))
    before = set(threading.enumerate())

    for _ in range(19):
        list(allm.stream_generate(engine, "hi"))
        assert set(threading.enumerate()) == before


def test_order_is_kept_and_nothing_lost_beyond_the_buffer():
    """C-51, B-81: many times the buffer, with a consumer that dawdles."""
    texts = [delta(str(n)) for n in range(1000)]
    events = [START, *texts, *closing("x")]
    got = []

    for event in open_(plays(events)):
        got.append(event)
        if len(got) % 97 == 0:
            time.sleep(0.001)

    assert got == events


def test_a_consumer_that_stops_asking_stops_the_producer():
    """C-51, B-81: at most a buffer ahead."""
    asked = []

    def events():
        yield START
        for n in range(1000):
            asked.append(n)
            yield delta("x")

    stream = open_(Handmade(make=lambda *_: AdapterStream(events())))
    next(stream)
    until(lambda: len(asked) >= 64)
    seen = len(asked)

    with pytest.raises(TimeoutError):
        _while_waiting(lambda: len(asked) > seen + 1)

    assert len(asked) <= 66
    stream.close()


def _while_waiting(condition, seconds=0.05):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():
            return
        threading.Event().wait(0.002)
    raise TimeoutError


def test_two_consumers_at_once_are_one_too_many():
    """B-86: the second gets an error at once, the first its event."""
    line = Line()
    stream = open_(line.adapter)
    list(zip(range(2), stream, strict=False))
    first = in_thread(next, stream)
    until(lambda: line.streams[0].waiting.is_set() and stream._turn.locked())

    with pytest.raises(RuntimeError, match="another"):
        next(stream)

    line.streams[0].go.set()
    assert first() == closing("a")[0]
    stream.close()


def test_a_stream_may_change_hands_between_two_events():
    """B-86, C-53."""
    stream = open_(plays(good("ab")))

    got = [in_thread(next, stream)() for _ in range(len(good("ab")))]

    assert got == good("ab")
    assert list(stream) == []


def test_n_threads_on_one_engine_have_n_requests_in_flight():
    """C-51, O-50: nobody waits behind another's request."""
    count = 8
    barrier = threading.Barrier(count)

    def make(request, call):
        def events():
            yield START
            barrier.wait(SOON)  # passes only when all are here at once
            yield from closing("")

        return AdapterStream(events())

    engine = Engine(adapter=Handmade(make=make))
    runs = [in_thread(lambda: list(allm.stream_generate(engine, "hi"))) for _ in range(count)]

    assert [len(run()) for run in runs] == [2] * count


def test_two_streams_do_not_mix():
    """C-51."""
    engine = Engine(adapter=plays(good("a"), good("b")))
    one, other = allm.stream_generate(engine, "x"), allm.stream_generate(engine, "y")

    pairs = list(zip(one, other, strict=True))

    assert [event for event, _ in pairs] == good("a")
    assert [event for _, event in pairs] == good("b")


def test_an_unfinished_stream_keeps_the_processes_of_a_plain_engine():
    """C-51: they end with the adapter value, which the stream keeps alive."""
    line = Line()
    stream = open_(line.adapter)
    value = weakref.ref(line.adapter)
    line.adapter = None
    next(stream)
    gc.collect()

    assert value() is not None
    line.streams[0].go.set()
    assert list(stream) == [line.before[1], *line.after]

    gc.collect()
    assert value() is None
    until(lambda: not [pid for pid in beam.processes() if "AdapterProcess" in str(pid)])


# --- on_event and filters --------------------------------------------------------------------------------


def test_on_event_runs_in_the_thread_that_asked_inside_that_call_and_before_the_filters():
    """C-56."""
    told = []
    stream = open_(
        plays([START, RawChunk(payload=1), delta("a"), *closing("a")]),
        on_event=lambda event: told.append((event.type, threading.current_thread())),
    )
    assert told == []

    next(stream)
    assert [kind for kind, _ in told] == ["message_started"]

    assert next(stream) == delta("a")
    assert [kind for kind, _ in told[1:]] == ["raw_chunk", "text_delta"]  # it sees what the caller does not
    assert {thread for _, thread in told} == {threading.current_thread()}

    other = in_thread(next, stream)
    other()
    assert told[-1][1] is other.thread
    stream.close()
    assert len(told) == 4  # and never what was discarded


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_what_on_event_raises_comes_out_unchanged_and_closes_the_stream(kind):
    """C-56: Ctrl-C included."""
    line = Line(START, delta("a"))
    bug = kind("x")

    def on_event(event):
        if event.type == "text_delta":
            raise bug

    stream = open_(line.adapter, on_event=on_event)
    next(stream)

    with within(HALF), pytest.raises(kind) as caught:
        next(stream)

    assert caught.value is bug
    assert line.streams[0].released == 1
    assert line.streams[0].cleaned.is_set()
    assert gone()
    assert list(stream) == []


RAW, USAGE = RawChunk(payload={"x": 1}), RawChunk(kind="usage", payload=Usage(input_tokens=1))
ALL = [
    START,
    delta("a"),
    ToolCallStarted(id="1", name="t"),
    ToolCallDelta(id="1", arguments_delta="{}"),
    RAW,
    USAGE,
    *closing("a"),
]


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({}, [RAW]),
        ({"include_raw_chunks": True}, []),
        ({"include_raw_chunks": False}, [RAW]),
        ({"emit_text_deltas": False}, [ALL[1], RAW]),
        ({"emit_tool_deltas": False}, [ALL[3], RAW]),
        (
            {"emit_text_deltas": False, "emit_tool_deltas": False, "include_raw_chunks": True},
            [ALL[1], ALL[3]],
        ),
        ({"emit_text_deltas": True, "emit_tool_deltas": True}, [RAW]),
    ],
)
def test_filters_drop_what_they_name_and_nothing_else(options, missing):
    """C-57: usage always passes."""
    assert list(open_(plays(ALL), **options)) == [event for event in ALL if event not in missing]


# --- halting ----------------------------------------------------------------------------------------------


def close_it(stream):
    stream.close()


def leave_with(stream):
    with stream:
        pass


def leave_by_exception(stream):
    with pytest.raises(ZeroDivisionError), stream:
        raise ZeroDivisionError


def close_elsewhere(stream):
    in_thread(stream.close)()


def aclose_it(stream):
    asyncio.run(stream.aclose())


@pytest.mark.parametrize("halt", [close_it, leave_with, leave_by_exception, close_elsewhere, aclose_it])
@pytest.mark.parametrize("read", [1, 2])
def test_a_halt_frees_what_waits_for_bytes(halt, read):
    """C-55, B-85: exactly once, and nothing more is said."""
    line = Line()
    stream = open_(line.adapter)
    list(zip(range(read), stream, strict=False))
    until(line.streams[0].waiting.is_set)

    with within(HALF):
        halt(stream)

    assert line.streams[0].released == 1
    assert line.streams[0].cleaned.is_set()
    assert gone()
    assert list(stream) == []


def test_a_next_that_waits_elsewhere_ends_when_the_stream_is_closed():
    """C-53, B-86: within 50 ms."""
    line = Line()
    told = []
    stream = open_(line.adapter, on_event=told.append)
    reader = in_thread(list, stream)
    until(lambda: len(told) == 2)

    stream.close()
    with within(0.2):
        assert reader() == list(line.before)


def test_a_halt_in_the_middle_of_a_retry_wait_ends_it():
    """C-52, C-55: no further attempt, nothing left."""
    attempts = []
    waiting = threading.Event()

    def make(request, call):
        attempts.append(1)
        return Scripted(START, lambda: waiting.set() or failing("rate_limited", retry_after=60.0)).stream

    stream = open_(Handmade(make=make))
    assert next(stream) == START
    assert waiting.wait(SOON)
    until(lambda: beam.info(stream_processes()[0])["state"] == "waiting")

    with within(HALF):
        stream.close()

    assert gone()
    assert attempts == [1]
    assert list(stream) == []


def test_a_halt_while_the_buffer_is_full_discards_it():
    """C-55: buffered events are discarded, the blocked producer ends."""
    texts = [delta("x")] * 500
    script = Scripted(START, *texts)
    stream = open_(Handmade(make=lambda *_: script.stream))
    next(stream)
    until(lambda: script.asked >= 65)

    with within(HALF):
        stream.close()

    assert script.released == 1
    assert gone()
    assert list(stream) == []


def test_filters_do_not_get_in_the_way_of_a_halt():
    """C-55: all that is left is filtered, and the consumer waits in vain."""
    line = Line(START, delta("a"), delta("b"))
    stream = open_(line.adapter, emit_text_deltas=False)
    next(stream)
    reader = in_thread(list, stream)
    until(line.streams[0].waiting.is_set)

    with within(HALF):
        stream.close()
        assert reader() == []
    assert gone()


def test_a_stream_that_is_dropped_halts_itself():
    """C-55, B-86: garbage collection, without waiting."""
    line = Line()
    stream = open_(line.adapter)
    next(stream)
    until(line.streams[0].waiting.is_set)

    with within(0.2):
        del stream  # the last reference: no collection is needed, whose time is that of the whole heap
        assert line.streams[0].cleaned.wait(HALF)

    until(gone)
    assert line.streams[0].released == 1


def test_a_stream_dropped_in_a_cycle_with_its_callback_halts_itself():
    """C-55: an `on_event` that holds its stream keeps nothing alive."""
    line = Line()

    class Screen:
        def show(self, event):
            pass

    screen = Screen()
    screen.stream = open_(line.adapter, on_event=screen.show)
    next(screen.stream)
    until(line.streams[0].waiting.is_set)

    del screen
    gc.collect()

    assert line.streams[0].cleaned.wait(HALF)
    until(gone)


def test_a_stream_left_by_break_lives_until_it_is_dropped():
    """B-86."""
    line = Line()
    stream = open_(line.adapter)
    for _ in stream:
        break
    until(line.streams[0].waiting.is_set)
    assert not line.streams[0].cleaned.is_set()

    stream = None

    assert line.streams[0].cleaned.wait(HALF)
    until(gone)


def test_a_consumer_thread_that_died_is_noticed():
    """C-55, B-87: the producer that waits for room halts, with a warning."""
    script = Scripted(START, *[delta("x")] * 500)
    stream = open_(Handmade(make=lambda *_: script.stream))

    with capture_logs() as logs:
        in_thread(next, stream)()  # and the thread is gone, the stream still named
        until(lambda: any(line["event"] == "stream.owner_died" for line in logs))
        until(gone)

    assert [line["log_level"] for line in logs if line["event"] == "stream.owner_died"] == ["warning"]
    assert script.released == 1
    assert list(stream) == []


def test_a_consumer_that_is_a_process_takes_its_stream_along():
    """B-88."""
    line = Line()
    reading = threading.Event()
    kept = []

    def consume():
        stream = open_(line.adapter)
        kept.append(stream)
        next(stream)
        next(stream)
        reading.set()
        next(stream)

    pid = beam.spawn(consume)
    assert reading.wait(SOON)
    until(line.streams[0].waiting.is_set)

    beam.exit(pid, "shutdown")

    assert line.streams[0].cleaned.wait(HALF)
    until(gone)


# --- failures ---------------------------------------------------------------------------------------------


def test_a_failure_of_the_provider_is_an_event():
    """C-58."""
    assert list(open_(plays([START, failing("invalid_request")]))) == [START, failing("invalid_request")]


def test_what_is_no_event_ends_the_stream():
    """C-58."""
    *before, last = open_(plays([START, "rubbish", delta("x")]))

    assert before == [START]
    assert isinstance(last.error, errors.StreamError)
    assert (last.error.reason, last.error.event_index) == ("malformed_event", 1)


@pytest.mark.logs_errors("a crash of an adapter is reported")
@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyError])
def test_a_bug_in_the_adapter_comes_out_of_next_unchanged_and_after_cleanup(kind):
    """C-59."""
    bug = kind("boom")
    script = Scripted(START, delta("a"), bug)
    stream = open_(Handmade(make=lambda *_: script.stream))
    assert [next(stream), next(stream)] == [START, delta("a")]

    with pytest.raises(kind) as caught:
        next(stream)

    assert caught.value is bug
    assert script.released == 1
    assert gone()
    assert list(stream) == []


@pytest.mark.logs_errors("a crash of an adapter is reported")
def test_a_bug_leaves_the_adapters_process_alone():
    """C-59: in the iterator and in the pre-flight; the next call works."""
    connects = []
    scripts = [Scripted(START, ZeroDivisionError()).stream, KeyError(), Scripted(*good()).stream]

    def make(request, call):
        made = scripts.pop(0)
        if isinstance(made, Exception):
            raise made
        return made

    engine = Engine(adapter=Handmade(make=make, on_connect=lambda: connects.append(1)))

    with pytest.raises(ZeroDivisionError):
        list(allm.stream_generate(engine, "hi"))
    with pytest.raises(KeyError):
        allm.stream_generate(engine, "hi")
    assert list(allm.stream_generate(engine, "hi")) == good()
    assert connects == [1]


def adapter_process():
    (pid,) = (pid for pid in beam.processes() if "AdapterProcess" in str(pid))
    return pid


def kill_adapter():
    beam.exit(adapter_process(), "kill")


def stop_adapter():
    beam.stop(adapter_process(), "shutdown")


def stop_stream():
    beam.stop(stream_processes()[0], "shutdown", timeout=SOON)


def stop_stream_by_pykka():
    stream_processes()[0].stop(timeout=SOON)


def kill_stream():
    beam.exit(stream_processes()[0], "kill")


def exit_stream():
    beam.exit(stream_processes()[0], "boom")


@pytest.mark.logs_errors("ends from outside are reported")
@pytest.mark.parametrize(
    ("end", "started"),
    [
        (kill_adapter, True),
        (stop_adapter, True),
        (kill_stream, True),
        (exit_stream, True),
        (stop_stream, True),
        (stop_stream_by_pykka, True),
        (kill_adapter, False),
        (stop_adapter, False),
    ],
)
def test_an_end_from_outside_is_one_event_after_those_already_there(end, started):
    """C-60: whatever ends the stream or what it depends on; nothing hangs, nothing is retried."""
    line = Line(START, delta("a"), delta("b"))
    engine = Engine(adapter=line.adapter)
    stream = allm.stream_generate(engine, "hi")
    if started:
        assert next(stream) == START
        until(line.streams[0].waiting.is_set)

    end()
    with within(1):
        *before, last = stream

    assert before == ([delta("a"), delta("b")] if started else [])
    assert isinstance(last, ErrorEvent)
    assert (last.error.reason, last.error.provider) == ("adapter_down", "handmade")
    assert len(line.streams) == 1
    until(gone)
    assert line.streams[0].released == (1 if started else 0)


@pytest.mark.logs_errors("ends from outside are reported")
@pytest.mark.parametrize("end", [kill_adapter, kill_stream, stop_stream])
@pytest.mark.parametrize(
    "said", [good("a"), [START, failing("invalid_request")]], ids=["completed", "failed"]
)
def test_an_end_from_outside_after_the_last_event_is_no_further_event(end, said):
    """C-26, C-60: the answer was whole, or had failed; what becomes of its process changes that no more."""
    # 1. The last event is in the queue.
    # 2. The process still looks whether its source ends, and is ended there.
    # 3. Only now does the consumer read.
    line = Line(*said, after=())
    stream = allm.stream_generate(Engine(adapter=line.adapter), "hi")
    assert next(stream) == START
    until(line.streams[0].waiting.is_set)

    end()

    assert [START, *stream] == said
    until(gone)


@pytest.mark.logs_errors("ends from outside are reported")
def test_after_the_restart_the_same_engine_works():
    """C-60."""
    adapter = plays(good("a"), good("b"))
    engine = Engine(adapter=adapter)
    list(allm.stream_generate(engine, "hi"))

    kill_adapter()

    assert list(allm.stream_generate(engine, "hi")) == good("b")


@pytest.mark.logs_errors("ends from outside are reported")
def test_fifty_streams_hear_of_the_adapters_end_and_leave_nothing():
    """C-60: each gets its own event; then the same reference works, and after giving up none does."""
    line = Line()
    with allm.start_engine(Engine(adapter=line.adapter), max_restarts=1, max_seconds=60) as ref:
        streams = [allm.stream_generate(ref, "hi") for _ in range(50)]
        readers = [in_thread(list, stream) for stream in streams]
        until(
            lambda: all(stream.waiting.is_set() for stream in line.streams) and len(stream_processes()) == 50
        )

        kill_adapter()
        results = [reader() for reader in readers]

        assert all(result[:-1] == list(line.before) for result in results)
        assert {result[-1].error.reason for result in results} == {"adapter_down"}
        until(gone)
        until(lambda: all(stream.cleaned.is_set() for stream in line.streams))
        assert {stream.released for stream in line.streams} == {1}

        fresh = allm.stream_generate(ref, "hi")
        assert next(fresh) == START
        kill_adapter()
        assert list(fresh)[-1].error.reason == "adapter_down"
        with within(SOON), pytest.raises(errors.EngineError) as caught:
            for _ in range(100):
                allm.stream_generate(ref, "hi").close()
        assert caught.value.reason == "engine_down"


@pytest.mark.logs_errors("crashes are reported")
def test_too_many_crashed_streams_replace_the_connection():
    """C-59, C-94."""
    connects = []
    adapter = Handmade(
        make=lambda *_: Scripted(START, ZeroDivisionError()).stream, on_connect=lambda: connects.append(1)
    )
    with allm.start_engine(Engine(adapter=adapter), max_restarts=2, max_seconds=60) as ref:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                list(allm.stream_generate(ref, "hi"))

        until(lambda: len(connects) == 2)
        with pytest.raises(ZeroDivisionError):
            list(allm.stream_generate(ref, "hi"))


def test_expected_failures_are_no_crashes():
    """C-94: failing with an error of the library replaces nothing."""
    connects = []
    adapter = Handmade(
        make=lambda *_: Scripted(START, failing("invalid_request")).stream,
        on_connect=lambda: connects.append(1),
    )
    with allm.start_engine(Engine(adapter=adapter), max_restarts=0) as ref:
        for _ in range(10):
            assert list(allm.stream_generate(ref, "hi"))[-1] == failing("invalid_request")
    assert connects == [1]


def test_stopping_an_engine_halts_its_streams():
    """C-95, C-60."""
    line = Line()
    ref = allm.start_engine(Engine(adapter=line.adapter))
    stream = allm.stream_generate(ref, "hi")
    next(stream)
    until(line.streams[0].waiting.is_set)

    ref.stop()

    assert list(stream)[-1].error.reason == "adapter_down"
    assert line.streams[0].cleaned.is_set()


# --- retries, through the consumer's eyes --------------------------------------------------------------------

AT_ONCE = Retry(base_delay=0, jitter=0)


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_retries_are_invisible(fails):
    """C-52, C-80."""
    fake = Fake(script=[("text", "hi"), ("finish", "stop")], fail_first=fails)
    told = []

    events = list(open_(fake, retry=AT_ONCE, on_event=told.append))

    assert [event.type for event in events] == [
        "message_started",
        "text_delta",
        "text_completed",
        "message_completed",
    ]
    assert told == events


def test_all_attempts_use_the_same_request_and_context():
    """C-52."""
    adapter = plays([failing()], [failing()], good())

    list(open_(adapter, retry=AT_ONCE, top_k=3))

    (request, call), *others = adapter.calls
    assert len(others) == 2
    assert all(again is request and context is call for again, context in others)


def test_when_attempts_are_used_up_the_last_error_is_delivered():
    """C-52, P-130."""
    adapter = plays([START, failing("timeout")], [failing("network_error")])

    assert list(open_(adapter, retry=Retry(max_attempts=2, base_delay=0, jitter=0))) == [
        START,
        failing("network_error"),
    ]


# --- asyncio ------------------------------------------------------------------------------------------------


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, SOON))


def test_async_for_gives_the_same_events_in_the_loops_thread():
    """C-54."""
    told = []

    async def main():
        async with open_(
            plays(ALL), on_event=lambda event: told.append(threading.current_thread())
        ) as stream:
            return [event async for event in stream]

    assert run(main()) == [event for event in ALL if event is not RAW]
    assert set(told) == {threading.main_thread()}


def test_waiting_leaves_the_loop_and_every_thread_free():
    """C-54, B-115: a ticker goes on, and no helper thread waits."""
    line = Line()

    async def main():
        stream = open_(line.adapter)
        await anext(stream)
        await anext(stream)
        before = set(threading.enumerate())
        waiting = asyncio.ensure_future(anext(stream))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert set(threading.enumerate()) == before
        line.streams[0].go.set()
        first = await waiting
        return [first, *[event async for event in stream]]

    assert run(main()) == closing("a")


def test_a_cancelled_wait_loses_no_event_and_halts_nothing():
    """C-54, B-115."""
    line = Line()

    async def main():
        stream = open_(line.adapter)
        got = [await anext(stream), await anext(stream)]
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.01)
        line.streams[0].go.set()
        return got + [event async for event in stream]

    assert run(main()) == [*line.before, *line.after]


def test_leaving_async_with_halts():
    """C-54, C-55."""
    line = Line()

    async def main():
        async with open_(line.adapter) as stream:
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    with within(1):
        run(main())
    assert line.streams[0].cleaned.is_set()
    until(gone)


def test_closing_from_another_thread_ends_a_coroutine_that_waits():
    """C-53, C-54."""
    line = Line()
    told = []

    async def main():
        stream = open_(line.adapter, on_event=told.append)
        reading = asyncio.ensure_future(_collect(stream))
        while len(told) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.to_thread(stream.close)
        return await asyncio.wait_for(reading, HALF)

    assert run(main()) == list(line.before)


async def _collect(stream):
    return [event async for event in stream]


def test_what_on_event_raises_in_a_coroutine_closes_the_stream():
    """C-54, C-56."""
    line = Line()

    def on_event(event):
        raise ZeroDivisionError

    async def main():
        stream = open_(line.adapter, on_event=on_event)
        with pytest.raises(ZeroDivisionError):
            await anext(stream)
        return await _collect(stream)

    assert run(main()) == []
    until(gone)


@pytest.mark.logs_errors("crashes are reported")
def test_failures_are_the_same_in_a_coroutine():
    """C-54, C-59, C-60."""

    def make(request, call):
        def events():
            yield START
            raise ZeroDivisionError

        return AdapterStream(events())

    async def bug():
        with pytest.raises(ZeroDivisionError):
            await _collect(open_(Handmade(make=make)))

    run(bug())

    line = Line()

    async def down():
        stream = open_(line.adapter)
        await anext(stream)
        kill_adapter()
        return await _collect(stream)

    assert run(down())[-1].error.reason == "adapter_down"


def test_thousand_events_in_a_loop_keep_their_order():
    """C-54: also when the consumer is slower than the producer, and faster."""
    events = [START, *[delta(str(n)) for n in range(1000)], *closing("x")]

    async def main():
        got = []
        async for event in open_(plays(events)):
            got.append(event)
            if len(got) % 50 == 0:
                await asyncio.sleep(0.001)
        return got

    assert run(main()) == events


def test_threads_and_coroutines_may_take_turns():
    """C-54: the same object."""

    async def main():
        stream = open_(plays(good()))
        got = [await anext(stream), next(stream)]
        got.append(await asyncio.to_thread(next, stream))
        return got + [event async for event in stream]

    assert run(main()) == good()


def test_a_stream_names_itself_and_nothing_else():
    """C-33."""
    stream = open_(plays(good()), request_id="r7", api_key="sk-canary-123456")

    assert repr(stream) == "<EventStream r7>"
    assert isinstance(stream, EventStream)
    stream.close()


def test_the_events_of_the_fold_are_those_of_the_stream():
    """C-20, C-26: nothing the stream says is foreign to the data."""
    events = list(
        open_(Fake(script=[("text", "a"), ("tool_call", {"id": "1", "name": "t"}), ("finish", "stop")]))
    )

    assert all(allm.events.is_event(event) for event in events)
    assert isinstance(events[-1], MessageCompleted)
    assert any(isinstance(event, TextDelta) for event in events)
