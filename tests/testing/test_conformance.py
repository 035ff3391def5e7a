"""The conformance suite as its users meet it: definitions, scenarios, the order of events."""

import os
import subprocess
import sys

import pytest

from allm_actors.data import (
    ErrorEvent,
    MessageCompleted,
    MessageStarted,
    StepCompleted,
    StreamCollector,
    TextCompleted,
    TextDelta,
    Thread,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    assistant,
)
from allm_actors.errors import AdapterError
from allm_actors.testing import AdapterConformance, Scenario
from allm_actors.testing._grammar import breaches
from allm_actors.testing._looking import TooLate, listening, strings, timed
from allm_actors.testing._scenarios import FAILURE_REASONS, FAILURES, SCENARIOS

from .reference import ReferenceCase

# --- definitions --------------------------------------------------------------------------------------------


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


def test_an_inherited_definition_will_do():
    class TestMore(ReferenceCase):
        pass

    assert TestMore.prepare is ReferenceCase.prepare


def test_only_the_suite_needs_pytest():
    """A program that runs a `FakeServer` need not have it installed."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from allm_actors.testing import FakeServer\n"
        "try:\n    from allm_actors.testing import AdapterConformance\nexcept ImportError: print('needs it')"
    )

    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=30, check=False
    )

    assert (run.stdout, run.stderr) == ("needs it\n", "")


# --- scenarios ----------------------------------------------------------------------------------------------


def test_every_reason_an_adapter_can_have_is_a_scenario():
    """C-91."""
    assert set(FAILURE_REASONS) == set(AdapterError.legal_reasons()) - {
        "no_scripted_response",
        "adapter_down",
    }
    assert [scenario.reason for scenario in FAILURES] == list(FAILURE_REASONS)
    assert set(FAILURES) <= set(SCENARIOS)


def test_a_scenario_is_its_name_and_a_value():
    """C-91: `prepare` is asked for a named scenario."""
    scenario = next(each for each in SCENARIOS if each == "text")

    assert isinstance(scenario, Scenario)
    assert scenario.words == ["Hello", " there", " my", " friend"]
    assert len({str(each) for each in SCENARIOS}) == len(SCENARIOS)
    with pytest.raises(AttributeError, match="texts"):
        scenario.texts = ()
    with pytest.raises(TypeError, match="colour"):
        Scenario("painted", colour="red")


def test_a_scenario_that_cannot_be_shown_is_skipped():
    """C-91: with the reason."""

    class Poor(ReferenceCase):
        def prepare(self, scenario):
            return None

    with pytest.raises(pytest.skip.Exception, match="cannot show 'plain'"):
        Poor().test_a_whole_answer()


# --- the order of events ------------------------------------------------------------------------------------

START = MessageStarted(message=assistant(""))
END = MessageCompleted(message=assistant(""), finish_reason="stop")
ERROR = ErrorEvent(error=AdapterError("unknown"))
HELLO = TextDelta(id=None, delta="Hello")
TEXT = TextCompleted(id=None, text="Hello")
BEGUN = ToolCallStarted(id="c", name="f")
PIECE = ToolCallDelta(id="c", arguments_delta="{}")
CALLED = ToolCallCompleted(id="c", name="f", arguments={}, raw_arguments="{}")
OTHER = CALLED.model_copy(update={"raw_arguments": '{"a":1}'})
STEP = StepCompleted(response=StreamCollector().response(), thread=Thread())


@pytest.mark.parametrize(
    "events",
    [
        [START, END],
        [ERROR],
        [START, ERROR],
        [START, HELLO, ERROR],
        [START, HELLO, TEXT, END],
        [START, HELLO, BEGUN, PIECE, TEXT, CALLED, END],
        [START, CALLED, HELLO, TEXT, END],
        [START, BEGUN, PIECE, ERROR],
    ],
)
def test_an_order_that_is_right(events):
    """C-26."""
    assert breaches(events) == []


@pytest.mark.parametrize(
    "events",
    [
        [], [START], [END], [HELLO, END], [START, STEP, END], [START, "text", END], [START, START, END],
        [START, END, END], [START, ERROR, ERROR], [ERROR, START, END], [START, END, HELLO],
        [START, HELLO, END], [START, TEXT, END], [START, HELLO, TEXT, TEXT, END], [START, HELLO, TEXT, ERROR],
        [START, HELLO, HELLO, TEXT, END], [START, HELLO, TEXT, HELLO, END], [START, HELLO, TEXT, BEGUN, CALLED, END],
        [START, TextDelta(id=None, delta=""), TextCompleted(id=None, text=""), END],
        [START, BEGUN, END], [START, BEGUN, PIECE, END], [START, CALLED, CALLED, END], [START, CALLED, BEGUN, END],
        [START, CALLED, PIECE, END], [START, PIECE, BEGUN, CALLED, END], [START, BEGUN, BEGUN, CALLED, END],
        [START, BEGUN, PIECE, OTHER, END], [START, PIECE, BEGUN, ERROR], [START, CALLED, CALLED, ERROR],
    ],
)  # fmt: skip
def test_an_order_that_is_wrong(events):
    """C-26."""
    assert breaches(events) != []


# --- what it looks with -------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [0, 2, 3])
def test_what_comes_too_late_is_tried_three_times(late):
    """A busy machine is no broken adapter; one that is always late is."""
    tries = []

    @timed
    def check():
        tries.append(1)
        if len(tries) <= late:
            raise TooLate

    if late == 3:
        with pytest.raises(TooLate):
            check()
    else:
        check()
    assert len(tries) == min(late + 1, 3)


def test_what_is_wrong_is_not_tried_again():
    tries = []

    @timed
    def check():
        tries.append(1)
        raise AssertionError

    with pytest.raises(AssertionError):
        check()
    assert tries == [1]


def test_listening_leaves_logging_as_it_was():
    """A suite that changes how its user's program logs would hide what other tests look for."""
    import structlog

    before = structlog.is_configured()
    seen = []
    with listening(seen):
        structlog.get_logger().info("told", key="canary")

    assert "canary" in list(strings(seen))
    assert structlog.is_configured() == before
