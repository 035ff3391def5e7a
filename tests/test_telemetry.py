"""Spans with one end, single events, and handlers that cannot hurt."""

import threading
import time

import pytest

from allm_actors import telemetry
from allm_actors.data import Response
from allm_actors.errors import AdapterError, EngineError
from allm_actors.telemetry import _spans


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    fresh = _spans._Registry()
    monkeypatch.setattr(_spans, "_registry", fresh)
    return fresh


@pytest.fixture
def seen():
    records = []
    telemetry.attach("seen", telemetry.NAMES, lambda *record: records.append(record))
    return records


META = {"request_id": "r", "engine": None, "provider": "fake", "model": "m"}


def test_a_span_starts_and_stops(seen):  # P-160
    before = time.time()
    span = telemetry.start("generate", {**META, "mine": 1})
    response = Response()
    span.stop({"extra": 2}, response=response)

    (name, measurements, metadata), (stop, durations, result) = seen
    assert name == "allm.generate.start"
    assert before <= measurements["system_time"] <= time.time()
    assert metadata == {**META, "mine": 1}
    assert stop == "allm.generate.stop"
    assert durations["duration"] >= 0
    assert durations["extra"] == 2
    assert result == {**META, "mine": 1, "response": response, "error": None}


def test_an_exception_ends_a_span_with_its_type_and_reason(seen):  # P-160
    telemetry.start("stream", META).exception(EngineError("missing_key"))
    telemetry.start("stream", META).exception(ZeroDivisionError())
    assert [(record[0], record[2]) for record in seen[1::2]] == [
        ("allm.stream.exception", {**META, "error_type": "EngineError", "error_reason": "missing_key"}),
        ("allm.stream.exception", {**META, "error_type": "ZeroDivisionError", "error_reason": None}),
    ]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, "stop"),
        (AdapterError("timeout"), "stop"),
        (EngineError("engine_down"), "stop"),
        (EngineError("missing_key"), "exception"),
        (TypeError(), "exception"),
    ],
)
def test_an_error_of_the_library_is_a_stop_and_anything_else_an_exception(seen, error, end):  # P-160
    telemetry.start("step", META).finish(error)
    name, _, metadata = seen[-1]
    assert name == f"allm.step.{end}"
    if end == "stop":
        assert metadata["error"] is error


def test_a_span_ends_once(seen):  # P-160
    span = telemetry.start("stream", META)
    assert not span.over
    ends = [span.stop, span.stop, lambda: span.exception(ValueError()), span.finish]
    start = threading.Barrier(4)

    def end(one):
        start.wait(10)
        one()

    threads = [threading.Thread(target=end, args=(one,)) for one in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 2
    assert span.over


def test_single_events(seen):  # P-160
    telemetry.emit("allm.retry", {"attempt": 1, "delay": 0.5}, {"request_id": "r"})
    assert seen == [("allm.retry", {"attempt": 1, "delay": 0.5}, {"request_id": "r"})]


def test_names_are_a_closed_set():  # P-160, K-28, K-29
    spans = [
        "generate",
        "stream",
        "step",
        "chat",
        "tool",
        "image",
        "embed",
        "moderate",
        "classify",
        "synthesize",
        "transcribe",
    ]
    spans += ["stream_synthesize", "stream_transcribe"]
    expected = {f"allm.{span}.{moment}" for span in spans for moment in ("start", "stop", "exception")}
    assert expected | {"allm.retry", "allm.audio.first_chunk"} == telemetry.NAMES
    with pytest.raises(ValueError, match=r"'allm\.generate\.begin'"):
        telemetry.attach("x", ["allm.generate.start", "allm.generate.begin"], print)
    telemetry.attach("x", ["allm.retry"], print)
    with pytest.raises(ValueError, match="'x'"):
        telemetry.attach("x", ["allm.retry"], print)
    with pytest.raises(TypeError):
        telemetry.attach("y", ["allm.retry"], "no handler")


def test_a_handler_hears_what_it_asked_for_until_it_is_detached():  # P-160
    starts, everything = [], []
    telemetry.attach("starts", ["allm.chat.start"], lambda *record: starts.append(record[0]))
    telemetry.attach("everything", telemetry.NAMES, lambda *record: everything.append(record[0]))
    telemetry.start("chat", {}).stop()
    assert telemetry.detach("everything") is True
    assert telemetry.detach("everything") is False
    telemetry.start("chat", {}).stop()
    assert starts == ["allm.chat.start"] * 2
    assert everything == ["allm.chat.start", "allm.chat.stop"]


@pytest.mark.logs_errors("the handler's failure is logged")
def test_a_handler_that_raises_is_detached_and_the_call_goes_on(seen):  # P-160
    calls = []

    def bad(*record):
        calls.append(record)
        raise RuntimeError

    telemetry.attach("bad", telemetry.NAMES, bad)
    telemetry.start("tool", META).stop()
    assert len(calls) == 1
    assert [record[0] for record in seen] == ["allm.tool.start", "allm.tool.stop"]
    telemetry.attach("bad", telemetry.NAMES, print)  # the id is free again


def test_handlers_cannot_change_what_others_see():  # P-160
    def spoil(name, measurements, metadata):
        measurements.clear()
        metadata.clear()

    records = []
    telemetry.attach("spoil", telemetry.NAMES, spoil)
    telemetry.attach("seen", telemetry.NAMES, lambda *record: records.append(record))
    telemetry.start("chat", META).stop()
    assert [record[2].get("request_id") for record in records] == ["r", "r"]


class Watcher:
    def __init__(self):
        self.log = []

    def started(self, span):
        self.log.append(("started", span.name, span.parent.name if span.parent else None, dict(span.details)))

    def ended(self, span, error):
        self.log.append(("ended", span.name, span.result, error))

    def event(self, span, name, measurements, metadata):
        self.log.append((name, span.name if span else None))


def test_a_bridge_sees_spans_with_their_parents():  # P-162
    watcher = Watcher()
    telemetry.watch(watcher)
    chat = telemetry.start("chat", META)
    with chat.active():
        assert telemetry.current() is chat
        step = telemetry.start("step", META)
        with step.active():
            stream = telemetry.start("stream", META, details={"request": "q"})
    assert telemetry.current() is None
    tool = telemetry.start("tool", META, parent=step)  # from another thread
    telemetry.emit("allm.retry", {}, {}, span=stream)
    error = AdapterError("timeout")
    stream.finish(error)
    for span in (tool, step, chat):
        span.finish()
    telemetry.unwatch(watcher)
    telemetry.start("chat", {}).stop()
    assert stream.details == {}, "an ended span holds nothing alive"
    assert watcher.log == [
        ("started", "chat", None, {}),
        ("started", "step", "chat", {}),
        ("started", "stream", "step", {"request": "q"}),
        ("started", "tool", "step", {}),
        ("allm.retry", "stream"),
        ("ended", "stream", {}, error),
        ("ended", "tool", {}, None),
        ("ended", "step", {}, None),
        ("ended", "chat", {}, None),
    ]


@pytest.mark.logs_errors("the bridge's failure is logged")
def test_a_bridge_that_raises_is_taken_off(seen):  # P-160
    class Broken(Watcher):
        def started(self, span):
            raise RuntimeError

    telemetry.watch(Broken())
    telemetry.start("chat", META).stop()
    telemetry.start("chat", META).stop()
    assert [record[0] for record in seen] == ["allm.chat.start", "allm.chat.stop"] * 2
