"""The retry policy: which failures are repeated, and when."""

import math

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allm_actors.engine import Retry
from allm_actors.errors import AdapterError, EngineError, StreamError


def test_the_defaults():  # C-35, P-130
    retry = Retry()
    assert (retry.max_attempts, retry.base_delay, retry.max_delay, retry.jitter) == (3, 0.5, 30.0, 0.25)
    assert retry.retry_on == ["rate_limited", "provider_unavailable", "timeout", "network_error"]
    assert (retry.respect_retry_after, retry.max_retry_after) == (True, 120.0)
    with pytest.raises(pydantic.ValidationError):
        retry.max_attempts = 4


@pytest.mark.parametrize(
    "field",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": 2.0},
        {"base_delay": -0.1},
        {"base_delay": math.nan},
        {"max_delay": -1},
        {"jitter": -1},
        {"jitter": math.inf},
        {"retry_on": ["sometimes"]},
        {"retry_on": [True]},
        {"retry_on": [42]},
        {"retry_on": ("timeout",)},
        {"respect_retry_after": 1},
        {"max_retry_after": -1},
        {"unknown": 1},
    ],
)
def test_a_bad_value_fails_construction(field):  # P-130
    with pytest.raises(pydantic.ValidationError) as caught:
        Retry(**field)
    assert caught.value.errors()[0]["loc"][0] == next(iter(field))


def test_json_gives_an_equal_policy():  # C-84, C-86
    retry = Retry(max_attempts=5, max_delay=math.inf, max_retry_after=math.inf, retry_on=[429, "timeout"])
    assert Retry.model_validate_json(retry.model_dump_json()) == retry


@pytest.mark.parametrize("reason", AdapterError.legal_reasons())
def test_the_default_reasons_are_repeated_and_no_other(reason):  # C-35, P-130
    assert Retry().repeats(AdapterError(reason)) is (reason in Retry().retry_on)


def test_a_status_may_name_what_is_repeated():  # C-35, P-130
    retry = Retry(retry_on=[409, "timeout"])
    assert retry.repeats(AdapterError("invalid_request", status=409))
    assert not retry.repeats(AdapterError("invalid_request", status=400))
    assert not retry.repeats(AdapterError("rate_limited", status=429))


def test_only_adapter_errors_without_a_veto_are_repeated():  # C-35, P-130
    retry = Retry()
    assert not retry.repeats(AdapterError("timeout", metadata={"no_retry": True}))
    assert retry.repeats(AdapterError("timeout", metadata={"no_retry": False}))
    assert not retry.repeats(StreamError("timeout"))
    assert not retry.repeats(EngineError("missing_key"))
    assert not retry.repeats(TimeoutError())


@pytest.mark.parametrize(
    ("asked", "policy", "repeated"),
    [
        (120.0, {}, True),
        (120.5, {}, False),
        (5.0, {"max_retry_after": 4}, False),
        (500.0, {"respect_retry_after": False}, True),
        (500.0, {"max_retry_after": math.inf}, True),
    ],
)
def test_a_provider_that_asks_for_too_long_a_wait_is_not_asked_again(asked, policy, repeated):  # C-35, P-130
    assert Retry(**policy).repeats(AdapterError("rate_limited", retry_after=asked)) is repeated


@pytest.mark.parametrize(
    ("attempt", "delay"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (8, 30.0), (5000, 30.0)]
)
def test_the_wait_doubles_up_to_its_cap(attempt, delay):  # P-130
    error = AdapterError("timeout")
    assert Retry().delay(attempt, error, lambda: 0.0) == delay
    assert Retry().delay(attempt, error, lambda: 1.0) == delay + 0.25, "jitter is added after the cap"


def test_what_the_provider_asks_for_replaces_the_computed_wait():  # P-130
    error = AdapterError("rate_limited", retry_after=7.0)
    assert Retry().delay(3, error, lambda: 0.0) == 7.0
    assert Retry().delay(3, error, lambda: 1.0) == 7.25
    assert Retry(respect_retry_after=False).delay(3, error, lambda: 0.0) == 2.0
    assert Retry().delay(3, AdapterError("rate_limited", retry_after=0.0), lambda: 0.0) == 2.0


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 60),
    st.floats(0, 10),
    st.floats(0, 100),
    st.floats(0, 5),
    st.floats(0, 1),
)
def test_the_wait_is_the_formula(attempt, base, cap, jitter, drawn):  # P-130
    retry = Retry(base_delay=base, max_delay=cap, jitter=jitter)
    expected = min(cap, base * 2 ** (attempt - 1)) + jitter * drawn
    assert retry.delay(attempt, AdapterError("timeout"), lambda: drawn) == pytest.approx(expected)


def test_the_default_jitter_stays_in_its_range():  # P-130
    drawn = {Retry(base_delay=0, jitter=1).delay(1, AdapterError("timeout")) for _ in range(100)}
    assert all(0 <= delay <= 1 for delay in drawn)
    assert len(drawn) > 1


def test_the_loop_follows_the_policy_and_raises_the_last_error_itself():  # P-130
    slept, failures = [], iter([AdapterError("timeout"), AdapterError("rate_limited", retry_after=3.0)])
    last = AdapterError("network_error")

    def attempt():
        raise next(failures, last)

    loop = Retry(max_attempts=3).retrying(rng=lambda: 0.0, sleep=slept.append)
    with pytest.raises(AdapterError) as caught:
        loop(attempt)
    assert caught.value is last
    assert slept == [0.5, 3.0]


def test_the_loop_ends_at_what_is_not_repeated():  # P-130
    tries = []

    def attempt():
        tries.append(1)
        raise AdapterError("authentication_failed")

    with pytest.raises(AdapterError):
        Retry().retrying(sleep=tries.append)(attempt)
    assert tries == [1]
    with pytest.raises(AdapterError):
        Retry(max_attempts=1).retrying(sleep=tries.append)(
            lambda: (_ for _ in ()).throw(AdapterError("timeout"))
        )
    assert tries == [1]
