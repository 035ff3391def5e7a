"""What users' own objects do at the worst moment: it must not keep an end from those who wait for it.

Exceptions that cannot be changed, shown or formatted, reasons that cannot be compared, names without a text.
"""

import dataclasses
import queue

import pytest

from allm_actors import beam
from tests.beam._probe import SOON, Boom, Probe, end_of, leave, reason_of

pytestmark = pytest.mark.logs_errors("processes crash here on purpose")


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """No attribute of it can be set, `__traceback__` included."""

    text: str = "frozen"


class Unspeakable(Exception):
    def __str__(self):
        raise SystemExit(3)


class Unshowable:
    """A reason, or a name, whose `repr` raises."""

    def __init__(self, error):
        self.error = error

    def __repr__(self):
        raise self.error


class Incomparable:
    """A reason that cannot be compared with anything, as an array cannot."""

    __hash__ = None

    def __eq__(self, other):
        raise Boom("not to be compared")


class EqualToAll:
    """A reason that says it equals everything."""

    def __eq__(self, other):
        return True

    __hash__ = object.__hash__


def nested_groups(depth):
    error = Boom("innermost")
    for _ in range(depth):
        error = ExceptionGroup("group", [error])
    return error


def caused_by(cause):
    error = Boom("effect")
    error.__cause__ = cause
    return error


NASTY = {
    "frozen": Frozen,
    "caused by a frozen one": lambda: caused_by(Frozen()),
    "a group of frozen ones": lambda: ExceptionGroup("group", [Frozen()]),
    "a syntax error that makes no sense": lambda: SyntaxError("x", ("file", 1, 2, 5)),
    "text that exits": Unspeakable,
    "groups in groups": lambda: nested_groups(2000),
}


@pytest.mark.parametrize("make", NASTY.values(), ids=NASTY)
def test_a_process_ends_of_any_exception_and_its_caller_hears_of_it(make, lab, logs):
    """B-8, B-10, B-14: nothing an exception is made of keeps the process from dying, or its caller waiting."""
    pid = lab.probe()
    error = make()

    def fail(process):
        raise error

    with pytest.raises(beam.ProcessExit) as caught:
        beam.call(pid, fail, SOON)

    assert caught.value.reason.exception is error
    assert error.__traceback__ is None
    assert not pid.alive
    [report] = logs.of("process.exited")
    assert report["level"] == "error"
    assert type(error).__name__ in report["traceback"]


def test_a_frozen_exception_in_init_is_the_reason_of_the_failed_start(lab):
    """B-5, B-10: not a timeout."""

    def fail(process):
        raise Frozen

    with pytest.raises(beam.StartError) as caught:
        lab.probe(at_birth=fail)

    assert caught.value.reason == beam.Crash(caught.value.__cause__)
    assert caught.value.__cause__ == Frozen()


@pytest.mark.parametrize("error", [Boom("no"), SystemExit(3)], ids=["Exception", "SystemExit"])
def test_a_reason_that_cannot_be_shown_reaches_links_monitors_and_callers(error, lab):
    """B-9, B-20: reasons are any object, and a death is told to the end."""
    reason = Unshowable(error)
    pid, peer = lab.probe(), lab.probe(trap=True)
    beam.call(peer, lambda process: beam.link(pid), SOON)

    def fail(process):
        raise beam.Exit(reason)

    with pytest.raises(beam.ProcessExit) as caught:
        beam.call(pid, fail, SOON)

    assert caught.value.reason is reason
    assert "without a repr" in str(caught.value)
    assert peer.heard.get(timeout=SOON) == beam.ExitMessage(pid, reason)


def test_a_name_without_a_text_does_not_get_in_the_way(lab):
    """B-9, B-40, B-122: names are any hashable value; one that cannot be shown is named by its type."""
    pid, peer = lab.probe(), lab.probe(name=Unshowable(Boom("no")))
    beam.call(pid, lambda process: beam.link(peer), SOON)
    assert "Unshowable without a repr" in str(peer)
    assert str(peer)[1:-1] in beam.tree()
    beam.dump()

    assert reason_of(peer, lambda: leave(pid, "bye")) == "bye"


def test_a_child_whose_reason_cannot_be_compared_is_restarted(lab):
    """B-62: the supervisor judges it like any other reason, and does not lose the child."""
    births = queue.SimpleQueue()
    spec = beam.ChildSpec("child", Probe, args=(queue.SimpleQueue(),), kwargs={"at_birth": births.put})
    supervisor = lab.keep(beam.Supervisor.start([spec]))
    first = births.get(timeout=SOON)

    leave(first.pid, Incomparable())

    assert births.get(timeout=SOON) is not first
    beam.stop(supervisor, timeout=SOON)


def test_a_supervisor_ends_though_its_child_ends_with_a_reason_that_cannot_be_compared(lab, logs):
    """B-67: it is a shutdown error, and nothing worse."""

    def refuse(process):
        raise beam.Exit(Incomparable())

    spec = beam.ChildSpec("child", Probe, args=(queue.SimpleQueue(),), kwargs={"at_end": refuse})
    supervisor = lab.keep(beam.Supervisor.start([spec]))

    down = end_of(supervisor, lambda: beam.stop(supervisor, timeout=SOON))

    assert down.reason == "normal"
    assert len(logs.of("supervisor.shutdown_error")) == 1


def test_a_task_that_ends_with_a_reason_that_cannot_be_compared_can_be_shut_down():
    """B-20: `shutdown` tells it from an end that was asked for."""
    begun = queue.SimpleQueue()

    def work():
        begun.put("here")
        try:
            beam.sleep(60)
        finally:
            raise beam.Exit(Incomparable())

    task = beam.Task.async_(work)
    begun.get(timeout=SOON)

    with pytest.raises(beam.ProcessExit) as caught:
        task.shutdown(SOON)

    assert isinstance(caught.value.reason, Incomparable)


def test_a_queue_takes_an_end_whose_reason_cannot_be_compared(lab):
    """B-82: the consumer gets its terminal item whatever the reason is like."""
    events = beam.EventQueue()
    pid = lab.probe()
    beam.monitor(pid, to=events)
    leave(pid, Incomparable())

    last = events.pop(SOON)

    assert isinstance(last.reason, Incomparable)


def test_an_init_that_exits_with_a_reason_that_equals_everything_has_not_started(lab):
    """B-5: a failed start is not taken for a started process."""

    def refuse(process):
        raise beam.Exit(EqualToAll())

    with pytest.raises(beam.StartError):
        lab.probe(at_birth=refuse)


def test_a_tree_is_drawn_however_deep_it_is(lab):
    """B-122: the picture of a runaway recursion of starts is wanted most of all."""
    deepest = queue.SimpleQueue()
    depth = 1200

    def go_on(left):
        if left:
            beam.spawn(go_on, left - 1, link=True)
        else:
            deepest.put("here")
        beam.sleep(60)

    top = lab.keep(beam.spawn(go_on, depth))
    deepest.get(timeout=SOON * 3)

    lines = beam.tree().splitlines()

    assert sum("go_on" in line for line in lines) == depth + 1
    gone = beam.Inbox()
    for pid in beam.processes():
        beam.monitor(pid, to=gone)
    watched = len(beam.processes())
    beam.exit(top, "kill")
    for _ in range(watched):
        gone.receive(SOON * 3)


def test_a_tree_reads_from_top_to_bottom(lab):
    """B-122: children under their starter, in the order of their starts, each with its branch."""
    top = lab.probe()
    for _ in range(2):
        beam.call(top, lambda process: beam.spawn(beam.sleep, 60, link=True), SOON)

    lines = [line for line in beam.tree().splitlines() if "sleep" in line or f"Probe {top.number} " in line]

    assert [line.split(" ")[0] for line in lines] == ["Probe", "├──", "└──"]


def test_a_name_of_any_length_is_shown_in_a_line_one_can_read():  # B-40
    with pytest.raises(beam.UnknownName) as refused:
        beam.send("n" * 1_000_000, 1)
    assert len(str(refused.value)) < 2000
    assert refused.value.name == "n" * 1_000_000
