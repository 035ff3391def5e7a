"""Reading usage objects."""

import pytest

from allm_actors.data import Usage
from allm_actors.providers._usage import counter, read_usage
from allm_actors.providers.openai._usage import CHAT, RESPONSES


def test_chat_counters():  # P-110, P-111
    raw = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 10, "audio_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 40},
        "cost": 0.5,
    }
    assert read_usage(raw, CHAT) == Usage(
        input_tokens=100,
        output_tokens=50,
        total_tokens=150,
        cached_input_tokens=80,
        cache_write_input_tokens=10,
        reasoning_tokens=40,
        extra={"prompt_tokens_details": {"audio_tokens": 1}, "cost": 0.5},
    )


def test_responses_counters():  # P-110, P-111
    raw = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 0},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 40, "x": None},
        "total_tokens": 150,
    }
    assert read_usage(raw, RESPONSES) == Usage(
        input_tokens=100,
        output_tokens=50,
        total_tokens=150,
        cached_input_tokens=80,
        cache_write_input_tokens=0,
        reasoning_tokens=40,
        extra={"output_tokens_details": {"x": None}},
    )


@pytest.mark.parametrize("value", [None, True, False, -1, 1.0, "7", [], {}])
def test_what_is_no_counter(value):  # P-110, P-111
    assert counter(value) is None
    raw = {"prompt_tokens": value, "completion_tokens_details": {"reasoning_tokens": value}}
    assert read_usage(raw, CHAT) == Usage()


def test_not_sent_is_none_and_sent_zero_is_zero():  # P-110, C-18
    usage = read_usage({"prompt_tokens": 0}, CHAT)
    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == (0, None, None)


@pytest.mark.parametrize("raw", [None, [], "x", 5, True])
def test_what_is_no_usage(raw):  # P-111
    assert read_usage(raw, CHAT) is None


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": 1}])
def test_details_of_which_nothing_is_left_disappear(details):  # P-111
    assert read_usage({"prompt_tokens_details": details}, CHAT).extra == {}


def test_odd_members_are_kept_as_far_as_they_can_be():  # P-111, C-6
    raw = {"x": float("inf"), "y": [1], "prompt_tokens_details": "odd"}
    assert read_usage(raw, CHAT).extra == {"x": None, "y": [1], "prompt_tokens_details": "odd"}
    assert raw["x"] == float("inf")
