"""Exit signals: who dies of what, who hears of it, and where a process notices."""

import queue
import threading
import time

import pytest

from allm_actors import beam
from tests.beam._probe import (
    SOON,
    Boom,
    Gate,
    InThread,
    Probe,
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

pytestmark = pytest.mark.logs_errors("processes end abnormally here")


def linked(lab, *, trap=False):
    """A process, and a peer that is linked to it without being its parent."""
    pid, peer = lab.probe(trap=trap), lab.probe()
    run_in(pid, lambda process: beam.link(peer))
    return pid, peer


def parent_and_child(lab, *, trap=False, **options):
    parent = lab.probe()
    heard = queue.SimpleQueue()
    child = lab.keep(run_in(parent, lambda _: Probe.start_link(heard, trap=trap, **options)))
    child.heard = heard
    return parent, child


# --- reasons ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "clean"),
    [
        ("normal", True),
        ("shutdown", True),
        (beam.Shutdown("x"), True),
        (beam.Shutdown(), True),
        ("kill", False),
        ("killed", False),
        ("noproc", False),
        ("timeout", False),
        ("Normal", False),
        (None, False),
        (0, False),
        (beam.Crash(Boom()), False),
    ],
)
def test_clean_reasons(reason, clean):  # B-21
    from allm_actors.beam.pid import is_clean

    assert is_clean(reason) is clean


def test_any_object_may_be_a_reason(lab):  # B-20
    for reason in ({"a": 1}, 7, ("tuple",), object(), ""):
        pid = lab.probe()
        assert reason_of(pid, lambda pid=pid, reason=reason: beam.exit(pid, reason)) is reason


def test_an_exit_needs_a_reason(lab):  # section 15
    pid = lab.probe()
    with pytest.raises(ValueError, match="reason"):
        beam.exit(pid, None)
    with pytest.raises(ValueError, match="reason"):
        beam.stop(pid, None)
    sync(pid)


# --- the table ----------------------------------------------------------------------------------------


def test_exit_normal_from_another_does_nothing_to_a_process_that_does_not_trap(lab):  # B-23
    pid, other = lab.probe(), lab.probe()
    beam.exit(pid, "normal")
    run_in(other, lambda process: beam.exit(pid, "normal"))
    sync(pid)
    assert pid.heard.qsize() == 0


def test_exit_normal_is_a_message_for_one_that_traps(lab):  # B-23
    pid, other = lab.probe(trap=True), lab.probe()
    run_in(other, lambda process: beam.exit(pid, "normal"))
    assert pid.heard.get(timeout=SOON) == beam.ExitMessage(other, "normal")
    beam.exit(pid, "normal")
    assert pid.heard.get(timeout=SOON) == beam.ExitMessage(None, "normal")
    beam.stop(pid)


@pytest.mark.parametrize("reason", ["shutdown", "boom", "killed", "noproc", beam.Shutdown(1), 5])
def test_exit_with_another_reason(lab, reason):  # B-23
    pid = lab.probe()
    assert reason_of(pid, lambda: beam.exit(pid, reason)) == reason
    assert pid.heard.get(timeout=SOON) == ("terminate", reason)
    trapping = lab.probe(trap=True)
    beam.exit(trapping, reason)
    assert trapping.heard.get(timeout=SOON) == beam.ExitMessage(None, reason)
    beam.stop(trapping)


@pytest.mark.parametrize("trap", [False, True])
def test_exit_kill_cannot_be_trapped_and_skips_terminate(lab, trap):  # B-23
    pid = lab.probe(trap=trap)
    assert reason_of(pid, lambda: beam.exit(pid, "kill")) == "killed"
    pid._cell.thread.join(SOON)
    assert pid.heard.qsize() == 0


def test_a_process_may_exit_itself(lab):  # B-23
    for reason in ("normal", "shutdown", "boom"):
        pid = lab.probe()
        after = []

        def itself(process, reason=reason, after=after):
            beam.exit(beam.current(), reason)
            after.append(1)

        assert reason_of(pid, lambda pid=pid, itself=itself: beam.cast(pid, itself)) == reason
        assert after == []
    trapping = lab.probe(trap=True)
    run_in(trapping, lambda process: beam.exit(beam.current(), "normal"))
    assert trapping.heard.get(timeout=SOON) == beam.ExitMessage(trapping, "normal")
    beam.stop(trapping)


def test_a_process_may_kill_itself(lab):  # B-23
    pid = lab.probe(trap=True)
    assert reason_of(pid, lambda: beam.cast(pid, lambda _: beam.exit(beam.current(), "kill"))) == "killed"
    pid._cell.thread.join(SOON)
    assert pid.heard.qsize() == 0
    assert pid.number not in {record["pid"].number for record in beam.info()["zombies"]}


@pytest.mark.parametrize("trap", [False, True])
def test_a_linked_process_that_ends_normally(lab, trap):  # B-23
    pid, peer = linked(lab, trap=trap)
    end_of(peer, lambda: leave(peer, "normal"))
    if trap:
        assert pid.heard.get(timeout=SOON) == beam.ExitMessage(peer, "normal")
    sync(pid)
    assert pid.heard.qsize() == 0
    assert pid._cell.links == {}
    beam.stop(pid)


@pytest.mark.parametrize("reason", ["shutdown", "boom", "kill", beam.Shutdown(2)])
@pytest.mark.parametrize("trap", [False, True])
def test_a_linked_process_that_ends_otherwise(lab, trap, reason):  # B-23
    pid, peer = linked(lab, trap=trap)
    if not trap:
        assert reason_of(pid, lambda: leave(peer, reason)) == reason
        return
    leave(peer, reason)
    assert pid.heard.get(timeout=SOON) == beam.ExitMessage(peer, reason)
    beam.stop(pid)


@pytest.mark.parametrize("trap", [False, True])
def test_a_linked_process_that_is_killed(lab, trap):  # B-23
    pid, peer = linked(lab, trap=trap)
    if not trap:
        assert reason_of(pid, lambda: beam.exit(peer, "kill")) == "killed"
        assert pid.heard.get(timeout=SOON) == ("terminate", "killed")
        return
    beam.exit(peer, "kill")
    assert pid.heard.get(timeout=SOON) == beam.ExitMessage(peer, "killed")
    beam.stop(pid)


def test_a_linked_crash_arrives_as_the_same_reason(lab):  # B-23
    pid, peer = linked(lab)
    error = Boom("shared")

    def fail(process):
        raise error

    assert reason_of(pid, lambda: beam.cast(peer, fail)) == beam.Crash(error)


@pytest.mark.parametrize("reason", ["shutdown", "boom", "normal"])
@pytest.mark.parametrize("how", ["link", "signal"])
def test_the_parent_ends_a_trapping_child_after_terminate(lab, reason, how):  # B-23
    parent, child = parent_and_child(lab, trap=True)

    def act():
        if how == "link":
            leave(parent, reason)
        else:
            beam.cast(parent, lambda process: beam.exit(child, reason))

    assert reason_of(child, act) == reason
    assert child.heard.get(timeout=SOON) == ("terminate", reason)
    assert child.heard.qsize() == 0  # no message


@pytest.mark.parametrize("how", ["link", "signal"])
def test_a_normal_end_of_the_parent_leaves_a_child_that_does_not_trap(lab, how):  # B-23
    parent, child = parent_and_child(lab)
    if how == "link":
        end_of(parent, lambda: leave(parent, "normal"))
    else:
        run_in(parent, lambda process: beam.exit(child, "normal"))
    sync(child)


def test_the_parent_is_the_starter_of_start_link_only(lab):  # B-23
    starter = lab.probe()
    heard = queue.SimpleQueue()
    child = lab.keep(run_in(starter, lambda _: Probe.start(heard, trap=True)))
    run_in(starter, lambda process: beam.exit(child, "boo"))
    assert heard.get(timeout=SOON) == beam.ExitMessage(starter, "boo")
    assert child._cell.links == {}
    beam.stop(child)


def test_exit_to_the_dead_and_to_the_unknown(lab):  # B-23
    pid = lab.probe()
    beam.stop(pid)
    for reason in ("normal", "boom", "kill"):
        beam.exit(pid, reason)
    assert pid.exit_reason == "normal"
    assert len(pid._cell.mailbox) == 0  # not even a wake-up is kept
    with pytest.raises(beam.UnknownName):
        beam.exit("nobody", "boom")


def test_exit_by_name(lab):  # B-23
    pid = lab.probe(name="target")
    assert reason_of(pid, lambda: beam.exit("target", "by name")) == "by name"


def test_setting_trap_exit_later_turns_later_signals_into_messages(lab):  # B-25
    pid = lab.probe()

    def trap(process, value):
        process.trap_exit = value
        return process.trap_exit

    assert run_in(pid, lambda process: trap(process, True)) is True
    beam.exit(pid, "boo")
    assert pid.heard.get(timeout=SOON) == beam.ExitMessage(None, "boo")
    assert run_in(pid, lambda process: trap(process, False)) is False
    assert reason_of(pid, lambda: beam.exit(pid, "boo")) == "boo"


def test_terminate_runs_on_every_end_but_a_kill(lab):  # B-25
    ends = [
        lambda pid: beam.exit(pid, "x"),
        lambda pid: leave(pid, "x"),
        lambda pid: beam.cast(pid, lambda process: beam.Stop("x")),
        lambda pid: beam.stop(pid, "x"),
    ]
    for end in ends:
        pid = lab.probe()
        assert reason_of(pid, lambda pid=pid, end=end: end(pid)) == "x"
        assert pid.heard.get(timeout=SOON) == ("terminate", "x")


# --- order --------------------------------------------------------------------------------------------


def test_the_first_exit_reason_wins(lab):  # B-22
    pid = lab.probe()
    with held(pid):
        beam.exit(pid, "first")
        beam.exit(pid, "second")
        inbox = beam.Inbox()
        beam.monitor(pid, to=inbox)
    assert inbox.receive(SOON).reason == "first"


def test_signals_of_one_thread_keep_their_order(lab):  # B-24
    pid = lab.probe(trap=True)
    for number in range(100):
        beam.exit(pid, number)
    assert [pid.heard.get(timeout=SOON).reason for _ in range(100)] == list(range(100))
    beam.stop(pid)


def test_signals_and_messages_of_one_thread_keep_their_order(lab):  # B-24
    pid, peer = lab.probe(trap=True), lab.probe()
    run_in(pid, lambda process: beam.link(peer))
    beam.send(pid, 1)
    end_of(peer, lambda: leave(peer, "over"))
    beam.send(pid, 2)
    beam.exit(pid, "signal")
    beam.send(pid, 3)
    heard = [pid.heard.get(timeout=SOON) for _ in range(5)]
    assert heard == [1, beam.ExitMessage(peer, "over"), 2, beam.ExitMessage(None, "signal"), 3]
    beam.stop(pid)


def test_messages_behind_an_order_to_exit_are_not_handled(lab):  # B-24
    pid = lab.probe()
    with held(pid):
        beam.send(pid, "before")
        beam.exit(pid, "over")
        beam.send(pid, "after")
    assert pid.heard.get(timeout=SOON) == ("terminate", "over")


# --- checkpoints --------------------------------------------------------------------------------------

other_waits = {
    "mailbox": lambda process: None,
    "sleep": lambda process: beam.sleep(SOON * 10),
    "receive": lambda process: beam.Inbox().receive(),
    "call": lambda process: beam.call(process.helper, lambda _: beam.NO_REPLY, SOON * 10),
    "stop": lambda process: beam.stop(process.helper, timeout=SOON * 10),
    "start": lambda process: Probe.start(queue.SimpleQueue(), at_birth=process.gate, name="orphan"),
}


@pytest.mark.parametrize("wait", list(other_waits))
@pytest.mark.parametrize("reason", ["over", "kill"])
def test_an_exit_ends_every_wait_at_once(lab, wait, reason):  # B-22
    helper = lab.probe()
    gate = Gate()

    def birth(process):
        process.helper, process.gate = helper, gate

    pid = lab.probe(at_birth=birth)
    with held(helper) if wait == "stop" else held(lab.probe()):
        beam.cast(pid, other_waits[wait])
        if wait == "start":
            gate.wait()
        until(lambda: pid._cell.parked is not None or wait == "mailbox")
        started = time.monotonic()
        down = end_of(pid, lambda: beam.exit(pid, reason))
        pid._cell.thread.join(SOON)
        assert not pid._cell.thread.is_alive()
        assert time.monotonic() - started < 2
    gate.open()
    assert down.reason == ("killed" if reason == "kill" else reason)
    if wait == "start":
        beam.stop("orphan")  # nobody's child: the start it was goes on


def test_swallowing_the_exit_only_puts_it_off(lab):  # B-22
    pid = lab.probe()
    swallowed = []

    def stubborn(process):
        for step in (
            beam.checkpoint,
            lambda: beam.sleep(SOON),
            lambda: beam.send(pid, 1),
            lambda: beam.Inbox().receive(),
        ):
            try:
                step()
            except BaseException as error:
                swallowed.append(error.reason)
        return "survived"

    beam.cast(pid, stubborn)
    until(lambda: pid._cell.parked is not None)  # the order arrives while it sleeps
    assert reason_of(pid, lambda: beam.exit(pid, "over")) == "over"
    assert swallowed == ["over"] * 3


def test_checkpoints_outside_a_process_do_nothing():  # B-22
    beam.checkpoint()
    beam.sleep(0)
    assert beam.current() is None


def test_checkpoints_are_quiet_during_cleanup(lab):  # B-22
    steps = []

    def clean(process):
        beam.checkpoint()
        beam.sleep(0.001)
        with pytest.raises(queue.Empty):
            beam.Inbox().receive(0.001)
        steps.append("terminate")

    def close():
        beam.checkpoint()
        beam.sleep(0.001)
        steps.append("closer")

    pid = lab.probe(at_end=clean)
    run_in(pid, lambda process: process.on_exit(close))
    assert reason_of(pid, lambda: beam.exit(pid, "over")) == "over"
    assert steps == ["terminate", "closer"]


def test_a_second_exit_does_not_disturb_cleanup(lab):  # B-22
    gate = Gate()

    def clean(process):
        gate()
        beam.checkpoint()
        beam.sleep(0.001)
        process.heard.put("clean")

    pid = lab.probe(at_end=clean)
    inbox = beam.Inbox()
    beam.monitor(pid, to=inbox)
    beam.exit(pid, "first")
    gate.wait()
    beam.exit(pid, "second")
    gate.open()
    assert inbox.receive(SOON).reason == "first"
    assert [pid.heard.get_nowait() for _ in range(2)] == [("terminate", "first"), "clean"]


def test_an_exit_during_a_normal_cleanup_does_not_disturb_it_either(lab):  # B-22
    gate = Gate()

    def clean(process):
        gate()
        beam.sleep(0.001)
        process.heard.put("clean")

    pid = lab.probe(at_end=clean)
    inbox = beam.Inbox()
    beam.monitor(pid, to=inbox)
    leave(pid, "normal")
    gate.wait()
    beam.exit(pid, "second")
    gate.open()
    assert inbox.receive(SOON).reason == "normal"
    assert [pid.heard.get_nowait() for _ in range(2)] == [("terminate", "normal"), "clean"]


def test_cleanup_may_start_send_and_register(lab):  # B-22
    helper = lab.probe()
    box = queue.SimpleQueue()

    def clean(process):
        beam.send(helper, "bye")
        job = beam.spawn(lambda: None)
        box.put(job)
        beam.register("dying", process.pid)

    pid = lab.probe(at_end=clean)
    assert reason_of(pid, lambda: beam.exit(pid, "over")) == "over"
    assert helper.heard.get(timeout=SOON) == "bye"
    lab.keep(box.get(timeout=SOON))
    assert beam.whereis("dying") is None


# --- stop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trap", [False, True])
def test_stop_ends_a_process_trapping_or_not_and_returns_after_its_death(lab, trap):  # B-26
    pid = lab.probe(trap=trap, name="stoppable")
    beam.stop("stoppable")
    assert not pid.alive
    assert not pid._cell.thread.is_alive()
    assert (pid.exit_reason, beam.whereis("stoppable")) == ("normal", None)
    assert pid.heard.get(timeout=SOON) == ("terminate", "normal")


def test_stop_comes_after_the_messages_sent_before(lab):  # B-26
    pid = lab.probe()
    for number in range(3):
        beam.send(pid, number)
    beam.stop(pid, beam.Shutdown("done"))
    assert [pid.heard.get_nowait() for _ in range(4)] == [0, 1, 2, ("terminate", beam.Shutdown("done"))]


def test_stop_that_takes_too_long_does_not_kill(lab):  # B-26
    pid = lab.probe()
    with held(pid):
        with pytest.raises(beam.CallTimeout):
            beam.stop(pid, timeout=0.01)
        assert pid.alive
        assert len(pid._cell.watchers) == 0


def test_stop_of_the_dead_is_no_process(lab):  # B-26
    pid = lab.probe(name="gone")
    beam.stop(pid)
    for dest in (pid, "gone"):
        with pytest.raises(beam.NoProcess):
            beam.stop(dest)


def test_stop_returns_even_if_the_process_ends_otherwise(lab):  # B-26
    pid = lab.probe()
    with held(pid):
        stopped = InThread(beam.stop, pid)
        until(lambda: pid._cell.watchers)
        beam.exit(pid, "other")
    stopped.result()
    assert pid.exit_reason == "other"


def test_an_exit_from_a_stranger_does_not_stop_what_traps(lab):  # B-26
    pid = lab.probe(trap=True)
    beam.exit(pid, "shutdown")
    assert pid.heard.get(timeout=SOON) == beam.ExitMessage(None, "shutdown")
    sync(pid)
    beam.stop(pid, "shutdown")
    assert pid.exit_reason == "shutdown"


# --- callbacks in other threads -----------------------------------------------------------------------


def test_a_callback_in_a_dying_thread_meets_no_checkpoint_of_it(lab):  # B-31
    """The callable of a monitor runs as nobody's, although the thread's process was told to exit."""
    victim, killer = lab.probe(), lab.probe()
    box = queue.SimpleQueue()

    def told(down):
        beam.checkpoint()
        box.put((beam.current(), beam.send(box_inbox, "works")))

    box_inbox = beam.Inbox()
    beam.monitor(victim, to=told)
    gate = Gate()

    def kill_after_being_told(process):
        gate()
        beam.exit(victim, "kill")

    beam.cast(killer, kill_after_being_told)
    gate.wait()
    beam.exit(killer, "over")
    gate.open()
    assert box.get(timeout=SOON) == (None, True)


def test_current_is_the_process_of_the_thread(lab):  # B-3
    pid = lab.probe()
    assert run_in(pid, lambda process: beam.current()) is pid
    assert run_in(pid, lambda process: process.pid) is pid
    assert InThread(beam.current).result() is None
    inside = queue.SimpleQueue()
    run_in(pid, lambda process: threading.Thread(target=lambda: inside.put(beam.current())).start())
    assert inside.get(timeout=SOON) is None  # a thread that a process starts is not the process


def test_outcomes_of_a_survivor(lab):  # B-22
    """An exit that is trapped leaves the running callback alone."""
    pid = lab.probe(trap=True)
    gate = Gate()

    def work(process):
        gate()
        beam.checkpoint()
        return "done"

    asked = InThread(beam.call, pid, work)
    gate.wait()
    beam.exit(pid, "noise")
    gate.open()
    assert asked.result() == "done"
    assert outcome_in(pid, lambda process: 1) == 1
    waits(pid)
    beam.stop(pid)
