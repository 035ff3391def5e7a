"""The scenario table: for each row the outcome that OTP 25 gives. "Trapping" is trapping exits.

The rows about supervisors are in the tests of supervisors.
"""

import queue

import pytest

from allm_actors import beam
from tests.beam._probe import (
    SOON,
    Boom,
    Gate,
    Probe,
    end_of,
    held,
    leave,
    outcome_in,
    reason_of,
    run_in,
    sync,
)

pytestmark = pytest.mark.logs_errors("processes end abnormally here")

ALIVE = "alive"


def fate(pid, act, *, message=None):
    """What `act` did to a probe: the reason it died of, or `ALIVE`, and what it had heard by then."""
    inbox = beam.Inbox()
    beam.monitor(pid, to=inbox)
    act()
    if message is not None:
        heard = pid.heard.get(timeout=SOON)
        assert isinstance(heard, beam.ExitMessage)
        assert heard.reason == message
        sync(pid)
        assert len(inbox) == 0
        return ALIVE
    try:
        sync(pid)
    except beam.ProcessExit:
        return inbox.receive(SOON).reason
    assert pid.heard.qsize() == 0
    return ALIVE


def stop_all(*pids):
    for pid in pids:
        if pid.alive:
            beam.stop(pid)


@pytest.mark.parametrize(
    ("reason", "trap", "outcome", "message"),
    [
        ("normal", False, ALIVE, None),
        ("normal", True, ALIVE, "normal"),
        ("shutdown", False, "shutdown", None),
        ("shutdown", True, ALIVE, "shutdown"),
        ("kill", False, "killed", None),
        ("kill", True, "killed", None),
    ],
)
@pytest.mark.parametrize("by", ["thread", "process"])
def test_exit(lab, reason, trap, *, outcome, message, by):  # section 18: exit(P, normal | shutdown | kill)
    pid, other = lab.probe(trap=trap), lab.probe()

    def act():
        if by == "thread":
            beam.exit(pid, reason)
        else:
            run_in(other, lambda process: beam.exit(pid, reason))

    assert fate(pid, act, message=message) == outcome
    stop_all(pid)


def test_exit_self_normal(lab):  # section 18: exit(self, normal)
    pid = lab.probe()
    assert reason_of(pid, lambda: beam.cast(pid, lambda _: beam.exit(beam.current(), "normal"))) == "normal"


@pytest.mark.parametrize(
    ("ends", "trap", "outcome", "message"),
    [
        (lambda peer: leave(peer, "normal"), False, ALIVE, None),
        (lambda peer: leave(peer, "normal"), True, ALIVE, "normal"),
        (lambda peer: leave(peer, "shutdown"), False, "shutdown", None),
        (lambda peer: leave(peer, "boom"), False, "boom", None),
        (lambda peer: beam.exit(peer, "kill"), False, "killed", None),
        (lambda peer: beam.exit(peer, "kill"), True, ALIVE, "killed"),
        (lambda peer: leave(peer, "kill"), False, "kill", None),
        (lambda peer: leave(peer, "kill"), True, ALIVE, "kill"),
    ],
    ids=["normal", "normal T", "shutdown", "boom", "killed", "killed T", "kill", "kill T"],
)
def test_linked_peer_ends(lab, ends, trap, outcome, message):  # section 18: linked peer ...
    pid, peer = lab.probe(trap=trap), lab.probe()
    run_in(pid, lambda process: beam.link(peer))

    def act():
        end_of(peer, lambda: ends(peer))

    assert fate(pid, act, message=message) == outcome
    stop_all(pid)


def test_link_to_a_dead_process(lab):  # section 18: link to a dead process
    dead = lab.probe()
    beam.stop(dead)
    pid, trapping = lab.probe(), lab.probe(trap=True)
    assert outcome_in(pid, lambda process: beam.link(dead)).reason == "noproc"
    run_in(trapping, lambda process: beam.link(dead))
    assert trapping.heard.get(timeout=SOON) == beam.ExitMessage(dead, "noproc")
    stop_all(trapping)


def test_link_twice_unlink_once(lab):  # section 18: link twice, unlink once, peer crashes
    pid, peer = lab.probe(), lab.probe()

    def twice(process):
        beam.link(peer)
        beam.link(peer)
        beam.unlink(peer)

    run_in(pid, twice)
    assert fate(pid, lambda: end_of(peer, lambda: leave(peer, "boom"))) == ALIVE


def test_monitor_of_a_dead_process(lab):  # section 18: monitor of a dead process
    dead, pid = lab.probe(), lab.probe()
    beam.stop(dead)
    run_in(pid, lambda process: beam.monitor(dead) and None)
    assert pid.heard.get(timeout=SOON).reason == "noproc"


def test_two_monitors_on_one_process(lab):  # section 18: two monitors on one process
    target, pid = lab.probe(), lab.probe()
    run_in(pid, lambda process: [beam.monitor(target), beam.monitor(target)])
    beam.stop(target)
    assert [type(pid.heard.get(timeout=SOON)) for _ in range(2)] == [beam.Down] * 2
    sync(pid)
    assert pid.heard.qsize() == 0


def test_name_looked_up_when_down_is_in_hand(lab):  # section 18: name looked up when DOWN is in hand
    target = lab.probe(name="named")
    end_of(target, lambda: beam.exit(target, "boom"))
    assert beam.whereis("named") is None


def test_register_a_taken_name_and_send_to_an_unknown_one(lab):  # section 18: register a taken name / send
    pid = lab.probe(name="taken")
    with pytest.raises(beam.NameTaken):
        beam.register("taken", pid)
    with pytest.raises(beam.UnknownName):
        beam.send("unknown", 1)


def test_send_to_a_dead_pid_and_cast_to_a_dead_server(lab):  # section 18: send to a dead pid, cast
    dead = lab.probe()
    beam.stop(dead)
    assert beam.send(dead, 1) is False
    beam.cast(dead, 1)
    beam.cast("unknown", 1)


def test_three_messages_queued_then_exit_while_busy(lab):  # section 18: three messages queued, then exit
    pid = lab.probe()
    with held(pid):
        for number in range(3):
            beam.send(pid, number)
        beam.exit(pid, "shutdown")
    assert pid.heard.get(timeout=SOON) == ("terminate", "shutdown")
    pid._cell.thread.join(SOON)
    assert pid.heard.qsize() == 0


def test_call_to_a_dead_server(lab):  # section 18: call: dead server
    dead = lab.probe()
    beam.stop(dead)
    with pytest.raises(beam.NoProcess) as caught:
        beam.call(dead, 1)
    assert caught.value.reason == "noproc"


def test_call_to_itself(lab):  # section 18: call: itself
    pid = lab.probe()
    assert outcome_in(pid, lambda process: beam.call(process.pid, 1)).reason == "calling_self"


def test_call_that_times_out(lab):  # section 18: call: timeout, late reply never seen, server alive
    pid, client = lab.probe(), lab.probe()
    gate = Gate()

    def ask(process):
        try:
            beam.call(pid, lambda _: gate() or "late", 0.01)
        except beam.CallTimeout as error:
            return error.reason

    assert run_in(client, ask) == "timeout"
    gate.open()
    sync(pid)
    sync(client)
    assert client.heard.qsize() == 0
    assert pid.alive


def test_call_to_a_server_that_crashes(lab):  # section 18: call: server crashes
    pid = lab.probe()
    error = Boom("the crash")

    def fail(process):
        raise error

    with pytest.raises(beam.ProcessExit) as caught:
        beam.call(pid, fail)
    assert caught.value.reason == beam.Crash(error)


def test_call_to_a_server_that_stops_without_a_reply(lab):  # section 18: call: server stops normal
    pid = lab.probe()
    with pytest.raises(beam.ProcessExit) as caught:
        beam.call(pid, lambda process: beam.Stop("normal"))
    assert caught.value.reason == "normal"


def test_server_replies_and_stops_in_one_step(lab):  # section 18: server replies and stops in one step
    pid = lab.probe()
    answers = []
    down = end_of(pid, lambda: answers.append(beam.call(pid, lambda _: beam.Stop("normal", "bye"))))
    assert (answers, down.reason, pid.alive) == (["bye"], "normal", False)


@pytest.mark.parametrize("trap", [True, False])
def test_init_fails(lab, trap):  # section 18: init fails
    starter = lab.probe(trap=trap)

    def fail(process):
        raise beam.Exit("bad luck")

    def start(process):
        with pytest.raises(beam.StartError) as caught:
            Probe.start_link(queue.SimpleQueue(), at_birth=fail)
        return caught.value.reason

    if trap:
        assert run_in(starter, start) == "bad luck"
        assert starter.heard.get(timeout=SOON).reason == "bad luck"
        stop_all(starter)
    else:
        assert reason_of(starter, lambda: beam.cast(starter, start)) == "bad luck"
    with pytest.raises(beam.StartError) as caught:
        lab.probe(at_birth=fail)
    assert caught.value.reason == "bad luck"


def test_init_ignores(lab):  # section 18: init ignores: ignore, exit `normal`
    starter = lab.probe(trap=True)

    def ignore(process):
        raise beam.Ignore

    assert run_in(starter, lambda _: Probe.start_link(queue.SimpleQueue(), at_birth=ignore)) is None
    assert starter.heard.get(timeout=SOON).reason == "normal"
    stop_all(starter)


@pytest.mark.parametrize("trap", [True, False])
def test_init_is_too_slow(lab, trap):  # section 18: init too slow: error timeout, process gone, no message
    starter = lab.probe(trap=trap)
    gate = Gate()

    def start(process):
        with pytest.raises(beam.StartError) as caught:
            Probe.start_link(queue.SimpleQueue(), at_birth=gate, name="slow", start_timeout=0.01)
        return caught.value.reason

    try:
        assert run_in(starter, start) == "timeout"
        assert beam.whereis("slow") is None
        sync(starter)
        assert starter.heard.qsize() == 0
    finally:
        gate.open()
    stop_all(starter)


def test_start_under_a_taken_name(lab):  # section 18: start under a taken name
    holder = lab.probe(name="taken")
    with pytest.raises(beam.StartError) as caught:
        lab.probe(name="taken")
    assert caught.value.reason.pid is holder


def test_cancel_a_running_fired_or_cancelled_timer():  # section 18: cancel a ... timer
    inbox = beam.Inbox()
    running = beam.send_after(100, inbox, 1)
    assert 99 < beam.cancel_timer(running) <= 100
    assert beam.cancel_timer(running) is None
    fired = beam.send_after(0, inbox, 2)
    assert inbox.receive(SOON) == 2
    assert beam.cancel_timer(fired) is None


@pytest.mark.parametrize("trap", [True, False])
def test_terminate_on_a_parents_exit_runs_in_both_cases(lab, trap):  # section 18: departure
    parent = lab.probe()
    heard = queue.SimpleQueue()
    child = lab.keep(run_in(parent, lambda _: Probe.start_link(heard, trap=trap)))
    assert reason_of(child, lambda: leave(parent, "boom")) == "boom"
    assert heard.get(timeout=SOON) == ("terminate", "boom")
