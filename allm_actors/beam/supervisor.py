"""Supervisors: processes that start others, in order, and start them again when they end.

```python
beam.Supervisor.start_link(
    [beam.ChildSpec("counter", Counter, args=(10,), name="counter"), beam.ChildSpec("log", Log)],
    strategy="one_for_all",
)
```

Guarantees:
    - Children start in the order given, each acknowledged before the next, and end in reverse order, one
      after the other; a supervisor is not dead before its children are, unless it is killed.
    - A start that fails leaves none of the children behind.
    - Too many restarts in too short a time are a failure that is passed up: all children are ended, and the
      supervisor exits with `"shutdown"`.
    - It can be asked, and ended, between any two tries of a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from allm_actors.beam._admin import (
    ChildCounts,
    ChildInfo,
    CountChildren,
    DeleteChild,
    RestartChild,
    StartChild,
    TerminateChild,
    WhichChildren,
    count_children,
    delete_child,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from allm_actors.beam._calls import NO_REPLY
from allm_actors.beam._child_spec import (
    AutoShutdown,
    Backoff,
    ChildSpec,
    Strategy,
    check_children,
    check_choice,
    check_intensity,
    check_spec,
)
from allm_actors.beam._children import Child, StartFailed
from allm_actors.beam._dynamic import DynamicSupervisor
from allm_actors.beam._supervising import SupervisorProcess
from allm_actors.beam.pid import (
    AlreadyPresent,
    AlreadyStarted,
    BeamError,
    ChildRestarting,
    ChildRunning,
    Exit,
    InWords,
    StartError,
    UnknownChild,
    describe,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from allm_actors.beam._calls import Sender
    from allm_actors.beam._children import Run
    from allm_actors.beam.pid import Pid

__all__ = [
    "Backoff",
    "ChildCounts",
    "ChildInfo",
    "ChildSpec",
    "ChildStartFailed",
    "DynamicSupervisor",
    "Supervisor",
    "count_children",
    "delete_child",
    "restart_child",
    "start_child",
    "terminate_child",
    "which_children",
]


@dataclass(frozen=True, slots=True)
class ChildStartFailed(InWords):
    """The reason of a supervisor that did not start because a child did not.

    Attributes:
        id: The child.
        reason: Why it did not start.
    """

    id: Hashable
    reason: Any

    def in_words(self) -> str:
        """Which child, and why."""
        return f"its child {shown(self.id)} did not start: {describe(self.reason)}"


class Supervisor(SupervisorProcess):
    """Supervises children that are known beforehand.

    Start it with `start_link(children, ...)`, or define `init` in a subclass and call this one's from there.
    """

    def init(
        self,
        children: Iterable[ChildSpec],
        *,
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
    ) -> None:
        """Start the children.

        Args:
            children: In the order they are started.
            strategy: What the restart of one child takes along. `"one_for_one"`: nothing. `"rest_for_one"`:
                those started after it. `"one_for_all"`: all others. Temporary ones taken along are
                dropped.
            max_restarts: More restarts than this within `max_seconds` end the supervisor.
            max_seconds: In seconds.
            auto_shutdown: Whether the supervisor ends with `"shutdown"` when a significant child ended by
                itself and is not restarted: `"never"`, `"any_significant"`, or `"all_significant"`, when it
                was the last one running.
        """
        _check_options(strategy, max_restarts, max_seconds, auto_shutdown)
        self._strategy, self._auto_shutdown = strategy, auto_shutdown
        self._set_intensity(max_restarts, max_seconds)
        self._children: list[Child] = []
        self.on_exit(self._end_all)  # for an end before this returns, after which `terminate` is not run
        for spec in check_children(children, auto_shutdown):
            self._start_first(spec)

    @classmethod
    def check_start(
        cls, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check the specs and options, where `init` is this class's own."""
        if cls.init is not Supervisor.init or not (args or "children" in kwargs):
            return args, kwargs
        options = {**_OPTIONS, **{key: kwargs[key] for key in _OPTIONS if key in kwargs}}
        _check_options(**options)
        children = check_children(args[0] if args else kwargs["children"], options["auto_shutdown"])
        return (children, *args[1:]), {key: value for key, value in kwargs.items() if key != "children"}

    def _start_first(self, spec: ChildSpec) -> None:
        child = Child(spec)
        self._children.append(child)
        try:
            self._begin(child)
        except StartFailed as failure:
            self._children.remove(child)
            raise Exit(ChildStartFailed(spec.id, failure.reason)) from None

    def terminate(self, reason: Any) -> None:  # noqa: ARG002
        """End all children, last started first."""
        self._end_all()

    def _end_all(self) -> None:
        if self._cell.killed:
            return  # the links have told the children
        for child in reversed(self._children):
            self._end_child(child)

    # --- ends and restarts ----------------------------------------------------------------------------

    def _ended(self, run: Run) -> None:
        child = run.child
        if child.run is not run:
            return  # this supervisor ended it itself
        if self._note_end(run):
            self._restart(child)
            return
        if child.spec.restart == "temporary":
            self._children.remove(child)
        if child.spec.significant:
            self._significant_end()

    def _significant_end(self) -> None:
        last = not any(child.spec.significant and (child.run or child.restarting) for child in self._children)
        if self._auto_shutdown == "any_significant" or last:
            raise Exit("shutdown")

    def _try(self, child: Child) -> None:
        """Restart a child and what its strategy takes along; once more by message if one does not start."""
        for one in self._taken_along(child):
            try:
                self._start_child(one, told=False)
            except StartFailed:
                if one is not child:
                    child.settle()
                one.put_off(self.pid, self.rng)
                return

    def _taken_along(self, child: Child) -> list[Child]:
        """The children to start, in order, after those that run were ended."""
        at = self._children.index(child)
        affected = {
            "one_for_one": [child],
            "rest_for_one": self._children[at:],
            "one_for_all": self._children[:],
        }[self._strategy]
        for one in reversed(affected):
            if one is child:
                continue
            self._end_child(one)
            if one.spec.restart == "temporary":
                self._children.remove(one)
                affected.remove(one)
        return affected

    # --- administration -------------------------------------------------------------------------------

    def handle_call(self, request: Any, sender: Sender) -> Any:
        """Answer an administration request; what is refused raises in the caller."""
        try:
            return self._administer(request, sender)
        except BeamError as refusal:
            sender.fail(refusal)
        except StartFailed as failure:
            sender.fail(StartError(failure.reason))
        return NO_REPLY

    def _administer(self, request: Any, sender: Sender) -> Any:
        reply: Any = None
        match request:
            case WhichChildren():
                reply = [child.info() for child in self._children]
            case CountChildren():
                reply = ChildCounts.of([child.info() for child in self._children])
            case StartChild(spec):
                reply = self._add(spec)
            case TerminateChild(id_):
                self._terminate(self._find(id_))
            case RestartChild(id_):
                reply = self._begin(self._find_idle(id_))
            case DeleteChild(id_):
                self._children.remove(self._find_idle(id_))
            case _:
                reply = super().handle_call(request, sender)
        return reply

    def _find(self, id_: Hashable) -> Child:
        for child in self._children:
            if child.spec.id == id_:
                return child
        raise UnknownChild(id_)

    def _find_idle(self, id_: Hashable) -> Child:
        child = self._find(id_)
        if child.restarting:
            raise ChildRestarting(id_)
        if child.run is not None:
            raise ChildRunning(id_)
        return child

    def _add(self, spec: ChildSpec) -> Pid | None:
        check_spec(spec, self._auto_shutdown)
        for child in self._children:
            if child.spec.id == spec.id:
                if child.pid is not None and not child.restarting:
                    raise AlreadyStarted(spec.id, child.pid)
                raise AlreadyPresent(spec.id)
        child = Child(spec)
        self._children.append(child)
        try:
            return self._begin(child)
        except StartFailed:
            self._children.remove(child)
            raise

    def _begin(self, child: Child) -> Pid | None:
        pid = self._start_child(child)
        if pid is None and child.spec.restart == "temporary":
            self._children.remove(child)
        return pid

    def _terminate(self, child: Child) -> None:
        self._end_child(child)
        if child.spec.restart == "temporary":
            self._children.remove(child)


_OPTIONS: dict[str, Any] = {
    "strategy": "one_for_one",
    "max_restarts": 3,
    "max_seconds": 5.0,
    "auto_shutdown": "never",
}


def _check_options(strategy: str, max_restarts: int, max_seconds: float, auto_shutdown: str) -> None:
    check_choice("strategy", strategy, get_args(Strategy))
    check_choice("auto_shutdown", auto_shutdown, get_args(AutoShutdown))
    check_intensity(max_restarts, max_seconds)
