"""Bad use: each is refused where it is made, in words that say what to do."""

import gc
import queue
import threading
import weakref

import pytest

from allm_actors import beam
from allm_actors.beam import _cell
from tests.beam._probe import SOON, Boom, InThread, Probe, end_of, held, run_in, sync, until

pytestmark = pytest.mark.logs_errors("processes crash here")


def test_a_process_is_started_not_made():  # section 15
    with pytest.raises(TypeError, match="start"):
        beam.Process()
    with pytest.raises(TypeError, match=r"Probe\.start"):
        Probe(queue.SimpleQueue())


def test_a_subclass_with_underscore_init_is_refused_at_class_creation():  # section 15
    with pytest.raises(TypeError, match="define init"):
        type("Wrong", (beam.Process,), {"__init__": lambda self: None})


class Strict(beam.Process):
    def init(self, a, *, b=1):
        pass


@pytest.mark.parametrize(
    ("cls", "args", "kwargs"),
    [
        (Strict, (), {}),
        (Strict, (1, 2), {}),
        (Strict, (1,), {"c": 1}),
        (beam.Process, (1,), {}),
        (beam.Process, (), {"a": 1}),
    ],
)
@pytest.mark.parametrize("start", ["start", "start_link", "start_nowait"])
def test_arguments_that_init_does_not_take(cls, args, kwargs, start):  # section 15
    threads, processes = threading.active_count(), len(beam.processes())
    with pytest.raises(TypeError, match=r"init"):
        getattr(cls, start)(*args, **kwargs)
    assert (threading.active_count(), len(beam.processes())) == (threads, processes)


def test_arguments_of_a_signature_that_takes_anything_reach_init(lab):  # section 15
    class Open(beam.Process):
        def init(self, *args, **kwargs):
            self.got = args, kwargs

        def handle_call(self, request, sender):
            return self.got

    assert beam.call(lab.keep(Open.start(1, a=2)), None) == ((1,), {"a": 2})


@pytest.mark.parametrize("timeout", [-1, 0, float("nan"), True, "1"])
def test_start_timeouts_that_make_no_sense(timeout):  # section 15
    with pytest.raises((TypeError, ValueError), match="start_timeout"):
        Probe.start(queue.SimpleQueue(), start_timeout=timeout)


def test_a_function_to_spawn_is_callable():  # section 15
    with pytest.raises(TypeError, match="callable"):
        beam.spawn("not a function")


def test_no_reply_and_then_never_an_answer(lab):  # section 15
    pid = lab.probe()
    with pytest.raises(beam.CallTimeout):
        beam.call(pid, lambda process: beam.NO_REPLY, 0.01)
    asked = InThread(beam.call, pid, lambda process: beam.NO_REPLY, SOON)
    until(lambda: pid._cell.calls)
    sync(pid)
    beam.stop(pid)
    assert type(asked.error()) is beam.ProcessExit


def test_a_callback_that_never_looks_is_killed_in_the_end(lab, logs, monkeypatch):  # section 15
    monkeypatch.setattr(_cell, "ZOMBIE_SECONDS", 0.0)
    pid = lab.probe()
    with held(pid):
        assert beam.shutdown(timeout=0.02) == 1
        assert beam.info(pid)["state"] == "zombie"
        assert "opened.wait" in logs.wait_for("process.zombie")["stack"]


def test_a_checkpoint_that_is_swallowed_raises_again_at_the_next(lab):  # section 15
    pid = lab.probe()
    swallowed = []

    def careless(process):
        for _ in range(3):
            try:
                beam.sleep(SOON)
            except BaseException:
                swallowed.append(1)

    beam.cast(pid, careless)
    until(lambda: pid._cell.parked is not None)
    assert end_of(pid, lambda: beam.exit(pid, "over")).reason == "over"
    assert len(swallowed) == 3


def test_a_raising_monitor_callback_or_closer_stops_nothing_else(lab, logs):  # section 15
    def fail(*_):
        raise Boom

    pid, peer = lab.probe(), lab.probe(trap=True)
    run_in(peer, lambda process: beam.link(pid))
    run_in(pid, lambda process: process.on_exit(fail))
    beam.monitor(pid, to=fail)
    assert end_of(pid, lambda: beam.exit(pid, "over")).reason == "over"
    assert peer.heard.get(timeout=SOON) == beam.ExitMessage(pid, "over")
    assert {r["event"] for r in logs.at("error")} >= {"monitor.failed", "closer.failed"}
    beam.stop(peer)


@pytest.mark.parametrize(
    "act",
    [lambda pid: beam.exit(pid, None), lambda pid: beam.stop(pid, None), lambda pid: beam.Exit(None)],
)
def test_a_reason_must_be_given(lab, act):  # section 15
    with pytest.raises(ValueError, match="reason"):
        act(lab.probe())


@pytest.mark.parametrize("dest", [None, [], {}])
@pytest.mark.parametrize("use", [beam.send, beam.cast, beam.call, beam.exit])
def test_what_is_neither_pid_nor_name(dest, use):  # section 15
    with pytest.raises(TypeError, match="name"):
        use(dest, "x")
    with pytest.raises(TypeError):
        beam.stop(dest)


def test_a_start_in_a_finalizer_never_deadlocks(lab):  # section 15
    """A collection may run it inside the layer's own work: refused then, or done; nothing in between."""
    outcomes = []

    def start():
        try:
            outcomes.append(lab.keep(beam.spawn(lambda: None)))
        except beam.StartError as error:
            outcomes.append(error.reason)

    class Cycle:
        def __init__(self):
            self.me = self

    count = 60
    threshold = gc.get_threshold()
    gc.set_threshold(2)
    try:
        for _ in range(count):
            weakref.finalize(Cycle(), start).atexit = False
            beam.stop(lab.probe())
        gc.collect()
    finally:
        gc.set_threshold(*threshold)
    assert len(outcomes) == count
    assert {type(o) is beam.Pid or o == "in_finalizer" for o in outcomes} == {True}
