"""Checks of answers that end well."""

from __future__ import annotations

from typing import Any, Final

import pytest

from allm_actors.data import RawChunk, Response, StreamCollector, Usage
from allm_actors.testing._conformance_case import Case
from allm_actors.testing._grammar import breaches
from allm_actors.testing._looking import comparable, same_text
from allm_actors.testing._scenarios import ANSWERS

_ANSWERS: Final = [str(scenario) for scenario in ANSWERS]
_COUNTERS: Final = tuple(name for name in Usage.model_fields if name.endswith("_tokens"))


class Answers(Case):
    """What is said arrives: whole, in order, and on both roads the same."""

    def test_a_whole_answer(self) -> None:
        """`generate` gives a response: its text, why it ended, and what it used."""
        with self._shown("plain") as (connection, request, call, scenario):
            response = connection.generate(request, call)
        assert isinstance(response, Response)
        assert response.text == scenario.text
        assert response.finish_reason is not None
        assert isinstance(response.usage, Usage)

    @pytest.mark.parametrize("name", _ANSWERS)
    def test_the_order_of_events(self, name: str) -> None:
        """Consumers rely on the order: one start, deltas, completions, one end."""
        events, _ = self._streamed(name)
        assert breaches(events) == []

    @pytest.mark.parametrize("name", _ANSWERS)
    def test_what_is_said(self, name: str) -> None:
        """The text and the calls are the provider's, argument text that is no JSON object included."""
        events, scenario = self._streamed(name)
        response = StreamCollector.collect(events).response()
        assert (response.output_text or "") == scenario.text
        assert [call.name for call in response.tool_calls] == [call.name for call in scenario.tool_calls]
        for call, said in zip(response.tool_calls, scenario.tool_calls, strict=True):
            assert call.arguments == said.arguments
            assert same_text(call.raw_arguments, said.raw_arguments)

    @pytest.mark.parametrize("name", _ANSWERS)
    def test_a_folded_stream_is_the_whole_answer(self, name: str) -> None:
        """Both roads give the same response, whatever the provider's two formats look like."""
        events, _ = self._streamed(name)
        with self._shown(name) as (connection, request, call, _scenario):
            whole = connection.generate(request, call)
        assert comparable(StreamCollector.collect(events).response()) == comparable(whole)

    def test_usage(self) -> None:
        """Reported in a chunk of its own; a counter that is not reported is `None`, never 0."""
        events, scenario = self._streamed("usage")
        reports = _reports(events)
        with self._shown("usage") as (connection, request, call, _):
            whole = connection.generate(request, call).usage
        assert reports, "no RawChunk of kind 'usage'"
        assert isinstance(reports[-1], Usage)
        for usage in (reports[-1], whole):
            assert _counted(usage, but="total_tokens") == scenario.usage

    def test_no_usage(self) -> None:
        """Where none is reported, none is made up."""
        events, _ = self._streamed("no_usage")
        with self._shown("no_usage") as (connection, request, call, _scenario):
            whole = connection.generate(request, call).usage
        for usage in (*_reports(events), whole):
            assert _counted(usage) == {}


def _reports(events: list[Any]) -> list[Any]:
    return [event.payload for event in events if isinstance(event, RawChunk) and event.kind == "usage"]


def _counted(usage: Usage, *, but: str = "") -> dict[str, Any]:
    """The counters that hold a number."""
    counters = {name: getattr(usage, name) for name in _COUNTERS if name != but}
    return {name: number for name, number in counters.items() if number is not None}
