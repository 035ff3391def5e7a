"""The runtime: orderly shutdown, the exit of the interpreter, forks, Ctrl-C, the root of the tree."""

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pykka
import pytest

from allm_actors import beam
from allm_actors.beam import _cell, runtime
from allm_actors.beam import process as process_module
from allm_actors.beam.supervisor import ChildSpec, DynamicSupervisor, Supervisor, start_child, which_children
from tests.beam._probe import SOON, Gate, InThread, Probe, end_of, held, leave, run_in, sync, until

pytestmark = pytest.mark.logs_errors("processes are killed here")


@pytest.fixture(autouse=True)
def _fresh():
    beam.shutdown()
    yield
    beam.shutdown()


def program(source, *, timeout=30, stdin=None):
    """Run a program of its own; its output, after it ended well."""
    done = run_program(source, timeout=timeout)
    assert done.returncode == 0, done.stderr
    assert "Fatal" not in done.stderr, done.stderr
    return done.stdout


def run_program(source, *, timeout=30):
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", PRELUDE + textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


PRELUDE = """
import os, queue, signal, sys, threading, time
from allm_actors import beam

class Echo(beam.Process):
    def init(self, label="echo"):
        self.label = label
    def handle_call(self, request, sender):
        return request
    def handle_cast(self, message):
        message()
    def terminate(self, reason):
        print("end", self.label, reason, flush=True)

"""


# --- shutdown -----------------------------------------------------------------------------------------


class Announcer(beam.Process):
    def init(self, label, ends):
        self.label, self.ends = label, ends

    def terminate(self, reason):
        self.ends.put((self.label, reason))


def test_shutdown_ends_everything_last_started_first():  # B-111
    ends = queue.SimpleQueue()
    for label in "abc":
        Announcer.start(label, ends)
    assert beam.shutdown() == 0
    assert [ends.get_nowait() for _ in range(3)] == [(label, "shutdown") for label in "cba"]
    assert beam.processes() == []
    assert not any(thread.name.startswith("beam-") for thread in threading.enumerate())


def test_shutdown_ends_the_tree_first_in_reverse_order():  # B-111
    ends = queue.SimpleQueue()
    Announcer.start("outside", ends)
    start_child(
        beam.root(),
        ChildSpec(
            "sup",
            Supervisor,
            args=([ChildSpec(label, Announcer, args=(label, ends)) for label in "xyz"],),
            restart="temporary",
            type="supervisor",
        ),
    )
    assert beam.shutdown() == 0
    assert [ends.get_nowait()[0] for _ in range(4)] == ["z", "y", "x", "outside"]


def test_shutdown_leaves_children_to_their_supervisor():  # B-111
    """A permanent child that is told before its supervisor would only be started again."""
    ends = queue.SimpleQueue()
    Supervisor.start([ChildSpec(label, Announcer, args=(label, ends)) for label in "xy"])
    assert beam.shutdown() == 0
    assert [ends.get_nowait() for _ in range(2)] == [("y", "shutdown"), ("x", "shutdown")]
    assert ends.qsize() == 0


def test_shutdown_ends_trapping_processes_too():  # B-111
    heard = queue.SimpleQueue()
    Probe.start(heard, trap=True)
    assert beam.shutdown() == 0
    assert heard.get_nowait() == ("terminate", "shutdown")


def test_shutdown_takes_along_what_is_linked(lab):  # B-111
    starter = lab.probe()
    heard = queue.SimpleQueue()
    run_in(starter, lambda _: Probe.start_link(heard) and None)
    assert beam.shutdown() == 0
    assert heard.get_nowait() == ("terminate", "shutdown")


def test_shutdown_kills_what_is_left_at_the_deadline_and_counts_the_zombies(lab):  # B-111
    stuck, polite = lab.probe(), lab.probe()
    with held(stuck):
        began = time.monotonic()
        assert beam.shutdown(timeout=0.05) == 1
        assert time.monotonic() - began < 2
        assert stuck.exit_reason == "killed"
        assert polite.exit_reason == "shutdown"
    stuck._cell.thread.join(SOON)


def test_one_that_is_stuck_does_not_keep_the_others_from_ending_well(lab):  # B-111
    polite = [lab.probe() for _ in range(3)]
    stuck = lab.probe()  # started last: asked first
    with held(stuck):
        beam.shutdown(timeout=0.2)
        assert [pid.exit_reason for pid in polite] == ["shutdown"] * 3


def test_new_processes_may_be_started_after_a_shutdown(lab):  # B-111
    first = beam.root()
    beam.shutdown()
    second = beam.root()
    assert (first.alive, second.alive) == (False, True)
    assert first is not second
    sync(lab.probe())
    inbox = beam.Inbox()
    beam.send_after(0, inbox, "timers too")
    assert inbox.receive(SOON) == "timers too"


def test_shutdown_ends_the_timers():  # B-111
    inbox = beam.Inbox()
    ref = beam.send_after(1000, inbox, 1)
    beam.shutdown()
    assert beam.read_timer(ref) is None
    assert beam.info()["timers"] == 0
    assert not any(thread.name == "beam-timer" for thread in threading.enumerate())


def test_shutdown_from_inside_a_process_spares_that_process(lab):  # B-111
    pid, other = lab.probe(), lab.probe()
    assert run_in(pid, lambda process: beam.shutdown(1)) == 0
    assert not other.alive
    sync(pid)


def test_shutdown_with_nothing_to_do():  # B-111
    assert beam.shutdown() == 0
    assert beam.shutdown(0) == 0


@pytest.mark.parametrize("timeout", [-1, "1", True, float("nan")])
def test_a_deadline_that_makes_no_sense(timeout):  # section 15
    with pytest.raises((TypeError, ValueError)):
        beam.shutdown(timeout)


def test_starts_are_refused_during_finalisation(monkeypatch):  # B-111
    monkeypatch.setattr(_cell.table, "closing", True)
    with pytest.raises(beam.StartError) as caught:
        Probe.start(queue.SimpleQueue(), name="late")
    assert caught.value.reason == "system_shutdown"
    assert beam.whereis("late") is None
    assert beam.processes() == []


# --- the root -----------------------------------------------------------------------------------------


def test_the_root_is_started_on_first_use_and_again_after_its_death():  # B-112
    assert beam.whereis("beam.root") is None
    root = beam.root()
    assert beam.root() is root
    assert beam.whereis("beam.root") is root
    end_of(root, lambda: beam.exit(root, "kill"))
    again = beam.root()
    assert again is not root
    assert again.alive


def test_the_root_belongs_to_nobody(lab):  # B-112
    import contextvars

    variable = contextvars.ContextVar("variable", default="nobody's")
    pid = lab.probe()

    def use(process):
        variable.set("somebody's")
        return beam.root()

    root = run_in(pid, use)
    assert beam.info(root)["ancestors"] == []
    assert beam.info(root)["links"] == []
    assert root._cell.parent is None
    child = start_child(root, ChildSpec("c", Probe, args=(queue.SimpleQueue(),), restart="temporary"))
    assert beam.info(child)["ancestors"] == [root]
    beam.stop(pid)
    assert root.alive


def test_only_one_root_is_started_however_many_ask():  # B-112
    barrier = threading.Barrier(4)

    def ask():
        barrier.wait(SOON)
        return beam.root()

    asked = [InThread(ask) for _ in range(4)]
    assert len({one.result() for one in asked}) == 1


def test_the_root_lives_on_when_a_child_gives_up():  # B-112
    root = beam.root()
    child = start_child(
        root,
        ChildSpec(
            "sup", DynamicSupervisor, restart="temporary", type="supervisor", kwargs={"max_restarts": 0}
        ),
    )
    heard = queue.SimpleQueue()
    kid = start_child(child, ChildSpec("kid", Probe, args=(heard,)))
    down = end_of(child, lambda: leave(kid, "boom"))
    assert down.reason == "shutdown"
    assert beam.root() is root
    assert which_children(root) == []


# --- the exit of the interpreter ----------------------------------------------------------------------


def test_forgotten_processes_do_not_keep_the_interpreter_and_end_in_order():  # B-110
    began = time.monotonic()
    out = program("""
        Echo.start("a"); Echo.start("b"); beam.root()
        def sleeper():
            try:
                beam.sleep(1000)
            finally:
                print("sleeper woke", flush=True)
        beam.spawn(sleeper)
        time.sleep(0.01)
    """)
    assert time.monotonic() - began < 15
    assert "sleeper woke" in out
    assert [line for line in out.splitlines() if line.startswith("end")] == [
        "end b shutdown",
        "end a shutdown",
    ]


def test_a_stuck_process_does_not_delay_the_exit_beyond_the_deadline():  # B-111
    began = time.monotonic()
    out = program("""
        import allm_actors.beam.runtime as runtime
        real = runtime.shutdown
        def quick(timeout):
            print("timeout", timeout, flush=True)
            return real(0.2)
        runtime.shutdown = quick
        entered = threading.Event()
        def stuck():
            entered.set()
            threading.Event().wait(1000)
        beam.spawn(stuck)
        entered.wait(5)
    """)
    assert "timeout 5.0" in out
    assert time.monotonic() - began < 10


def test_validating_models_in_daemon_threads_does_not_crash_the_exit():  # B-110
    source = """
        import pydantic
        class Model(pydantic.BaseModel):
            n: int
            @pydantic.field_validator("n")
            @classmethod
            def check(cls, value):
                return sum(range(20)) + value
        def validate():
            while True:
                beam.checkpoint()
                for n in range(50):
                    Model(n=n)
        for _ in range(4):
            beam.spawn(validate)
        time.sleep(0.02)
    """
    for _ in range(3):
        program(source)


def test_starting_at_exit_is_refused_after_the_hook():  # B-111
    out = program("""
        import atexit
        def late():
            try:
                Echo.start()
            except beam.StartError as error:
                print("refused", error.reason, flush=True)
        atexit.register(late)  # before the first process: it runs after the hook
        Echo.start("early")
    """)
    assert out.splitlines() == ["end early shutdown", "refused system_shutdown"]


def test_nothing_is_started_by_the_import():  # B-110
    assert program("print(threading.active_count(), beam.processes())").split() == ["1", "[]"]


# --- Ctrl-C -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        "beam.call(pid, 1, float('inf'))",
        "beam.call(pid, 1, 60)",
        "beam.Inbox().receive()",
        "beam.Inbox().receive(60)",
        "beam.stop(pid)",
        "beam.sleep(60)",
        "beam.sleep(float('inf'))",
    ],
)
def test_ctrl_c_interrupts_a_wait_in_the_main_thread(lab, wait):  # B-114
    pid = lab.probe()
    main = threading.main_thread()
    assert threading.current_thread() is main
    done = threading.Event()

    def press():
        until(lambda: any(f.f_code.co_name in names for f in stack_of(main)))
        while not done.is_set():
            signal.pthread_kill(main.ident, signal.SIGINT)
            done.wait(0.05)

    names = ("_get", "sleep")
    with held(pid):
        presser = InThread(press)
        try:
            with pytest.raises(KeyboardInterrupt):
                eval(wait, {"beam": beam, "pid": pid})
        finally:
            done.set()
        presser.result()
        assert pid._cell.calls == {}
    if "stop" not in wait:
        sync(pid)


def stack_of(thread):
    frame = sys._current_frames().get(thread.ident)
    while frame is not None:
        yield frame
        frame = frame.f_back


def test_ctrl_c_ends_a_program_that_waits_and_its_processes_end_in_order():  # B-114
    done = run_program("""
        pid = Echo.start("server")
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        class Slow(beam.Process):
            def handle_call(self, request, sender):
                return beam.NO_REPLY
        slow = Slow.start()
        try:
            beam.call(slow, 1, 60)
        except KeyboardInterrupt:
            print("interrupted", beam.call(pid, "alive"), flush=True)
            raise
    """)
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
    assert done.stdout.splitlines() == ["interrupted alive", "end server shutdown"]


def test_ctrl_c_during_a_start_leaves_no_process_that_nobody_knows(lab):  # B-114
    gate = Gate()
    main = threading.main_thread()
    done = threading.Event()

    def press():
        gate.wait()
        until(lambda: any(f.f_code.co_name == "_await_birth" for f in stack_of(main)))
        while not done.is_set():  # one that comes just before the thread blocks is seen only with the next
            signal.pthread_kill(main.ident, signal.SIGINT)
            done.wait(0.05)

    presser = InThread(press)
    try:
        with pytest.raises(KeyboardInterrupt):
            Probe.start(queue.SimpleQueue(), at_birth=gate, name="nobody's")
        done.set()
        assert beam.whereis("nobody's") is None
    finally:
        done.set()
        gate.open()
    presser.result()


def test_ctrl_c_while_a_thread_starts_leaves_no_process_either(monkeypatch):  # B-114
    real = threading.Thread.start

    def start(thread):
        real(thread)
        if thread.name.startswith("beam-Probe"):
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    heard = queue.SimpleQueue()
    with pytest.raises(KeyboardInterrupt):
        Probe.start(heard, name="nobody's")
    assert beam.whereis("nobody's") is None
    assert [pid for pid in beam.processes() if pid.actor_class is Probe] == []


# --- forks --------------------------------------------------------------------------------------------


def in_child(fn):
    """What `fn()` returns in a forked child, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            try:
                text = repr(fn())
            except BaseException as error:
                text = f"raised {error!r}"
            os.write(writer, text.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


forks = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@forks
def test_a_forked_child_has_no_processes(lab):  # B-113
    pid = lab.probe(name="parent's")
    inbox = beam.Inbox()
    ref = beam.send_after(1000, inbox, 1)

    def look():
        try:
            beam.call(pid, 1, 1)
        except beam.NoProcess as error:
            failed = error.reason
        return (
            beam.processes(),
            beam.registered(),
            beam.whereis("parent's"),
            pid.alive,
            pid.exit_reason,
            beam.info(pid)["state"],
            beam.info()["timers"],
            beam.read_timer(ref),
            beam.send(pid, 1),
            pykka.ActorRegistry.get_all(),
            failed,
        )

    assert in_child(look) == repr(
        ([], [], None, False, "noproc", "dead", 0, None, False, [], "noproc"),
    )
    assert pid.alive  # the parent notices nothing
    sync(pid)
    assert beam.whereis("parent's") is pid
    assert beam.cancel_timer(ref) is not None


@forks
def test_a_forked_child_may_start_processes_of_its_own(lab):  # B-113
    lab.probe(name="taken in the parent")

    def work():
        pid = Probe.start(queue.SimpleQueue(), name="taken in the parent")
        inbox = beam.Inbox()
        beam.send_after(0, inbox, "tick")
        answer = (beam.call(pid, lambda process: "answer"), inbox.receive(SOON), beam.root().alive)
        return (*answer, beam.shutdown())

    assert in_child(work) == repr(("answer", "tick", True, 0))


@forks
def test_a_fork_while_the_locks_are_held_does_not_deadlock_the_child(lab):  # B-113
    pid = lab.probe()
    release, taken = threading.Event(), threading.Event()

    def hold():
        with _cell.table.lock, runtime._root_lock, process_module._stack_lock:
            with pykka.ActorRegistry._actor_refs_lock:
                taken.set()
                release.wait(SOON)

    def work():
        signal.alarm(int(SOON))  # a child that deadlocks is ended
        beam.configure(stack_size=1 << 20)
        return beam.root().alive, Probe.start(queue.SimpleQueue(), name="n").alive

    holder = InThread(hold)
    assert taken.wait(SOON)
    try:
        text = in_child(work)
    finally:
        release.set()
    holder.result()
    assert text == "(True, True)"
    sync(pid)


@forks
def test_a_monitor_or_link_of_the_parent_means_nothing_in_the_child(lab):  # B-113
    pid, peer = lab.probe(), lab.probe()
    run_in(pid, lambda process: beam.link(peer))
    inbox = beam.Inbox()
    beam.monitor(pid, to=inbox)

    def look():
        beam.exit(pid, "kill")
        beam.exit(pid, "over")
        again = beam.Inbox()
        beam.monitor(pid, to=again)
        return len(inbox), again.receive(0).reason, beam.info(pid)["links"]

    assert in_child(look) == repr((0, "noproc", []))
    assert pid.alive
    assert peer.alive


def test_a_forked_program_exits_at_once_in_child_and_parent():  # B-113
    began = time.monotonic()
    out = program("""
        import warnings
        warnings.simplefilter("ignore")
        Echo.start("parent's"); beam.root()
        child = os.fork()
        if child == 0:
            pid = Echo.start("child's")
            assert beam.call(pid, 1) == 1
            sys.exit(0)
        print("child left with", os.waitpid(child, 0)[1], flush=True)
    """)
    assert sorted(out.splitlines()) == ["child left with 0", "end child's shutdown", "end parent's shutdown"]
    assert time.monotonic() - began < 15


@forks
def test_a_fork_inside_a_process_is_nobodys_in_the_child(lab):  # B-113
    pid = lab.probe()
    assert run_in(pid, lambda process: in_child(lambda: (beam.current(), beam.processes()))) == "(None, [])"
    sync(pid)
