"""Bad interleavings, made to happen on purpose or provoked many times over: nobody hangs, nothing is doubled.

Two kinds of test. "Forced" ones run something else at one exact point of a primitive, every time. "Provoked"
ones let two threads go at once, with the interpreter switching threads as often as it can.
"""

# ruff: noqa: B023, E731, PT017, PLW0108  (what a repetition makes, it ends: no function outlives it)

import contextlib
import queue
import random
import sys
import threading

import pytest

from allm_actors import beam
from allm_actors.beam import _calls, _cell, _names, _signals
from allm_actors.beam import process as process_module
from allm_actors.beam._cell import Cell, kill, table
from allm_actors.beam.mailbox import Mailbox, Wake
from allm_actors.beam.timer import TimerService, _Timer, service
from tests.beam._probe import SOON, Gate, InThread, Lab, Probe, leave, run_in, sync, until

pytestmark = [pytest.mark.race, pytest.mark.logs_errors("processes are killed here")]

TIMES = 200


@pytest.fixture(autouse=True)
def _switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@contextlib.contextmanager
def fresh():
    """Probes of one repetition, ended with it."""
    lab = Lab()
    try:
        yield lab
    finally:
        lab.close()


def at_once(*acts):
    """Run functions in threads of their own, all let go at the same moment; what each returned or raised."""
    barrier = threading.Barrier(len(acts))

    def go(act):
        barrier.wait(SOON)
        try:
            return act()
        except BaseException as error:
            return error

    threads = [InThread(go, act) for act in acts]
    return [thread.result() for thread in threads]


def before(monkeypatch, owner, name, first, *, when=lambda *_: True):
    """Replace a primitive: `first()` runs once, before it, when `when` says so of its arguments."""
    real = getattr(owner, name)
    left = [first]

    def primitive(*args, **kwargs):
        if left and when(*args):
            left.pop()()
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, primitive)


def after(monkeypatch, owner, name, then, *, when=lambda *_: True):
    """Replace a primitive: `then()` runs once, after it."""
    real = getattr(owner, name)
    left = [then]

    def primitive(*args, **kwargs):
        result = real(*args, **kwargs)
        if left and when(*args):
            left.pop()()
        return result

    monkeypatch.setattr(owner, name, primitive)


ENDS = {
    "stop": lambda pid: beam.stop(pid),
    "exit": lambda pid: (beam.exit(pid, "over"), pid._cell.thread.join(SOON)),
    "kill": lambda pid: beam.exit(pid, "kill"),
    "killed and gone": lambda pid: (beam.exit(pid, "kill"), pid._cell.thread.join(SOON)),
}


# --- call against the end of the receiver -------------------------------------------------------------


@pytest.mark.parametrize("end", list(ENDS))
@pytest.mark.parametrize("point", ["before the table", "before the look", "before the put", "after the put"])
def test_forced_call_against_a_dying_process(monkeypatch, point, end):  # B-11
    """
    1. The caller finds a receiver.
    2. The receiver ends, and answers everything in its table.
    3. The caller goes on where it was.
    """
    for _ in range(TIMES // 8):
        with fresh() as lab, monkeypatch.context() as patched:
            pid = lab.probe()
            die = lambda pid=pid: ENDS[end](pid)
            mine = lambda mailbox, *_, pid=pid: mailbox is pid._cell.mailbox
            match point:
                case "before the table":
                    before(patched, _calls, "Sender", die)
                case "before the look":
                    after(patched, _calls.Sender, "__init__", die)
                case "before the put":
                    before(patched, Mailbox, "put_message", die, when=mine)
                case "after the put":
                    after(patched, Mailbox, "put_message", die, when=mine)
            asked = InThread(beam.call, pid, lambda process: "answer", SOON)
            try:
                assert asked.result() == "answer"
                assert point == "after the put"  # handled before the end: `stop` comes behind it
            except beam.ProcessExit as error:
                assert not isinstance(error, beam.CallTimeout)
            assert pid._cell.calls == {}


class TakesOut:
    """The queue of a mailbox: as soon as a call was taken out of it, its reader is told to exit."""

    def __init__(self, cell):
        self._inner, self._cell = cell.mailbox._queue, cell

    def get(self):
        item = self._inner.get()
        if type(item) is _calls.Call:
            self._cell.tell_exit("over")
        return item

    def __getattr__(self, name):
        return getattr(self._inner, name)


def test_forced_call_in_the_hands_of_the_dying_thread():  # B-11
    """At the moment of death the call is in no mailbox: the dying thread has taken it out."""

    def birth(process):
        process._cell.mailbox._queue = TakesOut(process._cell)

    for _ in range(TIMES):
        with fresh() as lab:
            pid = lab.probe(at_birth=birth)
            with pytest.raises(beam.ProcessExit) as caught:
                beam.call(pid, lambda process: "answer", SOON)
            assert caught.value.reason == "over"
            assert pid._cell.calls == {}


def test_provoked_calls_against_processes_being_shut_down_and_killed():  # B-11
    """5,000 calls; each is answered or fails, and none is left hanging or in a table."""
    per_process, processes = 50, 100
    rng = random.Random(1)
    outcomes = {"answered": 0, "failed": 0}

    def ask(pid, n):
        try:
            assert beam.call(pid, lambda process: n, SOON) == n
        except beam.CallTimeout:
            raise AssertionError("a call was left hanging") from None
        except beam.ProcessExit:
            return "failed"
        return "answered"

    def ask_many(pid):
        return [ask(pid, n) for n in range(per_process // 2)]

    for round_ in range(processes):
        with fresh() as lab:
            pid = lab.probe()
            end = (lambda: ENDS["kill"](pid), lambda: beam.exit(pid, "over"), lambda: beam.stop(pid))[
                round_ % 3
            ]
            head_start = rng.randrange(0, per_process // 2)

            def end_later(pid=pid, end=end, head_start=head_start):
                until(lambda: pid._cell.handled >= head_start)
                end()
                return []

            for results in at_once(lambda: ask_many(pid), lambda: ask_many(pid), end_later):
                if isinstance(results, BaseException):
                    raise results
                for outcome in results:
                    outcomes[outcome] += 1
            assert pid._cell.calls == {}
    assert sum(outcomes.values()) == per_process * processes
    assert outcomes["answered"] > 500
    assert outcomes["failed"] > 500


def test_provoked_deferred_calls_against_a_kill():  # B-11
    """The server keeps every sender; whoever answers, it is answered once."""
    for _ in range(TIMES):
        with fresh() as lab:
            pid = lab.probe()
            senders = queue.SimpleQueue()
            keep = lambda process, senders=senders: senders.put(process.sender) or beam.NO_REPLY
            asked = InThread(beam.call, pid, keep, SOON)
            sender = senders.get(timeout=SOON)
            said, _ = at_once(lambda: sender.reply("answer"), lambda: beam.exit(pid, "kill"))
            if said:
                assert asked.result() == "answer"
            else:
                assert asked.error().reason == "killed"


def test_provoked_reply_against_the_callers_timeout():  # B-14
    """`reply` says True exactly if the caller got the value."""
    for _ in range(TIMES):
        with fresh() as lab:
            pid = lab.probe()
            said = queue.SimpleQueue()

            def slow(process, said=said):
                beam.sleep(0.0005)
                said.put(process.sender.reply("value"))
                return beam.NO_REPLY

            try:
                got = beam.call(pid, slow, 0.0006) == "value"
            except beam.CallTimeout:
                got = False
            sync(pid)
            if said.qsize():
                assert said.get_nowait() is got
            assert pid._cell.calls == {}


def test_provoked_exit_of_a_waiting_caller():  # B-22
    """An exit that comes while a caller begins to wait is never lost."""
    with fresh() as servers:
        server = servers.probe()
        for _ in range(TIMES):
            with fresh() as lab:
                pid = lab.probe()
                wait = lambda process: beam.call(server, lambda _: beam.NO_REPLY, SOON * 10)
                at_once(lambda: beam.cast(pid, wait), lambda: beam.exit(pid, "over"))
                pid._cell.thread.join(SOON)
                assert not pid._cell.thread.is_alive()
        assert server._cell.calls == {}


@pytest.mark.parametrize("reason", ["over", "kill"])
def test_forced_exit_just_before_a_wait_begins(monkeypatch, reason):  # B-22
    """
    1. The process has looked whether it was told to exit: it was not.
    2. It is told.
    3. It begins to wait: the wake-up must be there.
    """
    from allm_actors.beam import mailbox

    for _ in range(TIMES):
        with fresh() as lab, monkeypatch.context() as patched:
            pid = lab.probe()
            never = queue.SimpleQueue()
            before(
                patched,
                mailbox,
                "_get",
                lambda pid=pid: beam.exit(pid, reason),
                when=lambda source, *_, never=never: source is never,
            )
            beam.cast(pid, lambda process, never=never: mailbox.wait_for(never, SOON * 10))
            pid._cell.thread.join(SOON)
            assert not pid._cell.thread.is_alive()
            assert pid.exit_reason == ("killed" if reason == "kill" else "over")


# --- link and unlink against an exit ------------------------------------------------------------------


@pytest.mark.parametrize("trap", [False, True])
def test_provoked_link_against_an_exit(trap):  # B-30
    """The linker dies of it, or is told, or is refused: one of them, once."""
    for n in range(TIMES):
        with fresh() as lab:
            pid, peer = lab.probe(trap=trap), lab.probe()
            end = (lambda: beam.exit(peer, "boom"), lambda: beam.exit(peer, "kill"))[n % 2]
            outcome, _ = at_once(lambda: run_in(pid, lambda process: link_outcome(peer)), end)
            until(lambda: not peer.alive)
            if trap:
                message = pid.heard.get(timeout=SOON)
                assert message.pid is peer
                assert message.reason in ("boom", "killed", "noproc")
                sync(pid)
                assert pid.heard.qsize() == 0
            elif outcome == "refused":
                sync(pid)
            else:
                pid._cell.thread.join(SOON)
                assert pid.exit_reason in ("boom", "killed")
            assert peer not in [one.pid for one in pid._cell.links]


def link_outcome(peer):
    try:
        beam.link(peer)
    except beam.NoProcess:
        return "refused"
    return "linked"


@pytest.mark.parametrize("trap", [False, True])
def test_provoked_unlink_against_an_exit(trap):  # B-30
    """Once `unlink` has returned nothing of the link arrives: not even what was on its way."""
    for n in range(TIMES):
        with fresh() as lab:
            pid, peer = lab.probe(trap=trap), lab.probe()
            run_in(pid, lambda process: beam.link(peer))
            end = (lambda: leave(peer, "boom"), lambda: beam.exit(peer, "kill"))[n % 2]

            def unlink(process, peer=peer):
                beam.unlink(peer)
                process.heard.put("unlinked")
                return "unlinked"

            outcome, _ = at_once(lambda: run_in(pid, unlink), end)
            until(lambda: not peer._cell.thread.is_alive())
            if outcome == "unlinked":
                sync(pid)  # alive
                heard = []
                while not pid.heard.empty():
                    heard.append(pid.heard.get_nowait())
                assert heard[-1] == "unlinked"
                assert len(heard) <= 2  # at most the message that came before
            else:
                assert isinstance(outcome, beam.ProcessExit)
                assert outcome.reason in ("boom", "killed", "noproc")  # dead before it could unlink
            assert pid._cell.exits == {}


@pytest.mark.parametrize("trap", [False, True])
def test_forced_unlink_while_the_signal_is_on_its_way(monkeypatch, trap):  # B-30
    """The peer is dead and about to send its signal; the link goes in that moment."""
    for _ in range(TIMES):
        with fresh() as lab, monkeypatch.context() as patched:
            pid, peer = lab.probe(trap=trap), lab.probe()
            run_in(pid, lambda process, peer=peer: beam.link(peer))
            before(
                patched,
                Cell,
                "_signal",
                lambda pid=pid, peer=peer: run_in(pid, lambda process: beam.unlink(peer)),
                when=lambda cell, *_, peer=peer: cell is peer._cell,
            )
            beam.exit(peer, "kill")
            sync(pid)
            assert pid.alive
            assert pid.heard.qsize() == 0


def test_forced_unlink_after_the_message_left(monkeypatch):  # B-30
    """The message is made and not yet in the mailbox when `unlink` returns."""
    for _ in range(TIMES):
        with fresh() as lab, monkeypatch.context() as patched:
            pid, peer = lab.probe(trap=True), lab.probe()
            run_in(pid, lambda process, peer=peer: beam.link(peer))
            before(
                patched,
                Mailbox,
                "put",
                lambda pid=pid, peer=peer: run_in(pid, lambda process: beam.unlink(peer)),
                when=lambda mailbox, item, pid=pid: mailbox is pid._cell.mailbox and hasattr(item, "valid"),
            )
            beam.exit(peer, "kill")
            sync(pid)
            assert pid.heard.qsize() == 0


# --- monitors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_provoked_monitor_against_an_exit(end):  # B-31
    """Exactly one `Down`, with the reason or with `"noproc"`."""
    for _ in range(TIMES):
        with fresh() as lab:
            pid = lab.probe()
            inbox = beam.Inbox()
            at_once(lambda: beam.monitor(pid, to=inbox), lambda: ENDS[end](pid))
            assert inbox.receive(SOON).reason in ("over", "killed", "noproc")
            pid._cell.thread.join(SOON)
            assert len(inbox) == 0
            assert pid._cell.watchers == {}


def test_provoked_demonitor_against_an_exit():  # B-31
    """Nothing is handed out once `demonitor` has returned."""
    for _ in range(TIMES):
        with fresh() as lab:
            pid, target = lab.probe(), lab.probe()
            ref = run_in(pid, lambda process: beam.monitor(target))

            def forget(process, ref=ref):
                beam.demonitor(ref)
                process.heard.put("forgotten")

            at_once(lambda: run_in(pid, forget), lambda: leave(target, "over"))
            target._cell.thread.join(SOON)
            sync(pid)
            heard = []
            while not pid.heard.empty():
                heard.append(pid.heard.get_nowait())
            assert heard[-1] == "forgotten"
            assert pid._cell.watching == {}


def test_provoked_monitor_of_a_watcher_that_is_killed():  # B-33
    """No monitor of a dead watcher stays on a living target."""
    with fresh() as targets:
        target = targets.probe()
        for _ in range(TIMES):
            with fresh() as lab:
                pid = lab.probe()
                watch = lambda process: [beam.monitor(target) for _ in range(5)]
                at_once(lambda: beam.cast(pid, watch), lambda: beam.exit(pid, "kill"))
                pid._cell.thread.join(SOON)
        assert beam.info(target)["monitored_by"] == 0


def test_forced_kill_of_a_watcher_in_the_middle_of_its_monitor(monkeypatch):  # B-33
    with fresh() as targets:
        target = targets.probe()
        for _ in range(TIMES):
            with fresh() as lab, monkeypatch.context() as patched:
                pid = lab.probe()
                before(patched, _signals, "MonitorRef", lambda: kill(pid._cell))
                beam.cast(pid, lambda process: beam.monitor(target) and None)
                pid._cell.thread.join(SOON)
            assert target._cell.watchers == {}


# --- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_provoked_name_taken_while_its_owner_dies(end):  # B-40
    """The name goes from the dead to the living: never to two, never to nobody who asks after the news."""
    for _ in range(TIMES):
        with fresh() as lab:
            owner, heir = lab.probe(name="heirloom"), lab.probe()

            def inherit(heir=heir, owner=owner):
                while True:
                    try:
                        beam.register("heirloom", heir)
                    except beam.NameTaken as taken:
                        assert taken.pid is owner
                    else:
                        return owner.alive

            was_alive, _ = at_once(inherit, lambda: ENDS[end](owner))
            assert was_alive is False
            assert beam.whereis("heirloom") is heir
            assert heir._cell.names == ("heirloom",)
            assert owner._cell.names == ()


def test_provoked_register_against_the_end_of_the_registered():  # B-40
    """A dead process keeps no name, whenever it was given."""
    for _ in range(TIMES):
        with fresh() as lab:
            pid = lab.probe()
            outcome, _ = at_once(lambda: beam.register("late", pid), lambda: beam.exit(pid, "kill"))
            assert outcome is None or isinstance(outcome, beam.NoProcess)
            assert beam.whereis("late") is None


def test_provoked_two_starts_under_one_name():  # B-40
    for _ in range(TIMES):
        with fresh() as lab:
            outcomes = at_once(lambda: lab.probe(name="one"), lambda: lab.probe(name="one"))
            (winner,) = [one for one in outcomes if isinstance(one, beam.Pid)]
            (loser,) = [one for one in outcomes if isinstance(one, beam.StartError)]
            assert loser.reason.pid is winner
            assert beam.whereis("one") is winner


def test_forced_register_by_a_process_that_is_killed_meanwhile(monkeypatch):  # B-73
    """
    1. The process has passed every check of `register`.
    2. It is killed; its supervisor gives the name to a successor, or is about to.
    3. Its claim arrives.
    """
    for _ in range(TIMES):
        with fresh() as lab, monkeypatch.context() as patched:
            pid, other = lab.probe(), lab.probe()
            before(patched, _names, "claim", lambda pid=pid: beam.exit(pid, "kill"))
            beam.cast(pid, lambda process, other=other: beam.register("stolen", other))
            pid._cell.thread.join(SOON)
            assert beam.whereis("stolen") is None
            assert pid.exit_reason == "killed"


# --- timers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_provoked_timer_against_an_exit(end):  # B-50
    """A timer to a process goes with it, whenever it is set."""
    for _ in range(TIMES):
        with fresh() as lab:
            pid = lab.probe()
            ref, _ = at_once(lambda: beam.send_after(1000, pid, "late"), lambda: ENDS[end](pid))
            pid._cell.thread.join(SOON)
            assert beam.read_timer(ref) is None
            assert pid._cell.timers == {}


def test_provoked_cancel_against_firing():  # B-50
    """A timer fires or is cancelled, never both and never neither."""
    inbox = beam.Inbox()
    both = [0, 0]
    for n in range(TIMES):
        ref = beam.send_after(0.0001 * (n % 5), inbox, n)
        beam.sleep(0.0001 * (n % 3))
        if beam.cancel_timer(ref) is None:
            assert inbox.receive(SOON) == n
            both[0] += 1
        else:
            both[1] += 1
    marker = object()
    beam.send_after(0.005, inbox, marker)
    assert inbox.receive(SOON) is marker  # nothing that was cancelled came after all
    assert all(both)


def test_provoked_cancel_of_an_interval_against_its_ticks():  # B-50
    """No tick is garbled: it brings its message, or does not come."""
    for _ in range(TIMES):
        got = queue.SimpleQueue()
        ref = beam.send_interval(1e-6, got.put, "tick")
        got.get(timeout=SOON)
        beam.cancel_timer(ref)
        while not got.empty():
            assert got.get_nowait() == "tick"
    assert service.count() == 0 or all(timer.dest is not None for timer in list(service._live.values()))


def test_forced_cancel_of_an_interval_while_it_fires():  # B-50
    """
    1. The timer thread has read one half of a timer: its message, or whom it is for.
    2. The timer is cancelled, which takes both away.
    3. The timer thread reads the other half.
    """
    own = TimerService()

    class Sly(_Timer):
        """A timer that is cancelled by the first look at it."""

        __slots__ = ("halves",)

        def __init__(self, dest, message):
            self.halves = {}
            super().__init__(7, 0.0, dest, message, 1000.0)

        def _look(self, name):
            value = self.halves[name]
            if own._live:
                own.cancel(self.number)
            return value

        dest = property(lambda self: self._look("dest"), lambda self, v: self.halves.__setitem__("dest", v))
        message = property(
            lambda self: self._look("message"), lambda self, v: self.halves.__setitem__("message", v)
        )

    got = []
    timer = Sly(got.append, "tick")
    own._live[timer.number] = timer
    own._fire(timer, [])
    assert got in ([], ["tick"])  # never `None`
    assert own.count() == 0


def test_forced_timer_that_comes_when_the_thread_has_decided_to_end():  # B-111
    own = TimerService()
    fired = queue.SimpleQueue()

    class Commands:
        """Once the thread has found nothing more to do, it is given a timer."""

        def __init__(self, inner):
            self.inner, self.late = inner, [True]

        def empty(self):
            nothing = self.inner.empty()
            if self.late:
                self.late.pop()
                own.after(0, fired.put, "late")
            return nothing

        def __getattr__(self, name):
            return getattr(self.inner, name)

    own._commands = Commands(own._commands)
    own.after(0, fired.put, "first")
    assert fired.get(timeout=SOON) == "first"
    own.stop(SOON)
    assert fired.get(timeout=SOON) == "late"
    own.stop(SOON)


# --- starts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_provoked_start_against_the_exit_of_the_starter(end):  # B-4
    """A child that was linked to a starter that is gone does not live on."""
    for _ in range(TIMES):
        with fresh() as lab:
            starter = lab.probe()
            children = queue.SimpleQueue()
            birth = lambda process, children=children: children.put(process.pid)

            def start(process, birth=birth):
                while True:
                    Probe.start_link(queue.SimpleQueue(), at_birth=birth)

            at_once(lambda: beam.cast(starter, start), lambda: ENDS[end](starter))
            starter._cell.thread.join(SOON)
            while not children.empty():
                child = lab.keep(children.get_nowait())
                child._cell.thread.join(SOON)
                assert child.exit_reason in ("over", "killed", "noproc")


@pytest.mark.parametrize("point", ["tie", "claim", "_start_actor_loop"])
def test_forced_kill_of_the_starter_in_the_middle_of_a_start(monkeypatch, point):  # B-73
    """Killed at any point of its start, it leaves no child and no name."""
    for _ in range(TIMES // 2):
        with fresh() as lab, monkeypatch.context() as patched:
            starter = lab.probe()
            die = lambda starter=starter: kill(starter._cell)
            owner = process_module.Process if point == "_start_actor_loop" else process_module
            own = lambda *_, starter=starter: threading.current_thread() is starter._cell.thread
            before(patched, owner, point, die, when=own)
            born = queue.SimpleQueue()
            beam.cast(
                starter,
                lambda process, born=born: Probe.start_link(
                    queue.SimpleQueue(), at_birth=lambda child: born.put(child.pid), name="child"
                ),
            )
            starter._cell.thread.join(SOON)
            while not born.empty():
                lab.keep(born.get_nowait())
            until(lambda: beam.whereis("child") is None)


def test_provoked_acknowledgement_against_a_kill():  # B-72
    """The starter gets a pid or a failure; after a failure the process is dead, and the name is free."""
    for _ in range(TIMES):
        with fresh() as lab:
            gate = Gate()
            started = InThread(lambda lab=lab, gate=gate: lab.probe(at_birth=gate, name="n"))
            gate.wait()
            pid = lab.keep(beam.whereis("n"))
            inbox = beam.Inbox()
            beam.monitor(pid, to=inbox)
            at_once(gate.open, lambda pid=pid: beam.exit(pid, "kill"))
            try:
                assert started.result() is pid
                assert pid._cell.expected is False  # its end is news to whoever has the pid
            except beam.StartError as error:
                assert error.reason == "killed"
                assert pid._cell.expected is True
            assert inbox.receive(SOON).reason == "killed"
            assert beam.whereis("n") is None


def test_provoked_acknowledgement_against_the_start_timeout():  # B-5
    for _ in range(TIMES):
        with fresh() as lab:
            birth = lambda process: beam.sleep(0.0005)
            try:
                pid = lab.probe(at_birth=birth, start_timeout=0.0008, name="n")
            except beam.StartError as error:
                assert error.reason == "timeout"
                assert beam.whereis("n") is None
            else:
                assert pid.alive
                assert beam.whereis("n") is pid


# --- ends against ends --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["normal", "crash", "exit", "stop"])
def test_provoked_kill_against_another_end(end):  # B-72
    """One death, one reason, one piece of news for everybody; no zombie stays in the books."""
    acts = {
        "normal": lambda pid: leave(pid, "normal"),
        "crash": lambda pid: leave(pid, "boom"),
        "exit": lambda pid: beam.exit(pid, "over"),
        "stop": lambda pid: beam.stop(pid),
    }
    for _ in range(TIMES):
        with fresh() as lab:
            pid, peer = lab.probe(name="n"), lab.probe(trap=True)
            run_in(peer, lambda process, pid=pid: beam.link(pid))
            inbox = beam.Inbox()
            beam.monitor(pid, to=inbox)
            at_once(lambda: acts[end](pid), lambda: beam.exit(pid, "kill"))
            down = inbox.receive(SOON)
            assert down.reason == pid.exit_reason
            assert down.reason in ("killed", "normal", "boom", "over")
            assert peer.heard.get(timeout=SOON).reason == down.reason
            pid._cell.thread.join(SOON)
            sync(peer)
            assert (len(inbox), peer.heard.qsize()) == (0, 0)
            assert pid.number not in table.zombies
            assert beam.whereis("n") is None


def test_provoked_kills_from_two_sides():  # B-72
    for _ in range(TIMES):
        with fresh() as lab:
            pid = lab.probe()
            inbox = beam.Inbox()
            beam.monitor(pid, to=inbox)
            said = at_once(lambda: kill(pid._cell), lambda: kill(pid._cell))
            assert sorted(said) == [False, True]
            assert inbox.receive(SOON).reason == "killed"
            assert len(inbox) == 0


def test_provoked_stops_from_two_sides():  # B-26
    """Each returns after the death, or is told that there was no process."""
    for _ in range(TIMES):
        with fresh() as lab:
            pid = lab.probe()
            for outcome in at_once(lambda: beam.stop(pid), lambda: beam.stop(pid)):
                assert outcome is None or isinstance(outcome, beam.NoProcess)
            assert not pid.alive


def test_provoked_linked_crowd_killed_at_both_ends():  # B-23
    """Signals that meet each other in the middle do not deadlock."""
    for _ in range(TIMES // 4):
        with fresh() as lab:
            pids = [lab.probe() for _ in range(6)]
            for pid in pids:
                for other in pids:
                    run_in(pid, lambda process, other=other: beam.link(other))
            at_once(lambda: beam.exit(pids[0], "kill"), lambda: beam.exit(pids[-1], "kill"))
            for pid in pids:
                pid._cell.thread.join(SOON)
                assert pid.exit_reason == "killed"
                assert pid._cell.links == {}


def test_provoked_interrupter_against_the_end_of_its_block():  # B-75
    """It runs at most once, and never after its block was left."""
    ran_at_all = 0
    for _ in range(TIMES):
        with fresh() as lab:
            pid = lab.probe()
            ran, gate, left = [], Gate(), []

            def interrupt(ran=ran, left=left):
                ran.append(bool(left))
                until(lambda: True)
                ran.append(bool(left))

            def block(process, gate=gate, left=left):
                with beam.interruptible(interrupt):
                    gate()
                left.append(True)

            beam.cast(pid, block)
            gate.wait()
            at_once(gate.open, lambda pid=pid: beam.exit(pid, "kill"))
            pid._cell.thread.join(SOON)
            assert ran in ([], [False, False])
            ran_at_all += bool(ran)
    assert ran_at_all


def test_forced_end_of_a_block_while_its_interrupter_runs():  # B-75
    """What the interrupter touches is still there: the block is not left before it is through."""
    for _ in range(TIMES // 4):
        with fresh() as lab:
            pid = lab.probe()
            gate, left, found = Gate(), threading.Event(), []

            def interrupt(gate=gate, left=left, found=found):
                gate.open()  # the process goes on, to the end of its block
                left.wait(0.002)
                found.append(left.is_set())

            def block(process, gate=gate, left=left):
                with beam.interruptible(interrupt):
                    gate()
                left.set()

            beam.cast(pid, block)
            gate.wait()
            beam.exit(pid, "over")
            pid._cell.thread.join(SOON)
            assert found == [False]


def test_provoked_wakes_among_readers_of_one_inbox():  # B-22
    """A wake-up put into a shared inbox reaches the one it is for, and eats no message."""
    for _ in range(TIMES):
        with fresh() as lab:
            inbox = beam.Inbox()
            pids = [lab.probe() for _ in range(3)]
            for pid in pids:
                beam.cast(pid, lambda process, inbox=inbox: process.heard.put(inbox.receive()))
            at_once(lambda: beam.exit(pids[0], "over"), lambda: [inbox.put(n) for n in range(3)])
            pids[0]._cell.thread.join(SOON)
            got = []
            for pid in pids[1:]:
                got.append(pid.heard.get(timeout=SOON))
            while not pids[0].heard.empty():
                item = pids[0].heard.get_nowait()
                if isinstance(item, int):
                    got.append(item)
            left = []
            while not inbox._queue.empty():
                item = inbox._queue.get_nowait()
                if type(item) is not Wake:
                    left.append(item)
            assert sorted(got + left) == [0, 1, 2]


def test_the_books_are_empty_after_all_this():  # B-33
    until(lambda: not table.zombies)
    assert not _cell.table.names or all(cell.pid.alive for cell in list(table.names.values()))
    assert _signals.current() is None
