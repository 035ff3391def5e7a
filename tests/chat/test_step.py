"""One turn: what is executed, what is recorded, what is pending, and in which order it is said."""

import itertools

import pytest

import allm_actors as allm
from allm_actors import AskUser, Halt
from allm_actors.data import Response
from allm_actors.errors import AdapterError, EngineError
from allm_actors.events import StepCompleted

from .helpers import (
    ECHO,
    READERS,
    Rig,
    by_next,
    call,
    calls,
    contents,
    errors_in,
    of,
    raw_call,
    roles,
    says,
    tool,
    types,
)

PAY = tool("pay", None, manual=True)
FAIL = tool("fail", lambda _: 1 / 0)
STOP = tool("stop", lambda _: Halt("enough", {"left": 1}))
ASK = tool("ask", lambda _: AskUser("Which?", choices=["a", "b"]))
TOOLS = [ECHO, PAY, FAIL, STOP, ASK]


def step(*entries, finish="tool_calls", **options):
    rig = Rig([*entries, ("finish", finish)], tools=TOOLS)
    return allm.step(rig.engine, "hi", **options)


def test_a_step_makes_one_request():
    """O-14: the results are in the thread, and nobody is shown them."""
    rig = Rig(calls("let me see", call("1", "echo", x="it")), says("never"), tools=TOOLS)

    result = allm.step(rig.engine, "hi")

    assert rig.sent == 1
    assert not result.done
    assert [(m.role, m.content) for m in result.thread.messages] == [
        ("user", "hi"),
        ("assistant", "let me see"),
        ("tool", "it"),
    ]
    assert result.tool_results == [allm.tool_result("1", "it")]
    assert result.halted_reason is None


def test_the_assistant_message_is_made_of_the_events():
    """O-15: text and calls as they came; provider data is carried over from the response's message."""
    from allm_actors.data import MessageCompleted, MessageStarted, TextDelta
    from tests.streaming.adapters import plays

    trimmed = allm.Message(role="assistant", content="x", provider_data={"p": {"signature": "s"}})
    adapter = plays(
        [
            MessageStarted(message=allm.assistant("")),
            TextDelta(id=None, delta=" as it came "),
            MessageCompleted(message=trimmed, finish_reason="stop"),
        ]
    )

    said = allm.step(allm.Engine(adapter=adapter), "hi").thread.messages[-1]

    assert (said.role, said.content) == ("assistant", " as it came ")
    assert said.provider_data == {"p": {"signature": "s"}}


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", "other", None])
@pytest.mark.parametrize("mode", ["auto", "manual"])
def test_calls_count_only_when_the_model_finished_with_them(finish, mode):
    """O-16, O-18 row 1: with any other finish reason they are visible, not run, and not recorded."""
    script = [call("1", "echo"), *([("finish", finish)] if finish else [])]

    result = allm.step(Rig(script, tools=TOOLS).engine, "hi", mode=mode)

    assert [c.id for c in result.response.tool_calls] == ["1"]
    assert result.thread.messages[-1].tool_calls == []
    assert result.tool_results == []
    assert result.done
    assert result.halted_reason is None


def test_a_finish_with_tool_calls_but_without_any_is_done():
    """O-18 row 2."""
    result = step(("text", "hm"))

    assert result.done
    assert roles(result.thread) == ["user", "assistant"]


def test_in_manual_mode_every_call_is_the_callers():
    """O-18 row 3, O-20, O-21: whatever the flags say, unknown tools too (O-19)."""
    result = step(call("1", "echo"), call("2", "pay"), call("3", "nobody"), mode="manual")

    assert [c.id for c in result.manual_tool_calls] == ["1", "2", "3"]
    assert not result.done
    assert result.mode == "manual"
    assert result.tool_results == []
    assert [c.id for c in result.thread.messages[-1].tool_calls] == ["1", "2", "3"]


def test_an_unknown_tool_stops_the_turn():
    """O-19, O-27: nothing runs, nothing is recorded, and no partition is made."""
    ran = []
    rig = Rig(
        calls("text", call("1", "note"), call("2", "pay"), call("3", "nobody"), call("4", "noone")),
        tools=[*TOOLS, tool("note", ran.append)],
    )

    with pytest.raises(EngineError) as raised:
        allm.step(rig.engine, "hi")

    assert raised.value.reason == "unknown_tool"
    assert raised.value.metadata == {"tool_name": "nobody", "tool_call_id": "3"}
    partial = raised.value.partial
    assert partial.thread == allm.Thread().add_user("hi")
    assert (partial.halted_reason, partial.error, partial.done) == ("error", raised.value, True)
    assert partial.manual_tool_calls == []
    assert [c.id for c in partial.response.tool_calls] == ["1", "2", "3", "4"]
    assert ran == []


def test_manual_calls_alone_are_pending():
    """O-18 row 6."""
    result = step(call("1", "pay"), call("2", "pay"))

    assert [c.id for c in result.manual_tool_calls] == ["1", "2"]
    assert not result.done
    assert roles(result.thread) == ["user", "assistant"]


def test_of_a_mixed_response_the_auto_calls_run():
    """O-18 row 7, O-21, O-23; a manual tool's handler never runs."""
    ran = []
    gated = tool("gated", ran.append, manual=True)
    rig = Rig(calls(call("1", "gated"), call("2", "echo"), call("3", "gated")), tools=[ECHO, gated])

    result = allm.step(rig.engine, "hi")

    assert [c.id for c in result.manual_tool_calls] == ["1", "3"]
    assert [m.tool_call_id for m in result.thread.messages[2:]] == ["2"]
    assert not result.done
    assert ran == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_results_are_in_call_order_whatever_order_they_finish_in(order):
    """O-22, O-23: the order of completions is the handlers' own (O-29)."""
    import threading

    turns = [threading.Event() for _ in range(4)]
    turns[0].set()

    def waits(arguments):
        place = order.index(arguments["x"])
        assert turns[place].wait(5)
        return f"r{arguments['x']}"

    def done(event):
        if event.type == "tool_result_encoded":
            turns[len(finished) + 1].set()
            finished.append(event.id)

    finished = []
    rig = Rig(calls(*(call(str(n), "waits", x=n) for n in range(3))), tools=[tool("waits", waits)])
    with allm.stream_step(rig.engine, "hi", max_concurrency=3) as events:
        for event in events:
            done(event)

    assert finished == [str(n) for n in order]
    assert contents(event.thread) == ["r0", "r1", "r2"]
    folded = allm.StreamCollector.collect([event], allm.Thread()).steps[0]
    assert folded.thread == event.thread


@pytest.mark.parametrize("first", ["ask", "stop", "fail"])
def test_the_earliest_halt_in_call_order_decides(first):
    """O-24: regardless of its kind; the further ones are listed in call order."""
    kinds = {"ask": "ask_user", "stop": "enough", "fail": "tool_error"}
    names = [first, *(name for name in kinds if name != first)]

    result = step(*(call(f"c{n}", name) for n, name in enumerate(names)), on_tool_error="halt")

    assert result.halted_reason == kinds[first]
    assert [(o.tool_call_id, o.halted_reason) for o in result.other_halts] == [
        ("c1", kinds[names[1]]),
        ("c2", kinds[names[2]]),
    ]
    assert result.done
    if first == "ask":
        assert result.pending_question == "Which?"
        assert result.pending_tool_call_id == "c0"
        assert result.ask_user_options == {"choices": ["a", "b"]}
        assert result.halt_tool_call_id is None
    elif first == "stop":
        assert (result.halt_tool_call_id, result.halt_result) == ("c0", {"left": 1})
        assert result.error is None
    else:
        assert result.halt_tool_call_id == "c0"
        assert result.error.reason == "handler_raised"
        assert isinstance(result.error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(("halting", "policy"), [("ask", "continue"), ("stop", "continue"), ("fail", "halt")])
def test_a_halt_beats_pending_manual_calls(halting, policy):
    """O-25: they are answered as not executed, after all others, and the thread can go on."""
    rig = Rig(calls(call("1", "pay"), call("2", halting), call("3", "pay")), tools=TOOLS)

    events = by_next(allm.stream_step, rig.engine, "hi", on_tool_error=policy)

    rig.rewound()
    result = allm.step(rig.engine, "hi", on_tool_error=policy)
    assert result.manual_tool_calls == []
    assert [c.id for c in result.skipped_tool_calls] == ["1", "3"]
    assert [m.tool_call_id for m in result.tool_results] == ["1", "2", "3"]
    assert '"error"' in result.tool_results[0].content
    assert "not executed" in result.tool_results[0].content
    assert [(e.type, e.id) for e in events[-3:-1]] == [
        ("tool_result_encoded", "1"),
        ("tool_result_encoded", "3"),
    ]
    assert not of(events, "tool_execution_started")[1:]
    assert events[-1].manual_tool_calls == []


def test_a_skipped_call_is_encoded_by_the_runs_own_encoder():
    """O-25, O-89: like any other error."""

    class Shouting(allm.ToolResultEncoder):
        def encode(self, value):
            return str(value)

        def encode_error(self, error):
            return error.message.upper()

    result = step(call("1", "pay"), call("2", "stop"), tool_result_encoder=Shouting)

    assert result.tool_results[0].content == "PAY WAS NOT EXECUTED: THE TURN WAS INTERRUPTED"


def test_a_step_ends_with_a_placeholder_where_a_tool_asks():
    """O-26: the question is appended by the loop only."""
    result = step(call("1", "ask"))

    assert contents(result.thread) == ["<awaiting user response>"]
    assert roles(result.thread) == ["user", "assistant", "tool"]


def test_a_failing_step_raises_with_what_was_completed():
    """O-17, O-27."""
    rig = Rig([("text", "so far"), call("1", "echo"), ("error", "network_error", {})], tools=TOOLS)

    with pytest.raises(AdapterError) as raised:
        allm.step(rig.engine, "hi")

    partial = raised.value.partial
    assert partial.response.error == partial.error == raised.value
    assert partial.response.finish_reason == "error"
    assert [(m.role, m.content, m.tool_calls) for m in partial.thread.messages[1:]] == [
        ("assistant", "so far", [])
    ]
    assert partial.done
    assert partial.error is not raised.value
    assert partial.error.__traceback__ is None


def test_without_text_a_failed_step_leaves_the_thread_alone():
    """O-17."""
    rig = Rig([call("1", "echo"), ("error", "network_error", {})], tools=TOOLS)

    with pytest.raises(AdapterError) as raised:
        allm.step(rig.engine, "hi")

    assert raised.value.partial.thread == allm.Thread().add_user("hi")


def test_a_halt_is_a_result():
    """O-27: `tool_error` included."""
    assert step(call("1", "fail"), on_tool_error="halt").halted_reason == "tool_error"


@pytest.mark.parametrize("read", READERS)
def test_the_order_of_a_steps_events(read):
    """O-28: the adapter's, then the tools', then one `StepCompleted`."""
    rig = Rig(calls("hm", call("1", "echo", x=1), call("2", "ask"), call("3", "stop")), tools=TOOLS)

    events = read(allm.stream_step, rig.engine, "hi", max_concurrency=1)

    assert types(events) == [
        "message_started",
        "text_delta",
        *["tool_call_started", "tool_call_completed"] * 3,
        "text_completed",
        "message_completed",
        *["tool_execution_started", "tool_execution_completed", "tool_result_encoded"],
        *["tool_execution_started", "tool_execution_completed", "ask_user_requested"],
        *["tool_execution_started", "tool_execution_completed", "tool_halt"],
        "step_completed",
    ]
    started, completed, encoded = of(
        events, "tool_execution_started", "tool_execution_completed", "tool_result_encoded"
    )[:3]
    assert (started.id, started.name, started.arguments) == ("1", "echo", {"x": 1})
    assert (completed.id, completed.name, completed.result) == ("1", "echo", 1)
    assert (encoded.id, encoded.content) == ("1", "1")
    asked = of(events, "ask_user_requested")[0]
    assert (asked.tool_call_id, asked.tool_name, asked.question) == ("2", "ask", "Which?")
    assert asked.options == {"choices": ["a", "b"]}
    halt = of(events, "tool_halt")[0]
    assert (halt.tool_call_id, halt.reason, halt.result, halt.error) == ("3", "enough", {"left": 1}, None)
    assert halt.content == '{"left":1}'
    assert isinstance(of(events, "tool_execution_completed")[1].result, AskUser)
    assert isinstance(of(events, "tool_execution_completed")[2].result, Halt)


def test_a_failed_call_has_its_three_events_too():
    """O-29: although its handler never ran; a tool error's halt has the error and no result."""
    rig = Rig(calls(raw_call("1", "echo", "[1"), call("2", "missing")), tools=[ECHO, tool("missing", None)])

    events = by_next(allm.stream_step, rig.engine, "hi", max_concurrency=1, on_tool_error="halt")

    assert (
        types(of(events, *[t for t in types(events) if t.startswith("tool_exec") or t == "tool_halt"]))
        == [
            "tool_execution_started",
            "tool_execution_completed",
            "tool_halt",
        ]
        * 2
    )
    for completed, halt in zip(of(events, "tool_execution_completed"), of(events, "tool_halt"), strict=True):
        assert completed.result == halt.error
        assert halt.result is None
        assert halt.reason == "tool_error"


def test_the_last_event_says_what_the_step_came_to():
    """O-30: and the fold of the stream is the step (O-117)."""
    rig = Rig(calls(call("1", "pay"), call("2", "echo")), tools=TOOLS)

    events = by_next(allm.stream_step, rig.engine, "hi", request_id="r")

    last = events[-1]
    assert isinstance(last, StepCompleted)
    assert isinstance(last.response, Response)
    assert (last.mode, [c.id for c in last.manual_tool_calls]) == ("auto", ["1"])
    rig.rewound()
    assert allm.StreamCollector.collect(events).steps == [allm.step(rig.engine, "hi", request_id="r")]


@pytest.mark.parametrize("read", READERS)
def test_a_failing_stream_still_completes_its_step(read):
    """O-27, O-28: the error is an event, and `StepCompleted` comes last as always."""
    for script, count in [([("error", "network_error", {})], 1), (calls(call("1", "nobody")), 1)]:
        events = read(allm.stream_step, Rig(script, tools=TOOLS).engine, "hi")

        assert types(events)[-2:] == ["error", "step_completed"]
        assert len(errors_in(events)) == count
        assert events[-1].response.finish_reason == "error"
        assert events[-1].response.error == errors_in(events)[0]


def test_filters_change_what_is_shown_and_nothing_else():
    """O-12, C-65: with an adapter, too, that sends text only as deltas."""
    script = calls("a", "b", ("raw_chunk", {"x": 1}), call("1", "echo"))
    rig = Rig(script, tools=TOOLS)
    plain = allm.step(rig.engine, "hi", request_id="r")

    quiet = allm.step(
        rig.rewound(),
        "hi",
        request_id="r",
        emit_text_deltas=False,
        emit_tool_deltas=False,
        include_raw_chunks=True,
        on_event=lambda event: None,
    )
    shown = by_next(
        allm.stream_step, rig.rewound(), "hi", request_id="r", emit_text_deltas=False, include_raw_chunks=True
    )

    assert quiet == plain
    assert not of(shown, "text_delta")
    assert of(shown, "raw_chunk")
    assert allm.StreamCollector.collect(shown).steps == [plain]


def test_costs_are_filled_from_the_catalog():
    """C-66: with the prices of the model the request was sent with."""

    class Catalog:
        def lookup(self, model):
            return allm.ModelRef(provider="fake", id=model, pricing={"input": 1.0, "output": 2.0})

        def select(self, require, prefer):
            raise AssertionError

    allm.set_catalog(Catalog())
    try:
        script = [("usage", {"input_tokens": 1_000_000, "output_tokens": 500_000}), *says("hi")]
        assert allm.step(Rig(script).engine, "hi").response.usage.total_cost == 2.0
    finally:
        allm.set_catalog(None)


def test_inputs_are_never_changed():
    """O-9."""
    thread = allm.Thread(messages=[allm.user("hi")], metadata={"a": 1})
    before = thread.model_copy(deep=True)
    context = {"k": [1]}
    rig = Rig(calls(call("1", "echo", x=[1])), tools=TOOLS)

    result = allm.step(rig.engine, thread, context=context)

    assert thread == before
    assert context == {"k": [1]}
    assert result.metadata == {}
    assert all(message.metadata == {} for message in result.thread.messages)
