"""The process behind a stream: how it is started, and what its end means to the consumer.

A `Producer` is a call that passed every check, ready to be read. Reading starts its process, under the stream
supervisor of its engine and tied to the process that owns the connection.

Guarantees:
    - Nothing is started before it is asked for, and then once.
    - However the process ends, the consumer hears of it: a foreign exception as itself, any end from outside
      as one `ErrorEvent` with `adapter_down`, and as whatever else its kind of stream ends with. An end from
      outside that comes when the consumer has its last event already changes nothing.
    - The span of the call ends once, when the stream ends, fails or is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from allm_actors import beam
from allm_actors.beam.stream import End, EventQueue, Failed, StreamReader, start_stream
from allm_actors.beam.timer import service
from allm_actors.data import ErrorEvent, MessageCompleted
from allm_actors.errors import AdapterError
from allm_actors.streaming.event_stream import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from allm_actors.engine.processes import Lease
    from allm_actors.telemetry import Span

__all__ = ["Producer", "ProducerTap"]

_TERMINAL: Final = frozenset({End, Failed, beam.Down})
_SPECIAL: Final = _TERMINAL | {MessageCompleted, ErrorEvent}
_CLOSE_TIMEOUT: Final = 0.5


class Producer:
    """A stream that can be started.

    Args:
        source: Its events; iterated in its process, and closed there if it has a `close()`.
        interrupt: Wakes that process where it waits in `source`; any thread may call it.
        lease: The connection it uses, and the processes it depends on. It is kept, and with it what runs
            behind a plain engine, until the stream has ended.
        provider: The tag in the errors made here.
        about: Which call it is, for people to read: a note on the errors made here.
        span: Ends with the stream, if there is one.
    """

    def __init__(  # noqa: PLR0913
        self,
        source: Iterable[Any],
        *,
        interrupt: Callable[[], None] | None = None,
        lease: Lease | None = None,
        provider: str | None = None,
        about: str | None = None,
        span: Span | None = None,
    ) -> None:
        self._start: tuple[Iterable[Any], Callable[[], None] | None, Lease | None] | None = (
            source,
            interrupt,
            lease,
        )
        self._provider = provider
        self._about = about
        self._span = span
        self.unstartable = False
        self._said_last = False

    def start(self, events: EventQueue, *, consumer: beam.Pid | None = None) -> beam.Pid:
        """Start the process, its events going to `events`; a `consumer` that ends halts it.

        Raises:
            NoProcess: What it depends on is gone; `unstartable` says so.
            StartError: The system refuses a thread.
        """
        assert self._start is not None, "a stream is started once"
        (source, interrupt, lease), self._start = self._start, None
        try:
            return start_stream(
                source,
                events,
                supervisor=lease.stream_supervisor if lease is not None else None,
                interrupt=interrupt,
                lender=lease.adapter_pid if lease is not None else None,
                consumer=consumer,
            )
        except beam.NoProcess:
            self.unstartable = True
            raise

    def outcome(self, terminal: Any) -> Sequence[Any]:
        """What a terminal item is to the consumer: events, or nothing.

        Raises:
            BaseException: The foreign exception that crashed the stream, unchanged.
        """
        if isinstance(terminal, Failed):
            self.finish(terminal.exception)
            raise terminal.exception
        if isinstance(terminal, beam.Down) and not self._said_last:
            return self.down()
        self.finish()
        return ()

    def down(self) -> Sequence[Any]:
        """What the consumer is told when the process, or one it depends on, is gone."""
        error = AdapterError(
            "adapter_down",
            f"{self._provider or 'adapter'}: the adapter's process went away",
            provider=self._provider,
        )
        if self._about is not None:
            error.add_note(self._about)
        self.finish(error)
        return [ErrorEvent(error=error)]

    def note(self, event: Any) -> None:
        """Take notice of the last event, which the consumer gets."""
        # Its process may still be at work, to see its source end, and can be ended there.
        self._said_last = True
        if type(event) is ErrorEvent:
            self.finish(event.error)

    def finish(self, error: BaseException | None = None) -> None:
        """End the span, unless it has ended."""
        span = self._span
        if span is not None:
            span.finish(error)

    def finish_soon(self) -> None:
        """The same from a finalizer: whoever watches runs in another thread."""
        if self._span is not None and not self._span.over:
            service.run(self._span.finish)


class ProducerTap:
    """A producer with a queue of its own: the tap of a stream of single requests."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._reader = StreamReader(
            lambda events: producer.start(events, consumer=beam.current()), close_timeout=_CLOSE_TIMEOUT
        )
        self._last_words: Iterator[Any] | None = None

    def take(self) -> Any:
        """The next event, or `ENDED`."""
        try:
            item = self._reader.take()
        except beam.NoProcess:
            return self._refused()
        return self._seen(item) if type(item) in _SPECIAL else item

    async def atake(self) -> Any:
        """The next event, or `ENDED`, without blocking the loop."""
        try:
            item = await self._reader.atake()
        except beam.NoProcess:
            return self._refused()
        return self._seen(item) if type(item) in _SPECIAL else item

    def _seen(self, item: Any) -> Any:
        if type(item) in _TERMINAL:
            # The queue's finalizer must not lead to the reason of the end: an exception in it that is raised
            # here soon has the consumer's frames hanging on it, and this tap with them.
            self._reader.events.on_halt = None
            if self._last_words is None:
                self._last_words = iter(())
                self._last_words = iter(self._producer.outcome(item))
            return next(self._last_words, ENDED)
        self._producer.note(item)
        return item

    def _refused(self) -> Any:
        if not self._producer.unstartable:
            raise  # noqa: PLE0704  the one being handled: the stream belongs to the parent of this process
        self._producer.unstartable = False
        self._last_words = iter(self._producer.down())
        return next(self._last_words, ENDED)

    def halt(self) -> None:
        """Want no more; from any thread and from a finalizer."""
        self._last_words = iter(())
        self._reader.halt()
        self._producer.finish_soon()

    def close(self) -> None:
        """Halt, and wait until the process is gone."""
        self._last_words = iter(())
        self._reader.close()
        self._producer.finish()

    async def aclose(self) -> None:
        """Halt, and wait until the process is gone, without blocking the loop."""
        self._last_words = iter(())
        await self._reader.aclose()
        self._producer.finish()
