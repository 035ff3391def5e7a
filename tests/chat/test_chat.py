"""The loop: when it goes on, why it ends, and what its result says."""

import time

import pytest

import allm_actors as allm
from allm_actors import AskUser, Halt, beam
from allm_actors.engine import Adapter, AdapterStream, Connection, start_engine
from allm_actors.errors import AdapterError, EngineError, ValidationError
from allm_actors.events import ChatCompleted, ErrorEvent

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
    roles,
    says,
    tool,
    types,
)

PAY = tool("pay", None, manual=True)
FAIL = tool("fail", lambda _: 1 / 0)
STOP = tool("stop", lambda _: Halt("enough", {"left": 1}))
ASK = tool("ask", lambda _: AskUser("Which?", choices=["a"]))
TOOLS = [ECHO, PAY, FAIL, STOP, ASK]


def rig(*scripts, **fields):
    return Rig(*scripts, tools=TOOLS, **fields)


def test_the_loop_goes_on_until_the_model_answers():
    """O-31, O-35: calls are answered by tool messages only; nothing is inserted between turns."""
    it = rig(calls(call("1", "echo", x="one")), calls("more", call("2", "echo", x="two")), says("done"))

    result = allm.chat(it.engine, "hi")

    assert result.halted_reason == "completed"
    assert not result.halted()
    assert result.text == "done"
    assert result.final_response == result.steps[-1].response
    assert len(result.steps) == 3
    assert roles(result.thread) == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert [request.messages for request in it.requests] == [
        result.thread.messages[:1],
        result.thread.messages[:3],
        result.thread.messages[:5],
    ]


@pytest.mark.parametrize("read", READERS)
def test_events_of_turns_do_not_mix(read):
    """O-42: all of one turn, its `StepCompleted` last, before the next; then one `ChatCompleted`."""
    it = rig(calls(call("1", "echo")), says("done"))

    events = read(allm.stream, it.engine, "hi", request_id="r")

    assert types(events) == [
        *["message_started", "tool_call_started", "tool_call_completed", "message_completed"],
        *["tool_execution_started", "tool_execution_completed", "tool_result_encoded", "step_completed"],
        *["message_started", "text_delta", "text_completed", "message_completed", "step_completed"],
        "chat_completed",
    ]
    assert events[-1].result == allm.chat(it.rewound(), "hi", request_id="r")


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", "other", None])
def test_any_answer_without_calls_completes(finish):
    """O-33 rule 3."""
    script = [("text", "x"), *([("finish", finish)] if finish else [])]

    assert allm.chat(rig(script).engine, "hi").halted_reason == "completed"
    assert allm.chat(rig([("text", "x"), ("finish", "tool_calls")]).engine, "hi").halted_reason == "completed"


def test_max_turns_is_looked_at_after_a_turn():
    """O-32, O-35: the last turn's tools are executed, and the model never sees their results."""
    it = rig(*[calls(call(str(n), "echo", x=n)) for n in range(5)])

    result = allm.chat(it.engine, "hi", max_turns=2)

    assert result.halted_reason == "max_turns"
    assert it.sent == len(result.steps) == 2
    assert contents(result.thread) == ["0", "1"]


def test_the_default_is_eight_turns():
    """O-2."""
    it = rig(*[calls(call(str(n), "echo")) for n in range(20)])

    assert len(allm.chat(it.engine, "hi").steps) == 8


def test_an_answer_at_the_last_turn_completes():
    """O-33: not `max_turns`."""
    it = rig(calls(call("1", "echo")), says("done"))

    assert allm.chat(it.engine, "hi", max_turns=2).halted_reason == "completed"


def test_a_retried_request_is_one_turn():
    """O-32, O-11: and its tools run once."""
    ran = []
    it = Rig(
        [("error", "timeout", {})],
        calls(call("1", "note")),
        says("done"),
        tools=[tool("note", lambda _: ran.append(1))],
    )
    engine = allm.Engine(**{**dict(it.engine), "retry": allm.Retry(base_delay=0.001)})

    result = allm.chat(engine, "hi", max_turns=2)

    assert (result.halted_reason, len(result.steps), it.sent) == ("completed", 2, 3)
    assert ran == [1]


def test_halt_when_sees_the_complete_step_and_beats_max_turns():
    """O-33 rule 4, O-34: asked once per turn that reaches it, its truthiness counts."""
    seen = []

    def enough(step):
        seen.append(step)
        return "yes" if len(seen) == 2 else ""

    it = rig(*[calls(call(str(n), "echo", x=n)) for n in range(5)])

    result = allm.chat(it.engine, "hi", halt_when=enough, max_turns=2)

    assert result.halted_reason == "halt_when"
    assert seen == result.steps
    assert contents(result.thread) == ["0", "1"]


@pytest.mark.parametrize(
    "script", [says("done"), calls(call("1", "pay")), calls(call("1", "stop")), calls(call("1", "nobody"))]
)
def test_halt_when_is_not_asked_about_a_turn_that_ends_anyway(script):
    """O-33."""
    asked = []

    try:
        allm.chat(rig(script).engine, "hi", halt_when=asked.append)
    except EngineError:
        pass

    assert asked == []


def test_a_question_ends_the_loop_and_is_appended():
    """O-38: to the result's thread, not to a step's; the placeholder stays."""
    it = rig(calls(call("1", "ask")), says("a then"))

    result = allm.chat(it.engine, "hi")

    assert result.halted_reason == "ask_user"
    assert (result.pending_question, result.pending_tool_call_id) == ("Which?", "1")
    assert result.ask_user_options == {"choices": ["a"]}
    last = result.thread.last_message()
    assert (last.role, last.content, last.ask_user_for) == ("assistant", "Which?", "1")
    assert result.steps[-1].thread.messages == result.thread.messages[:-1]
    resumed = allm.chat(it.engine, result.thread.add_user("a"))
    assert resumed.text == "a then"
    assert contents(resumed.thread) == ["<awaiting user response>"]


def test_a_question_makes_no_message_events():
    """O-38."""
    events = by_next(allm.stream, rig(calls(call("1", "ask"))).engine, "hi")

    assert types(events)[-3:] == ["ask_user_requested", "step_completed", "chat_completed"]
    assert events[-2].thread.last_message().role == "tool"


def test_a_handlers_own_reason_ends_the_loop():
    """O-35."""
    result = allm.chat(rig(calls(call("1", "stop"))).engine, "hi")

    assert result.halted_reason == "enough"
    assert (result.halt_tool_call_id, result.halt_result) == ("1", {"left": 1})
    assert contents(result.thread) == ['{"left":1}']


def test_a_tool_error_under_a_halting_policy_ends_the_loop():
    """O-35, O-36: a result, not an exception."""
    result = allm.chat(rig(calls(call("1", "fail"))).engine, "hi", on_tool_error="halt")

    assert result.halted_reason == "tool_error"
    assert result.error.reason == "handler_raised"
    assert result.halt_tool_call_id == "1"
    assert contents(result.thread) == ['{"error":"division by zero"}']


def test_manual_calls_are_answered_and_the_loop_resumed():
    """O-35, O-39: the thread ends with the calls, then the auto calls' tool messages."""
    it = rig(calls(call("1", "pay"), call("2", "echo", x="e")), says("paid"))

    result = allm.chat(it.engine, "hi")

    assert result.halted_reason == "manual_tool_calls"
    assert [c.id for c in result.manual_tool_calls] == ["1"]
    assert [m.tool_call_id for m in result.thread.messages[-1:]] == ["2"]
    resumed = allm.chat(it.engine, result.thread.add_message(allm.tool_result("1", "ok")))
    assert resumed.text == "paid"


def test_manual_mode_is_not_one_turn():
    """O-40: a text answer completes; a resumed conversation runs in auto unless told again."""
    it = rig(calls(call("1", "echo")), calls(call("2", "echo")), says("done"))

    result = allm.chat(it.engine, "hi", mode="manual")
    assert result.halted_reason == "manual_tool_calls"
    resumed = allm.chat(it.engine, result.thread.add_message(allm.tool_result("1", "ok")))

    assert resumed.halted_reason == "completed"
    assert [step.mode for step in [*result.steps, *resumed.steps]] == ["manual", "auto", "auto"]
    assert allm.chat(rig(says("hi")).engine, "hi", mode="manual").halted_reason == "completed"


def test_a_forced_choice_is_sent_on_every_turn():
    """O-41."""
    it = rig(*[calls(call(str(n), "echo")) for n in range(3)])

    result = allm.chat(it.engine, "hi", tool_choice="echo", max_turns=3)

    assert [request.tool_choice for request in it.requests] == ["echo"] * 3
    assert result.halted_reason == "max_turns"


def test_what_a_run_had_completed_is_the_partial_of_its_error():
    """O-36: turns, tool results, the failed turn's response; the thread can be passed on."""
    it = rig(calls(call("1", "echo", x="e")), [("text", "so"), ("error", "network_error", {})], says("fine"))

    with pytest.raises(AdapterError) as raised:
        allm.chat(it.engine, "hi")

    partial = raised.value.partial
    assert partial.halted_reason == "error"
    assert partial.error == raised.value
    assert len(partial.steps) == 2
    assert partial.final_response.output_text == "so"
    assert [m.content for m in partial.thread.messages] == ["hi", "", "e", "so"]
    assert allm.chat(it.engine, partial.thread).text == "fine"


@pytest.mark.parametrize("read", READERS)
def test_a_failing_chat_stream_still_completes(read):
    """O-36, O-42."""
    it = rig(calls(call("1", "echo")), [("error", "network_error", {})])

    events = read(allm.stream, it.engine, "hi")

    assert types(events)[-3:] == ["error", "step_completed", "chat_completed"]
    assert events[-1].result.error == errors_in(events)[0]


@pytest.mark.parametrize("read", READERS)
def test_a_later_turn_that_cannot_be_opened(read):
    """O-37: one error event, no `StepCompleted` for that turn, what was completed stays."""
    it = rig(calls(call("1", "echo", x="e")), [("preflight_error", "authentication_failed", {})])
    seen = []

    events = read(allm.stream, it.engine, "hi", on_event=seen.append)

    assert types(events)[-3:] == ["step_completed", "error", "chat_completed"]
    result = events[-1].result
    assert (result.halted_reason, result.error.reason) == ("error", "authentication_failed")
    assert (len(result.steps), result.final_response) == (1, result.steps[0].response)
    assert contents(result.thread) == ["e"]
    assert not any(isinstance(event, ErrorEvent) for event in seen)  # O-43
    with pytest.raises(AdapterError) as raised:
        allm.chat(it.rewound(), "hi", request_id="r")
    assert raised.value.partial.thread == result.thread


@pytest.mark.parametrize("run", [allm.step, allm.chat, allm.stream, allm.stream_step])
def test_a_first_turn_that_cannot_be_opened_raises(run):
    """O-4, O-37: without partial, for nothing has happened."""
    it = rig([("preflight_error", "authentication_failed", {})])

    with pytest.raises(AdapterError) as raised:
        run(it.engine, "hi")

    assert raised.value.partial is None


@pytest.mark.parametrize("read", READERS)
def test_an_engine_that_is_stopped_in_mid_loop(read):
    """O-37, O-75: by a handler; the turn that was running is complete, the next one cannot be opened."""

    def stop(arguments):
        ref.stop()
        return "stopped"

    it = Rig(calls(call("1", "stop")), says("never"), tools=[tool("stop", stop)])
    with start_engine(it.engine, "stopping") as ref:
        events = read(allm.stream, ref, "hi")

    assert types(events)[-3:] == ["step_completed", "error", "chat_completed"]
    assert events[-1].result.error.reason == "engine_down"
    assert contents(events[-1].result.thread) == ["stopped"]


class Buggy(Adapter):
    """Fails with what is no library error: on the second call, where it is told to."""

    provider = "buggy"
    where: str
    first: int = 2

    def connect(self):
        return BuggyConnection(self)


class BuggyConnection(Connection):
    def __init__(self, config):
        self.config, self.made = config, 0

    def stream(self, request, context):
        self.made += 1
        bad = self.made >= self.config.first
        if bad and self.config.where == "preflight":
            raise LookupError("a bug")
        inner = Rig(calls(call("1", "echo"))).adapter.connect().stream(request, context)
        return AdapterStream(self._raises() if bad else iter(inner))

    def _raises(self):
        raise LookupError("a bug")
        yield


@pytest.mark.logs_errors("the adapter has a bug on purpose")
@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("where", ["preflight", "iterator"])
@pytest.mark.parametrize("first", [1, 2])
def test_a_bug_of_an_adapter_propagates(read, where, first):
    """O-37, O-42, C-59: on every turn, after the stream has been closed, and no `ChatCompleted` follows."""
    engine = allm.Engine(adapter=Buggy(where=where, first=first), tools=TOOLS)

    with pytest.raises(LookupError, match="a bug"):
        read(allm.stream, engine, "hi")


@pytest.mark.parametrize("read", READERS)
def test_what_halt_when_raises_comes_out_where_the_stream_is_read(read):
    """O-34, O-52, O-58: at the request for the event after that turn's `StepCompleted`."""
    it = rig(calls(call("1", "echo")), says("never"))
    seen = []

    def broken(step):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        read(allm.stream, it.engine, "hi", halt_when=broken, on_event=seen.append)

    assert it.sent == 1
    assert seen[-1].type == "message_completed"


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", [SystemExit, beam.Exit])
def test_even_an_exit_that_halt_when_raises_comes_out_there(read, kind):
    """O-34, O-52, O-58: a driver does not mistake it for its own."""
    it = rig(calls(call("1", "echo")), says("never"))

    def broken(step):
        raise kind("mine")

    with pytest.raises(kind, match="mine"):
        read(allm.stream, it.engine, "hi", halt_when=broken)

    assert it.sent == 1


def test_what_halt_when_raises_comes_out_of_chat():
    """O-34."""
    with pytest.raises(ZeroDivisionError):
        allm.chat(rig(calls(call("1", "echo"))).engine, "hi", halt_when=lambda step: 1 / 0)


@pytest.mark.parametrize("run", [allm.chat, allm.step])
@pytest.mark.parametrize("script", [calls(call("1", "echo")), calls(call("1", "nobody"))])
def test_an_observer_sees_what_adapters_say(run, script):
    """O-43: of every turn, before filtering; nothing that the run itself says."""
    seen = []
    it = rig(script, says("done"))

    try:
        run(it.engine, "hi", on_event=seen.append, emit_text_deltas=False)
    except EngineError:
        pass

    expected = ["message_started", "tool_call_started", "tool_call_completed", "message_completed"]
    if run is allm.chat and script[0][1]["name"] == "echo":
        expected += ["message_started", "text_delta", "text_completed", "message_completed"]
    assert types(seen) == expected


@pytest.mark.parametrize("read", READERS)
def test_an_observer_sees_the_same_wherever_the_stream_is_read(read):
    """O-43, O-52: an adapter's own error event among it."""
    seen = []
    it = rig(calls(call("1", "echo")), [("error", "network_error", {})])

    events = read(allm.stream, it.engine, "hi", on_event=seen.append)

    assert [e for e in events if e in seen] == seen
    assert types(seen)[-1] == "error"


@pytest.mark.parametrize("read", READERS)
def test_what_an_observer_raises_closes_the_stream(read):
    """O-52, O-58."""
    it = rig(calls(call("1", "echo")), says("never"))

    def broken(event):
        if event.type == "message_completed":
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        read(allm.stream, it.engine, "hi", on_event=broken)

    assert it.sent == 1


def test_a_deadline_bounds_all_turns():
    """O-78, C-42: a turn that would start after it fails as one that cannot be opened."""
    it = Rig(
        calls(call("1", "slow")),
        says("never"),
        tools=[tool("slow", lambda _a, ctx: ctx.cancelled.wait(5))],
    )
    began = time.monotonic()

    with pytest.raises(AdapterError) as raised:
        allm.chat(it.engine, "hi", deadline=0.1)

    assert raised.value.reason == "timeout"
    assert raised.value.metadata == {"limit": "deadline"}
    assert len(raised.value.partial.steps) == 1
    assert "deadline" in contents(raised.value.partial.thread)[0]
    assert time.monotonic() - began < 2
    assert it.sent == 1


# --- structured finalize ----------------------------------------------------------------------------------

FORMAT = allm.json_schema("answer", {"type": "object"})


def test_two_passes():
    """O-44, O-45, O-46, O-47, O-48."""
    it = rig(calls(call("1", "echo", x="e")), says("a prose answer"), says('{"a":1}'))

    result = allm.chat(
        it.engine, "hi", structured_finalize=True, response_format=FORMAT, tool_choice="auto", max_turns=2
    )

    last = it.requests[-1]
    assert [bool(r.tools) for r in it.requests] == [True, True, False]
    assert [r.response_format for r in it.requests] == [None, None, FORMAT]
    assert [r.tool_choice for r in it.requests] == ["auto", "auto", None]
    assert [r.structured_finalize for r in it.requests] == [False] * 3
    assert last.messages[-1].role == "user"
    assert "final answer" in last.messages[-1].content
    assert result.text == '{"a":1}'
    assert (result.halted_reason, result.pass_1_halted_reason) == ("completed", "completed")
    assert len(result.steps) == 3
    assert result.thread.messages[-2] == last.messages[-1]


@pytest.mark.parametrize("nudge", ["Now.", ""])
def test_the_nudge_is_the_callers(nudge):
    """O-47: the empty string means append nothing."""
    it = rig(says("prose"), says("{}"))

    result = allm.chat(
        it.engine, "hi", structured_finalize=True, response_format=FORMAT, structured_finalize_nudge=nudge
    )

    said = [m.content for m in result.thread.messages]
    assert said == (["hi", "prose", "Now.", "{}"] if nudge else ["hi", "prose", "{}"])


def test_the_format_may_come_from_the_engine():
    """O-44, O-45: it is removed from pass 1 wherever it came from."""
    it = rig(says("prose"), says("{}"), params={"response_format": FORMAT, "tool_choice": "auto"})

    allm.chat(it.engine, "hi", structured_finalize=True)

    assert [(r.response_format, r.tool_choice) for r in it.requests] == [(None, "auto"), (FORMAT, None)]


@pytest.mark.parametrize("format", [None, {"type": "json_object"}, "text"])
@pytest.mark.parametrize("run", [allm.chat, allm.stream])
def test_two_passes_need_a_json_schema(format, run):
    """O-44."""
    it = rig(says("prose"))

    with pytest.raises(ValidationError) as refused:
        run(it.engine, "hi", structured_finalize=True, response_format=format)

    assert refused.value.reason == "invalid_request"
    assert [problem.reason for problem in refused.value.errors] == ["requires_json_schema"]
    assert it.sent == 0


def test_a_format_alone_is_one_pass():
    """O-44: nor does a step ever run two."""
    it = rig(says("{}"), says("never"))

    result = allm.chat(it.engine, "hi", response_format=FORMAT)
    assert (it.sent, result.pass_1_halted_reason) == (1, None)
    assert it.requests[0].tools == TOOLS

    allm.step(it.rewound(), "hi", response_format=FORMAT, structured_finalize=True)
    assert it.sent == 1
    assert it.requests[0].response_format == FORMAT


@pytest.mark.parametrize(
    ("script", "options", "reason"),
    [
        (says("prose"), {}, "completed"),
        (calls(call("1", "echo")), {"max_turns": 1}, "max_turns"),
        (calls(call("1", "echo")), {"halt_when": bool}, "halt_when"),
    ],
)
def test_pass_two_follows_these_ends(script, options, reason):
    """O-46: without counting against `max_turns`, and without `halt_when`."""
    it = rig(script, says("{}"))

    result = allm.chat(it.engine, "hi", structured_finalize=True, response_format=FORMAT, **options)

    assert (result.halted_reason, result.pass_1_halted_reason, result.text) == ("completed", reason, "{}")


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("pay", {}, "manual_tool_calls"),
        ("ask", {}, "ask_user"),
        ("stop", {}, "enough"),
        ("fail", {"on_tool_error": "halt"}, "tool_error"),
    ],
)
def test_after_other_ends_pass_one_is_the_result(name, options, reason):
    """O-46, O-48."""
    it = rig(calls(call("1", name)), says("never"))

    result = allm.chat(it.engine, "hi", structured_finalize=True, response_format=FORMAT, **options)

    assert (result.halted_reason, result.pass_1_halted_reason, it.sent) == (reason, reason, 1)


def test_an_error_of_pass_one_is_the_result():
    """O-46, O-48."""
    with pytest.raises(AdapterError) as raised:
        allm.chat(
            rig([("error", "network_error", {})]).engine,
            "hi",
            structured_finalize=True,
            response_format=FORMAT,
        )

    assert raised.value.partial.pass_1_halted_reason == "error"


@pytest.mark.parametrize("mode", ["auto", "manual"])
def test_a_call_in_pass_two_is_of_an_unknown_tool(mode):
    """O-46, O-19."""
    it = rig(says("prose"), calls(call("1", "echo")))

    with pytest.raises(EngineError) as raised:
        allm.chat(it.engine, "hi", structured_finalize=True, response_format=FORMAT, mode=mode)

    assert raised.value.reason == "unknown_tool"
    assert raised.value.partial.pass_1_halted_reason == "completed"


def test_a_pass_two_that_cannot_be_opened_keeps_pass_one():
    """O-48, O-37: the thread is without the nudge, the response is pass 1's."""
    it = rig(says("prose"), [("preflight_error", "authentication_failed", {})])

    with pytest.raises(AdapterError) as raised:
        allm.chat(it.engine, "hi", structured_finalize=True, response_format=FORMAT)

    partial = raised.value.partial
    assert [m.content for m in partial.thread.messages] == ["hi", "prose"]
    assert partial.final_response.output_text == "prose"
    assert (partial.halted_reason, partial.pass_1_halted_reason) == ("error", "completed")


def test_a_pass_two_that_fails_is_in_the_result():
    """O-36, O-48: all steps, the failed one's thread, and how pass 1 ended."""
    it = rig(says("prose"), [("text", "{"), ("error", "network_error", {})])

    with pytest.raises(AdapterError) as raised:
        allm.chat(
            it.engine,
            "hi",
            structured_finalize=True,
            response_format=FORMAT,
            structured_finalize_nudge="Now.",
        )

    partial = raised.value.partial
    assert [m.content for m in partial.thread.messages] == ["hi", "prose", "Now.", "{"]
    assert (len(partial.steps), partial.final_response.output_text) == (2, "{")
    assert (partial.halted_reason, partial.pass_1_halted_reason) == ("error", "completed")


@pytest.mark.parametrize("read", READERS)
def test_two_passes_are_one_stream(read):
    """O-49: pass 1's `ChatCompleted` is withheld."""
    it = rig(says("prose"), says("{}"))
    options = {"structured_finalize": True, "response_format": FORMAT, "request_id": "r"}

    events = read(allm.stream, it.engine, "hi", **options)

    assert len(of(events, "step_completed")) == 2
    assert len(of(events, "chat_completed")) == 1
    assert isinstance(events[-1], ChatCompleted)
    assert events[-1].result == allm.chat(it.rewound(), "hi", **options)
