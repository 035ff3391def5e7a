"""The tool runner: how handlers are called, what their outcomes become, and who decides about errors."""

import asyncio
import contextvars
import dataclasses
import functools
import json
import math
import os
import threading
import time
from typing import Annotated

import pydantic
import pytest

import allm_actors as allm
from allm_actors import AskUser, Continue, Halt, beam, run_tool_calls, stream_tool_calls
from allm_actors.data import ToolCall
from allm_actors.errors import EngineError, ToolError

from .helpers import (
    ECHO,
    READERS,
    SOON,
    Rig,
    Stuck,
    by_next,
    call,
    calls,
    contents,
    of,
    raw_call,
    says,
    tool,
    types,
    until,
)


def made(id, name="t", raw=None, **arguments):
    return ToolCall(id=id, name=name, arguments=arguments, raw_arguments=raw)


def outcome(handler, raw=None, arguments=None, **options):
    """The completion's result and the batch of one call."""
    t = handler if isinstance(handler, allm.Tool) else tool("t", handler)
    one = [ToolCall(id="1", name=t.name, arguments=arguments or {}, raw_arguments=raw)]
    events = by_next(stream_tool_calls, one, [t], **options)
    assert types(events[:2]) == ["tool_execution_started", "tool_execution_completed"]
    assert len(events) == 3
    return events[1].result, run_tool_calls(one, [t], **options)


def failed(handler, reason, **options):
    result, batch = outcome(handler, **options)
    assert isinstance(result, ToolError)
    assert result.reason == reason
    assert (result.tool_name, result.tool_call_id) == ("t", "1")
    assert result.__traceback__ is None
    if result.__cause__ is not None:
        assert result.__cause__.__traceback__ is None
    assert batch.halted_reason is None
    said = json.loads(batch.messages[0].content)
    assert list(said) == ["error"]
    return result, said["error"]


# --- batches ----------------------------------------------------------------------------------------------


def test_an_empty_batch_starts_nothing():
    """O-60."""
    before = set(beam.processes())

    assert run_tool_calls([], [ECHO]) == allm.ToolBatch()
    assert by_next(stream_tool_calls, [], [ECHO]) == []
    assert {pid for pid in set(beam.processes()) - before if "beam." not in str(pid.name)} == set()


def test_called_directly_an_unknown_tool_is_refused():
    """O-61: before any handler runs; in a stream it is the only event."""
    ran = []
    some = [made("1", "note"), made("2", "nobody")]
    tools = [tool("note", ran.append)]

    with pytest.raises(EngineError) as refused:
        run_tool_calls(some, tools)
    events = by_next(stream_tool_calls, some, tools)

    assert refused.value.reason == "unknown_tool"
    assert [event.error for event in events] == [refused.value]
    assert ran == []


def test_called_directly_manual_flags_are_ignored():
    """O-61."""
    batch = run_tool_calls([made("1", "t")], [tool("t", lambda _: "ran", manual=True)])

    assert [m.content for m in batch.messages] == ["ran"]


def test_a_halt_does_not_cut_a_batch_short():
    """O-62, O-63: queued calls are started and finish, too; messages are in call order."""
    tools = [tool("stop", lambda _: Halt("enough", 1)), tool("ask", lambda _: AskUser("?")), ECHO]
    some = [made("1", "stop"), made("2", "ask"), made("3", "echo", x="e"), made("4", "echo", x="f")]

    batch = run_tool_calls(some, tools, max_concurrency=1)

    assert [(m.tool_call_id, m.content) for m in batch.messages] == [
        ("1", "1"),
        ("2", "<awaiting user response>"),
        ("3", "e"),
        ("4", "f"),
    ]
    assert (batch.halted_reason, batch.halt_tool_call_id, batch.halt_result) == ("enough", "1", 1)
    assert [(o.tool_call_id, o.halted_reason) for o in batch.other_halts] == [("2", "ask_user")]


@pytest.mark.parametrize("run", [run_tool_calls, stream_tool_calls])
def test_two_calls_with_one_id_are_refused(run):
    """O-13, O-62: each is answered by one message with its id, so one of the two answers would be lost."""
    ran = []

    with pytest.raises(ValueError, match=r"tool_calls\[2\].*'1'"):
        run([made("1"), made("2"), made("1")], [tool("t", ran.append)])

    assert ran == []


def test_an_engines_deadline_bounds_calls_that_are_run_directly():
    """O-78, C-42, C-49."""
    seen = []
    engine = Rig(params={"deadline": 7.0}).engine
    look = tool("look", lambda _a, ctx: seen.append(ctx.deadline - time.monotonic()))

    run_tool_calls([made("1", "look")], [look], engine=engine)
    run_tool_calls([made("1", "look")], [look], engine=engine, deadline=3.0)

    assert 6 < seen[0] <= 7
    assert 2 < seen[1] <= 3


def test_a_batch_runs_under_the_supervisor_of_tasks():
    """O-59: a process for the batch and one for each call, beside every engine."""
    stuck = Stuck()
    events = stream_tool_calls([made("1", "weather")], [tool("weather", stuck)])
    with events:
        next(events)
        assert stuck.entered.wait(SOON)
        text = str(beam.tree())
        assert "BatchProcess" in text
        assert "Task:weather" in text
        assert text.index("beam.tasks") < text.index("BatchProcess")
        stuck.go.set()
        list(events)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("x", []), {}),
        ((["x"], []), {}),
        (([], "x"), {}),
        (([], ["x"]), {}),
        (([], []), {"engine": 5}),
        (([], []), {"tool_timeout": "1"}),
    ],
)
def test_wrong_arguments_are_type_errors(args, kwargs):
    """O-3."""
    for run in (run_tool_calls, stream_tool_calls):
        with pytest.raises(TypeError):
            run(*args, **kwargs)


def test_an_engine_lends_what_it_has():
    """O-2, O-69, O-81: context, executor, encoder and parameters; without one they have their defaults."""
    seen = []

    class Loud(allm.ToolResultEncoder):
        def encode(self, value):
            return f"!{value}"

    look = tool("look", lambda _a, ctx: seen.append(ctx))
    engine = Rig(context={"db": 1}, tool_result_encoder=Loud).engine

    batch = run_tool_calls([made("1", "look")], [look], engine=engine, session_id="s", request_id="r")
    run_tool_calls([made("1", "look")], [look])

    assert batch.messages[0].content == "!None"
    first, second = seen
    assert (first.engine, first.context, first.session_id, first.request_id) == (engine, {"db": 1}, "s", "r")
    assert (second.engine, second.context, second.session_id) == (None, {}, None)


# --- handlers ---------------------------------------------------------------------------------------------


class Callable1:
    def __call__(self, arguments):
        return "one"


class Callable2:
    def __call__(self, arguments, anything):
        return anything.tool_call.id

    def method(self, arguments, ctx=None):
        return ctx.tool_call.id


HANDLERS = [
    (lambda a: "one", "one"),
    (lambda a, anything: anything.tool_call.id, "1"),
    (lambda a, ctx=None: ctx.tool_call.id, "1"),
    (lambda a, context=None: context.tool_call.id, "1"),
    (lambda a, other="mine": other, "mine"),
    (lambda *args: str(len(args)), "2"),
    (lambda a, other="mine", *args: other, "mine"),
    (Callable1(), "one"),
    (Callable2(), "1"),
    (Callable2().method, "1"),
    (functools.partial(lambda first, a: first, "bound"), "bound"),
    (functools.partial(lambda first, a, b: b.tool_call.id, "bound"), "1"),
    (dict, "{}"),
]


@pytest.mark.parametrize(("handler", "answer"), HANDLERS)
def test_a_handler_gets_the_context_if_it_wants_one(handler, answer):
    """O-64."""
    assert outcome(handler)[1].messages[0].content == answer


@pytest.mark.parametrize("handler", [5, lambda: None, lambda a, b, c: None])
def test_a_handler_that_cannot_be_called_is_refused_when_the_tool_is_built(handler):
    """O-64."""
    with pytest.raises(pydantic.ValidationError):
        tool("t", handler)


def test_a_coroutine_function_is_no_handler():
    """O-64."""

    async def handler(arguments): ...

    with pytest.raises(pydantic.ValidationError):
        tool("t", handler)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (False, "false"),
        ("", ""),
        (0, "0"),
        ("plain", "plain"),
        ({"b": 1, "a": [1, 2]}, '{"b":1,"a":[1,2]}'),
        ((1, "é"), '[1,"é"]'),
        (("error", "x"), '["error","x"]'),
        ({"error": "x"}, '{"error":"x"}'),
        (allm.TextPart(text="t"), '{"type":"text","text":"t","metadata":{}}'),
    ],
)
def test_any_value_is_a_success(value, text):
    """O-65, O-87: `None`, tuples and dicts with an `error` among them."""
    result, batch = outcome(lambda _: value)

    assert result is value
    assert batch.messages[0].content == text
    assert batch.halted_reason is None


def test_dataclasses_and_models_are_their_fields():
    """O-87, O-65: an exception that is returned is a value like any other, here one without JSON form."""

    @dataclasses.dataclass
    class Point:
        x: int
        inner: object

    class Model(pydantic.BaseModel):
        y: float

    assert outcome(lambda _: Point(1, Model(y=2.0)))[1].messages[0].content == '{"x":1,"inner":{"y":2.0}}'
    assert outcome(lambda _: ToolError("timeout", "m"))[1].messages[0].content.startswith('{"kind":"tool"')
    failed(lambda _: ValueError("x"), "encoding_failed")


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, b"x", math.nan, math.inf, {"a": -math.inf}, "\ud800", {"a": "\ud800"}],
    ids=repr,
)
def test_what_cannot_be_encoded_goes_through_the_policy(value):
    """O-65, O-87, O-88: NaN and infinities are not JSON."""
    _, said = failed(lambda _: value, "encoding_failed")
    assert "cannot be encoded" in said


def test_a_reference_to_itself_cannot_be_encoded():
    """O-88."""
    loop = []
    loop.append(loop)

    failed(lambda _: loop, "encoding_failed")


def raising(error):
    def handler(arguments):
        raise error

    return handler


def test_an_exception_is_the_cause():
    """O-65, O-89: the model reads its own text, without stack trace."""
    error = LookupError("nothing there")

    result, said = failed(raising(error), "handler_raised")

    assert result.__cause__ is error
    assert said == "nothing there"
    assert failed(raising(LookupError("  ")), "handler_raised")[1] == "LookupError"


def test_an_exception_that_cannot_speak_is_named():
    """O-89: whatever happens, the content is valid text."""

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert failed(raising(Mute()), "handler_raised")[1] == "Mute"
    assert "?" in failed(raising(ValueError("\ud800")), "handler_raised")[1]


def test_a_tool_error_of_the_handlers_own():
    """O-65: that error, with what is missing filled in."""
    result, said = failed(raising(ToolError("not_found", "no such city")), "not_found")
    assert said == "no such city"
    assert result.__cause__ is None

    own, _ = outcome(raising(ToolError("timeout", "x", tool_name="mine", tool_call_id="7")))
    assert (own.tool_name, own.tool_call_id) == ("mine", "7")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), beam.Exit("mine")])
def test_an_exit_ends_the_call_and_not_the_run(error):
    """O-65."""
    result, _ = failed(raising(error), "handler_exit")

    assert result.__cause__ is error


def records_written(killed):
    """Wait until the supervisor of tasks has written what is due about processes that killed themselves.

    Whoever watches such a process may hear of its end before the supervisor does: both hear of it from its
    own thread, one after the other. What is asked after that is answered after the record is written.
    """
    assert killed
    for thread in killed:
        thread.join(SOON)
        assert not thread.is_alive()
    beam.which_children("beam.tasks")


@pytest.mark.logs_errors("a process is killed on purpose")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["plain", "own policy"])
def test_a_process_that_is_ended_from_outside(elsewhere):
    """O-65: `handler_exit`, through the policy."""
    asked = []

    def policy(call, error):
        asked.append(error.reason)
        return "continue"

    killed = []

    def handler(arguments):
        killed.append(threading.current_thread())
        beam.exit(beam.current(), "kill")
        beam.checkpoint()

    result, _ = outcome(handler, on_tool_error=policy if elsewhere else "continue")

    assert result.reason == "handler_exit"
    assert asked == ["handler_exit"] * 2 * elsewhere
    records_written(killed)


async def coroutine():
    """Returned, and awaited by nobody."""


def generator():
    yield 1


async def asynchronous_generator():
    yield 1


@pytest.mark.parametrize("make", [coroutine, generator, asynchronous_generator])
def test_what_is_not_a_result_yet(make):
    """O-65: and Python has nothing to warn of."""
    _, said = failed(lambda _: make(), "invalid_return")
    assert "not a result" in said


def test_a_future_is_not_a_result_yet():
    """O-65."""
    loop = asyncio.new_event_loop()
    try:
        failed(lambda _: loop.create_future(), "invalid_return")
    finally:
        loop.close()


def test_a_missing_handler():
    """O-65: a tool error, not an unknown tool."""
    failed(tool("t", None), "not_found")


RESERVED = [
    "completed",
    "max_turns",
    "halt_when",
    "ask_user",
    "tool_error",
    "manual_tool_calls",
    "error",
    "cancelled",
]


@pytest.mark.parametrize("reason", RESERVED)
def test_reasons_of_the_librarys_own_are_refused(reason):
    """O-71: the message names the reason and says to pick another."""
    result, said = failed(lambda _: Halt(reason), "invalid_return")

    assert reason in said
    assert "another" in said
    assert result.metadata == {"reserved_halt_reason": reason}


def test_a_halts_result_is_encoded_like_any_value():
    """O-72: the raw object is `halt_result`; what cannot be encoded is no halt."""
    value = {"a": (1, 2)}
    result, batch = outcome(lambda _: Halt("enough", value))
    assert isinstance(result, Halt)
    assert batch.halt_result is value
    assert batch.messages[0].content == '{"a":[1,2]}'

    failed(lambda _: Halt("enough", object()), "encoding_failed")


@pytest.mark.parametrize(
    "build", [lambda: AskUser(""), lambda: Halt(""), lambda: AskUser(3), lambda: AskUser("q", x=object())]
)
def test_wrong_arguments_raise_in_the_code_that_builds_them(build):
    """Section 1."""
    with pytest.raises(pydantic.ValidationError):
        build()


def test_a_handler_has_its_own_copy_of_the_arguments():
    """O-66: mutating it changes neither the call in the thread nor what a sibling sees."""
    seen = []

    def mutate(arguments, ctx):
        arguments["deep"].append(9)
        arguments["new"] = 1
        ctx.tool_call.arguments["deep"].append(8)
        seen.append(arguments)

    rig = Rig(calls(call("1", "mutate", deep=[1])), tools=[tool("mutate", mutate)])
    events = by_next(allm.stream_step, rig.engine, "hi")

    assert events[-1].thread.messages[1].tool_calls[0].arguments == {"deep": [1]}
    assert of(events, "tool_execution_started")[0].arguments == {"deep": [1]}
    assert seen == [{"deep": [1, 9], "new": 1}]


@pytest.mark.parametrize("raw", ["[1]", '{"a": 1', "nope", "3", '"x"', "null"])
def test_malformed_arguments_do_not_reach_the_handler(raw):
    """O-67: the message tells the model what was wrong."""
    ran = []

    _, said = failed(ran.append, "invalid_arguments", raw=raw)

    assert raw in said
    assert ran == []


@pytest.mark.parametrize("raw", [None, "", "  ", "{}"])
def test_no_arguments_are_no_arguments(raw):
    """O-67: the handler runs."""
    assert outcome(lambda a: a, raw=raw)[1].messages[0].content == "{}"


def test_malformed_arguments_of_a_real_turn():
    """O-67: through an adapter."""
    rig = Rig(calls(raw_call("1", "echo", '{"x": ')), says("sorry"), tools=[ECHO])

    result = allm.chat(rig.engine, "hi")

    assert "not a JSON object" in contents(result.thread)[0]
    assert result.text == "sorry"


@allm.tool
def forecast(city: str, days: Annotated[int, pydantic.Field(le=7)] = 1):
    """The weather."""
    if city == "nowhere":
        pydantic.TypeAdapter(int).validate_python("x")
    return f"{city} {days!r}"


def test_typed_arguments_are_validated_before_the_function_runs():
    """O-68: tool name, each dotted path with its problem; no URLs; the cause is pydantic's error."""
    result, batch = outcome(forecast, arguments={"days": 9})

    assert result.reason == "invalid_arguments"
    assert str(result) == (
        "invalid arguments for forecast: city: Field required; days: Input should be less than or equal to 7"
    )
    assert isinstance(result.__cause__, pydantic.ValidationError)
    assert json.loads(batch.messages[0].content) == {"error": str(result)}
    assert outcome(forecast, arguments={"city": "Kyoto", "days": "3"})[1].messages[0].content == "Kyoto 3"


def test_an_invalid_value_of_the_functions_own_is_not_the_models_fault():
    """O-68."""
    assert outcome(forecast, arguments={"city": "nowhere"})[0].reason == "handler_raised"


def test_events_and_context_keep_the_arguments_as_sent():
    """O-68: validation is part of the handler; an executor that calls it gets it, too."""
    seen = []

    class Own(allm.ToolExecutor):
        def execute(self, t, arguments, ctx):
            seen.append((arguments, ctx.tool_call.arguments))
            return t.handler(arguments, ctx)

    result, batch = outcome(forecast, arguments={"city": "Kyoto", "days": "3"}, tool_executor=Own)

    assert seen[0] == ({"city": "Kyoto", "days": "3"},) * 2
    assert batch.messages[0].content == "Kyoto 3"
    assert result == "Kyoto 3"


def test_arguments_of_a_plain_tool_are_not_checked_against_its_schema():
    """O-68."""
    t = tool(
        "t",
        lambda a: a,
        schema={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    )

    assert outcome(t)[1].messages[0].content == "{}"


def test_the_context_of_a_handler():
    """O-69: its fields; it is read-only."""
    seen = []
    rig = Rig(calls(call("1", "look", a=1)), tools=[tool("look", lambda _a, ctx: seen.append(ctx))])
    before = time.monotonic()

    allm.step(rig.engine, "hi", context={"db": 1}, session_id="s", request_id="r", tool_timeout=5)

    (ctx,) = seen
    assert (ctx.context, ctx.session_id, ctx.request_id) == ({"db": 1}, "s", "r")
    assert (ctx.tool_call.id, ctx.tool_call.arguments) == ("1", {"a": 1})
    assert ctx.engine == rig.engine
    assert before + 5 <= ctx.deadline <= time.monotonic() + 5
    assert not ctx.cancelled.is_set()
    ctx.raise_if_cancelled()
    with pytest.raises(dataclasses.FrozenInstanceError):
        ctx.session_id = "other"


def test_without_a_limit_the_deadline_is_infinite():
    """O-69, O-78: a run's deadline is `ctx.deadline` where it is the earlier."""
    seen = []
    look = tool("look", lambda _a, ctx: seen.append(ctx.deadline))

    run_tool_calls([made("1", "look")], [look], tool_timeout=math.inf)
    run_tool_calls([made("1", "look")], [look], tool_timeout=50, deadline=20)

    assert seen[0] == math.inf
    assert seen[1] < time.monotonic() + 20


# --- executors and encoders -------------------------------------------------------------------------------


def test_an_executor_is_made_once_per_run():
    """O-70: without arguments, before the first turn; it runs tools without a handler, too."""
    made_, threads = [], set()

    class Own(allm.ToolExecutor):
        def __init__(self):
            made_.append(rig.sent)

        def execute(self, t, arguments, ctx):
            threads.add(threading.current_thread())
            return f"by {t.name}"

    rig = Rig(
        calls(call("1", "far"), call("2", "far")),
        calls(call("3", "far")),
        says("x"),
        tools=[tool("far", None)],
    )

    result = allm.chat(rig.engine, "hi", tool_executor=Own)

    assert made_ == [0]
    assert contents(result.thread) == ["by far"] * 3
    assert threading.current_thread() not in threads
    assert len(threads) == 3


@pytest.mark.parametrize("option", ["tool_executor", "tool_result_encoder"])
def test_what_building_one_raises_propagates(option):
    """O-70: and nothing was sent."""
    base = {"tool_executor": allm.ToolExecutor, "tool_result_encoder": allm.ToolResultEncoder}[option]

    class Broken(base):
        def __init__(self):
            raise LookupError("cannot")

        def execute(self, t, arguments, ctx): ...

        def encode(self, value): ...

    rig = Rig(says("x"))
    with pytest.raises(LookupError, match="cannot"):
        allm.chat(rig.engine, "hi", **{option: Broken})
    assert rig.sent == 0


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (raising(SystemExit()), "handler_exit"),
        (raising(ValueError("x")), "handler_raised"),
        (lambda _: coroutine(), "invalid_return"),
    ],
)
def test_an_executor_cannot_take_the_run_down(behave, reason):
    """O-70: what it raises or returns is judged like a handler's."""

    class Own(allm.ToolExecutor):
        def execute(self, t, arguments, ctx):
            return behave(arguments)

    failed(lambda _: 1, reason, tool_executor=Own())


def test_an_executor_may_run_tools_where_they_can_be_killed():
    """O-130, O-129: a subprocess, terminated when the call's time is over; the model is told."""
    import subprocess
    import sys

    ended = []

    class Subprocess(allm.ToolExecutor):
        def execute(self, t, arguments, ctx):
            with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
                while child.poll() is None:
                    if ctx.cancelled.wait(0.01):
                        child.terminate()
                        ended.append(child.wait(SOON))
                        ctx.raise_if_cancelled()
            return child.returncode

    rig = Rig(calls(call("1", "far")), says("moving on"), tools=[tool("far", None)])

    result = allm.chat(rig.engine, "hi", tool_executor=Subprocess, tool_timeout=0.2)

    assert "did not finish within 0.2 s" in contents(result.thread)[0]
    assert result.text == "moving on"
    until(lambda: ended)
    assert ended[0] != 0
    until(lambda: "Task:far" not in str(beam.tree()))


def test_an_engines_executor_and_encoder_count_unless_the_call_has_its_own():
    """O-2."""

    class Own(allm.ToolExecutor):
        def execute(self, t, arguments, ctx):
            return "engine's"

    class Other(allm.ToolExecutor):
        def execute(self, t, arguments, ctx):
            return "call's"

    rig = Rig(calls(call("1", "echo")), tools=[ECHO], tool_executor=Own())

    assert contents(allm.step(rig.engine, "hi").thread) == ["engine's"]
    assert contents(allm.step(rig.rewound(), "hi", tool_executor=Other).thread) == ["call's"]


class Encoder(allm.ToolResultEncoder):
    """Behaves as it is told, for values and for errors."""

    def __init__(self, value=None, error=None):
        self.value, self.error = value, error
        self.asked = []

    def encode(self, value):
        self.asked.append(value)
        return self.value(value) if self.value else str(value)

    def encode_error(self, error):
        self.asked.append(error)
        return self.error(error) if self.error else super().encode_error(error)


@pytest.mark.parametrize(
    "bad", [raising(ValueError("x")), raising(SystemExit()), lambda _: 5, lambda _: None, lambda _: "\ud800"]
)
def test_any_failure_of_an_encoder(bad):
    """O-88, O-89: rendered by the built-in encoder, never by the one that just failed."""
    encoder = Encoder(value=bad, error=raising(AssertionError("asked to write its own failure")))

    _, said = failed(lambda _: "v", "encoding_failed", tool_result_encoder=encoder)

    assert "cannot be encoded" in said
    assert all(asked == "v" for asked in encoder.asked)


def test_an_encoder_may_write_errors_its_own_way():
    """O-86, O-89; a failing `encode_error` is rendered by the built-in encoder."""
    shout = Encoder(error=lambda error: error.reason.upper())
    assert (
        outcome(raising(ValueError("x")), tool_result_encoder=shout)[1].messages[0].content
        == "HANDLER_RAISED"
    )

    for bad in (raising(KeyError()), raising(SystemExit()), lambda _: 5, lambda _: "\ud800"):
        broken = Encoder(error=bad)
        content = outcome(raising(ValueError("x")), tool_result_encoder=broken)[1].messages[0].content
        assert content == '{"error":"x"}'


def test_the_same_value_gives_the_same_text():
    """O-87: keys keep their order."""
    value = {"z": 1, "a": {"y": 1, "b": 2}}

    assert {outcome(lambda _: value)[1].messages[0].content for _ in range(3)} == {
        '{"z":1,"a":{"y":1,"b":2}}'
    }


# --- the error policy -------------------------------------------------------------------------------------


def test_by_default_the_model_reads_the_error_and_can_correct_itself():
    """O-82."""
    rig = Rig(calls(call("1", "fail")), says("I see"), tools=[tool("fail", raising(ValueError("no")))])

    assert allm.chat(rig.engine, "hi").text == "I see"
    assert '{"error":"no"}' in rig.requests[1].messages[-1].content


def test_a_halting_policy_writes_the_same_message():
    """O-82."""
    batch = run_tool_calls([made("1")], [tool("t", raising(ValueError("no")))], on_tool_error="halt")

    assert (batch.halted_reason, batch.halt_tool_call_id) == ("tool_error", "1")
    assert batch.error.reason == "handler_raised"
    assert batch.messages[0].content == '{"error":"no"}'


FAILURES = {
    "handler_raised": (raising(ValueError("x")), {}),
    "handler_exit": (raising(SystemExit()), {}),
    "timeout": (lambda _a, ctx: ctx.cancelled.wait(SOON), {"tool_timeout": 0.02}),
    "invalid_return": (lambda _: Halt("error"), {}),
    "invalid_arguments": (lambda _: 1, {"raw": "["}),
    "not_found": (tool("t", None), {}),
    "encoding_failed": (lambda _: object(), {}),
}


@pytest.mark.parametrize("reason", FAILURES)
@pytest.mark.parametrize(
    "answer", [Continue({"fixed": 1}), "continue", "halt"], ids=["Continue", "continue", "halt"]
)
def test_a_policy_of_ones_own_decides_about_every_failure(reason, answer):
    """O-82, O-83, O-84: asked once, with the call and a `ToolError`, off the consumer's thread."""
    handler, options = FAILURES[reason]
    raw = options.get("raw")
    options = {name: value for name, value in options.items() if name != "raw"}
    asked = []

    def policy(tool_call, error):
        asked.append((tool_call.id, error.reason, threading.current_thread()))
        return answer

    t = handler if isinstance(handler, allm.Tool) else tool("t", handler)
    events = by_next(stream_tool_calls, [made("1", raw=raw)], [t], on_tool_error=policy, **options)

    assert [ask[:2] for ask in asked] == [("1", reason)]
    assert asked[0][2] is not threading.current_thread()
    assert events[1].result.reason == reason  # O-29: also when the policy replaced it
    if answer == "halt":
        assert (events[2].type, events[2].reason, events[2].error.reason) == (
            "tool_halt",
            "tool_error",
            reason,
        )
    else:
        assert events[2].type == "tool_result_encoded"
        assert (events[2].content == '{"fixed":1}') == isinstance(answer, Continue)


@pytest.mark.parametrize("answer", [None, "explode", 5, object(), Halt("x")], ids=str)
@pytest.mark.parametrize("reason", ["handler_raised", "timeout"])
def test_any_other_answer_of_a_policy_halts(answer, reason):
    """O-85."""
    handler, options = FAILURES[reason]
    asked = []
    events = by_next(
        stream_tool_calls,
        [made("1")],
        [tool("t", handler)],
        on_tool_error=lambda c, e: asked.append(1) or answer,
        **options,
    )

    error = events[2].error
    assert (error.reason, error.metadata) == ("invalid_return", {"on_tool_error_invalid": True})
    assert events[1].result.reason == reason
    assert len(asked) == 1


@pytest.mark.parametrize("kind", [LookupError, SystemExit, ToolError])
def test_what_a_policy_raises_halts(kind):
    """O-85: with the exception as cause and its `repr`."""
    raised = ToolError("encoding_failed", "mine") if kind is ToolError else kind("mine")
    asked = []

    def policy(c, e):
        asked.append(e)
        raise raised

    batch = run_tool_calls([made("1")], [tool("t", raising(ValueError("x")))], on_tool_error=policy)

    assert batch.halted_reason == "tool_error"
    assert batch.error.reason == "invalid_return"
    assert batch.error.__cause__ is raised
    assert batch.error.metadata == {"on_tool_error_exception": repr(raised)}
    assert len(asked) == 1


def test_a_replacement_that_cannot_be_encoded_halts():
    """O-85: and the policy is not asked again."""
    asked = []
    batch = run_tool_calls(
        [made("1")],
        [tool("t", raising(ValueError("x")))],
        on_tool_error=lambda c, e: asked.append(1) or Continue(object()),
    )

    assert (batch.halted_reason, batch.error.reason) == ("tool_error", "encoding_failed")
    assert len(asked) == 1


def test_a_replacement_counts_as_the_result():
    """O-84."""
    rig = Rig(calls(call("1", "fail")), says("ok"), tools=[tool("fail", raising(ValueError("x")))])

    result = allm.chat(rig.engine, "hi", on_tool_error=lambda c, e: Continue("instead"))

    assert contents(result.thread) == ["instead"]
    assert result.text == "ok"


@pytest.mark.logs_errors("a process is killed on purpose")
def test_a_policy_that_is_killed_halts():
    """O-65, O-83: it is not asked a second time."""
    asked = []

    def policy(c, e):
        asked.append(1)
        killed.append(threading.current_thread())
        beam.exit(beam.current(), "kill")
        beam.checkpoint()

    killed = []
    batch = run_tool_calls([made("1")], [tool("t", raising(ValueError("x")))], on_tool_error=policy)

    assert (batch.halted_reason, batch.error.reason) == ("tool_error", "handler_exit")
    assert asked == [1]
    records_written(killed)


# --- concurrency ------------------------------------------------------------------------------------------


def test_calls_run_at_the_same_time_and_not_here():
    """O-73."""
    barrier = threading.Barrier(3)

    def meet(arguments):
        barrier.wait(SOON)
        return threading.current_thread().name

    batch = run_tool_calls([made(str(n), "t") for n in range(3)], [tool("t", meet)], max_concurrency=3)

    assert len({m.content for m in batch.messages} | {threading.current_thread().name}) == 4


def test_max_concurrency_bounds_handlers():
    """O-77: and starts come in call order as slots become free (O-29)."""
    lock, now, most = threading.Lock(), [0], [0]

    def busy(arguments):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.002)
        with lock:
            now[0] -= 1

    some = [made(str(n), "t") for n in range(12)]
    events = by_next(stream_tool_calls, some, [tool("t", busy)], max_concurrency=3)

    assert 1 < most[0] <= 3
    assert [e.id for e in of(events, "tool_execution_started")] == [c.id for c in some]


def test_one_at_a_time_is_strictly_one_after_the_other():
    """O-77."""
    order = []
    t = tool("t", lambda a: order.append((a["n"], "in")) or order.append((a["n"], "out")))

    run_tool_calls([made(str(n), "t", n=n) for n in range(5)], [t], max_concurrency=1)

    assert order == [(n, what) for n in range(5) for what in ("in", "out")]


@pytest.mark.parametrize("count", [None, 1, 3])
def test_the_default_concurrency(count, monkeypatch):
    """O-77: twice the CPUs; an unknown number of them counts as 1."""
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    wanted = min(5, 2 * (count or 1))
    gate, inside = threading.Event(), []

    def handler(arguments):
        inside.append(1)
        assert gate.wait(SOON)

    events = stream_tool_calls([made(str(n), "t") for n in range(5)], [tool("t", handler)])
    with events:
        for _ in range(wanted):
            assert next(events).type == "tool_execution_started"
        until(lambda: len(inside) == wanted)
        gate.set()
        assert next(events).type == "tool_execution_completed"
        list(events)


def test_a_pair_of_events_is_never_parted():
    """O-29: nothing comes between a completion and its third event."""
    some = [made(str(n), "t", x=n) for n in range(30)]

    events = by_next(stream_tool_calls, some, [tool("t", lambda a: a["x"])], max_concurrency=8)

    places = [n for n, event in enumerate(events) if event.type == "tool_execution_completed"]
    assert len(places) == 30
    for place in places:
        assert events[place + 1].type == "tool_result_encoded"
        assert events[place + 1].id == events[place].id


variable = contextvars.ContextVar("variable", default="unset")


def test_handlers_see_the_callers_context_variables():
    """O-74: a copy, captured where the run was called, each its own."""
    seen = []

    def look(arguments):
        seen.append(variable.get())
        variable.set("changed")

    rig = Rig(
        calls(call("1", "look"), call("2", "look")),
        calls(call("3", "look")),
        says("x"),
        tools=[tool("look", look)],
    )
    token = variable.set("mine")
    try:
        events = allm.stream(rig.engine, "hi", max_concurrency=1)
    finally:
        variable.reset(token)
    with events:
        list(events)

    assert seen == ["mine"] * 3
    assert variable.get() == "unset"


@pytest.mark.parametrize("named", [False, True])
def test_a_handler_may_use_the_engine_it_serves(named):
    """O-75: another `chat` with the same tools; nothing is blocked meanwhile."""
    depth = []

    def deeper(arguments, ctx):
        depth.append(1)
        return allm.chat(ctx.engine, "inner", max_concurrency=1).text

    rig = Rig(
        calls(call("1", "deeper")),
        calls(call("2", "deeper")),
        says("innermost"),
        says("inner"),
        says("outer"),
        tools=[tool("deeper", deeper)],
    )
    from allm_actors.engine import start_engine

    if named:
        with start_engine(rig.engine, "reentrant"):
            result = allm.chat("reentrant", "hi")
    else:
        result = allm.chat(rig.engine, "hi")

    assert result.text == "outer"
    assert contents(result.thread) == ["inner"]
    assert len(depth) == 2


def test_runs_do_not_interfere():
    """O-76: on one engine, from different threads; each has its own limits and its own conversation."""
    from allm_actors.data import MessageCompleted, ToolCallCompleted
    from allm_actors.engine import AdapterStream
    from tests.streaming.adapters import Handmade
    from tests.streaming.helpers import START

    from .helpers import in_thread

    def make(request, context):
        """Ask for two calls, then say what they came to."""
        told = [m.content for m in request.messages if m.role == "tool"]
        if told:
            said = allm.assistant(" ".join([request.messages[0].content, *told]))
            return AdapterStream(
                iter(
                    [
                        START,
                        allm.events.TextCompleted(id=None, text=said.content),
                        MessageCompleted(message=said),
                    ]
                )
            )
        asked = [ToolCallCompleted(id=n, name="meet", arguments={}, raw_arguments="{}") for n in "12"]
        message = allm.assistant("")
        return AdapterStream(
            iter([START, *asked, MessageCompleted(message=message, finish_reason="tool_calls")])
        )

    barrier = threading.Barrier(8)  # of each run one handler at a time, so it takes all eight runs
    meet = tool("meet", lambda a, ctx: barrier.wait(SOON) * 0 or ctx.session_id)
    engine = allm.Engine(adapter=Handmade(make=make), tools=[meet])

    waiting = [
        in_thread(lambda n=n: allm.chat(engine, f"hi {n}", max_concurrency=1, session_id=f"s{n}").text)
        for n in range(8)
    ]

    assert [result() for result in waiting] == [f"hi {n} s{n} s{n}" for n in range(8)]


def test_a_failing_sibling_delays_nobody():
    """O-73, O-79."""
    stuck = Stuck()
    tools = [tool("stuck", stuck), tool("fail", raising(ValueError("x"))), ECHO]
    some = [made("1", "stuck"), made("2", "fail"), made("3", "echo", x="e")]

    batch = run_tool_calls(some, tools, tool_timeout=0.1, max_concurrency=3)

    assert "did not finish within 0.1 s" in batch.messages[0].content
    assert [m.content for m in batch.messages[1:]] == ['{"error":"x"}', "e"]
    stuck.finish()


# --- contexts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "engine", "wanted"),
    [
        ({"context": {"a": 1}}, {"b": 2}, {"a": 1}),
        ({"context": {}}, {"b": 2}, {}),
        ({}, {"b": 2}, {"b": 2}),
        ({}, {}, {}),
    ],
)
def test_the_first_context_given_replaces_the_others(options, engine, wanted):
    """O-81: nothing is merged, and an empty mapping given in the call counts."""
    seen = []
    rig = Rig(
        calls(call("1", "look")),
        tools=[tool("look", lambda _a, ctx: seen.append(ctx.context))],
        context=engine,
    )

    allm.step(rig.engine, "hi", **options)

    assert seen == [wanted]


def test_live_objects_in_the_context_are_handed_over_as_they_are():
    """O-81."""
    connection, seen = object(), []
    rig = Rig(calls(call("1", "look")), tools=[tool("look", lambda _a, ctx: seen.append(ctx.context["db"]))])

    allm.step(rig.engine, "hi", context={"db": connection})

    assert seen[0] is connection


# --- stress -----------------------------------------------------------------------------------------------


KINDS = ["fine", "slow", "raise", "exit", "hang", "huge", "opaque", "endless", "halt", "ask", "kill"]
REASONS = {
    "raise": "handler_raised",
    "exit": "handler_exit",
    "hang": "timeout",
    "opaque": "encoding_failed",
    "endless": "encoding_failed",
    "kill": "handler_exit",
}


@pytest.mark.slow
@pytest.mark.logs_errors("processes are killed on purpose")
@pytest.mark.parametrize("read", READERS)
def test_sixty_four_calls_of_every_kind(read):
    """O-13, O-22, O-24, O-29, O-62, O-65, O-127: order kept, nothing lost; a hung handler holds only its thread."""
    import random

    rng = random.Random(64)
    stuck = []
    lock = threading.Lock()
    endless = []
    endless.append(endless)

    def handler(arguments, ctx):
        kind = arguments["kind"]
        time.sleep(rng.random() * (0.03 if kind == "slow" else 0.003))
        match kind:
            case "raise":
                raise ValueError("boom")
            case "exit":
                raise SystemExit
            case "kill":
                beam.exit(beam.current(), "kill")
                beam.checkpoint()
            case "hang":
                hung = Stuck(heeds=False)
                with lock:
                    stuck.append(hung)
                hung(arguments, ctx)
        return values.get(kind, arguments["n"])

    values = {
        "huge": "x" * 1_000_000,
        "opaque": object(),
        "endless": endless,
        "halt": Halt("enough", 1),
        "ask": AskUser("?"),
    }
    kinds = [KINDS[n % len(KINDS)] for n in range(64)]
    script = calls(*[call(str(n), "t", n=n, kind=kind) for n, kind in enumerate(kinds)])
    rig = Rig(script, says("never"), tools=[tool("t", handler)])

    events = read(allm.stream, rig.engine, "hi", tool_timeout=0.5, max_concurrency=64)

    result = events[-1].result
    assert [m.tool_call_id for m in result.thread.messages if m.role == "tool"] == [str(n) for n in range(64)]
    assert [e.id for e in of(events, "tool_execution_started")] == [str(n) for n in range(64)]
    completed = of(events, "tool_execution_completed")
    assert sorted(int(e.id) for e in completed) == list(range(64))
    for event in completed:
        kind, content = kinds[int(event.id)], result.steps[0].tool_results[int(event.id)].content
        if kind in REASONS:
            assert event.result.reason == REASONS[kind]
            assert list(json.loads(content)) == ["error"]
        elif kind in ("fine", "slow"):
            assert (event.result, content) == (int(event.id), event.id)
        elif kind == "huge":
            assert len(content) == 1_000_000
    first = kinds.index("halt")
    assert (result.halted_reason, result.halt_tool_call_id) == ("enough", str(first))
    halting = [str(n) for n, kind in enumerate(kinds) if kind in ("halt", "ask")]
    assert [o.tool_call_id for o in result.other_halts] == halting[1:]
    assert len(stuck) == kinds.count("hang")
    assert sum("zombie" in line for line in str(beam.tree()).splitlines()) >= len(stuck)
    # With those handlers stuck the next batch runs at full width.
    barrier = threading.Barrier(8)
    wide = run_tool_calls(
        [made(str(n), "t") for n in range(8)],
        [tool("t", lambda a: barrier.wait(SOON) and None)],
        max_concurrency=8,
    )
    assert len(wide.messages) == 8
    for hung in stuck:
        hung.finish()
