"""The runtime: the root of the supervision tree, orderly ends, and what a fork leaves of it.

Promises:
    - The threads of the layer are daemon threads, and one exit hook ends them before the interpreter is taken
      down; it never delays the exit by more than its deadline.
    - A forked child starts with no processes: what it inherited is dead, and nothing waits for threads that
      do not exist there.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pykka

from allm_actors.beam import process as _process
from allm_actors.beam._calls import checkpoint_of
from allm_actors.beam._cell import Cell, kill, table
from allm_actors.beam._check import seconds
from allm_actors.beam._current import current_process, set_current
from allm_actors.beam._signals import StopOrder, join_thread
from allm_actors.beam.timer import service

if TYPE_CHECKING:
    from allm_actors.beam.pid import Pid

_root_lock = threading.RLock()
_roots: dict[str, Pid] = {}
_for_good = False  # whether the interpreter is about to end


def prepare() -> None:
    """Set the hooks the first process needs."""
    atexit.register(_at_exit)
    os.register_at_fork(after_in_child=_after_fork)


def configure(*, stack_size: int | None = None) -> None:
    """Set what holds for processes started from now on.

    Args:
        stack_size: Bytes of stack for the thread of a process; `None` for the interpreter's default.

    Raises:
        TypeError: Not an int.
        ValueError: The system does not take this size.
    """
    if stack_size is not None:
        if isinstance(stack_size, bool) or not isinstance(stack_size, int):
            raise TypeError(f"stack_size must be an int, not {type(stack_size).__name__}")
        with _process._stack_lock:
            before = threading.stack_size(stack_size)  # the system's own check
            threading.stack_size(before)
    _process._stack_size = stack_size


def root() -> Pid:
    """The supervisor at the root of the tree, started at first use and again if it has ended.

    Its children are temporary: when one gives up, the root logs it and lives on.
    """
    from allm_actors.beam.supervisor import DynamicSupervisor

    return _standing("root", lambda: DynamicSupervisor.start(name="beam.root"))


def task_supervisor() -> Pid:
    """The default supervisor of tasks, under the root, started at first use."""
    from allm_actors.beam.supervisor import ChildSpec, start_child
    from allm_actors.beam.task import TaskSupervisor

    def begin() -> Any:
        spec = ChildSpec(
            id="tasks", start=TaskSupervisor, name="beam.tasks", restart="temporary", type="supervisor"
        )
        return start_child(root(), spec)

    return _standing("tasks", begin)


def _standing(key: str, begin: Any) -> Pid:
    pid = _roots.get(key)
    if pid is not None and pid.alive:
        return pid
    caller = current_process()
    checkpoint_of(caller)
    with _root_lock:
        pid = _roots.get(key)
        if pid is None or not pid.alive:
            # It belongs to nobody, whoever happens to need it first: no ancestor, no context of the caller's.
            set_current(None)
            try:
                pid = contextvars.Context().run(begin)
            finally:
                set_current(caller)
            assert pid is not None
            _roots[key] = pid
        return pid


def shutdown(timeout: float = 5.0) -> int:
    """End every process: the root's tree first, then the others, last started first, then the timers.

    What is left at the deadline is killed; while that is done, starts are refused with
    `StartError("system_shutdown")`. Afterwards new processes may be started, under a fresh root.

    Args:
        timeout: Seconds for all of it.

    Returns:
        How many zombies are left: threads of killed processes that could not be ended.
    """
    seconds("timeout", timeout, zero=True)
    deadline = time.monotonic() + timeout
    with _root_lock:
        tops = [_roots.pop("root", None), _roots.pop("tasks", None)]
    _end([pid._cell for pid in tops if pid is not None and pid.alive], deadline)
    while rest := _living():
        # A child is its parent's to end: one that nobody owns goes first, and takes its own along.
        _end([cell for cell in rest if cell.parent is None or cell.parent.dead] or rest, deadline)
        if time.monotonic() >= deadline:
            break
    _kill_the_rest()
    _join(list(table.zombies.values()), max(deadline, time.monotonic() + 0.05))
    service.stop(max(0.05, deadline - time.monotonic()))
    return sum(
        1 for cell in list(table.zombies.values()) if cell.thread is not None and cell.thread.is_alive()
    )


def _kill_the_rest() -> None:
    # Whatever starts one process for each that ends would keep us here for ever.
    table.closing = _for_good or bool(_living())
    try:
        while rest := _living():
            for cell in rest:
                kill(cell, expected=True)
    finally:
        table.closing = _for_good


def _living() -> list[Cell]:
    own = threading.current_thread()
    with table.lock:
        cells = [cell for cell in table.cells.values() if cell.thread is not own]
    return sorted(cells, key=lambda cell: -cell.number)


def _end(cells: list[Cell], deadline: float) -> None:
    """Ask processes to end, one after the other, and wait for their threads until the deadline.

    One that takes too long is not waited for any more when the next is asked: each has its share of the time.
    """
    for waiting, cell in zip(range(len(cells), 0, -1), cells, strict=True):
        cell.mailbox.put(StopOrder("shutdown"))
        if not cell.trap_exit:
            cell.tell_exit("shutdown")
        _join([cell], time.monotonic() + max(0.0, deadline - time.monotonic()) / (waiting + 1))
    _join(cells, deadline)


def _join(cells: list[Cell], deadline: float) -> None:
    for cell in cells:
        left = deadline - time.monotonic()
        join_thread(cell, max(0.0, left))


def _at_exit() -> None:
    global _for_good
    _for_good = True
    shutdown(timeout=5.0)  # until its deadline the tree may start what it needs to end in order
    table.closing = True


def _after_fork() -> None:
    """Have no processes: in the child of a fork their threads do not exist."""
    for cell in [*table.cells.values(), *table.zombies.values()]:
        cell.dead = cell.killed = cell.must_exit = True
        cell.exit_reason = "noproc"
        cell.mailbox.closed = True
        cell.names = ()
        cell.links, cell.watchers, cell.watching = {}, {}, {}
        cell.calls.clear()
        cell.timers.clear()
        cell.interrupters.clear()
        cell.pid.actor_stopped._flag = True  # type: ignore[attr-defined]
    table.forget()
    service.forget()
    set_current(None)
    _roots.clear()
    global _root_lock, _for_good
    _for_good = False
    _root_lock = threading.RLock()
    _process._stack_lock = threading.Lock()
    registry: Any = pykka.ActorRegistry
    registry._actor_refs_lock = threading.RLock()
    registry._actor_refs = []
