"""Timers: messages that arrive later, all served by one thread.

Guarantees:
    - Never early. The clock is `time.monotonic`.
    - A timer fires or is cancelled, never both: taking its number out of the table of live timers decides.
    - Setting and cancelling take no lock, so a finalizer may do both.
    - A timer to a pid goes when the process goes.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import queue
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from allm_actors.beam._check import seconds
from allm_actors.beam._current import current_process
from allm_actors.beam._log import log
from allm_actors.beam.mailbox import Inbox, wait_for
from allm_actors.beam.pid import Pid, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_PURGE_FROM = 256


class _Timer:
    __slots__ = ("dest", "due", "message", "number", "period")

    def __init__(self, number: int, due: float, dest: Any, message: Any, period: float | None) -> None:
        self.number, self.due, self.dest, self.message, self.period = number, due, dest, message, period

    def __lt__(self, other: _Timer) -> bool:
        return (self.due, self.number) < (other.due, other.number)


class _Retire:
    """Asks the thread to end; `heard` gets whether it does, for others may have given it work meanwhile."""

    __slots__ = ("heard",)

    def __init__(self) -> None:
        self.heard: queue.SimpleQueue[bool] = queue.SimpleQueue()


class TimerRef:
    """One timer: give it to `cancel_timer` or `read_timer`."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimerRef) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __repr__(self) -> str:
        return f"<TimerRef {self.number}>"


class TimerService:
    """The thread behind all timers, and a place to run what a finalizer must not run itself."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self.forget()

    def forget(self) -> None:
        """Start over with no timers and no thread, as after a fork."""
        self._live: dict[int, _Timer] = {}
        self._commands: queue.SimpleQueue[_Timer | Callable[[], None] | _Retire] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    # --- from any thread ------------------------------------------------------------------------------

    def after(self, delay: float, dest: Any, message: Any, *, period: float | None = None) -> int:
        """Have `message` delivered to `dest` in `delay` seconds; the timer's number."""
        timer = _Timer(next(self._numbers), time.monotonic() + delay, dest, message, period)
        self._live[timer.number] = timer
        if isinstance(dest, Pid):
            cell = dest._cell
            cell.timers[timer.number] = None
            if cell.dead:
                self.cancel(timer.number)
                return timer.number
        if delay != math.inf:
            self._commands.put(timer)
            self.ensure_thread()
        return timer.number

    def cancel(self, number: int) -> float | None:
        """Cancel a timer: the seconds it had left, `None` if it had fired or was cancelled."""
        timer = self._live.pop(number, None)
        if timer is None:
            return None
        self._untie(timer)
        left = max(0.0, timer.due - time.monotonic())
        timer.dest = None  # first: a timer without a receiver delivers nothing
        timer.message = None
        return left

    def left(self, number: int) -> float | None:
        """The seconds a timer has left, `None` if it has fired or was cancelled."""
        timer = self._live.get(number)
        return None if timer is None else max(0.0, timer.due - time.monotonic())

    def run(self, job: Callable[[], None]) -> None:
        """Run a short job in the timer thread, soon. It must not block."""
        self._commands.put(job)
        self.ensure_thread()

    def count(self) -> int:
        """How many timers are set."""
        return len(self._live)

    def ensure_thread(self) -> None:
        """Start the thread if it does not run."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            return
        # Not waited for: a finalizer may run while this very thread has the lock. Whoever has it looks for a
        # thread afterwards, and that thread finds what was put before we came here.
        if not self._starting.acquire(blocking=False):
            return
        try:
            thread = self._thread
            if thread is not None and thread.is_alive():
                return
            thread = threading.Thread(
                target=self._serve, args=(self._commands,), name="beam-timer", daemon=True
            )
            self._thread = thread
            thread.start()
        finally:
            self._starting.release()

    def stop(self, timeout: float) -> None:
        """End the thread; it starts again at the next use. Timers that were set are gone."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        for number in list(self._live):
            self.cancel(number)
        order = _Retire()
        self._commands.put(order)
        if thread is threading.current_thread():
            return
        with contextlib.suppress(queue.Empty):
            if order.heard.get(timeout=timeout):
                thread.join(timeout)

    # --- in the timer thread --------------------------------------------------------------------------

    def _serve(self, commands: queue.SimpleQueue[_Timer | Callable[[], None] | _Retire]) -> None:
        heap: list[_Timer] = []
        while True:
            now = time.monotonic()
            while heap and heap[0].due <= now:
                self._fire(heapq.heappop(heap), heap)
            try:
                if heap:
                    wait = max(0.0, heap[0].due - time.monotonic())
                    command = commands.get(timeout=min(wait, threading.TIMEOUT_MAX))
                else:
                    command = commands.get()
            except queue.Empty:
                continue
            if isinstance(command, _Retire):
                if self._retire(commands, heap):
                    command.heard.put(True)
                    return
                command.heard.put(False)
                continue
            if isinstance(command, _Timer):
                self._push(command, heap)
            else:
                _guarded(command)
            del command  # keep nothing alive while waiting

    def _retire(self, commands: queue.SimpleQueue[Any], heap: list[_Timer]) -> bool:
        """Whether the thread may end: nobody counts on it any more."""
        for timer in heap:
            if timer.number in self._live:  # set while the thread was asked to end
                commands.put(timer)
        heap.clear()
        # 1. We take the thread out of its place, then look for commands.
        # 2. Who gives a command puts it, then looks whether a thread is in place.
        # 3. So either we see the command here, or they start another thread.
        self._thread = None
        if commands.empty():
            return True
        with self._starting:
            own = threading.current_thread()
            if self._thread not in (None, own):
                return True
            self._thread = own
            return False

    def _push(self, timer: _Timer, heap: list[_Timer]) -> None:
        heapq.heappush(heap, timer)
        if len(heap) > _PURGE_FROM and len(heap) > 2 * len(self._live):
            heap[:] = [timer for timer in heap if timer.number in self._live]
            heapq.heapify(heap)

    def _fire(self, timer: _Timer, heap: list[_Timer]) -> None:
        if timer.period is None:
            if self._live.pop(timer.number, None) is None:
                return
            self._untie(timer)
        elif timer.number not in self._live:
            return
        message, dest = timer.message, timer.dest  # in this order, against `cancel`
        if timer.period is not None:
            timer.due = max(timer.due + timer.period, time.monotonic())
            heapq.heappush(heap, timer)
        _guarded(lambda: deliver(dest, message))

    @staticmethod
    def _untie(timer: _Timer) -> None:
        dest = timer.dest
        if isinstance(dest, Pid):
            dest._cell.timers.pop(timer.number, None)


def deliver(dest: Any, message: Any) -> None:
    """Hand a timer's message over: never refused for lack of room, dropped if nobody is there."""
    if dest is None:
        return
    if isinstance(dest, Inbox):
        dest.put(message)
        return
    if callable(dest):
        dest(message)
        return
    from allm_actors.beam._names import receiver

    cell = receiver(dest)
    if cell is not None and not cell.dead:
        cell.mailbox.put(message)


def _guarded(job: Callable[[], None]) -> None:
    try:
        job()
    except BaseException as exc:
        log.error("timer.failed", error=describe(exc))


service = TimerService()


def send_after(delay: float, dest: Pid | Hashable | Inbox | Callable[[Any], None], message: Any) -> TimerRef:
    """Send a message later.

    Args:
        delay: Seconds from now; 0 is soon, `math.inf` never. Never early; late by a few milliseconds at most
            on an idle machine.
        dest: A pid (the timer goes when the process goes), a name (resolved when it fires), an `Inbox`, or a
            callable that takes the message, must not block, and runs in the timer thread.
        message: The message; a process receives it in `handle_info`, whatever the bound of its mailbox.

    Raises:
        TypeError: `delay` is not a number.
        ValueError: `delay` is negative or NaN.
    """
    seconds("delay", delay, zero=True)
    _fenced()
    return TimerRef(service.after(delay, dest, message))


def send_interval(
    period: float, dest: Pid | Hashable | Inbox | Callable[[Any], None], message: Any
) -> TimerRef:
    """Send a message every `period` seconds, first after one period, until cancelled or the process is gone.

    Raises:
        TypeError: `period` is not a number.
        ValueError: `period` is 0, negative or NaN.
    """
    seconds("period", period)
    _fenced()
    return TimerRef(service.after(period, dest, message, period=period))


def cancel_timer(ref: TimerRef) -> float | None:
    """Cancel a timer.

    Returns:
        The seconds it had left; `None` if it had fired or was cancelled. A message that was delivered stays.
    """
    return service.cancel(ref.number)


def read_timer(ref: TimerRef) -> float | None:
    """The seconds a timer has left; `None` if it has fired or was cancelled."""
    return service.left(ref.number)


def sleep(delay: float) -> None:
    """`time.sleep` with a checkpoint: an exit of the calling process ends it at once.

    Raises:
        Exit: The calling process was told to exit.
        TypeError: `delay` is not a number.
        ValueError: `delay` is negative or NaN.
    """
    seconds("delay", delay, zero=True)
    if current_process() is None and delay != math.inf:
        time.sleep(min(delay, threading.TIMEOUT_MAX))
        return
    never: queue.SimpleQueue[None] = queue.SimpleQueue()
    try:
        wait_for(never, delay)
    except queue.Empty:
        return


def _fenced() -> None:
    from allm_actors.beam._calls import checkpoint_of

    checkpoint_of(current_process())
