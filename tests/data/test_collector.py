"""The fold of a stream: its rules one by one, and its laws."""

import timeit
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allm_actors.data import (
    AskUserRequested,
    ChatCompleted,
    ChatResult,
    ErrorEvent,
    MessageCompleted,
    MessageStarted,
    OtherHalt,
    RawChunk,
    Response,
    StepCompleted,
    StreamCollector,
    TextCompleted,
    TextDelta,
    Thread,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionCompleted,
    ToolExecutionStarted,
    ToolHalt,
    ToolResultEncoded,
    Usage,
    assistant,
    tool_result,
    user,
)
from allm_actors.errors import AdapterError, StreamError, ToolError
from tests.data import strategies as make

TIMEOUT = ErrorEvent(error=AdapterError("timeout"))
CANCELLED = ErrorEvent(error=StreamError("cancelled"))
FINISHED = MessageCompleted(message=assistant("ab"), finish_reason="stop")


def fold(*events, thread=None):
    return StreamCollector.collect(events, thread)


def delta(text):
    return TextDelta(id=None, delta=text)


def call(call_id, name="f", arguments=None):
    return ToolCall(id=call_id, name=name, arguments=arguments or {}, raw_arguments="{}")


def step(*calls, finish_reason="tool_calls", thread=None, **fields):
    response = Response(tool_calls=list(calls), finish_reason=finish_reason)
    return StepCompleted(response=response, thread=thread or Thread(messages=[user("after")]), **fields)


def test_an_untouched_collector():
    """C-68, C-70: readable from the start; text is `""`, not `None`."""
    collector = StreamCollector()

    assert (collector.text, collector.tool_calls, collector.usage, collector.finish_reason) == (
        "",
        [],
        Usage(),
        None,
    )
    assert (collector.thread, collector.error, collector.steps, collector.done) == (None, None, [], False)
    assert collector.response() == Response(output_text="")


def test_text():
    """C-69: deltas are appended whatever their id; a completion replaces them; more may follow."""
    assert fold(TextDelta(id="1", delta="a"), TextDelta(id="2", delta="b")).text == "ab"
    assert fold(delta("a"), TextCompleted(id=None, text="whole")).text == "whole"
    assert fold(delta("a"), TextCompleted(id=None, text="whole"), delta("!")).text == "whole!"


def test_tool_calls_started_and_extended():
    """C-69: a start, pieces of arguments, in any order."""
    assert fold(ToolCallStarted(id="1", name="f")).tool_calls == [
        ToolCall(id="1", name="f", arguments={}, raw_arguments="")
    ]
    pieces = [ToolCallDelta(id="1", arguments_delta=piece) for piece in ('{"a"', ":1}")]
    assert fold(ToolCallStarted(id="1", name="f"), *pieces).tool_calls == [
        ToolCall(id="1", name="f", arguments={"a": 1}, raw_arguments='{"a":1}')
    ]
    assert fold(pieces[0]).tool_calls == [ToolCall(id="1", name="", arguments={}, raw_arguments='{"a"')]


def test_a_start_of_a_known_call_fills_an_empty_name_and_nothing_else():
    """C-69."""
    started = ToolCallStarted(id="1", name="f")
    extended = ToolCallDelta(id="1", arguments_delta="{}")

    assert fold(extended, started).tool_calls == [
        ToolCall(id="1", name="f", arguments={}, raw_arguments="{}")
    ]
    assert fold(started, extended, ToolCallStarted(id="1", name="g")).tool_calls[0].name == "f"
    nameless = ToolCallCompleted(id="1", name="", arguments={"a": 1}, raw_arguments="x")
    assert fold(nameless, started).tool_calls == [
        ToolCall(id="1", name="f", arguments={"a": 1}, raw_arguments="x")
    ]


def test_a_completion_replaces_the_whole_call_in_its_place():
    """C-69: last one wins; deltas after it are ignored."""
    collector = fold(
        ToolCallStarted(id="1", name="f"),
        ToolCallStarted(id="2", name="g"),
        ToolCallDelta(id="1", arguments_delta="{"),
        ToolCallCompleted(id="1", name="h", arguments={"a": 1}, raw_arguments='{"a":1}'),
        ToolCallDelta(id="1", arguments_delta="more"),
        ToolCallCompleted(
            id="1", name="i", arguments={"b": 2}, raw_arguments='{"b":2}', provider_data={"x": 1}
        ),
    )

    assert collector.tool_calls == [
        ToolCall(id="1", name="i", arguments={"b": 2}, raw_arguments='{"b":2}', provider_data={"x": 1}),
        ToolCall(id="2", name="g", arguments={}, raw_arguments=""),
    ]


def test_malformed_arguments_of_an_unfinished_call():
    """C-70: by C-27."""
    (found,) = fold(ToolCallDelta(id="1", arguments_delta='{"a": ')).response().tool_calls

    assert (found.arguments, found.raw_arguments, found.invalid_arguments) == ({}, '{"a": ', True)


def test_a_completed_message_sets_what_it_says():
    """C-69: what is `None` changes nothing; `provider_data` is merged, the event winning."""
    full = MessageCompleted(
        message=assistant("x"),
        finish_reason="length",
        raw_finish_reason="max",
        response_id="r",
        model="m",
        usage=Usage(input_tokens=1),
        reasoning="because",
        refusal="no",
        provider_data={"a": 1, "b": 1},
    )
    bare = MessageCompleted(message=assistant("y"), provider_data={"b": 2})

    assert fold(delta("text"), full, bare).response() == Response(
        id="r",
        model="m",
        message=assistant("y"),
        output_text="text",
        finish_reason="length",
        raw_finish_reason="max",
        reasoning="because",
        refusal="no",
        usage=Usage(input_tokens=1),
        provider_data={"a": 1, "b": 2},
    )


def test_usage_is_replaced_not_summed():
    """C-69: the last report wins, whole; other raw chunks change nothing."""
    collector = fold(
        RawChunk(kind="usage", payload=Usage(input_tokens=1, output_tokens=1)),
        RawChunk(kind="usage", payload=Usage(output_tokens=5)),
        RawChunk(payload={"input_tokens": 9}),
    )

    assert collector.usage == Usage(output_tokens=5)
    assert collector.response().usage == Usage(output_tokens=5)


def test_an_error_sticks_until_the_step_is_over():
    """C-69: whatever follows; `error` itself survives the step."""
    collector = fold(delta("half"), TIMEOUT, FINISHED)
    assert (collector.finish_reason, collector.error, collector.text) == ("error", TIMEOUT.error, "half")
    assert collector.response().finish_reason == "error"
    assert collector.response().error == TIMEOUT.error

    collector.apply(step())
    assert (collector.finish_reason, collector.error) == (None, TIMEOUT.error)
    collector.apply(FINISHED)
    assert collector.finish_reason == "stop"


def test_a_completed_step_resets_the_turn():
    """C-69: everything of that turn goes back to its default, usage included; the thread becomes the event's."""
    after = Thread(messages=[user("after")])
    collector = fold(
        delta("a"),
        ToolCallStarted(id="1", name="f"),
        RawChunk(kind="usage", payload=Usage(input_tokens=1)),
        MessageCompleted(
            message=assistant("a"),
            finish_reason="stop",
            response_id="r",
            reasoning="x",
            provider_data={"a": 1},
        ),
        ToolResultEncoded(id="1", content="r"),
        step(thread=after),
        thread=Thread(),
    )

    assert collector.response() == Response(output_text="")
    assert collector.thread == after
    assert collector.done is False
    assert len(collector.steps) == 1
    collector.apply(delta("b"))
    assert collector.step_result().tool_results == []


def test_what_is_no_event_changes_nothing():
    """C-68."""
    collector = fold(delta("a"), thread=Thread())
    before = collector.response(), collector.step_result()

    for thing in (None, 5, "x", object(), assistant("x"), TextDelta, {"type": "text_delta", "delta": "x"}):
        collector.apply(thing)
    for event in (
        MessageStarted(message=assistant("seed")),
        RawChunk(payload=1),
        ToolExecutionStarted(id="1", name="f", arguments={}),
    ):
        collector.apply(event)

    assert (collector.response(), collector.step_result()) == before


@pytest.mark.parametrize(
    "event",
    [
        TextDelta.model_construct(id=None, delta=5),
        TextDelta.model_construct(),
        TextCompleted.model_construct(id=None, text=None),
        ToolCallStarted.model_construct(id=[], name="f"),
        ToolCallDelta.model_construct(id="1"),
        ToolCallDelta.model_construct(id=["1"], arguments_delta="x"),
        ToolCallCompleted.model_construct(id="1", name="f", arguments=5, raw_arguments=""),
        MessageCompleted.model_construct(message=5),
        RawChunk.model_construct(kind="usage", payload=5),
        RawChunk.model_construct(),
        ErrorEvent.model_construct(error="x"),
        ToolExecutionCompleted.model_construct(id=[]),
        ToolResultEncoded.model_construct(id="1", content=5),
        AskUserRequested.model_construct(tool_call_id="1"),
        ToolHalt.model_construct(tool_call_id="1", reason=5),
        StepCompleted.model_construct(response=None, thread=None),
        ChatCompleted.model_construct(result=5),
    ],
    ids=lambda event: type(event).__name__,
)
def test_events_built_past_their_checks_change_nothing(event):
    """C-68: it never raises for an event, nor at a later reading."""
    thread = Thread()
    collector = fold(event, thread=thread)

    assert collector.response() == Response(output_text="")
    assert collector.step_result() == StreamCollector(thread).step_result()
    assert not collector.done


def test_a_subclass_of_an_event_is_folded_as_what_it_is():
    """C-68."""

    class Loud(TextDelta):
        pass

    assert fold(Loud(id=None, delta="a")).text == "a"


def test_results_are_snapshots():
    """C-68: later events do not change what was read, nor do changes to what was read reach the fold."""
    collector = fold(delta("a"), ToolCallDelta(id="1", arguments_delta="x"), thread=Thread())
    read = [collector.response(), collector.step_result(), collector.chat_result()]
    text = [repr(result) for result in read]
    calls, steps = collector.tool_calls, collector.steps

    for event in (
        delta("b"),
        ToolCallDelta(id="1", arguments_delta="y"),
        ToolCallStarted(id="2", name="g"),
        FINISHED,
        step(),
    ):
        collector.apply(event)
    calls.clear()
    steps.append(None)

    assert [repr(result) for result in read] == text
    assert len(collector.steps) == 1


def test_step_and_chat_results_need_a_thread():
    """C-71, C-72: the message points to what needs none."""
    for read in (fold().step_result, fold().chat_result):
        with pytest.raises(ValueError, match=r"response\(\)"):
            read()
    with pytest.raises(TypeError):
        StreamCollector([user("x")])


def test_the_step_being_folded_and_the_one_just_completed():
    """C-71."""
    thread = Thread(messages=[user("before")])
    collector = fold(delta("a"), FINISHED, thread=thread)
    folding = collector.step_result()
    assert (folding.thread, folding.response, folding.done) == (thread, collector.response(), True)

    completed = step(finish_reason="stop")
    collector.apply(completed)
    assert collector.step_result() == collector.steps[-1]
    assert collector.step_result().response == completed.response
    assert collector.step_result().thread == completed.thread
    collector.apply(MessageStarted(message=assistant("")))  # changes nothing
    assert collector.step_result() == collector.steps[-1]

    collector.apply(delta("next"))
    assert collector.step_result().response.output_text == "next"
    assert collector.step_result().thread == completed.thread


def test_tool_results_are_in_the_order_of_the_calls():
    """C-71: whatever order they came in; unknown ids last."""
    results = [ToolResultEncoded(id=id_, content=id_) for id_ in ("x", "3", "1", "2")]
    executed = [ToolExecutionCompleted(id=id_, name="f", result=1) for id_ in ("x", "3", "1", "2")]
    collector = fold(*executed, *results, step(call("1"), call("2"), call("3")))

    (found,) = collector.steps
    assert found.tool_results == [tool_result(id_, id_) for id_ in ("1", "2", "3", "x")]
    assert found.done is False
    assert found.skipped_tool_calls == []


def test_the_order_of_calls_while_folding():
    """C-71: then the calls folded so far give it."""
    started = [ToolCallStarted(id=id_, name="f") for id_ in ("1", "2")]
    results = [ToolResultEncoded(id=id_, content=id_) for id_ in ("2", "1")]
    found = fold(
        *started, FINISHED.model_copy(update={"finish_reason": "tool_calls"}), *results, thread=Thread()
    ).step_result()

    assert [message.tool_call_id for message in found.tool_results] == ["1", "2"]
    assert found.done is False


ASKED = AskUserRequested(tool_call_id="2", tool_name="f", question="which?", options={"a": 1})
HALTED = ToolHalt(tool_call_id="1", reason="enough", result={1}, content="done")
FAILED = ToolHalt(
    tool_call_id="3",
    reason="tool_error",
    result=None,
    content="{}",
    error=ToolError("timeout", tool_call_id="3"),
)


def test_asking_the_user():
    """C-71, O-118: a placeholder answers the call, and the question halts the step."""
    (found,) = fold(ASKED, step(call("2"))).steps

    assert found.tool_results == [tool_result("2", "<awaiting user response>")]
    assert (found.halted_reason, found.pending_question, found.pending_tool_call_id) == (
        "ask_user",
        "which?",
        "2",
    )
    assert found.ask_user_options == {"a": 1}
    assert (found.halt_tool_call_id, found.error, found.other_halts) == (None, None, [])
    assert found.done is True


def test_a_halt():
    """C-71, O-118: the raw object is kept; its message is the content, or the `repr`."""
    (found,) = fold(HALTED, step(call("1"))).steps
    assert (found.halted_reason, found.halt_tool_call_id, found.halt_result) == ("enough", "1", {1})
    assert found.tool_results == [tool_result("1", "done")]
    assert (found.pending_question, found.error, found.done) == (None, None, True)

    (found,) = fold(HALTED.model_copy(update={"content": None}), step(call("1"))).steps
    assert found.tool_results == [tool_result("1", "{1}")]


def test_a_tool_error_under_a_halting_policy():
    """C-71, O-24."""
    (found,) = fold(FAILED, step(call("3"))).steps

    assert (found.halted_reason, found.halt_tool_call_id, found.error) == ("tool_error", "3", FAILED.error)
    assert (found.halt_result, found.done) == (None, True)


def test_the_earliest_halt_in_call_order_decides():
    """C-71: whatever came first in time; the others are listed in call order."""
    (found,) = fold(FAILED, ASKED, HALTED, step(call("1"), call("2"), call("3"))).steps

    assert found.halted_reason == "enough"
    assert (found.pending_question, found.error) == (None, None)
    assert found.other_halts == [
        OtherHalt(tool_call_id="2", halted_reason="ask_user"),
        OtherHalt(tool_call_id="3", halted_reason="tool_error"),
    ]
    (found,) = fold(FAILED, HALTED, step(call("3"), call("1"))).steps
    assert found.halted_reason == "tool_error"


@pytest.mark.parametrize(
    ("event", "done"),
    [
        (step(call("1")), False),
        (step(), True),
        (step(call("1"), finish_reason="stop"), True),
        (step(call("1"), finish_reason=None), True),
    ],
)
def test_done(event, done):
    """C-71: the event's response counts, not what was folded."""
    assert fold(FINISHED, event).steps[0].done is done


def test_a_step_takes_mode_and_pending_calls_from_its_event():
    """C-69."""
    (found,) = fold(step(call("1"), mode="manual", manual_tool_calls=[call("1")])).steps

    assert (found.mode, found.manual_tool_calls, found.done) == ("manual", [call("1")], False)


def test_calls_that_were_answered_but_not_executed_were_skipped():
    """O-118: in call order."""
    (found,) = fold(
        HALTED,
        ToolExecutionCompleted(id="4", name="f", result=1),
        ToolResultEncoded(id="4", content="r"),
        ToolResultEncoded(id="3", content="not executed"),
        ToolResultEncoded(id="2", content="not executed"),
        step(call("1"), call("2"), call("3"), call("4")),
    ).steps

    assert found.skipped_tool_calls == [call("2"), call("3")]


def test_an_error_halts_its_step():
    """O-118: that turn's step, and no later one."""
    collector = fold(TIMEOUT, step(call("1")), step(finish_reason="stop"))

    assert [found.halted_reason for found in collector.steps] == ["error", None]
    assert [found.error for found in collector.steps] == [TIMEOUT.error, None]
    assert collector.steps[0].done is True


def test_a_stored_chat_result_is_the_answer():
    """C-69, C-72: with or without a thread, and a second one overwrites."""
    results = [ChatResult(halted_reason="completed"), ChatResult(halted_reason="max_turns")]
    collector = fold(*(ChatCompleted(result=result) for result in results))

    assert collector.done
    assert collector.chat_result() == results[1]


@pytest.mark.parametrize(
    ("events", "reason", "error"),
    [
        ([], "cancelled", None),
        ([step(finish_reason="stop"), step(finish_reason="stop")], "cancelled", None),
        ([CANCELLED], "cancelled", None),
        ([TIMEOUT], "error", TIMEOUT.error),
        ([TIMEOUT, CANCELLED], "error", TIMEOUT.error),
        ([TIMEOUT, step(), delta("x")], "error", TIMEOUT.error),
    ],
)
def test_a_chat_cut_short(events, reason, error):
    """C-72: never completed, however many steps were."""
    result = fold(*events, thread=Thread()).chat_result()

    assert (result.halted_reason, result.error) == (reason, error)


def test_what_a_chat_cut_short_has():
    """C-72: the completed steps, the last one's thread and response; without steps, what was folded."""
    thread = Thread(messages=[user("seed")])
    partial = fold(delta("half"), thread=thread)
    assert partial.chat_result().thread == thread
    assert partial.chat_result().final_response == partial.response()
    assert partial.chat_result().steps == []

    last = step(call("1"), manual_tool_calls=[call("1")])
    cut = fold(step(), last, delta("more"), thread=thread)
    assert cut.chat_result().thread == last.thread
    assert cut.chat_result().final_response == last.response
    assert cut.chat_result().steps == cut.steps
    assert cut.chat_result().manual_tool_calls == [call("1")]


@given(st.lists(make.events, max_size=12), st.integers(min_value=0, max_value=12), make.threads)
@settings(max_examples=80, deadline=None)
def test_folding_in_two_parts_is_folding_the_whole(stream, cut, thread):
    """C-68: and reading in between changes nothing."""
    whole = StreamCollector.collect(stream, thread)
    parts = StreamCollector.collect(stream[:cut], thread)
    parts.response(), parts.step_result(), parts.chat_result(), parts.text, parts.tool_calls
    for event in stream[cut:]:
        parts.apply(event)

    assert parts.response() == whole.response()
    assert parts.step_result() == whole.step_result()
    assert parts.chat_result() == whole.chat_result()
    assert (parts.steps, parts.thread, parts.done, parts.error) == (
        whole.steps,
        whole.thread,
        whole.done,
        whole.error,
    )


@given(st.lists(make.events | make.json_values, max_size=10))
@settings(max_examples=80, deadline=None)
def test_any_events_in_any_order_can_be_folded_and_read(stream):
    """C-68, C-70."""
    collector = StreamCollector.collect(stream, Thread())

    assert isinstance(collector.response().output_text, str)
    assert Response.model_validate_json(collector.response().model_dump_json()) == collector.response()
    assert len(collector.steps) == sum(isinstance(event, StepCompleted) for event in stream)
    ids = [found.id for found in collector.tool_calls]
    assert len(ids) == len(set(ids))


@given(st.text(max_size=20), st.lists(st.integers(min_value=0, max_value=20)))
@settings(max_examples=60, deadline=None)
def test_any_cutting_of_the_text_folds_to_the_same(text, cuts):
    """C-69: of the answer's text, and of a call's arguments."""
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(places)]

    assert fold(*map(delta, pieces)).text == text
    calls = fold(*(ToolCallDelta(id="1", arguments_delta=piece) for piece in pieces)).tool_calls
    assert "".join(found.raw_arguments for found in calls) == text


@given(st.lists(make.raw_chunks | make.message_completions, min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_the_last_usage_wins(stream):
    """C-69: nothing is summed."""
    reports = [
        event.payload if isinstance(event, RawChunk) else event.usage
        for event in stream
        if isinstance(event, MessageCompleted) or event.kind == "usage"
    ]

    expected = [usage for usage in reports if usage is not None]
    assert StreamCollector.collect(stream).usage == (expected[-1] if expected else Usage())


@pytest.mark.parametrize(
    "event",
    [TextDelta(id=None, delta="x" * 50), ToolCallDelta(id="1", arguments_delta="x" * 50)],
    ids=["text", "call"],
)
def test_applying_costs_the_same_however_long_the_text(event):
    """C-68: ten times the events take about ten times as long, not a hundred times."""

    def cost(count):
        def run():
            collector = StreamCollector()
            for _ in range(count):
                collector.apply(event)
            collector.response()

        return min(timeit.repeat(run, number=1, repeat=5))

    assert cost(20_000) < 40 * cost(2_000)
