"""The events of one request, over as many attempts as its policy allows.

This is what a stream's process iterates: it knows adapters and their bad habits, and nothing of queues.

Guarantees:
    - Exactly one terminal event ends it, whatever the adapter does; only a bug in the adapter, a foreign
      exception, leaves it otherwise.
    - An attempt is repeated only while nothing but a `MessageStarted` was delivered; one of those is
      delivered, however many attempts it takes.
    - Every attempt asks the same, as far as the adapter can say it again.
    - No two attempts are open at once, and none is open when it ends.
    - A wait between attempts ends at once when the process is told to exit, and no attempt follows.
"""

import random
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, Never

from allm_actors import beam
from allm_actors.beam._log import Logger
from allm_actors.data import (
    ErrorEvent,
    Event,
    MessageCompleted,
    MessageStarted,
    RawChunk,
    TextCompleted,
    TextDelta,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
)
from allm_actors.engine import AdapterStream, Retry
from allm_actors.errors import AdapterError, AllmError, StreamError
from allm_actors.streaming._limits import Limits, Watch

__all__ = ["Attempts", "RetryReport"]

_log = Logger("allm_actors.streaming")

_PASSING: Final = frozenset(
    {TextDelta, TextCompleted, ToolCallStarted, ToolCallDelta, ToolCallCompleted, RawChunk}
)

RetryReport = Callable[[int, float, AdapterError], object]
"""Told of each repetition before the wait: the failed attempt (1-based), the delay in seconds, its error."""


class Attempts:
    """One request's events, attempt after attempt.

    Args:
        first: The stream of the first attempt, its pre-flight done.
        again: Makes the next one, where a stream cannot do so itself: the same pre-flight once more.
        retry: The policy; `None` for never.
        limits: What the call may take.
        provider: The tag in the errors made here.
        on_retry: Told of each repetition, in the stream's process.
        on_milestone: Told of the first event and of a good last one, in the stream's process.
        sleep: Waits between attempts; an exit has to end it.
        about: Which call it is, for people to read: a note on each error that ends it.
        clock: The monotonic clock.
        rng: Gives the jitter, 0..1.
    """

    def __init__(  # noqa: PLR0913
        self,
        first: AdapterStream,
        again: Callable[[], AdapterStream],
        *,
        retry: Retry | None,
        limits: Limits,
        provider: str | None,
        on_retry: RetryReport | None = None,
        on_milestone: Callable[[Event], object] | None = None,
        about: str | None = None,
        sleep: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._current = first
        self._again = again
        self._retry = retry
        self._limits = limits
        self.provider = provider
        self._on_retry = on_retry
        self._on_milestone = on_milestone
        self.about = about
        self._sleep = sleep or beam.sleep
        self._clock = clock
        self._rng = rng
        self._interrupted = False
        self._events: Generator[Event, None, None] | None = None

    def interrupt(self) -> None:
        """Closes the adapter stream that is open, and every one to come; from any thread."""
        # 1. Here the flag goes up, then the present stream is closed.
        # 2. `_open` puts its stream in place, then looks at the flag.
        # Whichever comes first, the stream in place is closed.
        self._interrupted = True
        self._current.close()

    def __iter__(self) -> Iterator[Event]:
        """Every event of the request; in the stream's process, once."""
        self._events = self._all()
        return self._events

    def close(self) -> None:
        """End it, in the same process. What a further attempt would need is let go: the lease, say."""
        if self._events is not None:
            self._events.close()
        self._again = _none_left
        self._current.again = None

    def _all(self) -> Generator[Event, None, None]:
        started = False
        attempt = 0
        try:
            while True:
                attempt += 1
                with Watch(self._current, self._limits, clock=self._clock) as watch:
                    events = watch.events()
                    failure, started, usable = yield from self._attempt(events, watch, started=started)
                    if failure is None:
                        return
                    error = failure.error
                    delay = None if usable else self._delay(error, attempt, watch)
                    if delay is None or not isinstance(error, AdapterError):
                        yield failure
                        if watch.expired is None:
                            _drop_rest(events, self.about)
                        return
                self._current.close()
                if not self._wait(delay, attempt, error):
                    yield self._failed(self._limits.error("deadline", self.provider))
                    return
                if not self._open():
                    yield failure
                    return
        finally:
            self._current.close()

    def _attempt(  # noqa: C901, PLR0912  (one branch for each habit of an adapter)
        self, events: Iterator[Any], watch: Watch, *, started: bool
    ) -> Generator[Event, None, tuple[ErrorEvent | None, bool, bool]]:
        """The events of one attempt but a failing last one.

        Returns:
            How it failed, `None` for a good end; whether a `MessageStarted` was delivered by now; whether
            anything else was.
        """
        usable = False
        repeated = started
        failure: AllmError | None = None
        try:
            if watch.expired is None:
                for index, event in enumerate(events):
                    kind = type(event)
                    if kind in _PASSING:
                        usable = True
                    elif kind is MessageStarted:
                        if repeated:
                            continue
                        started = True
                        self._milestone(event)
                    elif kind is MessageCompleted:
                        self._milestone(event)
                        yield event
                        _drop_rest(events, self.about)
                        return None, True, True
                    elif kind is ErrorEvent:
                        failure = event.error
                        break
                    else:
                        failure = self._malformed(event, index)
                        break
                    yield event
                else:
                    failure = AdapterError(
                        "malformed_response",
                        f"{self.provider or 'adapter'}: the stream ended without a terminal event",
                        provider=self.provider,
                    )
        except AllmError as error:
            failure = error.replace()  # a copy: without traceback, and without what it is chained to
        except Exception:
            beam.checkpoint()
            if watch.expired is None:
                raise
        # A stream that was closed from outside ends in any way it likes. Why it was closed counts.
        beam.checkpoint()
        if watch.expired is not None:
            failure = self._limits.error(watch.expired, self.provider)
        assert failure is not None
        return self._failed(failure), started, usable

    def _failed(self, error: AllmError) -> ErrorEvent:
        event = ErrorEvent(error=error)
        if self.about is not None:
            event.error.add_note(self.about)  # the event's own copy
        return event

    def _milestone(self, event: Event) -> None:
        if self._on_milestone is not None:
            self._on_milestone(event)

    def _malformed(self, event: Any, index: int) -> StreamError:
        return StreamError(
            "malformed_event",
            f"{self.provider or 'adapter'}: event {index} is no event but {type(event).__name__!r}",
            provider=self.provider,
            event_index=index,
        )

    def _delay(self, error: AllmError, attempt: int, watch: Watch) -> float | None:
        """Seconds to wait before the next attempt, `None` when there is none."""
        policy = self._retry
        if policy is None or attempt >= policy.max_attempts or watch.expired == "deadline":
            return None
        return policy.delay(attempt, error, self._rng) if policy.repeats(error) else None

    def _wait(self, delay: float, attempt: int, error: AdapterError) -> bool:
        """Waits before the next attempt; `False` when the deadline comes first."""
        left = self._limits.ends_at - self._clock()
        if left <= delay:
            self._sleep(max(left, 0.0))
            return False
        if self._on_retry is not None:
            self._on_retry(attempt, delay, error)
        self._sleep(delay)
        return True

    def _open(self) -> bool:
        """Makes the next attempt the current one; `False` when its pre-flight fails."""
        again = self._current.again or self._again
        try:
            stream = again()
        except AllmError as error:
            _log.warning(
                "retry.preflight_failed",
                call=self.about,
                provider=self.provider,
                error=type(error).__name__,
                reason=error.reason,
            )
            return False
        self._current = stream
        if self._interrupted:
            stream.close()
        return True


def _none_left() -> Never:
    raise RuntimeError("the stream has ended: there is no further attempt")


def _drop_rest(events: Iterator[Any], about: str | None) -> None:
    """Lets an iterator end after its terminal event; what it still sends is dropped with a warning."""
    try:
        extra = next(events)
    except StopIteration:
        return
    except AllmError as error:
        extra = error
    _log.warning("stream.event_after_end", call=about, dropped=type(extra).__name__)
