"""Calls: a question, and the one answer or failure that comes of it."""

import asyncio
import math
import queue
import threading

import pytest

from allm_actors import beam
from allm_actors.beam._calls import Answer
from tests.beam._probe import (
    SOON,
    Boom,
    Gate,
    InThread,
    Probe,
    crash,
    end_of,
    held,
    leave,
    outcome_in,
    reason_of,
    run_in,
    sync,
    until,
    waits,
)

pytestmark = pytest.mark.logs_errors("processes crash here")


def no_reply(process):
    return beam.NO_REPLY


# --- the table of outcomes ----------------------------------------------------------------------------


def test_the_reply_comes_back(lab):  # B-14
    pid = lab.probe(name="server")
    assert beam.call(pid, lambda process: 1) == 1
    assert beam.call("server", lambda process: None) is None


@pytest.mark.parametrize("timeout", [0.01, 5, math.inf])
def test_a_dead_or_unknown_receiver_is_no_process(lab, timeout):  # B-14
    pid = lab.probe(name="was here")
    beam.stop(pid)
    for dest in (pid, "was here", ("never", "here")):
        with pytest.raises(beam.NoProcess) as caught:
            beam.call(dest, 1, timeout)
        assert caught.value.reason == "noproc"
    assert pid._cell.calls == {}


@pytest.mark.parametrize("reason", ["normal", "shutdown", "boom", beam.Shutdown(1)])
def test_a_receiver_that_ends_before_it_replied(lab, reason):  # B-14
    pid = lab.probe()
    asked = InThread(beam.call, pid, no_reply, math.inf)
    until(lambda: pid._cell.calls)
    waits(pid)
    leave(pid, reason)
    error = asked.error()
    assert type(error) is beam.ProcessExit
    assert (error.reason, error.pid) == (reason, pid)


def test_an_exit_in_handle_call_is_the_failure_of_the_call(lab):  # B-14
    pid = lab.probe()

    def quit_instead(process):
        raise beam.Exit("instead")

    with pytest.raises(beam.ProcessExit) as caught:
        beam.call(pid, quit_instead)
    assert caught.value.reason == "instead"


def test_a_crash_in_handle_call_reaches_the_caller_with_its_cause(lab):  # B-14
    pid = lab.probe()
    error = Boom("no")

    def fail(process):
        raise error

    with pytest.raises(beam.ProcessExit) as caught:
        beam.call(pid, fail)
    assert caught.value.reason == beam.Crash(error)
    assert caught.value.__cause__ is error
    assert not pid.alive


def test_a_timeout_leaves_the_receiver_alive_and_the_late_reply_is_dropped(lab):  # B-14
    pid = lab.probe()
    gate = Gate()

    def slow(process):
        gate()
        return "late"

    with pytest.raises(beam.CallTimeout) as caught:
        beam.call(pid, slow, 0.01)
    assert (caught.value.reason, caught.value.pid, caught.value.cycle) == ("timeout", pid, ())
    second = InThread(beam.call, pid, lambda process: "second")
    gate.open()
    assert second.result() == "second"  # never "late"
    assert pid.alive
    assert pid._cell.calls == {}


def test_a_reply_at_the_last_moment_counts(lab, monkeypatch):  # B-14
    """The deadline passes while the reply is on its way: the reply is taken."""
    from allm_actors.beam import _calls

    pid = lab.probe()
    real = _calls.wait_for

    def late(waiter, timeout):
        until(lambda: waiter.qsize() == 1)
        raise queue.Empty

    monkeypatch.setattr(_calls, "wait_for", late)
    assert beam.call(pid, lambda process: "just in time", 1) == "just in time"
    monkeypatch.setattr(_calls, "wait_for", real)


def test_a_process_that_calls_itself_is_told_at_once(lab):  # B-14
    pid = lab.probe(name="me")
    for dest in (pid, "me"):
        error = outcome_in(pid, lambda process, dest=dest: beam.call(dest, 1, math.inf))
        assert type(error) is beam.CallingSelf
        assert error.reason == "calling_self"
    error = outcome_in(pid, lambda process: beam.stop(pid))
    assert type(error) is beam.CallingSelf


def test_a_caller_that_is_told_to_exit_stops_waiting(lab):  # B-14
    server, client = lab.probe(), lab.probe()
    beam.cast(client, lambda process: beam.call(server, no_reply, math.inf))
    until(lambda: server._cell.calls)
    waits(client)
    assert reason_of(client, lambda: beam.exit(client, "enough")) == "enough"
    assert server._cell.calls == {}
    assert run_in(server, lambda process: server.alive)


def test_a_caller_that_dies_has_given_up_its_call(lab):  # B-15
    server, client = lab.probe(), lab.probe()
    senders = queue.SimpleQueue()
    beam.cast(client, lambda process: beam.call(server, lambda p: senders.put(p.sender) or beam.NO_REPLY))
    sender = senders.get(timeout=SOON)
    assert sender.caller is client
    waits(client)
    assert not sender.abandoned
    end_of(client, lambda: beam.exit(client, "kill"))
    until(lambda: sender.abandoned, "abandoned")
    assert sender.reply(1) is False


def test_calls_work_between_any_threads(lab):  # B-14
    pid, other = lab.probe(), lab.probe()
    assert InThread(beam.call, pid, lambda process: 1).result() == 1
    assert run_in(other, lambda process: beam.call(pid, lambda _: 2)) == 2


@pytest.mark.parametrize("answer", [ValueError("a value"), None, beam.NoProcess("x"), Answer(1)])
def test_any_value_may_be_a_reply(lab, answer):  # B-14
    assert beam.call(lab.probe(), lambda process: answer) is answer


@pytest.mark.parametrize("timeout", [-1, math.nan, True, "5", None, 1j])
@pytest.mark.parametrize(
    "use",
    [
        lambda dest, timeout: beam.call(dest, 1, timeout),
        lambda dest, timeout: beam.stop(dest, timeout=timeout),
        lambda dest, timeout: asyncio.run(beam.acall(dest, 1, timeout)),
    ],
    ids=["call", "stop", "acall"],
)
def test_a_timeout_that_makes_no_sense_is_refused_before_anything_is_sent(lab, use, timeout):  # section 15
    pid = lab.probe()
    with pytest.raises((ValueError, TypeError)):
        use(pid, timeout)
    assert pid._cell.handled == 0
    assert run_in(pid, lambda process: process._cell.handled) == 1


def test_timeout_zero_asks_and_does_not_wait(lab):  # B-14
    pid = lab.probe()
    with held(pid), pytest.raises(beam.CallTimeout):
        beam.call(pid, lambda process: 1, 0)


def test_a_call_is_not_handled_for_a_caller_that_is_gone(lab, logs):  # B-14
    pid = lab.probe()
    done = []
    with held(pid), pytest.raises(beam.CallTimeout):
        beam.call(pid, lambda process: done.append(1), 0.001)
    sync(pid)
    assert done == []
    assert logs.of("mailbox.dropped")


# --- deferred replies ---------------------------------------------------------------------------------


def test_a_reply_may_come_later_and_from_any_thread(lab):  # B-15
    pid = lab.probe()
    senders = queue.SimpleQueue()
    asked = InThread(beam.call, pid, lambda process: senders.put(process.sender) or beam.NO_REPLY)
    sender = senders.get(timeout=SOON)
    sync(pid)  # the server goes on meanwhile
    assert sender.reply("later") is True
    assert asked.result() == "later"


def test_the_first_answer_counts(lab):  # B-15
    pid = lab.probe()
    box = queue.SimpleQueue()

    def twice(process):
        box.put(process.sender.reply("first"))
        box.put(process.sender.reply("second"))
        box.put(process.sender.fail(Boom("third")))
        return "fourth"

    assert beam.call(pid, twice) == "first"
    sync(pid)
    assert [box.get_nowait() for _ in range(3)] == [True, False, False]


def test_fail_raises_in_the_caller_unchanged_and_the_server_lives(lab):  # B-15
    pid = lab.probe()
    error = Boom("refused")

    def refuse(process):
        process.sender.fail(error)
        return beam.NO_REPLY

    with pytest.raises(Boom) as caught:
        beam.call(pid, refuse)
    assert caught.value is error
    sync(pid)


def test_stop_with_a_reply_answers_and_ends(lab):  # B-15
    pid = lab.probe()
    box = []
    assert reason_of(pid, lambda: box.append(beam.call(pid, lambda _: beam.Stop("done", "bye")))) == "done"
    assert box == ["bye"]


def test_stop_without_a_reply_fails_the_call(lab):  # B-15
    pid = lab.probe()
    with pytest.raises(beam.ProcessExit) as caught:
        beam.call(pid, lambda process: beam.Stop("done"))
    assert caught.value.reason == "done"


def test_a_sender_that_is_dropped_fails_when_the_process_ends(lab):  # B-15
    pid = lab.probe()
    asked = InThread(beam.call, pid, no_reply)
    until(lambda: pid._cell.calls)
    sync(pid)
    beam.stop(pid)
    assert asked.error().reason == "normal"


def test_terminate_may_still_answer(lab):  # B-15
    pid = lab.probe(at_end=lambda process: process.kept.reply("last word"))

    kept = threading.Event()

    def keep(process):
        process.kept = process.sender
        kept.set()
        return beam.NO_REPLY

    asked = InThread(beam.call, pid, keep)
    assert kept.wait(SOON)
    beam.exit(pid, "over")
    assert asked.result() == "last word"


def test_a_sender_knows_that_its_caller_gave_up(lab):  # B-15
    pid = lab.probe()
    senders = queue.SimpleQueue()
    with pytest.raises(beam.CallTimeout):
        beam.call(pid, lambda process: senders.put(process.sender) or beam.NO_REPLY, 0.02)
    sender = senders.get(timeout=SOON)
    assert sender.abandoned
    assert sender.reply("late") is False
    assert sender.fail(Boom()) is False


# --- callers of a process that is told to exit --------------------------------------------------------


def test_messages_that_wait_are_not_handled_and_their_callers_get_the_reason(lab):  # B-24
    pid = lab.probe()
    done = []
    with held(pid):
        asked = [InThread(beam.call, pid, lambda process: done.append(1), math.inf) for _ in range(3)]
        until(lambda: len(pid._cell.calls) == 3)
        beam.exit(pid, "over")
    assert [one.error().reason for one in asked] == ["over"] * 3
    assert done == []


# --- who waits for whom -------------------------------------------------------------------------------


def test_a_timeout_in_a_ring_of_calls_names_the_ring(lab, logs):  # B-116
    a, b, c = (lab.probe() for _ in range(3))
    report = queue.SimpleQueue()

    def ask_a(process):
        beam.call(a, lambda _: 1, 1.0)

    def ask_c(process):
        beam.call(c, ask_a, SOON)

    def begin(process):
        try:
            beam.call(b, ask_c, 0.05)
        except beam.CallTimeout as error:
            report.put(error)

    beam.cast(a, begin)
    error = report.get(timeout=SOON)
    assert error.cycle == (a, b, c)
    for pid in (a, b, c):
        assert str(pid) in str(error)
    record = logs.wait_for("call.deadlock")
    assert record["processes"] == [str(pid) for pid in (a, b, c)]


def test_a_slow_server_is_no_ring(lab):  # B-116
    a, b = lab.probe(), lab.probe()
    with held(b):
        error = outcome_in(a, lambda process: beam.call(b, lambda _: 1, 0.01))
    assert type(error) is beam.CallTimeout
    assert error.cycle == ()


def test_calling_the_supervisor_that_is_just_starting_one_names_the_ring(lab):  # section 15
    report = queue.SimpleQueue()

    def ask_parent(process):
        parent = process._cell.parent.pid
        try:
            beam.call(parent, lambda _: 1, 0.02)
        except beam.CallTimeout as error:
            report.put((error, parent, process.pid))

    def start(process):
        return Probe.start_link(queue.SimpleQueue(), at_birth=ask_parent)

    starter = lab.probe()
    child = lab.keep(run_in(starter, start))
    error, parent, me = report.get(timeout=SOON)
    assert (parent, me) == (starter, child)
    assert error.cycle == (child, starter)


# --- what a crash costs the caller --------------------------------------------------------------------


def test_one_thread_may_have_a_call_in_a_call(lab):  # B-14
    a, b = lab.probe(), lab.probe()
    assert beam.call(a, lambda process: beam.call(b, lambda _: 3)) == 3


def test_a_call_to_a_process_in_its_init_waits_for_it(lab):  # B-14
    gate = Gate()
    started = InThread(lambda: lab.probe(at_birth=gate, name="newborn"))
    gate.wait()
    asked = InThread(beam.call, "newborn", lambda process: "awake")
    gate.open()
    assert asked.result() == "awake"
    started.result()


def test_a_call_to_a_process_that_fails_in_init_fails(lab):  # B-14
    gate = Gate()

    def birth(process):
        gate()
        raise Boom

    started = InThread(lambda: lab.probe(at_birth=birth, name="newborn"))
    gate.wait()
    asked = InThread(beam.call, "newborn", lambda process: "awake")
    until(lambda: beam.whereis("newborn")._cell.calls)
    gate.open()
    assert isinstance(asked.error().reason, beam.Crash)
    assert isinstance(started.error(), beam.StartError)


def test_each_caller_gets_its_own_failure(lab):  # B-14
    pid = lab.probe()
    asked = [InThread(beam.call, pid, no_reply, math.inf) for _ in range(3)]
    until(lambda: len(pid._cell.calls) == 3)
    waits(pid)
    crash(pid)
    errors = [one.error() for one in asked]
    assert len({id(error) for error in errors}) == 3
    assert all(isinstance(error.__cause__, Boom) for error in errors)


def test_call_in_terminate_works(lab):  # B-22
    """Checkpoints are quiet during cleanup, so that it may ask others."""
    server = lab.probe()
    box = queue.SimpleQueue()
    pid = lab.probe(at_end=lambda process: box.put(beam.call(server, lambda _: "helped")))
    beam.exit(pid, "over")
    assert box.get(timeout=SOON) == "helped"


def test_a_sender_is_answered_once_whoever_races(lab):  # B-15
    pid = lab.probe()
    senders = queue.SimpleQueue()
    for _ in range(50):
        asked = InThread(beam.call, pid, lambda process: senders.put(process.sender) or beam.NO_REPLY)
        sender = senders.get(timeout=SOON)
        barrier = threading.Barrier(2)

        def answer(value, sender=sender, barrier=barrier):
            barrier.wait(SOON)
            return sender.reply(value)

        racers = [InThread(answer, value) for value in "ab"]
        said = [racer.result() for racer in racers]
        assert sorted(said) == [False, True]
        assert asked.result() == "ab"[said.index(True)]
