"""The times of a call that hold for every adapter, kept from outside.

An adapter keeps the times of its transport. What a call may take altogether, and how long it may go without
content, is kept here: a timer closes the adapter stream under the process that waits in it, and that process
finds out which time was over.

Guarantees:
    - A time that is not set costs nothing: no timer, no clock reading.
    - The consumer's own time counts for the deadline only.
    - No timer outlives its attempt.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from allm_actors import beam
from allm_actors.data import MessageStarted, RawChunk
from allm_actors.engine import AdapterStream
from allm_actors.errors import AdapterError

__all__ = ["Limit", "Limits", "Watch"]

Limit = Literal["content_timeout", "deadline", "request_timeout"]

_CONTENT_KINDS: Final = ("thinking", "reasoning", "refusal", "image")


@dataclass(frozen=True, slots=True)
class Limits:
    """The times of one call; `math.inf` for no limit."""

    ends_at: float = math.inf
    """When the whole call has to be over, on the monotonic clock."""
    attempt: float = math.inf
    """Seconds one attempt may take from its first step to its last event."""
    content: float = math.inf
    """Seconds without content."""

    def error(self, limit: Limit, provider: str | None) -> AdapterError:
        """What the consumer is told when `limit` is over."""
        what = {
            "content_timeout": f"no content for {self.content:g} s (content_timeout)",
            "deadline": "no complete answer before the deadline of the call (deadline)",
            "request_timeout": f"no complete answer within {self.attempt:g} s (request_timeout)",
        }[limit]
        message = f"{provider or 'adapter'}: {what}"
        return AdapterError("timeout", message, provider=provider, metadata={"limit": limit})


class Watch:
    """Keeps the limits of one attempt: a context manager around its iteration.

    `expired` names the limit that closed the stream, `None` while none has. It is set before the stream is
    closed, so whoever finds the stream ended can tell.
    """

    def __init__(
        self, stream: AdapterStream, limits: Limits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.expired: Limit | None = None
        self._stream = stream
        self._limits = limits
        self._clock = clock
        self._timers: dict[str, Any] = {}
        self._over = False
        # Silence before the present wait, and when that began: `None` while the consumer has the floor.
        self._silence = 0.0
        self._waiting_since: float | None = None

    def __enter__(self) -> Self:
        limits = self._limits
        left = limits.ends_at - self._clock() if limits.ends_at < math.inf else math.inf
        limit: Limit = "deadline"
        if limits.attempt < left:
            left, limit = limits.attempt, "request_timeout"
        if left <= 0:
            self.expired = limit
            return self
        if left < math.inf:
            self._arm("whole", left, lambda: self._expire(limit))
        if limits.content < math.inf:
            self._arm("content", limits.content, self._look)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over = True
        for timer in self._timers.values():
            beam.cancel_timer(timer)

    def events(self) -> Iterator[Any]:
        """The stream's events, their silence measured if that is limited."""
        if self._limits.content == math.inf:
            return iter(self._stream)
        return self._measured()

    def _measured(self) -> Iterator[Any]:
        clock = self._clock
        events = iter(self._stream)
        while True:
            began = self._waiting_since = clock()
            try:
                event = next(events)
            except StopIteration:
                return
            # The order matters to `_look`, which reads both from another thread: it may see the silence twice
            # for a moment, which the check of `_waiting_since` below it absorbs, but never a wait without it.
            self._waiting_since = None
            self._silence = 0.0 if _is_content(event) else self._silence + clock() - began
            if self._silence >= self._limits.content:
                self.expired = "content_timeout"
                return
            yield event

    def _look(self) -> None:
        """Ends the stream if it was silent for too long, or looks again when that may be."""
        began = self._waiting_since
        silence = self._silence + (self._clock() - began if began is not None else 0.0)
        left = self._limits.content - silence
        if left <= 0 and began is not None and began == self._waiting_since:
            self._expire("content_timeout")
        elif not self._over:
            # While the consumer has the floor no silence is added, but the wait may begin at any moment: look
            # again as if it had begun now.
            self._arm("content", max(left, _FINEST), self._look)

    def _arm(self, name: str, seconds: float, fire: Callable[[], None]) -> None:
        self._timers[name] = beam.send_after(seconds, lambda _message: fire(), name)
        if self._over:  # the attempt ended while this was armed
            beam.cancel_timer(self._timers[name])

    def _expire(self, limit: Limit) -> None:
        """Runs in the timers' thread: what closes the stream may take its time elsewhere."""
        if self._over or self.expired is not None:
            return
        self.expired = limit
        try:
            beam.spawn(self._stream.close)
        except beam.StartError:
            self._stream.close()


_FINEST: Final = 0.05
"""Seconds between two looks at least: half of what a limit may be late."""


def _is_content(event: Any) -> bool:
    if isinstance(event, RawChunk):
        return event.kind.startswith(_CONTENT_KINDS)
    return not isinstance(event, MessageStarted)
