"""The queue between one producer and one consumer, with credit.

Data flows down a lane that the consumer owns; credit and halt flow up a queue of their own. Two counters say
how much is in flight: `sent` is written by the producer only, `taken` by the consumer only.

Guarantees:
    - At most `window` events are in flight. A producer that has used them up waits until half are taken, so
      it is woken once per half window and not once per event.
    - Events arrive in order, none twice, none lost; after them comes exactly one terminal item. Terminal
      items need no credit and never block.
    - After `halt` nothing more is delivered, and whoever waits at either end is woken.
    - `halt` takes no lock and runs no user code: a finalizer may call it.
"""

from __future__ import annotations

import dataclasses
import math
import queue
from dataclasses import dataclass, field
from threading import current_thread
from typing import TYPE_CHECKING, Any, Final, Never

from allm_actors.beam._check import seconds
from allm_actors.beam._current import current_process
from allm_actors.beam._lane import Lane
from allm_actors.beam._log import log
from allm_actors.beam.mailbox import Wake, wait_for
from allm_actors.beam.pid import Crash, Exit, Shutdown, is_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from allm_actors.beam.pid import Down

HALTED: Final = Shutdown("halted")
"""The reason of a stream that its consumer did not want to go on."""

OWNER_CHECK: Final = 0.5
"""How often, in seconds, a producer that waits for credit looks whether its consumer's thread lives."""


@dataclass(frozen=True, slots=True)
class End:
    """The source was exhausted, and cleaned up."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The source raised `exception`, and was cleaned up.

    Attributes:
        exception: The exception itself, its traceback cleared: it keeps no frame of the producer alive.
        report: The formatted traceback.
    """

    exception: BaseException
    report: str = field(default="", compare=False, repr=False)


END: Final = End()


class Skip:
    """What `EventQueue.accept` returns for an item that is nothing for the consumer."""


SKIP: Final = Skip()


class _Mark:
    """An item that is no event: the terminal item of a stream, or the poke that goes with a halt."""

    __slots__ = ("terminal",)

    def __init__(self, terminal: Any) -> None:
        self.terminal = terminal


_POKE: Final = _Mark(None)


class EventQueue:
    """A bounded queue from one producer to one consumer.

    Args:
        window: How many events may be in flight, at least 1.
        lane: A lane to share with other queues; by default the queue has one of its own. Items in a shared
            lane are pairs `(tag, item)`; whoever reads the lane hands `item` to this queue's `accept`.
        tag: What marks this queue's items in a shared lane; the queue itself if not given.
        on_halt: Called without arguments by `halt`, in its thread, which may be a finalizer's: it must not
            block, take a lock or run user code.

    Attributes:
        sent: How many events were pushed. Written by the producer only.
        taken: How many events the consumer took. Written by the consumer only.
        halted: Whether `halt` was called.
        finished: Whether nothing more will be delivered: the terminal item was taken, or the queue halted.
    """

    __slots__ = (
        "__weakref__",
        "_blocked",
        "_closed",
        "_credit",
        "_lane",
        "_put",
        "_tag",
        "_window",
        "finished",
        "halted",
        "on_halt",
        "sent",
        "taken",
    )

    def __init__(
        self,
        window: int = 64,
        *,
        lane: Lane | None = None,
        tag: Any = None,
        on_halt: Callable[[], None] | None = None,
    ) -> None:
        self._window = _checked_window(window)
        self._tag = tag if tag is not None or lane is None else self
        self._lane = lane if lane is not None else Lane()
        self._put = self._lane.items.put
        self._credit: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._blocked = False
        self._closed = False
        self.on_halt = on_halt
        self.sent = 0
        self.taken = 0
        self.halted = False
        self.finished = False

    # --- both ends ------------------------------------------------------------------------------------

    @property
    def window(self) -> int:
        """How many events may be in flight. May be changed while the stream runs, by the consumer.

        A smaller window takes nothing back: the producer waits until enough was taken.
        """
        return self._window

    @window.setter
    def window(self, window: int) -> None:
        self._window = _checked_window(window)
        self._credit.put(None)

    @property
    def in_flight(self) -> int:
        """How many events were sent and not yet taken."""
        return self.sent - self.taken

    @property
    def lane(self) -> Lane:
        """The lane the events arrive in."""
        return self._lane

    def halt(self) -> None:
        """Deliver nothing more, and wake whoever waits at either end.

        Idempotent, from any thread, also from a finalizer. The producer meets `Exit(Shutdown("halted"))`
        at its next push.
        """
        if self.halted:
            return
        self.halted = self.finished = self._closed = True
        self._credit.put(None)
        self._mark(_POKE)
        if self.on_halt is not None:
            self.on_halt()

    # --- the producer's end ---------------------------------------------------------------------------

    def push(self, event: Any) -> None:
        """Send an event; waits for credit when `window` events are in flight.

        A checkpoint.

        Raises:
            Exit: The queue was halted (`Shutdown("halted")`), or the calling process was told to exit.
            ValueError: The terminal item was sent already.
        """
        cell = current_process()
        if cell is not None and cell.must_exit:
            cell.obey()
        if self._closed:
            self._refuse()
        if self.sent - self.taken >= self._window:
            self._wait_for_credit()
        self.sent += 1
        self._put(event if self._tag is None else (self._tag, event))
        if self._lane.waiter is not None:
            self._lane.wake()

    def end(self) -> None:
        """Say that no event follows. Never blocks; without effect after another terminal item."""
        self._finish(END)

    def fail(self, exception: BaseException, report: str | None = None) -> None:
        """Say that the source raised `exception`. Never blocks; without effect after another terminal item.

        The exception's traceback is cleared; `report` is its text, and is made from it if not given.
        """
        made = Crash.of(exception).report
        self._finish(Failed(exception, made if report is None else report))

    def on_down(self, down: Down) -> None:
        """Say that the producer died otherwise; how a monitor with this queue as its target does it.

        Never blocks, from any thread; without effect after another terminal item.
        """
        reason = getattr(down.pid, "exit_reason", None)
        if is_word(down.reason, "noproc") and reason is not None:
            down = dataclasses.replace(down, reason=reason)  # it died before it was watched
        self._finish(down)

    def _finish(self, terminal: Any) -> None:
        # Two threads may both get past this look (a kill and the end of a source, say): the consumer takes
        # the first mark and ignores the second.
        if not self._closed:
            self._closed = True
            self._mark(_Mark(terminal))

    def _mark(self, mark: _Mark) -> None:
        self._lane.put(mark if self._tag is None else (self._tag, mark))

    def _wait_for_credit(self) -> None:
        while True:
            # The consumer counts, then looks whether we wait; we say that we wait, then look at the count.
            # Whatever the order, one of the two sees the other.
            self._blocked = True
            taken = self.taken
            if self.sent - taken <= self._window // 2:
                self._blocked = False
                return
            try:
                wait_for(self._credit, OWNER_CHECK)
            except queue.Empty:
                if self.taken == taken:
                    self._look_after_owner(taken)
            if self._closed:
                self._refuse()

    def _refuse(self) -> Never:
        if self.halted:
            raise Exit(HALTED)
        raise ValueError("nothing can follow the terminal item of a stream")

    def _look_after_owner(self, taken: int) -> None:
        owner = self._lane.owner
        if owner is None or owner.is_alive():
            return
        if self._lane.owner is owner and self.taken == taken:
            log.warning("stream.owner_died", owner=owner.name, in_flight=self.sent - taken)
            self.halt()

    # --- the consumer's end ---------------------------------------------------------------------------

    def pop(self, timeout: float = math.inf) -> Any:
        """Take the next event, or the terminal item: `End`, `Failed` or `Down`.

        Once the terminal item was taken, or the queue halted, every pop returns `End()` at once. In a process
        it is a checkpoint. For a queue with a lane of its own.

        Args:
            timeout: Seconds to wait; `math.inf` for ever.

        Raises:
            queue.Empty: Nothing came in time. Nothing is lost.
            Exit: The calling process was told to exit.
        """
        if timeout is not math.inf:
            seconds("timeout", timeout, zero=True)
        cell = current_process()
        if cell is not None and cell.must_exit:
            cell.obey()
        items = self._lane.items
        while not self.finished:
            item = wait_for(items, timeout) if items.empty() else items.get()
            item = self.accept(item)
            if item is not SKIP:
                return item
        if cell is not None and cell.must_exit:
            cell.obey()  # halted because this very process ends: that is no end of the stream
        return END

    async def apop(self) -> Any:
        """Take the next item as `pop` does, from a coroutine; a cancelled wait loses nothing."""
        items = self._lane.items
        while not self.finished:
            if items.empty():
                await self._lane.arrival()
                continue
            item = self.accept(items.get())
            if item is not SKIP:
                return item
        return END

    def accept(self, item: Any) -> Any:
        """Count an item that was read from the lane; in the consumer's thread.

        Returns:
            The event; or the terminal item, the first time; or `SKIP`, when there is nothing to deliver.
        """
        kind = type(item)
        if kind is _Mark or kind is Wake or self.finished:
            if kind is not _Mark or item.terminal is None or self.finished:
                return SKIP
            self.finished = True
            return item.terminal
        self.taken = taken = self.taken + 1
        self._lane.owner = current_thread()
        if self._blocked and self.sent - taken <= self._window // 2:
            self._blocked = False
            self._credit.put(None)
        return item


def _checked_window(window: int) -> int:
    if isinstance(window, bool) or not isinstance(window, int):
        raise TypeError(f"window must be a whole number of events, not {type(window).__name__}")
    if window < 1:
        raise ValueError(f"window must be at least 1 event, not {window}")
    return window
