"""What an adapter author writes: a configuration, a connection, and streams of events.

An `Adapter` is data. `connect()` turns it into a `Connection`, which is alive: it holds pools and
sockets, is owned by a process, and may be replaced at any time. A call on a connection gives an
`AdapterStream`.

Guarantees:
    - A stream that was never iterated has sent nothing and releases nothing.
    - A stream that was iterated releases what it holds exactly once, however it ends.
"""

from __future__ import annotations

import math
import secrets
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, SecretStr

from allm_actors import beam
from allm_actors.data import ErrorEvent, StreamCollector
from allm_actors.data.base import JsonObject, Model, Seconds
from allm_actors.engine._value import AdapterValue
from allm_actors.engine.retry import Retry
from allm_actors.errors import AdapterError, AllmError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from allm_actors.data import Event, Request, Response

_REQUEST_ID_BYTES = 16


def new_request_id() -> str:
    """Give 22 URL-safe random characters."""
    return secrets.token_urlsafe(_REQUEST_ID_BYTES)


class CallContext(Model):
    """What belongs to one call and not to its request. Times are seconds, `math.inf` no limit.

    An expired time is an `AdapterError("timeout")` whose `metadata["limit"]` names the field.
    """

    request_id: str = Field(default_factory=new_request_id, min_length=1)
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """What key look-up found; a connection looks nowhere else."""
    connect_timeout: Seconds = 10.0
    """Establishing TCP and TLS."""
    request_timeout: Seconds = 600.0
    """One attempt of a whole-response call, from sending to the last byte."""
    stream_timeout: Seconds = 60.0
    """Time without anything arriving; the consumer's own time does not count."""
    content_timeout: Seconds = math.inf
    """Time without content. Kept above the adapter."""
    deadline: Seconds = math.inf
    """The whole call as its user sees it, retries included. Kept above the adapter."""
    options: JsonObject = Field(default_factory=dict)
    """Every option the library does not know; adapters accept unknown ones."""
    retry: Retry | None = None
    """For information: adapters never retry."""


class Adapter(AdapterValue, ABC, slot=True):
    """The configuration of one provider: a frozen value, cheap to make, copy and compare.

    Subclasses add fields and say how to `connect()`. `provider` is the tag in errors, key look-up
    and JSON.
    """

    streams: ClassVar[bool] = True
    """False where only whole answers can be had."""

    @property
    def address(self) -> str | None:
        """Where requests go, for people to read; `None` if that says nothing."""
        return None

    @abstractmethod
    def connect(self) -> Connection:
        """Give a new connection. Opens nothing on the network.

        Called by the adapter's process, at its start and again after each restart.
        """

    def requires_structured_finalize(self, request: Request) -> bool:  # noqa: ARG002
        """True when the provider cannot answer this request in one pass."""
        return False


class Connection:
    """What lives: sockets, pools, cursors. Its methods are called from several threads at once.

    It may be replaced at any time, so nothing a result depends on lives here alone.
    """

    def stream(self, request: Request, call: CallContext) -> AdapterStream:  # noqa: ARG002
        """Check the request and give a lazy stream of its events.

        The call is short, does no network I/O and raises what is wrong with the request, the
        missing key last. The request goes out on the first `next()`; whatever fails from then
        on is an `ErrorEvent`. Must not be a generator function, whose checks would run late.
        """
        raise EngineError(
            "missing_stream_adapter", f"{type(self).__name__} gives whole answers only, no streams"
        )

    def generate(self, request: Request, call: CallContext) -> Response:
        """Give the whole answer, or raise what it failed with. One attempt.

        Folds `stream` unless a subclass knows a shorter way. `request_timeout` bounds it, and no silence.
        """
        stream = self.stream(request, call.model_copy(update={"stream_timeout": math.inf}))
        if call.request_timeout == math.inf:
            return fold(stream, call)
        return _fold_in_time(stream, call)

    def close(self) -> None:
        """Give everything back. Called once, when the owning process ends or replaces it."""


def fold(stream: AdapterStream, call: CallContext) -> Response:
    """Read a stream to its end and give its answer, or raise the error it ended with.

    The stream is closed in all cases.
    """
    with stream:
        response = StreamCollector.collect(stream).response()
    if response.error is not None:
        raise response.error.replace()  # a copy: the one in the data gets no traceback
    return response.model_copy(update={"request_id": call.request_id})


def _fold_in_time(stream: AdapterStream, call: CallContext) -> Response:
    expired = threading.Event()

    def expire(_: object) -> None:
        expired.set()
        try:
            beam.spawn(
                stream.close
            )  # elsewhere: this is the timers' thread, and what it releases may take time
        except beam.StartError:
            stream.close()

    timer = beam.send_after(call.request_timeout, expire, None)
    try:
        response = fold(stream, call)
    finally:
        beam.cancel_timer(timer)
    if expired.is_set():
        raise AdapterError(
            "timeout",
            f"no complete answer within {call.request_timeout:g} s (request_timeout)",
            metadata={"limit": "request_timeout"},
        )
    return response


_UNREAD, _OPEN, _ENDED = "unread", "open", "ended"


class AdapterStream:
    """An iterator of events that any thread may close.

    `close()` is idempotent, safe while another thread is blocked in `next()`, and ends that
    `next()`; after it no event is delivered. Iterate in one thread at a time.

    Args:
        events: The events in the order adapters emit them. An `AllmError` it raises is delivered
            as an `ErrorEvent`.
        release: Gives back what the stream holds and makes a blocked `events` return. Called
            exactly once: at the end, at an error or by `close()`, perhaps while `events` runs in
            another thread; not at all if nothing was ever asked for.
        again: Makes a further stream that asks the very same thing, whatever has become of the request
            or of its image files in the meantime; raises as the call that gave this one. Without it a
            further attempt is a further call.
    """

    __slots__ = ("__weakref__", "_closed", "_events", "_lock", "_release", "_state", "_stepping", "again")

    def __init__(
        self,
        events: Iterable[Event],
        release: Callable[[], object] | None = None,
        *,
        again: Callable[[], AdapterStream] | None = None,
    ) -> None:
        self.again = again
        self._events: Iterator[Event] = iter(events)
        self._release = release
        self._state = _UNREAD
        self._stepping = False  # whether a thread is inside `events`
        self._closed = False  # whether somebody has taken it on to close `events`
        self._lock = threading.Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        # Whoever ends the stream marks the end, then looks whether `events` is being stepped; we say that we
        # step, then look for the mark. Whatever the order, one of the two sees the other.
        self._stepping = True
        try:
            if self._state is not _OPEN:
                self._open()
            event = next(self._events)
        except StopIteration:
            self._end()
            raise
        except AllmError as error:
            if not self._end():
                raise StopIteration from None
            return ErrorEvent(error=error.replace())  # a copy: no traceback hangs on an event
        except Exception:
            if not self._end():
                # The other side of `release()`: what it broke is no news to anybody.
                raise StopIteration from None
            raise
        except BaseException:
            self._end()
            raise
        finally:
            self._stepping = False
            if self._state is not _OPEN:
                self._close_events()
        if self._state is _OPEN:
            return event
        raise StopIteration

    def close(self) -> None:
        """End the stream. Does nothing more the second time, and no I/O if it was never read."""
        self._end()
        self._close_events()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        with self._lock:
            if self._state is _ENDED:
                raise StopIteration
            self._state = _OPEN

    def _end(self) -> bool:
        """Mark the stream ended; true for the one caller that ended it."""
        with self._lock:
            before, self._state = self._state, _ENDED
        if before is _OPEN and self._release is not None:
            self._release()
        return before is not _ENDED

    def _close_events(self) -> None:
        """Run the `finally` blocks of a generator, once, and never while it runs.

        A generator must not be closed by two threads, nor while another is in it: the interpreter does not
        survive that. The thread that steps it closes it when its `next()` comes back.
        """
        with self._lock:
            if self._stepping or self._closed:
                return
            self._closed = True
        close = getattr(self._events, "close", None)
        if close is not None:
            close()
