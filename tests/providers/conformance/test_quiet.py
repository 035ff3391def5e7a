"""What is said between a user and a model is not the log's business."""

import logging

import pytest
import structlog

import allm_actors as allm
from allm_actors.data import ToolCall
from allm_actors.errors import AllmError
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.testing import FakeServer, Reply

MARK = "canary words"
ADAPTERS = [(OpenAI, {}), (OpenAI, {"api": "responses"}), (Anthropic, {}), (Gemini, {})]


@allm.tool
def look(at: str) -> str:
    """Look at something."""
    return f"{at}: {MARK}"


@pytest.fixture
def lines(caplog):
    """Everything logged at the level of INFO and above, by this library and by those below it."""
    found = []

    def keep(_logger, _name, event):
        found.append(repr(event))
        raise structlog.DropEvent

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[keep],
        cache_logger_on_first_use=False,
    )
    caplog.set_level(logging.INFO)
    yield lambda: "\n".join(found) + caplog.text
    structlog.reset_defaults()


@pytest.mark.parametrize(("kind", "fields"), ADAPTERS)
def test_a_tool_loop_is_in_no_log_by_default(kind, fields, lines):  # P-144
    """Prompts, answers, the arguments of a call, its result, and what is wrong with any of them."""
    call = ToolCall(id="c1", name="look", arguments={"at": MARK})
    broken = ToolCall(id="c2", name="look", arguments={}, raw_arguments="{" + MARK)
    script = [
        Reply(MARK, tool_calls=[call, broken]),
        Reply("that is " + MARK),
        Reply(MARK, fault="drop", after=1),
        Reply(MARK, status=500),
        Reply(MARK, status=500),
    ]
    with FakeServer(script=script) as server:
        engine = allm.Engine(adapter=kind(base_url=server.base_url, **fields), model="m")
        answer = allm.chat(engine, "say " + MARK, tools=[look])
        with pytest.raises(AllmError):
            allm.generate(engine, "say " + MARK, retry=allm.Retry(max_attempts=1))
        with pytest.raises(AllmError):
            allm.generate(engine, "say " + MARK, retry=allm.Retry(max_attempts=2, base_delay=0, jitter=0))

    assert MARK in answer.text
    assert MARK in server.requests[1].body.decode()
    said = lines()
    assert "stream.retry" in said
    assert MARK not in said
