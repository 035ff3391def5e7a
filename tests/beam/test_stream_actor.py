"""The stream actor and its reader: laziness, the one terminal item, cleanup, halts, ties."""

import asyncio
import functools
import gc
import os
import queue
import random
import socket
import sys
import threading
import time

import pytest

from allm_actors import beam
from allm_actors.beam.stream import (
    END,
    LENDER_DOWN,
    EventQueue,
    Failed,
    StreamActor,
    StreamReader,
    start_stream,
)
from allm_actors.beam.supervisor import DynamicSupervisor, count_children
from tests.beam._kids import in_thread, until, wait_dead


class Source:
    """An iterable that notes who iterates and who closes it.

    Args:
        items: What it gives.
        then: Called when they are used up, in place of the end.
    """

    def __init__(self, items=(), then=None):
        self.items = iter(items)
        self.then = then
        self.closed = []
        self.threads = set()
        self.given = 0
        self.at_close = None

    def __iter__(self):
        return self

    def __next__(self):
        self.threads.add(threading.get_ident())
        for item in self.items:
            self.given += 1
            return item
        if self.then is not None:
            return self.then()
        raise StopIteration

    def close(self):
        self.closed.append(threading.get_ident())
        if self.at_close is not None:
            self.at_close()


class Pipe(Source):
    """Blocks in a socket read once its items are used up, like a stream that waits for bytes."""

    def __init__(self, items=()):
        super().__init__(items, self.read)
        self.ours, self.theirs = socket.socketpair()
        self.reading = threading.Event()
        self.interrupts = []

    def read(self):
        self.reading.set()
        if not self.ours.recv(1):
            raise StopIteration
        return "byte"

    def interrupt(self):
        self.interrupts.append(threading.current_thread().name)
        self.ours.shutdown(socket.SHUT_RDWR)

    def close(self):
        super().close()
        self.ours.close()
        self.theirs.close()


def reader(source, *, window=64, close_timeout=0.5, **options):
    return StreamReader(
        lambda events: start_stream(source, events, **options), window=window, close_timeout=close_timeout
    )


def forever():
    n = 0
    while True:
        yield n
        n += 1


# --- the ordinary way ---------------------------------------------------------------------------------


def test_a_stream_gives_everything_in_order_and_leaves_nothing():
    """B-82, B-84: closed once, in the thread that iterated, before the consumer hears of the end."""
    source = Source(range(500))
    with reader(source) as stream:
        assert list(stream) == list(range(500))
        assert not stream.pid.alive
        assert stream.pid.exit_reason == "normal"
        assert not stream.pid._cell.thread.is_alive()
        assert list(stream) == []
        assert stream.take() is END
    assert len(source.closed) == 1
    assert source.threads == set(source.closed)
    assert threading.get_ident() not in source.threads


def test_nothing_is_started_before_the_first_read():
    """B-83"""
    source = Source(range(3))
    stream = reader(source)
    assert stream.pid is None
    assert source.given == 0
    assert next(stream) == 0
    assert stream.pid is not None
    stream.close()


def test_opening_waits_for_no_acknowledgement():
    """B-83: one thread start; `init` may still run."""
    release = threading.Event()

    class Slow(StreamActor):
        def init(self, *args, **kwargs):
            release.wait(5)
            super().init(*args, **kwargs)

    events = EventQueue()
    pid = Slow.start_nowait(Source([1]), events)  # returns, although `init` has not
    beam.monitor(pid, to=events)
    assert events.sent == 0
    release.set()
    assert events.pop(5) == 1
    assert events.pop(5) is END
    wait_dead(pid)


def test_a_stream_under_a_supervisor_is_opened_without_waiting_too():
    """B-83, B-88: a temporary child of the stream supervisor."""
    release = threading.Event()
    sup = DynamicSupervisor.start()

    def gated():
        release.wait(5)
        yield 1

    stream = reader(gated(), supervisor=sup)
    waiting = in_thread(lambda: next(stream))
    until(lambda: stream.pid is not None)
    (child,) = beam.supervisor.which_children(sup)
    assert child[1] == stream.pid
    release.set()
    assert waiting() == 1
    assert list(stream) == []
    assert count_children(sup).specs == 0
    beam.stop(sup)


def test_the_end_is_heard_after_the_source_is_closed():
    """B-84: before `End` reaches the consumer on success."""
    release = threading.Event()
    source = Source([1])
    source.at_close = lambda: release.wait(5)
    stream = reader(source)
    assert next(stream) == 1
    with pytest.raises(queue.Empty):
        stream.take(0.02)
    release.set()
    assert stream.take(5) is END
    assert len(source.closed) == 1


def test_the_next_that_meets_the_end_waits_for_the_death():
    """B-82: after the end of a stream no thread of it is left."""
    for _ in range(50):
        stream = reader(iter([1]))
        assert list(stream) == [1]
        assert not stream.pid.alive
        assert not stream.pid._cell.thread.is_alive()


@pytest.mark.parametrize("step", ["_run_closers", "_be_dead"])
def test_the_next_that_meets_the_end_waits_for_death_and_thread(step, monkeypatch):
    """B-82: for the death, and for the thread."""
    # 1. The terminal item is on its way.
    # 2. The process, or its thread, takes its time.
    release = threading.Event()
    real = getattr(StreamActor, step)

    def slow(self, *args, **kwargs):
        real(self, *args, **kwargs)
        release.wait(5)

    monkeypatch.setattr(StreamActor, step, slow)
    stream = reader(iter([1]), close_timeout=10)
    assert next(stream) == 1
    reading = in_thread(lambda: list(stream))
    until(lambda: stream.events.finished)
    with pytest.raises(queue.Empty):
        reading(0.02)
    release.set()
    assert reading(5) == []


# --- failures -----------------------------------------------------------------------------------------


@pytest.mark.logs_errors("the source crashes")
def test_what_the_source_raises_comes_out_after_the_events_before_it():
    """B-82, B-84: cleaned up before the terminal item is sent."""
    error = ValueError("broken source")

    def crash():
        raise error

    source = Source([1, 2], crash)
    stream = reader(source)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ValueError, match="broken source") as caught:
        next(stream)
    assert caught.value is error
    assert len(source.closed) == 1
    assert stream.pid.exit_reason == beam.Crash(error)
    assert list(stream) == []


@pytest.mark.logs_errors("the source crashes")
def test_a_failure_keeps_the_text_of_its_traceback_and_no_frame():
    """B-82, B-10"""

    def source():
        yield 1
        raise KeyError("here")

    stream = reader(source())
    next(stream)
    failed = stream.take(5)
    assert isinstance(failed, Failed)
    assert "in source" in failed.report
    assert failed.exception.__traceback__ is None
    assert "in source" in stream.pid.exit_reason.report


@pytest.mark.logs_errors("the source crashes")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), beam.NoProcess("x")])
def test_any_exception_of_the_source_is_a_failure(error):
    """B-82: also those that are no `Exception`; a failed call inside the source is one."""

    def crash():
        raise error

    stream = reader(Source([], crash))
    failed = stream.take(5)
    assert failed.exception is error


@pytest.mark.logs_errors("it ends with a reason of its own")
def test_a_source_that_exits_ends_the_stream_with_its_reason():
    """B-82: the actor died otherwise."""

    def leave():
        raise beam.Exit("enough")

    source = Source([1], leave)
    stream = reader(source)
    assert next(stream) == 1
    down = stream.take(5)
    assert isinstance(down, beam.Down)
    assert down.reason == "enough"
    assert len(source.closed) == 1


@pytest.mark.logs_errors("the source crashes")
def test_a_source_that_cannot_be_closed_has_failed():
    """B-84"""
    source = Source([1])
    error = OSError("close")

    def fail():
        raise error

    source.at_close = fail
    stream = reader(source)
    assert next(stream) == 1
    with pytest.raises(OSError, match="close"):
        next(stream)
    assert len(source.closed) == 1


@pytest.mark.logs_errors("source and cleanup crash")
def test_a_cleanup_that_fails_after_a_failure_does_not_hide_it(caplog):
    """B-84"""

    def crash():
        raise ValueError("first")

    source = Source([1], crash)
    source.at_close = crash
    stream = reader(source)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="first"):
        next(stream)
    assert "closer.failed" in caplog.text


@pytest.mark.parametrize("reason", ["killed", "shutdown", "boom"])
@pytest.mark.logs_errors("boom is a crash")
def test_a_stream_that_is_ended_from_outside_ends_with_down(reason):
    """B-82: killed, or told by a supervisor; the buffered events come first."""
    pipe = Pipe([1, 2])
    stream = reader(pipe, interrupt=pipe.interrupt)
    assert next(stream) == 1
    pipe.reading.wait(5)
    beam.exit(stream.pid, "kill" if reason == "killed" else reason)
    assert next(stream) == 2
    down = stream.take(5)
    assert isinstance(down, beam.Down)
    assert down.reason == reason
    until(lambda: pipe.closed)
    assert len(pipe.closed) == 1
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.logs_errors("a killed stream is an abnormal end")
def test_next_raises_process_exit_when_the_stream_was_ended_from_outside():
    pipe = Pipe([1])
    stream = reader(pipe, interrupt=pipe.interrupt)
    next(stream)
    beam.exit(stream.pid, "kill")
    with pytest.raises(beam.ProcessExit) as caught:
        next(stream)
    assert caught.value.reason == "killed"


def test_an_actor_that_died_before_it_was_watched_still_tells_its_reason():
    """B-82: whatever comes first."""
    # 1. The actor is told to end.
    # 2. It is dead before its monitor is set.
    events = EventQueue()
    source = Source(forever())
    pid = StreamActor.start_nowait(source, events)
    beam.exit(pid, "shutdown")
    until(lambda: not pid.alive)
    until(lambda: pid.exit_reason is not None)
    beam.monitor(pid, to=events)
    while (item := events.pop(5)).__class__ is int:
        pass
    assert item.reason == "shutdown"


def test_a_stream_told_to_end_before_it_began_closes_its_source():
    """B-84: exactly once, however short the life."""
    for _ in range(50):
        source = Source(range(5))
        events = EventQueue()
        pid = StreamActor.start_nowait(source, events)
        pid._cell.tell_exit("shutdown")
        wait_dead(pid)
        assert len(source.closed) == 1
        assert source.closed[0] == pid._cell.thread.ident


@pytest.mark.logs_errors("killed")
def test_a_killed_stream_is_over_for_its_consumer_at_once_and_cleans_up_when_it_can():
    """B-72, B-73, B-84: the zombie pushes nothing more."""
    release = threading.Event()
    entered = threading.Event()

    def block():
        entered.set()
        release.wait(10)
        return "late"

    source = Source([1], block)
    stream = reader(source)
    assert next(stream) == 1
    entered.wait(5)
    beam.exit(stream.pid, "kill")
    assert stream.take(1).reason == "killed"
    assert not source.closed
    release.set()
    until(lambda: source.closed)
    assert stream.events.sent == 1


# --- halting ------------------------------------------------------------------------------------------


def test_close_frees_a_producer_blocked_on_a_full_queue():
    """B-85: halt, then wait: returns after cleanup."""
    source = Source(forever())
    stream = reader(source, window=4)
    next(stream)
    until(lambda: stream.events._blocked)
    stream.close()
    assert not stream.pid.alive
    assert stream.pid.exit_reason == beam.Shutdown("halted")
    assert len(source.closed) == 1
    assert list(stream) == []
    stream.close()


def test_close_frees_a_producer_blocked_in_a_read():
    """B-84, B-85, B-75: by its interrupter, in 5 ms."""
    best = float("inf")
    for _ in range(5):
        pipe = Pipe([1])
        stream = reader(pipe, interrupt=pipe.interrupt)
        next(stream)
        pipe.reading.wait(5)
        begin = time.perf_counter()
        stream.close()
        best = min(best, time.perf_counter() - begin)
        assert len(pipe.closed) == len(pipe.interrupts) == 1
        assert stream.pid.exit_reason == beam.Shutdown("halted")
    assert best < 0.05


def test_an_interrupt_that_looks_like_the_end_is_no_end():
    """B-97: the halted flag is looked at first."""
    pipe = Pipe()
    events = EventQueue()
    pid = start_stream(pipe, events, interrupt=pipe.interrupt)
    pipe.reading.wait(5)
    beam.exit(pid, "shutdown")  # the source then says StopIteration
    down = events.pop(5)
    assert isinstance(down, beam.Down)
    assert down.reason == "shutdown"
    wait_dead(pid)


def test_an_interrupt_that_looks_like_a_failure_is_none():
    """B-97"""
    pipe = Pipe()

    def read():
        pipe.reading.set()
        pipe.ours.recv(1)
        raise OSError("connection lost")

    pipe.then = read
    events = EventQueue()
    pid = start_stream(pipe, events, interrupt=pipe.interrupt)
    pipe.reading.wait(5)
    beam.exit(pid, "shutdown")
    assert events.pop(5).reason == "shutdown"
    wait_dead(pid)


def test_the_interrupter_runs_only_while_the_source_is_asked():
    """B-84: around each blocking step, so not while the producer waits for credit."""
    pipe = Pipe(range(100))
    stream = reader(pipe, window=2, interrupt=pipe.interrupt)
    next(stream)
    until(lambda: stream.events._blocked)
    beam.exit(stream.pid, "shutdown")  # interrupters run in here
    assert pipe.interrupts == []
    wait_dead(stream.pid)
    assert len(pipe.closed) == 1


def test_a_halt_while_another_thread_waits_in_next_ends_that_next():
    """B-86, B-85: within 50 ms."""
    pipe = Pipe([1])
    stream = reader(pipe, interrupt=pipe.interrupt)
    assert next(stream) == 1
    waiting = in_thread(lambda: list(stream))
    pipe.reading.wait(5)
    until(stream._reading.locked)
    stream.close()
    assert waiting(1) == []


def test_closing_a_stream_that_was_never_read_starts_nothing():
    """B-83"""
    source = Source([1])
    stream = reader(source)
    stream.close()
    assert list(stream) == []
    assert stream.pid is None
    assert source.given == 0


def test_a_close_that_meets_the_opening_waits_for_it():
    """B-85: it returns after cleanup, also of what is just being opened."""
    # 1. The first read has begun to start the process.
    # 2. Another thread closes.
    opening, go = threading.Event(), threading.Event()
    source = Source(forever())

    def start(events):
        opening.set()
        go.wait(5)
        return start_stream(source, events)

    stream = StreamReader(start)
    reading = in_thread(lambda: list(stream))
    opening.wait(5)
    closing = in_thread(stream.close)
    until(lambda: stream.events.halted)
    with pytest.raises(queue.Empty):
        closing(0.02)
    go.set()
    closing(5)
    assert not stream.pid.alive
    assert len(source.closed) == 1
    assert reading(5) == []


def test_a_queue_that_was_halted_before_its_stream_started_ends_it():
    """B-85: also one that is blocked in a read."""
    pipe = Pipe()
    events = EventQueue()
    events.halt()
    pid = start_stream(pipe, events, interrupt=pipe.interrupt)
    assert wait_dead(pid) == beam.Shutdown("halted")
    assert len(pipe.closed) == 1


def test_a_with_block_left_by_an_exception_closes_the_stream():
    """B-86"""
    source = Source(forever())
    with pytest.raises(KeyError), reader(source) as stream:
        next(stream)
        raise KeyError
    assert not stream.pid.alive
    assert len(source.closed) == 1


def test_a_dropped_stream_is_halted_without_waiting():
    """B-85, B-86: by its finalizer; what must run runs elsewhere."""
    pipe = Pipe([1])
    stream = reader(pipe, interrupt=pipe.interrupt)
    next(stream)
    pipe.reading.wait(5)
    pid = stream.pid
    del stream
    gc.collect()
    assert wait_dead(pid) == beam.Shutdown("halted")
    assert len(pipe.closed) == 1
    assert pipe.interrupts == ["beam-timer"]  # a runtime thread, not the finalizer's


def test_a_dropped_stream_in_a_cycle_is_halted_when_collected():
    """B-86"""
    source = Source(forever())
    stream = reader(source, window=2)
    next(stream)
    pid = stream.pid
    ring = {"stream": stream}
    ring["ring"] = ring
    del stream, ring
    gc.collect()
    assert wait_dead(pid) == beam.Shutdown("halted")
    assert len(source.closed) == 1


def test_a_halt_takes_no_lock_of_the_layer():
    """B-85: a finalizer may run while its own thread holds them."""
    from allm_actors.beam._cell import table

    pipe = Pipe([1])
    stream = reader(pipe, interrupt=pipe.interrupt)
    next(stream)
    pipe.reading.wait(5)
    with table.lock:
        done = in_thread(stream.halt)
        done(1)
    stream.close()


@pytest.mark.logs_errors("the kill is reported")
def test_close_kills_a_stream_whose_cleanup_takes_too_long():
    """B-85: at most `close_timeout`, then kill."""
    release = threading.Event()
    source = Source(forever())
    source.at_close = functools.partial(release.wait, 10)
    stream = reader(source, window=2, close_timeout=0.05)
    next(stream)
    stream.close()
    assert not stream.pid.alive
    assert stream.pid.exit_reason == "killed"
    release.set()


def test_close_from_the_streams_own_actor_does_not_wait():
    """B-85"""
    box = []
    taken = threading.Event()

    def source():
        yield 1
        taken.wait(5)
        begin = time.perf_counter()
        box[0].close()
        box.append(time.perf_counter() - begin)
        yield 2

    stream = reader(source(), close_timeout=5)
    box.append(stream)
    assert next(stream) == 1
    taken.set()
    assert list(stream) == []
    wait_dead(stream.pid)
    assert box[1] < 1
    box.clear()


def test_two_threads_cannot_read_at_once():
    """B-86"""
    pipe = Pipe([1])
    stream = reader(pipe, interrupt=pipe.interrupt)
    next(stream)
    waiting = in_thread(lambda: list(stream))
    until(stream._reading.locked)
    with pytest.raises(RuntimeError, match="being read"):
        next(stream)
    stream.close()
    assert waiting(1) == []


def test_a_stream_may_be_passed_to_another_thread_between_two_reads():
    """B-86"""
    stream = reader(iter(range(10)))
    assert next(stream) == 0
    assert in_thread(lambda: [next(stream), next(stream)])() == [1, 2]
    assert list(stream) == list(range(3, 10))


def test_a_stream_whose_consumer_thread_died_is_halted(caplog):
    """B-87"""
    source = Source(forever())
    box = []

    def consume():
        box.append(reader(source, window=2))
        next(box[0])

    in_thread(consume)()
    assert wait_dead(box[0].pid) == beam.Shutdown("halted")
    assert "stream.owner_died" in caplog.text
    assert len(source.closed) == 1


def test_a_stream_whose_opener_died_before_it_took_anything_is_halted(monkeypatch):
    """B-87: whoever opens it is its owner."""
    monkeypatch.setattr("allm_actors.beam._event_queue.OWNER_CHECK", 0.01)
    go = threading.Event()

    def source():
        go.wait(5)
        yield from forever()

    stream = reader(source(), window=2)

    def give_up():
        with pytest.raises(queue.Empty):
            stream.take(0.01)

    in_thread(give_up)()
    go.set()
    assert wait_dead(stream.pid) == beam.Shutdown("halted")


def test_the_watch_over_a_stalled_consumer_ends_with_the_stream():
    before = beam.info()["timers"]
    stream = reader(iter([1]), stall_timeout=60)
    assert list(stream) == [1]
    assert beam.info()["timers"] == before


def test_a_consumer_that_takes_nothing_for_too_long_is_halted(caplog):
    """B-87: `stall_timeout`."""
    source = Source(forever())
    stream = reader(source, window=2, stall_timeout=0.04)
    next(stream)
    assert wait_dead(stream.pid) == beam.Shutdown("halted")
    assert "stream.stalled" in caplog.text
    assert list(stream) == []


def test_a_slow_source_is_no_stalled_consumer():
    """B-87: although events *wait*."""
    pipe = Pipe([1])
    stream = reader(pipe, interrupt=pipe.interrupt, stall_timeout=0.02)
    next(stream)
    looks = []
    from allm_actors.beam import stream as module

    look = module._StallWatch._look
    module._StallWatch._look = lambda self, _: (looks.append(1), look(self, _))
    try:
        until(lambda: len(looks) > 8)
    finally:
        module._StallWatch._look = look
    assert stream.pid.alive
    stream.close()


@pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError)])
def test_a_stall_timeout_is_a_time(bad, error):
    stream = reader(Source(), stall_timeout=bad)
    with pytest.raises(error):
        next(stream)
    assert stream.pid is None


# --- ties ---------------------------------------------------------------------------------------------


class Idle(beam.Process):
    pass


@pytest.mark.parametrize("how", ["normal", "kill"])
@pytest.mark.logs_errors("killed")
def test_a_stream_ends_with_the_process_that_lends_to_its_source(how):
    """B-88: dead for whatever reason: an exit, so the stream ends with `Down`."""
    lender = Idle.start()
    pipe = Pipe([1, 2])
    stream = reader(pipe, interrupt=pipe.interrupt, lender=lender)
    assert next(stream) == 1
    pipe.reading.wait(5)
    beam.exit(lender, "kill") if how == "kill" else beam.stop(lender)
    assert stream.take(5) == 2
    assert stream.take(5).reason == LENDER_DOWN
    assert len(pipe.closed) == 1


def test_a_stream_opened_on_a_lender_that_has_ended_meets_the_same():
    """B-88"""
    lender = Idle.start()
    beam.stop(lender)
    source = Source(forever())
    stream = reader(source, lender=lender)
    assert stream.take(5).reason == LENDER_DOWN
    assert source.given == 0
    assert len(source.closed) == 1


def test_a_stream_leaves_no_monitor_on_the_process_it_borrowed_from():
    """B-88: the connection is shared by all streams there will ever be."""
    lender = Idle.start()
    for _ in range(3):
        assert list(reader(iter([1]), lender=lender)) == [1]
    assert beam.info(lender)["monitored_by"] == 0
    beam.stop(lender)


@pytest.mark.logs_errors("the stream crashes")
def test_the_end_of_a_stream_does_not_reach_the_lender():
    """B-88: no link."""
    lender = Idle.start()

    def crash():
        raise ValueError

    stream = reader(Source([], crash), lender=lender)
    stream.take(5)
    assert lender.alive
    beam.stop(lender)


def test_a_stream_is_halted_when_the_process_that_reads_it_ends():
    """B-88"""
    source = Source(forever())
    box = queue.SimpleQueue()
    hold = []

    class Consumer(beam.Process):
        def init(self):
            stream = reader(source, window=2, consumer=beam.current())
            hold.append(stream)
            next(stream)
            box.put(stream.pid)

    consumer = Consumer.start()
    pid = box.get(timeout=5)
    beam.stop(consumer)
    assert wait_dead(pid) == beam.Shutdown("halted")
    assert len(source.closed) == 1


def test_a_stream_that_was_passed_on_outlives_the_process_that_opened_it():
    """B-86, B-88"""
    box = queue.SimpleQueue()

    class Opener(beam.Process):
        def init(self):
            stream = reader(iter(range(100)), window=2, consumer=beam.current())
            next(stream)
            box.put(stream)

    opener = Opener.start()
    stream = box.get(timeout=5)
    assert next(stream) == 1
    beam.stop(opener)
    assert list(stream) == list(range(2, 100))


def test_the_end_of_the_supervisor_ends_its_streams():
    """B-88"""
    sup = DynamicSupervisor.start()
    pipe = Pipe([1])
    stream = reader(pipe, supervisor=sup, interrupt=pipe.interrupt)
    next(stream)
    pipe.reading.wait(5)
    beam.stop(sup)
    assert stream.take(5).reason == "shutdown"
    late = reader(Source([1]), supervisor=sup)
    with pytest.raises(beam.NoProcess):
        next(late)
    assert list(late) == []


def test_a_process_that_waits_for_an_event_can_be_told_to_exit():
    """B-22: waits in progress are woken at once."""
    pipe = Pipe([1])
    inside = threading.Event()

    class Consumer(beam.Process):
        def init(self):
            self.continue_with(None)

        def handle_continue(self, token):
            with reader(pipe, interrupt=pipe.interrupt) as stream:
                next(stream)
                inside.set()
                next(stream)

    consumer = Consumer.start()
    inside.wait(5)
    beam.exit(consumer, "shutdown")
    assert wait_dead(consumer) == "shutdown"
    until(lambda: pipe.closed)  # by its `with` block
    assert len(pipe.closed) == 1


def test_a_stalled_consumer_blocks_only_its_own_stream():
    """B-90"""
    sup = DynamicSupervisor.start()
    stalled = reader(Source(forever()), window=1, supervisor=sup)
    next(stalled)
    until(lambda: stalled.events._blocked)
    others = [reader(iter(range(50)), window=1, supervisor=sup) for _ in range(5)]
    assert [list(one) for one in others] == [list(range(50))] * 5
    assert count_children(sup).active == 1
    stalled.close()
    beam.stop(sup)


# --- asyncio ------------------------------------------------------------------------------------------


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 10))


def test_a_coroutine_reads_to_the_end():
    """B-115"""

    async def main():
        async with reader(iter(range(300)), window=8) as stream:
            got = [item async for item in stream]
        assert got == list(range(300))
        assert not stream.pid.alive

    run(main)


def test_aclose_and_leaving_async_with_halt():
    """B-115"""

    async def main():
        source = Source(forever())
        async with reader(source, window=2) as stream:
            await stream.__anext__()
        assert not stream.pid.alive
        assert len(source.closed) == 1
        pipe = Pipe([1])
        stream = reader(pipe, interrupt=pipe.interrupt)
        await stream.__anext__()
        waiting = asyncio.create_task(stream.atake())
        await asyncio.sleep(0)
        await stream.aclose()
        assert await waiting is END
        assert len(pipe.closed) == 1

    run(main)


def test_a_reader_and_whoever_closes_wait_for_the_same_end():
    """B-115: neither keeps the other from hearing of it."""

    async def main():
        pipe = Pipe([1])
        stream = reader(pipe, interrupt=pipe.interrupt, close_timeout=5)
        assert await stream.__anext__() == 1
        waiting = asyncio.create_task(stream.atake())
        await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await asyncio.gather(stream.aclose(), stream.aclose())
            assert await waiting is END
        assert not stream.pid.alive

    run(main)


def test_a_cancelled_wait_halts_nothing():
    """B-115"""

    async def main():
        pipe = Pipe([1])
        stream = reader(pipe, interrupt=pipe.interrupt)
        assert await stream.__anext__() == 1
        waiting = asyncio.create_task(stream.atake())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        pipe.theirs.send(b"x")
        assert await stream.__anext__() == "byte"
        await stream.aclose()

    run(main)


@pytest.mark.logs_errors("the source crashes")
def test_a_wait_that_is_cancelled_at_the_end_does_not_lose_the_end():
    """B-115: the terminal item is an event like any other in this."""

    async def main():
        error = ValueError("the end")

        def crash():
            raise error

        stream = reader(Source([1], crash))
        assert await stream.__anext__() == 1
        pid_dead, stream._dead = stream._dead, type(stream._dead)()  # a death that is not heard of yet
        waiting = asyncio.create_task(stream.atake())
        while not stream.events.finished:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stream._dead = pid_dead
        assert (await stream.atake()).exception is error
        assert await stream.atake() is END

    run(main)


# --- forks --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_cannot_read_an_inherited_stream():
    """B-113: `NoProcess`, and nothing waits there."""
    pipe = Pipe([1, 2])
    stream = reader(pipe, interrupt=pipe.interrupt)
    next(stream)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                next(stream)
            except beam.NoProcess:
                stream.close()
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert next(stream) == 2
    stream.close()


# --- races --------------------------------------------------------------------------------------------


@pytest.fixture
def switching():
    """A switch interval of a microsecond: threads change places between almost any two instructions."""
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(old)


@pytest.mark.race
def test_close_at_any_moment_frees_everything(switching):
    """B-85: 200 streams closed at a random point, from the reader or another thread; cleanup exactly once."""
    rng = random.Random(85)
    for _ in range(200):
        source = Source(range(rng.randrange(20)))
        stream = reader(source, window=rng.choice([1, 2, 8]), close_timeout=5)
        stop_after = rng.randrange(12)
        got = []
        closing = in_thread(stream.close) if rng.random() < 0.5 else None
        for item in stream:
            got.append(item)
            if len(got) >= stop_after:
                break
        stream.close()
        if closing is not None:
            closing()
        assert got == list(range(len(got)))
        if stream.pid is not None:
            until(lambda: not stream.pid.alive)  # noqa: B023
            assert len(source.closed) == 1
        assert list(stream) == []


@pytest.mark.race
@pytest.mark.logs_errors("some are killed")
def test_a_consumer_is_never_left_waiting_whatever_ends_the_stream(switching):
    """B-82: 200 streams, each ended by something else while its consumer reads."""
    rng = random.Random(82)
    for n in range(200):
        pipe = Pipe(range(rng.randrange(6)))
        stream = reader(pipe, window=rng.choice([1, 2, 8]), interrupt=pipe.interrupt)
        reading = in_thread(lambda: list_all(stream))  # noqa: B023
        until(lambda: stream.pid is not None)  # noqa: B023
        how = n % 4
        if how == 0:
            stream.halt()
        elif how == 1:
            beam.exit(stream.pid, "kill")
        elif how == 2:
            beam.exit(stream.pid, "shutdown")
        else:
            pipe.theirs.close()  # the end of the source
        reading(5)
        until(lambda: not stream.pid.alive)  # noqa: B023
        until(lambda: len(pipe.closed) == 1)  # noqa: B023


def list_all(stream):
    try:
        return list(stream)
    except beam.ProcessExit:
        return None


@pytest.mark.race
def test_closing_while_the_stream_is_being_opened_leaves_nothing(switching):
    """B-85: 200 times `close()` races the first `next()`."""
    for _ in range(200):
        source = Source(forever())
        stream = reader(source, window=2, close_timeout=5)
        barrier = threading.Barrier(2)

        def read(stream=stream, barrier=barrier):
            barrier.wait(5)
            return next(stream, None)

        reading = in_thread(read)
        barrier.wait(5)
        stream.close()
        reading(5)
        if stream.pid is not None:
            wait_dead(stream.pid)
            assert len(source.closed) == 1
