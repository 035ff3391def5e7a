"""What handlers are given, and the seams at which running tools is replaced."""

import dataclasses
import math
import threading

import pytest

from allm_actors.data import ToolCall
from allm_actors.engine import ToolContext, ToolExecutor, ToolResultEncoder
from allm_actors.errors import StreamError, ToolError

CALL = ToolCall(id="1", name="weather", arguments={})


class Encoder(ToolResultEncoder):
    def encode(self, value):
        return repr(value)


def raised(error):
    tool_error = ToolError("handler_raised", "weather failed")
    tool_error.__cause__ = error
    return tool_error


def test_a_context_is_read_only_and_says_what_the_run_is():  # O-69
    ctx = ToolContext(tool_call=CALL)
    assert (ctx.context, ctx.session_id, ctx.engine) == ({}, None, None)
    assert ctx.deadline == math.inf
    assert isinstance(ctx.cancelled, threading.Event)
    assert ctx.tool_call is CALL
    with pytest.raises(dataclasses.FrozenInstanceError):
        ctx.deadline = 1.0


def test_a_handler_can_end_at_a_safe_point():  # O-69, O-129
    ctx = ToolContext(tool_call=CALL)
    ctx.raise_if_cancelled()
    ctx.cancelled.set()
    with pytest.raises(StreamError, match="weather"):
        ctx.raise_if_cancelled()


@pytest.mark.parametrize("abstract", [ToolExecutor, ToolResultEncoder])
def test_the_seams_are_abstract(abstract):  # O-70, O-86
    with pytest.raises(TypeError):
        abstract()


class NoText(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolError("timeout", "weather timed out after 3 s"), '{"error":"weather timed out after 3 s"}'),
        (raised(ValueError("no such city: \u00c5")), '{"error":"no such city: \u00c5"}'),
        (raised(ValueError("  ")), '{"error":"ValueError"}'),
        (raised(NoText()), '{"error":"NoText"}'),
        (ToolError("handler_raised", "no cause kept"), '{"error":"no cause kept"}'),
        (raised(ValueError("lone \ud800")), '{"error":"lone ?"}'),
    ],
)
def test_an_error_is_a_json_object_with_one_key(error, text):  # O-86, O-89
    assert Encoder().encode_error(error) == text
