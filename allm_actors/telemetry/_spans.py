"""What a program may watch of its calls: spans with a start and one end, and single events.

Handlers are called in the thread in which the thing happens, with a name, measurements and
metadata. Times are seconds. No key, and no URL that could hold one, is ever part of an event.

Guarantees:
    - A span that started ends once, in `.stop` or in `.exception`, never in both.
    - A handler that raises is detached and logged; the call it watched goes on.
    - While nobody watches, a span costs one look at an empty table.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import structlog

from allm_actors.errors import AllmError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SpanName = Literal[
    "generate",
    "stream",
    "step",
    "chat",
    "tool",
    "image",
    "embed",
    "moderate",
    "classify",
    "synthesize",
    "transcribe",
    "stream_synthesize",
    "stream_transcribe",
]

SPANS: Final[tuple[SpanName, ...]] = SpanName.__args__  # type: ignore[attr-defined]
EVENTS: Final = ("allm.retry", "allm.audio.first_chunk")
NAMES: Final = frozenset(
    [f"allm.{span}.{moment}" for span in SPANS for moment in ("start", "stop", "exception")] + list(EVENTS)
)
"""Every name there is."""

_log = structlog.wrap_logger(
    logging.getLogger("allm_actors.telemetry"),  # never to standard output, which is the program's
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)
_current: contextvars.ContextVar[Span | None] = contextvars.ContextVar("allm_actors_span", default=None)


class SpanWatcher(Protocol):
    """Follows spans as objects, with their parents; what a tracing bridge is made of."""

    def started(self, span: Span) -> None:
        """The span has begun."""

    def ended(self, span: Span, error: BaseException | None) -> None:
        """The span is over; `span.result` holds what it ended with."""

    def event(
        self, span: Span | None, name: str, measurements: dict[str, Any], metadata: dict[str, Any]
    ) -> None:
        """A single event happened within the span."""


class _Registry:
    """Who watches. The tables are replaced as wholes, so they can be read without the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.handlers: dict[Any, tuple[frozenset[str], Callable[..., object]]] = {}
        self.by_name: dict[str, tuple[tuple[Any, Callable[..., object]], ...]] = {}
        self.watchers: tuple[SpanWatcher, ...] = ()

    def index(self) -> None:
        """Rebuild the table by name. The caller holds the lock."""
        names = frozenset[str]().union(*(wanted for wanted, _ in self.handlers.values()))
        self.by_name = {
            name: tuple((key, handler) for key, (wanted, handler) in self.handlers.items() if name in wanted)
            for name in names
        }

    def renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self.lock = threading.Lock()


_registry = _Registry()
os.register_at_fork(after_in_child=_registry.renew_lock)


def attach(handler_id: Any, names: Iterable[str], handler: Callable[..., object]) -> None:
    """Have `handler(name, measurements, metadata)` called for each of the named events.

    Args:
        handler_id: Any hashable value, to detach by.
        names: Out of `NAMES`.
        handler: Runs in the thread of the event; should be quick. Raising detaches it.

    Raises:
        ValueError: A name that does not exist, or a `handler_id` in use.
        TypeError: `handler` cannot be called.
    """
    wanted = frozenset([names] if isinstance(names, str) else names)
    unknown = sorted(map(repr, wanted - NAMES))
    if unknown:
        raise ValueError(
            f"no such telemetry event: {', '.join(unknown)}; there are {', '.join(sorted(NAMES))}"
        )
    if not callable(handler):
        raise TypeError(f"a telemetry handler is a callable, not {type(handler).__name__}")
    with _registry.lock:
        if handler_id in _registry.handlers:
            raise ValueError(f"a telemetry handler {handler_id!r} is attached already")
        _registry.handlers[handler_id] = (wanted, handler)
        _registry.index()


def detach(handler_id: Any) -> bool:
    """Take a handler off; `False` if there was none of that id."""
    with _registry.lock:
        found = _registry.handlers.pop(handler_id, None) is not None
        _registry.index()
    return found


def watch(watcher: SpanWatcher) -> None:
    """Have a bridge follow every span that starts from now on."""
    with _registry.lock:
        _registry.watchers = (*_registry.watchers, watcher)


def unwatch(watcher: SpanWatcher) -> None:
    """Take a bridge off; spans it saw start it will not see end."""
    with _registry.lock:
        _registry.watchers = tuple(each for each in _registry.watchers if each is not watcher)


def emit(
    name: str, measurements: dict[str, Any], metadata: Mapping[str, Any], *, span: Span | None = None
) -> None:
    """Send one single event to whoever watches.

    Args:
        name: One of `EVENTS`.
        measurements: Numbers.
        metadata: What they are about.
        span: The span it happened in.
    """
    _call(name, measurements, metadata)
    for watcher in _registry.watchers:
        _guarded(watcher, "event", span, name, measurements, dict(metadata))


def start(
    name: SpanName,
    metadata: Mapping[str, Any],
    *,
    parent: Span | None = None,
    measurements: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Span:
    """Begin a span and tell whoever watches.

    Args:
        name: Which one.
        metadata: Sent at its start and again at its end.
        parent: The span it is part of; by default the one active in this thread.
        measurements: Sent at its start, with `system_time`.
        details: Further facts for bridges, never sent to handlers: `request`, `options`, `adapter` and
            `session_id` of a call, `tool` and `tool_call` of a tool; later, before the end, `completed`
            (the `MessageCompleted`), `usage` and `first_chunk` (seconds) of a stream.
    """
    span = Span(name, metadata, parent if parent is not None else _current.get(), details)
    if _registry.by_name:
        _call(f"allm.{name}.start", {"system_time": time.time(), **(measurements or {})}, span.metadata)
    for watcher in _registry.watchers:
        _guarded(watcher, "started", span)
    return span


def current() -> Span | None:
    """Give the span that is active in this thread or task, if any."""
    return _current.get()


class Span:
    """Something with a beginning and one end. The first end counts; any thread may bring it."""

    __slots__ = ("_began", "_open", "details", "metadata", "name", "parent", "result")

    def __init__(
        self,
        name: SpanName,
        metadata: Mapping[str, Any],
        parent: Span | None,
        details: Mapping[str, Any] | None,
    ) -> None:
        self.name: SpanName = name
        self.metadata = dict(metadata)
        self.parent = parent
        self.details = dict(details or {})
        self.result: dict[str, Any] = {}
        self._began = time.monotonic()
        self._open = [True]

    def stop(
        self,
        measurements: Mapping[str, Any] | None = None,
        *,
        error: BaseException | None = None,
        **result: Any,
    ) -> None:
        """End it in `.stop`, with the result and the error it delivered, if one.

        Args:
            measurements: Sent beside `duration`.
            error: An error of the library that the span ended with.
            **result: `response`, `step_result`, `chat_result` or `result`.
        """
        if not self._end():
            return
        self.result = result
        if _registry.by_name:
            _call(
                f"allm.{self.name}.stop",
                {"duration": self._duration(), **(measurements or {})},
                {**self.metadata, **result, "error": error},
            )
        self._tell_end(error)

    def exception(self, error: BaseException, measurements: Mapping[str, Any] | None = None) -> None:
        """End it in `.exception`: nobody's answer, somebody's bug, or a key that is missing."""
        if not self._end():
            return
        if _registry.by_name:
            kind = {"error_type": type(error).__name__, "error_reason": getattr(error, "reason", None)}
            _call(
                f"allm.{self.name}.exception",
                {"duration": self._duration(), **(measurements or {})},
                {**self.metadata, **kind},
            )
        self._tell_end(error)

    def finish(
        self,
        error: BaseException | None = None,
        measurements: Mapping[str, Any] | None = None,
        **result: Any,
    ) -> None:
        """End it in `.stop` without an error or with one that is an answer, else in `.exception`."""
        if error is None or (isinstance(error, AllmError) and error.reason != "missing_key"):
            self.stop(measurements, error=error, **result)
        else:
            self.exception(error, measurements)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return not self._open

    @contextmanager
    def active(self) -> Iterator[Span]:
        """Make it the parent of spans started in this thread inside the block. Does not end it."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    def _end(self) -> bool:
        # No lock: a stream may end in a finalizer, which may run in the midst of anything. `pop` is atomic.
        try:
            return self._open.pop()
        except IndexError:
            return False

    def _duration(self) -> float:
        return time.monotonic() - self._began

    def _tell_end(self, error: BaseException | None) -> None:
        for watcher in _registry.watchers:
            _guarded(watcher, "ended", self, error)
        # Whoever still holds an ended span is not to hold an adapter by it: its processes end with the value.
        self.details.clear()
        self.result = {}


def _call(name: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    for handler_id, handler in _registry.by_name.get(name, ()):
        try:
            handler(name, dict(measurements), dict(metadata))
        except Exception as error:  # noqa: BLE001  (watching must not change what is watched)
            _drop(handler_id, handler)
            _log.error(
                "telemetry.handler_failed",
                handler=repr(handler_id),
                event_name=name,
                error=type(error).__name__,
            )


def _drop(handler_id: Any, handler: Any) -> None:
    """Detach the handler that failed, but not another one that took its id in the meantime."""
    with _registry.lock:
        if _registry.handlers.get(handler_id, (None, None))[1] is handler:
            del _registry.handlers[handler_id]
            _registry.index()


def _guarded(watcher: SpanWatcher, moment: str, *args: Any) -> None:
    try:
        getattr(watcher, moment)(*args)
    except Exception as error:  # noqa: BLE001  (watching must not change what is watched)
        unwatch(watcher)
        _log.error("telemetry.watcher_failed", moment=moment, error=type(error).__name__)
