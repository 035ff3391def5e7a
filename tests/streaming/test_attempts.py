"""The events of one request, over all its attempts: what a stream's process iterates."""

import math

import pytest
from structlog.testing import capture_logs

from allm_actors.data import (
    ErrorEvent,
    MessageStarted,
    RawChunk,
    Response,
    StepCompleted,
    Thread,
    ToolCallStarted,
)
from allm_actors.engine import Retry
from allm_actors.errors import AdapterError, EngineError, StreamError
from allm_actors.streaming._attempts import Attempts
from allm_actors.streaming._limits import Limits

from .helpers import START, Scripted, closing, delta, failing, good

POLICY = Retry()


class Run:
    """Attempts over scripted streams, with a clock that moves only when they sleep."""

    def __init__(self, *scripts, retry=POLICY, ends_at=math.inf, preflights=()):
        self.scripts = [Scripted(*script) for script in scripts]
        self.slept, self.reports, self.now = [], [], 0.0
        self.preflights = list(preflights)
        self.used = 1
        self.attempts = Attempts(
            self.scripts[0].stream,
            self.again,
            retry=retry,
            limits=Limits(ends_at=ends_at),
            provider="p",
            on_retry=lambda *report: self.reports.append(report),
            sleep=self.sleep,
            clock=lambda: self.now,
            rng=lambda: 0.0,
        )

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def again(self):
        if self.preflights and (error := self.preflights.pop(0)) is not None:
            raise error
        self.used += 1
        return self.scripts[self.used - 1].stream

    def events(self):
        return list(self.attempts)


def test_a_good_stream_passes_as_it_is():
    """C-26, C-58."""
    run = Run(good("hi"))

    assert run.events() == good("hi")
    assert run.scripts[0].released == 1
    assert run.slept == []


@pytest.mark.parametrize("reason", ["rate_limited", "provider_unavailable", "timeout", "network_error"])
@pytest.mark.parametrize("before", [[], [START]])
def test_a_failure_before_anything_usable_is_repeated(reason, before):
    """C-52: the consumer sees one `MessageStarted`, and nothing of the failed attempts."""
    run = Run([*before, failing(reason)], [*before, failing(reason)], good("ok"))

    assert run.events() == good("ok")
    assert run.slept == [0.5, 1.0]
    assert [(attempt, delay) for attempt, delay, _ in run.reports] == [(1, 0.5), (2, 1.0)]
    assert [script.released for script in run.scripts] == [1, 1, 1]


def test_all_attempts_failing_give_the_last_error():
    """C-52, P-130: its own status and reason, no wrapper."""
    run = Run([START, failing("timeout")], [failing("network_error")], [failing("rate_limited", status=429)])

    assert run.events() == [START, failing("rate_limited", status=429)]
    assert len(run.reports) == 2  # never after the last


@pytest.mark.parametrize("usable", [delta("x"), RawChunk(payload=1), ToolCallStarted(id="1", name="t")])
def test_nothing_is_repeated_once_anything_else_was_emitted(usable):
    """C-52."""
    run = Run([START, usable, failing()], good())

    assert run.events() == [START, usable, failing()]
    assert run.used == 1


@pytest.mark.parametrize(
    "error",
    [
        AdapterError("authentication_failed"),
        AdapterError("malformed_response"),
        AdapterError("adapter_down"),
        AdapterError("timeout", metadata={"no_retry": True}),
        AdapterError("rate_limited", retry_after=121.0),
        StreamError("timeout"),
        EngineError("missing_key"),
    ],
)
def test_what_the_policy_does_not_name_is_not_repeated(error):
    """C-35, C-52."""
    run = Run([ErrorEvent(error=error)], good())

    assert run.events() == [ErrorEvent(error=error)]
    assert run.used == 1


def test_the_policy_may_name_a_status():
    """C-35."""
    run = Run([failing("unknown", status=529)], good(), retry=Retry(retry_on=[529]))

    assert run.events() == good()


def test_without_a_policy_there_is_one_attempt():
    """C-34: `None` is never."""
    run = Run([failing()], good(), retry=None)

    assert run.events() == [failing()]


def test_the_provider_says_how_long_to_wait():
    """C-52, P-130."""
    run = Run([failing("rate_limited", retry_after=7.0)], good())

    run.events()

    assert run.slept == [7.0]


def test_an_error_that_is_raised_is_delivered_and_repeated_like_one_that_is_sent():
    """C-45."""
    assert Run([START, AdapterError("invalid_request")]).events() == [START, failing("invalid_request")]
    assert Run([START, AdapterError("timeout")], good()).events() == good()


def test_a_preflight_that_fails_in_a_retry_ends_it_with_the_error_that_led_there():
    """C-52."""
    run = Run([failing("timeout")], preflights=[AdapterError("invalid_request")])

    assert run.events() == [failing("timeout")]


def test_a_preflight_with_a_bug_is_not_hidden():
    """C-59: whatever is no error of the library is a bug, and comes out."""
    run = Run([failing("timeout")], preflights=[ZeroDivisionError()])

    with pytest.raises(ZeroDivisionError):
        run.events()


def test_something_that_is_no_event_ends_the_stream():
    """C-58: with its index, counted from 0."""
    run = Run([START, delta("a"), {"type": "text_delta"}, delta("b")])

    *before, last = run.events()

    assert before == [START, delta("a")]
    assert last.error == StreamError("malformed_event", last.error.message, provider="p", event_index=2)
    assert run.scripts[0].released == 1


def test_an_event_of_a_higher_floor_is_none_of_an_adapter():
    """C-26: an adapter emits the first nine classes only."""
    run = Run([START, StepCompleted(response=Response(), thread=Thread())])

    assert run.events()[-1].error.reason == "malformed_event"


def test_an_iterator_that_just_ends_is_a_malformed_response():
    """C-58."""
    run = Run([START, delta("a")])

    assert run.events()[-1].error.reason == "malformed_response"
    assert run.events.__self__ is run


@pytest.mark.parametrize("end", [closing("hi"), [failing("invalid_request")]])
@pytest.mark.parametrize("extra", [delta("late"), "rubbish", AdapterError("timeout"), failing()])
def test_what_follows_the_terminal_event_is_dropped_with_a_warning(end, extra):
    """C-58."""
    run = Run([START, *end, extra, extra])

    with capture_logs() as logs:
        events = run.events()

    assert events == [START, *end]
    assert [line["log_level"] for line in logs] == ["warning"]
    assert run.scripts[0].released == 1


def test_a_bug_in_the_iterator_comes_out_unchanged_and_after_cleanup():
    """C-59."""
    bug = ZeroDivisionError("boom")
    run = Run([START, bug])
    events = iter(run.attempts)

    assert next(events) == START
    with pytest.raises(ZeroDivisionError) as caught:
        next(events)

    assert caught.value is bug
    assert run.scripts[0].released == 1


def test_leaving_early_releases_the_attempt_that_is_open():
    """C-55."""
    run = Run([failing()], [START, delta("a"), *closing("a")])
    events = iter(run.attempts)
    next(events)
    next(events)

    events.close()

    assert [script.released for script in run.scripts] == [1, 1]


def test_an_interrupt_between_attempts_closes_the_next_one_too():
    """C-55: the interrupt comes after the old stream went and before the new one is in place."""
    run = Run([failing()], good())
    first = run.again

    def late():
        run.attempts.interrupt()
        return first()

    run.attempts._again = late
    events = run.events()

    assert run.scripts[1].asked == 0
    assert MessageStarted not in map(type, events)


def test_a_deadline_that_comes_during_the_wait_ends_it():
    """C-42: never retried, and no attempt is made after it."""
    run = Run([failing("rate_limited", retry_after=60.0)], good(), ends_at=10.0)

    (event,) = run.events()

    assert event.error.reason == "timeout"
    assert event.error.metadata == {"limit": "deadline"}
    assert run.slept == [10.0]
    assert run.used == 1
    assert run.reports == []


def test_a_deadline_that_is_over_before_the_first_event_sends_nothing():
    """C-42: it counts from the call, not from the first `next()`."""
    run = Run(good(), ends_at=0.0)

    (event,) = run.events()

    assert event.error.metadata == {"limit": "deadline"}
    assert run.scripts[0].asked == 0


def test_the_number_of_attempts_is_that_of_the_policy():
    """C-35."""
    run = Run(*[[failing()]] * 5, retry=Retry(max_attempts=4, base_delay=0))

    run.events()

    assert run.used == 4
