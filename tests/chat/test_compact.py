"""Compact tools: what the model is shown, and what it is told when it asks."""

import json

import pytest

import allm_actors as allm
from allm_actors import tool_help
from allm_actors.data import ToolCall
from allm_actors.errors import ToolError, ValidationError

from .helpers import ECHO, Rig, by_next, call, calls, contents, of, raw_call, says, tool, types

SCHEMA = {
    "type": "object",
    "properties": {"party": {"type": "integer"}, "when": {"type": "string"}, "note": {"type": "string"}},
    "required": ["when", "party"],
}
TABLE = tool(
    "reserve_table",
    lambda a: "reserved",
    description="Reserve a table. Not for bars.",
    schema=SCHEMA,
    compact=True,
)
GATED = tool("gated", None, compact=True, manual=True)


def described(**fields):
    return tool_help.project([tool("t", None, **{"compact": True, "schema": {}, **fields})])[0].description


def test_without_compact_tools_nothing_changes():
    """O-90, O-95: the input itself comes back, and `tool_help` is an ordinary name."""
    own = [ECHO, tool("tool_help", lambda _: "mine")]

    assert tool_help.project(own) is own
    rig = Rig(calls(call("1", "tool_help")), tools=own)
    assert contents(allm.step(rig.engine, "hi").thread) == ["mine"]
    assert rig.requests[0].tools == own


def test_a_stub():
    """O-91: same place, a bare schema, no handler, not strict."""
    strict = TABLE.model_copy(update={"strict": True})
    first, stub, help_ = tool_help.project([ECHO, strict])

    assert first == ECHO
    assert stub == allm.Tool(
        name="reserve_table",
        description="Reserve a table. Args: when, party [note] [compact]",
        schema={"type": "object"},
    )
    assert help_.name == "tool_help"


@pytest.mark.parametrize(
    ("fields", "summary"),
    [
        ({"summary": "Mine: v1.5 rocks. Yes"}, "Mine: v1.5 rocks. Yes"),
        ({"description": "One. Two."}, "One."),
        ({"description": "Really?! Yes"}, "Really?!"),
        ({"description": "Version 1.5 is out"}, "Version 1.5 is out"),
        ({"description": "End."}, "End."),
        ({"description": "First line\nSecond. line"}, "First line"),
        ({"description": "Stop!\tNow", "summary": ""}, "Stop!"),
        ({"description": "x" * 160}, "x" * 160),
        ({"description": "x" * 161}, "x" * 157 + "..."),
        ({"description": ""}, ""),
    ],
)
def test_the_summary(fields, summary):
    """O-92."""
    assert described(**fields) == f"{summary} [compact]".strip()


@pytest.mark.parametrize(
    ("schema", "hint"),
    [
        ({}, ""),
        ({"properties": 5}, ""),
        ({"properties": {}}, "Args: none"),
        (SCHEMA, "Args: when, party [note]"),
        ({"properties": {"b": {}, "a": {}}}, "Args: [a, b]"),
        ({"properties": {"b": {}, "a": {}}, "required": ["b", "a", "gone"]}, "Args: b, a"),
        ({"properties": {"b": {}}, "required": "b"}, "Args: [b]"),
    ],
)
def test_the_argument_hint(schema, hint):
    """O-93."""
    assert described(description="Do.", schema=schema) == " ".join(filter(None, ["Do.", hint, "[compact]"]))


def test_the_help_tool_comes_once_and_last():
    """O-94."""
    tools = [TABLE, GATED]
    shown = tool_help.project(tools)

    assert [t.name for t in shown] == ["reserve_table", "gated", "tool_help"]
    assert shown[-1].schema["properties"] == {"names": {"type": "array", "items": {"type": "string"}}}
    assert tool_help.project(shown)[-1] == shown[-1]
    assert len(tool_help.project(shown)) == 3
    assert tools == [TABLE, GATED]


@pytest.mark.parametrize("run", [allm.step, allm.chat, allm.stream, allm.stream_step])
def test_next_to_a_compact_tool_the_name_is_the_librarys(run):
    """O-95."""
    rig = Rig(says("x"), tools=[TABLE, tool("tool_help", lambda _: "mine")])

    with pytest.raises(ValidationError) as refused:
        run(rig.engine, "hi")

    assert refused.value.reason == "invalid_request"
    assert [problem.reason for problem in refused.value.errors] == ["duplicate_name"]
    assert rig.sent == 0


@pytest.mark.parametrize(
    "choice",
    [
        "reserve_table",
        {"type": "tool", "name": "reserve_table"},
        {"type": "function", "name": "reserve_table"},
        {"type": "function", "function": {"name": "reserve_table"}},
        {"mode": "ANY", "allowedFunctionNames": ["reserve_table"]},
        {"mode": "ANY", "allowed_function_names": ["reserve_table"]},
        {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["reserve_table"]}},
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "reserve_table"}],
        },
    ],
)
def test_a_forced_compact_tool_is_sent_in_full(choice):
    """O-96: the others stay stubs."""
    full, stub, _ = tool_help.project([TABLE, GATED], choice)

    assert full == TABLE
    assert stub != GATED


@pytest.mark.parametrize(
    "choice",
    [
        "auto",
        "other",
        None,
        {"type": "auto"},
        {"mode": "ANY", "allowedFunctionNames": ["reserve_table", "gated"]},
        {"type": "function"},
    ],
)
def test_any_other_choice_forces_nothing(choice):
    """O-96."""
    assert tool_help.project([TABLE, GATED], choice)[0] != TABLE


def test_what_is_sent_is_the_same_on_every_turn():
    """O-7, O-90: using the help tool never changes it; execution uses the full tools."""
    rig = Rig(
        calls(call("1", "tool_help", names=["reserve_table"])),
        calls(call("2", "reserve_table", when="now", party=2)),
        says("done"),
        tools=[ECHO, TABLE],
    )

    result = allm.chat(rig.engine, "hi", tool_choice="auto")

    assert [r.tools for r in rig.requests] == [tool_help.project([ECHO, TABLE])] * 3
    assert contents(result.thread)[1] == "reserved"
    assert len(result.steps) == 3  # O-97: its turn counts as a turn


def test_single_requests_send_tools_as_they_are():
    """Section 8."""
    rig = Rig(says("x"))

    allm.generate(rig.engine, allm.request("hi", tools=[TABLE]))

    assert rig.requests[0].tools == [TABLE]


def ask(names, tools=(TABLE, GATED, ECHO)):
    return tool_help.answer(list(tools), ToolCall(id="1", name="tool_help", arguments={"names": names}))


def test_the_answer():
    """O-97: per name once, in order: a heading, the description, the schema as compact JSON."""
    text = ask(["gated", "reserve_table", "gated"])

    first, second = text.split("\n\n")
    assert first.splitlines() == ["# gated", "gated.", 'Arguments: {"type":"object"}']
    assert second.splitlines()[0] == "# reserve_table"
    assert "Not for bars." in second
    assert json.dumps(SCHEMA, separators=(",", ":")) in second
    assert ask("gated") == first


def test_an_unknown_name_gets_a_line_and_the_list():
    """O-97."""
    text = ask(["nope", "gated"])

    assert "'nope'" in text.splitlines()[0]
    assert "reserve_table, gated" in text.splitlines()[0]
    assert "# gated" in text


@pytest.mark.parametrize("names", [None, [], 5, [5], {"a": 1}])
def test_unusable_arguments_get_a_usage_line(names):
    """O-97."""
    assert ask(names).startswith("Usage: tool_help(")


def test_help_is_answered_without_the_executor():
    """O-97: with normal events, as an auto call, although the tool it is about is manual."""

    class Never(allm.ToolExecutor):
        def execute(self, t, arguments, ctx):
            raise AssertionError

    rig = Rig(calls(call("1", "tool_help", names="gated"), raw_call("2", "tool_help", "[")), tools=[GATED])

    events = by_next(
        allm.stream_step, rig.engine, "hi", tool_executor=Never, max_concurrency=1, on_tool_error="halt"
    )

    assert types(events)[-7:] == [
        *["tool_execution_started", "tool_execution_completed", "tool_result_encoded"] * 2,
        "step_completed",
    ]
    first, second = of(events, "tool_result_encoded")
    assert first.content == of(events, "tool_execution_completed")[0].result
    assert first.content.startswith("# gated")
    assert second.content.startswith("Usage")
    assert events[-1].manual_tool_calls == []
    assert len(allm.StreamCollector.collect(events).steps[0].tool_results) == 2


def test_in_manual_mode_help_is_pending_like_any_other_call():
    """O-98: the caller builds its content, and checks arguments."""
    rig = Rig(
        calls(call("1", "tool_help", names=["reserve_table"]), call("2", "reserve_table")), tools=[TABLE]
    )

    result = allm.step(rig.engine, "hi", mode="manual")

    asked, other = result.manual_tool_calls
    assert tool_help.answer([TABLE], asked).startswith("# reserve_table")
    with pytest.raises(ToolError) as refused:
        tool_help.check_args(TABLE, other.arguments)
    assert refused.value.reason == "invalid_arguments"


def test_a_compact_tool_needs_its_required_arguments():
    """O-99: presence only, no types; the missing ones are named, and the full help follows."""
    ran = []
    table = TABLE.model_copy(update={"handler": ran.append})
    rig = Rig(
        calls(call("1", "reserve_table", party="many"), call("2", "reserve_table", party=[], when=None)),
        tools=[table],
    )

    first, second = contents(allm.step(rig.engine, "hi").thread)

    said = json.loads(first)["error"]
    assert said.startswith("invalid arguments for reserve_table: missing when\n")
    assert said.endswith(tool_help.full_help(table))
    assert second == "null"
    assert ran == [{"party": [], "when": None}]


def test_a_tool_that_is_not_compact_is_not_checked():
    """O-99, O-68."""
    tool_help.check_args(TABLE.model_copy(update={"compact": False}), {})


@allm.tool(compact=True)
def typed(days: int):
    """Typed."""
    return days


def test_every_invalid_argument_of_a_compact_tool_comes_with_its_help():
    """O-99: those of O-67 and O-68, too, and once."""
    rig = Rig(
        calls(raw_call("1", "typed", "["), call("2", "typed", days="x"), call("3", "typed")), tools=[typed]
    )

    for content in contents(allm.step(rig.engine, "hi").thread):
        said = json.loads(content)["error"]
        assert said.endswith(tool_help.full_help(typed))
        assert said.count("# typed") == 1


def test_called_directly_help_is_answered_too():
    """O-97: next to a compact tool."""
    batch = allm.run_tool_calls([ToolCall(id="1", name="tool_help", arguments={"names": ["gated"]})], [GATED])

    assert batch.messages[0].content.startswith("# gated")
