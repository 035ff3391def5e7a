"""What the conformance suite looks with: readers in threads, every form of a value, witnesses."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, ParamSpec

import pydantic
import structlog
from pydantic import SecretStr

from allm_actors.data import Response, TextDelta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from allm_actors.engine import AdapterStream

P = ParamSpec("P")

_SOON: Final = 5.0
_LONG: Final = 2.0
_TRIES: Final = 3
_DEPTH: Final = 12
_OPAQUE: Final = (SecretStr, type, ModuleType, FunctionType)


class TooLate(AssertionError):
    """Something took longer than it may."""


class Reading:
    """A thread that reads a stream."""

    def __init__(self, stream: AdapterStream) -> None:
        self._events: list[Any] = []
        self._error: BaseException | None = None
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: AdapterStream) -> None:
        try:
            for event in stream:
                self._events.append(event)
                self._news.put(None)
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            self._error = error

    def await_text(self, text: str) -> None:
        """Wait until so much was said."""
        while "".join(event.delta for event in self._events if isinstance(event, TextDelta)) != text:
            self._news.get(timeout=_SOON)

    def end(self) -> list[Any]:
        """Wait for the end; what was read.

        Raises:
            TooLate: It does not end.
        """
        self._thread.join(_LONG)
        if self._thread.is_alive():
            raise TooLate("the reader still waits")
        if self._error is not None:
            raise self._error
        return self._events


def timed(check: Callable[P, None]) -> Callable[P, None]:
    """Let a check that comes too late try again, twice: a busy machine is no broken adapter."""

    @functools.wraps(check)
    def patient(*args: P.args, **kwargs: P.kwargs) -> None:
        for _ in range(_TRIES - 1):
            with contextlib.suppress(TooLate):
                return check(*args, **kwargs)
        return check(*args, **kwargs)

    return patient


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer.

    Raises:
        TooLate: It did.
    """
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    if took > seconds:
        raise TooLate(f"took {took:.3f} s, at most {seconds} s are allowed")


def same_text(got: str | None, said: str | None) -> bool:
    """Equal argument texts. Where values are sent, JSON may be spaced otherwise and the rest be a string."""
    if got == said:
        return True
    with contextlib.suppress(ValueError, TypeError):
        value = json.loads(got or "")
        return bool(value == said or value == json.loads(said or ""))
    return False


def comparable(response: Response) -> dict[str, Any]:
    """A response without what differs from call to call: ids that were made up, and the raw body."""
    form = response.model_dump(exclude={"raw", "request_id", "id"})
    calls = [*(form["tool_calls"] or []), *((form["message"] or {}).get("tool_calls") or [])]
    for call in calls:
        call["id"] = None
    return form


def read_one(stream: AdapterStream, events: list[Any]) -> int:
    """Read one more event; 0 at the end."""
    event = next(stream, None)
    if event is not None:
        events.append(event)
    return int(event is not None)


def strings(value: Any) -> Iterator[str]:
    """Every text that a value holds or shows, and all that it leads to; a `SecretStr` keeps its own."""
    waiting: list[tuple[Any, int]] = [(value, 0)]
    seen: dict[int, Any] = {}  # holds what it has seen, lest an id be used twice
    while waiting:
        each, depth = waiting.pop()
        if id(each) in seen or depth > _DEPTH or isinstance(each, _OPAQUE):
            continue
        seen[id(each)] = each
        if isinstance(each, str):
            yield each
        elif isinstance(each, bytes):
            yield each.decode(errors="replace")
        else:
            if isinstance(each, BaseException | pydantic.BaseModel):
                yield f"{each!r} {each!s}"
            waiting += [(part, depth + 1) for part in _parts(each)]


def _parts(value: Any) -> list[Any]:
    """What a value consists of."""
    match value:
        case Mapping():
            return [*value.keys(), *value.values()]
        case list() | tuple() | set() | frozenset():
            return list(value)
        case BaseException():
            return [value.args, value.__cause__, value.__context__, vars(value)]
        case pydantic.BaseModel():
            return [value.model_dump_json(), vars(value)]
        case _:
            return [getattr(value, "__dict__", None)]


@contextlib.contextmanager
def listening(seen: list[Any]) -> Iterator[None]:
    """Take down every log record, of the standard library's loggers and of structlog's."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append([record.getMessage(), vars(record)])

    def take_down(_logger: Any, _method: str, record: Any) -> Any:
        seen.append(dict(record))
        raise structlog.DropEvent

    root, handler = logging.getLogger(), Handler()
    level = root.level
    before = structlog.get_config() if structlog.is_configured() else None
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    structlog.configure(processors=[take_down], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)
        root.setLevel(level)
        root.removeHandler(handler)


class Connects:
    """Counts the connections this program asks for."""

    def __init__(self) -> None:
        self.count = 0
        self._listens = False

    def listen(self) -> None:
        """Begin; once, for an audit hook stays until the program ends."""
        if not self._listens:
            self._listens = True
            sys.addaudithook(self._hear)

    def _hear(self, event: str, _args: Any) -> None:
        if event == "socket.connect":
            self.count += 1


connects: Final = Connects()
