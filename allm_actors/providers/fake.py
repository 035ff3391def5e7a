"""The scripted fake: an adapter that needs no key and no network.

It plays entries one call after another and never looks at the request. It is the adapter to test
programs with, and the one to read before writing another.

    Fake(script=[("text", "hi"), ("finish", "stop")])

Guarantees:
    - Each attempt takes the next list of entries, at once, whoever else is asking.
    - Where the script stands belongs to the value: copies start over, engines that hold it share it.
    - What an attempt held is released exactly once, and a delay is cut short by closing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable  # noqa: TC003  (pydantic reads the annotation)
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema  # noqa: TC002  (pydantic reads the annotation)
from pydantic_core import PydanticCustomError

from allm_actors.data import (
    ErrorEvent,
    Message,
    MessageCompleted,
    MessageStarted,
    RawChunk,
    TextCompleted,
    TextDelta,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from allm_actors.data._arguments import complete_arguments
from allm_actors.engine import Adapter, AdapterStream, CallContext, Connection
from allm_actors.engine.adapter import fold
from allm_actors.errors import AdapterError, AllmError
from allm_actors.providers._script import Entry, check_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allm_actors.data import Event, Request, Response


class _Cursor:
    """Where the script of one value stands. Any kind of copy starts at the first list."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.failed = 0
        self.asked = 0

    def fail(self, first: int) -> bool:
        """True for the attempts that are to fail before any list is asked for."""
        with self._lock:
            if self.failed >= first:
                return False
            self.failed += 1
            return True

    def take(self) -> int:
        """Give the index of the next list; no two callers get the same."""
        with self._lock:
            self.asked += 1
            return self.asked - 1

    def rewind(self) -> None:
        """Start over, with the attempts that fail too."""
        with self._lock:
            self.failed = self.asked = 0

    def __copy__(self) -> Self:
        return type(self)()

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


class Fake(Adapter):
    """An adapter that plays a script, for tests and for examples.

    Each entry is a tuple, its tag first:

        ("text", "Hel")                        a piece of text
        ("tool_call", {"id", "name", "arguments"?, "raw_arguments"?})
        ("tool_call_delta", {"id", "arguments_delta", "name"?})
        ("usage", {"input_tokens": 3})         a usage report
        ("raw_chunk", payload[, kind])         something of the provider's own
        ("delay", seconds)                     silence
        ("finish", "stop")                     the end; what follows is ignored
        ("error", what[, fields])              a failure; what follows is ignored
        ("stream_error", reason[, fields])     the same, as a `StreamError`
        ("preflight_error", reason[, fields])  first entry only: the call itself fails
        ("crash", message)                     a bug: `RuntimeError` out of the iterator
    """

    provider: ClassVar[str] = "fake"

    script: list[Entry] | None = None
    """The entries of one call."""
    scripts: list[list[Entry]] | None = None
    """The entries of several calls, one list each."""
    usage: Usage | None = None
    """Reported on every call, in place of what the script reports."""
    on_request: SkipJsonSchema[Callable[..., object] | None] = Field(default=None, exclude=True)
    """Called with `(request, call)`, first thing in every pre-flight; what it raises the call raises."""
    on_cleanup: SkipJsonSchema[Callable[[], object] | None] = Field(default=None, exclude=True)
    """Called once for every attempt that was iterated, when it ends; what it raises is swallowed."""
    fail_first: int = Field(default=0, ge=0)
    """So many attempts fail with `AdapterError("timeout")` before the script is played."""

    _cursor: _Cursor = PrivateAttr(default_factory=_Cursor)

    @field_validator("script")
    @classmethod
    def _ordered(cls, entries: list[tuple[Any, ...]] | None) -> list[tuple[Any, ...]] | None:
        return entries and check_order(entries)

    @field_validator("scripts")
    @classmethod
    def _all_ordered(cls, lists: list[list[tuple[Any, ...]]] | None) -> list[list[tuple[Any, ...]]] | None:
        return lists and [check_order(entries) for entries in lists]

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.script is not None and self.scripts is not None:
            raise PydanticCustomError("script_and_scripts", "script and scripts exclude each other")
        return self

    @property
    def calls_made(self) -> int:
        """How many attempts have asked for a list of entries."""
        return self._cursor.asked

    def rewind(self) -> None:
        """Start over with the first list, and with the attempts that fail first."""
        self._cursor.rewind()

    def connect(self) -> FakeConnection:
        """Give a new connection; the script goes on where it stands."""
        return FakeConnection(self)

    def __copy__(self) -> Self:
        twin = super().__copy__()
        # Not `twin._cursor = ...`: the copy still shares the table of private attributes' values.
        object.__setattr__(twin, "__pydantic_private__", {"_cursor": _Cursor()})
        return twin

    def _next_entries(self) -> list[tuple[Any, ...]] | None:
        """Take the next list of entries, or fail: `None` stands for an attempt that times out."""
        if self._cursor.fail(self.fail_first):
            return None
        lists = [self.script] if self.script is not None else self.scripts or []
        index = self._cursor.take()
        if index >= len(lists):
            raise AdapterError("no_scripted_response", "no scripted response")
        return lists[index]


class FakeConnection(Connection):
    """Plays the script of one `Fake`. Closing it ends its streams with `adapter_down`."""

    def __init__(self, config: Fake) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._live: set[_Attempt] = set()
        self._closed = False

    def stream(self, request: Request, call: CallContext) -> AdapterStream:
        """Take the next entries and play them as events."""
        return self._attempt(request, call, limit="stream_timeout")

    def generate(self, request: Request, call: CallContext) -> Response:
        """Take the next entries and play them as one whole answer."""
        return fold(self._attempt(request, call, limit="request_timeout"), call)

    def close(self) -> None:
        """End every stream with `adapter_down`; calls from now on fail with it."""
        with self._lock:
            self._closed = True
            live, self._live = self._live, set()
        for attempt in live:
            attempt.cut()

    def _attempt(self, request: Request, call: CallContext, *, limit: str) -> AdapterStream:
        if self._closed:
            raise _down()
        config = self._config
        if config.on_request is not None:
            config.on_request(request, call)
        entries = config._next_entries()  # noqa: SLF001  (the two classes are one thing)
        if entries and entries[0][0] == "preflight_error":
            raise entries[0][1].replace()
        attempt = _Attempt(self, config, entries, limit, getattr(call, limit))
        return AdapterStream(attempt.events(), attempt.end)

    def enter(self, attempt: _Attempt) -> bool:
        """Note an attempt that is being iterated; false if the connection was closed before."""
        with self._lock:
            if not self._closed:
                self._live.add(attempt)
            return not self._closed

    def leave(self, attempt: _Attempt) -> None:
        """Forget an attempt that is over."""
        with self._lock:
            self._live.discard(attempt)


_ENDINGS = frozenset({"finish", "error", "stream_error", "crash"})


class _Attempt:
    """One list of entries, played once. Iterated in one thread, ended from any."""

    def __init__(
        self,
        owner: FakeConnection,
        config: Fake,
        entries: list[tuple[Any, ...]] | None,
        limit: str,
        seconds: float,
    ) -> None:
        self._owner = owner
        self._usage = config.usage
        self._on_cleanup = config.on_cleanup
        self._entries = entries
        self._limit, self._seconds = limit, seconds
        self._wake = threading.Event()
        self._down = False
        self._silence = 0.0

    def cut(self) -> None:
        """The connection is closed: the next event is the error that says so."""
        self._down = True
        self._wake.set()

    def end(self) -> None:
        """Give everything back; runs once. A delay in progress ends."""
        self._wake.set()
        self._owner.leave(self)
        if self._on_cleanup is not None:
            with suppress(Exception):  # what a test's callback raises must not change what it tests
                self._on_cleanup()

    def events(self) -> Iterator[Event]:
        """Play the entries."""
        if not self._owner.enter(self):
            yield ErrorEvent(error=_down())
            return
        yield MessageStarted(message=Message(role="assistant", content=""))
        if self._entries is None:
            yield ErrorEvent(error=AdapterError("timeout"))
            return
        played = _Played(self._usage)
        for tag, *parts in self._entries:
            problem = self._wait(parts[0]) if tag == "delay" else None
            if self._down:
                problem = _down()
            if problem is not None:
                yield from played.failed(problem)
                return
            if tag in _ENDINGS:
                yield from played.ended(tag, parts[0])
                return
            for event in played.events(tag, *parts):
                self._heard()
                yield event
        yield from played.closing(None)

    def _heard(self) -> None:
        """Something is sent: the server's silence is over. A whole answer is not heard before its end."""
        if self._limit == "stream_timeout":
            self._silence = 0.0

    def _wait(self, seconds: float) -> AllmError | None:
        """Be silent, until the end of the attempt at most; the error if that took too long."""
        left = self._seconds - self._silence
        self._silence += seconds
        self._wake.wait(min(seconds, left))
        if seconds > left:
            return AdapterError(
                "timeout",
                f"nothing more arrived within {self._seconds:g} s ({self._limit})",
                metadata={"limit": self._limit},
            )
        return None


class _Played:
    """What one attempt has emitted so far, and so what its end has to say."""

    def __init__(self, usage: Usage | None) -> None:
        self._fixed_usage = usage
        self._usage = usage
        self._text: list[str] = []
        self._calls: dict[str, ToolCall | None] = {}
        self._names: dict[str, str] = {}
        self._fragments: dict[str, list[str]] = {}
        self._any = False

    def events(self, tag: str, *parts: Any) -> list[Event]:
        """Give what one entry emits, and remember it."""
        events = self._emitted(tag, *parts)
        self._any = self._any or bool(events)
        return events

    def _emitted(self, tag: str, part: Any, kind: str = "provider") -> list[Event]:
        match tag:
            case "text":
                self._text.append(part)
                return [TextDelta(id=None, delta=part)] if part else []
            case "tool_call":
                call = self._calls[part["id"]] = ToolCall(**part)
                return [ToolCallStarted(id=call.id, name=call.name), _completed(call)]
            case "tool_call_delta":
                return self._delta(**part)
            case "usage":
                return self._raw_chunk(part, "usage")
            case "raw_chunk":
                return self._raw_chunk(part, kind)
            case _:
                return []

    def _raw_chunk(self, payload: Any, kind: str) -> list[Event]:
        if kind == "usage":
            if self._fixed_usage is not None:
                return []
            self._usage = payload
        return [RawChunk(kind=kind, payload=payload)]

    def _delta(self, id: str, arguments_delta: str, name: str | None = None) -> list[Event]:  # noqa: A002
        first = id not in self._calls
        self._calls.setdefault(id, None)
        self._fragments.setdefault(id, []).append(arguments_delta)
        if name is not None:
            self._names.setdefault(id, name)
        events: list[Event] = [ToolCallStarted(id=id, name=name)] if first and name is not None else []
        return [*events, ToolCallDelta(id=id, arguments_delta=arguments_delta)]

    def ended(self, tag: str, part: Any) -> Iterator[Event]:
        """The events of an entry after which nothing counts."""
        if tag == "crash":
            raise RuntimeError(part)
        return self.closing(part) if tag == "finish" else self.failed(part)

    def closing(self, finish_reason: Any) -> Iterator[Event]:
        """The events of a good end."""
        text = "".join(self._text)
        if text:
            yield TextCompleted(id=None, text=text)
        calls = []
        for call_id, whole in self._calls.items():
            if whole is not None:
                calls.append(whole)
                continue
            arguments, raw = complete_arguments("".join(self._fragments[call_id]))
            name = self._names.get(call_id, "")
            call = ToolCall(id=call_id, name=name, arguments=arguments, raw_arguments=raw)
            calls.append(call)
            yield _completed(call)
        if self._fixed_usage is not None:
            yield RawChunk(kind="usage", payload=self._fixed_usage)
        message = Message(role="assistant", content=text, tool_calls=calls)
        yield MessageCompleted(message=message, finish_reason=finish_reason, usage=self._usage)

    def failed(self, error: AllmError) -> Iterator[Event]:
        """The events of a bad end: what was used up is reported if anything had come."""
        if self._fixed_usage is not None and self._any:
            yield RawChunk(kind="usage", payload=self._fixed_usage)
        yield ErrorEvent(error=error)


def _completed(call: ToolCall) -> ToolCallCompleted:
    return ToolCallCompleted(
        id=call.id, name=call.name, arguments=call.arguments, raw_arguments=call.raw_arguments or ""
    )


def _down() -> AdapterError:
    return AdapterError("adapter_down", provider="fake")
