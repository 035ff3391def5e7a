"""Options of a call: what each must look like, and where it goes."""

import enum
import math

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from allm_actors.data import ModelRef, PromptCache
from allm_actors.engine import Retry
from allm_actors.streaming.options import ORCHESTRATION, REQUEST_FIELDS, TIMES, sort_options

GOOD = {
    "model": "m",
    "temperature": 1,
    "max_tokens": 5,
    "tool_choice": "auto",
    "response_format": {"type": "json_object"},
    "structured_finalize": True,
    "prompt_cache": True,
    "on_event": print,
    "emit_text_deltas": False,
    "emit_tool_deltas": True,
    "include_raw_chunks": True,
    "telemetry_metadata": {"a": object()},
    "retry": Retry(max_attempts=1),
    "request_id": "r1",
    "api_key": "sk-1",
    **dict.fromkeys(TIMES, 2),
}


def test_every_option_goes_where_it_belongs():
    """C-49: nothing the library knows reaches the adapter's options."""
    chosen = sort_options({**GOOD, "top_k": 3, "stop": ["x"]})

    assert set(chosen.on_request) == set(REQUEST_FIELDS)
    assert dict(chosen.times) == dict.fromkeys(TIMES, 2.0)
    assert chosen.on_event is print
    assert (chosen.emit_text_deltas, chosen.emit_tool_deltas, chosen.include_raw_chunks) == (
        False,
        True,
        True,
    )
    assert chosen.retry == Retry(max_attempts=1)
    assert chosen.request_id == "r1"
    assert chosen.api_key == SecretStr("sk-1")
    assert chosen.extra == {"top_k": 3, "stop": ["x"]}


@pytest.mark.parametrize("name", [*GOOD, *ORCHESTRATION, "top_k", "tools", "context"])
def test_none_means_not_given(name):
    """C-8: for every option."""
    assert sort_options({name: None}) == sort_options({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 3),
        ("temperature", "hot"),
        ("temperature", True),
        ("max_tokens", 2.5),
        ("max_tokens", True),
        ("tool_choice", 1),
        ("response_format", ["x"]),
        ("structured_finalize", 1),
        ("prompt_cache", "yes"),
        ("prompt_cache", 1),
        ("on_event", 3),
        ("emit_text_deltas", 0),
        ("emit_tool_deltas", "no"),
        ("include_raw_chunks", 1),
        ("telemetry_metadata", [1]),
        ("retry", {"max_attempts": 2}),
        ("retry", 3),
        ("request_id", 7),
        ("api_key", b"sk"),
        *((name, "5") for name in TIMES),
        *((name, True) for name in TIMES),
    ],
)
def test_a_value_of_the_wrong_type_is_a_type_error_that_names_the_option(name, value):
    """C-8, C-7."""
    with pytest.raises(TypeError, match=repr(name)):
        sort_options({name: value})
    with pytest.raises(TypeError, match=repr(name)):
        sort_options({name: value}, of_engine=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("request_id", ""), *((name, value) for name in TIMES for value in (0, -1, math.nan, -math.inf))],
)
def test_an_impossible_value_is_a_value_error(name, value):
    """C-8, C-49: an empty request id, a time that is none."""
    with pytest.raises(ValueError, match=repr(name)):
        sort_options({name: value})


@pytest.mark.parametrize("name", TIMES)
def test_infinity_is_no_limit(name):
    """C-7."""
    assert sort_options({name: math.inf}).times == {name: math.inf}


@pytest.mark.parametrize(
    "name", ["adapter", "tools", "params", "context", "tool_executor", "tool_result_encoder", "metadata"]
)
def test_a_field_of_the_engine_is_no_option(name):
    """C-49: a call cannot change its engine."""
    with pytest.raises(TypeError, match=name):
        sort_options({name: {}})
    with pytest.raises(TypeError, match=name):
        sort_options({name: {}}, of_engine=True)


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, (1, 2), b"x", math.nan, math.inf, {"a": [{"b": {1, 2}}]}, Colour.RED]
)
def test_an_unknown_option_must_be_json(value):
    """C-49, C-6."""
    with pytest.raises(TypeError, match="'weird'"):
        sort_options({"weird": value})


def test_a_key_never_shows_in_an_error_or_a_repr():
    """C-33, P-135."""
    with pytest.raises(TypeError) as caught:
        sort_options({"api_key": b"sk-canary-123456"})
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(sort_options({"api_key": "sk-canary-123456"}))


def test_an_empty_key_is_not_given():
    """C-49."""
    assert sort_options({"api_key": ""}).api_key is None
    assert sort_options({"api_key": SecretStr("")}).api_key is None


@pytest.mark.parametrize("name", sorted(ORCHESTRATION))
def test_an_orchestration_option_is_left_out_with_one_debug_line_that_names_it(name):
    """C-49: it has no meaning for one request; its value is nobody's business."""
    with capture_logs() as logs:
        chosen = sort_options({name: "canary-value"})

    assert chosen == sort_options({})
    (line,) = logs
    assert line["log_level"] == "debug"
    assert line["option"] == name
    assert "canary" not in repr(line)


@pytest.mark.parametrize("name", sorted(ORCHESTRATION))
def test_in_an_engine_it_is_left_out_without_a_word(name):
    """C-49: the chat layer reads it there."""
    with capture_logs() as logs:
        assert sort_options({name: 3}, of_engine=True) == sort_options({})
    assert logs == []


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (True, PromptCache()),
        (False, False),
        ({"key": "k"}, PromptCache(key="k")),
        (PromptCache(retention="long"), PromptCache(retention="long")),
    ],
)
def test_prompt_cache_may_be_said_in_four_ways(given, stored):
    """K-121."""
    assert sort_options({"prompt_cache": given}).on_request == {"prompt_cache": stored}


def test_a_model_may_be_a_reference():
    """K-128."""
    ref = ModelRef(provider="p", id="m")
    assert sort_options({"model": ref}).on_request == {"model": ref}


def test_the_call_wins_over_the_engine():
    """C-49."""
    call = sort_options({"deadline": 5, "emit_text_deltas": True, "top_k": 1})
    engine = sort_options(
        {
            "deadline": 9,
            "stream_timeout": 3,
            "emit_text_deltas": False,
            "include_raw_chunks": True,
            "top_k": 2,
            "x": 3,
        },
        of_engine=True,
    )

    chosen = call.over(engine)

    assert chosen.times == {"deadline": 5.0, "stream_timeout": 3.0}
    assert chosen.emit_text_deltas is True
    assert chosen.include_raw_chunks is True
    assert chosen.extra == {"top_k": 1, "x": 3}
