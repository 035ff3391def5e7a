"""The queue between a stream's producer and its consumer."""

import asyncio
import gc
import queue
import random
import sys
import threading
import time
import weakref

import pytest

from allm_actors import beam
from allm_actors.beam._event_queue import END, End, EventQueue, Failed
from allm_actors.beam._lane import Lane
from allm_actors.beam.pid import Down, Exit, Shutdown
from tests.beam._kids import wait_dead

DOWN = Down(None, None, "boom")


def produce(events, count):
    """Push `count` numbers, then end, in a thread; the thread."""

    def run():
        try:
            for n in range(count):
                events.push(n)
        except Exit:
            return
        events.end()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def until(condition, deadline=5.0):
    limit = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < limit, "it never came true"
        time.sleep(0.001)


def test_events_arrive_in_order_and_then_the_end_for_ever():
    """B-80: nothing lost, doubled or reordered."""
    events = EventQueue(window=4)
    thread = produce(events, 1000)

    got = []
    while (item := events.pop(5)) is not END:
        got.append(item)

    thread.join(5)
    assert got == list(range(1000))
    assert events.pop(5) == End()  # and again, at once
    assert events.in_flight == 0


@pytest.mark.parametrize("window", [1, 2, 7, 64])
def test_at_most_a_window_is_in_flight_and_half_of_it_wakes_the_producer(window):
    """B-81: the producer waits at `window`, until `window // 2` or fewer are in flight."""
    events = EventQueue(window=window)
    produce(events, 1000)
    until(lambda: events._blocked)

    assert events.sent == events.in_flight == window
    while events.in_flight > window // 2 + 1:
        events.pop(5)
    assert events._blocked  # one more than half: it still waits
    assert events.sent == window
    events.pop(5)
    until(lambda: events.sent == window + (window - window // 2))

    assert events.in_flight == window
    events.halt()


def test_a_producer_that_wakes_for_nothing_waits_on():
    """B-81: until half or fewer are in flight, whatever wakes it."""
    events = EventQueue(window=4)
    produce(events, 1000)
    until(lambda: events._blocked)
    events.pop(5)
    for _ in range(5):
        events._blocked = False
        events._credit.put(None)
        until(lambda: events._blocked)
        assert events.sent == 4
    events.halt()


def test_a_process_that_only_pushes_can_be_told_to_exit():
    """B-22: pushing into a stream is a checkpoint, with credit or without."""
    events = EventQueue(window=10**9)

    def work():
        while True:
            events.push(1)

    pid = beam.spawn(work)
    events.pop(5)
    beam.exit(pid, "shutdown")
    assert wait_dead(pid) == "shutdown"


def test_a_blocked_producer_is_woken_once_per_half_window_and_not_per_event():
    """B-80: that is what the credit is for."""
    events = EventQueue(window=64)
    wakes = []
    put = events._credit.put

    class Credit:
        def put(self, item):
            wakes.append(item)
            put(item)

        def get(self, *args, **kwargs):
            return real.get(*args, **kwargs)

        def get_nowait(self):
            return real.get_nowait()

    real, events._credit = events._credit, Credit()
    produce(events, 640)
    until(lambda: events._blocked)
    taken = 0
    while events.pop(5) is not END:
        taken += 1
        if events.in_flight == 32:
            until(lambda: events._blocked or events._closed)

    assert taken == 640
    assert len(wakes) <= 640 / 32


@pytest.mark.parametrize(
    ("window", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (2.0, TypeError)]
)
def test_a_window_is_at_least_one_event(window, error):
    """B-81"""
    with pytest.raises(error):
        EventQueue(window=window)


def test_terminal_items_do_not_count_and_are_never_blocked():
    """B-81, B-82"""
    events = EventQueue(window=1)
    events.push("a")

    events.end()  # no room, and yet

    assert events.in_flight == 1
    assert [events.pop(1), events.pop(1)] == ["a", END]


def test_only_the_first_terminal_item_counts():
    """B-82: exactly one, whatever comes after it."""
    events = EventQueue()
    events.push("a")
    error = ValueError("b")
    events.fail(error)
    events.end()
    events.on_down(DOWN)

    assert events.pop(1) == "a"
    assert events.pop(1) == Failed(error)
    assert events.pop(1) is END
    assert events.lane.items.empty()


def test_two_terminal_items_in_a_race_are_one_for_the_consumer():
    """B-82: a kill and the end of the source at the same time."""
    # 1. Both look, and see no terminal item yet.
    # 2. Both send theirs.
    events = EventQueue()
    events.on_down(DOWN)
    events._closed = False
    events.end()

    assert events.pop(1) is DOWN
    assert events.pop(1) is END
    assert events.accept(events.lane.items.get(timeout=1)) is not END  # the second: nothing to deliver


def test_nothing_can_follow_the_terminal_item():
    events = EventQueue()
    events.end()
    with pytest.raises(ValueError, match="terminal"):
        events.push(1)


def test_a_failure_keeps_its_text_and_not_its_frames():
    """B-82: traceback text kept, frames not."""

    class Local:
        pass

    events = EventQueue()

    def fail():
        local = Local()
        seen.append(weakref.ref(local))
        try:
            try:
                raise KeyError("inner")
            except KeyError as inner:
                raise ValueError("outer") from inner
        except ValueError as exc:
            events.fail(exc)

    seen = []
    fail()
    gc.collect()
    failed = events.pop(1)

    assert seen[0]() is None
    assert failed.exception.__traceback__ is None
    assert failed.exception.__cause__.__traceback__ is None
    assert "in fail" in failed.report
    assert "KeyError: 'inner'" in failed.report


def test_pop_gives_up_after_its_timeout_and_loses_nothing():
    events = EventQueue()
    with pytest.raises(queue.Empty):
        events.pop(0.01)
    with pytest.raises(queue.Empty):
        events.pop(0)
    events.push(1)
    assert events.pop(0) == 1
    for bad, error in [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)]:
        with pytest.raises(error):
            events.pop(bad)


def test_nothing_is_delivered_after_a_halt():
    """B-82, B-85: what was buffered is discarded; the producer meets the halt at its next push."""
    events = EventQueue()
    events.push(1)

    events.halt()
    events.halt()

    assert events.pop(1) is END
    with pytest.raises(Exit) as caught:
        events.push(2)
    assert caught.value.reason == Shutdown("halted")
    events.end()
    events.fail(ValueError())
    events.on_down(DOWN)
    assert events.pop(1) is END


def test_a_halt_wakes_both_ends():
    """B-85"""
    full, empty = EventQueue(window=1), EventQueue()
    out = queue.SimpleQueue()

    def producer():
        try:
            full.push(1)
            full.push(2)
        except Exit as exc:
            out.put(exc.reason)

    def consumer():
        out.put(empty.pop(5))

    threads = [threading.Thread(target=producer, daemon=True), threading.Thread(target=consumer, daemon=True)]
    for thread in threads:
        thread.start()
    until(lambda: full._blocked)

    full.halt()
    assert out.get(timeout=0.4) == Shutdown("halted")  # sooner than its next look at its owner
    empty.halt()
    assert out.get(timeout=0.4) is END
    for thread in threads:
        thread.join(5)


def test_a_finalizer_may_halt_at_any_allocation():
    """B-80, B-85: no lock is taken, so the collector may run it inside any operation of the same queue."""
    events = EventQueue(window=1000)
    halted = []

    class Dropped:
        def __init__(self):
            self.me = self

        def __del__(self):
            other.halt()
            halted.append(1)

    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(300):
            other = events = EventQueue(window=1000)
            Dropped()
            try:
                for n in range(20):
                    events.push([n])
                    events.pop(0)
            except (Exit, queue.Empty):
                pass
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert len(halted) == 300


def test_the_hook_of_a_halt_runs_once():
    calls = []
    events = EventQueue(on_halt=lambda: calls.append(1))
    events.halt()
    events.halt()
    assert calls == [1]


@pytest.mark.race
@pytest.mark.parametrize("interval", [1e-6, 5e-3])
def test_credit_is_never_lost_under_forced_switching(interval):
    """B-80: 400 randomised runs, with a switch interval of 1 us too: all arrives, and nobody is left waiting."""
    rng = random.Random(80)
    old = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        for _ in range(200):
            count = rng.randrange(1, 60)
            events = EventQueue(window=rng.choice([1, 2, 3, 5, 8]))
            stop_after = rng.choice([None, rng.randrange(count)])
            thread = produce(events, count)
            got = []
            while (item := events.pop(5)) is not END:
                got.append(item)
                if len(got) == stop_after:
                    events.halt()
            thread.join(5)
            assert not thread.is_alive()
            assert got == list(range(stop_after or count))
    finally:
        sys.setswitchinterval(old)


def test_a_producer_whose_consumer_thread_died_halts_the_stream(caplog):
    """B-87: dead, and nothing taken since: a warning, and the halt."""
    events = EventQueue(window=2)
    events.push(0)
    reader = threading.Thread(target=lambda: events.pop(5), name="reader")
    reader.start()
    reader.join(5)

    with caplog.at_level("WARNING", "allm_actors.beam"), pytest.raises(Exit) as caught:
        for n in range(10):
            events.push(n)

    assert caught.value.reason == Shutdown("halted")
    assert events.halted
    assert "stream.owner_died" in caplog.text


def test_a_stream_passed_on_to_another_thread_belongs_to_that_thread(monkeypatch):
    """B-86, B-87: the owner is the thread that last took an event."""
    monkeypatch.setattr("allm_actors.beam._event_queue.OWNER_CHECK", 0.01)
    events = EventQueue(window=2)
    events.push(0)
    first = threading.Thread(target=lambda: events.pop(5))
    first.start()
    first.join(5)
    events.push(1)
    assert events.pop(5) == 1  # this thread's now
    thread = produce(events, 10)
    until(lambda: events._blocked)
    looks = []
    look = events.__class__._look_after_owner
    monkeypatch.setattr(
        EventQueue, "_look_after_owner", lambda self, taken: (looks.append(1), look(self, taken))
    )
    until(lambda: len(looks) >= 3)

    assert not events.halted
    while events.pop(5) is not END:
        pass
    thread.join(5)


def test_an_owner_that_died_after_another_took_over_is_nobody(monkeypatch):
    """B-87: "and nothing was taken since"."""
    # 1. The producer sees a dead owner.
    # 2. Another thread takes an event.
    # 3. The producer looks again before it halts.
    events = EventQueue()
    events.push(1)
    events.push(2)

    class Dying:
        name = "dying"

        def is_alive(self):
            events.pop(1)
            return False

    events.lane.owner = Dying()
    events._look_after_owner(0)
    assert not events.halted


def test_a_shared_lane_keeps_credit_per_stream():
    """B-89: one fast stream cannot use up the others' room."""
    lane = Lane()
    fast, slow = EventQueue(window=2, lane=lane, tag="fast"), EventQueue(window=2, lane=lane, tag="slow")
    thread = produce(fast, 100)
    until(lambda: fast._blocked)

    slow.push("x")  # does not wait

    feeds = {"fast": fast, "slow": slow}
    got = {"fast": [], "slow": []}
    slow.end()
    while not (fast.finished and slow.finished):
        tag, item = lane.items.get(timeout=5)
        got[tag].append(feeds[tag].accept(item))
        assert fast.in_flight <= 2
    thread.join(5)
    assert got == {"fast": [*range(100), END], "slow": ["x", END]}


def test_each_stream_of_a_shared_lane_is_halted_alone():
    """B-89"""
    lane = Lane()
    one, two = EventQueue(lane=lane), EventQueue(lane=lane)
    one.push(1)
    two.push(2)
    one.halt()
    two.push(3)
    two.end()

    got = []
    while not two.finished:
        feed, item = lane.items.get(timeout=5)
        got.append((feed, feed.accept(item)))
    assert [(f, i) for f, i in got if f is two] == [(two, 2), (two, 3), (two, END)]
    assert all(i.__class__.__name__ == "Skip" for f, i in got if f is one)
    with pytest.raises(Exit):
        one.push(4)


def test_a_wider_window_wakes_the_producer_and_a_narrower_one_takes_nothing_back():
    """B-89: the share of a stream changes while it runs."""
    events = EventQueue(window=2)
    produce(events, 100)
    until(lambda: events._blocked)
    assert events.sent == 2

    events.window = 8
    until(lambda: events.sent == 8, 0.3)  # sooner than its next look at its owner
    events.window = 1
    for n in range(8):
        assert events.pop(5) == n
    until(lambda: events._blocked)
    assert events.in_flight == 1
    assert events.window == 1
    events.halt()


def test_a_coroutine_takes_events_without_blocking_its_loop():
    """B-115"""

    async def main():
        events = EventQueue(window=4)
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticker = asyncio.create_task(tick())
        waiting = asyncio.create_task(events.apop())
        while ticks < 50:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert not waiting.done()
        thread = produce(events, 500)
        got = [await waiting]
        while (item := await events.apop()) is not END:
            got.append(item)
        ticker.cancel()
        thread.join(5)
        assert got == list(range(500))
        assert await events.apop() is END

    asyncio.run(asyncio.wait_for(main(), 10))


def test_the_loop_is_called_only_when_the_consumer_waits():
    """B-115: a wake-up per event would cost twenty times as much."""

    async def main():
        events = EventQueue(window=64)
        loop = asyncio.get_running_loop()
        calls = []
        real = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *a: (calls.append(a), real(*a))[1]
        for n in range(50):
            events.push(n)
        assert [await events.apop() for _ in range(50)] == list(range(50))
        assert not calls
        waiting = asyncio.create_task(events.apop())
        await asyncio.sleep(0)
        for n in range(10):
            events.push(n)
        assert await waiting == 0
        assert len(calls) == 1

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_cancelled_wait_loses_no_event():
    """B-115: nor halts it anything."""

    async def main():
        events = EventQueue()
        for n in range(20):
            waiting = asyncio.create_task(events.apop())
            await asyncio.sleep(0)
            events.push(n)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await events.apop() == n
        assert not events.halted
        waiting = asyncio.create_task(events.apop())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert events.lane.waiter is None  # no producer wakes a loop for nobody

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_halt_wakes_a_waiting_coroutine():
    """B-115, B-85"""

    async def main():
        events = EventQueue()
        waiting = asyncio.create_task(events.apop())
        await asyncio.sleep(0)
        threading.Thread(target=events.halt).start()
        assert await waiting is END

    asyncio.run(asyncio.wait_for(main(), 5))


def test_a_producer_does_not_mind_a_closed_loop():
    """B-115: the loop ended while the consumer waited."""
    events = EventQueue()

    async def main():
        task = asyncio.create_task(events.apop())
        await asyncio.sleep(0)
        return task, events.lane.waiter

    loop = asyncio.new_event_loop()
    _task, waiter = loop.run_until_complete(main())
    _task.cancel()
    loop.run_until_complete(asyncio.gather(_task, return_exceptions=True))
    loop.close()
    events.lane.waiter = waiter

    events.push(1)

    assert events.pop(1) == 1


@pytest.mark.race
def test_a_coroutine_is_never_left_waiting():
    """B-115: 300 runs of a producer that pauses at random, with forced switching."""
    rng = random.Random(115)
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    async def main():
        for _ in range(300):
            events = EventQueue(window=rng.choice([1, 2, 4]))
            thread = produce(events, 12)
            got = []
            while (item := await events.apop()) is not END:
                got.append(item)
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
            assert got == list(range(12))
            thread.join(5)

    try:
        asyncio.run(asyncio.wait_for(main(), 30))
    finally:
        sys.setswitchinterval(old)


def test_an_event_through_the_queue_costs_little():
    """B-80: about a microsecond; three at the most."""
    best = float("inf")
    for _ in range(5):
        events = EventQueue(window=64)
        push, pop = events.push, events.pop
        begin = time.perf_counter()
        for _ in range(50):
            for n in range(60):
                push(n)
            for _ in range(60):
                pop()
        best = min(best, (time.perf_counter() - begin) / 3000)
    assert best < 3e-6
