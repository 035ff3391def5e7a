"""What a consumer iterates: the events of one call, on threads and in asyncio.

An `EventStream` belongs to whoever reads it. Where the events come from is the business of its `Tap`: a
process that a queue connects it to, or a run in the consumer's own thread.

Guarantees:
    - Nothing is asked for before the first `next()`.
    - `on_event` runs in the thread that asked, inside that `next()`, for every event in order, before the
      filter. What it raises comes out of that `next()`, and the stream is closed.
    - Closing may be done twice and from any thread. It wakes a `next()` that waits elsewhere, which ends.
    - A stream that is dropped halts itself.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from allm_actors.streaming.filters import Filter

__all__ = ["ENDED", "EventStream", "Tap"]

E = TypeVar("E")


class _Ended:
    """The one value of a tap that has run dry."""

    def __repr__(self) -> str:
        return "ENDED"


ENDED: Final = _Ended()
"""What a tap gives once there is nothing more, for ever."""


class Tap(Protocol):
    """Where an `EventStream` takes its events from. One consumer at a time."""

    def take(self) -> Any:
        """The next event, waiting for it; `ENDED` at the end and after a halt. What it raises ends it."""
        ...

    async def atake(self) -> Any:
        """The same without blocking the loop; a cancelled wait loses no event."""
        ...

    def halt(self) -> None:
        """Want no more: idempotent, from any thread and from a finalizer, waiting for nothing."""
        ...

    def close(self) -> None:
        """Halt, and wait until what stands behind is gone: half a second at most."""
        ...

    async def aclose(self) -> None:
        """The same without blocking the loop."""
        ...


class EventStream(Generic[E]):
    """An iterator, an asynchronous iterator and a context manager over the events of one call; single pass.

    One consumer iterates at a time; it may be another thread from one `next()` to the next.

    ```python
    with stream_generate(engine, "hello") as events:
        for event in events:
            print(event)
    ```

    Attributes:
        request_id: The call's id.
    """

    def __init__(
        self,
        tap: Tap,
        *,
        request_id: str,
        on_event: Callable[[E], object] | None = None,
        passes: Filter | None = None,
    ) -> None:
        self.request_id = request_id
        self._tap = tap
        self._take = tap.take
        self._on_event = on_event
        self._passes = passes
        self._turn = threading.Lock()
        self._closed = False
        self._finalizer = weakref.finalize(self, tap.halt)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> E:
        """The next event that passes the filter.

        Raises:
            StopIteration: The stream has ended, or is closed.
            RuntimeError: Another thread waits in `next()` of this stream.
            Exception: What `on_event` raised, or the bug of an adapter; the stream is closed by then.
        """
        turn = self._turn
        if not turn.acquire(False):  # by keyword it takes twice as long
            raise RuntimeError("another consumer is reading this stream")
        try:
            while (event := self._take()) is not ENDED:
                if self._on_event is not None:
                    try:
                        self._on_event(event)
                    except BaseException:
                        self.close()
                        raise
                    if self._closed:  # by the observer itself, say
                        break
                if self._passes is None or self._passes(event):
                    return event  # type: ignore[no-any-return]
        except Exception:
            self._finalizer.detach()  # the tap has ended, or was closed
            raise
        finally:
            turn.release()
        self._finalizer.detach()
        raise StopIteration

    def close(self) -> None:
        """Stop the producer and discard what is buffered; returns once its resources are free.

        Idempotent, from any thread. It waits half a second at most, and does not wait at all in a finalizer.
        """
        self._closed = True
        self._finalizer.detach()
        self._tap.close()

    def halt(self) -> None:
        """The same as `close()`."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- asyncio --------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """The next event that passes the filter; the loop is free while it waits.

        A cancelled wait loses no event and closes nothing. `on_event` runs in the loop's thread.
        """
        turn = self._turn
        if not turn.acquire(blocking=False):
            raise RuntimeError("another consumer is reading this stream")
        try:
            while (event := await self._tap.atake()) is not ENDED:
                if self._on_event is not None:
                    try:
                        self._on_event(event)
                    except BaseException:
                        await self.aclose()
                        raise
                    if self._closed:
                        break
                if self._passes is None or self._passes(event):
                    return event  # type: ignore[no-any-return]
        except Exception:
            self._finalizer.detach()  # the tap has ended, or was closed
            raise
        finally:
            turn.release()
        self._finalizer.detach()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """`close()` for coroutines: the loop is free while the producer ends."""
        self._closed = True
        self._finalizer.detach()
        await self._tap.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.request_id}>"
