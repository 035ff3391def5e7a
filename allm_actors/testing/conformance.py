"""The conformance suite: what every adapter promises, as tests that a third party runs against theirs.

A subclass of `AdapterConformance` says with `prepare(scenario)` how its provider is made to show a named
scenario; every check then calls the adapter as the library does and compares what it saw.

```python
class TestEcho(AdapterConformance):
    def prepare(self, scenario):
        match scenario:
            case "text":
                return Echo(prefix=scenario.text), {}
            ...
```

Needs pytest. Every check can fail, and says in its docstring what it is there for.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pydantic
import pytest

from allm_actors.data import (
    ErrorEvent,
    MessageCompleted,
    RawChunk,
    Request,
    Response,
    StreamCollector,
    Usage,
    user,
)
from allm_actors.engine import Adapter, CallContext, Connection, Engine
from allm_actors.errors import AdapterError, AllmError, EngineError
from allm_actors.streaming import StreamRunner
from allm_actors.testing._grammar import breaches
from allm_actors.testing._looking import (
    Reading,
    comparable,
    connects,
    forms_of_error,
    judge,
    listening,
    read_one,
    same_text,
    shown_forms,
    within,
)
from allm_actors.testing._scenarios import ANSWERS, BREAKS, FAILURES, SCENARIOS, TIMEOUTS, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AdapterConformance", "Scenario"]

_HALT: Final = 0.5
_NAMED: Final = {str(scenario): scenario for scenario in SCENARIOS}
_CANARY: Final = "sk-canary-0123456789abcdef"


_COUNTERS: Final = {
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "reasoning_tokens",
    "total_tokens",
}


class AdapterConformance:
    """The tests of one adapter. Subclass it, define `prepare`, and let pytest find the subclass.

    `requests`, `held` and `freed` are witnesses: with them the suite sees the provider's side, too. The
    checks that need one that is not there look at as much as they can without it.
    """

    limit: ClassVar[float] = 0.4
    """The seconds a time is given in the scenarios of silence; half of that more, and it has to be over."""

    # --- what a subclass says -------------------------------------------------------------------------

    def prepare(self, scenario: Scenario) -> tuple[Adapter, dict[str, Any]] | None:
        """Make the provider show a scenario.

        Args:
            scenario: What it shall do: a string, its name, with what it shall say in its attributes.

        Returns:
            An adapter value, and fields of the `CallContext` that the call is made with. `None` if this
            provider cannot show the scenario: its checks are skipped.
        """
        raise NotImplementedError

    def requests(self) -> int:
        """How many requests have reached the provider since `prepare`.

        By default how many connections this program has asked for, which is as good while each request has a
        connection of its own.
        """
        return connects.count - self._connects_before

    def held(self) -> int | None:
        """How much of what calls hold has not been given back; `None` if that cannot be seen."""
        return None

    def freed(self) -> int | None:
        """How often something was given back since `prepare`; `None` if that cannot be seen."""
        return None

    def request(self, scenario: Scenario) -> Request:  # noqa: ARG002
        """The request that is sent."""
        return Request(messages=[user("Hello")], model="conformance")

    _connects_before = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.prepare is AdapterConformance.prepare:
            raise TypeError(
                f"{cls.__name__} must define prepare(scenario), which gives an adapter and CallContext fields"
            )

    # --- answers -------------------------------------------------------------------------------------------

    def test_a_whole_answer(self) -> None:
        """`generate` gives a response: its text, why it ended, and what it used."""
        with self._shown("text") as (connection, request, call, scenario):
            response = connection.generate(request, call)
        assert isinstance(response, Response)
        assert response.text == scenario.text
        assert response.finish_reason is not None
        assert isinstance(response.usage, Usage)

    @pytest.mark.parametrize("name", [str(scenario) for scenario in ANSWERS])
    def test_the_order_of_events(self, name: str) -> None:
        """Consumers rely on the order: one start, deltas, completions, one end."""
        events, _ = self._streamed(name)
        assert breaches(events) == []
        assert isinstance(events[-1], MessageCompleted)

    @pytest.mark.parametrize("name", [str(scenario) for scenario in ANSWERS])
    def test_what_is_said(self, name: str) -> None:
        """The text and the calls are the provider's, argument text that is no JSON object included."""
        events, scenario = self._streamed(name)
        response = StreamCollector.collect(events).response()
        assert (response.output_text or "") == scenario.text
        assert [call.name for call in response.tool_calls] == [call.name for call in scenario.tool_calls]
        for call, said in zip(response.tool_calls, scenario.tool_calls, strict=True):
            assert call.arguments == said.arguments
            assert same_text(call.raw_arguments, said.raw_arguments)
            assert call.invalid_arguments == said.invalid_arguments
        assert len({call.id for call in response.tool_calls}) == len(scenario.tool_calls)

    @pytest.mark.parametrize("name", [str(scenario) for scenario in ANSWERS])
    def test_a_folded_stream_is_the_whole_answer(self, name: str) -> None:
        """Both roads give the same response, whatever the provider's two formats look like."""
        events, _ = self._streamed(name)
        with self._shown(name) as (connection, request, call, _scenario):
            whole = connection.generate(request, call)
        assert comparable(StreamCollector.collect(events).response()) == comparable(whole)

    # --- failures ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", [str(scenario) for scenario in FAILURES])
    def test_generate_raises_a_failure(self, name: str) -> None:
        """With its reason, and what the provider says about it."""
        with (
            self._shown(name) as (connection, request, call, scenario),
            pytest.raises(AdapterError) as caught,
        ):
            connection.generate(request, call)
        judge(caught.value, scenario)

    @pytest.mark.parametrize("name", [str(scenario) for scenario in FAILURES])
    def test_a_stream_ends_with_a_failure(self, name: str) -> None:
        """As its one last event; nothing is raised, nothing follows."""
        events, scenario = self._streamed(name)
        assert [type(event) for event in events].count(ErrorEvent) == 1
        assert isinstance(events[-1], ErrorEvent)
        judge(events[-1].error, scenario)

    @pytest.mark.parametrize("name", [str(scenario) for scenario in BREAKS])
    def test_a_break_in_midstream(self, name: str) -> None:
        """What was said stays said; a stream that is cut off is never a good answer."""
        events, scenario = self._streamed(name)
        assert isinstance(events[-1], ErrorEvent)
        assert not [event for event in events[:-1] if isinstance(event, ErrorEvent | MessageCompleted)]
        assert StreamCollector.collect(events).text == scenario.text_before

    @pytest.mark.parametrize("name", [str(scenario) for scenario in TIMEOUTS])
    def test_silence_ends_in_a_timeout(self, name: str) -> None:
        """Within half of the time more: nobody waits for a provider that is gone."""
        scenario = _NAMED[name].with_limit(self.limit)
        assert scenario.limit is not None
        option, seconds = scenario.limit
        work = {
            "slow_answer": self._error_of_answer,
            "slow_stream": self._error_of_stream,
            "only_keep_alives": self._error_through_an_engine,
        }[name]
        with self._prepared(scenario) as (adapter, fields):
            began = time.monotonic()
            error = work(adapter, self.request(scenario), {**fields, option: seconds})
            took = time.monotonic() - began
        assert isinstance(error, AllmError)
        assert error.reason == "timeout"
        assert took <= 1.5 * seconds

    def test_one_attempt(self) -> None:
        """A failure that is worth repeating is repeated above, never by the adapter."""
        name = "error_provider_unavailable"
        with self._shown(name) as (connection, request, call, _scenario):
            with contextlib.suppress(AllmError):
                connection.generate(request, call)
            assert self.requests() == 1
        self._streamed(name)
        assert self.requests() == 1

    # --- calls ---------------------------------------------------------------------------------------------

    def test_an_unknown_option_is_accepted(self) -> None:
        """Options that the library does not know are the provider's business."""
        events, _ = self._streamed("text", options={"x_conformance": 1})
        assert isinstance(events[-1], MessageCompleted)

    def test_laziness(self) -> None:
        """Neither connecting nor opening a stream sends anything; closing an unread one does nothing."""
        with self._shown("text") as (connection, request, call, _scenario):
            assert self.requests() == 0
            stream = connection.stream(request, call)
            assert self.requests() == 0
            stream.close()
            assert self.requests() == 0
            assert self.freed() in (None, 0)
            assert list(stream) == []

    def test_a_missing_key_raises_at_the_call(self) -> None:
        """Before anything is sent, and not as an event."""
        with self._shown("missing_key") as (connection, request, call, _scenario):
            for ask in (connection.stream, connection.generate):
                with pytest.raises(EngineError) as caught:
                    ask(request, call)
                assert caught.value.reason == "missing_key"
            assert self.requests() == 0

    # --- resources -----------------------------------------------------------------------------------------

    def test_a_halt_after_two_events(self) -> None:
        """A consumer that walks away leaves nothing open."""
        with self._shown("stalled") as (connection, request, call, _scenario):
            stream = connection.stream(request, call)
            for _ in range(2):
                next(stream)
            with within(_HALT):
                stream.close()
                self._await_free()
            stream.close()
            assert list(stream) == []
            assert self.freed() in (None, 1)

    def test_a_halt_from_another_thread(self) -> None:
        """Closing wakes a reader that waits for bytes."""
        with self._shown("stalled") as (connection, request, call, scenario):
            stream = connection.stream(request, call)
            reading = Reading(stream)
            reading.await_text(scenario.text_before)
            with within(_HALT):
                stream.close()
                events = reading.end()
                self._await_free()
            assert not [event for event in events if isinstance(event, ErrorEvent | MessageCompleted)]
            assert self.freed() in (None, 1)

    def test_a_connection_that_is_closed_meanwhile(self) -> None:
        """Its streams end; nobody waits for what is gone."""
        with self._shown("stalled") as (connection, request, call, scenario):
            reading = Reading(connection.stream(request, call))
            reading.await_text(scenario.text_before)
            with within(_HALT):
                connection.close()
                reading.end()
                self._await_free()
            assert self.freed() in (None, 1)

    def test_a_stream_that_is_read_to_its_end(self) -> None:
        """It has given everything back by itself."""
        with self._shown("text") as (connection, request, call, _scenario):
            stream = connection.stream(request, call)
            assert isinstance(list(stream)[-1], MessageCompleted)
            with within(_HALT):
                self._await_free()
            stream.close()
            assert self.freed() in (None, 1)

    # --- data ----------------------------------------------------------------------------------------------

    def test_usage(self) -> None:
        """Reported in a chunk of its own; a counter that is not reported is `None`, never 0."""
        events, scenario = self._streamed("text")
        reports = [event.payload for event in events if isinstance(event, RawChunk) and event.kind == "usage"]
        assert reports
        assert scenario.usage is not None
        for name, number in scenario.usage.items():
            assert getattr(reports[-1], name) == number
        assert not [
            name for name in _COUNTERS - {*scenario.usage, "total_tokens"} if getattr(reports[-1], name) == 0
        ]
        silent, _ = self._streamed("no_usage")
        for event in silent:
            if isinstance(event, RawChunk) and event.kind == "usage":
                assert not [name for name in _COUNTERS if getattr(event.payload, name) == 0]

    @pytest.mark.parametrize("connections", [1, 2])
    def test_two_streams_do_not_mix(self, connections: int) -> None:
        """On one connection, and on two of one value."""
        scenario = _NAMED["two_answers"]
        with self._prepared(scenario) as (adapter, fields), contextlib.ExitStack() as stack:
            made = [adapter.connect() for _ in range(connections)]
            for connection in made:
                stack.callback(connection.close)
            streams, texts = [], []
            for connection in (made[0], made[-1]):
                streams.append(connection.stream(self.request(scenario), CallContext(**fields)))
                texts.append([next(streams[-1])])  # here the request goes out: the order of the answers
            left = [1, 1]
            while sum(left):
                left = [read_one(stream, text) for stream, text in zip(streams, texts, strict=True)]
        assert [StreamCollector.collect(events).text for events in texts] == list(scenario.texts)

    def test_the_adapter_is_a_value(self) -> None:
        """It can be stored, sent to other programs and compared, and it holds no key."""
        with self._prepared(_NAMED["value"]) as (adapter, _):
            kind: Any = type(adapter)
            assert kind.model_validate_json(adapter.model_dump_json()) == adapter
            assert pickle.loads(pickle.dumps(adapter)) == adapter  # noqa: S301  its own bytes
            with pytest.raises(pydantic.ValidationError):
                kind(**{name: getattr(adapter, name) for name in adapter.model_fields_set}, api_key=_CANARY)

    @pytest.mark.parametrize("name", ["text", "echoed_key"])
    def test_secrets(self, name: str) -> None:
        """A key is in nothing that may be stored, shown or logged, even if the provider sends it back."""
        seen: list[str] = []
        with listening(seen), self._shown(name, api_key=_CANARY) as (connection, request, call, _scenario):
            seen += [repr(connection), repr(call), call.model_dump_json()]
            try:
                seen += shown_forms(connection.stream(request, call))
            except AllmError as error:
                seen += forms_of_error(error)
        with listening(seen), self._shown(name, api_key=_CANARY) as (connection, request, call, _scenario):
            try:
                seen += shown_forms([connection.generate(request, call)])
            except AllmError as error:
                seen += forms_of_error(error)
        assert not [text for text in seen if _CANARY in text]

    # --- how it is done -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _prepared(self, scenario: Scenario) -> Iterator[tuple[Adapter, dict[str, Any]]]:
        made = self.prepare(scenario)
        if made is None:
            pytest.skip(f"this provider cannot show {scenario!r}")
        connects.listen()
        self._connects_before = connects.count
        yield made

    @contextlib.contextmanager
    def _shown(self, name: str, **more: Any) -> Iterator[tuple[Connection, Request, CallContext, Scenario]]:
        scenario = _NAMED[name]
        with self._prepared(scenario) as (adapter, fields):
            connection = adapter.connect()
            try:
                yield connection, self.request(scenario), CallContext(**{**fields, **more}), scenario
            finally:
                connection.close()

    def _streamed(self, name: str, **more: Any) -> tuple[list[Any], Scenario]:
        """All events of a scenario; a failure that is refused before anything is sent counts as its event."""
        with self._shown(name, **more) as (connection, request, call, scenario):
            try:
                stream = connection.stream(request, call)
            except AdapterError as error:
                if scenario.reason != "unsupported_feature":
                    raise
                return [ErrorEvent(error=error)], scenario
            return list(stream), scenario

    @staticmethod
    def _error_of_answer(adapter: Adapter, request: Request, fields: dict[str, Any]) -> Any:
        connection = adapter.connect()
        try:
            return connection.generate(request, CallContext(**fields))
        except AllmError as error:
            return error
        finally:
            connection.close()

    @staticmethod
    def _error_of_stream(adapter: Adapter, request: Request, fields: dict[str, Any]) -> Any:
        connection = adapter.connect()
        try:
            events = list(connection.stream(request, CallContext(**fields)))
        finally:
            connection.close()
        return getattr(events[-1], "error", None)

    @staticmethod
    def _error_through_an_engine(adapter: Adapter, request: Request, fields: dict[str, Any]) -> Any:
        options = {**fields, **fields.get("options", {})}
        options.pop("options", None)
        with StreamRunner(Engine(adapter=adapter, retry=None)).run(request, **options) as stream:
            events = list(stream)
        return getattr(events[-1], "error", None)

    def _await_free(self) -> None:
        limit = time.monotonic() + _HALT
        while self.held():
            assert time.monotonic() < limit, f"{self.held()} of the resources of the call are still held"
            time.sleep(0.001)
