"""Supervisors against the clock: ends, restarts and starts that meet in the worst moment."""

import queue
import random
import sys
import threading

import pytest

from allm_actors import beam
from allm_actors.beam.supervisor import ChildSpec, Supervisor, start_child, terminate_child, which_children
from tests.beam._kids import Boom, Kid, News, in_thread, kid, pid_of, until, wait_dead

pytestmark = [pytest.mark.race, pytest.mark.logs_errors("children are killed here")]

TIMES = 200  # for each switch interval and each way


@pytest.fixture(params=[1e-6, 5e-3], ids=["switching", "ordinary"])
def switching(request):
    old = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(old)


class Registered(beam.Process):
    """Notes every life of it, so that a test can ask whether any goes on."""

    def init(self, lives):
        lives.put(self.pid)


class Lives:
    """All processes that ever announced themselves."""

    def __init__(self, lives):
        self.lives, self.pids = lives, []

    def alive(self):
        while True:
            try:
                self.pids.append(self.lives.get_nowait())
            except queue.Empty:
                return [pid for pid in self.pids if pid.alive]


# --- forced, once each --------------------------------------------------------------------------------


def blocked_in_second_life(news):
    """A birth that, from the second life on, announces itself and waits to be let go."""
    entered, go = threading.Event(), threading.Event()

    def birth(life):
        if life:
            entered.set()
            while not go.wait(0.001):
                beam.checkpoint()

    return birth, entered, go


class Parent(beam.Process):
    """Starts a supervisor and ends when told, as its parent."""

    def init(self, specs, options, box):
        box.put(Supervisor.start_link(specs, **options))

    def handle_info(self, message):
        return beam.Stop(message)


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one", "one_for_all"])
def test_a_supervisor_told_to_end_in_the_middle_of_a_restart_ends_the_child_being_born_first(strategy):
    """B-65, B-71: the half-started child is known, and dead before its supervisor is."""
    # 1. b dies; the supervisor starts it again and waits for its `init`.
    # 2. The supervisor's parent ends.
    # 3. The birth is given up, and everything ended, before the supervisor is dead.
    news, box = News(), queue.SimpleQueue()
    birth, entered, _ = blocked_in_second_life(news)
    specs = [kid("a", news), kid("b", news, birth, name=("b", strategy)), kid("c", news)]
    parent = Parent.start(specs, {"strategy": strategy}, box)
    sup = box.get(timeout=5)
    seen = []
    beam.monitor(sup, to=lambda down: seen.append([p for p in beam.processes() if p.alive]))
    beam.exit(pid_of(sup, "b"), "boom")
    entered.wait(5)
    newborn = beam.whereis(("b", strategy))

    beam.send(parent, "shutdown")
    assert wait_dead(sup) == "shutdown"

    assert newborn.exit_reason == "shutdown"
    assert not [pid for pid in seen[0] if str(pid).startswith("<Kid")]
    assert beam.whereis(("b", strategy)) is None


def test_a_supervisor_killed_in_the_middle_of_a_restart_leaves_no_child():
    """B-72, B-23: the links tell all of them, also the one being born."""
    news = News()
    birth, entered, _ = blocked_in_second_life(news)
    sup = Supervisor.start([kid("a", news), kid("b", news, birth, name="newborn")])
    other = pid_of(sup, "a")
    beam.exit(pid_of(sup, "b"), "boom")
    entered.wait(5)
    newborn = beam.whereis("newborn")
    beam.exit(sup, "kill")
    assert wait_dead(newborn) == "killed"
    assert wait_dead(other) == "killed"


def test_a_stop_that_meets_a_restart_waits_for_it_and_then_ends_all():
    """B-65, B-26: a stop is a message; the restart in progress is finished first."""
    news = News()
    birth, entered, go = blocked_in_second_life(news)
    sup = Supervisor.start([kid("a", news), kid("b", news, birth)])
    beam.exit(pid_of(sup, "b"), "boom")
    entered.wait(5)
    stopping = in_thread(lambda: beam.stop(sup, timeout=5))
    until(lambda: len(sup._cell.mailbox) >= 1)
    assert sup.alive
    go.set()
    stopping()
    assert news.take(6) == [
        ("start", "a"),
        ("start", "b"),
        ("stop", "b", "boom"),
        ("start", "b"),
        ("stop", "b", "shutdown"),
        ("stop", "a", "shutdown"),
    ]


def test_a_parent_that_ends_while_the_supervisor_starts_leaves_no_child():
    """B-61, B-71"""
    news, box = News(), queue.SimpleQueue()
    entered = threading.Event()

    def birth(life):
        entered.set()
        beam.sleep(10)

    class Hasty(beam.Process):
        def init(self):
            self.continue_with(None)

        def handle_continue(self, token):
            box.put("starting")
            Supervisor.start_link([kid("a", news), kid("b", news, birth, name="second")])

    parent = Hasty.start()
    entered.wait(5)
    second = beam.whereis("second")
    beam.exit(parent, "shutdown")
    assert wait_dead(parent) == "shutdown"
    assert wait_dead(second) == "shutdown"
    assert news.take(2) == [("start", "a"), ("stop", "a", "shutdown")]


def test_a_child_that_dies_between_its_acknowledgement_and_the_next_look_is_judged():
    """B-62: it is watched from before its first line."""
    lives = queue.SimpleQueue()

    class Brief(beam.Process):
        def init(self):
            lives.put(1)
            if lives.qsize() < 4:
                self.continue_with(None)

        def handle_continue(self, token):
            raise beam.Exit("at once")

    sup = Supervisor.start([ChildSpec("a", Brief)])
    until(lambda: lives.qsize() == 4)
    until(lambda: isinstance(pid_of(sup, "a"), beam.Pid))
    beam.stop(sup)


# --- at random, often ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_end_against_a_restart(switching, strategy, how):
    """B-65, B-67: whatever the moment, nobody is left."""
    rng = random.Random(65)
    for _ in range(TIMES):
        lives = queue.SimpleQueue()
        specs = [ChildSpec(n, Registered, args=(lives,)) for n in range(3)]
        sup = Supervisor.start(specs, strategy=strategy, max_restarts=100)
        victim = pid_of(sup, rng.randrange(3))
        barrier = threading.Barrier(2)

        def crash(victim=victim, barrier=barrier):
            barrier.wait(5)
            beam.exit(victim, "kill")

        crashing = in_thread(crash)
        barrier.wait(5)
        everybody = Lives(lives)
        if how == "stop":
            beam.stop(sup, timeout=5)
            assert not everybody.alive()  # children first, then the supervisor
            assert sup.exit_reason == "normal"
        else:
            beam.exit(sup, "kill")
            until(lambda: not everybody.alive())  # noqa: B023
        crashing(5)
        assert not everybody.alive()


def test_start_child_against_the_end(switching):
    """B-68, B-61: either it is under the supervisor and ended with it, or it was refused."""
    for _ in range(TIMES):
        lives = queue.SimpleQueue()
        sup = Supervisor.start([])
        barrier = threading.Barrier(2)

        def work(sup=sup, barrier=barrier, lives=lives):
            barrier.wait(5)
            for n in range(100):
                try:
                    start_child(sup, ChildSpec(n, Registered, args=(lives,)))
                except beam.ProcessExit:
                    return "ended"
            return "never"

        starting = in_thread(work)
        barrier.wait(5)
        beam.stop(sup, timeout=5)
        assert starting(5) == "ended"
        assert not Lives(lives).alive()


def test_terminate_child_against_its_own_end(switching):
    """B-62, B-68: whichever comes first, the child stays down or is restarted once, and is never judged twice."""
    rng = random.Random(62)
    news = News()
    sup = Supervisor.start([kid("a", news)], max_restarts=10**6)
    for _ in range(TIMES):
        until(lambda: isinstance(pid_of(sup, "a"), beam.Pid))
        child = pid_of(sup, "a")
        dying = in_thread(lambda child=child: beam.exit(child, rng.choice(["kill", "boom"])))
        terminate_child(sup, "a")
        dying(5)
        assert which_children(sup) == [("a", None, "worker")]
        beam.supervisor.restart_child(sup, "a")
    beam.stop(sup)


def test_many_deaths_at_once(switching):
    """B-63, B-64: children of a one_for_all that are killed together come back together."""
    rng = random.Random(63)
    lives = queue.SimpleQueue()
    everybody = Lives(lives)
    specs = [ChildSpec(n, Registered, args=(lives,)) for n in range(4)]
    sup = Supervisor.start(specs, strategy="one_for_all", max_restarts=10**6)
    for _ in range(TIMES):
        victims = [pid for _, pid, _ in which_children(sup) if rng.random() < 0.7 and pid]
        barrier = threading.Barrier(len(victims) + 1)

        def die(pid, barrier=barrier):
            barrier.wait(5)
            beam.exit(pid, "kill")

        dying = [in_thread(lambda pid=pid: die(pid)) for pid in victims]
        barrier.wait(5)
        for one in dying:
            one(5)
        until(lambda: beam.supervisor.count_children(sup).active == 4)
        now = [pid for _, pid, _ in which_children(sup)]
        until(lambda: everybody.alive() == now)  # noqa: B023
    beam.stop(sup, timeout=5)


def test_restarts_under_names_never_collide(switching):
    """B-9, B-40, B-60: a name is free before anybody hears of the death."""
    news = News()
    sup = Supervisor.start([kid("a", news, name="only")], max_restarts=10**6)
    assert news.next() == ("start", "a")
    for n in range(TIMES):
        pid = beam.whereis("only")
        beam.exit(pid, "kill" if n % 2 else "boom")
        while news.next() != ("start", "a"):
            pass
        until(lambda: beam.whereis("only") not in (None, pid))  # noqa: B023
    assert sup.alive
    beam.stop(sup)


def test_the_kids_of_this_module_are_what_they_say():
    with pytest.raises(beam.StartError):
        Kid.start("a", News(), lambda life: (_ for _ in ()).throw(Boom()))
