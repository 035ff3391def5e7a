"""A driver that is ended from outside: the run ends with it, and the reader hears how."""

import asyncio
import threading

import pytest

import allm_actors as allm
from allm_actors import Session, beam
from allm_actors.data import ToolCall
from allm_actors.errors import AdapterError
from tests.streaming.adapters import Line

from .helpers import (
    ECHO,
    SOON,
    Rig,
    Stuck,
    by_next,
    call,
    calls,
    contents,
    errors_in,
    in_thread,
    of,
    says,
    tool,
    types,
    until,
)

pytestmark = pytest.mark.logs_errors("a driver is ended on purpose")

WAYS = ["kill", "shutdown"]
PAY = tool("pay", None, manual=True)


def end_driver(way):
    """End the driver, if it lives; return once it is dead for everybody."""
    for name, pid, _ in beam.which_children("beam.tasks"):
        if name == "driver":
            beam.exit(pid, "kill" if way == "kill" else beam.Shutdown("maintenance"))
            until(lambda pid=pid: not pid.is_alive())


def async_reader(open_, when, end):
    """Read with `async for`; `end()` once, after the event that `when` says."""

    async def read():
        seen, ended = [], False
        async with open_() as events:
            async for event in events:
                seen.append(event)
                if not ended and when(seen):
                    ended = True
                    await asyncio.to_thread(end)
        return seen

    return asyncio.run(asyncio.wait_for(read(), SOON))


def mailbox_reader(open_, when, end):
    """The same from a mailbox."""
    seen, ended = [], False
    with allm.Mailbox() as mailbox:
        handle = open_(into=mailbox)
        for envelope in mailbox:
            seen.append(envelope.event)
            if not ended and when(seen):
                ended = True
                end()
    assert handle.done
    return seen


def mixed_reader(open_, when, end):
    """One event with `next()`, the rest with `async for`."""

    async def rest(events, seen, ended):
        async for event in events:
            seen.append(event)
            if not ended and when(seen):
                ended = True
                await asyncio.to_thread(end)
        return seen

    with open_() as events:
        seen = []
        for event in events:
            seen.append(event)
            if when(seen) or event.type == "tool_execution_started":
                break
        return asyncio.run(rest(events, seen, False))


DRIVEN = [async_reader, mailbox_reader, mixed_reader]


def well_formed(thread, pending=()):
    """Each recorded call is answered once, before anything else is said; the pending ones are not."""
    waiting = []
    for message in thread.messages:
        if message.role == "tool":
            assert message.tool_call_id in waiting
            waiting.remove(message.tool_call_id)
        else:
            assert waiting == []
            waiting = [c.id for c in message.tool_calls]
    if thread.messages[-1].role == "assistant" and thread.messages[-1].ask_user_for is not None:
        assert waiting == []
    assert waiting == [c.id for c in pending]


def lawful(events, thread, *, last):
    """What holds of every stream that was not closed."""
    assert types(events)[-1] == last
    assert types(events).count(last) == 1 or last == "step_completed"
    assert len(errors_in(events)) <= 1
    folded = allm.StreamCollector.collect(events, thread)
    for step in folded.steps:
        well_formed(step.thread, step.manual_tool_calls)
    for started in of(events, "tool_execution_started"):
        assert len([e for e in of(events, "tool_execution_completed") if e.id == started.id]) == 1
    for place, event in enumerate(events):
        if event.type == "tool_execution_completed":
            follows = events[place + 1]
            assert getattr(follows, "tool_call_id", getattr(follows, "id", None)) == event.id
    if last == "chat_completed":
        result = events[-1].result
        well_formed(result.thread, result.manual_tool_calls)
        assert result.steps == folded.steps
        if errors_in(events):
            assert result.halted_reason == "error"
            assert result.error == errors_in(events)[0]
        assert result.halted_reason != "cancelled"


SCRIPTS = {
    "text": [says("a", "b", "c")],
    "tools": [calls("t", call("1", "echo"), call("2", "echo")), calls(call("3", "echo")), says("done")],
    "mixed": [calls(call("1", "echo"), call("2", "pay")), says("never")],
    "asking": [calls(call("1", "ask"), call("2", "echo"), call("3", "pay")), says("never")],
    "unknown": [calls("hm", call("1", "nobody")), says("never")],
    "failing": [calls(call("1", "echo")), [("text", "x"), ("error", "rate_limited", {})]],
    "unopened": [calls(call("1", "echo")), [("preflight_error", "authentication_failed", {})]],
}


@pytest.mark.parametrize("read", DRIVEN)
@pytest.mark.parametrize("open_", [allm.stream, allm.stream_step], ids=["stream", "stream_step"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_wherever_the_driver_is_ended_the_stream_comes_to_its_end(script, open_, read):
    """O-10, O-27, O-42, O-123, O-132: after every event; the last one always comes, and nothing contradicts it."""
    tools = [ECHO, PAY, tool("ask", lambda _: allm.AskUser("Which?"))]
    thread = allm.Thread().add_user("hi")
    rig = Rig(*SCRIPTS[script], tools=tools)
    last = "chat_completed" if open_ is allm.stream else "step_completed"
    for count in range(1, len(by_next(open_, rig.engine, thread)) + 1):
        engine = rig.rewound()

        events = read(
            lambda engine=engine, **into: open_(engine, thread, max_concurrency=1, **into),
            lambda seen, count=count: len(seen) >= count,
            lambda way=WAYS[count % 2]: end_driver(way),
        )

        lawful(events, thread, last=last)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("read", DRIVEN[:2])
def test_in_the_middle_of_a_request(read, way):
    """O-132, O-17, C-60: one error event, the failed step with the text so far, the result."""
    line = Line()
    engine = allm.Engine(adapter=line.adapter)

    def end():
        assert line.streams[0].waiting.wait(SOON)
        end_driver(way)

    events = read(
        lambda **into: allm.stream(engine, "hi", **into), lambda seen: seen[-1].type == "text_delta", end
    )

    assert types(events) == ["message_started", "text_delta", "error", "step_completed", "chat_completed"]
    result = events[-1].result
    assert isinstance(result.error, AdapterError)
    assert (result.halted_reason, result.error.reason) == ("error", "adapter_down")
    assert [m.content for m in result.thread.messages] == ["hi", "a"]
    assert line.streams[0].cleaned.wait(SOON)
    assert line.streams[0].released == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("read", DRIVEN)
def test_in_the_middle_of_a_batch(read, way):
    """O-65, O-125: handlers are given up, calls without an outcome are answered, and nothing that ran is lost."""
    stuck = Stuck()
    tools = [ECHO, tool("stuck", stuck), PAY]
    rig = Rig(
        calls(call("1", "echo", x="e"), call("2", "stuck"), call("3", "echo"), call("4", "pay")), tools=tools
    )

    def end():
        assert stuck.entered.wait(SOON)
        end_driver(way)

    events = read(
        lambda **into: allm.stream(rig.engine, "hi", max_concurrency=1, **into),
        lambda seen: len(of(seen, "tool_execution_started")) == 2,
        end,
    )

    lawful(events, allm.Thread().add_user("hi"), last="chat_completed")
    result = events[-1].result
    assert (result.halted_reason, result.error.reason) == ("tool_error", "handler_exit")
    assert result.halt_tool_call_id == "2"
    assert [m.tool_call_id for m in result.steps[0].tool_results] == ["1", "2", "3", "4"]
    assert contents(result.thread)[0] == "e"
    assert [c.id for c in result.skipped_tool_calls] == ["4"]
    assert stuck.cancelled.wait(SOON)
    stuck.finish()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("read", DRIVEN)
def test_between_two_turns(read, way):
    """O-37, O-43, O-132: the turns that were completed, one error event that no adapter sent, no further request."""
    rig = Rig(calls(call("1", "echo", x="e")), says("never"), tools=[ECHO])
    observed = []

    events = read(
        lambda **into: allm.stream(rig.engine, "hi", on_event=observed.append, **into),
        lambda seen: seen[-1].type == "step_completed",
        lambda: end_driver(way),
    )

    assert types(events)[-3:] == ["step_completed", "error", "chat_completed"]
    result = events[-1].result
    assert (result.error.reason, len(result.steps), rig.sent) == ("adapter_down", 1, 1)
    assert contents(result.thread) == ["e"]
    assert not errors_in(observed)


def test_while_halt_when_judges():
    """O-132: although its code goes on; what it comes to has no effect."""
    entered, go = threading.Event(), threading.Event()
    rig = Rig(calls(call("1", "echo")), says("never"), tools=[ECHO])

    def judge(step):
        entered.set()
        assert go.wait(SOON)

    def ending():
        assert entered.wait(SOON)
        end_driver("kill")

    killer = in_thread(ending)
    events = mailbox_reader(
        lambda into: allm.stream(rig.engine, "hi", halt_when=judge, into=into), lambda _: False, None
    )
    killer()
    go.set()

    assert types(events)[-3:] == ["step_completed", "error", "chat_completed"]
    until(lambda: "zombie" not in str(beam.tree()))
    assert rig.sent == 1


FORMAT = allm.json_schema("answer", {"type": "object"})


@pytest.mark.parametrize("read", DRIVEN[:2])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_in_two_passes(read, steps):
    """O-48, O-132: how the first pass ended stays known; without a second one there is no structured answer."""
    rig = Rig(calls(call("1", "echo")), says("prose"), says("{}"), tools=[ECHO])
    when = (
        (lambda seen: seen[-1].type == "message_completed")
        if steps == 0
        else (lambda seen: len(of(seen, "step_completed")) == steps)
    )

    events = read(
        lambda **into: allm.stream(
            rig.engine, "hi", structured_finalize=True, response_format=FORMAT, **into
        ),
        when,
        lambda: end_driver("shutdown"),
    )

    result = events[-1].result
    assert (result.halted_reason, result.error.reason) == ("error", "adapter_down")
    assert result.pass_1_halted_reason == ("completed" if steps == 2 else "error")
    assert all("final answer" not in str(m.content) for m in result.thread.messages)


def test_calls_run_directly():
    """O-65, O-132: by `stream_tool_calls`, read from a coroutine."""
    stuck = Stuck()
    some = [ToolCall(id=str(n), name=name, arguments={}) for n, name in enumerate(["echo", "stuck", "echo"])]

    def end():
        assert stuck.entered.wait(SOON)
        end_driver("kill")

    events = async_reader(
        lambda: allm.stream_tool_calls(some, [ECHO, tool("stuck", stuck)], max_concurrency=1),
        lambda seen: len(of(seen, "tool_execution_started")) == 2,
        end,
    )

    assert [e.tool_call_id for e in of(events, "tool_halt")] == ["1", "2"]
    assert {e.error.reason for e in of(events, "tool_halt")} == {"handler_exit"}
    assert len(of(events, "tool_result_encoded")) == 1
    stuck.finish()


def test_other_streams_of_the_mailbox_go_on():
    """C-60, C-61, O-132."""
    line, rig = Line(), Rig(calls(call("1", "echo")), says("fine"), tools=[ECHO])
    with allm.Mailbox() as mailbox:
        down = allm.stream(allm.Engine(adapter=line.adapter), "hi", into=mailbox)
        until(lambda: line.streams and line.streams[0].waiting.is_set())
        end_driver("kill")
        up = allm.stream(rig.engine, "hi", into=mailbox)
        said = {down: [], up: []}
        for envelope in mailbox:
            said[envelope.stream].append(envelope.event)

    assert said[down][-1].result.error.reason == "adapter_down"
    assert said[up][-1].result.text == "fine"


def test_a_handle_that_is_halted_among_its_last_words_says_no_more():
    """O-54, O-56, C-62."""
    line = Line()
    with allm.Mailbox() as mailbox:
        handle = allm.stream(allm.Engine(adapter=line.adapter), "hi", into=mailbox)
        until(lambda: line.streams and line.streams[0].waiting.is_set())
        end_driver("kill")
        for envelope in mailbox:
            if envelope.event.type == "error":
                assert not handle.done
                handle.halt()
                assert handle.done
        assert envelope.event.type == "error"


def test_a_stream_that_is_closed_among_its_last_words_says_no_more():
    """O-56."""
    line = Line()

    async def read():
        async with allm.stream(allm.Engine(adapter=line.adapter), "hi") as events:
            async for event in events:
                if event.type == "text_delta":
                    await asyncio.to_thread(end_driver, "kill")
                if event.type == "error":
                    await events.aclose()
        return event

    assert asyncio.run(read()).type == "error"


def test_a_session_is_in_error_and_can_go_on():
    """O-105, O-121, O-132: an error in a turn that completed, for its `StepCompleted` came."""
    line = Line()
    engine = allm.Engine(adapter=line.adapter)
    with allm.Mailbox() as mailbox:
        handle = Session.stream_start(engine, "hi", into=mailbox)
        fold = handle.reducer()
        until(lambda: line.streams and line.streams[0].waiting.is_set())
        end_driver("kill")
        for envelope in mailbox:
            fold.apply(envelope.event)

    session, result = fold.finalize()
    assert (session.status, session.error.reason) == ("error", "adapter_down")
    assert result.halted_reason == "error"
    waiting = in_thread(lambda: Session.continue_(engine, Session.reset_error(session)))
    until(lambda: len(line.streams) == 2)
    line.streams[1].go.set()
    assert waiting()[0].status == "completed"


@pytest.mark.parametrize("way", WAYS)
def test_spans_end_with_the_error(way):
    """O-8, O-132: of the chat and of the turn that was in progress, once."""
    line, ended = Line(), []
    allm.telemetry.attach(
        "test",
        [f"allm.{name}.{end}" for name in ("step", "chat") for end in ("stop", "exception")],
        lambda name, measurements, metadata: ended.append((name, metadata["error"])),
    )
    try:
        with allm.Mailbox() as mailbox:
            allm.stream(allm.Engine(adapter=line.adapter), "hi", into=mailbox)
            until(lambda: line.streams and line.streams[0].waiting.is_set())
            end_driver(way)
            list(mailbox)
    finally:
        allm.telemetry.detach("test")

    assert [(name, error.reason) for name, error in ended] == [
        ("allm.step.stop", "adapter_down"),
        ("allm.chat.stop", "adapter_down"),
    ]
