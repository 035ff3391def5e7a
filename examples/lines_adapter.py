"""An adapter of one's own, complete: a model behind a TCP socket that answers in lines of JSON.

The question is one line, and so is each piece of the answer:

    {"model": "tiny", "key": "...", "messages": [{"role": "user", "content": "hi"}], "options": {}}

    {"text": "Hel"}                                          a piece of text
    {"call": "c1", "name": "weather", "arguments": "{..."}   a piece of a tool call
    {"usage": {"input_tokens": 9}}                           what was used
    {"end": "stop"}                                          the end of a good answer
    {"error": {"reason": "rate_limited", "status": 429}}     the end of any other

An empty line only says that the server lives.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any, ClassVar

from allm_actors import Adapter, AdapterStream, CallContext, Connection, ToolCall, Usage, assistant
from allm_actors.errors import AdapterError, AllmError, EngineError, StreamError
from allm_actors.events import (
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allm_actors import Request


class Lines(Adapter):
    """Where the model is: data, without a socket and without a key."""

    provider: ClassVar[str] = "lines"
    port: int
    host: str = "127.0.0.1"

    def connect(self) -> LinesConnection:
        return LinesConnection(self)


class LinesConnection(Connection):
    """One socket for each call. Any thread may use it; closing it ends its streams with `adapter_down`."""

    def __init__(self, config: Lines) -> None:
        self.config = config
        self.running: set[Exchange] = set()
        self.closed = False

    def stream(self, request: Request, call: CallContext) -> AdapterStream:
        # What is wrong with the call is raised here, the missing key last; nothing is sent before `next()`.
        if not request.model:
            raise EngineError("missing_model", provider="lines")
        if call.api_key is None:
            raise EngineError("missing_key", provider="lines")
        exchange = Exchange(self, request, call)
        return AdapterStream(exchange.events(), exchange.halt)

    def close(self) -> None:
        self.closed = True
        for exchange in list(self.running):
            exchange.cut()


class Exchange:
    """One question and its answer. Read in one thread, ended from any."""

    def __init__(self, connection: LinesConnection, request: Request, call: CallContext) -> None:
        self.connection, self.request, self.call = connection, request, call
        self.socket: socket.socket | None = None
        self.lock = threading.Lock()
        self.over = self.halted = False

    def events(self) -> Iterator[Event]:
        """Ask, and tell what comes. An `AllmError` raised here reaches the consumer as an `ErrorEvent`."""
        self.connection.running.add(self)
        if self.connection.closed:  # looked at after joining the others, so that `close()` misses nobody
            self.cut()
        answer = Answer(self.call)
        try:
            yield from answer.events(self.lines())
        except TimeoutError:
            limit = "stream_timeout" if self.socket is not None else "connect_timeout"
            raise AdapterError("timeout", provider="lines", metadata={"limit": limit}) from None
        except OSError as error:
            if self.halted:
                return
            if self.over:
                raise AdapterError("adapter_down", provider="lines") from None
            problem = error.strerror or "no connection"
            raise AdapterError("network_error", f"lines: {problem}", provider="lines") from None
        finally:
            self.connection.running.discard(self)
            if self.socket is not None:
                self.socket.close()

    def lines(self) -> Iterator[bytes]:
        """Send the question; give each line of the answer as it arrives."""
        config, call = self.connection.config, self.call
        made = socket.create_connection((config.host, config.port), timeout=call.connect_timeout)
        with self.lock:
            self.socket = made
            if self.over:
                raise ConnectionAbortedError
        made.settimeout(min(call.stream_timeout, threading.TIMEOUT_MAX))
        made.sendall(json.dumps(question(self.request, call)).encode() + b"\n")
        with made.makefile("rb") as lines:
            yield from lines
        raise ConnectionAbortedError(0, "the answer ended too early")

    def halt(self) -> None:
        """Nobody wants the answer any more. Called once, perhaps while another thread waits in `lines`."""
        self.halted = True
        self.cut()

    def cut(self) -> None:
        """Wake whoever reads. It is the reader that closes the socket, for only it knows when it is done."""
        with self.lock:
            self.over = True
            if self.socket is not None:
                with contextlib.suppress(OSError):  # it may not be connected any more
                    self.socket.shutdown(socket.SHUT_RDWR)


def question(request: Request, call: CallContext) -> dict[str, Any]:
    """What is sent. Options that nobody here knows are the server's business."""
    return {
        "model": request.model,
        "key": call.api_key.get_secret_value() if call.api_key else None,
        "messages": [message.model_dump(mode="json") for message in request.messages],
        "options": {**request.options, **call.options},
    }


class Answer:
    """From lines to events. It knows no socket, so it can be tested without one.

    What it does not know it leaves out; what it knows and cannot read is an error.
    """

    def __init__(self, call: CallContext) -> None:
        self.key = call.api_key.get_secret_value() if call.api_key else ""
        self.text: list[str] = []
        self.names: dict[str, str] = {}
        self.arguments: dict[str, list[str]] = {}
        self.usage: Usage | None = None
        self.started = False

    def events(self, lines: Iterator[bytes]) -> Iterator[Event]:
        """One start, the pieces as they come, the closing events."""
        for index, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                said = json.loads(line)
                events = list(self.closing(said["end"]) if "end" in said else self.piece(said))
            except (KeyError, TypeError, ValueError):
                raise self.malformed(index) from None
            if not self.started:
                self.started = True
                yield MessageStarted(message=assistant(""))
            yield from events
            if "end" in said:
                return

    def malformed(self, index: int) -> AllmError:
        if self.started:
            return StreamError("malformed_event", provider="lines", event_index=index)
        return AdapterError("malformed_response", provider="lines")

    def piece(self, said: dict[str, Any]) -> Iterator[Event]:
        match said:
            case {"error": dict(fields)}:
                raise self.failure(**fields)
            case {"text": str(text)} if text:
                self.text.append(text)
                yield TextDelta(id=None, delta=text)
            case {"call": str(call_id), "name": str(name), "arguments": str(arguments)}:
                if call_id not in self.names:
                    self.names[call_id], self.arguments[call_id] = name, []
                    yield ToolCallStarted(id=call_id, name=name)
                self.arguments[call_id].append(arguments)
                yield ToolCallDelta(id=call_id, arguments_delta=arguments)
            case {"usage": dict(counters)}:
                self.usage = Usage(**counters)
            case dict():
                pass  # something that is newer than this program
            case _:
                raise TypeError

    def closing(self, finish_reason: Any) -> Iterator[Event]:
        text, calls = "".join(self.text), [self.call(call_id) for call_id in self.names]
        if text:
            yield TextCompleted(id=None, text=text)
        for call in calls:
            raw = call.raw_arguments or ""
            yield ToolCallCompleted(id=call.id, name=call.name, arguments=call.arguments, raw_arguments=raw)
        if self.usage is not None:
            yield RawChunk(kind="usage", payload=self.usage)
        message = assistant(text).model_copy(update={"tool_calls": calls})
        yield MessageCompleted(message=message, finish_reason=finish_reason, usage=self.usage)

    def call(self, call_id: str) -> ToolCall:
        """Argument text that is no JSON object is not an error: it is kept, and `arguments` is empty."""
        raw = "".join(self.arguments[call_id])
        try:
            arguments = json.loads(raw)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            arguments = {}
        return ToolCall(id=call_id, name=self.names[call_id], arguments=arguments, raw_arguments=raw)

    def failure(self, reason: str, message: str = "", **fields: Any) -> AdapterError:
        """What the server says went wrong; servers quote keys, errors must not."""
        if reason not in AdapterError.legal_reasons():
            reason = "unknown"
        if self.key:
            message = message.replace(self.key, "[REDACTED]")
        return AdapterError(reason, message, provider="lines", **fields)
