"""Administration: what anybody may ask of a supervisor.

Each function takes the supervisor's pid or name. Without a `timeout` they wait as long as the work takes, the
ending of a child included; but a process that asks the supervisor that is just starting it would wait for
itself, and gets a `CallTimeout` that says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from allm_actors.beam._calls import call
from allm_actors.beam._child_spec import ChildSpec, check_spec
from allm_actors.beam._children import plain_class
from allm_actors.beam._current import current_process
from allm_actors.beam._names import receiver
from allm_actors.beam.pid import NoProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from allm_actors.beam.pid import Pid

OWN_SUPERVISOR_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start a child."""

    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class TerminateChild:
    """End a child's process."""

    child: Any


@dataclass(frozen=True, slots=True)
class RestartChild:
    """Start a child whose process was ended."""

    child: Any


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """Forget a child whose process was ended."""

    child: Any


@dataclass(frozen=True, slots=True)
class WhichChildren:
    """List the children."""


@dataclass(frozen=True, slots=True)
class CountChildren:
    """Count the children."""


ChildInfo: TypeAlias = "tuple[Hashable, Pid | Literal['restarting'] | None, str]"


class ChildCounts(NamedTuple):
    """How many children a supervisor has.

    Attributes:
        specs: Children, with a process or without.
        active: Those with a process.
        supervisors: Those that are supervisors, with a process or without.
        workers: Those that are not.
    """

    specs: int
    active: int
    supervisors: int
    workers: int

    @classmethod
    def of(cls, children: list[ChildInfo]) -> ChildCounts:
        """Count a listing."""
        supervisors = sum(1 for _, _, kind in children if kind == "supervisor")
        active = sum(1 for _, pid, _ in children if pid is not None and pid != "restarting")
        return cls(len(children), active, supervisors, len(children) - supervisors)


_dynamic_starts: dict[int, Callable[[ChildSpec], Pid | None]] = {}
"""By number of the process: how a dynamic supervisor starts a child in the calling thread."""


def offer_start(number: int, start: Callable[[ChildSpec], Pid | None]) -> None:
    """Let `start_child` run starts under this process in the calling thread."""
    _dynamic_starts[number] = start


def withdraw_start(number: int) -> None:
    """The process has ended."""
    _dynamic_starts.pop(number, None)


def start_child(sup: Pid | Hashable, spec: ChildSpec, *, timeout: float | None = None) -> Pid | None:
    """Add a child to a supervisor and start it; it becomes the last in order.

    Under a `DynamicSupervisor` the start runs in the calling thread.

    Args:
        sup: The supervisor.
        spec: The child.
        timeout: Seconds to wait for the supervisor; `None` for as long as it takes.

    Returns:
        The pid; `None` if the child has nothing to do.

    Raises:
        StartError: The child did not start; the supervisor does not know it then.
        AlreadyStarted: A child with this id runs.
        AlreadyPresent: The supervisor has a child with this id, whose process does not run.
        MaxChildren: The dynamic supervisor has as many children as it may have.
        NoProcess: The supervisor has ended; no child was left behind.
        SpecError: The spec does not suit the supervisor.
        CallTimeout: No answer in time.
    """
    check_spec(spec, "any_significant")  # what it means here, the supervisor knows
    cell = receiver(sup)
    if cell is None or cell.dead:
        raise NoProcess(sup)
    start = _dynamic_starts.get(cell.number)
    if start is not None and plain_class(spec) is not None:
        return start(spec)
    pid: Pid | None = _ask(sup, StartChild(spec), timeout)
    return pid


def terminate_child(sup: Pid | Hashable, child: Hashable | Pid, *, timeout: float | None = None) -> None:
    """End a child's process as its spec says; the spec is kept, unless the child is temporary.

    Without effect on a child without a process; one that was about to be restarted stays down.

    Args:
        sup: The supervisor.
        child: The child's id; under a `DynamicSupervisor` its pid.
        timeout: Seconds to wait for the supervisor; `None` for as long as it takes.

    Raises:
        UnknownChild: The supervisor has no such child.
        NoProcess: The supervisor has ended.
        CallTimeout: No answer in time.
    """
    _ask(sup, TerminateChild(child), timeout)


def restart_child(sup: Pid | Hashable, child: Hashable, *, timeout: float | None = None) -> Pid | None:
    """Start a child whose process had ended.

    Returns:
        The pid; `None` if the child has nothing to do.

    Raises:
        StartError: It did not start; the spec is kept.
        ChildRunning: It runs.
        ChildRestarting: It is about to be restarted.
        UnknownChild: The supervisor has no such child.
        NoProcess: The supervisor has ended.
        CallTimeout: No answer in time.
    """
    pid: Pid | None = _ask(sup, RestartChild(child), timeout)
    return pid


def delete_child(sup: Pid | Hashable, child: Hashable, *, timeout: float | None = None) -> None:
    """Drop the spec of a child whose process has ended; raises as `restart_child` does."""
    _ask(sup, DeleteChild(child), timeout)


def which_children(sup: Pid | Hashable, *, timeout: float | None = None) -> list[ChildInfo]:
    """The children in the order they are started: `(id, pid | "restarting" | None, type)`."""
    children: list[ChildInfo] = _ask(sup, WhichChildren(), timeout)
    return children


def count_children(sup: Pid | Hashable, *, timeout: float | None = None) -> ChildCounts:
    """How many children there are, of which kind, and how many run."""
    counts: ChildCounts = _ask(sup, CountChildren(), timeout)
    return counts


def _ask(sup: Pid | Hashable, request: Any, timeout: float | None) -> Any:
    if timeout is None:
        timeout = OWN_SUPERVISOR_TIMEOUT if _is_starting_me(sup) else math.inf
    return call(sup, request, timeout)


def _is_starting_me(sup: Pid | Hashable) -> bool:
    me, cell = current_process(), receiver(sup)
    return me is not None and me.parent is cell and me.last_message_type == "init"
