"""Which process the running thread belongs to.

One thread-local slot, in a module of its own so that everything in the layer may read it without importing
the process machinery. It holds a `Cell` (the bookkeeping half of a process) or `None` in a thread that is
not a process.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from allm_actors.beam._cell import Cell


class _Slot(threading.local):
    cell: Cell | None = None


_slot = _Slot()


def current_process() -> Cell | None:
    """The process that runs in this thread, `None` in any other thread."""
    return _slot.cell


def set_current(cell: Cell | None) -> None:
    """Declare this thread to be the given process's (`None`: nobody's)."""
    _slot.cell = cell
