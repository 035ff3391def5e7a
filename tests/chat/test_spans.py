"""What telemetry says of steps, chats and tools."""

import threading

import pytest

import allm_actors as allm
from allm_actors import Session, telemetry
from allm_actors.errors import AdapterError

from .helpers import READERS, SOON, Rig, Stuck, call, calls, says, tool, until


@pytest.fixture
def watched():
    """Every span event, as `(name, metadata)`, and the span objects a bridge would follow."""

    class Watch:
        def __init__(self):
            self.events, self.spans, self.details, self.over = [], [], [], []

        def started(self, span):
            self.spans.append(span)
            self.details.append({"session_id": span.details.get("session_id")})

        def ended(self, span, error):
            self.over.append(span)

        def event(self, *_):
            pass

        def names(self):
            return [name for name, _ in self.events]

    watch = Watch()
    names = [name for name in telemetry.NAMES if name.split(".")[1] in ("chat", "step", "tool", "stream")]
    telemetry.attach(watch, names, lambda name, measurements, metadata: watch.events.append((name, metadata)))
    telemetry.watch(watch)
    yield watch
    telemetry.unwatch(watch)
    telemetry.detach(watch)


ECHO = tool("echo", lambda a: a.get("x"))
FAIL = tool("fail", lambda a: 1 / 0)


@pytest.mark.parametrize("read", READERS)
def test_spans_nest(watched, read):
    """P-160, P-162: `tool` and `stream` inside `step` inside `chat`; each starts and ends once."""
    rig = Rig(calls(call("1", "echo", x="e")), says("done"), tools=[ECHO])

    read(allm.stream, rig.engine, "hi", telemetry_metadata={"mine": 1}, request_id="r", session_id="s")

    assert watched.names() == [
        "allm.chat.start",
        *["allm.step.start", "allm.stream.start", "allm.stream.stop"],
        *["allm.tool.start", "allm.tool.stop", "allm.step.stop"],
        *["allm.step.start", "allm.stream.start", "allm.stream.stop", "allm.step.stop"],
        "allm.chat.stop",
    ]
    parents = {span.name: span.parent for span in watched.spans}
    assert parents["chat"] is None
    assert parents["step"].name == "chat"
    assert parents["stream"].name == parents["tool"].name == "step"
    for _, metadata in watched.events:
        assert metadata["mine"] == 1
        assert metadata["request_id"] == "r"
        assert (metadata["provider"], metadata["model"], metadata["engine"]) == ("fake", "m", None)
    results = dict(watched.events)
    assert results["allm.chat.stop"]["chat_result"].text == "done"
    assert results["allm.step.stop"]["step_result"].done
    tool_stop = results["allm.tool.stop"]
    assert (tool_stop["tool_name"], tool_stop["tool_call_id"], tool_stop["result"]) == ("echo", "1", "e")
    assert tool_stop["error"] is None
    assert watched.details[0]["session_id"] == "s"


def test_a_step_alone(watched):
    """P-162."""
    allm.step(Rig(says("x")).engine, "hi")

    assert watched.names()[0] == "allm.step.start"
    assert watched.names()[-1] == "allm.step.stop"


def test_what_a_handler_calls_is_inside_its_span(watched):
    """P-162, O-74."""
    rig = Rig(
        calls(call("1", "inner")),
        says("inner answer"),
        says("x"),
        tools=[tool("inner", lambda a, ctx: allm.chat(ctx.engine, "inner").text)],
    )

    allm.chat(rig.engine, "hi")

    outer, inner = [span for span in watched.spans if span.name == "chat"]
    assert outer.parent is None
    assert inner.parent.name == "tool"


def test_an_error_ends_spans_in_stop(watched):
    """P-160: whether it was raised or is an event; a failing tool's error is on its own span."""
    rig = Rig(calls(call("1", "fail")), [("error", "network_error", {})], tools=[FAIL])

    with pytest.raises(AdapterError):
        allm.chat(rig.engine, "hi")

    assert [name for name in watched.names() if name.endswith("exception")] == []
    stops = [(name, metadata["error"]) for name, metadata in watched.events if name.endswith(".stop")]
    assert [(name, error and error.reason) for name, error in stops] == [
        ("allm.stream.stop", None),
        ("allm.tool.stop", "handler_raised"),
        ("allm.step.stop", None),
        ("allm.stream.stop", "network_error"),
        ("allm.step.stop", "network_error"),
        ("allm.chat.stop", "network_error"),
    ]


def test_a_call_that_cannot_be_opened(watched):
    """P-160."""
    with pytest.raises(AdapterError):
        allm.chat(Rig([("preflight_error", "authentication_failed", {})]).engine, "hi")

    assert watched.names() == [
        *["allm.chat.start", "allm.step.start", "allm.stream.start"],
        *["allm.stream.stop", "allm.step.stop", "allm.chat.stop"],
    ]


def test_a_callback_that_raises_ends_spans_in_exception(watched):
    """P-160."""
    with pytest.raises(ZeroDivisionError):
        allm.chat(Rig(calls(call("1", "echo")), tools=[ECHO]).engine, "hi", halt_when=lambda step: 1 / 0)

    assert watched.names()[-1] == "allm.chat.exception"


@pytest.mark.parametrize("dropped", [False, True])
def test_a_closed_run_ends_its_spans_once(watched, dropped):
    """P-160: also when it was only dropped, and its handlers' spans with it."""
    stuck = Stuck()
    rig = Rig(calls(call("1", "stuck")), tools=[tool("stuck", stuck)])
    events = allm.stream(rig.engine, "hi")
    while next(events).type != "tool_execution_started":
        pass
    assert stuck.entered.wait(SOON)

    if dropped:
        del events
    else:
        events.close()

    until(lambda: len(watched.over) == 4)
    stuck.finish()
    assert {span.name for span in watched.over} == {"chat", "step", "stream", "tool"}
    assert len([name for name in watched.names() if not name.endswith("start")]) == 4


def test_a_timed_out_tool_ends_its_span_at_its_timeout(watched):
    """P-160, O-79."""
    stuck = Stuck(heeds=False)
    rig = Rig(calls(call("1", "stuck")), says("x"), tools=[tool("stuck", stuck)])

    allm.chat(rig.engine, "hi", tool_timeout=0.03)

    stops = [metadata for name, metadata in watched.events if name == "allm.tool.stop"]
    assert [stop["error"].reason for stop in stops] == ["timeout"]
    stuck.finish()


def test_a_session_is_a_chat(watched):
    """P-163: with the conversation's id."""
    Session.start(Rig(says("x")).engine, "hi", id="s")

    assert watched.spans[0].name == "chat"
    assert watched.details[0]["session_id"] == "s"


def test_handlers_of_telemetry_run_where_the_tool_does(watched):
    """Section on spans: in the thread in which the thing happens."""
    threads = []
    telemetry.attach("where", ["allm.tool.start"], lambda *_: threads.append(threading.current_thread()))
    try:
        allm.chat(Rig(calls(call("1", "echo")), says("x"), tools=[ECHO]).engine, "hi")
    finally:
        telemetry.detach("where")

    assert threading.current_thread() not in threads
    assert len(threads) == 1
