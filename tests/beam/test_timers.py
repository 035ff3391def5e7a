"""Timers: never early, fired or cancelled but never both, gone with the process they were for."""

import gc
import math
import queue
import statistics
import threading
import time
import weakref

import pytest
import tenacity

from allm_actors import beam
from allm_actors.beam.timer import TimerService, service
from tests.beam._probe import SOON, Boom, Gate, InThread, held, reason_of, run_in, until

pytestmark = pytest.mark.logs_errors("processes end abnormally here")

LONG = 1000.0


def test_a_message_arrives_later_and_never_early(lab):  # B-50
    pid = lab.probe()
    for delay in (0, 0.001, 0.005, 0.02):
        started = time.monotonic()
        beam.send_after(delay, pid, "now")
        assert pid.heard.get(timeout=SOON) == "now"
        assert time.monotonic() - started >= delay


def test_timers_are_on_time(lab):  # B-50
    """Late by less than 20 ms; the median, for this machine may be busy."""
    inbox = beam.Inbox()
    late = []
    for _ in range(15):
        due = time.monotonic() + 0.003
        beam.send_after(0.003, inbox, None)
        inbox.receive(SOON)
        late.append(time.monotonic() - due)
    assert statistics.median(late) < 0.02


def test_timers_fire_in_the_order_they_are_due():  # B-50
    inbox = beam.Inbox()
    for delay in (0.03, 0.01, 0.02, 0.0):
        beam.send_after(delay, inbox, delay)
    assert [inbox.receive(SOON) for _ in range(4)] == [0.0, 0.01, 0.02, 0.03]


def test_timers_that_are_due_together_fire_in_the_order_they_were_set(monkeypatch):  # B-50
    inbox = beam.Inbox()
    now = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now)
        for number in range(10):
            beam.send_after(0.01, inbox, number)
    assert [inbox.receive(SOON) for _ in range(10)] == list(range(10))


def test_a_receiver_may_be_a_pid_a_name_an_inbox_or_a_callable(lab):  # B-50
    pid = lab.probe(name="timed")
    inbox, called = beam.Inbox(), queue.SimpleQueue()
    for dest in (pid, "timed", inbox, called.put):
        beam.send_after(0, dest, "tick")
    assert [pid.heard.get(timeout=SOON), pid.heard.get(timeout=SOON)] == ["tick", "tick"]
    assert inbox.receive(SOON) == "tick"
    assert called.get(timeout=SOON) == "tick"


def test_a_callable_that_raises_is_logged_and_the_timers_go_on(logs):  # B-50
    inbox = beam.Inbox()

    def fail(message):
        raise Boom("in a timer")

    beam.send_after(0, fail, "secret")
    beam.send_after(0, inbox, "next")
    assert inbox.receive(SOON) == "next"
    record = logs.of("timer.failed")[0]
    assert (record["level"], "in a timer" in record["error"]) == ("error", True)
    assert "secret" not in repr(logs.everything())


def test_cancel_says_what_was_left(lab):  # B-50
    inbox = beam.Inbox()
    running = beam.send_after(LONG, inbox, "never")
    assert LONG - 1 < beam.read_timer(running) <= LONG
    assert LONG - 1 < beam.cancel_timer(running) <= LONG
    assert beam.cancel_timer(running) is None  # cancelled
    assert beam.read_timer(running) is None
    fired = beam.send_after(0, inbox, "fired")
    assert inbox.receive(SOON) == "fired"
    assert beam.cancel_timer(fired) is None
    assert beam.read_timer(fired) is None


def test_a_message_that_was_delivered_stays(lab):  # B-50
    pid = lab.probe()
    with held(pid):
        ref = beam.send_after(0, pid, "there")
        until(lambda: len(pid._cell.mailbox) == 1)
        assert beam.cancel_timer(ref) is None
    assert pid.heard.get(timeout=SOON) == "there"


def test_a_cancelled_timer_does_not_fire():  # B-50
    inbox = beam.Inbox()
    ref = beam.send_after(0.01, inbox, "cancelled")
    beam.send_after(0.02, inbox, "marker")
    assert beam.cancel_timer(ref) is not None
    assert inbox.receive(SOON) == "marker"


def test_an_interval_repeats_until_cancelled():  # B-50
    inbox = beam.Inbox()
    started = time.monotonic()
    ref = beam.send_interval(0.003, inbox, "tick")
    assert [inbox.receive(SOON) for _ in range(5)] == ["tick"] * 5
    assert time.monotonic() - started >= 5 * 0.003
    assert beam.read_timer(ref) is not None
    assert beam.cancel_timer(ref) is not None
    for _ in range(len(inbox)):
        inbox.receive(0)
    beam.send_after(0.01, inbox, "marker")
    assert inbox.receive(SOON) == "marker"


def test_a_timer_goes_with_the_process_it_is_for(lab):  # B-50
    pid = lab.probe()
    once, often = beam.send_after(LONG, pid, 1), beam.send_interval(LONG, pid, 2)
    assert pid._cell.timers
    beam.stop(pid)
    assert (beam.read_timer(once), beam.read_timer(often)) == (None, None)
    late = beam.send_after(LONG, pid, 3)
    assert beam.read_timer(late) is None
    assert pid._cell.timers == {}


def test_a_name_is_resolved_when_the_timer_fires(lab):  # B-50
    ref = beam.send_after(0.02, "heir", "for whoever it is then")
    pid = lab.probe(name="heir")
    assert pid.heard.get(timeout=SOON) == "for whoever it is then"
    assert beam.read_timer(ref) is None
    inbox = beam.Inbox()
    beam.send_after(0, "nobody", "lost")
    beam.send_after(0, inbox, "the thread goes on")
    assert inbox.receive(SOON) == "the thread goes on"


@pytest.mark.parametrize("delay", [-1, -0.001, math.nan, -math.inf])
def test_a_delay_that_makes_no_sense(delay):  # B-50
    for use in (beam.send_after, beam.send_interval):
        with pytest.raises(ValueError):
            use(delay, beam.Inbox(), 1)
    with pytest.raises(ValueError):
        beam.sleep(delay)


@pytest.mark.parametrize("delay", ["1", None, True, 1j])
def test_a_delay_that_is_no_number(delay):  # B-50
    for use in (beam.send_after, beam.send_interval):
        with pytest.raises(TypeError):
            use(delay, beam.Inbox(), 1)
    with pytest.raises(TypeError):
        beam.sleep(delay)


def test_an_interval_is_longer_than_nothing():  # B-50
    with pytest.raises(ValueError):
        beam.send_interval(0, beam.Inbox(), 1)


def test_never_is_a_time(lab):  # B-50
    pid = lab.probe()
    ref = beam.send_after(math.inf, pid, "never")
    assert beam.read_timer(ref) == math.inf
    assert beam.cancel_timer(ref) == math.inf
    ref = beam.send_after(1e300, pid, "hardly ever")
    assert beam.cancel_timer(ref) > 1e299
    beam.send_after(0, pid, "soon")
    assert pid.heard.get(timeout=SOON) == "soon"


def test_one_thread_serves_all_timers(lab):  # B-50
    threads = queue.SimpleQueue()
    before = threading.active_count()
    refs = [beam.send_after(LONG, beam.Inbox(), 1) for _ in range(100)]
    for _ in range(3):
        beam.send_after(0, lambda _: threads.put(threading.current_thread()), None)
    served = {threads.get(timeout=SOON) for _ in range(3)}
    assert {(thread.name, thread.daemon) for thread in served} == {("beam-timer", True)}
    assert threading.active_count() <= before + 1
    for ref in refs:
        beam.cancel_timer(ref)


def test_cancelled_timers_are_not_kept(lab):  # B-50
    """Many long timers that are set and cancelled must not pile up."""

    class Message:
        pass

    messages = [Message() for _ in range(50)]
    gone = [weakref.ref(message) for message in messages]
    refs = [beam.send_after(LONG, beam.Inbox(), message) for message in messages]
    for ref in refs:
        beam.cancel_timer(ref)
    messages.clear()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 50
    own = TimerService()
    heap = []
    for _ in range(2000):
        number = own.after(math.inf, None, None)
        timer = own._live[number]
        own._push(timer, heap)
        own.cancel(number)
    assert len(heap) < 600


def test_a_timer_of_a_killed_process_is_refused(lab):  # B-73
    pid, box = lab.probe(), queue.SimpleQueue()

    def late(process):
        gate()
        try:
            beam.send_after(0, box.put, "harm")
        except beam.Exit as order:
            box.put(order.reason)

    gate = Gate()
    beam.cast(pid, late)
    gate.wait()
    beam.exit(pid, "kill")
    gate.open()
    assert box.get(timeout=SOON) == "killed"


def test_a_timer_set_while_the_service_is_asked_to_end_is_served():  # B-111
    """The thread may be on its way out when a timer comes in: somebody has to serve it."""
    own = TimerService()
    fired = queue.SimpleQueue()
    for number in range(300):
        own.after(0, fired.put, "first")
        fired.get(timeout=SOON)
        barrier = threading.Barrier(2)

        def stop(barrier=barrier):
            barrier.wait(SOON)
            own.stop(SOON)

        stopper = InThread(stop)
        barrier.wait(SOON)
        timer = own.after(0, fired.put, number)
        stopper.result()
        until(
            lambda timer=timer: own.left(timer) is None
        )  # cancelled by the stop, or fired; never left lying
        while not fired.empty():
            fired.get()
    own.stop(SOON)


# --- sleep --------------------------------------------------------------------------------------------


def test_sleep_is_a_sleep(lab):  # B-51
    started = time.monotonic()
    beam.sleep(0.01)
    assert time.monotonic() - started >= 0.01
    pid = lab.probe()

    def nap(process):
        began = time.monotonic()
        beam.sleep(0.01)
        return time.monotonic() - began

    assert run_in(pid, nap) >= 0.01
    assert run_in(pid, lambda process: beam.sleep(0)) is None


def test_an_exit_ends_a_sleep_at_once(lab):  # B-51
    pid = lab.probe()
    beam.cast(pid, lambda process: beam.sleep(LONG))
    until(lambda: pid._cell.parked is not None)
    started = time.monotonic()
    assert reason_of(pid, lambda: beam.exit(pid, "up")) == "up"
    assert time.monotonic() - started < 1


def test_a_sleep_begun_after_the_order_does_not_begin(lab):  # B-51
    pid = lab.probe()
    gate = Gate()

    def nap(process):
        gate()
        beam.sleep(LONG)

    beam.cast(pid, nap)
    gate.wait()
    beam.exit(pid, "over")
    assert reason_of(pid, gate.open) == "over"


def test_a_retry_loop_sleeps_with_it(lab):  # B-51
    pid = lab.probe()
    tries = queue.SimpleQueue()

    def attempt():
        tries.put(1)
        raise Boom

    def loop(process):
        retrying = tenacity.Retrying(
            sleep=beam.sleep, wait=tenacity.wait_fixed(LONG), retry=tenacity.retry_if_exception_type(Boom)
        )
        retrying(attempt)

    beam.cast(pid, loop)
    tries.get(timeout=SOON)
    until(lambda: pid._cell.parked is not None)
    assert reason_of(pid, lambda: beam.exit(pid, "no more tries")) == "no more tries"
    assert tries.qsize() == 0


# --- what finalizers may hand over --------------------------------------------------------------------


def test_a_job_runs_in_the_timer_thread():  # B-85
    box = queue.SimpleQueue()
    service.run(lambda: box.put(threading.current_thread().name))
    assert box.get(timeout=SOON) == "beam-timer"


def test_a_job_that_raises_is_logged(logs):  # B-85
    def fail():
        raise Boom

    service.run(fail)
    assert logs.wait_for("timer.failed")["level"] == "error"
