"""Administration of a supervisor: every cell of its table."""

import math
import threading

import pytest

from allm_actors import beam
from allm_actors.beam.supervisor import (
    Backoff,
    Supervisor,
    count_children,
    delete_child,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from tests.beam._kids import Boom, News, in_thread, kid, pid_of, until

pytestmark = pytest.mark.logs_errors("children end abnormally here")

FOREVER = Backoff(initial=60, maximum=60)


@pytest.fixture
def news():
    return News()


@pytest.fixture
def sup(news):
    """A supervisor with a child in each state: `run` runs, `end` has ended, `wait` waits for its restart."""
    pid = Supervisor.start(
        [
            kid("run", news),
            kid("end", news, restart="transient"),
            kid("wait", news, backoff=FOREVER),
            kid("temp", news, restart="temporary"),
        ]
    )
    news.take(4)
    beam.send(pid_of(pid, "end"), ("exit", "normal"))
    assert news.next() == ("stop", "end", "normal")
    beam.exit(pid_of(pid, "wait"), "boom")
    assert news.next() == ("stop", "wait", "boom")
    until(lambda: states(pid) == {"run": "running", "end": None, "wait": "restarting", "temp": "running"})
    yield pid
    if pid.alive:
        beam.stop(pid)


def states(pid):
    return {id_: "running" if isinstance(child, beam.Pid) else child for id_, child, _ in which_children(pid)}


# --- start_child --------------------------------------------------------------------------------------


def test_start_child_with_the_id_of_a_running_child(sup, news):
    """B-68"""
    with pytest.raises(beam.AlreadyStarted) as caught:
        start_child(sup, kid("run", news))
    assert caught.value.pid == pid_of(sup, "run")


@pytest.mark.parametrize("id_", ["end", "wait"])
def test_start_child_with_the_id_of_a_child_without_process(sup, news, id_):
    """B-68"""
    with pytest.raises(beam.AlreadyPresent):
        start_child(sup, kid(id_, news))
    news.nothing_more()


def test_start_child_with_a_new_id_starts_it_as_the_last(sup, news):
    """B-68"""
    pid = start_child(sup, kid("new", news))
    assert news.next() == ("start", "new")
    assert which_children(sup)[-1] == ("new", pid, "worker")
    beam.stop(sup)
    assert news.next() == ("stop", "new", "shutdown")


def test_start_child_that_does_not_start_leaves_no_spec(sup, news):
    """B-68"""

    def fail(life):
        raise Boom

    with pytest.raises(beam.StartError) as caught:
        start_child(sup, kid("new", news, fail))
    assert isinstance(caught.value.reason.exception, Boom)
    assert "new" not in states(sup)


def test_start_child_that_ignores(sup, news):
    """B-61, B-68"""

    def ignore(life):
        raise beam.Ignore

    assert start_child(sup, kid("new", news, ignore)) is None
    assert states(sup)["new"] is None
    assert start_child(sup, kid("temporary", news, ignore, restart="temporary")) is None
    assert "temporary" not in states(sup)


def test_start_child_refuses_what_does_not_suit_the_supervisor(sup, news):
    """B-60, B-69"""
    with pytest.raises(beam.SpecError, match="never"):
        start_child(sup, kid("new", news, restart="temporary", significant=True))
    with pytest.raises(beam.SpecError):
        start_child(sup, "new")
    assert sup.alive


# --- terminate_child ----------------------------------------------------------------------------------


def test_terminate_child_ends_a_running_one_and_keeps_its_spec(sup, news):
    """B-68, B-62: not judged: a permanent child stays down."""
    terminate_child(sup, "run")
    assert news.next() == ("stop", "run", "shutdown")
    assert states(sup)["run"] is None
    news.nothing_more()


def test_terminate_child_drops_a_temporary_one(sup, news):
    """B-68"""
    terminate_child(sup, "temp")
    assert news.next() == ("stop", "temp", "shutdown")
    assert "temp" not in states(sup)


def test_terminate_child_that_has_ended_does_nothing(sup, news):
    """B-68"""
    terminate_child(sup, "end")
    assert states(sup)["end"] is None
    news.nothing_more()


def test_terminate_child_that_waits_for_its_restart_keeps_it_down(sup, news):
    """B-68"""
    timers = beam.info()["timers"]
    terminate_child(sup, "wait")
    assert states(sup)["wait"] is None
    assert beam.info()["timers"] == timers - 1  # nothing will bring it back
    restart_child(sup, "wait")  # nor is it "restarting" any more
    assert news.next() == ("start", "wait")


def test_terminate_child_between_two_tries_keeps_it_down(news):
    """B-65, B-68: a try that was announced by message is forgotten too."""
    at_try, go = threading.Event(), threading.Event()

    def fail(life):
        if life:
            at_try.set()
            go.wait(5)
            raise Boom

    pid = Supervisor.start([kid("a", news, fail)], max_restarts=10)
    news.take(1)
    beam.exit(pid_of(pid, "a"), "boom")
    at_try.wait(5)
    done = in_thread(lambda: terminate_child(pid, "a"))
    until(lambda: len(pid._cell.mailbox) >= 1)
    go.set()
    done()
    assert states(pid) == {"a": None}
    beam.stop(pid)


@pytest.mark.parametrize("function", [terminate_child, restart_child, delete_child])
def test_an_unknown_id(sup, function):
    """B-68"""
    with pytest.raises(beam.UnknownChild, match="nobody"):
        function(sup, "nobody")


# --- restart_child, delete_child ----------------------------------------------------------------------


def test_restart_child(sup, news):
    """B-68"""
    with pytest.raises(beam.ChildRunning):
        restart_child(sup, "run")
    with pytest.raises(beam.ChildRestarting):
        restart_child(sup, "wait")
    pid = restart_child(sup, "end")
    assert news.next() == ("start", "end")
    assert pid_of(sup, "end") == pid
    assert [id_ for id_, _, _ in which_children(sup)] == ["run", "end", "wait", "temp"]


def test_restart_child_that_does_not_start_keeps_the_spec(news):
    """B-68"""

    def only_once(life):
        if life:
            raise Boom

    pid = Supervisor.start([kid("a", news, only_once)])
    terminate_child(pid, "a")
    with pytest.raises(beam.StartError):
        restart_child(pid, "a")
    assert states(pid) == {"a": None}
    beam.stop(pid)


def test_delete_child(sup, news):
    """B-68"""
    with pytest.raises(beam.ChildRunning):
        delete_child(sup, "run")
    with pytest.raises(beam.ChildRestarting):
        delete_child(sup, "wait")
    delete_child(sup, "end")
    assert "end" not in states(sup)
    news.nothing_more()


def test_terminate_twice_restart_terminate_delete_terminate(news):
    """Scenario: ok, ok, ok, ok, ok, not found."""
    pid = Supervisor.start([kid("a", news)])
    terminate_child(pid, "a")
    terminate_child(pid, "a")
    restart_child(pid, "a")
    terminate_child(pid, "a")
    delete_child(pid, "a")
    with pytest.raises(beam.UnknownChild):
        terminate_child(pid, "a")
    beam.stop(pid)


# --- listing ------------------------------------------------------------------------------------------


def test_listing_and_counting(sup):
    """B-68"""
    listing = which_children(sup)
    assert [(id_, type_) for id_, _, type_ in listing] == [
        ("run", "worker"),
        ("end", "worker"),
        ("wait", "worker"),
        ("temp", "worker"),
    ]
    counts = count_children(sup)
    assert (counts.specs, counts.active, counts.supervisors, counts.workers) == (4, 2, 0, 4)


def test_a_supervisor_may_be_named(news):
    pid = Supervisor.start([kid("a", news)], name="top")
    assert count_children("top").active == 1
    assert start_child("top", kid("b", news)) == pid_of("top", "b")
    beam.stop(pid)


@pytest.mark.parametrize(
    "ask",
    [
        which_children,
        count_children,
        lambda sup: start_child(sup, kid("x", None)),
        lambda sup: terminate_child(sup, "a"),
        lambda sup: restart_child(sup, "a"),
        lambda sup: delete_child(sup, "a"),
    ],
)
def test_a_supervisor_that_has_ended_cannot_be_asked(ask):
    pid = Supervisor.start([])
    beam.stop(pid)
    with pytest.raises(beam.NoProcess):
        ask(pid)
    with pytest.raises(beam.NoProcess):
        ask("no such name")


def test_without_a_timeout_nothing_limits_the_wait(monkeypatch):
    asked = []
    monkeypatch.setattr("allm_actors.beam._admin.call", lambda sup, request, timeout: asked.append(timeout))
    which_children("sup")
    terminate_child("sup", "a")
    terminate_child("sup", "a", timeout=2)
    assert asked == [math.inf, math.inf, 2]


def test_a_busy_supervisor_is_waited_for_as_long_as_it_takes_or_as_told(news):
    entered, go = threading.Event(), threading.Event()

    def slow(life):
        entered.set()
        go.wait(5)

    pid = Supervisor.start([])
    starting = in_thread(lambda: start_child(pid, kid("a", news, slow)))
    entered.wait(5)
    with pytest.raises(beam.CallTimeout):
        which_children(pid, timeout=0.01)
    go.set()
    assert starting() == pid_of(pid, "a")
    beam.stop(pid)
