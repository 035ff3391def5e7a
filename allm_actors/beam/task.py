"""Tasks: one function, run once in a process of its own, and its result.

```python
task = beam.Task.async_(fetch, url)
...
page = task.await_(timeout=10)
```

Guarantees:
    - A result is delivered once: to the first `await_`, `yield_` or `shutdown` that meets it.
    - A task that was waited for too long is told to end, and killed if it does not; nobody waits for that.
    - Whatever ends a task, whoever waits for it hears of it.
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any, Final, Literal

from allm_actors.beam._calls import waits_in_a_cycle
from allm_actors.beam._check import seconds
from allm_actors.beam._child_spec import BRUTAL_KILL, WORKER_SHUTDOWN
from allm_actors.beam._current import current_process
from allm_actors.beam._names import receiver
from allm_actors.beam._signals import exit as send_exit
from allm_actors.beam._signals import monitor, tie, untie
from allm_actors.beam.mailbox import wait_for
from allm_actors.beam.pid import CallTimeout, NoProcess, ProcessExit, is_word
from allm_actors.beam.process import Process, Stop, launch
from allm_actors.beam.supervisor import ChildSpec, DynamicSupervisor, start_child
from allm_actors.beam.timer import cancel_timer, send_after

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from allm_actors.beam._cell import Cell
    from allm_actors.beam.pid import Down, Pid

__all__ = ["Task", "TaskSupervisor"]


class _Value:
    """A result on its way."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _TaskProcess(Process):
    """Runs one function, puts its result where it is waited for, and ends."""

    acknowledged = False  # whoever starts it does not wait for `init`

    def init(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outcome: queue.SimpleQueue[Any] | None = None,
    ) -> None:
        self._cell.class_name = f"Task:{getattr(fn, '__name__', type(fn).__name__)}"
        self.continue_with((fn, args, kwargs, outcome))

    def handle_continue(self, token: Any) -> Stop:
        fn, args, kwargs, outcome = token
        del token
        value = fn(*args, **kwargs)
        if outcome is not None:
            outcome.put(_Value(value))
        return Stop("normal")


class Task:
    """A function at work in another process, and the place where its result arrives.

    Attributes:
        pid: The process.
    """

    __slots__ = ("_linked", "_outcome", "_over", "pid")

    def __init__(self, pid: Pid, outcome: queue.SimpleQueue[Any], linked: Cell | None) -> None:
        self.pid: Final = pid
        self._outcome = outcome
        self._linked = linked
        self._over = False
        monitor(pid, to=outcome.put)

    # --- starting -------------------------------------------------------------------------------------

    @classmethod
    def start(cls, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Pid:
        """Run `fn(*args, **kwargs)` in a process of its own, for its effects; linked to nobody.

        Raises:
            StartError: The system refused a thread.
            TypeError: `fn` is not callable.
        """
        return _launch(fn, args, kwargs, None, None)

    @classmethod
    def start_link(cls, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Pid:
        """`start`, linked to the calling process, if the caller is one."""
        return _launch(fn, args, kwargs, None, current_process())

    @classmethod
    def async_(cls, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Task:
        """Run `fn(*args, **kwargs)` and have its result delivered to whoever waits for the task.

        The task is linked to the calling process, if the caller is one: each ends with the other's failure.
        Raises as `start` does.
        """
        outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()
        caller = current_process()
        return cls(_launch(fn, args, kwargs, outcome, caller), outcome, caller)

    # --- waiting --------------------------------------------------------------------------------------

    def await_(self, timeout: float = 5.0) -> Any:
        """Wait for the result.

        Args:
            timeout: Seconds; when they are over the task is shut down. `math.inf` for ever.

        Returns:
            What the function returned.

        Raises:
            ProcessExit: The task ended without a result; after a crash the original exception is its
                `__cause__`.
            CallTimeout: No result in time; the task was told to end.
            NoProcess: The result was delivered before.
            Exit: The calling process was told to exit.
        """
        seconds("timeout", timeout, zero=True)
        try:
            return self._receive(timeout)
        except queue.Empty:
            cycle = waits_in_a_cycle(current_process(), self.pid._cell)
            self._dismiss()
            raise CallTimeout(self.pid, timeout, what="await_", cycle=cycle) from None

    def yield_(self, timeout: float = 5.0) -> Any:
        """Wait for the result, and leave the task alone if there is none yet.

        Returns:
            What the function returned; `None` if it has not, within `timeout` seconds.

        Raises:
            ProcessExit: As `await_` does.
            NoProcess: The result was delivered before.
        """
        seconds("timeout", timeout, zero=True)
        try:
            return self._receive(timeout)
        except queue.Empty:
            return None

    def shutdown(self, timeout: float | Literal["brutal_kill"] = WORKER_SHUTDOWN) -> Any:
        """End the task, and wait until it has.

        Args:
            timeout: Seconds between telling it and killing it; `"brutal_kill"` kills at once.

        Returns:
            The result, if it came before the end and was not delivered yet; else `None`.

        Raises:
            ProcessExit: The task had ended by itself, without a result.
        """
        brutal = timeout == BRUTAL_KILL
        if not brutal:
            seconds("timeout", timeout, zero=True)
        if self._over:
            return None
        self._unlink()
        send_exit(self.pid, "kill" if brutal else "shutdown")
        try:
            return self._receive_last(0.0 if brutal else float(timeout))
        except ProcessExit as end:
            if is_word(end.reason, "shutdown") or is_word(end.reason, "killed"):
                return None
            raise

    # --- the outcome ----------------------------------------------------------------------------------

    def _receive_last(self, timeout: float) -> Any:
        try:
            return self._receive(timeout)
        except queue.Empty:
            send_exit(self.pid, "kill")
            return self._receive(WORKER_SHUTDOWN)

    def _receive(self, timeout: float) -> Any:
        """Take what comes first, the value or the end; raises `queue.Empty` if nothing comes."""
        if self._over:
            raise NoProcess(self.pid, "the result of this task was delivered before")
        caller = current_process()
        if caller is not None:
            caller.waiting_for = self.pid._cell
        try:
            item = wait_for(self._outcome, timeout)
        finally:
            if caller is not None:
                caller.waiting_for = None
        if self._over:
            raise NoProcess(self.pid, "the result of this task was delivered to another")
        self._over = True
        if isinstance(item, _Value):
            return item.value
        raise ProcessExit(self._reason(item), self.pid)

    def _reason(self, down: Down) -> Any:
        """Why it ended, also if that was before it was watched."""
        if is_word(down.reason, "noproc") and self.pid.exit_reason is not None:
            return self.pid.exit_reason
        return down.reason

    def _dismiss(self) -> None:
        """Have the task end, without waiting for it."""
        self._over = True
        self._unlink()
        send_exit(self.pid, "shutdown")
        pid = self.pid
        if pid.alive:
            timer = send_after(WORKER_SHUTDOWN, lambda _: send_exit(pid, "kill"), None)
            monitor(pid, to=lambda _: cancel_timer(timer))

    def _unlink(self) -> None:
        if self._linked is not None:
            untie(self._linked, self.pid._cell)

    def __repr__(self) -> str:
        return f"<Task of {self.pid}>"


class TaskSupervisor(DynamicSupervisor):
    """A `DynamicSupervisor` of tasks: temporary children, told to end together with it."""

    @staticmethod
    def start_child(sup: Pid | Hashable, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Pid:
        """Run `fn(*args, **kwargs)` under a supervisor, for its effects.

        Raises:
            NoProcess: The supervisor has ended; no task was left behind.
            MaxChildren: It has as many tasks as it may have.
            StartError: The system refused a thread.
            TypeError: `fn` is not callable.
        """
        return _supervised(sup, fn, args, kwargs, None)

    @staticmethod
    def async_nolink(sup: Pid | Hashable, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Task:
        """A task under a supervisor, linked to nobody else: its failure is heard by who waits for it only.

        Raises as `start_child` does.
        """
        outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()
        return Task(_supervised(sup, fn, args, kwargs, outcome), outcome, None)

    @staticmethod
    def async_(sup: Pid | Hashable, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Task:
        """A task under a supervisor, and linked to the calling process, if the caller is one."""
        outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()
        caller = current_process()
        pid = _supervised(sup, fn, args, kwargs, outcome)
        if caller is not None:
            tie(caller, pid._cell)
        return Task(pid, outcome, caller)


def _launch(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outcome: queue.SimpleQueue[Any] | None,
    parent: Cell | None,
) -> Pid:
    _check(fn)
    pid = launch(_TaskProcess, (fn, args, kwargs, outcome), {}, parent=parent, wait=False)
    assert pid is not None
    return pid


def _supervised(
    sup: Pid | Hashable,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outcome: queue.SimpleQueue[Any] | None,
) -> Pid:
    _check(fn)
    if receiver(sup) is None:
        raise NoProcess(sup)
    spec = ChildSpec("task", _TaskProcess, args=(fn, args, kwargs, outcome), restart="temporary")
    pid = start_child(sup, spec)
    assert pid is not None
    return pid


def _check(fn: object) -> None:
    if not callable(fn):
        raise TypeError(f"fn must be callable, not {type(fn).__name__}")
