"""Where a run runs, that nothing runs ahead, and what closing does."""

import asyncio
import gc
import logging
import re
import threading
import time
import weakref

import pytest

import allm_actors as allm
from allm_actors import Session, beam
from allm_actors.data import MessageCompleted, MessageStarted, ToolCall, ToolCallCompleted
from allm_actors.engine import AdapterStream, start_engine
from allm_actors.errors import AdapterError
from allm_actors.events import ErrorEvent
from tests.streaming.adapters import Handmade, Line, plays
from tests.streaming.helpers import START, delta

from .helpers import (
    ECHO,
    PATIENCE,
    READERS,
    SOON,
    Rig,
    Stuck,
    by_next,
    call,
    calls,
    contents,
    in_thread,
    of,
    says,
    tool,
    types,
    until,
    within,
)

HALF = 0.5


def where(seen):
    return lambda *_: seen.append(threading.current_thread())


# --- where things run -------------------------------------------------------------------------------------


def test_on_a_thread_everything_of_the_run_happens_in_the_consumers():
    """O-50, O-52: `halt_when` and `on_event` here, handlers, policies and encoders elsewhere."""
    halting, observing, working = [], [], []

    class Encoder(allm.ToolResultEncoder):
        def encode(self, value):
            working.append(threading.current_thread())
            return "x"

    def fail(arguments):
        working.append(threading.current_thread())
        raise ValueError

    def policy(tool_call, error):
        working.append(threading.current_thread())
        return allm.Continue(1)

    rig = Rig(calls(call("1", "fail")), says("x"), tools=[tool("fail", fail)])
    options = {
        "halt_when": where(halting),
        "on_event": where(observing),
        "on_tool_error": policy,
        "tool_result_encoder": Encoder,
    }

    by_next(allm.stream, rig.engine, "hi", **options)
    allm.chat(rig.rewound(), "hi", **options)

    here = threading.current_thread()
    assert set(halting) == set(observing) == {here}
    assert here not in working
    assert len(working) == 6


@pytest.mark.parametrize("read", READERS[1:])
def test_elsewhere_a_driver_advances_the_run(read):
    """O-50, O-52: `halt_when` in the driver, `on_event` where the stream is read."""
    halting, observing = [], []
    rig = Rig(calls(call("1", "echo")), says("x"), tools=[ECHO])

    read(allm.stream, rig.engine, "hi", halt_when=where(halting), on_event=where(observing))

    assert set(observing) == {threading.current_thread()}
    assert threading.current_thread() not in halting
    assert len(halting) == 1


@pytest.mark.parametrize("open_", [allm.stream, allm.stream_step])
def test_results_are_the_same_wherever_the_stream_is_read(open_):
    """O-50, O-123."""
    rig = Rig(
        calls("t", call("1", "echo", x=1), call("2", "nohandler")),
        says("x"),
        tools=[ECHO, tool("nohandler", None)],
    )

    seen = []
    for read in READERS:
        rig.rewound()
        seen.append(read(open_, rig.engine, "hi", request_id="r", max_concurrency=1))

    assert seen[0] == seen[1] == seen[2]


# --- nothing runs ahead -----------------------------------------------------------------------------------


class Watched:
    """A run whose side effects are counted."""

    def __init__(self):
        self.ran, self.judged = [], []
        self.rig = Rig(
            calls("one", call("1", "note")),
            calls("two", call("2", "note")),
            says("three"),
            tools=[tool("note", lambda a: self.ran.append(1))],
        )

    def open(self, **options):
        return allm.stream(self.rig.engine, "hi", halt_when=lambda step: self.judged.append(1), **options)

    def effects(self):
        return self.rig.sent, len(self.ran), len(self.judged)


STOPS = {  # where the consumer stops -> requests made, handlers run, turns judged
    "message_completed": (1, 0, 0),
    "step_completed": (1, 1, 0),
}


def settled(condition):
    """Wait for what is to come, then long enough for what is not."""
    until(condition)
    time.sleep(0.02)


def test_a_stream_that_was_never_iterated_sends_nothing():
    """O-51, C-50."""
    sent = []

    def make(request, context):
        def events():
            sent.append(1)
            yield from [
                START,
                delta("x"),
                MessageCompleted(message=allm.assistant("x"), finish_reason="stop"),
            ]

        return AdapterStream(events())

    engine = allm.Engine(adapter=Handmade(make=make))
    for _ in range(2):
        events = allm.stream(engine, "hi")
        events.close()
    assert sent == []
    with pytest.raises(StopIteration):
        next(events)


@pytest.mark.parametrize("stop", STOPS)
def test_a_consumer_that_stops_causes_nothing_further(stop):
    """O-51: on a thread."""
    watched = Watched()
    with watched.open() as events:
        for event in events:
            if event.type == stop:
                break
        assert watched.effects() == STOPS[stop]
    assert watched.effects() == STOPS[stop]


@pytest.mark.parametrize("stop", STOPS)
def test_a_driver_does_not_run_ahead_of_a_coroutine(stop):
    """O-51: it prefetches events of the request in progress, never past a side effect."""

    async def read():
        watched = Watched()
        async with watched.open() as events:
            async for event in events:
                if event.type == stop:
                    break
            await asyncio.sleep(0.03)
            assert watched.effects() == STOPS[stop]
            asked = asyncio.ensure_future(anext(events))
            event = await asked
            until(lambda: watched.effects() != STOPS[stop])
        return event

    asyncio.run(read())


@pytest.mark.parametrize("stop", STOPS)
def test_a_driver_does_not_run_ahead_of_a_mailbox(stop):
    """O-51: coming back to the mailbox is asking; opening into it asks for the first (C-62)."""
    watched = Watched()
    with allm.Mailbox() as mailbox:
        watched.open(into=mailbox)
        settled(lambda: watched.rig.sent == 1)
        assert watched.effects() == (1, 0, 0)
        for envelope in mailbox:
            if envelope.event.type == stop:
                break
        time.sleep(0.03)
        assert watched.effects() == STOPS[stop]
        mailbox.get(timeout=SOON)
        until(lambda: watched.effects() != STOPS[stop])


def test_other_streams_of_a_mailbox_do_not_ask_for_this_one():
    """O-51, C-61: the reader has to have taken everything this stream said."""
    watched = Watched()
    with allm.Mailbox() as mailbox:
        watched.open(into=mailbox)
        settled(lambda: watched.rig.sent == 1)
        for envelope in mailbox:
            if envelope.event.type == "message_started":
                break
        assert watched.effects() == (1, 0, 0)


def test_a_batch_runs_on_whether_or_not_the_consumer_asks():
    """O-51."""
    gate, ran = threading.Event(), []

    def handler(arguments):
        assert gate.wait(SOON)
        ran.append(1)

    rig = Rig(calls(call("1", "t"), call("2", "t")), tools=[tool("t", handler)])
    with allm.stream_step(rig.engine, "hi", max_concurrency=1) as events:
        for event in events:
            if event.type == "tool_execution_started":
                break
        gate.set()
        until(lambda: len(ran) == 2)
        assert of(list(events), "step_completed")


def test_a_stream_may_be_passed_from_a_thread_to_a_coroutine():
    """C-54, O-50: whoever asks advances it; the driver goes on where the thread stopped."""
    rig = Rig(calls("t", call("1", "echo")), says("x"), tools=[ECHO])
    whole = types(by_next(allm.stream, rig.engine, "hi"))

    async def rest(events):
        async with events:
            return [event async for event in events]

    for taken in (0, 2, 5, 7):
        events = allm.stream(rig.rewound(), "hi")
        first = [next(events) for _ in range(taken)]
        assert types(first + asyncio.run(rest(events))) == whole


def test_a_driven_stream_may_go_on_with_next():
    """C-54."""
    rig = Rig(calls("t", call("1", "echo")), says("x"), tools=[ECHO])
    whole = types(by_next(allm.stream, rig.engine, "hi"))

    async def first(events):
        return [await anext(events) for _ in range(3)]

    with allm.stream(rig.rewound(), "hi") as events:
        assert types(asyncio.run(first(events)) + list(events)) == whole


def test_a_cancelled_wait_loses_no_event_and_asks_once():
    """C-54, O-51."""
    gate = threading.Event()

    async def read():
        rig = Rig(
            calls(call("1", "wait")), says("x"), tools=[tool("wait", lambda a: gate.wait(SOON) and None)]
        )
        seen = []
        async with allm.stream(rig.engine, "hi") as events:
            async for event in events:
                seen.append(event)
                if event.type == "tool_execution_started":
                    break
            for _ in range(3):
                waiting = asyncio.ensure_future(anext(events))
                await asyncio.sleep(0.005)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            gate.set()
            seen += [event async for event in events]
        return types(seen)

    assert asyncio.run(read())[-1] == "chat_completed"


# --- mailboxes --------------------------------------------------------------------------------------------


def test_a_mailbox_takes_many_runs():
    """O-53, C-61, C-62."""
    rigs = [Rig(calls(call("1", "echo", x=n)), says(f"done {n}"), tools=[ECHO]) for n in range(5)]
    with allm.Mailbox() as mailbox:
        handles = [
            allm.stream(rig.engine, "hi", into=mailbox, request_id=f"r{n}") for n, rig in enumerate(rigs)
        ]
        seen = {handle: [] for handle in handles}
        for envelope in mailbox:
            seen[envelope.stream].append(envelope.event)

    for n, handle in enumerate(handles):
        assert handle.request_id == f"r{n}"
        assert handle.done
        assert seen[handle][-1].result.text == f"done {n}"
        assert len(of(seen[handle], "step_completed")) == 2


def test_a_step_in_a_mailbox_ends_with_its_step():
    """O-53."""
    with allm.Mailbox() as mailbox:
        handle = allm.stream_step(Rig(says("x")).engine, "hi", into=mailbox)
        events = [envelope.event for envelope in mailbox]

    assert events[-1].type == "step_completed"
    assert handle.done


def test_what_a_callback_raises_halts_that_stream_only():
    """O-52, O-53, O-58."""
    good, bad = (
        Rig(calls(call("1", "echo")), says("x"), tools=[ECHO]),
        Rig(calls(call("1", "echo")), tools=[ECHO]),
    )
    seen, raised = [], 0
    with allm.Mailbox() as mailbox:
        allm.stream(good.engine, "hi", into=mailbox)
        allm.stream(bad.engine, "hi", into=mailbox, halt_when=lambda step: 1 / 0)
        while True:
            try:
                for envelope in mailbox:
                    seen.append(envelope.event)
                break
            except ZeroDivisionError:
                raised += 1

    assert raised == 1
    assert len(of(seen, "chat_completed")) == 1


def test_halting_a_handle_ends_its_run():
    """O-53, O-54."""
    stuck = Stuck()
    rig = Rig(calls(call("1", "stuck")), says("never"), tools=[tool("stuck", stuck)])
    with allm.Mailbox() as mailbox:
        handle = allm.stream(rig.engine, "hi", into=mailbox)
        for envelope in mailbox:
            if envelope.event.type == "tool_execution_started":
                break
        assert stuck.entered.wait(SOON)
        handle.halt()
        assert stuck.cancelled.wait(SOON)
        assert list(mailbox) == []
    assert handle.done
    assert rig.sent == 1


# --- closing ----------------------------------------------------------------------------------------------


def close_by_close(events):
    events.close()
    events.close()


def close_by_exit(events):
    with events:
        pass


def close_by_aclose(events):
    asyncio.run(events.aclose())


CLOSINGS = [close_by_close, close_by_exit, close_by_aclose]


@pytest.mark.parametrize("close", CLOSINGS)
def test_closing_in_the_middle_of_a_request(close):
    """O-54, O-55, O-56: the adapter's stream is closed, the connection released once; then silence."""
    line = Line()
    events = allm.stream(allm.Engine(adapter=line.adapter), "hi")
    assert types([next(events), next(events)]) == ["message_started", "text_delta"]
    assert line.streams[0].waiting.wait(SOON)

    with within(HALF):
        close(events)

    assert line.streams[0].cleaned.wait(SOON)
    assert line.streams[0].released == 1
    assert list(events) == []


@pytest.mark.parametrize("close", CLOSINGS)
def test_closing_in_the_middle_of_a_batch(close):
    """O-55: running handlers get the signal and are abandoned; queued calls never start; no further turn."""
    stuck, started = Stuck(heeds=False), []
    rig = Rig(
        calls(call("1", "stuck"), call("2", "note")),
        says("never"),
        tools=[tool("stuck", stuck), tool("note", started.append)],
    )
    events = allm.stream(rig.engine, "hi", max_concurrency=1)
    while next(events).type != "tool_execution_started":
        pass
    assert stuck.entered.wait(SOON)

    with within(HALF):
        close(events)

    assert stuck.cancelled.is_set()
    assert list(events) == []
    stuck.finish()
    assert (started, rig.sent) == ([], 1)


def test_closing_a_driven_stream():
    """O-55: the driver ends."""
    stuck = Stuck(heeds=False)

    async def read():
        rig = Rig(calls(call("1", "stuck")), tools=[tool("stuck", stuck)])
        async with allm.stream(rig.engine, "hi") as events:
            async for event in events:
                if event.type == "tool_execution_started":
                    break
            await asyncio.to_thread(stuck.entered.wait, SOON)
            began = time.monotonic()
        assert time.monotonic() - began < PATIENCE * HALF
        assert [event async for event in events] == []

    asyncio.run(read())
    assert stuck.cancelled.is_set()
    stuck.finish()
    until(lambda: not any("StreamActor" in str(pid) for pid in beam.processes()))


@pytest.mark.parametrize("during", ["request", "batch"])
def test_closing_wakes_a_next_that_waits_elsewhere(during):
    """O-56: it raises `StopIteration`."""
    if during == "request":
        line = Line()
        events, taken = allm.stream(allm.Engine(adapter=line.adapter), "hi"), 2
        entered = lambda: line.streams and line.streams[0].waiting.is_set()  # noqa: E731
    else:
        stuck = Stuck()
        rig = Rig(calls(call("1", "stuck")), tools=[tool("stuck", stuck)])
        events, taken = allm.stream(rig.engine, "hi"), 5
        entered = stuck.entered.is_set
    for _ in range(taken):
        next(events)
    waiting = in_thread(lambda: list(events))
    until(entered)

    events.close()

    assert waiting() == []


def test_a_forgotten_stream_halts_itself():
    """O-54, O-131, C-55: collection signals; it never blocks."""
    stuck = Stuck()
    rig = Rig(calls(call("1", "stuck")), tools=[tool("stuck", stuck)])
    events = allm.stream(rig.engine, "hi")
    while next(events).type != "tool_execution_started":
        pass
    assert stuck.entered.wait(SOON)

    del events
    gc.collect()

    assert stuck.cancelled.wait(SOON)
    stuck.finish()


def test_a_forgotten_driven_stream_halts_itself():
    """O-54, O-131."""
    line = Line()

    async def read():
        events = allm.stream(allm.Engine(adapter=line.adapter), "hi")
        await anext(events)
        del events
        gc.collect()

    asyncio.run(read())
    assert line.streams[0].cleaned.wait(SOON)


def test_a_finished_stream_lets_go_of_its_engine():
    """The processes of a plain engine end with it, though a stream that has ended is kept."""
    rig = Rig(calls(call("1", "echo")), says("x"), tools=[ECHO])
    events = allm.stream(rig.engine, "hi")
    list(events)
    gone = weakref.ref(rig.adapter)

    del rig
    until(lambda: gc.collect() is not None and gone() is None)

    assert list(events) == []


@pytest.mark.parametrize("read", READERS)
def test_a_run_leaves_nothing_to_the_collector(read):
    """What a run held goes with its last reference: the processes of a plain engine end at once."""
    rig = Rig(calls(call("1", "echo")), says("x"), tools=[ECHO])
    gone = weakref.ref(rig.adapter)
    gc.collect()
    gc.disable()
    try:
        read(allm.stream, rig.engine, "hi")
        del rig
        until(lambda: gone() is None)
    finally:
        gc.enable()


def test_closing_before_the_next_turn_begins():
    """O-55: no further turn starts, although its condition was being judged."""
    rig = Rig(calls(call("1", "echo")), says("never"), tools=[ECHO])
    closed = threading.Event()

    def slow(step):
        threading.Thread(target=lambda: (events.close(), closed.set())).start()
        assert closed.wait(SOON)

    events = allm.stream(rig.engine, "hi", halt_when=slow)
    seen = list(events)

    assert types(seen)[-1] == "step_completed"
    assert rig.sent == 1


@pytest.mark.parametrize("run", [allm.step, allm.chat, Session.start], ids=["step", "chat", "session"])
def test_an_exception_in_the_calling_thread_cleans_up(run):
    """O-57, O-129: `KeyboardInterrupt` included."""
    stuck = Stuck()

    def interrupt(event):
        if event.type == "message_completed":
            raise KeyboardInterrupt

    rig = Rig(calls(call("1", "stuck")), tools=[tool("stuck", stuck)])
    with pytest.raises(KeyboardInterrupt):
        run(rig.engine, "hi", on_event=interrupt)
    assert not stuck.entered.is_set()


def test_an_interrupt_while_tools_run_reaches_their_handlers(monkeypatch):
    """O-57, O-129: an exception leaving `chat` sets `ctx.cancelled`."""
    from allm_actors.chat._batch import Batch

    stuck = Stuck()
    take = Batch.take

    def interrupted(self):
        if stuck.entered.is_set():
            raise KeyboardInterrupt
        events = take(self)
        assert stuck.entered.wait(SOON)
        return events

    monkeypatch.setattr(Batch, "take", interrupted)
    rig = Rig(calls(call("1", "stuck")), tools=[tool("stuck", stuck)])

    with pytest.raises(KeyboardInterrupt):
        allm.chat(rig.engine, "hi")

    assert stuck.cancelled.is_set()
    stuck.finish()


def closing_next(open_, closes):
    events = open_(on_event=lambda event: closes(event) and events.close())
    return list(events)


def closing_anext(open_, closes):
    async def read():
        events = open_(on_event=lambda event: closes(event) and events.close())
        return [event async for event in events]

    return asyncio.run(asyncio.wait_for(read(), SOON))


def closing_mailbox(open_, closes):
    with allm.Mailbox() as mailbox:
        handle = open_(on_event=lambda event: closes(event) and handle.halt(), into=mailbox)
        return [envelope.event for envelope in mailbox]


@pytest.mark.parametrize("read", [closing_next, closing_anext, closing_mailbox])
@pytest.mark.parametrize("place", range(1, 5))
def test_an_observer_may_close_the_stream_it_observes(read, place):
    """O-54, O-56, C-56: the event it was told of is not delivered any more, and nothing further happens."""
    ran, seen = [], []
    rig = Rig(calls(call("1", "note")), says("never"), tools=[tool("note", ran.append)])

    def closes(event):
        seen.append(event)
        return len(seen) == place

    delivered = read(lambda **options: allm.stream(rig.engine, "hi", **options), closes)

    assert delivered == seen[:-1]
    assert len(seen) == place
    assert (ran, rig.sent) == ([], 1)


def test_a_condition_may_close_the_stream_it_judges():
    """O-54, O-56."""
    rig = Rig(calls(call("1", "echo")), says("never"), tools=[ECHO])
    events = allm.stream(rig.engine, "hi", halt_when=lambda step: events.close())

    assert types(events)[-1] == "step_completed"
    assert rig.sent == 1


def test_a_handler_may_close_the_stream_it_works_for():
    """O-55, O-56: it is given up like any other, and does not wait for itself."""
    took, heard, left = [], threading.Event(), threading.Event()

    def handler(arguments):
        assert heard.wait(SOON)
        began = time.monotonic()
        events.close()
        took.append(time.monotonic() - began)
        left.set()

    rig = Rig(calls(call("1", "t"), call("2", "t")), says("never"), tools=[tool("t", handler)])
    events = allm.stream(rig.engine, "hi", max_concurrency=1)
    for event in events:
        if event.type == "tool_execution_started":
            heard.set()

    assert event.type == "tool_execution_started"
    assert left.wait(SOON)
    assert took[0] < PATIENCE * HALF
    assert (len(took), rig.sent) == (1, 1)


@pytest.mark.parametrize("hanging", ["policy", "encoder", "skipping"])
def test_closing_while_somebodys_code_settles_a_call(hanging):
    """O-55, O-127: whatever of the batch still runs holds its own thread and no process."""
    entered, go = threading.Event(), threading.Event()

    def hang(*_):
        entered.set()
        assert go.wait(SOON)
        return "continue"

    class Encoder(allm.ToolResultEncoder):
        def encode(self, value):
            return hang() if hanging == "encoder" else "x"

        def encode_error(self, error):
            return hang() if hanging == "skipping" else "x"

    rig = Rig(
        calls(call("1", "fail" if hanging == "policy" else "stop"), call("2", "pay")),
        tools=[
            tool("fail", lambda _: 1 / 0),
            tool("stop", lambda _: allm.Halt("enough")),
            tool("pay", None, manual=True),
        ],
    )
    options = {"on_tool_error": hang} if hanging == "policy" else {"tool_result_encoder": Encoder}
    events = allm.stream(rig.engine, "hi", **options)
    waiting = in_thread(lambda: list(events))
    assert entered.wait(SOON)

    with within(HALF):
        events.close()

    waiting()
    until(lambda: not [pid for pid in beam.processes() if "Task:" in str(pid)])
    assert "zombie" in str(beam.tree())
    go.set()
    until(lambda: "zombie" not in str(beam.tree()))


# --- crashes below ----------------------------------------------------------------------------------------


@pytest.mark.logs_errors("the adapter's process is killed on purpose")
@pytest.mark.parametrize("read", READERS)
def test_an_adapter_that_goes_down_in_mid_turn(read):
    """O-132, C-60: an error event and the failure of the step; the next call on the same engine works."""
    line = Line()
    with start_engine(allm.Engine(adapter=line.adapter), "crashing") as ref:
        crash = in_thread(
            lambda: until(lambda: line.streams and line.streams[0].waiting.is_set()) or kill_adapter()
        )

        events = read(allm.stream, ref, "hi")

        crash()
        assert types(events)[-3:] == ["error", "step_completed", "chat_completed"]
        assert events[-1].result.error.reason == "adapter_down"
        again = in_thread(lambda: allm.chat(ref, "hi").text)
        until(lambda: len(line.streams) == 2)
        line.streams[1].go.set()
        assert again() == "a"


def kill_adapter():
    for pid in beam.processes():
        if "AdapterProcess" in str(pid):
            beam.exit(pid, "kill")


@pytest.mark.logs_errors("the stream's process is ended on purpose")
def test_a_streams_process_that_is_stopped_from_outside():
    """O-132."""
    line = Line()
    with allm.stream(allm.Engine(adapter=line.adapter), "hi") as events:
        next(events), next(events)
        for pid in beam.processes():
            if "StreamActor" in str(pid):
                beam.exit(pid, beam.Shutdown("maintenance"))
        rest = list(events)

    assert types(rest) == ["error", "step_completed", "chat_completed"]
    assert isinstance(rest[0], ErrorEvent)
    assert isinstance(rest[0].error, AdapterError)
    assert rest[-1].result.error.reason == "adapter_down"


@pytest.mark.logs_errors("the adapter's process is killed on purpose")
def test_a_restart_of_the_adapter_does_not_touch_a_batch():
    """O-59."""
    released = threading.Event()

    def handler(arguments, ctx):
        kill_adapter()
        released.wait(0.05)
        return "survived"

    asked = ToolCall(id="1", name="t", arguments={}, raw_arguments="{}")
    adapter = plays(
        [
            MessageStarted(message=allm.assistant("")),
            ToolCallCompleted(id="1", name="t", arguments={}, raw_arguments="{}"),
            MessageCompleted(
                message=allm.Message(role="assistant", content="", tool_calls=[asked]),
                finish_reason="tool_calls",
            ),
        ],
        [START, delta("x"), MessageCompleted(message=allm.assistant("x"), finish_reason="stop")],
    )
    with start_engine(allm.Engine(adapter=adapter, tools=[tool("t", handler)]), "restarting") as ref:
        result = allm.chat(ref, "hi")

    assert contents(result.thread) == ["survived"]
    assert result.text == "x"


@pytest.mark.logs_errors("the batch's process is killed on purpose")
@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("way", ["kill", "shutdown"])
def test_a_batch_that_is_ended_from_outside(read, way):
    """O-65: calls without an outcome get `handler_exit` and halt, no policy asked; handlers are abandoned."""
    stuck, asked = Stuck(), []

    def end():
        assert stuck.entered.wait(SOON)
        for pid in beam.processes():
            if "BatchProcess" in str(pid):
                beam.exit(pid, way)

    rig = Rig(
        calls(call("1", "echo", x="e"), call("2", "stuck"), call("3", "echo"), call("4", "pay")),
        tools=[ECHO, tool("stuck", stuck), tool("pay", None, manual=True)],
    )
    ending = in_thread(end)

    events = read(
        allm.stream, rig.engine, "hi", max_concurrency=1, on_tool_error=lambda c, e: asked.append(1)
    )

    ending()
    result = events[-1].result
    assert (result.halted_reason, result.error.reason, result.halt_tool_call_id) == (
        "tool_error",
        "handler_exit",
        "2",
    )
    assert [o.tool_call_id for o in result.other_halts] == ["3"]
    assert [c.id for c in result.skipped_tool_calls] == ["4"]
    assert [m.tool_call_id for m in result.steps[-1].tool_results] == ["1", "2", "3", "4"]
    assert [e.id for e in of(events, "tool_execution_started")] == ["1", "2", "3"]
    assert asked == []
    assert stuck.cancelled.wait(SOON)
    stuck.finish()
    beam.which_children("beam.tasks")


# --- abandoning -------------------------------------------------------------------------------------------


def test_a_timed_out_handler_goes_on_and_nobody_listens():
    """O-79, O-80, O-125, O-126: its late value is dropped, the model is told, the run goes on."""
    stuck, asked = Stuck(heeds=False), []
    rig = Rig(calls(call("1", "stuck")), says("moving on"), tools=[tool("stuck", stuck)])

    def policy(c, error):
        asked.append(error)
        return "continue"

    with allm.stream(rig.engine, "hi", tool_timeout=0.05, on_tool_error=policy) as events:
        seen = []
        for event in events:
            seen.append(event)
            if event.type == "step_completed" and not stuck.left.is_set():
                stuck.finish()

    result = seen[-1].result
    assert result.text == "moving on"
    assert "did not finish within 0.05 s" in contents(result.thread)[0]
    assert "stuck" in contents(result.thread)[0]
    assert len(of(seen, "tool_execution_completed")) == 1
    assert [error.reason for error in asked] == ["timeout"]
    assert stuck.cancelled.is_set()


def test_a_late_exception_is_dropped():
    """O-80, O-129."""
    stuck = Stuck()

    def handler(arguments, ctx):
        stuck(arguments, ctx)
        ctx.raise_if_cancelled()
        raise LookupError("too late")

    rig = Rig(calls(call("1", "t")), says("x"), tools=[tool("t", handler)])

    assert allm.chat(rig.engine, "hi", tool_timeout=0.03).text == "x"
    assert stuck.left.wait(SOON)


def test_a_result_that_comes_after_the_limit_is_late_even_if_nobody_looked(monkeypatch):
    """O-78: enforced whether or not a timer has fired."""
    from allm_actors.chat import _jobs

    monkeypatch.setattr(_jobs.beam, "send_after", lambda *args: beam.timer.TimerRef(0))
    slow = tool("slow", lambda a: time.sleep(0.03))

    batch = allm.run_tool_calls([ToolCall(id="1", name="slow", arguments={})], [slow], tool_timeout=0.01)

    assert "did not finish" in batch.messages[0].content


def test_waiting_for_a_slot_does_not_count():
    """O-78: the limit starts when the handler starts."""
    slow = tool("slow", lambda a: time.sleep(0.04) or "ok")
    some = [ToolCall(id=str(n), name="slow", arguments={}) for n in range(4)]

    batch = allm.run_tool_calls(some, [slow], tool_timeout=0.13, max_concurrency=1)

    assert [m.content for m in batch.messages] == ["ok"] * 4


def records(caplog):
    """The texts of what was logged of abandoned handlers."""
    return [record.getMessage() for record in caplog.records if "tool.abandoned" in record.getMessage()]


def test_abandoned_handlers_are_zombies_and_logged(caplog):
    """O-125, O-127, O-128: they hold no slot; both records carry the reason."""
    stuck = Stuck(heeds=False)
    rig = Rig(calls(call("7", "stuck")), says("x"), tools=[tool("stuck", stuck)])

    allm.chat(rig.engine, "hi", tool_timeout=0.03, request_id="r")
    tree = str(beam.tree())
    assert any("Task:stuck" in line and "zombie" in line for line in tree.splitlines()), tree
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("beam-"))
    stuck.finish()
    until(lambda: len(records(caplog)) == 2)

    given_up, ended = records(caplog)
    for fact in ("event='tool.abandoned'", "tool='stuck'", "tool_call_id='7'", "request_id='r'"):
        assert fact in given_up
    assert "reason='timeout'" in given_up
    assert "limit=0.03" in given_up
    assert "event='tool.abandoned_ended'" in ended
    assert "reason='timeout'" in ended
    assert float(re.search(r"seconds=([\d.]+)", ended).group(1)) >= 0.03
    assert {record.levelname for record in caplog.records if "tool." in record.getMessage()} == {"WARNING"}


def test_closing_is_logged_as_such(caplog):
    """O-128."""
    stuck = Stuck(heeds=False)
    rig = Rig(calls(call("7", "stuck")), tools=[tool("stuck", stuck)])

    with allm.stream(rig.engine, "hi") as events:
        while next(events).type != "tool_execution_started":
            pass
        assert stuck.entered.wait(SOON)
    stuck.finish()
    until(lambda: len(records(caplog)) == 2)

    assert all("reason='closed'" in record for record in records(caplog))


def test_a_deadline_that_ends_a_handler_is_logged_as_the_limit(caplog):
    """O-78, O-128."""
    stuck = Stuck(heeds=False)

    allm.run_tool_calls([ToolCall(id="1", name="stuck", arguments={})], [tool("stuck", stuck)], deadline=0.05)

    assert "limit='deadline'" in records(caplog)[0]
    stuck.finish()
    until(lambda: len(records(caplog)) == 2)


def test_what_a_tool_failed_with_is_for_developers_who_ask(caplog):
    """O-89: the model reads one sentence; the traceback is in a debug record, and on no result."""
    boom = tool("boom", lambda a: 1 / 0)
    with caplog.at_level(logging.DEBUG, "allm_actors.chat"):
        batch = allm.run_tool_calls(
            [ToolCall(id="1", name="boom", arguments={})], [boom], on_tool_error="halt"
        )

    assert any(
        "ZeroDivisionError" in r.getMessage() and "tool.failed" in r.getMessage() for r in caplog.records
    )
    assert batch.error.__cause__.__traceback__ is None


def test_a_hundred_stuck_handlers_leave_the_next_batch_its_full_width():
    """O-127."""
    stuck = [Stuck(heeds=False) for _ in range(100)]
    some = [ToolCall(id=str(n), name="stuck", arguments={"n": n}) for n in range(100)]
    t = tool("stuck", lambda a, ctx: stuck[a["n"]](a, ctx))
    try:
        allm.run_tool_calls(some, [t], tool_timeout=0.05, max_concurrency=100)
        barrier = threading.Barrier(6)
        meet = tool("meet", lambda a: barrier.wait(SOON) * 0)
        batch = allm.run_tool_calls(
            [ToolCall(id=str(n), name="meet", arguments={}) for n in range(6)], [meet], max_concurrency=6
        )
        assert [m.content for m in batch.messages] == ["0"] * 6
    finally:
        for one in stuck:
            if one.entered.is_set():
                one.finish()


def test_a_handlers_end_and_its_timeout_are_decided_once():
    """O-11, O-80: whichever takes the claim first; the other's way is gone."""
    from allm_actors.chat._jobs import Claim

    for _ in range(200):
        delivered = []
        claim = Claim(delivered.append)
        start = threading.Barrier(2)

        def take(what, start=start, claim=claim):
            start.wait(SOON)
            if (send := claim.take()) is not None:
                send(what)

        racing = [in_thread(take, what) for what in ("end", "timeout")]
        for one in racing:
            one()
        assert len(delivered) == 1
