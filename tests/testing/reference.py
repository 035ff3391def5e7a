"""A provider that does everything right, in memory, and the suite over it.

`ReferenceConnection` shows every scenario of the conformance suite. What it does is cut into small steps, so that
a subclass can do one of them wrong.
"""

import threading
from typing import Any, ClassVar

from pydantic import Field

from allm_actors.data import (
    ErrorEvent,
    MessageCompleted,
    MessageStarted,
    RawChunk,
    StreamCollector,
    TextCompleted,
    TextDelta,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    assistant,
)
from allm_actors.engine import Adapter, AdapterStream, Connection
from allm_actors.errors import AdapterError, EngineError, StreamError
from allm_actors.testing import AdapterConformance

LIMIT = 0.2
ENOUGH = 10
"""Seconds after which what is silent for ever goes on."""


class Counts:
    """What the provider's side has seen since `prepare`."""

    def __init__(self):
        self.sent = self.freed = self.held = self.asked = 0


class Exchange:
    """What one attempt holds."""

    def __init__(self, counts):
        self.counts = counts
        self.over = threading.Event()
        self.down = self.freed = False

    def begin(self):
        self.counts.sent += 1
        self.counts.held += 1

    def free(self):
        self.counts.freed += 1
        if not self.freed:
            self.counts.held -= 1
        self.freed = True

    def release(self):
        self.over.set()
        self.free()

    def silence(self, seconds):
        """Be silent; whether it was for so long."""
        return not self.over.wait(min(seconds, ENOUGH))


class ReferenceConnection(Connection):
    """Plays the scenario of its adapter."""

    def __init__(self, config):
        self.config, self.scenario, self.counts = config, config.scenario, config.counts
        self.live = set()

    # --- calls ----------------------------------------------------------------------------------------------

    def stream(self, request, call):
        self.preflight(call)
        exchange = Exchange(self.counts)
        events = self.run(exchange, self.next_text(), call)
        return AdapterStream(events, exchange.release)

    def generate(self, request, call):
        if self.scenario == "slow_answer":
            self.preflight(call)
            self.wait_for_answer(call)
            raise self.timeout(call, "request_timeout")
        with self.whole(request, call) as events:
            response = StreamCollector.collect(events).response()
        if response.error is not None:
            raise response.error.replace()
        return self.answer(response.model_copy(update={"request_id": call.request_id}), call)

    def close(self):
        live, self.live = self.live, set()
        for exchange in live:
            exchange.down = True
            exchange.over.set()

    # --- steps of a call ------------------------------------------------------------------------------------

    def preflight(self, call):
        if self.scenario == "missing_key":
            raise EngineError("missing_key")

    def whole(self, request, call):
        """The stream that `generate` folds."""
        return ReferenceConnection.stream(self, request, call)

    def answer(self, response, call):
        return response

    def wait_for_answer(self, call):
        threading.Event().wait(call.request_timeout)

    def next_text(self):
        texts, index = self.scenario.texts, self.counts.asked
        self.counts.asked += 1
        return texts[index % len(texts)]

    def run(self, exchange, text, call):
        exchange.begin()
        self.live.add(exchange)
        yield MessageStarted(message=assistant(""))
        yield from self.body(exchange, text, call)

    def body(self, exchange, text, call):
        scenario = self.scenario
        if scenario.reason is not None:
            yield ErrorEvent(error=self.error(call))
            return
        words = [word if not n else f" {word}" for n, word in enumerate(text.split(" "))] if text else []
        if scenario.events or scenario.limit:
            yield from (TextDelta(id=None, delta=word) for word in words[: scenario.events])
            yield from self.go_wrong(exchange, call)
        else:
            yield from (TextDelta(id=None, delta=word) for word in words)
            yield from self.finish(text)

    def go_wrong(self, exchange, call):
        match self.scenario:
            case "silent_stream" | "slow_stream":
                if exchange.silence(call.stream_timeout):
                    yield ErrorEvent(error=self.timeout(call, "stream_timeout"))
            case "only_keep_alives":
                while exchange.silence(0.02):
                    yield RawChunk(kind="unknown_event", payload={})
            case "stalled":
                exchange.silence(ENOUGH)
                yield from self.after_silence(exchange)
            case _:
                yield ErrorEvent(error=self.broken_off(call))

    def after_silence(self, exchange):
        if exchange.down:
            yield ErrorEvent(error=AdapterError("adapter_down"))

    # --- what is said ---------------------------------------------------------------------------------------

    def error(self, call):
        scenario = self.scenario
        return AdapterError(
            scenario.reason,
            status=scenario.status,
            retry_after=scenario.retry_after,
            request_id=scenario.provider_request_id,
        )

    def broken_off(self, call):
        if self.scenario == "unparseable_event":
            return StreamError("malformed_event")
        return AdapterError("network_error")

    def timeout(self, call, limit):
        return AdapterError("timeout", metadata={"limit": limit})

    def finish(self, text):
        for call in self.scenario.tool_calls:
            raw = call.raw_arguments
            size = -(-len(raw) // self.scenario.pieces)
            yield ToolCallStarted(id=call.id, name=call.name)
            for start in range(0, len(raw), size):
                yield ToolCallDelta(id=call.id, arguments_delta=raw[start : start + size])
        if text:
            yield TextCompleted(id=None, text=text)
        for call in self.scenario.tool_calls:
            yield ToolCallCompleted(
                id=call.id, name=call.name, arguments=call.arguments, raw_arguments=call.raw_arguments
            )
        if self.scenario.usage is not None:
            yield RawChunk(kind="usage", payload=Usage(**self.scenario.usage))
        yield MessageCompleted(message=assistant(text), finish_reason=self.scenario.finish_reason)


class Reference(Adapter):
    """The value; `kind` is the class of its connections."""

    provider: ClassVar[str] = "reference"
    scenario: Any = Field(default=None, exclude=True)
    counts: Any = Field(default=None, exclude=True)
    kind: Any = Field(default=ReferenceConnection, exclude=True)
    setting: int = 0

    def connect(self):
        return self.kind(self)


class ReferenceCase(AdapterConformance):
    """The suite over the reference; `kind` may break its connections, `adapter` its value."""

    limit = LIMIT
    adapter: ClassVar[type[Reference]] = Reference
    kind: ClassVar[type[ReferenceConnection]] = ReferenceConnection

    def prepare(self, scenario):
        self.counts = Counts()
        if scenario == "value":
            return self.adapter(setting=3), {}
        return self.adapter(scenario=scenario, counts=self.counts, kind=self.kind), {}

    def requests(self):
        return self.counts.sent

    def held(self):
        return self.counts.held

    def freed(self):
        return self.counts.freed
