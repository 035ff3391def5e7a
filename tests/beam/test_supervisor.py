"""Supervisors: starting, judging ends, strategies, intensity, shutting down."""

import math
import threading

import pytest

from allm_actors import beam
from allm_actors.beam.supervisor import (
    Backoff,
    ChildSpec,
    ChildStartFailed,
    Supervisor,
    count_children,
    start_child,
    which_children,
)
from tests.beam._kids import Boom, Deaf, Kid, News, in_process, in_thread, kid, pid_of, until, wait_dead

pytestmark = pytest.mark.logs_errors("children end abnormally here")


@pytest.fixture
def news():
    return News()


@pytest.fixture
def sup(news):
    """Start a supervisor over announcing children; ended after the test."""
    started = []

    def start(*specs, **options):
        pid = Supervisor.start(list(specs), **options)
        started.append(pid)
        return pid

    yield start
    for pid in started:
        if pid.alive:
            beam.stop(pid, timeout=5)


def abc(news, **overrides):
    return [kid(label, news, **overrides) for label in "abc"]


def ups(news, labels):
    assert news.take(len(labels)) == [("start", label) for label in labels]


# --- starting -----------------------------------------------------------------------------------------


def test_children_start_in_order_and_end_in_reverse(sup, news):
    """B-61, B-67"""
    pid = sup(*abc(news))
    ups(news, "abc")
    assert [child[0] for child in which_children(pid)] == ["a", "b", "c"]

    beam.stop(pid)

    assert news.take(3) == [("stop", label, "shutdown") for label in "cba"]
    assert pid.exit_reason == "normal"


def test_each_child_is_acknowledged_before_the_next_starts(news):
    """B-61"""
    release = threading.Event()
    entered = News()

    def slow(life):
        entered("a")
        release.wait(5)

    class Caller(beam.Process):
        def init(self):
            self.continue_with(None)

        def handle_continue(self, token):
            Supervisor.start_link([kid("a", news, slow), kid("b", news)])
            news("up")

    top = Caller.start()
    entered.next()
    news.nothing_more()
    release.set()
    assert news.take(3) == [("start", "a"), ("start", "b"), ("up",)]
    beam.stop(top)


def test_a_start_that_fails_ends_what_was_started_in_reverse_order(news):
    """B-61, scenario: second of three children fails to start."""

    def fail(life):
        raise Boom("no")

    with pytest.raises(beam.StartError) as caught:
        Supervisor.start([kid("a", news), kid("b", news), kid("c", news, fail), kid("d", news)])

    assert isinstance(caught.value.reason, ChildStartFailed)
    assert caught.value.reason.id == "c"
    assert isinstance(caught.value.reason.reason, beam.Crash)
    assert news.take(4) == [
        ("start", "a"),
        ("start", "b"),
        ("stop", "b", "shutdown"),
        ("stop", "a", "shutdown"),
    ]
    news.nothing_more()


def test_a_name_that_is_taken_fails_the_start(sup, news):
    """B-40, B-61"""
    sup(kid("a", news, name="taken"))
    with pytest.raises(beam.StartError) as caught:
        Supervisor.start([kid("x", news), kid("b", news, name="taken")])
    assert caught.value.reason.id == "b"
    assert isinstance(caught.value.reason.reason, beam.NameTaken)


def ignore(life):
    raise beam.Ignore


def test_a_child_that_ignores_keeps_its_spec_unless_temporary(sup, news):
    """B-61"""
    pid = sup(kid("a", news, ignore), kid("b", news, ignore, restart="temporary"), kid("c", news))
    assert [(id_, child is None) for id_, child, _ in which_children(pid)] == [("a", True), ("c", False)]


def test_a_callable_may_start_the_child(sup, news):
    """B-60: a callable that returns a linked pid, or nothing."""

    def begin(label):
        return Kid.start_link(label, news)

    pid = sup(ChildSpec("a", begin, args=("a",)), ChildSpec("b", lambda: None))
    ups(news, "a")
    child = pid_of(pid, "a")
    assert pid_of(pid, "b") is None

    beam.exit(child, "boom")
    assert news.take(2) == [("stop", "a", "boom"), ("start", "a")]


def test_a_child_started_by_a_callable_that_ended_at_once_is_judged_by_its_true_reason(sup):
    """B-62: it is watched only when the callable has returned."""
    calls = []

    class Brief(beam.Process):
        def init(self):
            self.continue_with(None)

        def handle_continue(self, token):
            return beam.Stop("normal")

    def begin():
        calls.append(1)
        pid = Brief.start_link()
        wait_dead(pid)
        return pid

    pid = sup(ChildSpec("a", begin, restart="transient"))
    until(lambda: pid_of(pid, "a") is None)
    assert len(calls) == 1  # normal: not restarted


def test_a_child_that_a_callable_forgot_to_link_is_linked(news):
    """B-60, B-71"""
    pid = Supervisor.start([ChildSpec("a", lambda: Kid.start("a", news))])
    child = pid_of(pid, "a")
    beam.exit(pid, "kill")
    assert wait_dead(child) == "killed"


def test_arguments_that_init_does_not_take_fail_the_start(sup):
    """B-61: the children before are ended, the supervisor has not crashed."""
    with pytest.raises(beam.StartError) as caught:
        sup(ChildSpec("a", Kid))
    assert isinstance(caught.value.reason, ChildStartFailed)
    assert isinstance(caught.value.reason.reason.exception, TypeError)
    with pytest.raises(beam.StartError) as caught:
        sup(ChildSpec("a", Supervisor, args=([kid("x", None)],), kwargs={"strategy": "none"}))
    assert caught.value.reason.id == "a"


@pytest.mark.parametrize("begin", [lambda: 1, lambda: 1 / 0, lambda: (_ for _ in ()).throw(beam.Exit("no"))])
def test_a_callable_that_starts_nothing_fails_the_start(begin):
    """B-61"""
    with pytest.raises(beam.StartError) as caught:
        Supervisor.start([ChildSpec("a", begin)])
    assert caught.value.reason.id == "a"


def test_a_subclass_with_a_start_of_its_own_is_started_by_it(sup, news):
    """B-60: `start` is a Process subclass, whatever its `start_link` does."""

    class Own(Kid):
        @classmethod
        def start_link(cls, label, name=None):
            return super().start_link(label, news, name=name)

    pid = sup(ChildSpec("a", Own, args=("a",), name="own"))
    ups(news, "a")
    assert beam.whereis("own") == pid_of(pid, "a")


def test_a_subclass_may_define_its_children_in_init(news):
    class Mine(Supervisor):
        def init(self, labels):
            super().init([kid(label, news) for label in labels], strategy="one_for_all")

    pid = Mine.start("ab", name="mine")
    ups(news, "ab")
    beam.exit(pid_of(pid, "a"), "boom")
    assert news.take(4) == [("stop", "a", "boom"), ("stop", "b", "shutdown"), ("start", "a"), ("start", "b")]
    beam.stop(pid)


def test_a_child_has_the_name_of_its_spec_again_after_a_restart(sup, news):
    """B-60, B-9: free before anybody hears of the death."""
    sup(kid("a", news, name=("kid", 1)))
    ups(news, "a")
    first = beam.whereis(("kid", 1))
    beam.exit(first, "boom")
    assert news.take(2) == [("stop", "a", "boom"), ("start", "a")]
    until(lambda: beam.whereis(("kid", 1)) is not None)
    assert beam.whereis(("kid", 1)) != first


def test_the_supervisor_is_the_parent_of_its_children(sup, news):
    """B-71, B-23: even a trapping child ends with it."""

    class Trapping(Kid):
        trap_exit = True

    pid = sup(kid("a", news, start=Trapping))
    child = pid_of(pid, "a")
    assert beam.info(child)["ancestors"][0] == pid
    beam.exit(pid, "kill")
    assert wait_dead(child) == "killed"


# --- which ends are restarted -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "reason", "outcome"),
    [
        ("permanent", "normal", "restarted"),
        ("permanent", "shutdown", "restarted"),
        ("permanent", beam.Shutdown("x"), "restarted"),
        ("permanent", "boom", "restarted"),
        ("permanent", "killed", "restarted"),
        ("transient", "normal", "kept"),
        ("transient", "shutdown", "kept"),
        ("transient", beam.Shutdown("x"), "kept"),
        ("transient", "boom", "restarted"),
        ("transient", "killed", "restarted"),
        ("temporary", "normal", "dropped"),
        ("temporary", "shutdown", "dropped"),
        ("temporary", beam.Shutdown("x"), "dropped"),
        ("temporary", "boom", "dropped"),
        ("temporary", "killed", "dropped"),
    ],
)
def test_which_ends_are_restarted(sup, news, restart, reason, outcome):
    """B-62, every cell."""
    pid = sup(kid("a", news, restart=restart), kid("z", news))
    ups(news, "az")
    child = pid_of(pid, "a")
    if reason == "killed":
        beam.exit(child, "kill")
    else:
        beam.send(child, ("exit", reason))
        assert news.next() == ("stop", "a", reason)
    wait_dead(child)

    if outcome == "restarted":
        assert news.next() == ("start", "a")
        until(lambda: isinstance(pid_of(pid, "a"), beam.Pid))
        assert pid_of(pid, "a") != child
    elif outcome == "kept":
        until(lambda: [(i, p is None) for i, p, _ in which_children(pid)] == [("a", True), ("z", False)])
    else:
        until(lambda: [i for i, _, _ in which_children(pid)] == ["z"])
    news.nothing_more()
    assert count_children(pid).active == (2 if outcome == "restarted" else 1)


# --- strategies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("one_for_one", [("stop", "b", "crash"), ("start", "b")]),
        (
            "rest_for_one",
            [("stop", "b", "crash"), ("stop", "c", "shutdown"), ("start", "b"), ("start", "c")],
        ),
        (
            "one_for_all",
            [
                ("stop", "b", "crash"),
                ("stop", "c", "shutdown"),
                ("stop", "a", "shutdown"),
                ("start", "a"),
                ("start", "b"),
                ("start", "c"),
            ],
        ),
    ],
)
def test_what_a_restart_takes_along(sup, news, strategy, expected):
    """B-63: a b c, and b crashes."""
    pid = sup(*abc(news), strategy=strategy)
    ups(news, "abc")
    beam.send(pid_of(pid, "b"), "crash")
    assert news.take(len(expected)) == expected
    assert [i for i, p, _ in which_children(pid) if p] == ["a", "b", "c"]
    news.nothing_more()


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
def test_temporary_siblings_that_were_taken_along_are_dropped(sup, news, strategy):
    """B-63"""
    pid = sup(kid("a", news), kid("t", news, restart="temporary"), kid("c", news), strategy=strategy)
    ups(news, "atc")
    beam.exit(pid_of(pid, "a"), "boom")
    assert news.take(5) == [
        ("stop", "a", "boom"),
        ("stop", "c", "shutdown"),
        ("stop", "t", "shutdown"),
        ("start", "a"),
        ("start", "c"),
    ]
    assert [i for i, _, _ in which_children(pid)] == ["a", "c"]


def test_rest_for_one_of_the_last_child_takes_nothing_along(sup, news):
    """B-63"""
    pid = sup(*abc(news), strategy="rest_for_one")
    ups(news, "abc")
    beam.exit(pid_of(pid, "c"), "boom")
    assert news.take(2) == [("stop", "c", "boom"), ("start", "c")]
    assert count_children(pid).active == 3
    news.nothing_more()


def test_siblings_that_die_at_once_are_restarted_once(sup, news):
    """B-62, B-64: the end of a sibling that a restart ends anyway is not judged by itself."""
    pid = sup(*abc(news), strategy="one_for_all", max_restarts=1)
    ups(news, "abc")
    kids = [pid_of(pid, label) for label in "abc"]
    hold = threading.Event()
    # The supervisor is busy while all three die.
    busy = in_supervisor(pid, hold)
    for child in kids:
        beam.exit(child, "kill")
    hold.set()
    busy()

    assert news.take(3) == [("start", label) for label in "abc"]
    assert count_children(pid).active == 3
    assert pid.alive


def in_supervisor(pid, hold):
    """Keep a supervisor busy with a start that waits for `hold`; a function that waits for its answer."""
    entered = threading.Event()

    def begin():
        entered.set()
        hold.wait(5)

    result = in_thread(lambda: start_child(pid, ChildSpec("hold", begin, restart="temporary")))
    entered.wait(5)
    return result


# --- intensity ----------------------------------------------------------------------------------------


def test_more_restarts_than_allowed_end_the_supervisor(news):
    """B-64: intensity 2: two crashes survived, then `shutdown`."""
    pid = Supervisor.start([kid("a", news), kid("b", news)], max_restarts=2, max_seconds=60)
    ups(news, "ab")
    for _ in range(2):
        beam.exit(pid_of(pid, "a"), "boom")
        assert news.take(2) == [("stop", "a", "boom"), ("start", "a")]
        until(lambda: isinstance(pid_of(pid, "a"), beam.Pid))
    beam.exit(pid_of(pid, "a"), "boom")
    assert wait_dead(pid) == "shutdown"
    assert news.take(2) == [("stop", "a", "boom"), ("stop", "b", "shutdown")]


def test_with_intensity_zero_the_first_death_ends_it(news):
    """B-64"""
    pid = Supervisor.start([kid("a", news)], max_restarts=0)
    beam.exit(pid_of(pid, "a"), "boom")
    assert wait_dead(pid) == "shutdown"


def test_restarts_are_forgotten_after_their_time(news):
    """B-64: recorded restarts older than `t - max_seconds` do not count."""
    now = [100.0]

    class Clocked(Supervisor):
        clock = staticmethod(lambda: now[0])

    pid = Clocked.start([kid("a", news)], max_restarts=1, max_seconds=5.0)
    ups(news, "a")

    def crash():
        beam.exit(pid_of(pid, "a"), "boom")

    for at in (100.0, 105.1, 110.2):
        now[0] = at
        crash()
        assert news.take(2) == [("stop", "a", "boom"), ("start", "a")]
        until(lambda: isinstance(pid_of(pid, "a"), beam.Pid))
    now[0] = 115.2  # exactly 5 seconds later: not older yet
    crash()
    assert wait_dead(pid) == "shutdown"


def test_one_death_counts_once_however_many_it_takes_along(sup, news):
    """B-64"""
    pid = sup(*abc(news), strategy="one_for_all", max_restarts=1)
    ups(news, "abc")
    beam.exit(pid_of(pid, "b"), "boom")
    news.take(6)
    assert count_children(pid).active == 3


def test_the_default_intensity_is_three_in_five_seconds(sup, news):
    """B-64"""
    pid = sup(kid("a", news))
    ups(news, "a")
    for _ in range(3):
        beam.exit(pid_of(pid, "a"), "boom")
        news.take(2)
        until(lambda: isinstance(pid_of(pid, "a"), beam.Pid))
    assert pid.alive


# --- restarts that fail -------------------------------------------------------------------------------


def test_a_child_that_never_comes_back_ends_the_supervisor_after_its_tries(news):
    """B-65: intensity 3: three tries, then `shutdown`."""
    tries = []

    def only_once(life):
        tries.append(life)
        if life:
            raise Boom("never again")

    pid = Supervisor.start([kid("a", news, only_once)], max_restarts=3)
    beam.exit(pid_of(pid, "a"), "boom")
    assert wait_dead(pid) == "shutdown"
    assert tries == [0, 1, 2, 3]


def test_a_restart_that_fails_once_is_tried_again(sup, news):
    """B-65"""

    def second_life_fails(life):
        if life == 1:
            raise Boom("not yet")

    pid = sup(kid("a", news, second_life_fails))
    ups(news, "a")
    beam.exit(pid_of(pid, "a"), "boom")
    assert news.take(2) == [("stop", "a", "boom"), ("start", "a")]
    until(lambda: isinstance(pid_of(pid, "a"), beam.Pid))


def test_the_supervisor_can_be_ended_between_two_tries(news):
    """B-65: the tries are messages to itself, so a stop gets in between."""
    at_try = threading.Event()
    stopped = threading.Event()

    def fail(life):
        if life:
            at_try.set()
            stopped.wait(5)
            raise Boom("never")

    pid = Supervisor.start([kid("a", news, fail), kid("b", news)], max_restarts=10**6)
    ups(news, "ab")
    beam.exit(pid_of(pid, "a"), "boom")
    at_try.wait(5)
    done = in_thread(lambda: beam.stop(pid, timeout=5))
    until(lambda: len(pid._cell.mailbox) >= 1)
    stopped.set()
    done()
    assert not pid.alive


def test_a_sibling_that_does_not_come_back_is_tried_again_with_those_after_it(sup, news):
    """B-63, B-65: rest_for_one goes on from the one that failed."""

    def second_life_fails(life):
        if life == 1:
            raise Boom("not yet")

    pid = sup(
        kid("a", news),
        kid("b", news, second_life_fails),
        kid("c", news),
        strategy="rest_for_one",
        max_restarts=2,
    )
    ups(news, "abc")
    beam.exit(pid_of(pid, "a"), "boom")
    assert news.take(6) == [
        ("stop", "a", "boom"),
        ("stop", "c", "shutdown"),
        ("stop", "b", "shutdown"),
        ("start", "a"),
        ("start", "b"),
        ("start", "c"),
    ]
    assert count_children(pid).active == 3


def test_under_one_for_all_a_failed_start_restarts_all_again(sup, news):
    """B-63, B-65"""

    def second_life_fails(life):
        if life == 1:
            raise Boom("not yet")

    pid = sup(kid("a", news), kid("b", news, second_life_fails), kid("c", news), strategy="one_for_all")
    ups(news, "abc")
    beam.exit(pid_of(pid, "c"), "boom")
    assert news.take(8) == [
        ("stop", "c", "boom"),
        ("stop", "b", "shutdown"),
        ("stop", "a", "shutdown"),
        ("start", "a"),
        ("stop", "a", "shutdown"),
        ("start", "a"),
        ("start", "b"),
        ("start", "c"),
    ]
    assert count_children(pid).active == 3


def test_who_caused_a_restart_that_stops_at_another_is_down_and_not_restarting(news):
    """B-65: `restarting` is the one whose next try was announced."""

    def second_life_fails(life):
        if life == 1:
            raise Boom("not yet")

    later = Backoff(initial=60, maximum=60)
    pid = Supervisor.start(
        [kid("a", news, second_life_fails, backoff=later), kid("b", news)], strategy="one_for_all"
    )
    ups(news, "ab")
    beam.exit(pid_of(pid, "b"), "boom")
    until(lambda: pid_of(pid, "a") == "restarting")
    assert pid_of(pid, "b") is None
    assert beam.supervisor.restart_child(pid, "b") == pid_of(pid, "b")
    beam.stop(pid)


def test_too_many_stuck_threads_of_a_child_fail_its_restart(news):
    """B-74: a stuck library cannot eat all threads behind a patient supervisor."""
    released = threading.Event()

    class Stuck(Kid):
        def handle_info(self, message):
            self.news("stuck", self.label)
            released.wait(10)

    pid = Supervisor.start([kid("a", news, start=Stuck, max_zombies=2)], max_restarts=4)
    try:
        for _ in range(2):
            assert news.next() == ("start", "a")
            until(lambda: isinstance(pid_of(pid, "a"), beam.Pid))
            child = pid_of(pid, "a")
            beam.send(child, "go")
            assert news.next() == ("stuck", "a")
            beam.exit(child, "kill")
        assert wait_dead(pid) == "shutdown"
        news.nothing_more()  # no third life
    finally:
        released.set()


# --- backoff ------------------------------------------------------------------------------------------


class Even:
    """No jitter, and a note of what was drawn."""

    def __init__(self):
        self.drawn = []

    def uniform(self, low, high):
        self.drawn.append((low, high))
        return 1.0


def patient(news, **fields):
    class Patient(Supervisor):
        rng = Even()

    return Patient.start([kid("a", news, backoff=Backoff(**fields)), kid("b", news)])


def test_with_a_backoff_the_supervisor_answers_while_a_restart_is_put_off(news):
    """B-66"""
    pid = patient(news, initial=60.0, maximum=60.0)
    ups(news, "ab")
    beam.exit(pid_of(pid, "a"), "boom")
    assert news.next() == ("stop", "a", "boom")
    until(lambda: pid_of(pid, "a") == "restarting")
    assert beam.supervisor.count_children(pid).active == 1
    beam.stop(pid)
    assert news.next() == ("stop", "b", "shutdown")


def test_the_restart_is_made_when_the_delay_is_over(news):
    """B-66"""
    pid = patient(news, initial=0.01)
    ups(news, "ab")
    beam.exit(pid_of(pid, "a"), "boom")
    assert news.take(2) == [("stop", "a", "boom"), ("start", "a")]
    beam.stop(pid)


def test_a_put_off_restart_counts_when_it_is_made(news):
    """B-66: not when it is announced."""

    class Watched(Supervisor):
        rng = Even()
        counted = []

        def _count_restart(self, child):
            self.counted.append(child.spec.id)
            super()._count_restart(child)

    pid = Watched.start([kid("a", news, backoff=Backoff(initial=60, maximum=60))], max_restarts=0)
    ups(news, "a")
    beam.exit(pid_of(pid, "a"), "boom")
    until(lambda: pid_of(pid, "a") == "restarting")
    assert Watched.counted == []
    assert pid.alive
    beam.stop(pid)


def test_a_failed_restart_is_put_off_longer_each_time(news):
    """B-66, B-65: give a child that dials out a backoff."""
    delays = []

    def fail_twice(life):
        if life in (1, 2):
            raise Boom("no network")

    class Timed(Backoff):
        __slots__ = ()

        def delay(self, attempt, rng):
            delays.append(attempt)
            return 0.001

    pid = Supervisor.start([kid("a", news, fail_twice, backoff=Timed())])
    ups(news, "a")
    beam.exit(pid_of(pid, "a"), "boom")
    assert news.take(2) == [("stop", "a", "boom"), ("start", "a")]
    assert delays == [0, 1, 2]
    beam.stop(pid)


def test_the_delay_falls_back_after_a_long_life(news):
    """B-66"""
    now = [0.0]
    delays = []

    class Timed(Backoff):
        __slots__ = ()

        def delay(self, attempt, rng):
            delays.append(attempt)
            return 0.001

    class Clocked(Supervisor):
        clock = staticmethod(lambda: now[0])

    pid = Clocked.start([kid("a", news, backoff=Timed(reset_after=30.0))])
    ups(news, "a")
    for lived in (1.0, 29.0, 30.0, 1.0):
        until(lambda: isinstance(pid_of(pid, "a"), beam.Pid))
        now[0] += lived
        beam.exit(pid_of(pid, "a"), "boom")
        assert news.take(2) == [("stop", "a", "boom"), ("start", "a")]
    assert delays == [0, 1, 0, 1]
    beam.stop(pid)


def test_delays_grow_up_to_a_maximum_and_jitter_around_it():
    """B-66"""
    rng = Even()
    backoff = Backoff(initial=0.1, maximum=5.0, factor=2.0, jitter=0.2)
    assert [round(backoff.delay(n, rng), 3) for n in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert set(rng.drawn) == {(0.8, 1.2)}
    assert backoff.delay(10**6, rng) == 5.0
    assert Backoff() == Backoff(initial=0.1, maximum=5.0, factor=2.0, jitter=0.2, reset_after=30.0)


# --- shutting a child down ----------------------------------------------------------------------------


def test_a_child_that_ignores_its_shutdown_is_killed_when_its_time_is_over(news):
    """B-67, scenario: child ignores shutdown, 50 ms."""
    released = threading.Event()
    pid = Supervisor.start([ChildSpec("a", Deaf, args=("a", news, released), shutdown=0.05)])
    child = pid_of(pid, "a")
    try:
        beam.stop(pid, timeout=5)
        assert child.exit_reason == "killed"
        assert news.take(2) == [("start", "a"), ("stop", "a", "shutdown")]
    finally:
        released.set()


def test_brutal_kill_does_not_run_terminate(news):
    """B-67"""
    pid = Supervisor.start([kid("a", news, shutdown="brutal_kill")])
    child = pid_of(pid, "a")
    beam.stop(pid)
    assert child.exit_reason == "killed"
    assert news.next() == ("start", "a")
    news.nothing_more()


def test_a_child_that_unlinked_itself_is_still_seen(sup, news):
    """B-67: watched, not heard."""
    pid = sup(kid("a", news))
    ups(news, "a")
    child = pid_of(pid, "a")
    beam.send(child, ("unlink", pid))
    assert news.next() == ("unlinked", "a")
    beam.stop(pid)
    assert not child.alive
    assert news.next() == ("stop", "a", "shutdown")


def test_a_child_that_unlinked_itself_is_restarted_too(sup, news):
    pid = sup(kid("a", news))
    ups(news, "a")
    child = pid_of(pid, "a")
    beam.send(child, ("unlink", pid))
    news.next()
    beam.exit(child, "boom")
    assert news.take(2) == [("stop", "a", "boom"), ("start", "a")]


@pytest.mark.parametrize(
    ("restart", "reason", "logged"),
    [
        ("permanent", "shutdown", False),
        ("permanent", "normal", True),
        ("permanent", beam.Shutdown("x"), True),
        ("permanent", "boom", True),
        ("transient", "normal", False),
        ("temporary", beam.Shutdown("x"), False),
        ("transient", "boom", True),
    ],
)
def test_an_end_on_demand_with_another_reason_is_a_shutdown_error(news, caplog, restart, reason, logged):
    """B-67"""

    class Stubborn(Kid):
        def terminate(self, told):
            raise beam.Exit(reason)

    pid = Supervisor.start([kid("a", news, start=Stubborn, restart=restart)])
    beam.stop(pid)
    errors = [r for r in caplog.records if "supervisor.shutdown_error" in r.getMessage()]
    assert bool(errors) is logged


def test_a_child_that_was_to_be_killed_and_died_of_something_else_is_a_shutdown_error(news, caplog):
    """B-67"""
    # 1. The child crashes while its supervisor is busy.
    # 2. The supervisor ends before it has looked.
    pid = Supervisor.start([kid("a", news, shutdown="brutal_kill"), kid("b", news)])
    hold = threading.Event()
    busy = in_supervisor(pid, hold)
    stopping = in_thread(lambda: beam.stop(pid, timeout=5))
    until(lambda: len(pid._cell.mailbox) >= 1)
    ups(news, "ab")
    victim = next(p for p in beam.info(pid)["links"] if beam.info(p)["class"] == "Kid")
    beam.exit(victim, "boom")
    wait_dead(victim)
    hold.set()
    busy()
    stopping()
    assert "supervisor.shutdown_error" in caplog.text


def test_children_end_one_after_the_other(news):
    """B-67: the next is told only when the one before is dead."""
    release = threading.Event()

    class Slow(Kid):
        def terminate(self, reason):
            super().terminate(reason)
            release.wait(5)

    pid = Supervisor.start([kid("a", news), kid("b", news, start=Slow)])
    ups(news, "ab")
    done = in_thread(lambda: beam.stop(pid, timeout=5))
    assert news.next() == ("stop", "b", "shutdown")
    news.nothing_more()
    assert pid.alive
    release.set()
    done()
    assert news.next() == ("stop", "a", "shutdown")


def test_the_default_shutdown_times():
    """B-60, B-67"""
    assert ChildSpec("a", Kid).shutdown == 5.0
    assert ChildSpec("a", Kid, type="supervisor").shutdown == math.inf
    assert ChildSpec("a", Supervisor).type == "supervisor"
    assert ChildSpec("a", Kid).type == "worker"


# --- auto_shutdown ------------------------------------------------------------------------------------


def significant(news, labels="ab", restart="temporary"):
    return [kid(label, news, restart=restart, significant=True) for label in labels]


def test_any_significant_end_ends_the_supervisor(news):
    """B-69: at the first."""
    pid = Supervisor.start([*significant(news), kid("z", news)], auto_shutdown="any_significant")
    ups(news, "abz")
    beam.send(pid_of(pid, "a"), ("exit", "normal"))
    assert wait_dead(pid) == "shutdown"
    assert news.take(3) == [("stop", "a", "normal"), ("stop", "z", "shutdown"), ("stop", "b", "shutdown")]


def test_the_last_significant_end_ends_the_supervisor(news):
    """B-69: at the second of two."""
    pid = Supervisor.start([*significant(news), kid("z", news)], auto_shutdown="all_significant")
    ups(news, "abz")
    first = pid_of(pid, "a")
    beam.send(first, ("exit", "normal"))
    until(lambda: count_children(pid).active == 2)
    beam.send(pid_of(pid, "b"), ("exit", "normal"))
    assert wait_dead(pid) == "shutdown"


def test_an_insignificant_end_does_not_end_the_supervisor(sup, news):
    """B-69"""
    pid = sup(*significant(news), kid("z", news, restart="temporary"), auto_shutdown="any_significant")
    child = pid_of(pid, "z")
    beam.send(child, ("exit", "normal"))
    until(lambda: count_children(pid).active == 2)


def test_a_significant_child_that_is_restarted_does_not_end_the_supervisor(sup, news):
    """B-69: ended by itself, *without being restarted*."""
    pid = sup(*significant(news, "a", "transient"), auto_shutdown="any_significant")
    ups(news, "a")
    beam.exit(pid_of(pid, "a"), "boom")
    assert news.take(2) == [("stop", "a", "boom"), ("start", "a")]
    until(lambda: isinstance(pid_of(pid, "a"), beam.Pid))
    child = pid_of(pid, "a")
    beam.send(child, ("exit", "normal"))
    assert wait_dead(pid) == "shutdown"


def test_an_end_the_supervisor_made_itself_is_no_significant_end(sup, news):
    """B-69: ended *by itself*."""
    pid = sup(*significant(news, "a", "transient"), auto_shutdown="any_significant")
    beam.supervisor.terminate_child(pid, "a")
    assert pid_of(pid, "a") is None
    assert pid.alive


# --- what reaches a supervisor ------------------------------------------------------------------------


def test_an_exit_from_a_stranger_is_ignored(sup, news):
    """B-71, scenario: exit(Sup, shutdown) from a stranger."""
    pid = sup(kid("a", news))
    beam.exit(pid, "shutdown")
    beam.exit(pid, "boom")
    assert count_children(pid).active == 1


@pytest.mark.parametrize("reason", ["normal", "shutdown", "boom"])
def test_when_the_parent_ends_the_supervisor_ends_with_its_reason_children_first(news, reason):
    """B-71, B-23: parent of a supervisor ends normally: supervisor `normal`, child `shutdown`."""
    box = News()

    class Parent(beam.Process):
        def init(self):
            box(Supervisor.start_link([kid("a", news)]))

        def handle_info(self, message):
            return beam.Stop(message)

    parent = Parent.start()
    (pid,) = box.next()
    ups(news, "a")
    beam.send(parent, reason)
    assert wait_dead(pid) == reason
    assert news.next() == ("stop", "a", "shutdown")
    news.nothing_more()


def test_an_unknown_message_is_dropped_with_a_warning(sup, news, caplog):
    """B-71: a supervisor never dies of a message it does not know."""
    pid = sup(kid("a", news))
    beam.send(pid, "what?")
    beam.cast(pid, "who?")
    with pytest.raises(TypeError, match="str"):
        beam.call(pid, "why?")
    assert count_children(pid).active == 1
    warned = [r for r in caplog.records if "supervisor.unexpected_message" in r.getMessage()]
    assert len(warned) == 3
    assert not any("what?" in r.getMessage() or "why?" in r.getMessage() for r in warned)


def test_supervisors_supervise_supervisors(sup, news):
    pid = sup(
        kid("a", news),
        ChildSpec("inner", Supervisor, args=([kid("b", news), kid("c", news)],), kwargs={"max_restarts": 0}),
    )
    ups(news, "abc")
    inner = pid_of(pid, "inner")
    assert count_children(pid) == (2, 2, 1, 1)
    beam.stop(pid)
    assert news.take(3) == [("stop", label, "shutdown") for label in "cba"]
    assert inner.exit_reason == "shutdown"


def test_a_supervisor_that_gave_up_is_restarted_by_the_one_above(sup, news):
    pid = sup(ChildSpec("inner", Supervisor, args=([kid("b", news)],), kwargs={"max_restarts": 0}))
    ups(news, "b")
    inner = pid_of(pid, "inner")
    beam.exit(pid_of(inner, "b"), "boom")
    assert news.take(2) == [("stop", "b", "boom"), ("start", "b")]
    until(lambda: isinstance(pid_of(pid, "inner"), beam.Pid))
    assert pid_of(pid, "inner") != inner


def test_asking_ones_supervisor_from_init_is_reported_as_the_deadlock_it_is(news, monkeypatch):
    """Bad use: the supervisor waits for this very `init`; B-116."""
    monkeypatch.setattr("allm_actors.beam._admin.OWN_SUPERVISOR_TIMEOUT", 0.05)
    caught = []

    class Asks(beam.Process):
        def init(self):
            try:
                which_children(beam.info(beam.current())["ancestors"][0])
            except beam.CallTimeout as exc:
                caught.append(exc)

    pid = Supervisor.start([ChildSpec("a", Asks)])
    assert len(caught[0].cycle) == 2
    assert pid in caught[0].cycle
    beam.stop(pid)


def test_log_records_name_the_child_and_never_its_arguments(sup, news, caplog):
    """B-120"""
    with caplog.at_level("DEBUG", "allm_actors.beam"):

        class Secret(Kid):
            def init(self, label, news, secret):
                super().init(label, news)

        pid = sup(ChildSpec("a", Secret, args=("a", news, "sesame")), max_restarts=1)
        ups(news, "a")
        beam.send(pid_of(pid, "a"), "crash")
        assert news.take(2) == [("stop", "a", "crash"), ("start", "a")]
        until(lambda: isinstance(pid_of(pid, "a"), beam.Pid))
        beam.send(pid_of(pid, "a"), "crash")
        wait_dead(pid)
    text = [r.getMessage() for r in caplog.records]
    for event in ("supervisor.child_started", "supervisor.child_terminated", "supervisor.max_restarts"):
        record = next(t for t in text if event in t)
        assert "child_id='a'" in record
    assert any("restarts_in_period=" in t for t in text)
    assert not any("sesame" in t for t in text)


def test_in_process_helper_runs_inside_a_process():
    assert in_process(beam.current) is not None
