"""Checks of failures: what is raised, what ends a stream, and how soon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from allm_actors.data import ErrorEvent, StreamCollector
from allm_actors.engine import CallContext, Engine
from allm_actors.errors import AdapterError, AllmError
from allm_actors.streaming import StreamRunner
from allm_actors.testing._conformance_case import NAMED, Case
from allm_actors.testing._grammar import breaches
from allm_actors.testing._looking import TooLate, timed
from allm_actors.testing._scenarios import BREAKS, FAILURES, TIMEOUTS

if TYPE_CHECKING:
    from allm_actors.data import Request
    from allm_actors.engine import Adapter
    from allm_actors.testing._scenarios import Scenario

_FAILURES: Final = [str(scenario) for scenario in FAILURES]
_BREAKS: Final = [str(scenario) for scenario in BREAKS]
_TIMEOUTS: Final = [str(scenario) for scenario in TIMEOUTS]
_MEANT: Final = {
    "error_in_midstream": AdapterError.legal_reasons(),
    "cut_connection": ("network_error",),
    "unparseable_event": ("malformed_event", "malformed_response"),
}
_EARLY: Final = 0.8  # of the limit; clocks are coarse


class Failures(Case):
    """Whatever goes wrong is an error in our own words, and the last thing that is heard."""

    @pytest.mark.parametrize("name", _FAILURES)
    def test_generate_raises_a_failure(self, name: str) -> None:
        """With its reason, and what the provider says about it."""
        with (
            self._shown(name) as (connection, request, call, scenario),
            pytest.raises(AdapterError) as caught,
        ):
            connection.generate(request, call)
        _judge(caught.value, scenario)

    @pytest.mark.parametrize("name", _FAILURES)
    def test_a_stream_ends_with_a_failure(self, name: str) -> None:
        """As its one last event; nothing is raised, nothing follows."""
        events, scenario = self._streamed(name)
        assert breaches(events) == []
        assert isinstance(events[-1], ErrorEvent)
        _judge(events[-1].error, scenario)

    @pytest.mark.parametrize("name", _BREAKS)
    def test_a_break_in_midstream(self, name: str) -> None:
        """What was said stays said; a stream that is cut off is never a good answer."""
        events, scenario = self._streamed(name)
        assert breaches(events) == []
        assert isinstance(events[-1], ErrorEvent)
        assert events[-1].error.reason in _MEANT[name]
        assert StreamCollector.collect(events).text == scenario.text_before

    @pytest.mark.parametrize("name", _TIMEOUTS)
    @timed
    def test_silence_ends_in_a_timeout(self, name: str) -> None:
        """Within half of the time more: nobody waits for a provider that is gone."""
        scenario = NAMED[name].with_limit(self.limit)
        option, seconds = scenario.limit or ("", 0.0)
        work = {"slow_answer": _error_of_answer, "only_keep_alives": _error_through_an_engine}
        with self._prepared(scenario) as (adapter, fields):
            began = time.monotonic()
            error = work.get(name, _error_of_stream)(
                adapter, self.request(scenario), {**fields, option: seconds}
            )
            took = time.monotonic() - began
        assert isinstance(error, AdapterError)
        assert error.reason == "timeout"
        assert error.metadata.get("limit") == option
        assert took >= _EARLY * seconds
        if took > 1.5 * seconds:
            raise TooLate(f"{option} is {seconds} s, and it took {took:.3f} s")

    def test_one_attempt(self) -> None:
        """A failure that is worth repeating is repeated above, never by the adapter."""
        with self._shown("one_attempt") as (connection, request, call, _scenario):
            with pytest.raises(AllmError):
                connection.generate(request, call)
            assert self.requests() == 1
        self._streamed("one_attempt")
        assert self.requests() == 1


def _judge(error: AllmError, scenario: Scenario) -> None:
    """Whether an error says what its scenario is about."""
    assert isinstance(error, AdapterError)
    assert error.reason == scenario.reason
    assert scenario.status is None or error.status == scenario.status
    assert scenario.retry_after is None or error.retry_after == scenario.retry_after
    assert scenario.provider_request_id is None or error.request_id == scenario.provider_request_id


def _error_of_answer(adapter: Adapter, request: Request, fields: dict[str, Any]) -> Any:
    connection = adapter.connect()
    try:
        return connection.generate(request, CallContext(**fields))
    except AllmError as error:
        return error
    finally:
        connection.close()


def _error_of_stream(adapter: Adapter, request: Request, fields: dict[str, Any]) -> Any:
    connection = adapter.connect()
    try:
        events = list(connection.stream(request, CallContext(**fields)))
    finally:
        connection.close()
    return getattr(events[-1], "error", None)


def _error_through_an_engine(adapter: Adapter, request: Request, fields: dict[str, Any]) -> Any:
    options = {**fields, **fields.get("options", {})}
    options.pop("options", None)
    with StreamRunner(Engine(adapter=adapter, retry=None)).run(request, **options) as stream:
        events = list(stream)
    return getattr(events[-1], "error", None)
