"""The life of a process: starting, callbacks, crashes, and the one moment of its death."""

import contextlib
import contextvars
import gc
import queue
import threading
import typing
import weakref

import pykka
import pytest

from allm_actors import beam
from allm_actors.beam import _calls, _cell
from allm_actors.beam import process as process_module
from allm_actors.beam._names import whereis
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
)

pytestmark = pytest.mark.logs_errors("processes crash here")


# --- callbacks ----------------------------------------------------------------------------------------


class Counter(beam.Process):
    def init(self, start=0):
        self.n = start

    def handle_call(self, request, sender):
        self.n += request
        return self.n


def test_the_counter_of_the_handbook(lab):  # B-3
    pid = lab.keep(Counter.start(10, name="counter"))
    assert beam.call(pid, 5) == 15
    assert beam.call("counter", 1) == 16


def test_every_callback_runs_in_the_thread_of_the_process(lab):  # B-3
    seen = queue.SimpleQueue()

    class All(beam.Process):
        def note(self, what):
            seen.put((what, threading.current_thread(), beam.current()))

        def init(self):
            self.note("init")
            self.continue_with("token")

        def handle_continue(self, token):
            self.note(token)

        def handle_call(self, request, sender):
            self.note("call")

        def handle_cast(self, message):
            self.note("cast")

        def handle_info(self, message):
            self.note("info")

        def terminate(self, reason):
            self.note("terminate")

    pid = lab.keep(All.start())
    beam.call(pid, 1)
    beam.cast(pid, 2)
    beam.send(pid, 3)
    beam.stop(pid)
    notes = [seen.get(timeout=SOON) for _ in range(6)]
    assert [what for what, _, _ in notes] == ["init", "token", "call", "cast", "info", "terminate"]
    assert {thread for _, thread, _ in notes} == {pid._cell.thread}
    assert {current for _, _, current in notes} == {pid}


def test_never_two_callbacks_at_once(lab):  # B-3
    inside = []
    overlaps = []

    def work(process):
        inside.append(1)
        if len(inside) > 1:
            overlaps.append(1)
        inside.pop()

    pid = lab.probe()
    threads = [threading.Thread(target=lambda: [beam.call(pid, work) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert overlaps == []


@pytest.mark.parametrize("send", [beam.call, beam.cast])
def test_a_call_or_cast_nobody_handles_is_a_crash(lab, send):  # B-3
    pid = lab.keep(beam.Process.start())

    def act():
        with contextlib.suppress(beam.ProcessExit):
            send(pid, "hello")

    assert isinstance(reason_of(pid, act).exception, NotImplementedError)


def test_an_unexpected_message_is_dropped_with_one_warning_that_names_its_type(lab, logs):  # B-3
    class Plain(beam.Process):
        def handle_call(self, request, sender):
            return request

    pid = lab.keep(Plain.start())
    beam.send(pid, {"secret": "hunter2"})
    assert beam.call(pid, 1) == 1
    (record,) = logs.at("warning")
    assert record["message_type"] == "dict"
    assert "hunter2" not in repr(logs.everything())


def test_a_handler_may_end_the_process_by_what_it_returns(lab):  # B-15
    pid = lab.probe()
    assert reason_of(pid, lambda: beam.cast(pid, lambda process: beam.Stop("enough"))) == "enough"

    class Once(beam.Process):
        def handle_info(self, message):
            return beam.Stop(beam.Shutdown(message))

    pid = lab.keep(Once.start())
    assert reason_of(pid, lambda: beam.send(pid, 3)) == beam.Shutdown(3)


def test_an_end_needs_a_reason():  # B-20
    with pytest.raises(ValueError):
        beam.Stop(None)
    with pytest.raises(ValueError):
        beam.Exit(None)


# --- class creation -----------------------------------------------------------------------------------


def test_a_subclass_does_not_define_init_with_underscores():  # B-3
    with pytest.raises(TypeError, match="define init"):

        class Wrong(beam.Process):
            def __init__(self):
                pass

    class Mixin:
        def __init__(self):
            pass

    with pytest.raises(TypeError, match="Mixin"):

        class Worse(Mixin, beam.Process):
            pass


def test_generic_and_protocol_bases_are_fine(lab):  # B-3
    T = typing.TypeVar("T")

    class Named(typing.Protocol):
        label: str

    class Fine(Named, beam.Process, typing.Generic[T]):
        label = "fine"

        def handle_call(self, request, sender):
            return self.label

    assert beam.call(lab.keep(Fine.start()), 1) == "fine"


@pytest.mark.parametrize("bound", [0, -1, "many", True, 1.5])
def test_a_bound_that_makes_no_sense_is_refused_with_the_class(bound):  # B-16
    with pytest.raises(TypeError, match="max_mailbox"):
        type("Wrong", (beam.Process,), {"max_mailbox": bound})


def test_trap_exit_is_a_bool():  # B-25
    with pytest.raises(TypeError, match="trap_exit"):
        type("Wrong", (beam.Process,), {"trap_exit": 1})


def test_trap_exit_may_be_a_class_attribute(lab):  # B-25
    class Trapping(Probe):
        trap_exit = True

        def init(self, heard):
            self.heard, self.at_end = heard, None

    pid = lab.probe(Trapping)
    beam.exit(pid, "boo")
    assert pid.heard.get(timeout=SOON) == beam.ExitMessage(None, "boo")
    beam.stop(pid)


# --- starting -----------------------------------------------------------------------------------------


def test_start_returns_when_init_has_returned(lab):  # B-5
    gate = Gate()
    started = InThread(lambda: lab.probe(at_birth=gate))
    gate.wait()
    with pytest.raises(queue.Empty):
        started._box.get_nowait()
    gate.open()
    assert started.result().alive


def test_a_process_continues_after_the_acknowledgement_and_before_any_message(lab):  # B-4
    gate = Gate()
    order = []

    def go_on(process):
        gate()
        order.append("continue")

    pid = lab.probe(at_birth=lambda process: process.continue_with(go_on))  # returns: it was acknowledged
    beam.cast(pid, lambda process: order.append("message"))
    gate.open()
    sync(pid)
    assert order == ["continue", "message"]


def test_a_start_by_name_registers_before_init(lab):  # B-4
    seen = []
    pid = lab.probe(name=("my", 1), at_birth=lambda process: seen.append(whereis(("my", 1))))
    assert seen == [pid]
    assert pid.name == ("my", 1)


@pytest.mark.parametrize("start", ["start", "start_link"])
def test_an_init_that_raises_is_a_start_error(lab, start):  # B-5
    error = Boom("no")
    before = threading.active_count()

    def fail(process):
        raise error

    with pytest.raises(beam.StartError) as caught:
        getattr(Probe, start)(queue.SimpleQueue(), at_birth=fail, name="unborn")
    assert caught.value.reason == beam.Crash(error)
    assert caught.value.__cause__ is error
    assert beam.whereis("unborn") is None
    assert threading.active_count() == before
    assert not any(
        isinstance(ref, beam.Pid) and ref.actor_class is Probe for ref in pykka.ActorRegistry.get_all()
    )


def test_an_init_that_exits_is_a_start_error_with_its_reason():  # B-5
    def refuse(process):
        raise beam.Exit({"port": "taken"})

    with pytest.raises(beam.StartError) as caught:
        Probe.start(queue.SimpleQueue(), at_birth=refuse)
    assert caught.value.reason == {"port": "taken"}


def test_an_init_that_ignores_starts_nothing():  # B-5
    def ignore(process):
        raise beam.Ignore

    assert Probe.start(queue.SimpleQueue(), at_birth=ignore, name="ignored") is None
    assert beam.whereis("ignored") is None


def test_ignore_is_a_crash_anywhere_else(lab):  # B-8
    pid = lab.probe()
    assert isinstance(reason_of(pid, lambda: crash(pid, beam.Ignore())), beam.Crash)


def test_the_linked_starter_of_a_failed_init_hears_of_it_too(lab):  # B-5
    starter = lab.probe(trap=True)
    names = []

    def fail(process):
        raise Boom

    def start(process):
        try:
            Probe.start_link(queue.SimpleQueue(), at_birth=fail, name="child")
        except beam.StartError as error:
            names.append(beam.whereis("child"))
            return error.reason, dict(process._cell.links)
        return None

    reason, links = run_in(starter, start)
    assert isinstance(reason.exception, Boom)
    assert (names, links) == ([None], {})
    message = starter.heard.get(timeout=SOON)
    assert message.reason == reason
    beam.stop(starter)


def test_a_linked_starter_that_does_not_trap_dies_with_a_failed_init(lab):  # B-23
    starter = lab.probe()

    def fail(process):
        raise beam.Exit("no luck")

    act = lambda: beam.cast(starter, lambda _: Probe.start_link(queue.SimpleQueue(), at_birth=fail))  # noqa: E731
    assert reason_of(starter, act) == "no luck"


def test_an_init_that_ignores_sends_its_linked_starter_a_normal_exit(lab):  # B-5
    starter = lab.probe(trap=True)

    def ignore(process):
        raise beam.Ignore

    assert run_in(starter, lambda _: Probe.start_link(queue.SimpleQueue(), at_birth=ignore)) is None
    assert starter.heard.get(timeout=SOON).reason == "normal"
    beam.stop(starter)


def test_a_start_that_takes_too_long_is_killed(lab):  # B-5
    gate = Gate()
    starter = lab.probe(trap=True)

    def start(process):
        try:
            Probe.start_link(queue.SimpleQueue(), at_birth=gate, name="slow", start_timeout=0.01)
        except beam.StartError as error:
            return error.reason

    try:
        assert run_in(starter, start) == "timeout"
        assert beam.whereis("slow") is None
        sync(starter)
        assert starter.heard.qsize() == 0  # no message
    finally:
        gate.open()
    beam.stop(starter)


def test_the_class_says_how_long_a_start_may_take(lab):  # B-4
    gate = Gate()

    class Hasty(Probe):
        start_timeout = 0.01

    try:
        with pytest.raises(beam.StartError) as caught:
            lab.probe(Hasty, at_birth=gate)
        assert caught.value.reason == "timeout"
    finally:
        gate.open()


def test_a_process_killed_in_init_answers_its_starter_at_once(lab):  # B-72
    gate = Gate()
    started = InThread(lambda: lab.probe(at_birth=gate, name="doomed"))
    gate.wait()
    try:
        beam.exit("doomed", "kill")
        error = started.error()  # although the thread is stuck in `init`
        assert isinstance(error, beam.StartError)
        assert error.reason == "killed"
    finally:
        gate.open()


def test_a_process_told_to_exit_in_init_does_not_start(lab):  # B-22
    gate = Gate()
    heard = queue.SimpleQueue()

    def birth(process):
        gate()
        beam.checkpoint()

    started = InThread(lambda: Probe.start(heard, at_birth=birth, name="doomed"))
    gate.wait()
    beam.exit("doomed", "changed my mind")
    gate.open()
    assert started.error().reason == "changed my mind"
    assert heard.qsize() == 0  # what was never set up is not torn down


def test_spawn_runs_one_function(lab):  # B-4
    box = queue.SimpleQueue()

    def work(a, b=0):
        gate()
        box.put((a, b, beam.current()))

    gate = Gate()
    pid = beam.spawn(work, 1, b=2)  # does not wait for it
    gate.wait()
    assert reason_of(pid, gate.open) == "normal"
    assert box.get(timeout=SOON) == (1, 2, pid)


def test_spawn_may_monitor_from_before_the_first_line(lab):  # B-4
    pid = lab.probe()

    def fail():
        raise Boom

    child, ref = run_in(pid, lambda process: beam.spawn(fail, monitor=True))
    down = pid.heard.get(timeout=SOON)
    assert (down.ref, down.pid) == (ref, child)
    assert isinstance(down.reason.exception, Boom)


def test_spawn_may_link_from_before_the_first_line(lab):  # B-4
    pid = lab.probe()

    def fail():
        raise beam.Exit("together")

    assert (
        reason_of(pid, lambda: beam.cast(pid, lambda process: beam.spawn(fail, link=True) and None))
        == "together"
    )


def test_spawn_by_name(lab):  # B-4
    gate = Gate()
    pid = beam.spawn(gate, name="job")
    assert beam.whereis("job") is pid
    assert reason_of(pid, gate.open) == "normal"


# --- a thread that is refused -------------------------------------------------------------------------


def refuse_threads(monkeypatch, times=1):
    left = [times]
    real = threading.Thread.start

    def start(thread):
        if left[0] and thread.name.startswith("beam-"):
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("how", ["plain", "linked"])
def test_a_refused_thread_leaves_nothing_behind(lab, monkeypatch, how):  # B-6
    starter = lab.probe(trap=True)
    cells, registry = len(_cell.table.cells), len(pykka.ActorRegistry.get_all())
    refuse_threads(monkeypatch)

    def start(process):
        begin = Probe.start_link if how == "linked" else Probe.start
        try:
            begin(queue.SimpleQueue(), name="refused")
        except beam.StartError as error:
            return error.reason, len(process._cell.links)

    assert run_in(starter, start) == ("system_limit", 0)
    assert beam.whereis("refused") is None
    assert (len(_cell.table.cells), len(pykka.ActorRegistry.get_all())) == (cells, registry)
    assert starter.heard.qsize() == 0
    assert _cell.table.zombies == {}
    assert lab.probe(name="refused").alive  # the next one is welcome
    beam.stop(starter)


def test_a_refused_timer_thread_leaves_nothing_behind(lab, monkeypatch):  # B-6
    beam.shutdown()  # the timer thread as well
    refuse_threads(monkeypatch)
    with pytest.raises(beam.StartError) as caught:
        lab.probe(name="refused")
    assert caught.value.reason == "system_limit"
    assert beam.whereis("refused") is None
    assert beam.processes() == []
    assert lab.probe(name="refused").alive


def test_a_start_that_is_called_off_before_its_thread_leaves_nothing_behind(lab):  # B-6
    def no(pid):
        raise Boom

    cells = len(_cell.table.cells)
    with pytest.raises(Boom):
        process_module.launch(Probe, (queue.SimpleQueue(),), {}, name="off", born=no)
    assert len(_cell.table.cells) == cells
    assert beam.whereis("off") is None


# --- threads ------------------------------------------------------------------------------------------


def test_the_thread_of_a_process(lab):  # B-7
    pid = lab.probe()
    thread = pid._cell.thread
    assert thread.name == f"beam-Probe-{pid.number}"
    assert thread.daemon
    assert str(pid) == f"<Probe {pid.number}>"
    gate = Gate()
    job = lab.keep(beam.spawn(gate))
    assert job._cell.thread.name.startswith("beam-")
    gate.open()


def test_the_context_of_the_starter_is_copied(lab):  # B-7
    variable = contextvars.ContextVar("variable", default="unset")
    token = variable.set("starter's")
    try:
        pid = lab.probe()
    finally:
        variable.reset(token)
    assert run_in(pid, lambda process: variable.get()) == "starter's"
    run_in(pid, lambda process: variable.set("its own") and None)
    assert variable.get() == "unset"
    assert run_in(pid, lambda process: variable.get()) == "its own"


def test_the_stack_size_is_the_interpreters_unless_configured(lab, monkeypatch):  # B-7
    sizes = []
    real = threading.Thread.start

    def start(thread):
        sizes.append(threading.stack_size())
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    default = threading.stack_size()
    try:
        lab.probe()
        beam.configure(stack_size=1 << 20)
        lab.probe()
        assert threading.stack_size() == default  # only for the thread of the process
    finally:
        beam.configure()
    lab.probe()
    assert sizes == [default, 1 << 20, default]


@pytest.mark.parametrize("size", ["big", True, 1.0])
def test_a_stack_size_is_a_number_of_bytes(size):  # B-7
    with pytest.raises(TypeError):
        beam.configure(stack_size=size)
    with pytest.raises(ValueError):
        beam.configure(stack_size=-5)


# --- crashes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [Boom("x"), KeyboardInterrupt(), SystemExit(3), GeneratorExit(), BaseException("base")],
    ids=lambda error: type(error).__name__,
)
def test_whatever_leaves_a_callback_ends_this_process_and_only_this(lab, error):  # B-8
    bystander, pid = lab.probe(), lab.probe()
    assert reason_of(pid, lambda: crash(pid, error)) == beam.Crash(error)
    sync(bystander)


@pytest.mark.parametrize("kind", ["call", "cast", "info", "continue"])
def test_a_crash_is_a_crash_in_every_callback(lab, kind):  # B-8
    class Fragile(Probe):
        def handle_info(self, message):
            raise message

    error = Boom(kind)

    def fail(process):
        raise error

    gate = Gate()

    def fail_later(process):
        gate()
        raise error

    birth = (lambda process: process.continue_with(fail_later)) if kind == "continue" else None
    pid = lab.probe(Fragile, at_birth=birth)

    def act():
        match kind:
            case "call":
                with pytest.raises(beam.ProcessExit):
                    beam.call(pid, fail)
            case "cast":
                beam.cast(pid, fail)
            case "info":
                beam.send(pid, error)
            case "continue":
                gate.open()

    assert reason_of(pid, act) == beam.Crash(error)


def test_exit_ends_the_process_with_its_reason_past_any_except_exception(lab):  # B-8
    pid = lab.probe()

    def careless(process):
        try:
            raise beam.Exit("on purpose")
        except Exception:
            return "eaten"

    assert reason_of(pid, lambda: beam.cast(pid, careless)) == "on purpose"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("shutdown", beam.Shutdown),
        (beam.Shutdown("x"), beam.Shutdown),
        ("normal", beam.Crash),
        ("boom", beam.Crash),
    ],
)
def test_an_uncaught_failed_call_ends_the_caller_too(lab, theirs, ours):  # B-8
    server, client = lab.probe(), lab.probe()

    def leave_unanswered(process):
        raise beam.Exit(theirs)

    reason = reason_of(client, lambda: beam.cast(client, lambda process: beam.call(server, leave_unanswered)))
    assert type(reason) is ours
    error = reason.detail if ours is beam.Shutdown else reason.exception
    assert isinstance(error, beam.ProcessExit)
    assert error.reason == theirs


def test_a_failed_call_is_an_ordinary_exception(lab):  # B-14
    with pytest.raises(Exception, match="no process"):
        beam.call("nobody", 1)
    assert issubclass(beam.ProcessExit, Exception)
    assert not issubclass(beam.Exit, Exception)


# --- death --------------------------------------------------------------------------------------------


def test_death_is_in_order(lab):  # B-9
    order = []
    pid = lab.probe(name="mortal", at_end=lambda process: order.append(("terminate", state())))
    peer = lab.probe(trap=True)

    def state():
        return pid.alive, beam.whereis("mortal") is pid, len(pid._cell.links), len(pid._cell.calls)

    run_in(peer, lambda process: beam.link(pid))
    run_in(pid, lambda process: process.on_exit(lambda: order.append(("closer 1", state()))))
    run_in(pid, lambda process: process.on_exit(lambda: order.append(("closer 2", state()))))
    asked = InThread(lambda: beam.call(pid, lambda process: beam.NO_REPLY))
    until(lambda: pid._cell.calls and pid._cell.handled == 3 and beam.info(pid)["state"] == "waiting")
    down = queue.SimpleQueue()
    beam.monitor(pid, to=lambda d: down.put((d, state())))
    beam.exit(pid, "over")
    message, after = down.get(timeout=SOON)
    assert isinstance(asked.error(), beam.ProcessExit)
    assert order == [
        ("terminate", (True, True, 1, 1)),
        ("closer 2", (True, True, 1, 1)),
        ("closer 1", (True, True, 1, 1)),
    ]
    assert (message.reason, after) == ("over", (False, False, 0, 0))
    assert peer.heard.get(timeout=SOON) == beam.ExitMessage(pid, "over")
    assert pid.exit_reason == "over"
    beam.stop(peer)


def test_pending_calls_fail_before_links_and_monitors_hear(lab):  # B-9
    pid = lab.probe()
    box = queue.SimpleQueue()
    asked = InThread(lambda: beam.call(pid, lambda process: beam.NO_REPLY))
    until(lambda: pid._cell.calls and beam.info(pid)["state"] == "waiting")
    beam.monitor(pid, to=lambda down: box.put(len(pid._cell.calls)))
    beam.exit(pid, "over")
    assert box.get(timeout=SOON) == 0
    assert asked.error().reason == "over"


def test_what_terminate_raises_replaces_the_reason(lab):  # B-9
    error = Boom("in terminate")

    def fail(process):
        raise error

    pid = lab.probe(at_end=fail)
    assert reason_of(pid, lambda: beam.exit(pid, "shutdown")) == beam.Crash(error)

    def leave_otherwise(process):
        raise beam.Exit("something else")

    pid = lab.probe(at_end=leave_otherwise)
    assert reason_of(pid, lambda: beam.exit(pid, "shutdown")) == "something else"


def test_what_a_closer_raises_is_logged_and_the_others_run(lab, logs):  # B-9
    pid = lab.probe()
    ran = []

    def fail():
        raise KeyboardInterrupt

    run_in(pid, lambda process: process.on_exit(lambda: ran.append(1)))
    run_in(pid, lambda process: process.on_exit(fail))
    run_in(pid, lambda process: process.on_exit(lambda: ran.append(2)))
    assert reason_of(pid, lambda: beam.exit(pid, "shutdown")) == "shutdown"
    assert ran == [2, 1]
    assert logs.of("closer.failed")[0]["level"] == "error"


def test_closers_run_even_if_init_failed(lab):  # B-9
    ran = []

    def birth(process):
        process.on_exit(lambda: ran.append("closed"))
        raise Boom

    with pytest.raises(beam.StartError):
        lab.probe(at_birth=birth)
    assert ran == ["closed"]


def test_a_closer_is_something_to_call(lab):  # B-9
    pid = lab.probe()
    assert isinstance(outcome_in(pid, lambda process: process.on_exit("close")), TypeError)


def test_nobody_is_kept_from_the_news_by_a_reason_that_misbehaves(lab):  # B-9
    class Nasty:
        def __repr__(self):
            raise Boom("repr")

        def __eq__(self, other):
            raise Boom("eq")

        __hash__ = None

    reason = Nasty()
    pid = lab.probe()
    peer = lab.probe(trap=True)
    run_in(peer, lambda process: beam.link(pid))
    assert reason_of(pid, lambda: leave(pid, reason)) is reason
    assert peer.heard.get(timeout=SOON).reason is reason
    beam.stop(peer)


def test_nobody_is_kept_from_the_news_by_a_log_handler_that_raises(lab, capsys):  # B-9
    import structlog

    def broken(*_):
        raise Boom("log handler")

    was = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(processors=[broken], cache_logger_on_first_use=False)
    try:
        pid = lab.probe()
        assert isinstance(reason_of(pid, lambda: crash(pid)), beam.Crash)
    finally:
        structlog.reset_defaults()
        if was is not None:
            structlog.configure(**was)
    assert "log handler" in capsys.readouterr().err


# --- what stays ---------------------------------------------------------------------------------------


class Resource:
    """Something a process owns."""


def test_a_crash_keeps_no_frame_alive(lab):  # B-10
    box = []

    def fail(process):
        resource = Resource()
        box.append(weakref.ref(resource))
        try:
            raise ValueError("inner")
        except ValueError as inner:
            raise Boom("outer") from inner

    pid = lab.probe()
    gc.disable()
    try:
        reason = reason_of(pid, lambda: beam.cast(pid, fail))
        pid._cell.thread.join(SOON)
        assert box[0]() is None
    finally:
        gc.enable()
    assert reason.exception.__traceback__ is None
    assert reason.exception.__cause__.__traceback__ is None
    assert "in fail" in reason.report
    assert "ValueError: inner" in reason.report
    assert pid.exit_reason is reason


def test_a_pid_does_not_keep_what_the_process_owned(lab):  # B-10
    box = []

    def own(process):
        process.resource = Resource()
        box.append(weakref.ref(process.resource))
        box.append(weakref.ref(process))

    pid = lab.probe(at_birth=own)
    gc.disable()
    try:
        beam.stop(pid)
        pid._cell.thread.join(SOON)
        assert [ref() for ref in box] == [None, None]
    finally:
        gc.enable()


def test_an_idle_process_keeps_no_message_alive(lab):  # B-10
    pid = lab.probe()
    box = queue.SimpleQueue()

    def send(kind):
        resource = Resource()
        box.put(weakref.ref(resource))
        match kind:
            case "call":
                beam.call(pid, lambda process, resource=resource: None)
            case "cast":
                beam.cast(pid, lambda process, resource=resource: None)

    gc.disable()
    try:
        for kind in ("call", "cast"):
            send(kind)
        sync(pid)
        until(lambda: beam.info(pid)["state"] == "waiting")
        assert [box.get_nowait()() for _ in range(2)] == [None, None]
    finally:
        gc.enable()


def test_a_failed_call_leaves_no_cycle_behind(lab):  # B-10
    pid = lab.probe()
    beam.stop(pid)
    gc.collect()
    gc.disable()
    try:

        def ask():
            resource = Resource()
            with pytest.raises(beam.NoProcess):
                beam.call(pid, resource)
            return weakref.ref(resource)

        assert ask()() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["call", "last moment"])
def test_the_failure_of_a_call_is_gone_once_handled(lab, monkeypatch, how):  # B-10
    """An error whose traceback leads back to it would keep the caller's frames until collected."""
    pid = lab.probe()

    def refuse(process):
        process.sender.fail(Boom("no"))
        return beam.NO_REPLY

    def ask():
        try:
            beam.call(pid, refuse)
        except Boom as error:
            return weakref.ref(error)

    if how == "last moment":

        def late(waiter, timeout):
            until(lambda: waiter.qsize() == 1)
            raise queue.Empty

        monkeypatch.setattr(_calls, "wait_for", late)
    gc.collect()
    gc.disable()
    try:
        ref = ask()
        monkeypatch.undo()
        sync(pid)
        assert ref() is None
    finally:
        gc.enable()


def test_a_pid_does_not_keep_the_generations_before_it(lab):  # B-10
    """A process that starts its successor and ends must not grow a chain."""

    def successor(process):
        child = Probe.start(queue.SimpleQueue())
        return child

    first = lab.probe()
    gone = weakref.ref(first._cell)
    pid = first
    for _ in range(30):
        following = run_in(pid, successor)
        beam.stop(pid)
        pid = following
    lab.pids.clear()
    lab.keep(pid)
    del first, following
    gc.collect()
    assert gone() is None


def test_pids_and_errors_survive_being_copied(lab):  # B-20
    import copy
    import pickle

    pid = lab.probe()
    assert copy.copy(pid) is pid
    assert copy.deepcopy({"who": pid})["who"] is pid
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(pid)
    errors = [
        beam.Exit("x"),
        beam.ProcessExit("x", pid),
        beam.NoProcess("name"),
        beam.CallTimeout(pid, 1.0),
        beam.CallingSelf(pid),
        beam.StartError("x"),
        beam.NameTaken("n", pid),
        beam.UnknownName("n"),
        beam.NotAProcess("link"),
        beam.MailboxFull(pid, 3),
        beam.AlreadyStarted("id", pid),
        beam.UnknownChild("id"),
        beam.MaxChildren(3),
    ]
    for error in errors:
        for twin in (copy.copy(error), copy.deepcopy(error)):
            assert (type(twin), str(twin), twin.__dict__) == (type(error), str(error), error.__dict__)
    twin = pickle.loads(pickle.dumps(beam.StartError("x")))
    assert (str(twin), twin.reason) == (str(beam.StartError("x")), "x")


def test_reasons_compare_by_value():  # B-20
    error = Boom("x")
    assert beam.Shutdown(1) == beam.Shutdown(1) != beam.Shutdown(2)
    assert beam.Crash(error) == beam.Crash(error, report="other text")
    assert beam.Crash(error) != beam.Crash(Boom("x"))


def test_a_busy_process_that_is_told_to_exit_ends_when_it_looks(lab):  # B-22
    pid = lab.probe()
    with held(pid):
        beam.exit(pid, "over")
        assert pid.alive
        inbox = beam.Inbox()
        beam.monitor(pid, to=inbox)
    assert inbox.receive(SOON).reason == "over"


def test_a_pid_is_for_ever(lab):  # B-5
    pid, other = lab.probe(), lab.probe()
    assert pid != other
    assert len({pid, other, pid}) == 2
    number = pid.number
    assert (pid.alive, pid.exit_reason, pid.name) == (True, None, None)
    end_of(pid, lambda: beam.exit(pid, "over"))
    assert (pid.alive, pid.exit_reason, pid.number) == (False, "over", number)
