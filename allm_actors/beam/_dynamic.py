"""The supervisor of children that come and go.

Guarantees:
    - A start runs in the calling thread, and is atomic against the supervisor's own end: either the child is
      under the supervisor and ended with it, or `NoProcess` is raised and there is no child.
    - At its end all children are told at once and share one deadline.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from allm_actors.beam._admin import (
    ChildCounts,
    CountChildren,
    StartChild,
    TerminateChild,
    WhichChildren,
    offer_start,
    withdraw_start,
)
from allm_actors.beam._calls import NO_REPLY
from allm_actors.beam._child_spec import ChildSpec, check_intensity, check_spec
from allm_actors.beam._children import Child, StartFailed
from allm_actors.beam._signals import monitor
from allm_actors.beam._supervising import SupervisorProcess
from allm_actors.beam.pid import BeamError, MaxChildren, NoProcess, SpecError, StartError, UnknownChild

if TYPE_CHECKING:
    from allm_actors.beam._calls import Sender
    from allm_actors.beam._children import Run
    from allm_actors.beam.pid import Pid


class DynamicSupervisor(SupervisorProcess):
    """Supervises children that are started one by one; ids need not differ, pids tell them apart.

    A subclass may define `child_ended`.
    """

    def init(
        self, *, max_children: float = math.inf, max_restarts: int = 3, max_seconds: float = 5.0
    ) -> None:
        """Start with no children.

        Args:
            max_children: How many there may be at once; `math.inf` for any number.
            max_restarts: More restarts than this within `max_seconds` end the supervisor.
            max_seconds: In seconds.
        """
        _check_options(max_children, max_restarts, max_seconds)
        self._max_children = max_children
        self._set_intensity(max_restarts, max_seconds)
        self._lock = threading.Lock()  # for starts against the end; nothing is waited for under it
        self._children: dict[Child, None] = {}
        self._closed = False
        self.on_exit(self._end_all)
        number = self.pid.number
        offer_start(number, self._start_here)
        # Withdrawn at the moment of death, be it by a kill: until then a start comes here to be refused.
        monitor(self.pid, to=lambda _: withdraw_start(number))

    @classmethod
    def check_start(
        cls, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check the options, where `init` is this class's own."""
        if cls.init is DynamicSupervisor.init:
            _check_options(
                kwargs.get("max_children", math.inf),
                kwargs.get("max_restarts", 3),
                kwargs.get("max_seconds", 5.0),
            )
        return args, kwargs

    def child_ended(self, pid: Pid, reason: Any) -> None:
        """Hear of the end of a child, in this process. What this raises ends the process."""

    def terminate(self, reason: Any) -> None:  # noqa: ARG002
        """End all children at once; what is left when the longest of their times is over is killed."""
        self._end_all()

    def _end_all(self) -> None:
        with self._lock:
            self._closed = True
            children = list(self._children)
        if self._cell.killed:
            return  # the links have told the children
        runs = [child.run for child in children if child.run is not None]
        for child in children:
            child.settle()
        for run in runs:
            run.tell()
        deadline = time.monotonic() + max((run.spec.grace for run in runs), default=0.0)
        for run in runs:
            run.wait(deadline)

    # --- starting, in any thread ----------------------------------------------------------------------

    def _start_here(self, spec: ChildSpec) -> Pid | None:
        """Start a child in the running thread."""
        check_spec(spec)
        child = Child(spec)
        with self._lock:
            self._refuse_if_ended()
            if len(self._children) >= self._max_children:
                raise MaxChildren(self._max_children)
            self._children[child] = None
        try:
            pid = self._start_child(child)
        except StartFailed as failure:
            self._children.pop(child, None)
            self._refuse_if_ended()
            raise StartError(failure.reason) from None
        except BaseException:
            if child.run is None:  # called off; else it goes on, under this supervisor
                self._children.pop(child, None)
            raise
        if pid is None and spec.restart == "temporary":
            self._children.pop(child, None)
        return pid

    def _attach(self, run: Run, pid: Pid) -> None:
        # 1. `_end_all` closes, under the lock, and then ends every run it finds.
        # 2. So a run that is noted here, under the lock and before that, is ended; any other is called off.
        if run.spec.restart == "temporary":
            # Gone at once, so that whoever hears of its end finds its place free.
            run.on_end = lambda: self._children.pop(run.child, None)
        with self._lock:
            self._refuse_if_ended()
            super()._attach(run, pid)

    def _refuse_if_ended(self) -> None:
        if self._closed or self._cell.dead:
            raise NoProcess(self.pid)

    # --- ends and restarts ----------------------------------------------------------------------------

    def _ended(self, run: Run) -> None:
        if run.heard:
            return
        run.heard = True
        child = run.child
        if child.run is run:
            if self._note_end(run):
                self._restart(child)
            elif child.spec.restart == "temporary":
                self._children.pop(child, None)
        assert run.pid is not None
        self.child_ended(run.pid, run.reason)

    def _try(self, child: Child) -> None:
        try:
            self._start_child(child, told=False)
        except StartFailed:
            child.put_off(self.pid, self.rng)

    # --- administration -------------------------------------------------------------------------------

    def handle_call(self, request: Any, sender: Sender) -> Any:
        """Answer an administration request; what is refused raises in the caller."""
        try:
            match request:
                case WhichChildren():
                    return [child.info() for child in list(self._children)]
                case CountChildren():
                    return ChildCounts.of([child.info() for child in list(self._children)])
                case StartChild(spec):
                    return self._start_here(spec)
                case TerminateChild(pid):
                    return self._terminate(pid)
                case _:
                    return super().handle_call(request, sender)
        except (BeamError, NoProcess) as refusal:
            sender.fail(refusal)
        return NO_REPLY

    def _terminate(self, pid: Pid) -> None:
        child = next((child for child in list(self._children) if child.pid == pid), None)
        if child is None:
            raise UnknownChild(pid)
        self._end_child(child)
        self._children.pop(child, None)


def _check_options(max_children: float, max_restarts: int, max_seconds: float) -> None:
    whole = isinstance(max_children, int) and not isinstance(max_children, bool) and max_children >= 0
    if not whole and max_children != math.inf:
        raise SpecError(f"max_children must be a whole number or math.inf, not {max_children!r}")
    check_intensity(max_restarts, max_seconds)
