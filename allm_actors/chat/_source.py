"""A run: a generator of events, and what stops it.

A run is a generator over the taps of its turns and its tool batches. It yields events, and a `GATE` before
each side effect; who advances it past a gate has taken everything before.

Guarantees:
    - A run that is closed does nothing further: what was at work is stopped, no side effect begins, and no
      event follows.
    - `halt` waits for nothing, takes no lock and runs nobody's code: a finalizer may call it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, Protocol

from allm_actors.beam.timer import service
from allm_actors.streaming.event_stream import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from allm_actors.errors import AdapterError
    from allm_actors.telemetry import Span

__all__ = ["GATE", "Heard", "Part", "Run"]


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


class Heard(Protocol):
    """What the reader of a driven run was given: it knows what is left to say if the driver is ended."""

    def note(self, event: Any) -> None:
        """Take notice of an event that the reader gets; in the reader's thread."""
        ...

    def rest(self, error: AdapterError) -> Sequence[Any]:
        """The events that are left, now that nobody advances the run; the spans they end are ended."""
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
        self._listen: Callable[[], Heard] | None = None
        self._part: Part | None = None
        self._spans: list[Span] = []

    # --- for the generator ----------------------------------------------------------------------------

    def begin(self, events: Generator[Any, None, Any], listen: Callable[[], Heard]) -> None:
        """Take the generator; nothing of it runs before it is asked for.

        Args:
            events: The generator.
            listen: Begins to take notice of what a reader is given, from where the run is now.
        """
        self._events, self._listen = events, listen

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
        try:
            return self.advance()
        except BaseException as error:
            self.close(error)
            raise

    def advance(self) -> Any:
        """The same, for whoever closes the run if it raises."""
        events = self._events
        if self.closed or events is None:
            return ENDED
        self._advanced = True
        try:
            item = next(events)
        except StopIteration:
            self.close()
            return ENDED
        return ENDED if self.closed else item

    @property
    def at_work(self) -> bool:
        """Whether closing may have to wait."""
        return self._advanced and self._part is not None and not self.closed

    def listen(self) -> Heard | None:
        """Begin to take notice of what a reader is given; `None` if the run is closed."""
        begin = self._listen
        return None if begin is None else begin()

    def halt(self) -> None:
        """Want no more."""
        self.stop()
        if self._spans:
            service.run(self.end_spans)

    def stop(self) -> None:
        """Want no more, and leave the spans to whoever tells of the end."""
        self.closed = True
        part = self._part
        if part is not None:
            part.halt()

    def close(self, error: BaseException | None = None) -> None:
        """Want no more, and wait until what is at work is gone: half a second at most."""
        self.release()
        self.end_spans(error)

    def release(self) -> None:
        """The same, the spans left to whoever tells of the end."""
        self.closed = True
        part, self._part = self._part, None
        if part is not None:
            part.close()
        self._listen = None
        events, self._events = self._events, None
        if events is not None:
            with contextlib.suppress(ValueError):  # another thread is in it, and will find the run closed
                events.close()

    def end_spans(self, error: BaseException | None = None) -> None:
        """End the spans that are still open."""
        while self._spans:
            with contextlib.suppress(IndexError):  # two threads may be at it
                self._spans.pop().finish(error)
