"""One consumer for many streams.

A `Mailbox` is a stream's buffer made public. Its streams put their events into one lane; the reader sorts
them by stream and serves the streams in turn, so that what a slow stream has to say waits behind one event of
each other stream, however much those have sent.

Guarantees:
    - A stream's own order is kept.
    - Credit is per stream: one that has used up its share waits, the others do not.
    - Filters and `on_event` run where the mailbox is read. What `on_event` raises, and the bug of an adapter,
      come out there; they end that stream only.
    - Closing halts every stream that feeds it. So does dropping it.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from allm_actors import beam
from allm_actors.beam.mailbox import wait_for
from allm_actors.beam.stream import SKIP, EventQueue, Lane, Latch
from allm_actors.data import ErrorEvent, MessageCompleted
from allm_actors.streaming._inband import Gate, Raised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from allm_actors.data import Event
    from allm_actors.streaming._producer import Producer
    from allm_actors.streaming.filters import Filter

__all__ = ["Envelope", "Mailbox", "StreamHandle"]

_SHARE: Final = 64
_CLOSE_TIMEOUT: Final = 0.5
_INBAND: Final = frozenset({Gate, Raised})
_LAST: Final = frozenset({MessageCompleted, ErrorEvent})


class StreamHandle:
    """One stream that feeds a mailbox.

    Attributes:
        request_id: The call's id.
    """

    def __init__(self, feed: _Feed, request_id: str) -> None:
        self.request_id = request_id
        self._feed = feed

    def halt(self) -> None:
        """End this stream alone and discard what it said. Idempotent, from any thread; does not wait."""
        self._feed.halt()

    @property
    def done(self) -> bool:
        """Whether nothing more of it will be delivered."""
        return self._feed.done

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.request_id}{' done' if self.done else ''}>"


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event, and the stream that said it."""

    stream: StreamHandle
    event: Event


class _Feed:
    """One stream as its mailbox sees it. Holds no mailbox, so that one that was dropped can go."""

    handle: StreamHandle

    def __init__(
        self,
        producer: Producer,
        lane: Lane,
        on_event: Callable[[Any], object] | None,
        passes: Filter | None,
        last: frozenset[type],
    ) -> None:
        self.producer = producer
        self.queue = EventQueue(lane=lane, tag=self)
        self.on_event = on_event
        self.passes = passes
        self.last = last
        self.pid: beam.Pid | None = None
        self.gone = Latch()  # set once the process is dead
        self.pending: deque[Any] = deque()
        self.last_words: deque[Any] = deque()  # what there is to say after the end of the process
        self.said_last = False

    @property
    def done(self) -> bool:
        return self.said_last or (self.queue.finished and not self.last_words)

    def start(self) -> None:
        try:
            pid = self.pid = self.producer.start(self.queue)
        except beam.NoProcess:  # what it depends on is gone: that is for the reader to hear
            nobody: Any = None
            self.queue.on_down(beam.Down(nobody, None, "noproc", None))
        else:
            beam.monitor(pid, to=self.gone.set)

    def halt(self) -> None:
        self.last_words.clear()
        self.queue.halt()
        self.producer.finish_soon()

    def wait(self, deadline: float) -> bool:
        """Wait until its process is gone, on the monotonic clock; whether it was in time."""
        return self.pid is None or self.gone.wait(deadline)

    async def await_(self, deadline: float) -> bool:
        """The same without blocking the loop."""
        return self.pid is None or await self.gone.await_(deadline)

    def kill(self) -> None:
        if self.pid is not None:
            beam.exit(self.pid, "kill")


@dataclass(frozen=True, slots=True)
class _Ending:
    """The terminal item of a stream, taken from the lane and not yet dealt with."""

    feed: _Feed
    item: Any


_CLOSED: Final = (None, "closed")
"""Wakes the reader of a mailbox that was closed."""


class Mailbox:
    """A bounded buffer that many streams feed and one consumer reads.

    ```python
    with Mailbox() as mailbox:
        for prompt in prompts:
            open_stream(engine, prompt, into=mailbox)
        for envelope in mailbox:
            print(envelope.stream.request_id, envelope.event)
    ```

    Args:
        maxsize: How many events may wait, over all streams. Each may have 64 of them, less when many are
            open, at least 1.

    Raises:
        TypeError: `maxsize` is no whole number.
        ValueError: It is below 1.
    """

    def __init__(self, maxsize: int = 256) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be a whole number of events, not {type(maxsize).__name__}")
        if maxsize < 1:
            raise ValueError(f"maxsize must be at least 1, not {maxsize}")
        self.maxsize = maxsize
        self._lane = Lane()
        self._lock = threading.Lock()  # guards the table of feeds and `_closed`
        self._feeds: dict[_Feed, None] = {}
        self._closed = False
        self._turn = threading.Lock()
        self._ready: deque[_Feed] = deque()  # feeds with something pending, next to be served first
        self._finalizer = weakref.finalize(self, _halt_all, self._feeds)

    # --- feeding --------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def check_open(self) -> None:
        """Raise `ValueError` if the mailbox is closed."""
        if self._closed:
            raise ValueError("the mailbox is closed: no stream can be opened into it")

    def feed(  # noqa: PLR0913
        self,
        producer: Producer,
        *,
        request_id: str,
        on_event: Callable[[Any], object] | None = None,
        passes: Filter | None = None,
        last: frozenset[type] = _LAST,
        handle: Callable[[Any, str], StreamHandle] = StreamHandle,
    ) -> StreamHandle:
        """Start a producer whose events arrive here.

        Args:
            producer: What sends the events; started at once.
            request_id: The call's id.
            on_event: Runs where the mailbox is read.
            passes: What the reader wants to see of this stream.
            last: The events with which it is done.
            handle: Makes the handle.

        Raises:
            ValueError: The mailbox is closed; nothing was started.
        """
        feed = _Feed(producer, self._lane, on_event, passes, last)
        feed.handle = handle(feed, request_id)
        with self._lock:
            self.check_open()
            self._feeds[feed] = None
            self._divide()
        # Closing in the meantime halts the queue: what starts with such a queue ends before it asks for
        # anything.
        try:
            feed.start()
        except BaseException:
            self._drop(feed)
            raise
        return feed.handle

    def _divide(self) -> None:
        """Give every stream its share of the room; with the lock held."""
        share = max(1, min(_SHARE, self.maxsize // max(1, len(self._feeds))))
        for feed in self._feeds:
            if feed.queue.window != share:
                feed.queue.window = share

    def _drop(self, feed: _Feed) -> None:
        with self._lock:
            if feed in self._feeds:
                del self._feeds[feed]
                self._divide()

    # --- reading --------------------------------------------------------------------------------------

    def get(self, timeout: float | None = None) -> Envelope:
        """The next envelope, also of a stream that is opened while this waits.

        Args:
            timeout: Seconds to wait; `None` for ever.

        Raises:
            queue.Empty: Nothing came in time.
            MailboxClosed: The mailbox is closed.
            Exception: What an `on_event` raised, or the bug of an adapter; that stream has ended, the others
                go on.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._reading():
            found = self._next(deadline, idle=True)
        if found is None:
            raise beam.MailboxClosed("the mailbox is closed")
        return found

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Envelope:
        """The next envelope; ends when the mailbox is closed, or nothing feeds it any more."""
        with self._reading():
            found = self._next(math.inf, idle=False)
        if found is None:
            raise StopIteration
        return found

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Envelope:
        """The next envelope; the loop is free while it waits. A cancelled wait loses nothing."""
        with self._reading():
            while not self._closed:
                found = self._look()
                if isinstance(found, Envelope):
                    return found
                if isinstance(found, _Ending):
                    await found.feed.await_(time.monotonic() + _CLOSE_TIMEOUT)
                    self._ended(found)
                elif self._feeds:
                    await self._lane.arrival()
                else:
                    break
        raise StopAsyncIteration

    def _next(self, deadline: float, *, idle: bool) -> Envelope | None:
        """The next envelope; `None` when there is none to wait for."""
        items = self._lane.items
        while not self._closed:
            found = self._look()
            if isinstance(found, Envelope):
                return found
            if isinstance(found, _Ending):
                found.feed.wait(time.monotonic() + _CLOSE_TIMEOUT)
                self._ended(found)
            elif self._feeds or idle:
                left = math.inf if deadline == math.inf else deadline - time.monotonic()
                self._sort(wait_for(items, left))
            else:
                break
        return None

    def _look(self) -> Envelope | _Ending | None:
        """Something to deal with out of what has arrived, `None` if there is nothing."""
        items = self._lane.items
        while True:
            while not items.empty():
                self._sort(items.get())
            if not self._ready:
                return None
            feed = self._ready.popleft()
            found = self._first_of(feed) if feed.pending else self._last_word(feed)
            if found is not None:
                return found

    def _first_of(self, feed: _Feed) -> Envelope | _Ending | None:
        """What came first of what is pending; `None` if it is not for the reader."""
        item = feed.queue.accept(feed.pending.popleft())
        if feed.pending:
            self._ready.append(feed)
        if item is SKIP:
            if feed.queue.finished:
                self._drop(feed)
            return None
        if feed.queue.finished:
            return _Ending(feed, item)
        if type(item) in _INBAND:
            self._obey(feed, item)
            return None
        return self._envelope(feed, item)

    def _obey(self, feed: _Feed, item: Gate | Raised) -> None:
        """Do what lies between the events of a stream: open a gate, or raise what its source raised."""
        if isinstance(item, Gate):
            item.open()
            return
        feed.halt()
        self._drop(feed)
        raise item.error

    def _sort(self, item: Any) -> None:
        """Put what came in the lane to what else came from the same stream."""
        if type(item) is tuple and item[0] is not None:
            feed, said = item
            if not feed.pending:
                self._ready.append(feed)
            feed.pending.append(said)

    def _ended(self, ending: _Ending) -> None:
        """Take down what there is to say about the end of a stream; raises the bug of an adapter."""
        feed = ending.feed
        self._drop(feed)
        feed.pending.clear()
        feed.last_words.extend(feed.producer.outcome(ending.item))
        if feed.last_words:
            self._ready.appendleft(feed)

    def _last_word(self, feed: _Feed) -> Envelope | None:
        try:
            event = feed.last_words.popleft()
        except IndexError:  # halted from another thread just now
            return None
        if feed.last_words:
            self._ready.append(feed)
        return self._envelope(feed, event)

    @staticmethod
    def _envelope(feed: _Feed, event: Any) -> Envelope | None:
        """The event as the reader gets it; `None` if the reader does not want to see it."""
        if type(event) in feed.last:
            feed.said_last = True
            feed.producer.note(event)
        if feed.on_event is not None:
            try:
                feed.on_event(event)
            except BaseException:
                feed.halt()
                raise
            if feed.queue.halted:  # by the observer itself, say
                return None
        return Envelope(feed.handle, event) if feed.passes is None or feed.passes(event) else None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        if not self._turn.acquire(blocking=False):
            raise RuntimeError("another consumer is reading this mailbox")
        try:
            yield
        finally:
            self._turn.release()

    # --- closing --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Halt every stream that feeds it, discard what is buffered, return once their resources are free.

        Idempotent, from any thread; a reader that waits elsewhere ends. It waits half a second at most.
        """
        feeds = self._shut()
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        for feed in feeds:
            if not feed.wait(deadline):
                feed.kill()

    async def aclose(self) -> None:
        """`close()` for coroutines: the loop is free meanwhile."""
        feeds = self._shut()
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        for feed in feeds:
            if not await feed.await_(deadline):
                feed.kill()

    def _shut(self) -> list[_Feed]:
        self._finalizer.detach()
        with self._lock:
            self._closed = True
            feeds = list(self._feeds)
            self._feeds.clear()
        for feed in feeds:  # all are told before one is waited for, so they end together
            feed.halt()
        self._lane.put(_CLOSED)
        return feeds

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

    def __repr__(self) -> str:
        return f"<Mailbox of {len(self._feeds)} streams{', closed' if self._closed else ''}>"


def _halt_all(feeds: dict[_Feed, None]) -> None:
    """Runs when a mailbox was dropped: nobody else reads what these streams send."""
    for feed in list(feeds):
        feed.halt()
