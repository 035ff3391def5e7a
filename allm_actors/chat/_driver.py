"""Where a run is advanced: in the thread of whoever reads it, or by a driver process.

Iterated with `next()` a run runs in the consumer's thread, where a gate is open once reached: being advanced
means that everything before was taken. For asyncio and mailboxes a driver process advances it, and waits at
each gate until the reader has taken everything before it and asks for more.

Guarantees:
    - Where a run is read changes neither its events nor their order.
    - A driver that is ended from outside ends its run, and the reader hears how: what it was given until then
      decides what is left to say, down to the last event.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from allm_actors import beam
from allm_actors.beam.runtime import task_supervisor
from allm_actors.beam.stream import start_stream
from allm_actors.chat._source import GATE
from allm_actors.errors import AdapterError
from allm_actors.streaming._inband import Gate, Raised
from allm_actors.streaming._producer import Producer, ProducerTap
from allm_actors.streaming.event_stream import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from allm_actors.beam.stream import EventQueue
    from allm_actors.chat._source import Run

__all__ = ["RunProducer", "RunTap"]


class _Driven:
    """What a driver process iterates: the items of a run, and the gates its reader has to open."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.events: EventQueue | None = None

    def __iter__(self) -> Iterator[Any]:
        said = False  # whoever starts a driver asks for its first item
        while (item := self._next()) is not ENDED:
            if item is not GATE:
                said = True
                yield item
            elif said:
                said = False
                gate = Gate()
                yield gate
                gate.wait()

    def _next(self) -> Any:
        run = self._run
        try:
            return run.advance()
        except BaseException as error:  # noqa: BLE001  it is the reader's, and comes out where the stream is read
            beam.checkpoint()  # unless it is the order to exit that this process got
            run.close(error)
            return Raised(error)

    def close(self) -> None:
        """Stop what is at work; in the driver process."""
        self._run.release()
        if self.events is None or self.events.halted:
            self._run.end_spans()  # else the reader hears of the end, and the spans end as it is told


class RunProducer(Producer):
    """A driver that can be started: under the supervisor of tasks, it advances one run."""

    def __init__(self, run: Run) -> None:
        self._driven = _Driven(run)
        super().__init__(self._driven)
        self._run = run
        self._heard = run.listen()

    def start(self, events: EventQueue, *, consumer: beam.Pid | None = None) -> beam.Pid:
        """Start the driver; a `consumer` that ends halts it."""
        self._driven.events = events
        return start_stream(
            self._driven, events, supervisor=task_supervisor(), id="driver", consumer=consumer
        )

    def hear(self, event: Any) -> None:
        """Take notice of what the reader gets; in the reader's thread."""
        if self._heard is not None:
            self._heard.note(event)

    def hearing(self, on_event: Callable[[Any], object] | None) -> Callable[[Any], object]:
        """An observer that has this take notice, too."""
        if on_event is None:
            return self.hear

        def observe(event: Any) -> object:
            self.hear(event)
            return on_event(event)

        return observe

    def down(self) -> Sequence[Any]:
        """What the reader is told when the driver was ended from outside: what is left of the run."""
        heard, self._heard = self._heard, None
        # A driver that was killed may still be on its way to where it notices. It changes nothing any more:
        # the reader's own notes count.
        self._run.stop()
        error = AdapterError("adapter_down", "the process that drives the run was ended")
        try:
            return [] if heard is None else list(heard.rest(error))
        finally:
            self._run.end_spans(error)

    def note(self, event: Any) -> None:
        """Nothing to take notice of: the run folds its own events."""

    def finish(self, error: BaseException | None = None) -> None:
        """The driver has ended: so has the run."""
        self._heard = None
        self._run.close(error)

    def finish_soon(self) -> None:
        """The reader wants no more."""
        self._run.halt()


class RunTap:
    """The tap of a run. Reading it from a coroutine puts a driver between the two, for good."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._driver: ProducerTap | None = None
        self._producer: RunProducer | None = None

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
            self._producer = RunProducer(self._run)
            driver = self._driver = ProducerTap(self._producer)
        while (item := self._passed(await driver.atake())) is GATE:
            pass
        if type(item) is Raised:
            await self.aclose()
            raise item.error
        return item

    def _passed(self, item: Any) -> Any:
        if type(item) is Gate:
            item.open()
            return GATE
        assert self._producer is not None
        self._producer.hear(item)
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
