"""The supervisor of children that come and go."""

import contextvars
import queue
import random
import sys
import threading
import time

import pytest

from allm_actors import beam
from allm_actors.beam.supervisor import (
    Backoff,
    ChildSpec,
    DynamicSupervisor,
    count_children,
    delete_child,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from tests.beam._kids import Boom, Deaf, Kid, News, in_process, in_thread, kid, until, wait_dead

pytestmark = pytest.mark.logs_errors("children end abnormally here")

FLAVOR = contextvars.ContextVar("flavor", default="none")


@pytest.fixture
def news():
    return News()


@pytest.fixture
def sup():
    pid = DynamicSupervisor.start()
    yield pid
    if pid.alive:
        beam.stop(pid, timeout=5)


def test_it_starts_with_no_children_and_takes_any_number(sup, news):
    """B-70: ids need not differ."""
    assert which_children(sup) == []
    pids = [start_child(sup, kid("same", news)) for _ in range(3)]
    assert [(id_, pid) for id_, pid, _ in which_children(sup)] == [("same", pid) for pid in pids]
    assert count_children(sup) == (3, 3, 0, 3)


@pytest.mark.parametrize(
    ("restart", "reason", "comes_back"),
    [
        ("permanent", "normal", True),
        ("permanent", "boom", True),
        ("transient", "normal", False),
        ("transient", "boom", True),
        ("temporary", "boom", False),
    ],
)
def test_its_strategy_is_one_for_one(sup, news, restart, reason, comes_back):
    """B-70, B-62"""
    pid = start_child(sup, kid("a", news, restart=restart))
    other = start_child(sup, kid("z", news))
    news.take(2)
    beam.send(pid, ("exit", reason))
    assert news.next() == ("stop", "a", reason)
    if comes_back:
        assert news.next() == ("start", "a")
        until(lambda: count_children(sup).active == 2)
    else:
        until(lambda: count_children(sup).active == 1)
    assert pid not in [child for _, child, _ in which_children(sup)]
    assert other.alive
    news.nothing_more()


def test_too_many_restarts_end_it(news):
    """B-70, B-64"""
    pid = DynamicSupervisor.start(max_restarts=1)
    first = start_child(pid, kid("a", news))
    other = start_child(pid, kid("b", news))
    beam.exit(first, "boom")
    until(lambda: count_children(pid).active == 2)
    beam.exit(other, "boom")
    assert wait_dead(pid) == "shutdown"
    until(lambda: news.queue.qsize() == 6)  # three starts, three ends


def test_a_restart_that_fails_is_tried_again(sup, news):
    """B-70, B-65"""

    def second_life_fails(life):
        if life == 1:
            raise Boom

    first = start_child(sup, kid("a", news, second_life_fails))
    beam.exit(first, "boom")
    assert news.take(3) == [("start", "a"), ("stop", "a", "boom"), ("start", "a")]


def test_a_restart_may_be_put_off(sup, news):
    """B-70, B-66"""
    first = start_child(sup, kid("a", news, backoff=Backoff(initial=60, maximum=60)))
    beam.exit(first, "boom")
    until(lambda: [child for _, child, _ in which_children(sup)] == ["restarting"])
    beam.stop(sup)


def test_max_children_bounds_it_and_starts_nothing(news):
    """B-70: else `MaxChildren`, nothing started."""
    pid = DynamicSupervisor.start(max_children=2)
    for label in "ab":
        start_child(pid, kid(label, news, restart="temporary"))
    news.take(2)
    with pytest.raises(beam.MaxChildren):
        start_child(pid, kid("c", news))
    news.nothing_more()
    beam.stop(pid)


class Busy(DynamicSupervisor):
    """Can be kept busy: told `(entered, release)` it sets the one and waits for the other."""

    def handle_info(self, message):
        match message:
            case (threading.Event() as entered, threading.Event() as release):
                entered.set()
                release.wait(5)
            case _:
                super().handle_info(message)


@pytest.fixture
def busy():
    """A function that keeps a supervisor busy for the rest of the test."""
    release = threading.Event()

    def keep(pid):
        entered = threading.Event()
        beam.send(pid, (entered, release))
        entered.wait(5)

    keep.release = release
    yield keep
    release.set()


def test_whoever_hears_of_the_end_of_a_temporary_child_finds_its_place_free(news, busy):
    """B-70: even while the supervisor itself has not looked yet."""
    pid = Busy.start(max_children=1)
    one = start_child(pid, kid("a", news, restart="temporary"))
    busy(pid)
    box = beam.Inbox()
    beam.monitor(one, to=box)
    beam.send(one, ("exit", "normal"))
    box.receive(5)
    start_child(pid, kid("b", news, restart="temporary"))
    busy.release.set()
    beam.stop(pid)


def test_a_start_that_failed_frees_its_place(news):
    """B-70"""

    def fail(life):
        raise Boom

    def ignore(life):
        raise beam.Ignore

    pid = DynamicSupervisor.start(max_children=1)
    for _ in range(3):
        with pytest.raises(beam.StartError) as caught:
            start_child(pid, kid("a", news, fail))
        assert isinstance(caught.value.reason.exception, Boom)
        assert start_child(pid, kid("a", news, ignore, restart="temporary")) is None
        with pytest.raises(beam.StartError):
            start_child(pid, ChildSpec("a", Kid))  # a wrong call of `init`
    assert count_children(pid).specs == 0
    start_child(pid, kid("a", news))
    beam.stop(pid)


def test_a_child_that_ignores_keeps_its_spec_unless_temporary(sup, news):
    """B-61"""

    def ignore(life):
        raise beam.Ignore

    assert start_child(sup, kid("a", news, ignore)) is None
    assert [child for _, child, _ in which_children(sup)] == [None]


def test_terminate_child_takes_a_pid_and_drops_the_spec(sup, news):
    """B-70"""
    pid = start_child(sup, kid("a", news))
    terminate_child(sup, pid)
    assert not pid.alive
    assert news.take(2) == [("start", "a"), ("stop", "a", "shutdown")]
    assert which_children(sup) == []
    with pytest.raises(beam.UnknownChild):
        terminate_child(sup, pid)
    with pytest.raises(beam.UnknownChild):
        terminate_child(sup, "a")


def test_what_makes_no_sense_for_it_is_refused(sup, news):
    """B-70: it has no order and no ids."""
    for function in (restart_child, delete_child):
        with pytest.raises(TypeError):
            function(sup, "a")
    with pytest.raises(beam.SpecError):
        start_child(sup, kid("a", news, restart="temporary", significant=True))
    assert sup.alive


# --- the start runs in the calling thread -------------------------------------------------------------


def test_a_start_does_not_wait_for_a_busy_supervisor(news, busy):
    """B-70: in the calling thread."""
    pid = Busy.start()
    busy(pid)
    child = start_child(pid, kid("a", news))
    assert child.alive
    busy.release.set()
    assert [c for _, c, _ in which_children(pid)] == [child]
    beam.stop(pid)


def test_a_child_belongs_to_the_supervisor_and_not_to_whoever_started_it(sup, news):
    """B-70: parent and link; the context is the caller's."""

    class Reads(Kid):
        def init(self, label, news, at_birth=None):
            super().init(label, news)
            news("flavor", FLAVOR.get())

    def start():
        FLAVOR.set("salt")
        return start_child(sup, kid("a", news, start=Reads))

    pid = in_process(start)
    assert news.take(2) == [("start", "a"), ("flavor", "salt")]
    assert beam.info(pid)["ancestors"][0] == sup
    assert beam.info(pid)["links"] == [sup]
    until(lambda: pid.alive)
    beam.exit(sup, "kill")
    assert wait_dead(pid) == "killed"


def test_a_callable_is_called_in_the_supervisors_process(sup, news):
    """B-60, B-70: it links to whoever calls it."""
    where = []

    def begin():
        where.append(beam.current())
        return Kid.start_link("a", news)

    pid = start_child(sup, ChildSpec("a", begin))
    assert where == [sup]
    assert beam.info(pid)["links"] == [sup]
    assert [child for _, child, _ in which_children(sup)] == [pid]


def test_a_child_may_start_siblings_in_its_init(sup, news):
    """B-70: no deadlock: the supervisor is not waited for."""

    def more(life):
        start_child(sup, kid("b", news))

    start_child(sup, kid("a", news, more))
    assert news.take(2) == [("start", "b"), ("start", "a")]
    assert count_children(sup).active == 2


def test_a_starter_that_is_told_to_exit_leaves_the_child_to_the_supervisor(sup, news):
    """B-70: it goes on there, and its end is heard of there."""
    entered, go = threading.Event(), threading.Event()

    def slow(life):
        entered.set()
        go.wait(5)

    class Starter(beam.Process):
        def handle_info(self, message):
            start_child(sup, kid("a", news, slow, restart="temporary"))

    starter = Starter.start()
    beam.send(starter, "go")
    entered.wait(5)
    beam.exit(starter, "shutdown")
    assert wait_dead(starter) == "shutdown"
    go.set()
    assert news.next() == ("start", "a")
    ((_, child, _),) = which_children(sup)
    beam.send(child, ("exit", "normal"))
    until(lambda: count_children(sup).specs == 0)


def test_a_start_that_fails_after_its_starter_has_left_is_judged_by_the_supervisor(sup, news):
    entered, go = threading.Event(), threading.Event()

    def slow(life):
        if not life:
            entered.set()
            go.wait(5)
            raise Boom

    class Starter(beam.Process):
        def handle_info(self, message):
            start_child(sup, kid("a", news, slow))

    starter = Starter.start()
    beam.send(starter, "go")
    entered.wait(5)
    beam.exit(starter, "shutdown")
    wait_dead(starter)
    go.set()
    assert news.next() == ("start", "a")  # permanent: it is started again
    until(lambda: count_children(sup).active == 1)


# --- child_ended --------------------------------------------------------------------------------------


class Hears(DynamicSupervisor):
    def init(self, heard, **options):
        super().init(**options)
        self.heard = heard

    def child_ended(self, pid, reason):
        self.heard.put((pid, reason, beam.current()))


def test_child_ended_hears_of_every_end_in_the_supervisors_process(news):
    """B-70"""
    heard = queue.SimpleQueue()
    pid = Hears.start(heard)
    children = [start_child(pid, kid(label, news, restart="temporary")) for label in "abc"]
    for child, reason in zip(children, ["normal", "boom"], strict=False):
        beam.send(child, ("exit", reason))
        assert heard.get(timeout=5) == (child, reason, pid)
    terminate_child(pid, children[2])
    assert heard.get(timeout=5) == (children[2], "shutdown", pid)
    restarting = start_child(pid, kid("d", news))
    beam.exit(restarting, "boom")
    assert heard.get(timeout=5) == (restarting, "boom", pid)
    beam.stop(pid)


def test_child_ended_hears_of_an_end_once_even_if_it_is_told_twice(news, monkeypatch):
    """A start that is left by its starter while it fails may be told by both."""
    from allm_actors.beam import _children

    heard, runs = queue.SimpleQueue(), []
    attach = _children.Run.attach
    monkeypatch.setattr(_children.Run, "attach", lambda run, pid: (runs.append(run), attach(run, pid)))
    pid = Hears.start(heard)
    child = start_child(pid, kid("a", news, restart="temporary"))
    beam.send(child, ("exit", "normal"))
    heard.get(timeout=5)
    runs[0].abandon()  # tells it again
    count_children(pid)
    assert heard.empty()
    beam.stop(pid)


def test_child_ended_does_not_hear_of_a_start_that_failed(news):
    heard = queue.SimpleQueue()
    pid = Hears.start(heard)

    def fail(life):
        raise Boom

    with pytest.raises(beam.StartError):
        start_child(pid, kid("a", news, fail))
    count_children(pid)
    assert heard.empty()
    beam.stop(pid)


def test_what_child_ended_raises_ends_the_supervisor(news):
    """B-70, B-8"""

    class Strict(DynamicSupervisor):
        def child_ended(self, pid, reason):
            if reason != "normal":
                raise beam.Exit("too many")

    pid = Strict.start()
    other = start_child(pid, kid("z", news))
    child = start_child(pid, kid("a", news, restart="temporary"))
    beam.send(child, ("exit", "normal"))
    until(lambda: count_children(pid).active == 1)
    child = start_child(pid, kid("a", news, restart="temporary"))
    beam.exit(child, "boom")
    assert wait_dead(pid) == "too many"
    assert other.exit_reason == "shutdown"


# --- its end ------------------------------------------------------------------------------------------


def test_all_children_are_told_at_once(news):
    """B-70: on shutdown all at once, not one after the other."""
    barrier = threading.Barrier(5)

    class Together(Kid):
        def terminate(self, reason):
            barrier.wait(5)  # passes only when all are in it
            super().terminate(reason)

    pid = DynamicSupervisor.start()
    for n in range(5):
        start_child(pid, kid(n, news, start=Together))
    news.take(5)
    beam.stop(pid, timeout=5)
    assert sorted(news.take(5)) == [("stop", n, "shutdown") for n in range(5)]


def test_children_share_one_deadline_the_longest(news):
    """B-70: then the rest is killed."""
    released = threading.Event()
    pid = DynamicSupervisor.start()
    try:
        deaf = [
            start_child(pid, ChildSpec(n, Deaf, args=(n, news, released), shutdown=limit))
            for n, limit in enumerate([0.01, 0.1, 0.05])
        ]
        brutal = start_child(pid, kid("x", news, shutdown="brutal_kill"))
        begin = time.monotonic()
        beam.stop(pid, timeout=5)
        took = time.monotonic() - begin
        assert [child.exit_reason for child in (*deaf, brutal)] == ["killed"] * 4
        assert 0.1 <= took < 0.1 + 0.4  # the longest; the sum would be no less than 0.16
    finally:
        released.set()


def test_a_thousand_children_end_with_their_supervisor():
    """B-70: told at once, however many; how fast is measured in `benchmarks/`."""

    class Idle(beam.Process):
        pass

    pid = DynamicSupervisor.start()
    children = [start_child(pid, ChildSpec("idle", Idle)) for _ in range(1000)]
    beam.stop(pid, timeout=20)
    assert not any(child.alive for child in children)


def test_a_start_after_the_end_raises_and_leaves_no_orphan(sup, news):
    """B-70"""
    beam.stop(sup)
    with pytest.raises(beam.NoProcess):
        start_child(sup, kid("a", news))
    news.nothing_more()


def test_a_start_that_meets_the_end_is_called_off(news):
    """B-70: atomic against the supervisor's own end."""
    # 1. The starter finds the supervisor alive.
    # 2. The supervisor closes and ends everything it knows of.
    # 3. Only now would the child's thread start.
    from allm_actors.beam import _dynamic

    pid = DynamicSupervisor.start()
    attach = _dynamic.DynamicSupervisor._attach

    def late(self, run, child):
        stop = in_thread(lambda: beam.stop(pid, timeout=5))
        stop()
        attach(self, run, child)

    _dynamic.DynamicSupervisor._attach = late
    try:
        with pytest.raises(beam.NoProcess):
            start_child(pid, kid("a", news))
    finally:
        _dynamic.DynamicSupervisor._attach = attach
    news.nothing_more()


def test_a_start_that_was_noted_in_time_is_ended_with_the_rest(news):
    """B-70"""
    # 1. The child is noted, its thread does not run yet.
    # 2. The supervisor ends, and waits for it.
    # 3. The thread starts: told to end before its first line.
    from allm_actors.beam import _dynamic

    pid = DynamicSupervisor.start()
    attach = _dynamic.DynamicSupervisor._attach
    stopping = []

    def early(self, run, child):
        attach(self, run, child)
        stopping.append(in_thread(lambda: beam.stop(pid, timeout=5)))
        until(lambda: child._cell.must_exit)

    _dynamic.DynamicSupervisor._attach = early
    try:
        with pytest.raises(beam.NoProcess):
            start_child(pid, kid("a", news))
    finally:
        _dynamic.DynamicSupervisor._attach = attach
    stopping[0]()
    news.nothing_more()


@pytest.mark.race
@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("interval", [1e-6, 5e-3])
def test_starts_against_the_end_leave_no_orphan(how, interval, news):
    """B-70: 200 supervisors each that end while three threads start children under them."""
    old = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    rng = random.Random(70)
    try:
        for _ in range(200):
            pid = DynamicSupervisor.start()
            started = queue.SimpleQueue()
            barrier = threading.Barrier(4)

            def work(pid=pid, started=started, barrier=barrier):
                barrier.wait(5)
                for _ in range(50):
                    try:
                        started.put(start_child(pid, ChildSpec("a", Quiet, restart="temporary")))
                    except beam.NoProcess:
                        return "ended"
                until(lambda: not pid.alive)  # we were faster: all of them are ended with it
                with pytest.raises(beam.NoProcess):
                    start_child(pid, ChildSpec("a", Quiet, restart="temporary"))
                return "ended"

            workers = [in_thread(work) for _ in range(3)]
            barrier.wait(5)
            for _ in range(rng.randrange(4)):
                started.put(started.get(timeout=5))
            if how == "stop":
                beam.stop(pid, timeout=5)
                alive = [child for child in drain(started) if child.alive]
                assert not alive  # children first, then the supervisor
            else:
                beam.exit(pid, "kill")
            assert [worker(5) for worker in workers] == ["ended"] * 3
            for child in drain(started):
                until(lambda: not child.alive)  # noqa: B023
    finally:
        sys.setswitchinterval(old)


class Quiet(beam.Process):
    pass


def drain(source):
    items = []
    while True:
        try:
            items.append(source.get_nowait())
        except queue.Empty:
            return items


def test_a_dead_child_leaves_nothing_in_the_supervisor(sup):
    """Memory: temporary children come and go for ever."""
    for _ in range(50):
        wait_dead(start_child(sup, ChildSpec("a", Ends, restart="temporary")))
    until(lambda: count_children(sup).specs == 0)
    assert beam.info(sup)["links"] == []


class Ends(beam.Process):
    def init(self):
        self.continue_with(None)

    def handle_continue(self, token):
        return beam.Stop("normal")
