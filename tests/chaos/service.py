"""The service: 32 threads that read streams of four supervised engines, while everything goes wrong."""

from __future__ import annotations

import ctypes
import heapq
import itertools
import queue
import random
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import consumers
from .faults import HURRY, LIMITS
from .ledger import Entry, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from .monkey import Engines

WORKERS = 32
_HALTERS = 4
_HURRIED = 0.1  # of the streams
_SAMPLE_EVERY = 0.25
_PAGE = 4096
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


class Service:
    """Workers, and the threads that halt what they read.

    Attributes:
        deaths: How many workers died of what they did, and were replaced.
        memory: How many streams had ended, and the resident memory (bytes) at that moment, over time.
    """

    def __init__(self, engines: Engines, ledger: Ledger, *, seed: str, streams: int) -> None:
        self.deaths = 0
        self.memory: list[tuple[int, int]] = []
        self._engines = engines
        self._ledger = ledger
        self._seed = seed
        self._streams = streams
        self._next = 0
        self._taking = threading.Lock()
        self._ended: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
        self._halter = Halter()

    def run(self, timeout: float) -> None:
        """Have all streams read; returns when the last worker is gone.

        Raises:
            TimeoutError: They are not done in `timeout` seconds.
        """
        limit = time.monotonic() + timeout
        for number in range(WORKERS):
            self._start_worker(f"worker-{number}")
        working = WORKERS
        while working:
            self.memory.append((self._ledger.count, resident()))
            if time.monotonic() > limit:
                raise TimeoutError(f"{self._ledger.count} of {self._streams} streams in {timeout} s")
            try:
                thread = self._ended.get(timeout=_SAMPLE_EVERY)
            except queue.Empty:
                continue
            thread.join()
            working -= 1
            if self._next < self._streams:
                self.deaths += 1
                self._start_worker(thread.name)
                working += 1
        self._halter.close()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something done by another thread."""
        self._halter.later(seconds, action)

    # --- its threads ----------------------------------------------------------------------------------

    def _start_worker(self, name: str) -> None:
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        try:
            for number in iter(lambda: next(iter(self._take(1)), None), None):
                self._serve(number)
        finally:
            self._ended.put(threading.current_thread())

    def _take(self, count: int) -> range:
        """The numbers of as many streams as are asked for and left."""
        with self._taking:
            first = self._next
            self._next = min(first + count, self._streams)
            return range(first, self._next)

    def _serve(self, number: int) -> None:
        way, rng = consumers.draw(self._seed, number)
        consume = consumers.CONSUMERS[way]
        alone = way not in consumers.AT_ONCE
        numbers = [number] if alone else [number, *self._take(consumers.AT_ONCE[way] - 1)]
        entries = [self._entry(each, way) for each in numbers]
        try:
            consume(self, entries[0] if alone else entries, rng)
        finally:
            for entry in entries:
                self._ledger.add(entry)

    def _entry(self, number: int, way: str) -> Entry:
        rng = random.Random(f"{self._seed}/deadline/{number}")
        deadline = HURRY if rng.random() < _HURRIED else LIMITS["deadline"]
        return Entry(
            self._seed, number, self._engines.names[number % len(self._engines.names)], way, deadline
        )


class Halter:
    """Threads that do things later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"halter-{number}", daemon=True)
            for number in range(_HALTERS)
        ]
        for thread in self._threads:
            thread.start()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something in so many seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._count), action))
            self._changed.notify()

    def close(self) -> None:
        """Do what is left at once, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        while (action := self._next()) is not None:
            action()
            del action  # it holds a stream

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while True:
                if self._due and (self._closed or self._due[0][0] <= time.monotonic()):
                    return heapq.heappop(self._due)[2]
                if self._closed:
                    return None
                self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)


def resident() -> int:
    """The resident memory of this process, in bytes; 0 where it cannot be had.

    What the allocator keeps of what was freed is given back first. It has an arena for each of some threads,
    and those fill up in places for as long as they are used, whether or not anything is left in them.
    """
    if sys.platform != "linux":
        return 0
    if _trim is not None:
        _trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
