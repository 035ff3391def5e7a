"""The conformance suite: every check passes where it should, and fails where it must, and there only."""

import inspect
import os
import threading

import pytest

from allm_actors.data import Usage
from allm_actors.errors import AdapterError, EngineError
from allm_actors.providers import Fake
from allm_actors.testing import AdapterConformance, Scenario
from allm_actors.testing._scenarios import FAILURE_REASONS, SCENARIOS

from .reference import BROKEN, BROKEN_VALUES, ReferenceCase


class TestReference(ReferenceCase):
    """What does everything right passes every check."""


class TestFake(AdapterConformance):
    """C-92."""

    def prepare(self, scenario):
        self.cleaned = []
        if scenario == "value":
            return Fake(
                script=[("text", "a"), ("error", "timeout", {"status": 408})], usage=Usage(input_tokens=1)
            ), {}
        callbacks = {"on_cleanup": lambda: self.cleaned.append(1)}
        if scenario == "missing_key":
            callbacks["on_request"] = refuse
        return Fake(scripts=[script(scenario, text) for text in scenario.texts] * 3, **callbacks), {}

    def requests(self):
        return len(self.cleaned)  # an attempt that was iterated at all is cleaned up

    def freed(self):
        return len(self.cleaned)


def refuse(request, call):
    raise EngineError("missing_key")


def script(scenario, text):  # noqa: PLR0911
    """A scenario as the fake's entries."""
    words = [("text", word if not n else f" {word}") for n, word in enumerate(text.split(" "))]
    if scenario.reason is not None:
        fields = {
            "status": scenario.status,
            "retry_after": scenario.retry_after,
            "request_id": scenario.provider_request_id,
        }
        return [
            ("error", scenario.reason, {name: value for name, value in fields.items() if value is not None})
        ]
    match str(scenario):
        case "error_in_midstream":
            return [*words[:2], ("error", "provider_unavailable")]
        case "cut_connection":
            return [*words[:2], ("error", "network_error")]
        case "unparseable_event":
            return [*words[:2], ("stream_error", "malformed_event")]
        case "slow_answer":
            return [("delay", 60)]
        case "slow_stream":
            return [words[0], ("delay", 60)]
        case "only_keep_alives":
            return [words[0], *[("delay", 0.02), ("raw_chunk", {}, "unknown_event")] * 200]
        case "stalled":
            return [*words[:2], ("delay", 60)]
    entries = [word for word in words if word != ("text", "")]
    for call in scenario.tool_calls:
        raw = call.raw_arguments
        size = -(-len(raw) // scenario.pieces)
        entries += [
            ("tool_call_delta", {"id": call.id, "name": call.name, "arguments_delta": raw[n : n + size]})
            for n in range(0, len(raw), size)
        ]
    if scenario.usage is not None:
        entries.append(("usage", dict(scenario.usage)))
    return [*entries, ("finish", scenario.finish_reason)]


# --- every check can fail ------------------------------------------------------------------------------------


def checks(case):
    """Every check of a case, as name and call, its parameters filled in."""
    for name, method in inspect.getmembers(case, inspect.ismethod):
        if not name.startswith("test_"):
            continue
        marks = [mark for mark in getattr(method, "pytestmark", []) if mark.name == "parametrize"]
        if not marks:
            yield name, method, {}
        for mark in marks:
            argument, values = mark.args
            for value in values:
                yield name, method, {argument: value}


def failing(make):
    """The names of the checks that fail; each with a case of its own, the slow ones side by side."""
    failed, threads = set(), []

    def run(name, values):
        try:
            getattr(make(), name)(**values)
        except pytest.skip.Exception:
            pass
        except (Exception, pytest.fail.Exception):
            failed.add(name)

    for name, _, values in checks(make()):
        if name == "test_silence_ends_in_a_timeout":
            threads.append(threading.Thread(target=run, args=(name, values)))
            threads[-1].start()
        else:
            run(name, values)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return failed


def case_of(**changes):
    return type("Case", (ReferenceCase,), changes)


@pytest.mark.parametrize("bent", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_adapter_fails_its_check_and_no_other(bent):
    """C-91."""
    assert failing(case_of(bent=bent)) == {bent.caught_by}


@pytest.mark.parametrize("adapter", BROKEN_VALUES, ids=lambda cls: cls.__name__)
def test_a_value_that_is_none_fails_its_check_and_no_other(adapter):
    """C-91."""
    assert failing(case_of(adapter=adapter)) == {"test_the_adapter_is_a_value"}


def test_every_check_has_an_adapter_that_fails_it():
    """C-91: every assertion must be able to fail."""
    every = {name for name, _, _ in checks(ReferenceCase())}

    assert every == {bent.caught_by for bent in BROKEN} | {"test_the_adapter_is_a_value"}


def test_an_unbroken_adapter_fails_none():
    """C-91: what notices the broken ones does not notice this one."""
    assert failing(case_of()) == set()


def test_every_reason_an_adapter_can_have_is_a_scenario():
    """C-91."""
    assert set(FAILURE_REASONS) == set(AdapterError.legal_reasons()) - {
        "no_scripted_response",
        "adapter_down",
    }
    assert {scenario.reason for scenario in SCENARIOS if scenario.startswith("error_")} >= set(
        FAILURE_REASONS
    )


def test_a_missing_definition_says_which():
    """C-91: at collection, where the class is made."""
    with pytest.raises(TypeError, match=r"TestNothing must define prepare\(scenario\)"):

        class TestNothing(AdapterConformance):
            pass


def test_collection_fails_with_that_message(tmp_path):
    """C-91."""
    file = tmp_path / "test_mine.py"
    file.write_text(
        "from allm_actors.testing import AdapterConformance\nclass TestMine(AdapterConformance): pass\n"
    )

    collected = []

    class Listener:
        def pytest_collectreport(self, report):
            if report.failed:
                collected.append(str(report.longrepr))

    pytest.main(["-q", "-c", os.devnull, "-p", "no:cacheprovider", str(file)], [Listener()])

    assert "TestMine must define prepare(scenario)" in collected[0]


def test_a_scenario_is_its_name():
    """C-91: `prepare` is asked for a named scenario."""
    scenario = SCENARIOS[0]

    assert isinstance(scenario, Scenario)
    assert scenario == "text"
    assert {str(each) for each in SCENARIOS} == set(SCENARIOS)
    assert scenario.words == ["Hello", " there", " my", " friend"]


def test_a_scenario_that_cannot_be_shown_is_skipped():
    """C-91: with the reason."""

    class Poor(ReferenceCase):
        def prepare(self, scenario):
            return None

    with pytest.raises(pytest.skip.Exception, match="text"):
        Poor().test_a_whole_answer()
