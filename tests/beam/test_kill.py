"""Kills: dead for everybody at once, a fence around what is left, and zombies that can be seen."""

import pathlib
import queue
import re
import threading
import time

import pytest

import allm_actors.beam
from allm_actors import beam
from allm_actors.beam import _cell
from allm_actors.beam._cell import kill
from tests.beam._probe import (
    SOON,
    Boom,
    Gate,
    InThread,
    Probe,
    end_of,
    held,
    leave,
    reason_of,
    run_in,
    sync,
    until,
)

pytestmark = pytest.mark.logs_errors("processes are killed here")


class Zombie:
    """A process that was killed while stuck; `act(fn)` runs `fn` in its thread, which still goes on."""

    def __init__(self, lab, **options):
        self.pid = lab.probe(**options)
        self._work, self._done = queue.SimpleQueue(), queue.SimpleQueue()
        stuck = threading.Event()

        def go_on(process):
            stuck.set()
            while (fn := self._work.get(timeout=SOON)) is not None:
                try:
                    self._done.put(fn(process))
                except BaseException as error:
                    self._done.put(error)
            return "unwound"

        beam.cast(self.pid, go_on)
        assert stuck.wait(SOON)
        beam.exit(self.pid, "kill")

    def act(self, fn):
        self._work.put(fn)
        return self._done.get(timeout=SOON)

    def end(self):
        self._work.put(None)
        self.pid._cell.thread.join(SOON)


@pytest.fixture
def zombie(lab):
    zombie = Zombie(lab)
    yield zombie
    zombie.end()


# --- dead at once -------------------------------------------------------------------------------------


def test_a_killed_process_is_dead_for_everybody_when_the_kill_returns(lab):  # B-72
    pid, peer = lab.probe(name="victim"), lab.probe(trap=True)
    run_in(peer, lambda process: beam.link(pid))
    inbox = beam.Inbox()
    beam.monitor(pid, to=inbox)
    with held(pid):
        asked = InThread(beam.call, pid, lambda process: 1, SOON)
        until(lambda: pid._cell.calls)
        beam.exit(pid, "kill")
        assert (pid.alive, pid.exit_reason, beam.whereis("victim")) == (False, "killed", None)
        assert pid not in beam.processes()
        assert inbox.receive(0).reason == "killed"
        assert asked.error().reason == "killed"
        assert peer.heard.get(timeout=SOON) == beam.ExitMessage(pid, "killed")
        assert beam.send(pid, 1) is False
        with pytest.raises(beam.NoProcess):
            beam.call(pid, 1)
    pid._cell.thread.join(SOON)
    assert pid.heard.qsize() == 0  # `terminate` did not run
    beam.stop(peer)


def test_what_is_heard_of_a_kill_happens_in_the_thread_of_the_killer(lab):  # B-72
    pid = lab.probe()
    threads = []
    beam.monitor(pid, to=lambda down: threads.append(threading.current_thread()))
    beam.exit(pid, "kill")
    assert threads == [threading.current_thread()]


def test_a_kill_during_terminate(lab):  # B-72
    gate = Gate()
    pid = lab.probe(at_end=gate)
    beam.exit(pid, "over")
    gate.wait()
    assert reason_of(pid, lambda: beam.exit(pid, "kill")) == "killed"
    gate.open()
    pid._cell.thread.join(SOON)
    assert pid.exit_reason == "killed"


@pytest.mark.parametrize("wait", ["sleep", "receive", "mailbox"])
def test_a_killed_process_that_waits_ends_at_once(lab, wait):  # B-72
    pid = lab.probe()
    if wait == "sleep":
        beam.cast(pid, lambda process: beam.sleep(1000))
    elif wait == "receive":
        beam.cast(pid, lambda process: beam.Inbox().receive())
    until(lambda: pid._cell.parked is not None or wait == "mailbox")
    beam.exit(pid, "kill")
    pid._cell.thread.join(SOON)
    assert not pid._cell.thread.is_alive()
    assert beam.info()["zombies"] == []


def test_killing_the_dead_is_nothing(lab):  # B-72
    pid = lab.probe()
    beam.stop(pid)
    beam.exit(pid, "kill")
    assert pid.exit_reason == "normal"
    assert kill(pid._cell) is False


def test_a_kill_that_was_meant_is_no_crash_report(lab, logs):  # B-120
    pid = lab.probe()
    assert kill(pid._cell, expected=True) is True
    assert logs.wait_for("process.exited")["level"] == "debug"


# --- the fence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lambda process: beam.checkpoint(),
        lambda process: beam.send(process.other, 1),
        lambda process: beam.cast(process.other, 1),
        lambda process: beam.call(process.other, 1),
        lambda process: beam.register("stolen", process.other),
        lambda process: beam.unregister("other"),
        lambda process: beam.link(process.other),
        lambda process: beam.unlink(process.other),
        lambda process: beam.monitor(process.other),
        lambda process: Probe.start(queue.SimpleQueue()),
        lambda process: Probe.start_link(queue.SimpleQueue()),
        lambda process: beam.spawn(print),
        lambda process: beam.exit(process.other, "harm"),
        lambda process: beam.exit(process.other, "kill"),
        lambda process: beam.stop(process.other),
        lambda process: beam.sleep(0),
        lambda process: beam.Inbox().receive(0),
        lambda process: beam.send_after(0, process.other, 1),
        lambda process: beam.send_interval(1, process.other, 1),
        lambda process: beam.send(beam.Inbox(), 1),
        lambda process: beam.root(),
        lambda process: process.other.tell(1),
        lambda process: process.other.ask(1),
        lambda process: process.other.ask(1, block=False),
        lambda process: process.other.stop(),
        lambda process: process.other.stop(block=False),
    ],
)
def test_a_zombie_can_do_nothing_to_others(lab, act):  # B-73
    other = lab.probe(name="other")
    zombie = Zombie(lab, at_birth=lambda process: setattr(process, "other", other))
    before = len(beam.processes())
    try:
        order = zombie.act(act)
        assert isinstance(order, beam.Exit)
        assert order.reason == "killed"
        assert len(beam.processes()) == before
        sync(other)
        assert other.heard.qsize() == 0
        assert beam.info(other)["links"] == []
        assert beam.whereis("other") is other
        assert beam.whereis("stolen") is None
    finally:
        zombie.end()


def test_a_zombie_cannot_answer_a_call_it_had(lab):  # B-73
    box = queue.SimpleQueue()
    gate = Gate()
    pid = lab.probe()

    def work(process):
        box.put(process.sender)
        gate()
        box.put((process.sender.reply("late"), process.sender.fail(Boom())))

    asked = InThread(beam.call, pid, work)
    box.get(timeout=SOON)
    beam.exit(pid, "kill")
    assert asked.error().reason == "killed"
    gate.open()
    assert box.get(timeout=SOON) == (False, False)


def test_a_zombie_cannot_answer_a_call_of_another_process(lab):  # B-73
    server = lab.probe()
    senders = queue.SimpleQueue()
    asked = InThread(beam.call, server, lambda process: senders.put(process.sender) or beam.NO_REPLY)
    sender = senders.get(timeout=SOON)
    zombie = Zombie(lab)
    try:
        assert zombie.act(lambda process: sender.reply("from the grave")) is False
        assert sender.reply("from the living") is True
        assert asked.result() == "from the living"
    finally:
        zombie.end()


def test_a_zombie_cannot_push_into_a_stream(zombie):  # B-73
    from allm_actors.beam.stream import EventQueue

    events = EventQueue()
    order = zombie.act(lambda process: events.push("event"))
    assert (type(order), order.reason) == (beam.Exit, "killed")
    assert events.in_flight == 0


def test_every_checkpoint_of_a_zombie_raises_again(zombie):  # B-73
    for _ in range(3):
        assert zombie.act(lambda process: beam.checkpoint()).reason == "killed"


def test_the_closers_of_a_zombie_run_in_its_thread_when_it_unwinds(lab):  # B-73
    ran = queue.SimpleQueue()
    pid = lab.probe()
    run_in(pid, lambda process: process.on_exit(lambda: ran.put(threading.current_thread())))
    with held(pid):
        beam.exit(pid, "kill")
        assert ran.qsize() == 0
    assert ran.get(timeout=SOON) is pid._cell.thread


def test_closers_of_a_zombie_do_no_harm_either(lab):  # B-73
    other = lab.probe()
    outcome = queue.SimpleQueue()

    def close():
        try:
            beam.send(other, "harm")
        except beam.Exit as order:
            outcome.put(order.reason)

    pid = lab.probe()
    run_in(pid, lambda process: process.on_exit(close))
    beam.exit(pid, "kill")
    assert outcome.get(timeout=SOON) == "killed"
    sync(other)
    assert other.heard.qsize() == 0


# --- zombies ------------------------------------------------------------------------------------------


def test_zombies_are_listed(lab):  # B-74
    pid = lab.probe(name="stuck")
    with held(pid):
        beam.exit(pid, "kill")
        (record,) = beam.info()["zombies"]
        assert (record["pid"], record["state"]) == (pid, "zombie")
        assert beam.info(pid)["state"] == "zombie"
        assert "zombie" in beam.tree()
    pid._cell.thread.join(SOON)
    assert beam.info()["zombies"] == []
    assert beam.info(pid)["state"] == "dead"
    assert _cell.table.zombies == {}


def test_a_zombie_that_remains_is_warned_of_with_its_stack_and_its_end_is_told(
    lab, logs, monkeypatch
):  # B-74
    monkeypatch.setattr(_cell, "ZOMBIE_SECONDS", 0.005)
    pid = lab.probe()
    with held(pid):
        beam.exit(pid, "kill")
        warning = logs.wait_for("process.zombie")
        assert (warning["level"], warning["pid"]) == ("warning", pid.number)
        assert "opened.wait" in warning["stack"]
    ended = logs.wait_for("process.zombie_ended")
    assert ended["level"] == "warning"
    assert ended["lifetime"] > 0


def test_a_killed_process_that_ends_in_time_is_not_warned_of(lab, logs):  # B-74
    pid = lab.probe()
    timers = beam.info()["timers"]
    beam.exit(pid, "kill")
    pid._cell.thread.join(SOON)
    assert beam.info()["timers"] == timers  # nor is the timer for it kept
    assert logs.of("process.zombie") == []


def test_a_second_is_the_limit():  # B-74
    assert _cell.ZOMBIE_SECONDS == 1.0


def test_a_zombie_that_has_ended_leaves_nothing_in_its_mailbox(lab):  # B-74
    pid = lab.probe()
    with held(pid):
        beam.exit(pid, "kill")
    pid._cell.thread.join(SOON)
    assert len(pid._cell.mailbox) == 0  # not even the wake-up it never read


# --- interrupters -------------------------------------------------------------------------------------


def test_an_interrupter_ends_a_blocking_call(lab):  # B-75
    pid = lab.probe()
    for reason in ("over", "kill"):
        pid = lab.probe()
        blocked = threading.Event()
        released = threading.Event()
        threads = []

        def interrupt(released=released, threads=threads):
            threads.append(threading.current_thread())
            released.set()

        def block(process, blocked=blocked, released=released, interrupt=interrupt):
            with beam.interruptible(interrupt):
                blocked.set()
                assert released.wait(SOON)
                beam.checkpoint()

        beam.cast(pid, block)
        assert blocked.wait(SOON)
        down = end_of(pid, lambda pid=pid, reason=reason: beam.exit(pid, reason))
        assert down.reason == ("killed" if reason == "kill" else "over")
        pid._cell.thread.join(SOON)
        assert threads == [threading.current_thread()]  # at most once, in the thread that sent it


def test_an_interrupter_of_one_told_before_runs_at_once(lab):  # B-75
    pid = lab.probe()
    ran = queue.SimpleQueue()
    gate = Gate()

    def late(process):
        gate()
        with beam.interruptible(lambda: ran.put("late")):
            pass

    beam.cast(pid, late)
    gate.wait()
    beam.exit(pid, "over")
    gate.open()
    assert ran.get(timeout=SOON) == "late"
    until(lambda: not pid.alive)
    assert ran.qsize() == 0


def test_an_interrupter_is_gone_after_its_block(lab):  # B-75
    pid = lab.probe()
    ran = []

    def brief(process):
        with beam.interruptible(lambda: ran.append(1)):
            pass

    run_in(pid, brief)
    end_of(pid, lambda: beam.exit(pid, "over"))
    assert ran == []
    assert pid._cell.interrupters == {}


def test_interrupters_of_nested_blocks_all_run(lab):  # B-75
    pid = lab.probe()
    ran, gate = [], Gate()

    def nested(process):
        with beam.interruptible(lambda: ran.append("outer")):
            with beam.interruptible(lambda: ran.append("inner")):
                gate()

    beam.cast(pid, nested)
    gate.wait()
    beam.exit(pid, "over")
    beam.exit(pid, "again")
    assert sorted(ran) == ["inner", "outer"]
    gate.open()


def test_an_interrupter_that_raises_is_logged(lab, logs):  # B-75
    pid = lab.probe()
    gate = Gate()

    def fail():
        raise Boom("in an interrupter")

    def block(process):
        with beam.interruptible(fail):
            gate()

    beam.cast(pid, block)
    gate.wait()
    beam.exit(pid, "over")
    gate.open()
    assert "in an interrupter" in logs.of("interrupter.failed")[0]["error"]


def test_interruptible_outside_a_process_does_nothing():  # B-75
    ran = []
    with beam.interruptible(lambda: ran.append(1)):
        pass
    assert ran == []


def test_an_exit_does_not_interrupt_cleanup_but_a_kill_does(lab):  # B-75
    gate, freed = Gate(), threading.Event()

    def clean(process):
        with beam.interruptible(freed.set):
            gate()

    pid = lab.probe(at_end=clean)
    leave(pid, "over")
    gate.wait()
    beam.exit(pid, "second")
    assert not freed.is_set()
    beam.exit(pid, "kill")
    assert freed.is_set()
    gate.open()


def test_code_without_an_interrupter_goes_on_until_its_own_time(lab):  # B-75
    pid = lab.probe()
    with held(pid) as gate:
        beam.exit(pid, "kill")
        assert pid._cell.thread.is_alive()
        gate.open()
        pid._cell.thread.join(SOON)
        assert not pid._cell.thread.is_alive()


def test_no_exception_is_injected_into_threads():  # B-76
    package = pathlib.Path(allm_actors.beam.__file__).parent
    for path in package.rglob("*.py"):
        assert not re.search(r"SetAsyncExc|ctypes", path.read_text()), path


def test_a_start_that_is_killed_frees_its_starter_while_the_thread_is_stuck(lab):  # B-72
    gate = Gate()
    began = time.monotonic()
    try:
        with pytest.raises(beam.StartError):
            lab.probe(at_birth=gate, start_timeout=0.01)
        assert time.monotonic() - began < 1
        assert len(beam.info()["zombies"]) == 1
    finally:
        gate.open()
    until(lambda: beam.info()["zombies"] == [])
