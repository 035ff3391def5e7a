"""What every supervisor does: start and end children, judge their ends, count restarts, give up.

The two kinds of supervisor differ in who their children are and in what a restart takes along.
"""

from __future__ import annotations

import functools
import math
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from allm_actors.beam._calls import NO_REPLY
from allm_actors.beam._cell import facts
from allm_actors.beam._children import Child, ChildEnded, Run, StartFailed, TryAgain, start_run
from allm_actors.beam._log import log
from allm_actors.beam.pid import Exit, ExitMessage, describe, is_clean
from allm_actors.beam.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from allm_actors.beam._calls import Sender
    from allm_actors.beam.pid import Pid


class SupervisorProcess(Process):
    """Base of both kinds of supervisor.

    Class attributes:
        clock: Seconds, monotonic: what restarts are counted and lives are measured with.
        rng: Where the jitter of a backoff comes from.
    """

    child_type: ClassVar[str] = "supervisor"
    start_timeout: float = math.inf  # each child has a limit of its own
    clock: Callable[[], float] = staticmethod(time.monotonic)
    rng: random.Random = random.Random()  # noqa: S311  jitter needs no secrecy
    _trap_exit_default = True

    _max_restarts: int
    _max_seconds: float
    _restarts: deque[float]

    @classmethod
    def check_start(
        cls, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Refuse arguments of a start that make no sense, before anything starts; the arguments."""
        return args, kwargs

    @classmethod
    def start(  # type: ignore[override]
        cls, *args: Any, name: Hashable | None = None, start_timeout: float | None = None, **kwargs: Any
    ) -> Pid | None:
        """`Process.start`, after a check of the arguments.

        Raises:
            SpecError: They make no sense; nothing was started.
            StartError: A child, or the supervisor itself, did not start; nothing is left behind.
        """
        args, kwargs = cls.check_start(args, kwargs)
        return super().start(*args, name=name, start_timeout=start_timeout, **kwargs)

    @classmethod
    def start_link(
        cls, *args: Any, name: Hashable | None = None, start_timeout: float | None = None, **kwargs: Any
    ) -> Pid | None:
        """`Process.start_link`, after a check of the arguments; raises as `start` does."""
        args, kwargs = cls.check_start(args, kwargs)
        return super().start_link(*args, name=name, start_timeout=start_timeout, **kwargs)

    def _set_intensity(self, max_restarts: int, max_seconds: float) -> None:
        self._max_restarts, self._max_seconds = max_restarts, max_seconds
        self._restarts = deque()

    # --- what the kinds differ in ---------------------------------------------------------------------

    def _ended(self, run: Run) -> None:
        """A child's process has ended."""
        raise NotImplementedError

    def _try(self, child: Child) -> None:
        """Make the restart of a child that was announced; counted already."""
        raise NotImplementedError

    # --- messages -------------------------------------------------------------------------------------

    def handle_info(self, message: Any) -> Any:
        """Hear of the ends of children; whatever else arrives is dropped, most of it with a warning."""
        match message:
            case ChildEnded(run):
                self._ended(run)
            case TryAgain(child, ticket):
                if child.waits_for(ticket):
                    self._make_restart(child)
            case ExitMessage():
                pass  # children are watched, not heard; strangers have no say
            case _:
                self._unexpected(message)

    def handle_cast(self, message: Any) -> Any:
        """No cast means anything to a supervisor: dropped with a warning."""
        self._unexpected(message)

    def handle_call(self, request: Any, sender: Sender) -> Any:
        """No other call means anything to a supervisor: it fails in the caller."""
        self._unexpected(request)
        sender.fail(TypeError(f"a supervisor does not answer {type(request).__name__}"))
        return NO_REPLY

    def _unexpected(self, message: Any) -> None:
        log.warning("supervisor.unexpected_message", **facts(self._cell), message_type=type(message).__name__)

    # --- one child ------------------------------------------------------------------------------------

    def _start_child(self, child: Child, *, told: bool = True) -> Pid | None:
        """Start a process for a child, in the running thread.

        Args:
            child: The child.
            told: Whether somebody waits for the start and hears of a failure; the log need not say it then.

        Raises:
            StartFailed: With the reason; the child has no process then.
            Exit: The thread's own process was told to exit. The child keeps what was started.
        """
        child.stuck = [run for run in child.stuck if run.is_zombie]
        if len(child.stuck) >= child.spec.max_zombies:
            self._report("supervisor.start_error", child, "too_many_zombies", quiet=told)
            raise StartFailed("too_many_zombies")
        run = Run(child, self._cell, self.clock())
        try:
            pid = start_run(run, self._cell, functools.partial(self._attach, run))
        except StartFailed as failure:
            run.called_off(failure.reason)
            child.finished(run, 0.0)
            self._report("supervisor.start_error", child, failure.reason, quiet=told)
            raise
        except BaseException:
            run.abandon()
            raise
        child.settle()
        if pid is None:
            child.finished(run, 0.0)
        elif log.wants_debug():
            fields = facts(self._cell) | {"child": str(pid), "child_id": child.spec.id}
            log.debug("supervisor.child_started", **fields)
        return pid

    def _attach(self, run: Run, pid: Pid) -> None:
        """Tie a process to its child, just before it starts."""
        run.child.run = run
        pid._cell.restarts = run.child.restarts
        run.attach(pid)

    def _end_child(self, child: Child) -> None:
        """End a child's process, if it has one, and forget a restart that was announced."""
        child.settle()
        run = child.run
        if run is not None:
            run.end()
            child.finished(run, self.clock() - run.started_at)

    # --- judging --------------------------------------------------------------------------------------

    def _note_end(self, run: Run) -> bool:
        """Note that a child's process ended by itself; whether the child is to be started again."""
        child = run.child
        child.finished(run, self.clock() - run.started_at)
        restart = child.spec.restart
        clean = is_clean(run.reason)
        self._report("supervisor.child_terminated", child, run.reason, quiet=clean, process=str(run.pid))
        return restart == "permanent" or (restart == "transient" and not clean)

    def _restart(self, child: Child) -> None:
        """Start a child again: at once, or after its backoff."""
        if child.spec.backoff is not None:
            child.put_off(self.pid, self.rng)
        else:
            self._make_restart(child)

    def _make_restart(self, child: Child) -> None:
        child.settle()
        child.restarting = True
        self._count_restart(child)
        self._try(child)

    def _count_restart(self, child: Child) -> None:
        """Record a restart, and give up if there were too many.

        Raises:
            Exit: Too many: `"shutdown"`.
        """
        now = self.clock()
        restarts = self._restarts
        while restarts and restarts[0] < now - self._max_seconds:
            restarts.popleft()
        restarts.append(now)
        child.restarts += 1
        self._cell.restarts += 1
        if len(restarts) > self._max_restarts:
            self._report("supervisor.max_restarts", child, "shutdown")
            raise Exit("shutdown")

    def _report(self, event: str, child: Child, reason: Any, *, quiet: bool = False, **more: Any) -> None:
        if quiet and not log.wants_debug():
            return
        write = log.debug if quiet else log.error
        write(
            event,
            **facts(self._cell),
            child_id=child.spec.id,
            restart=child.spec.restart,
            restarts_in_period=len(self._restarts),
            reason=describe(reason),
            **more,
        )
