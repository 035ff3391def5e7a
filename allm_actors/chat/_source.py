"""Where the events of a run come from: a generator, advanced by whoever reads.

A run is a generator over the taps of its turns and its tool batches. It yields events, and a `GATE` before
each side effect. Iterated with `next()` it runs in the consumer's thread, where a gate is open once reached:
being advanced means that everything before was taken. For asyncio and mailboxes a driver process
advances it, and waits at each gate until the reader has taken everything before it and asks for more.

Guarantees:
    - Where a run is read changes neither its events nor their order.
    - A run that is closed does nothing further: what was at work is stopped, no side effect begins, and no
      event follows.
    - `halt` waits for nothing, takes no lock and runs nobody's code: a finalizer may call it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, Protocol

from allm_actors.beam.runtime import task_supervisor
from allm_actors.beam.stream import start_stream
from allm_actors.beam.timer import service
from allm_actors.streaming._inband import Gate, Raised
from allm_actors.streaming._producer import Producer, ProducerTap
from allm_actors.streaming.event_stream import ENDED

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from allm_actors import beam
    from allm_actors.beam.stream import EventQueue
    from allm_actors.telemetry import Span

__all__ = ["GATE", "Part", "Run", "RunProducer", "RunTap"]


class _GateAhead:
    """The one value a run yields before a side effect."""

    def __repr__(self) -> str:
        return "GATE"


GATE: Final = _GateAhead()


class Part(Protocol):
    """Something a run waits for: the tap of a turn, or a batch of tools."""

    def halt(self) -> None:
        """Want no more; from any thread and from a finalizer."""
        ...

    def close(self) -> None:
        """Halt, and wait half a second at most until it is gone."""
        ...


class Run:
    """One run, and what stops it: a generator, and the part of it that is at work.

    Attributes:
        closed: Whether it is to do nothing further.
    """

    def __init__(self) -> None:
        self.closed = False
        self._advanced = False
        self._events: Generator[Any, None, Any] | None = None
        self._part: Part | None = None
        self._spans: list[Span] = []

    # --- for the generator ----------------------------------------------------------------------------

    def begin(self, events: Generator[Any, None, Any]) -> None:
        """Take the generator; nothing of it runs before it is asked for."""
        self._events = events

    def work_on(self, part: Part | None) -> bool:
        """Make a part the one that closing stops; `False`, and it is stopped, if the run is closed."""
        # We put the part in place, then look for the mark; whoever closes marks, then looks for the part.
        # Whatever the order, one of the two sees the other.
        self._part = part
        if self.closed and part is not None:
            part.close()
        return not self.closed

    def span(self, span: Span) -> Span:
        """Have a span end with the run, if `end` does not end it before; the one begun last ends first."""
        self._spans.append(span)
        return span

    def end(self, span: Span, error: BaseException | None = None, **result: Any) -> None:
        """End a span with its result."""
        with contextlib.suppress(ValueError):
            self._spans.remove(span)
        span.finish(error, **result)

    def end_last(self, error: BaseException) -> None:
        """End the span begun last."""
        with contextlib.suppress(IndexError):
            self._spans.pop().finish(error)

    # --- for whoever reads ----------------------------------------------------------------------------

    def next(self) -> Any:
        """The next event or `GATE`; `ENDED` at the end and once closed. What it raises has closed the run."""
        events = self._events
        if self.closed or events is None:
            return ENDED
        self._advanced = True
        try:
            item = next(events)
        except StopIteration:
            self.close()
            return ENDED
        except BaseException as error:
            self.close(error)
            raise
        return ENDED if self.closed else item

    @property
    def at_work(self) -> bool:
        """Whether closing may have to wait."""
        return self._advanced and self._part is not None and not self.closed

    def halt(self) -> None:
        """Want no more."""
        self.closed = True
        part = self._part
        if part is not None:
            part.halt()
        if self._spans:
            service.run(self._end_spans)

    def close(self, error: BaseException | None = None) -> None:
        """Want no more, and wait until what is at work is gone: half a second at most."""
        self.closed = True
        part, self._part = self._part, None
        if part is not None:
            part.close()
        self._end_spans(error)
        events, self._events = self._events, None
        if events is not None:
            with contextlib.suppress(ValueError):  # another thread is in it, and will find the run closed
                events.close()

    def _end_spans(self, error: BaseException | None = None) -> None:
        while self._spans:
            with contextlib.suppress(IndexError):  # two threads may be at it
                self._spans.pop().finish(error)


class _Driven:
    """What a driver process iterates: the items of a run, and the gates its reader has to open."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __iter__(self) -> Iterator[Any]:
        run = self._run
        said = False  # whoever starts a driver asks for its first item
        try:
            while (item := run.next()) is not ENDED:
                if item is not GATE:
                    said = True
                    yield item
                elif said:
                    said = False
                    gate = Gate()
                    yield gate
                    gate.wait()
        except Exception as error:  # noqa: BLE001  it is the reader's, and comes out where the stream is read
            yield Raised(error)

    def close(self) -> None:
        """Stop what is at work; in the driver process."""
        self._run.close()


class RunProducer(Producer):
    """A driver that can be started: under the supervisor of tasks, it advances one run."""

    def __init__(self, run: Run) -> None:
        self._driven = _Driven(run)
        super().__init__(self._driven)
        self._run = run

    def start(self, events: EventQueue, *, consumer: beam.Pid | None = None) -> beam.Pid:
        """Start the driver; a `consumer` that ends halts it."""
        return start_stream(
            self._driven, events, supervisor=task_supervisor(), id="driver", consumer=consumer
        )

    def note(self, event: Any) -> None:
        """Nothing to take notice of: the run folds its own events."""

    def finish(self, error: BaseException | None = None) -> None:
        """The driver has ended: so has the run."""
        self._run.close(error)

    def finish_soon(self) -> None:
        """The reader wants no more."""
        self._run.halt()


class RunTap:
    """The tap of a run. Reading it from a coroutine puts a driver between the two, for good."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._driver: ProducerTap | None = None

    def take(self) -> Any:
        """The next event, or `ENDED`; the run is advanced in this thread."""
        driver = self._driver
        if driver is None:
            advance = self._run.next
            while (item := advance()) is GATE:
                pass
            return item
        while (item := self._passed(driver.take())) is GATE:
            pass
        if type(item) is Raised:
            self.close()
            raise item.error
        return item

    async def atake(self) -> Any:
        """The next event, or `ENDED`, without blocking the loop; a driver advances the run."""
        driver = self._driver
        if driver is None:
            if self._run.closed:
                return ENDED
            driver = self._driver = ProducerTap(RunProducer(self._run))
        while (item := self._passed(await driver.atake())) is GATE:
            pass
        if type(item) is Raised:
            await self.aclose()
            raise item.error
        return item

    @staticmethod
    def _passed(item: Any) -> Any:
        if type(item) is Gate:
            item.open()
            return GATE
        return item

    def halt(self) -> None:
        """Want no more; from any thread and from a finalizer."""
        self._run.halt()
        if self._driver is not None:
            self._driver.halt()

    def close(self) -> None:
        """Halt, and wait until what is at work is gone; not for handlers."""
        if self._driver is None:
            self._run.close()
        else:
            self._run.halt()
            self._driver.close()

    async def aclose(self) -> None:
        """The same without blocking the loop."""
        if self._driver is not None:
            self._run.halt()
            await self._driver.aclose()
        elif self._run.at_work:
            await asyncio.to_thread(self._run.close)
        else:
            self._run.close()
