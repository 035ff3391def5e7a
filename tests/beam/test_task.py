"""Tasks: a function in a process of its own, and its result."""

import contextvars
import math
import queue
import random
import sys
import threading
import time

import pytest

from allm_actors import beam
from allm_actors.beam.supervisor import count_children
from allm_actors.beam.task import Task, TaskSupervisor
from tests.beam._kids import in_process, in_thread, until, wait_dead

FLAVOR = contextvars.ContextVar("flavor", default="none")


@pytest.fixture
def sup():
    pid = TaskSupervisor.start()
    yield pid
    if pid.alive:
        beam.stop(pid)


@pytest.fixture
def gate():
    """An event that tasks wait for without a checkpoint; set after the test."""
    gate = threading.Event()
    yield gate
    gate.set()


def nap():
    beam.sleep(math.inf)


def crash():
    raise ValueError("task")


def test_start_runs_a_function_for_its_effects():
    news = queue.SimpleQueue()
    pid = Task.start(lambda a, b: news.put((a, b, beam.current())), 1, b=2)
    assert news.get(timeout=5) == (1, 2, pid)
    wait_dead(pid)


@pytest.mark.parametrize("where", [in_process, lambda work: in_thread(work)(5), lambda work: work()])
def test_a_task_returns_what_its_function_returned(where):
    assert where(lambda: Task.async_(lambda a, b: a + b, 1, b=2).await_()) == 3


def test_results_are_delivered_once():
    """Tasks: once, to whoever meets it first."""
    task = Task.async_(lambda: 7)
    assert task.await_() == 7
    for again in (task.await_, task.yield_):
        with pytest.raises(beam.NoProcess):
            again()
    assert task.shutdown() is None


@pytest.mark.logs_errors("the task crashes")
def test_a_crash_comes_out_with_its_cause():
    task = Task.async_(crash)
    with pytest.raises(beam.ProcessExit) as caught:
        task.await_()
    assert isinstance(caught.value.reason, beam.Crash)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.pid == task.pid


def test_an_end_without_a_result_comes_out():
    def leave():
        raise beam.Exit("shutdown")

    task = Task.async_(leave)
    with pytest.raises(beam.ProcessExit) as caught:
        task.await_()
    assert caught.value.reason == "shutdown"


def test_await_gives_up_after_its_timeout_and_shuts_the_task_down():
    timers = beam.info()["timers"]
    task = Task.async_(nap)
    with pytest.raises(beam.CallTimeout):
        task.await_(0.01)
    assert wait_dead(task.pid) == "shutdown"
    until(lambda: beam.info()["timers"] == timers)  # the kill is called off
    with pytest.raises(beam.NoProcess):
        task.await_()


@pytest.mark.logs_errors("killed")
def test_a_task_that_was_given_up_and_does_not_end_is_killed(gate, monkeypatch):
    monkeypatch.setattr("allm_actors.beam.task.WORKER_SHUTDOWN", 0.02)
    task = Task.async_(gate.wait, 10)
    with pytest.raises(beam.CallTimeout):
        task.await_(0.01)
    assert wait_dead(task.pid) == "killed"


def test_giving_a_linked_task_up_does_not_end_the_caller():
    def work():
        task = Task.async_(nap)
        with pytest.raises(beam.CallTimeout):
            task.await_(0.01)
        wait_dead(task.pid)
        beam.checkpoint()
        return "alive"

    assert in_process(work) == "alive"


def test_yield_leaves_the_task_alone(gate):
    def work():
        gate.wait(10)
        return 5

    task = Task.async_(work)
    assert task.yield_(0.01) is None
    assert task.yield_(0) is None
    assert task.pid.alive
    gate.set()
    assert task.yield_() == 5


def test_shutdown_ends_the_task_and_waits():
    task = Task.async_(nap)
    assert task.shutdown() is None
    assert not task.pid.alive
    assert task.pid.exit_reason == "shutdown"


@pytest.mark.logs_errors("killed")
def test_shutdown_kills_what_does_not_end_in_time(gate):
    task = Task.async_(gate.wait, 10)
    assert task.shutdown(0.01) is None
    assert task.pid.exit_reason == "killed"
    other = Task.async_(gate.wait, 10)
    assert other.shutdown("brutal_kill") is None
    assert other.pid.exit_reason == "killed"


def test_shutdown_returns_a_result_that_was_not_taken_yet():
    task = Task.async_(lambda: 9)
    wait_dead(task.pid)
    assert task.shutdown() == 9
    assert task.shutdown() is None


@pytest.mark.logs_errors("the task crashes")
def test_shutdown_of_a_task_that_crashed_raises_the_crash():
    task = Task.async_(crash)
    wait_dead(task.pid)
    with pytest.raises(beam.ProcessExit) as caught:
        task.shutdown()
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("bad", "error"), [(-1, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_timeouts_are_checked(bad, error):
    task = Task.async_(lambda: 1)
    for method in (task.await_, task.yield_, task.shutdown):
        with pytest.raises(error):
            method(bad)
    assert task.await_() == 1


@pytest.mark.parametrize("start", [Task.start, Task.start_link, Task.async_])
def test_what_is_not_callable_is_refused(start):
    with pytest.raises(TypeError, match="callable"):
        start(3)


@pytest.mark.logs_errors("the task crashes")
@pytest.mark.parametrize("start", [Task.async_, Task.start_link])
def test_a_linked_task_takes_its_caller_along(start):
    """Tasks: `async_` is linked; each ends with the other's failure."""
    news = queue.SimpleQueue()

    class Caller(beam.Process):
        def handle_info(self, message):
            start(crash)

    caller = Caller.start()
    beam.send(caller, "go")
    reason = wait_dead(caller)
    assert isinstance(reason.exception, ValueError)
    assert news.empty()


@pytest.mark.logs_errors("the caller crashes")
def test_a_linked_task_ends_with_its_caller():
    news = queue.SimpleQueue()

    class Caller(beam.Process):
        def init(self):
            news.put(Task.async_(nap).pid)

        def handle_info(self, message):
            raise ValueError

    caller = Caller.start()
    task = news.get(timeout=5)
    beam.send(caller, "crash")
    assert isinstance(wait_dead(task), beam.Crash)


def test_an_exit_of_the_caller_ends_its_wait():
    """B-22"""
    news = queue.SimpleQueue()

    class Caller(beam.Process):
        def handle_info(self, message):
            task = Task.async_(nap)
            news.put(task.pid)
            task.await_(math.inf)

    caller = Caller.start()
    beam.send(caller, "go")
    task = news.get(timeout=5)
    beam.exit(caller, "shutdown")
    assert wait_dead(caller) == "shutdown"
    assert wait_dead(task) == "shutdown"


@pytest.mark.logs_errors("the deadlock is reported")
def test_a_task_that_calls_who_awaits_it_is_reported_as_the_deadlock_it_is():
    """B-116"""
    errors = queue.SimpleQueue()

    class Caller(beam.Process):
        def handle_call(self, request, sender):
            return "late"

        def handle_info(self, message):
            me = beam.current()

            def work():
                beam.call(me, "?", timeout=math.inf)

            task = Task.async_(work)
            until(lambda: task.pid._cell.waiting_for is not None)
            try:
                task.await_(0.05)
            except beam.CallTimeout as exc:
                errors.put(exc)

    caller = Caller.start()
    beam.send(caller, "go")
    error = errors.get(timeout=5)
    assert len(error.cycle) == 2
    wait_dead(error.pid)
    beam.stop(caller)


@pytest.mark.logs_errors("the deadlock is reported, and the task crashes of it")
def test_a_call_back_to_who_awaits_the_task_names_the_cycle():
    """B-116: from the other side."""
    news = queue.SimpleQueue()

    class Caller(beam.Process):
        def handle_call(self, request, sender):
            return "late"

        def handle_info(self, message):
            me = beam.current()

            def work():
                until(lambda: me._cell.waiting_for is not None)
                try:
                    beam.call(me, "?", timeout=0.02)
                except beam.CallTimeout as exc:
                    news.put(exc.cycle)

            Task.async_(work).await_(5)

    caller = Caller.start()
    beam.send(caller, "go")
    assert caller in news.get(timeout=5)
    beam.stop(caller)


def test_the_context_of_the_caller_reaches_the_task(sup):
    """B-7"""
    token = FLAVOR.set("salt")
    try:
        assert Task.async_(FLAVOR.get).await_() == "salt"
        assert TaskSupervisor.async_nolink(sup, FLAVOR.get).await_() == "salt"
    finally:
        FLAVOR.reset(token)


def test_a_task_keeps_nothing_of_its_function_alive_when_it_is_over():
    import gc
    import weakref

    class Big:
        pass

    big = Big()
    ref = weakref.ref(big)
    task = Task.async_(lambda x: None, big)
    task.await_()
    wait_dead(task.pid)
    task.pid._cell.thread.join(5)
    del big
    gc.collect()
    assert ref() is None
    assert task.pid.exit_reason == "normal"


# --- under a supervisor -------------------------------------------------------------------------------


def test_a_task_supervisor_has_temporary_children(sup, gate):
    """Tasks: a `DynamicSupervisor` of temporary children."""
    task = TaskSupervisor.async_nolink(sup, gate.wait, 10)
    assert count_children(sup) == (1, 1, 0, 1)
    gate.set()
    assert task.await_() is True
    until(lambda: count_children(sup).specs == 0)


@pytest.mark.logs_errors("the task crashes")
def test_a_task_without_link_fails_alone(sup):
    def work():
        task = TaskSupervisor.async_nolink(sup, crash)
        with pytest.raises(beam.ProcessExit):
            task.await_()
        beam.checkpoint()
        return "alive"

    assert in_process(work) == "alive"
    assert sup.alive


@pytest.mark.logs_errors("the task crashes")
def test_many_crashing_tasks_do_not_end_their_supervisor(sup):
    """B-62, B-64: temporary children are not restarted, so nothing counts."""
    tasks = [TaskSupervisor.async_nolink(sup, crash) for _ in range(20)]
    for task in tasks:
        with pytest.raises(beam.ProcessExit):
            task.await_()
    until(lambda: count_children(sup).active == 0)


@pytest.mark.logs_errors("the task crashes")
def test_a_supervised_task_may_be_linked_to_its_caller(sup, gate):
    class Caller(beam.Process):
        def handle_info(self, message):
            def fail():
                gate.wait(5)
                raise ValueError

            TaskSupervisor.async_(sup, fail)
            gate.set()

    caller = Caller.start()
    beam.send(caller, "go")
    assert isinstance(wait_dead(caller), beam.Crash)
    assert sup.alive


def test_start_child_runs_a_function_for_its_effects_under_the_supervisor(sup):
    news = queue.SimpleQueue()
    pid = TaskSupervisor.start_child(sup, news.put, 4)
    assert news.get(timeout=5) == 4
    assert beam.info(pid)["ancestors"][0] == sup
    wait_dead(pid)


def test_the_end_of_the_supervisor_ends_its_tasks(sup):
    tasks = [TaskSupervisor.async_nolink(sup, nap) for _ in range(3)]
    beam.stop(sup)
    for task in tasks:
        with pytest.raises(beam.ProcessExit) as caught:
            task.await_(1)
        assert caught.value.reason == "shutdown"
    with pytest.raises(beam.NoProcess):
        TaskSupervisor.async_nolink(sup, nap)
    with pytest.raises(beam.NoProcess):
        TaskSupervisor.start_child("nobody", nap)


def test_a_task_supervisor_may_be_bounded(gate):
    pid = TaskSupervisor.start(max_children=1)
    task = TaskSupervisor.async_nolink(pid, gate.wait, 10)
    with pytest.raises(beam.MaxChildren):
        TaskSupervisor.async_nolink(pid, gate.wait, 10)
    gate.set()
    assert task.await_() is True
    wait_dead(task.pid)
    assert TaskSupervisor.async_nolink(pid, lambda: 1).await_() == 1
    beam.stop(pid)


@pytest.mark.race
@pytest.mark.logs_errors("some are killed")
def test_whoever_waits_for_a_task_hears_of_it_whatever_ends_it():
    """200 tasks that return, crash, are told or are killed while they are awaited."""
    rng = random.Random(1)
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            how = rng.choice(["return", "crash", "tell", "kill"])

            def work(how=how):
                if how == "return":
                    return how
                if how == "crash":
                    raise ValueError
                beam.sleep(math.inf)
                return None

            task = Task.async_(work)
            waiting = in_thread(lambda task=task: result_of(task))
            if how in ("tell", "kill"):
                beam.exit(task.pid, "shutdown" if how == "tell" else "kill")
            expected = {"return": "return", "crash": "Crash", "tell": "shutdown", "kill": "killed"}
            assert waiting(5) == expected[how]
    finally:
        sys.setswitchinterval(old)


def result_of(task):
    try:
        return task.await_(5)
    except beam.ProcessExit as exc:
        return "Crash" if isinstance(exc.reason, beam.Crash) else exc.reason


def test_two_that_wait_for_one_task_get_one_result(gate):
    def work():
        gate.wait(10)
        return 1

    task = Task.async_(work)
    waiting = [in_thread(lambda: outcome(task)) for _ in range(2)]
    time.sleep(0)
    gate.set()
    assert sorted(wait(5) for wait in waiting) == ["1", "NoProcess"]


def outcome(task):
    try:
        return str(task.await_(5))
    except beam.ProcessExit as exc:
        return type(exc).__name__
