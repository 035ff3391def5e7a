"""What the conformance suite looks with: readers in threads, every form of a value, witnesses."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from allm_actors.data import ErrorEvent, Response, TextDelta
from allm_actors.errors import AdapterError, AllmError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allm_actors.engine import AdapterStream
    from allm_actors.testing._scenarios import Scenario

_SOON: Final = 5.0


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
        """Wait for the end; what was read."""
        self._thread.join(_SOON)
        assert not self._thread.is_alive(), "the reader still waits"
        if self._error is not None:
            raise self._error
        return self._events


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took <= seconds, f"took {took:.3f} s, at most {seconds} s are allowed"


def judge(error: AllmError, scenario: Scenario) -> None:
    """Whether an error says what its scenario is about."""
    assert isinstance(error, AdapterError)
    assert error.reason == scenario.reason
    for name, said in (
        ("status", scenario.status),
        ("retry_after", scenario.retry_after),
        ("request_id", scenario.provider_request_id),
    ):
        assert said is None or getattr(error, name) == said


def same_text(got: str | None, said: str | None) -> bool:
    """Equal argument texts; those that are JSON may be spaced differently, for some providers send values."""
    if got == said:
        return True
    with contextlib.suppress(ValueError, TypeError):
        return bool(json.loads(got or "") == json.loads(said or ""))
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


def shown_forms(values: Any) -> list[str]:
    """Every form in which values show themselves."""
    forms = []
    for value in values:
        forms += [repr(value), str(value), value.model_dump_json()]
        if isinstance(value, ErrorEvent):
            forms += forms_of_error(value.error)
    return forms


def forms_of_error(error: BaseException | None) -> list[str]:
    """Every form of an exception and of all it is chained to."""
    forms: list[str] = []
    todo, seen = [error], set()
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        forms += [repr(each), str(each), repr(each.args), repr(vars(each))]
        todo += [each.__cause__, each.__context__]
    return forms


@contextlib.contextmanager
def listening(seen: list[str]) -> Iterator[None]:
    """Take down every log record, of the standard library's loggers and of structlog's."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(f"{record.getMessage()} {vars(record)!r}")

    root, handler = logging.getLogger(), Handler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with structlog.testing.capture_logs() as records:
            yield
        seen += [repr(record) for record in records]
    finally:
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
