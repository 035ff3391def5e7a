"""Looking at processes: what each one is, what it does, what it waits for."""

from __future__ import annotations

import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from allm_actors.beam._cell import Cell, table
from allm_actors.beam._log import log
from allm_actors.beam.pid import shown
from allm_actors.beam.timer import service

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from allm_actors.beam.pid import Pid


def _all() -> list[Cell]:
    with table.lock:
        cells = list(table.cells.values()) + [cell for cell in table.zombies.values() if _thread_lives(cell)]
    return sorted(cells, key=lambda cell: cell.number)


def _thread_lives(cell: Cell) -> bool:
    return cell.thread is not None and cell.thread.is_alive()


def processes() -> list[Pid]:
    """The pids of all living processes, in the order they were started."""
    with table.lock:
        return [cell.pid for cell in sorted(table.cells.values(), key=lambda cell: cell.number)]


def info(pid: Pid | Hashable | None = None) -> dict[str, Any]:
    """What is known of one process, or of the whole runtime.

    Args:
        pid: A pid or a registered name; `None` for the runtime.

    Returns:
        For a process: `pid`, `class`, `state` (`starting`, `waiting`, `running`, `exiting`, `zombie`,
        `dead`), `name`, `names`, `ancestors`, `links`, `monitors` (processes it watches), `monitored_by`
        (how many monitors stand on it), `mailbox_len`, `handled` (messages so far), `busy_for` (seconds in
        the current callback, `None` when waiting), `doing` (type of the message or the callback),
        `waits_for`, `uptime` (seconds), `exit_reason`. For the runtime: `processes`, `zombies` (a list of
        such records), `names`, `timers`.

    Raises:
        UnknownName: Nobody has the name.
    """
    if pid is None:
        with table.lock:
            zombies = list(table.zombies.values())
            count = len(table.cells)
            names = len(table.names)
        return {
            "processes": count,
            "zombies": [describe_cell(cell) for cell in zombies if _thread_lives(cell)],
            "names": names,
            "timers": service.count(),
        }
    from allm_actors.beam._names import receiver
    from allm_actors.beam.pid import UnknownName

    cell = receiver(pid)
    if cell is None:
        raise UnknownName(pid)
    return describe_cell(cell)


def describe_cell(cell: Cell) -> dict[str, Any]:
    """The record of one process."""
    now = time.monotonic()
    with table.lock:
        links = [peer.pid for peer in list(cell.links)]
        watched = [ref.target.pid for ref in list(cell.watching) if ref.target is not None]
        names = list(cell.names)
        monitored_by = len(cell.watchers)
    waiting_for, busy_since = cell.waiting_for, cell.busy_since
    return {
        "pid": cell.pid,
        "class": cell.class_name,
        "state": state_of(cell),
        "name": names[0] if names else None,
        "names": names,
        "ancestors": list(cell.ancestors) or [pid for elder in cell.elders if (pid := elder()) is not None],
        "links": links,
        "monitors": watched,
        "monitored_by": monitored_by,
        "mailbox_len": len(cell.mailbox),
        "handled": cell.handled,
        "busy_for": None if busy_since is None or cell.dead else now - busy_since,
        "doing": cell.last_message_type if busy_since is not None else "",
        "waits_for": waiting_for.pid if waiting_for is not None else None,
        "uptime": now - cell.started_at,
        "exit_reason": cell.exit_reason,
    }


def state_of(cell: Cell) -> str:
    """What a process is at just now."""
    if cell.dead:
        return "zombie" if cell.number in table.zombies and _thread_lives(cell) else "dead"
    if cell.state == "running" and cell.interrupters:
        return "waiting"  # in a blocking call that an exit can end
    return cell.state


def stack_of(cell: Cell) -> str:
    """Where the thread of a process stands, as text."""
    thread = cell.thread
    ident = thread.ident if thread is not None else None
    frame = sys._current_frames().get(ident) if ident is not None else None
    if frame is None:
        return ""
    try:
        return "".join(traceback.format_stack(frame))
    finally:
        del frame


def children_of(cells: Iterable[Cell]) -> tuple[list[Cell], dict[Cell, list[Cell]]]:
    """The roots, and who started whom, among the given processes."""
    known = {cell.pid: cell for cell in cells}
    roots: list[Cell] = []
    below: dict[Cell, list[Cell]] = {}
    for cell in known.values():
        parent = known.get(cell.ancestors[0]) if cell.ancestors else None
        if parent is None:
            roots.append(cell)
        else:
            below.setdefault(parent, []).append(cell)
    return roots, below


def tree() -> str:
    """The tree of processes as text, one line each: class, number, name, state, mailbox, uptime, restarts."""
    roots, below = children_of(_all())
    lines: list[str] = []

    todo = [(root, "", "") for root in reversed(roots)]  # no recursion: who started whom can go deep
    while todo:
        cell, head, tail = todo.pop()
        lines.append(head + _line(cell))
        branch, rest = "└── ", "    "
        for child in reversed(below.get(cell, [])):
            todo.append((child, tail + branch, tail + rest))
            branch, rest = "├── ", "│   "
    return "\n".join(lines)


def _line(cell: Cell) -> str:
    facts = [state_of(cell), f"up {_age(time.monotonic() - cell.started_at)}"]
    if len(cell.mailbox):
        facts.append(f"mailbox {len(cell.mailbox)}")
    if cell.restarts:
        facts.append(f"restarts {cell.restarts}")
    awaited = cell.waiting_for
    if awaited is not None:
        facts.append(f"waits for {awaited.pid}")
    names = cell.names
    name = f" {shown(names[0])}" if names else ""
    return f"{cell.class_name} {cell.number}{name} ({', '.join(facts)})"


def _age(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), _MINUTE)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def dump() -> None:
    """Log every process with what is known of it, and the stack of its thread, as warnings."""
    for cell in _all():
        record = describe_cell(cell)
        record = {key: shown(value) if key in _AS_TEXT else value for key, value in record.items()}
        log.warning("process.dump", **record, stack=stack_of(cell))


_MINUTE = 60
_AS_TEXT = ("pid", "ancestors", "links", "monitors", "waits_for", "exit_reason", "names", "name")
