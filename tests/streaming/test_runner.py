"""Whole answers: the fold of a stream."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import allm_actors as allm
from allm_actors import errors, telemetry
from allm_actors.data import Request, Response, StreamCollector, Usage, user
from allm_actors.engine import CallContext, Engine, Retry, set_catalog
from allm_actors.providers import Fake
from allm_actors.streaming import Runner

from .adapters import Handmade, Line, plays, refuses
from .helpers import START, Scripted, closing, delta, failing, good, in_thread, until, within
from .test_event_stream import gone, kill_adapter

AT_ONCE = Retry(base_delay=0, jitter=0)
HI = [("text", "hi"), ("finish", "stop")]


def test_a_whole_answer_is_what_the_events_come_to():
    """C-63."""
    events = good("hi")
    folded = StreamCollector.collect(events).response()

    answer = Runner(Engine(adapter=plays(events))).run("hello", request_id="r")

    assert answer == folded.model_copy(update={"request_id": "r"})
    assert (answer.text, answer.finish_reason) == ("hi", "stop")
    assert gone()


def test_a_failure_of_the_provider_is_data_with_what_had_arrived():
    """C-63."""
    answer = Runner(Engine(adapter=plays([START, delta("ha"), delta("lf"), failing("invalid_request")]))).run(
        "hi"
    )

    assert (answer.finish_reason, answer.error.reason, answer.output_text) == (
        "error",
        "invalid_request",
        "half",
    )


def test_generate_raises_it_with_the_response_as_its_partial():
    """C-64, C-32: an equal copy, so no traceback hangs on data."""
    engine = Engine(adapter=plays([START, delta("half"), failing("invalid_request")]))

    with pytest.raises(errors.AdapterError) as caught:
        allm.generate(engine, "hi", request_id="r")

    error = caught.value
    assert isinstance(error.partial, Response)
    assert (error.partial.output_text, error.partial.request_id) == ("half", "r")
    assert error == error.partial.error
    assert error is not error.partial.error
    assert error.partial.error.__traceback__ is None


def test_what_the_call_raises_comes_out_unchanged():
    """C-63, C-47."""
    for kind in (errors.AdapterError, errors.EngineError):
        error = kind(kind.legal_reasons()[0])
        with pytest.raises(kind) as caught:
            allm.generate(Engine(adapter=refuses(error)), "hi")
        assert caught.value is error
        assert error.partial is None
    with pytest.raises(TypeError):
        allm.generate(Engine(adapter=plays()), "hi", temperature="hot")


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_what_on_event_raises_comes_out_and_the_stream_is_closed(kind):
    """C-63, C-56: it runs in the caller's thread."""
    line, bug, threads = Line(), kind("x"), set()

    def on_event(event):
        threads.add(threading.current_thread())
        if event.type == "text_delta":
            raise bug

    with within(1), pytest.raises(kind) as caught:
        Runner(Engine(adapter=line.adapter)).run("hi", on_event=on_event)

    assert caught.value is bug
    assert line.streams[0].released == 1
    assert gone()
    assert threads == {threading.current_thread()}


@pytest.mark.logs_errors("a crash of an adapter is reported")
def test_a_bug_in_the_adapter_comes_out_unchanged():
    """C-63, C-59."""
    # Made anew each time: what is raised leads to this frame, so an adapter that kept it would keep itself.
    adapter = Handmade(make=lambda *_: Scripted(START, KeyError("x")).stream)
    with pytest.raises(KeyError) as caught:
        Runner(Engine(adapter=adapter)).run("hi")
    assert caught.value.args == ("x",)
    assert gone()


@pytest.mark.logs_errors("ends from outside are reported")
def test_an_adapter_that_goes_down_is_a_failure_like_any_other():
    """C-60, C-63."""
    line = Line()
    engine = Engine(adapter=line.adapter)
    running = in_thread(lambda: Runner(engine).run("hi"))
    until(lambda: line.streams and line.streams[0].waiting.is_set())

    kill_adapter()

    answer = running()
    assert (answer.error.reason, answer.output_text) == ("adapter_down", "a")


def test_request_timeout_bounds_each_attempt():
    """C-63, C-42: a timer closes the stream, however slowly it drips; each attempt has its own."""
    line = Line(START)
    engine = Engine(adapter=line.adapter, retry=Retry(max_attempts=2, base_delay=0, jitter=0))

    with within(2):
        answer = Runner(engine).run("hi", request_timeout=0.15)

    assert answer.error.reason == "timeout"
    assert answer.error.metadata == {"limit": "request_timeout"}
    assert len(line.streams) == 2
    assert all(stream.released == 1 for stream in line.streams)


def test_request_timeout_has_no_effect_on_a_stream():
    """P-125."""
    line = Line()
    stream = allm.stream_generate(Engine(adapter=line.adapter), "hi", request_timeout=0.05)
    next(stream)
    next(stream)
    with pytest.raises(TimeoutError):
        wait_in_vain(line.streams[0].cleaned, 0.2)

    line.streams[0].go.set()

    assert list(stream) == closing("a")


def wait_in_vain(event, seconds):
    if not event.wait(seconds):
        raise TimeoutError


@pytest.mark.parametrize(
    "options",
    [
        {"emit_text_deltas": False},
        {"emit_tool_deltas": False},
        {"include_raw_chunks": True},
        {"emit_text_deltas": False, "emit_tool_deltas": False, "include_raw_chunks": False},
    ],
)
def test_the_fold_sees_the_unfiltered_stream(options):
    """C-65."""
    script = [
        ("text", "a"),
        ("tool_call_delta", {"id": "1", "name": "t", "arguments_delta": "{}"}),
        ("raw_chunk", 1),
        ("usage", {"input_tokens": 2}),
        ("finish", "stop"),
    ]
    plain = allm.generate(Engine(adapter=Fake(script=script)), "hi", request_id="r")

    assert allm.generate(Engine(adapter=Fake(script=script)), "hi", request_id="r", **options) == plain


def test_the_request_id_is_the_runs():
    """C-66, P-161."""
    assert allm.generate(Engine(adapter=plays(good())), "hi", request_id="mine").request_id == "mine"
    assert len(allm.generate(Engine(adapter=plays(good())), "hi").request_id) == 22


class Catalog:
    def lookup(self, model):
        return {"m": allm.ModelRef(provider="p", id="m", pricing={"input": 1.0, "output": 2.0})}.get(model)

    def select(self, require, prefer):
        raise NotImplementedError


@pytest.fixture
def catalog():
    set_catalog(Catalog())
    yield
    set_catalog(None)


@pytest.mark.parametrize(
    ("model", "reported", "expected"),
    [
        ("m", {}, (1.0, 1.0, 2.0)),
        ("m", {"input_cost": 9.0}, (9.0, 1.0, 10.0)),
        ("other", {}, (None, None, None)),
    ],
)
def test_missing_costs_are_filled_with_the_model_that_was_sent(catalog, model, reported, expected):
    """C-66, K-130: nothing reported is overwritten."""
    usage = Usage(input_tokens=1_000_000, output_tokens=500_000, **reported)
    engine = Engine(adapter=Fake(script=HI, usage=usage), model="ignored")

    got = allm.generate(engine, Request(messages=[user("hi")]), model=model).usage

    assert (got.input_cost, got.output_cost, got.total_cost) == expected


def test_retries_are_those_of_the_stream():
    """C-52, P-130: there is one road."""
    fake = Fake(script=HI, fail_first=2)

    assert allm.generate(Engine(adapter=fake, retry=AT_ONCE), "hi").text == "hi"


def test_a_generate_is_one_span_with_its_response():
    """P-160."""
    seen = []
    names = [
        f"allm.{span}.{end}" for span in ("stream", "generate") for end in ("start", "stop", "exception")
    ]
    telemetry.attach("watched", names, lambda *event: seen.append(event))
    try:
        answer = allm.generate(Engine(adapter=plays(good()), model="m"), "hi", telemetry_metadata={"a": 1})
        allm.Runner(Engine(adapter=plays([failing("invalid_request")]))).run("hi")
        with pytest.raises(errors.EngineError):
            allm.generate(Engine(), "hi")
    finally:
        telemetry.detach("watched")

    assert [event[0] for event in seen] == ["allm.generate.start", "allm.generate.stop"] * 3
    assert seen[1][2]["response"] == answer
    assert seen[1][2]["a"] == 1
    assert seen[1][2]["error"] is None
    assert seen[3][2]["error"].reason == "invalid_request"
    assert seen[5][2]["error"].reason == "missing_adapter"


# --- equivalence ----------------------------------------------------------------------------------------------

words = st.text(alphabet="ab \n", max_size=5)
ids = st.sampled_from(["1", "2", "3"])
json_text = st.sampled_from(["{}", '{"a": 1}', "", "[1]", "nonsense", '{"a"'])
entries = st.one_of(
    st.tuples(st.just("text"), words),
    st.builds(
        lambda call, raw: (
            "tool_call",
            {"id": call, "name": "t", "arguments": {"x": 1}, **({"raw_arguments": raw} if raw else {})},
        ),
        ids,
        json_text,
    ),
    st.builds(lambda call, text: ("tool_call_delta", {"id": call, "arguments_delta": text}), ids, words),
    st.builds(
        lambda call, text: ("tool_call_delta", {"id": call, "name": "n", "arguments_delta": text}), ids, words
    ),
    st.builds(lambda n: ("usage", {"input_tokens": n, "output_tokens": 2}), st.integers(0, 9)),
    st.builds(lambda x: ("raw_chunk", x), st.sampled_from([1, "x", {"a": [None]}])),
)
ends = st.one_of(
    st.just([]),
    st.builds(
        lambda reason: [("finish", reason)], st.sampled_from(["stop", "length", "tool_calls", "other"])
    ),
    st.builds(lambda reason: [("error", reason)], st.sampled_from(["invalid_request", "content_filter"])),
    st.just([("stream_error", "malformed_event")]),
)
scripts = st.builds(lambda body, end: body + end, st.lists(entries, max_size=8), ends)
usages = st.one_of(st.none(), st.just(Usage(input_tokens=3)))


@settings(max_examples=60, deadline=None)
@given(script=scripts, usage=usages, fails=st.integers(0, 2))
def test_the_three_ways_to_an_answer_agree(script, usage, fails):
    """C-67: the runner, the folded stream, and the connection's own `generate` where that returns."""

    def engine(fail_first):
        return Engine(adapter=Fake(script=script, usage=usage, fail_first=fail_first), retry=AT_ONCE)

    answer = Runner(engine(fails)).run("hi", request_id="r")
    folded = StreamCollector.collect(
        allm.stream_generate(engine(fails), "hi", request_id="r", include_raw_chunks=True)
    ).response()
    request = Request(messages=[user("hi")])

    assert answer == folded.model_copy(update={"request_id": "r"})
    direct = outcome(
        lambda: Fake(script=script, usage=usage).connect().generate(request, CallContext(request_id="r"))
    )
    assert direct == (answer if answer.error is None else answer.error)


def outcome(work):
    try:
        return work()
    except errors.AllmError as error:
        return error


@settings(max_examples=30, deadline=None)
@given(script=scripts, stop=st.integers(0, 6))
def test_wherever_a_consumer_stops_everything_is_freed_once(script, stop):
    """C-55, C-79: any script, any place to leave it."""
    cleaned = []
    engine = Engine(adapter=Fake(script=script, on_cleanup=lambda: cleaned.append(1)))

    with allm.stream_generate(engine, "hi", include_raw_chunks=True) as stream:
        taken = [event for _, event in zip(range(stop), stream, strict=False)]

    whole = list(allm.stream_generate(Engine(adapter=Fake(script=script)), "hi", include_raw_chunks=True))
    assert taken == whole[:stop]
    assert len(cleaned) == (1 if stop else 0)
    assert gone()
