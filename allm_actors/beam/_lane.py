"""The lane, where events wait for the one consumer that reads them; the latch, which any number wait for.

A lane belongs to its consumer. One stream may have it to itself, or many streams may share it: then each item
says whose it is, and each stream keeps its own count of what it may still send.

Guarantees:
    - Putting never blocks and takes no lock that Python code can hold: a finalizer may do it at any point.
    - A consumer that waits in an event loop is woken by the first item that arrives, and costs the producers
      nothing while it is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from typing import Any


class Lane:
    """A queue of items with one consumer at a time, a thread or a coroutine.

    Attributes:
        items: The items, oldest first.
        waiter: The loop and future of a coroutine that waits for an item, else `None`.
        owner: The thread that last took an item, `None` before the first.
    """

    __slots__ = ("items", "owner", "waiter")

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self.owner: threading.Thread | None = None

    def put(self, item: Any) -> None:
        """Add an item and wake the consumer; from any thread, also from a finalizer."""
        self.items.put(item)
        if self.waiter is not None:
            self.wake()

    def wake(self) -> None:
        """Wake the coroutine that waits, if one does."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            loop, arrived = waiter
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_arrive, arrived)

    def own(self) -> None:
        """Declare the running thread to be the consumer."""
        self.owner = threading.current_thread()

    async def arrival(self) -> None:
        """Wait, without blocking the event loop, until an item is there.

        Takes nothing: a cancelled wait loses no item.
        """
        loop = asyncio.get_running_loop()
        while self.items.empty():
            arrived = loop.create_future()
            waiter = self.waiter = (loop, arrived)
            # A producer puts, then looks for a waiter; we declare the waiter, then look for an item. Whatever
            # the order, one of the two sees the other.
            try:
                if self.items.empty():
                    await arrived
            finally:
                if self.waiter is waiter:
                    self.waiter = None


class Latch:
    """Something that happens once, and whoever waits for it: any number of threads and coroutines.

    Attributes:
        happened: Whether it has; never taken back.
    """

    __slots__ = ("_news", "_waiters", "happened")

    def __init__(self) -> None:
        self.happened = False
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._waiters: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = (
            queue.SimpleQueue()
        )

    def set(self, _what: object = None) -> None:
        """Say that it has happened, and wake everybody; from any thread."""
        self.happened = True
        self._news.put(None)
        with contextlib.suppress(queue.Empty):
            while True:
                loop, arrived = self._waiters.get_nowait()
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(_arrive, arrived)

    def wait(self, deadline: float) -> bool:
        """Wait for it, until `deadline` on the monotonic clock; whether it happened."""
        if not self.happened:
            with contextlib.suppress(queue.Empty):
                # Handed on to the next thread that waits.
                self._news.put(self._news.get(timeout=max(0.0, deadline - time.monotonic())))
        return self.happened

    async def await_(self, deadline: float) -> bool:
        """The same without blocking the event loop."""
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()
        # Here a waiter is declared, then the flag looked at; `set` raises the flag, then looks for waiters.
        self._waiters.put((loop, arrived))
        if not self.happened:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await arrived
        return self.happened


def _arrive(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)
