"""A provider that does everything right, and the ways of doing one thing wrong.

`Reference` shows every scenario of the conformance suite in memory. Each subclass of its connection in `BROKEN`
breaks one promise, and says which check has to notice.
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
from allm_actors.errors import AdapterError, EngineError
from allm_actors.testing.conformance import AdapterConformance

LIMIT = 0.3


class Counts:
    """What the provider's side has seen."""

    def __init__(self):
        self.sent = self.freed = self.held = 0


class Exchange:
    """What one attempt holds."""

    def __init__(self, counts):
        self.counts = counts
        self.over = threading.Event()
        self.freed = False

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

    def silence(self, limit):
        """Wait for the limit; whether it came."""
        return not self.over.wait(min(limit, 10))


class ReferenceConnection(Connection):
    """Plays the scenario of its adapter."""

    caught_by: ClassVar[str | None] = None

    def __init__(self, config):
        self.config, self.scenario, self.counts = config, config.scenario, config.counts
        self.live = set()
        self.calls = 0

    def stream(self, request, call):
        self.preflight(call)
        text = self.next_text()
        exchange = Exchange(self.counts)
        return AdapterStream(self.run(exchange, text, call), exchange.release)

    def preflight(self, call):
        if self.scenario == "missing_key":
            raise EngineError("missing_key")

    def next_text(self):
        counts = self.config.counts
        index = counts.__dict__["asked"] = counts.__dict__.get("asked", -1) + 1
        return self.scenario.texts[index % len(self.scenario.texts)]

    def run(self, exchange, text, call):
        exchange.begin()
        self.live.add(exchange)
        yield MessageStarted(message=assistant(""))
        yield from self.body(exchange, text, call)

    def body(self, exchange, text, call):
        scenario = self.scenario
        if scenario.reason is not None:
            yield from self.fail(call)
            return
        pieces = [word if not n else f" {word}" for n, word in enumerate(text.split(" "))] if text else []
        for piece in pieces[: scenario.events] if scenario.events else pieces:
            yield TextDelta(id=None, delta=piece)
        if scenario.events:
            yield from self.go_wrong(exchange, call)
        else:
            yield from self.finish(text)

    def error(self, call):
        scenario = self.scenario
        return AdapterError(
            scenario.reason,
            provider="reference",
            status=scenario.status,
            retry_after=scenario.retry_after,
            request_id=scenario.provider_request_id,
        )

    def fail(self, call):
        yield ErrorEvent(error=self.error(call))

    def go_wrong(self, exchange, call):
        match self.scenario:
            case "slow_stream":
                if exchange.silence(call.stream_timeout):
                    yield failure("timeout", metadata={"limit": "stream_timeout"})
            case "only_keep_alives":
                yield from self.keep_alive(exchange)
            case "stalled":
                exchange.silence(10)
                if exchange not in self.live:
                    yield failure("adapter_down")
            case _:
                yield from self.broken_off()

    def keep_alive(self, exchange):
        while exchange.silence(0.02):
            yield RawChunk(kind="unknown_event", payload={})

    def broken_off(self):
        yield failure("network_error")

    def finish(self, text):
        for call in self.scenario.tool_calls:
            yield ToolCallStarted(id=call.id, name=call.name)
            raw = call.raw_arguments
            size = -(-len(raw) // self.scenario.pieces)
            for start in range(0, len(raw), size):
                yield ToolCallDelta(id=call.id, arguments_delta=raw[start : start + size])
        if text:
            yield TextCompleted(id=None, text=text)
        for call in self.scenario.tool_calls:
            yield self.completed_call(call)
        if self.scenario.usage is not None:
            yield RawChunk(kind="usage", payload=self.usage())
        yield self.completed(text)

    def completed_call(self, call):
        return ToolCallCompleted(
            id=call.id, name=call.name, arguments=call.arguments, raw_arguments=call.raw_arguments
        )

    def usage(self):
        return Usage(**self.scenario.usage)

    def completed(self, text):
        return MessageCompleted(message=assistant(text), finish_reason=self.scenario.finish_reason)

    def generate(self, request, call):
        if self.scenario == "slow_answer":
            self.preflight(call)
            self.wait_for_answer(call)
            raise AdapterError("timeout", metadata={"limit": "request_timeout"})
        with self.stream(request, call) as events:
            response = StreamCollector.collect(events).response()
        if response.error is not None:
            raise response.error.replace()
        return response.model_copy(update={"request_id": call.request_id})

    def wait_for_answer(self, call):
        threading.Event().wait(call.request_timeout)

    def close(self):
        live, self.live = self.live, set()
        for exchange in live:
            exchange.over.set()


def failure(reason, **fields):
    return ErrorEvent(error=AdapterError(reason, provider="reference", **fields))


class Reference(Adapter):
    """The value; `bent` is the class of its connections."""

    provider: ClassVar[str] = "reference"
    scenario: Any = Field(default=None, exclude=True)
    counts: Any = Field(default=None, exclude=True)
    bent: Any = Field(default=ReferenceConnection, exclude=True)
    setting: int = 0

    def connect(self):
        return self.bent(self)


class ReferenceCase(AdapterConformance):
    """The suite over the reference; `bent` may break it."""

    limit = LIMIT
    adapter: ClassVar[type[Reference]] = Reference
    bent: ClassVar[type[ReferenceConnection]] = ReferenceConnection

    def prepare(self, scenario):
        self.counts = Counts()
        if scenario == "value":
            return self.adapter(setting=3), {}
        return self.adapter(scenario=scenario, counts=self.counts, bent=self.bent), {}

    def requests(self):
        return self.counts.sent

    def held(self):
        return self.counts.held

    def freed(self):
        return self.counts.freed


# --- one promise broken each --------------------------------------------------------------------------------

BROKEN: list[type] = []


def breaks(check):
    """Note a broken class and the check that has to notice."""

    def note(cls):
        cls.caught_by = check
        BROKEN.append(cls)
        return cls

    return note


@breaks("test_a_whole_answer")
class NeverSaysWhyItEnds(ReferenceConnection):
    def completed(self, text):
        return MessageCompleted(message=assistant(text))


@breaks("test_the_order_of_events")
class StartsTwice(ReferenceConnection):
    def body(self, exchange, text, call):
        for event in super().body(exchange, text, call):
            yield event
            if type(event) is TextCompleted or (not text and type(event) is ToolCallCompleted):
                yield MessageStarted(message=assistant(""))


@breaks("test_what_is_said")
class GuessesArguments(ReferenceConnection):
    def completed_call(self, call):
        arguments = call.arguments or {"city": "Kyoto"}
        return super().completed_call(call).model_copy(update={"arguments": arguments})


@breaks("test_a_folded_stream_is_the_whole_answer")
class AnswersDifferentlyAsAWhole(ReferenceConnection):
    def generate(self, request, call):
        return super().generate(request, call).model_copy(update={"reasoning": "because"})


@breaks("test_generate_raises_a_failure")
class BlursItsFailures(ReferenceConnection):
    def generate(self, request, call):
        try:
            return super().generate(request, call)
        except AdapterError as error:
            blurred = error.replace(reason="unknown") if error.reason == "content_filter" else error
            raise blurred from None


@breaks("test_a_stream_ends_with_a_failure")
class FailsTwice(ReferenceConnection):
    def fail(self, call):
        yield from super().fail(call)
        yield from super().fail(call)


@breaks("test_a_break_in_midstream")
class TakesACutForAnEnd(ReferenceConnection):
    def broken_off(self):
        yield MessageCompleted(message=assistant(self.scenario.text_before), finish_reason="stop")


@breaks("test_silence_ends_in_a_timeout")
class WaitsTooLongForAnswers(ReferenceConnection):
    def wait_for_answer(self, call):
        threading.Event().wait(call.request_timeout * 1.7)


@breaks("test_silence_ends_in_a_timeout")
class WaitsTooLongForEvents(ReferenceConnection):
    def go_wrong(self, exchange, call):
        if self.scenario == "slow_stream":
            threading.Event().wait(call.stream_timeout * 0.7)
        return super().go_wrong(exchange, call)


@breaks("test_silence_ends_in_a_timeout")
class TakesKeepAlivesForContent(ReferenceConnection):
    def keep_alive(self, exchange):
        for _ in range(40):
            if not exchange.silence(0.02):
                return
            yield TextDelta(id=None, delta=" ")
        yield failure("timeout")


@breaks("test_one_attempt")
class TriesAgain(ReferenceConnection):
    def generate(self, request, call):
        try:
            return super().generate(request, call)
        except AdapterError as error:
            if not error.retryable or error.reason == "timeout":
                raise
            return super().generate(request, call)


@breaks("test_an_unknown_option_is_accepted")
class KnowsAllOptions(ReferenceConnection):
    def preflight(self, call):
        super().preflight(call)
        if call.options:
            raise TypeError(f"unknown option: {call.options}")


@breaks("test_laziness")
class SendsAtOnce(ReferenceConnection):
    def stream(self, request, call):
        stream = super().stream(request, call)
        self.counts.sent += 1
        return stream

    def run(self, exchange, text, call):
        self.counts.sent -= 1
        yield from super().run(exchange, text, call)


@breaks("test_laziness")
class SendsAsItConnects(ReferenceConnection):
    def __init__(self, config):
        super().__init__(config)
        if self.scenario == "text":
            self.counts.sent += 1


@breaks("test_a_missing_key_raises_at_the_call")
class MissesTheKeyTooLate(ReferenceConnection):
    def preflight(self, call):
        pass

    def body(self, exchange, text, call):
        if self.scenario == "missing_key":
            return iter([ErrorEvent(error=EngineError("missing_key"))])
        return super().body(exchange, text, call)


@breaks("test_a_halt_after_two_events")
class FreesTwice(ReferenceConnection):
    def run(self, exchange, text, call):
        try:
            yield from super().run(exchange, text, call)
        except GeneratorExit:
            exchange.free()
            raise


@breaks("test_a_halt_from_another_thread")
class SleepsThroughAHalt(ReferenceConnection):
    def go_wrong(self, exchange, call):
        if self.scenario == "stalled":
            while exchange in self.live and not exchange.over.wait(0.01):
                pass
            if exchange in self.live:
                threading.Event().wait(0.7)
                return iter(())
        return super().go_wrong(exchange, call)


@breaks("test_a_connection_that_is_closed_meanwhile")
class ForgetsItsStreams(ReferenceConnection):
    def close(self):
        live, self.live = self.live, set()
        for exchange in live:
            threading.Timer(0.7, exchange.over.set).start()


@breaks("test_a_stream_that_is_read_to_its_end")
class KeepsWhatItHadAtTheEnd(ReferenceConnection):
    def stream(self, request, call):
        self.preflight(call)
        exchange = Exchange(self.counts)
        ended = []

        def run(text):
            yield from self.run(exchange, text, call)
            if self.scenario == "text":
                ended.append(1)

        return AdapterStream(run(self.next_text()), lambda: None if ended else exchange.release())


@breaks("test_usage")
class ReportsZeroForUnknown(ReferenceConnection):
    def usage(self):
        return super().usage().model_copy(update={"reasoning_tokens": 0})


class _Mixes(ReferenceConnection):
    """Reads every stream from the place where the last one was opened."""

    shared: ClassVar[dict[Any, str]]

    def key(self):
        raise NotImplementedError

    def next_text(self):
        text = super().next_text()
        self.shared[self.key()] = text
        return text

    def body(self, exchange, text, call):
        if self.scenario != "two_answers":
            return super().body(exchange, text, call)
        return self.mixed()

    def mixed(self):
        said = []
        for n in range(3):
            word = self.shared[self.key()].split(" ")[n]
            said.append(word if not n else f" {word}")
            yield TextDelta(id=None, delta=said[-1])
        yield from self.finish("".join(said))


@breaks("test_two_streams_do_not_mix")
class MixesItsStreams(_Mixes):
    shared: ClassVar[dict[Any, str]] = {}

    def key(self):
        return self


@breaks("test_two_streams_do_not_mix")
class MixesItsConnections(_Mixes):
    shared: ClassVar[dict[Any, str]] = {}

    def key(self):
        return "all"


@breaks("test_secrets")
class QuotesTheKey(ReferenceConnection):
    def error(self, call):
        error = super().error(call)
        if self.scenario != "echoed_key" or call.api_key is None:
            return error
        return error.replace(message=f"Incorrect API key: {call.api_key.get_secret_value()}")


class Forgetful(Reference):
    """An adapter value that does not survive being stored."""

    provider: ClassVar[str] = "forgetful"
    setting: int = Field(default=0, exclude=True)


class Indiscreet(Reference):
    """An adapter value that takes a key."""

    provider: ClassVar[str] = "indiscreet"

    def __init__(self, **fields):
        fields.pop("api_key", None)
        super().__init__(**fields)


BROKEN_VALUES = [Forgetful, Indiscreet]
