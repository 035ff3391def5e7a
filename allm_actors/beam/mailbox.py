"""Mailboxes: the one every process has, and one for threads that are not processes.

`Mailbox` is the inbox of a process, in pykka's protocol. Guarantees:
    - `put` never blocks and is reentrant: it may be called from a finalizer, a weakref callback or a signal
      handler.
    - Every item ever put is either handed out by `get` or dropped at closing, never stranded.

`Inbox` is a mailbox that any thread may own: target of sends, monitors and timers.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from pykka import ActorDeadError
from pykka._envelope import Envelope

from allm_actors.beam._current import current_process
from allm_actors.beam._log import log
from allm_actors.beam.pid import MailboxClosed, MailboxFull

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allm_actors.beam._cell import Cell
    from allm_actors.beam.pid import Pid


class Wake:
    """What is put into a queue to make a process that reads it look up."""

    __slots__ = ("cell",)

    def __init__(self, cell: Cell) -> None:
        self.cell = cell


class Counted(NamedTuple):
    """A message that counts against the bound of its mailbox."""

    item: Any


class Mailbox:
    """The mailbox of one process."""

    __slots__ = ("_bound", "_lock", "_queue", "_room", "closed", "dropped")

    def __init__(self, bound: int | None = None) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._bound = bound
        self._lock = threading.RLock() if bound is not None else None
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()  # one item for each message that counts
        self.closed = False
        self.dropped = 0

    def put(self, item: Any) -> None:
        """Add an item; dropped if the mailbox is closed. Never blocks, whatever the bound."""
        self._queue.put(item)
        if self.closed:
            # 1. The owner closes and drains between our caller's look at it and our put.
            # 2. Nobody would ever read the item, so whoever put it drains as well.
            self._drain()

    def put_message(self, item: Any, pid: Pid) -> None:
        """Add a message from another process, against the bound.

        Raises:
            MailboxFull: As many messages as the bound allows are waiting. At once: nothing blocks.
        """
        if self._lock is None:
            self.put(item)
            return
        with self._lock:
            assert self._bound is not None
            if self._room.qsize() >= self._bound:
                raise MailboxFull(pid, self._bound)
            self._room.put(None)
        self.put(Counted(item))

    def get(self) -> Any:
        """The next item; waits for one."""
        item = self._queue.get()
        return self.uncount(item) if type(item) is Counted else item

    def uncount(self, counted: Counted) -> Any:
        """The item, which no longer counts against the bound."""
        self._room.get_nowait()
        return counted.item

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty()

    def __len__(self) -> int:
        return self._queue.qsize()

    def wake(self, cell: Cell) -> None:
        """Make the owner look up from its wait."""
        self._queue.put(Wake(cell))

    def close(self) -> None:
        """Refuse everything from now on, and drop what waits."""
        self.closed = True
        self._drain()

    def empty_out(self) -> None:
        """Drop what is left, a wake-up as well, once the owner will never read again."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def _drain(self) -> None:
        get = self._queue.get_nowait
        wake: Wake | None = None
        dropped = 0
        while True:
            try:
                item = get()
            except queue.Empty:
                break
            if type(item) is Wake:
                wake = item
                continue
            dropped += 1
            refuse(item)
        if wake is not None:
            # A killed process sleeps on in its mailbox until it is woken: who drains leaves the wake there.
            self._queue.put(wake)
        self.dropped += dropped
        if dropped and log.wants_debug():
            log.debug("mailbox.dropped", count=dropped)


def refuse(item: Any) -> None:
    """Tell whoever waits on a message that came in by pykka's own envelope that it was dropped."""
    reply_to = getattr(item, "reply_to", None) if isinstance(item, Envelope) else None
    if reply_to is not None:
        dead = ActorDeadError("the process ended before it handled the message")
        with contextlib.suppress(queue.Full):  # answered already
            reply_to.set_exception((ActorDeadError, dead, None))


def wait_for(source: queue.SimpleQueue[Any], timeout: float) -> Any:
    """Take an item from a queue; an exit of the calling process ends the wait at once.

    Raises:
        queue.Empty: Nothing came within `timeout` seconds.
        Exit: The calling process was told to exit.
    """
    deadline = math.inf if timeout == math.inf else time.monotonic() + timeout
    cell = current_process()
    if cell is None:
        while type(item := _get(source, deadline)) is Wake:
            _pass_on(item, source)
        return item
    outer, cell.parked = cell.parked, source
    state, cell.state = cell.state, "waiting"
    try:
        while True:
            if cell.must_exit:
                cell.obey()
            if type(item := _get(source, deadline)) is not Wake:
                return item
            if item.cell is not cell:
                _pass_on(item, source)
    finally:
        cell.parked = outer
        cell.state = state


def _pass_on(wake: Wake, source: queue.SimpleQueue[Any]) -> None:
    """Give a wake-up that several readers of one queue could take to the reader it was meant for."""
    if wake.cell.parked is source:
        source.put(wake)
        time.sleep(0)  # let that reader run


def _get(source: queue.SimpleQueue[Any], deadline: float) -> Any:
    if deadline == math.inf:
        return source.get()
    left = deadline - time.monotonic()
    if left <= 0:
        return source.get_nowait()
    return source.get(timeout=min(left, threading.TIMEOUT_MAX))


class Inbox:
    """A mailbox for a thread that is not a process.

    It can be the target of `beam.send`, of `monitor(pid, to=inbox)` and of timers. Any number of threads may
    put, and read.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def put(self, message: Any) -> bool:
        """Add a message; `False` if the inbox is closed. Never blocks."""
        if self._closed:
            return False
        self._queue.put(message)
        return True

    def receive(self, timeout: float = math.inf) -> Any:
        """The next message.

        Args:
            timeout: Seconds to wait for one; `math.inf` for ever.

        Raises:
            queue.Empty: No message came in time.
            MailboxClosed: The inbox is closed, and empty.
            Exit: The calling process was told to exit.
        """
        from allm_actors.beam._check import seconds

        seconds("timeout", timeout, zero=True)
        deadline = math.inf if timeout == math.inf else time.monotonic() + timeout
        while True:
            if self._closed and self._queue.empty():
                raise MailboxClosed("the inbox is closed")
            item = wait_for(self._queue, math.inf if deadline == math.inf else deadline - time.monotonic())
            if type(item) is _Closed:
                self._queue.put(item)  # for the next reader
                if self._queue.qsize() == 1:
                    raise MailboxClosed("the inbox is closed")
                continue
            if type(item) is Delivery:
                if not item.valid():
                    continue
                return item.message
            return item

    def close(self) -> None:
        """Refuse further messages; those that wait can still be received. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(_Closed())

    def __iter__(self) -> Iterator[Any]:
        """Every message, until the inbox is closed and empty."""
        while True:
            try:
                yield self.receive()
            except MailboxClosed:
                return

    def __len__(self) -> int:
        return self._queue.qsize()


class _Closed:
    """Marks the end of an inbox."""


class Delivery:
    """A message that can be taken back until it is read: a `Down`, whose monitor may be removed."""

    __slots__ = ("_active", "message")

    def __init__(self, message: Any, active: Any) -> None:
        self.message = message
        self._active = active

    def valid(self) -> bool:
        """Whether it is still to be delivered."""
        return bool(self._active.active)
