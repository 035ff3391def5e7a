"""The consumer's end of one stream: opened at the first read, halted when it is closed or dropped.

Guarantees:
    - Nothing is started before the first read.
    - `close` returns when the source is cleaned up, or kills the stream's process after `close_timeout`.
    - A read that meets the end returns when the stream's process is gone, so none of its threads is left.
    - Dropping the last reference halts the stream, without waiting and without a lock.
    - A read that is interrupted or cancelled loses nothing.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Never, Self

from allm_actors.beam._check import seconds
from allm_actors.beam._current import current_process
from allm_actors.beam._event_queue import END, End, EventQueue, Failed
from allm_actors.beam._lane import Latch
from allm_actors.beam._signals import exit as send_exit
from allm_actors.beam._signals import monitor
from allm_actors.beam.pid import Down, NoProcess, ProcessExit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from allm_actors.beam.pid import Pid

CLOSE_TIMEOUT: Final = 0.5

_forks = 0


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_count_fork)


def _count_fork() -> None:
    global _forks
    _forks += 1


class StreamReader:
    """Reads one stream; an iterator, and a context manager, also for `async`.

    One thread, or one coroutine, reads at a time; which one may change between two reads. Anybody may close.

    Args:
        start: Starts the stream's process, see `start_stream`; called with the queue, by the first read, in
            its thread.
        window: How many events may be in flight.
        close_timeout: Seconds that `close` allows the cleanup before it kills.
    """

    def __init__(
        self, start: Callable[[EventQueue], Pid], *, window: int = 64, close_timeout: float = CLOSE_TIMEOUT
    ) -> None:
        seconds("close_timeout", close_timeout, zero=True)
        self._start: Callable[[EventQueue], Pid] | None = start
        self._events = EventQueue(window)
        self._close_timeout = close_timeout
        self._pid: Pid | None = None
        self._dead = Latch()
        self._opening = threading.RLock()
        self._reading = threading.Lock()
        self._pending: Any = None
        self._forks = _forks

    @property
    def events(self) -> EventQueue:
        """The queue behind it."""
        return self._events

    @property
    def pid(self) -> Pid | None:
        """The stream's process; `None` before the first read."""
        return self._pid

    # --- reading --------------------------------------------------------------------------------------

    def take(self, timeout: float = math.inf) -> Any:
        """The next event, or the terminal item; after it, or once closed, `End()`.

        Raises:
            queue.Empty: Nothing came within `timeout` seconds.
            RuntimeError: Another thread is reading.
            NoProcess: The stream was opened before a fork of which this is the child; or its supervisor
                has ended.
        """
        if self._forks != _forks:
            self._refuse_after_fork()
        if not self._reading.acquire(False):  # by keyword it takes twice as long
            raise RuntimeError("the stream is being read already; one thread reads at a time")
        try:
            if self._start is not None:
                self._open()
            item = self._events.pop(timeout) if self._pending is None else self._pending
            if self._events.finished and type(item) in _TERMINAL:
                self._pending = item
                self._await_death(time.monotonic() + self._close_timeout)
                self._pending = END
            return item
        finally:
            self._reading.release()

    async def atake(self) -> Any:
        """`take` for a coroutine: the event loop goes on, and no thread waits. Raises as `take` does."""
        if self._forks != _forks:
            self._refuse_after_fork()
        if not self._reading.acquire(False):
            raise RuntimeError("the stream is being read already; one coroutine reads at a time")
        try:
            if self._start is not None:
                self._open()
            item = await self._events.apop() if self._pending is None else self._pending
            if self._events.finished and type(item) in _TERMINAL:
                self._pending = item
                await self._adeath()
                self._pending = END
            return item
        finally:
            self._reading.release()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._event(self.take(), StopIteration)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return self._event(await self.atake(), StopAsyncIteration)

    def _event(self, item: Any, stop: type[Exception]) -> Any:
        if self._pending is None:
            return item
        match item:
            case Failed(exception):
                raise exception
            case Down(pid=pid, reason=reason):
                raise ProcessExit(reason, pid)
            case _:
                raise stop

    def _refuse_after_fork(self) -> Never:
        raise NoProcess(self._pid, "the stream belongs to the program this one was forked from")

    def _open(self) -> None:
        with self._opening:
            start, self._start = self._start, None
            if start is None or self._events.halted:
                return
            _watch_forks()
            self._events.lane.own()
            try:
                pid = start(self._events)
            except BaseException:
                self._events.halt()
                raise
            self._pid = pid
            finalizer = weakref.finalize(self, self._events.halt)
            finalizer.atexit = False  # at exit the runtime ends all processes, in order
            monitor(pid, to=self._dead.set)

    # --- closing --------------------------------------------------------------------------------------

    def halt(self) -> None:
        """Deliver nothing more and have the stream end; does not wait. From any thread; idempotent."""
        self._events.halt()

    def close(self) -> None:
        """Halt, and wait until the source is cleaned up; kills the process after `close_timeout`.

        From any thread; idempotent. A read that waits in another thread meets the end.
        """
        self._events.halt()
        if self._forks != _forks:
            return
        with self._opening:
            self._start = None
            pid = self._pid
        if pid is None or self._is_own(pid):
            return
        if not self._await_death(time.monotonic() + self._close_timeout):
            send_exit(pid, "kill")

    async def aclose(self) -> None:
        """`close` for a coroutine."""
        self._events.halt()
        self._start = None
        pid = self._pid
        if pid is not None and self._forks == _forks and not self._is_own(pid) and not await self._adeath():
            send_exit(pid, "kill")

    @staticmethod
    def _is_own(pid: Pid) -> bool:
        cell = current_process()
        return cell is not None and cell.pid == pid

    def _await_death(self, deadline: float) -> bool:
        """Wait for the end of the process and of its thread; whether it came in time."""
        pid = self._pid
        if pid is None:
            return True
        # Not a checkpoint: a consumer that was told to exit still leaves its stream in order.
        if not self._dead.wait(deadline):
            return False
        thread = pid._cell.thread
        if thread is not None and thread is not threading.current_thread() and not pid._cell.killed:
            thread.join(max(0.0, deadline - time.monotonic()))
        return True

    async def _adeath(self) -> bool:
        return self._pid is None or await self._dead.await_(time.monotonic() + self._close_timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


_TERMINAL: Final = (End, Failed, Down)
