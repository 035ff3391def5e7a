"""Names: one flat table from hashable names to processes.

A name is gone before anybody hears of the death of its process. Names are resolved at each use: hold the
name, not the pid, of a process that may be restarted.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from allm_actors.beam._calls import fence
from allm_actors.beam._cell import table
from allm_actors.beam._current import current_process
from allm_actors.beam.pid import NameTaken, NoProcess, Pid, UnknownName

if TYPE_CHECKING:
    from allm_actors.beam._cell import Cell


def check_name(name: Any) -> None:
    """Refuse what cannot be a name.

    Raises:
        TypeError: `None`, a pid, or something unhashable.
    """
    if name is None or isinstance(name, Pid) or not isinstance(name, Hashable):
        raise TypeError(f"a name is a hashable value, not {type(name).__name__}")
    try:
        hash(name)
    except TypeError:
        raise TypeError(
            f"a name is a hashable value; this {type(name).__name__} holds one that is not"
        ) from None


def receiver(dest: Any) -> Cell | None:
    """The process that a pid or a name means just now, `None` if there is none."""
    if isinstance(dest, Pid):
        return dest._cell
    check_name(dest)
    return table.names.get(dest)


def register(name: Hashable, pid: Pid) -> None:
    """Give a process a name; it may have several.

    Raises:
        NameTaken: Another process has it; `.pid` is the holder.
        NoProcess: The process is dead.
        TypeError: `name` is `None`, a pid, or unhashable; `pid` is none.
    """
    check_name(name)
    if not isinstance(pid, Pid):
        raise TypeError(f"pid must be a Pid, not {type(pid).__name__}")
    claim(name, pid._cell, current_process())


def claim(name: Hashable, cell: Cell, caller: Cell | None) -> None:
    """Enter a name for a process, atomically; not for a caller that was killed."""
    with table.lock:
        if caller is not None:
            fence(caller)
        holder = table.names.get(name)
        if holder is not None:
            raise NameTaken(name, holder.pid)
        if cell.dead:
            raise NoProcess(cell.pid)
        table.names[name] = cell
        cell.names += (name,)


def unregister(name: Hashable) -> None:
    """Take a name away.

    Raises:
        UnknownName: Nobody has it.
    """
    check_name(name)
    caller = current_process()
    with table.lock:
        if caller is not None:
            fence(caller)
        cell = table.names.pop(name, None)
        if cell is None:
            raise UnknownName(name)
        cell.names = tuple(other for other in cell.names if other != name)


def whereis(name: Hashable) -> Pid | None:
    """The process that has the name now, or `None`."""
    check_name(name)
    cell = table.names.get(name)
    return cell.pid if cell is not None else None


def registered() -> list[Hashable]:
    """All names in use."""
    with table.lock:
        return list(table.names)
