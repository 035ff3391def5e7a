"""The scripted fake: every entry, the cursor, exhaustion, cleanup, failures."""

import copy
import math
import pickle
import queue
import threading
import time
from typing import ClassVar

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from allm_actors.data import (
    ErrorEvent,
    MessageCompleted,
    MessageStarted,
    RawChunk,
    Request,
    StreamCollector,
    TextCompleted,
    TextDelta,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    assistant,
    user,
)
from allm_actors.engine import Adapter, CallContext, Engine
from allm_actors.errors import AdapterError, EngineError, StreamError, ToolError
from allm_actors.providers.fake import Fake

DEADLINE = 10
REQUEST = Request(messages=[user("hi")])
STARTED = MessageStarted(message=assistant(""))
USAGE = Usage(input_tokens=3, output_tokens=0)


def open_stream(fake, **call):
    return fake.connect().stream(REQUEST, CallContext(**call))


def events(*script, usage=None, **call):
    return list(open_stream(Fake(script=list(script), usage=usage), **call))


def completed(text="", finish_reason=None, **fields):
    calls = fields.pop("tool_calls", [])
    message = assistant(text).model_copy(update={"tool_calls": calls})
    return MessageCompleted(message=message, finish_reason=finish_reason, **fields)


# --- entries ------------------------------------------------------------------------------------------


def test_text():  # C-74, C-75
    assert events(("text", "Hel"), ("text", ""), ["text", "lo"], ("finish", "stop")) == [
        STARTED,
        TextDelta(id=None, delta="Hel"),
        TextDelta(id=None, delta="lo"),
        TextCompleted(id=None, text="Hello"),
        completed("Hello", "stop"),
    ]


def test_an_empty_list():  # C-75
    assert events() == [STARTED, completed()]
    assert events(("text", "")) == [STARTED, completed()]


def test_entries_that_run_out_close_without_a_finish_reason():  # C-75
    assert events(("text", "a"))[-2:] == [TextCompleted(id=None, text="a"), completed("a", None)]


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter", "error", "other"])
def test_nothing_counts_after_finish(reason):  # C-74
    assert events(("finish", reason), ("text", "late"), ("crash", "late")) == [STARTED, completed("", reason)]


def test_a_tool_call_has_defaults():  # C-74
    call = ToolCall(id="1", name="f", arguments={}, raw_arguments="{}")
    assert events(("tool_call", {"id": "1", "name": "f"}), ("finish", "tool_calls")) == [
        STARTED,
        ToolCallStarted(id="1", name="f"),
        ToolCallCompleted(id="1", name="f", arguments={}, raw_arguments="{}"),
        completed("", "tool_calls", tool_calls=[call]),
    ]
    given = events(("tool_call", {"id": "1", "name": "f", "arguments": {"b": [1], "a": "\u00e9"}}))[2]
    assert given.raw_arguments == '{"b":[1],"a":"\u00e9"}'
    broken = events(("tool_call", {"id": "1", "name": "f", "raw_arguments": '{"a"'}))[2]
    assert (broken.arguments, broken.raw_arguments) == ({}, '{"a"')


def test_tool_call_deltas_are_completed_at_the_end():  # C-74, C-75
    script = [
        ("tool_call_delta", {"id": "a", "arguments_delta": '{"x"', "name": "f"}),
        ("tool_call_delta", {"id": "b", "arguments_delta": "[1]"}),
        ("text", "t"),
        ("tool_call_delta", {"id": "a", "arguments_delta": ": 1}", "name": "f"}),
        ("tool_call", {"id": "c", "name": "g"}),
    ]
    played = events(*script)
    assert played[1:6] == [
        ToolCallStarted(id="a", name="f"),
        ToolCallDelta(id="a", arguments_delta='{"x"'),
        ToolCallDelta(id="b", arguments_delta="[1]"),
        TextDelta(id=None, delta="t"),
        ToolCallDelta(id="a", arguments_delta=": 1}"),
    ]
    assert played[8:-1] == [
        TextCompleted(id=None, text="t"),
        ToolCallCompleted(id="a", name="f", arguments={"x": 1}, raw_arguments='{"x": 1}'),
        ToolCallCompleted(id="b", name="", arguments={}, raw_arguments="[1]"),
    ]
    assert [call.id for call in played[-1].message.tool_calls] == ["a", "b", "c"]


def test_usage_reports_are_all_emitted():  # C-74
    played = events(("usage", {"input_tokens": 1}), ("usage", Usage(input_tokens=2)), ("finish", "stop"))
    assert played[1:3] == [
        RawChunk(kind="usage", payload=Usage(input_tokens=1)),
        RawChunk(kind="usage", payload=Usage(input_tokens=2)),
    ]


def test_the_usage_field_replaces_scripted_usage_and_comes_before_the_end():  # C-73, C-75
    played = events(("usage", {"input_tokens": 1}), ("text", "a"), usage=USAGE)
    assert [event.type for event in played] == [
        "message_started",
        "text_delta",
        "text_completed",
        "raw_chunk",
        "message_completed",
    ]
    assert played[3] == RawChunk(kind="usage", payload=USAGE)
    assert StreamCollector.collect(played).response().usage == USAGE


def test_raw_chunks():  # C-74
    played = events(
        ("raw_chunk", {"a": [None]}), ("raw_chunk", 1, "mine"), ("raw_chunk", {"input_tokens": 1}, "usage")
    )
    assert played[1:4] == [
        RawChunk(kind="provider", payload={"a": [None]}),
        RawChunk(kind="mine", payload=1),
        RawChunk(kind="usage", payload=Usage(input_tokens=1)),
    ]


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (("error", "rate_limited"), AdapterError("rate_limited")),
        (
            ("error", "rate_limited", {"retry_after": 2.0, "status": 429, "message": "slow down"}),
            AdapterError("rate_limited", "slow down", retry_after=2.0, status=429),
        ),
        (("error", ToolError("timeout", tool_name="t")), ToolError("timeout", tool_name="t")),
        (("error", EngineError("missing_key").to_dict()), EngineError("missing_key")),
        (("error", "out of cheese"), AdapterError("unknown", cause="out of cheese")),
        (("error", {"kind": "of magic"}), AdapterError("unknown", cause={"kind": "of magic"})),
        (("error", None), AdapterError("unknown")),
        (
            ("stream_error", "malformed_event", {"event_index": 3}),
            StreamError("malformed_event", event_index=3),
        ),
    ],
)
def test_errors_end_the_stream(entry, error):  # C-74, C-75
    assert events(("text", "a"), entry, ("text", "late")) == [
        STARTED,
        TextDelta(id=None, delta="a"),
        ErrorEvent(error=error),
    ]
    with pytest.raises(type(error)) as caught:
        Fake(script=[entry]).connect().generate(REQUEST, CallContext())
    assert caught.value == error


def test_usage_is_reported_before_an_error_if_there_was_output():  # C-75
    report = RawChunk(kind="usage", payload=USAGE)
    assert events(("error", "timeout"), usage=USAGE) == [STARTED, ErrorEvent(error=AdapterError("timeout"))]
    assert events(("text", "a"), ("error", "timeout"), usage=USAGE)[2:] == [
        report,
        ErrorEvent(error=AdapterError("timeout")),
    ]


@pytest.mark.parametrize("method", ["stream", "generate"])
def test_a_preflight_error_is_raised_by_the_call(method):  # C-74
    fake = Fake(script=[("preflight_error", "authentication_failed", {"status": 401}), ("text", "a")])
    with pytest.raises(AdapterError) as caught:
        getattr(fake.connect(), method)(REQUEST, CallContext())
    assert caught.value == AdapterError("authentication_failed", status=401)
    assert fake.calls_made == 1


def test_a_crash_is_a_foreign_exception():  # C-74
    stream = open_stream(Fake(script=[("text", "a"), ("crash", "a bug")]))
    assert [next(stream), next(stream)] == [STARTED, TextDelta(id=None, delta="a")]
    with pytest.raises(RuntimeError, match="a bug"):
        next(stream)
    with pytest.raises(RuntimeError, match="a bug"):
        Fake(script=[("crash", "a bug")]).connect().generate(REQUEST, CallContext())


def test_the_stream_is_lazy():  # C-43, C-75
    stream = open_stream(Fake(script=[("delay", 60), ("crash", "never")]))
    assert next(stream) == STARTED, "a leading delay comes after it"
    stream.close()


def test_a_delay_waits():  # C-74
    began = time.monotonic()
    assert events(("delay", 0.05), ("text", "a"))[1] == TextDelta(id=None, delta="a")
    assert time.monotonic() - began >= 0.05
    assert events(("delay", 0))[-1] == completed()


@pytest.mark.parametrize("script", [[("delay", 60)], [("delay", 0.02), ("text", ""), ("delay", 60)]])
def test_a_delay_that_outlasts_the_stream_timeout_ends_in_it(script):  # C-74, C-42
    began = time.monotonic()
    *_, last = events(*script, stream_timeout=0.05)
    assert 0.04 < time.monotonic() - began < 5
    assert last.error.reason == "timeout"
    assert last.error.metadata == {"limit": "stream_timeout"}


def test_the_stream_timeout_starts_anew_with_every_event():  # C-42
    script = [("delay", 0.1), ("text", "a"), ("delay", 0.1), ("text", "b")]
    assert events(*script, stream_timeout=0.15)[-1] == completed("ab")
    with pytest.raises(AdapterError) as caught:
        Fake(script=script).connect().generate(
            REQUEST, CallContext(stream_timeout=0.01, request_timeout=0.15)
        )
    assert caught.value.metadata == {"limit": "request_timeout"}


def test_generate_gives_what_the_stream_folds_to():  # C-67, C-74
    script = [
        ("text", "a"),
        ("usage", {"input_tokens": 1}),
        ("tool_call", {"id": "1", "name": "f"}),
        ("finish", "stop"),
    ]
    folded = StreamCollector.collect(events(*script)).response()
    response = Fake(script=script).connect().generate(REQUEST, CallContext(request_id="run"))
    assert response == folded.model_copy(update={"request_id": "run"})


# --- construction -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"script": [], "scripts": []}, ()),
        ({"script": [("text", "a"), ("tex", "b")]}, ("script", 1)),
        ({"scripts": [[], [("text", "a"), ()]]}, ("scripts", 1, 1)),
        ({"script": ["text"]}, ("script", 0)),
        ({"script": [(3, "a")]}, ("script", 0)),
        ({"script": [("text",)]}, ("script", 0)),
        ({"script": [("text", "a", "b")]}, ("script", 0)),
        ({"script": [("text", 3)]}, ("script", 0)),
        ({"script": [("tool_call", {"id": "1"})]}, ("script", 0, "name")),
        ({"script": [("tool_call", {"id": "1", "name": "f", "x": 1})]}, ("script", 0, "x")),
        (
            {"script": [("tool_call", {"id": "1", "name": "f", "arguments": {"x": {1}}})]},
            ("script", 0, "arguments", "x"),
        ),
        ({"script": [("tool_call_delta", {"id": "1"})]}, ("script", 0, "arguments_delta")),
        ({"script": [("usage", {"tokens": 1})]}, ("script", 0, "tokens")),
        ({"script": [("usage", {"input_tokens": -1})]}, ("script", 0, "input_tokens")),
        ({"script": [("raw_chunk", object())]}, ("script", 0)),
        ({"script": [("raw_chunk", 1, 2)]}, ("script", 0)),
        ({"script": [("delay", -1)]}, ("script", 0)),
        ({"script": [("delay", math.inf)]}, ("script", 0)),
        ({"script": [("delay", math.nan)]}, ("script", 0)),
        ({"script": [("delay", True)]}, ("script", 0)),
        ({"script": [("delay", "1")]}, ("script", 0)),
        ({"script": [("finish", "done")]}, ("script", 0)),
        ({"script": [("finish", None)]}, ("script", 0)),
        ({"script": [("error", "not a reason", {"status": 500})]}, ("script", 0)),
        ({"script": [("error", "timeout", {"color": "red"})]}, ("script", 0)),
        ({"script": [("error", {"kind": "adapter", "reason": "nope"})]}, ("script", 0, "reason")),
        ({"script": [("error", object())]}, ("script", 0)),
        ({"script": [("stream_error", "rate_limited")]}, ("script", 0)),
        ({"script": [("stream_error", AdapterError("timeout"))]}, ("script", 0)),
        ({"script": [("preflight_error", "nope")]}, ("script", 0)),
        ({"script": [("text", "a"), ("preflight_error", "timeout")]}, ("script",)),
        ({"scripts": [[("text", "a"), ("preflight_error", "timeout")]]}, ("scripts",)),
        ({"script": [("crash", 3)]}, ("script", 0)),
        ({"script": (("text", "a"),)}, ("script",)),
        ({"fail_first": -1}, ("fail_first",)),
        ({"fail_first": True}, ("fail_first",)),
        ({"usage": 3}, ("usage",)),
        ({"on_request": 3}, ("on_request",)),
        ({"unknown": 3}, ("unknown",)),
    ],
)
def test_construction_checks_everything(fields, place):  # C-2, C-76
    with pytest.raises(pydantic.ValidationError) as caught:
        Fake(**fields)
    locations = [line["loc"] for line in caught.value.errors()]
    assert any(location[: len(place)] == place for location in locations), locations


def test_the_culprit_is_named():  # C-76
    with pytest.raises(pydantic.ValidationError, match="unknown tag 'tex'"):
        Fake(script=[("tex", "b")])
    with pytest.raises(pydantic.ValidationError, match="'nope' is no reason of AdapterError"):
        Fake(script=[("preflight_error", "nope")])
    with pytest.raises(pydantic.ValidationError, match="entry 2: a preflight_error can only be the first"):
        Fake(script=[("text", "a"), ("text", "b"), ("preflight_error", "timeout")])


EVERYTHING = [
    [("preflight_error", "timeout", {"status": 408})],
    [
        ["text", "Hel"],
        ["tool_call", {"id": "1", "name": "f", "arguments": {"a": [1, None, "x"]}}],
        ["tool_call_delta", {"id": "2", "arguments_delta": "{", "name": "g"}],
        ["tool_call_delta", {"id": "3", "arguments_delta": "{"}],
        ["usage", {"input_tokens": 1, "output_cost": 0.5}],
        ["raw_chunk", {"deep": [{}]}],
        ["raw_chunk", {"input_tokens": 2}, "usage"],
        ["delay", 0],
        ["finish", "stop"],
    ],
    [("error", "rate_limited", {"retry_after": 1.5})],
    [("error", {"some": "value"})],
    [("error", ToolError("timeout", tool_name="t", metadata={"a": 1}))],
    [("stream_error", "cancelled")],
    [("crash", "bug")],
    [],
]


class Stored(Fake):
    provider: ClassVar[str] = (
        "stored-fake"  # its own, for what comes back from JSON is the last class with a tag
    )


def test_scripts_are_brought_into_one_form():  # C-76
    tuples = Fake(scripts=[[tuple(entry) for entry in entries] for entries in EVERYTHING])
    assert tuples == Fake(scripts=[[list(entry) for entry in entries] for entries in EVERYTHING])
    assert all(isinstance(entry, tuple) for entries in tuples.scripts for entry in entries)
    assert Fake(script=[("usage", {"input_tokens": 1})]) == Fake(script=[("usage", Usage(input_tokens=1))])
    assert Fake(script=[("error", "timeout")]) == Fake(script=[("error", AdapterError("timeout"))])
    assert Fake(script=[("tool_call", {"id": "1", "name": "f"})]) == Fake(
        script=[("tool_call", {"id": "1", "name": "f", "arguments": {}, "raw_arguments": "{}"})]
    )
    assert Fake(script=[("text", "a")]) != Fake(script=[("text", "b")])


def test_a_fake_comes_back_from_json():  # C-76, C-84, C-87
    fake = Stored(scripts=EVERYTHING, usage=USAGE, fail_first=2, on_request=print, on_cleanup=print)
    bare = fake.model_copy(update={"on_request": None, "on_cleanup": None})
    slot = TypeAdapter(Adapter)

    assert Stored.model_validate_json(fake.model_dump_json()) == bare
    assert slot.validate_json(slot.dump_json(fake)) == bare
    assert Engine.model_validate_json(Engine(adapter=fake).model_dump_json()).adapter == bare
    assert pickle.loads(pickle.dumps(bare)) == bare
    assert '"type":"stored-fake"' in fake.model_dump_json()


leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
json_values = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
entries = st.one_of(
    st.tuples(st.just("text"), st.text(max_size=5)),
    st.tuples(st.just("raw_chunk"), json_values),
    st.tuples(st.just("raw_chunk"), json_values, st.text(max_size=3).filter(lambda kind: kind != "usage")),
    st.tuples(st.just("usage"), st.fixed_dictionaries({"input_tokens": st.integers(0, 9)})),
    st.tuples(
        st.just("tool_call"),
        st.fixed_dictionaries(
            {"id": st.text(max_size=3), "name": st.text(max_size=3), "raw_arguments": st.text(max_size=5)}
        ),
    ),
    st.tuples(
        st.just("tool_call_delta"),
        st.fixed_dictionaries({"id": st.text(max_size=3), "arguments_delta": st.text(max_size=5)}),
    ),
    st.tuples(st.just("error"), st.sampled_from(AdapterError.legal_reasons())),
    st.tuples(st.just("finish"), st.sampled_from(["stop", "length", "tool_calls"])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(entries, max_size=8))
def test_any_script_obeys_the_grammar_of_ends_and_survives_json(script):  # C-26, C-75, C-84
    fake = Fake(script=script)
    back = Fake.model_validate_json(fake.model_dump_json())
    assert back == fake
    played = list(open_stream(fake))
    assert played[0] == STARTED
    assert [isinstance(event, MessageCompleted | ErrorEvent) for event in played].index(True) == len(
        played
    ) - 1
    texts = [event.delta for event in played if isinstance(event, TextDelta)]
    wholes = [event.text for event in played if isinstance(event, TextCompleted)]
    assert "" not in texts
    if isinstance(played[-1], MessageCompleted):
        assert wholes == (["".join(texts)] if texts else [])
    assert list(open_stream(back)) == played


# --- the cursor ---------------------------------------------------------------------------------------


def texts(fake, n=1):
    return [fake.connect().generate(REQUEST, CallContext()).text for _ in range(n)]


def numbered(n):
    return Fake(scripts=[[("text", str(i))] for i in range(n)])


def test_each_attempt_takes_the_next_list_at_once():  # C-77
    fake = numbered(3)
    connection = fake.connect()
    streams = [connection.stream(REQUEST, CallContext()) for _ in range(2)]
    assert fake.calls_made == 2, "taken by the call, not by reading"
    assert texts(fake) == ["2"]
    assert [StreamCollector.collect(stream).text for stream in reversed(streams)] == ["1", "0"]


def test_the_cursor_belongs_to_the_value():  # C-77
    fake = numbered(4)
    engines = [
        Engine(adapter=fake),
        Engine(adapter=fake, model="other"),
        Engine(adapter=fake).put_param("x", 1),
    ]
    assert [texts(engine.adapter)[0] for engine in engines] == ["0", "1", "2"]
    fake.rewind()
    assert fake.calls_made == 0
    assert texts(fake, 4) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda fake: pickle.loads(pickle.dumps(fake)),
        lambda fake: Fake.model_validate_json(fake.model_dump_json()),
        lambda fake: fake.model_copy(),
        lambda fake: fake.model_copy(update={"usage": USAGE}),
        lambda fake: fake.model_copy(deep=True),
        lambda fake: copy.deepcopy(Engine(adapter=fake)).adapter,
        lambda fake: numbered(3),
    ],
)
def test_a_copy_starts_at_the_first_list(copied):  # C-77
    fake = numbered(3)
    texts(fake, 2)
    twin = copied(fake)
    assert twin.calls_made == 0
    assert texts(twin) == ["0"]
    assert texts(fake) == ["2"]


def test_concurrent_calls_get_different_lists():  # C-77
    fake = numbered(200)
    connection = fake.connect()
    found = queue.SimpleQueue()
    start = threading.Barrier(8)

    def call():
        start.wait(DEADLINE)
        for _ in range(25):
            found.put(connection.generate(REQUEST, CallContext()).text)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(int(found.get()) for _ in range(200)) == list(range(200))


@pytest.mark.parametrize("fake", [Fake(), Fake(scripts=[]), Fake(script=[])])
@pytest.mark.parametrize("method", ["stream", "generate"])
def test_an_exhausted_script_fails_the_preflight(fake, method):  # C-78
    fake = copy.copy(fake)
    connection = fake.connect()
    if fake.script is not None:
        connection.generate(REQUEST, CallContext())
    made = fake.calls_made
    for _ in range(2):
        with pytest.raises(AdapterError) as caught:
            getattr(connection, method)(REQUEST, CallContext())
        assert caught.value == AdapterError("no_scripted_response", "no scripted response")
    assert fake.calls_made == made + 2


def test_on_request_runs_first_in_every_preflight():  # C-73
    seen = []
    fake = Fake(script=[("text", "a")], on_request=lambda request, call: seen.append((request, call)))
    call = CallContext()
    fake.connect().stream(REQUEST, call)
    assert seen == [(REQUEST, call)]
    with pytest.raises(AdapterError):
        fake.connect().generate(REQUEST, call)
    assert len(seen) == 2, "before the script is asked"

    def refuse(request, call):
        raise LookupError("no")

    fake = Fake(script=[], on_request=refuse)
    with pytest.raises(LookupError):
        fake.connect().stream(REQUEST, call)
    assert fake.calls_made == 0


@pytest.mark.parametrize("method", ["stream", "generate"])
def test_the_first_attempts_fail(method):  # C-80
    fake = Fake(scripts=[[("text", "a")]], fail_first=2)
    for _ in range(2):
        if method == "stream":
            assert list(open_stream(fake)) == [STARTED, ErrorEvent(error=AdapterError("timeout"))]
        else:
            with pytest.raises(AdapterError) as caught:
                fake.connect().generate(REQUEST, CallContext())
            assert caught.value == AdapterError("timeout")
        assert fake.calls_made == 0
    assert texts(fake) == ["a"]
    fake.rewind()
    assert list(open_stream(fake))[-1] == ErrorEvent(error=AdapterError("timeout"))


# --- cleanup ------------------------------------------------------------------------------------------


def cleaned(script, use, **fields):
    count = []
    fake = Fake(script=script, on_cleanup=lambda: count.append(1), **fields)
    use(open_stream(fake, stream_timeout=0.05))
    return len(count)


def read(stream):
    with pytest.MonkeyPatch.context():
        return list(stream)


def read_two_and_close(stream):
    next(stream), next(stream)
    stream.close()
    stream.close()


def fail_in_the_consumer(stream):
    with pytest.raises(ZeroDivisionError), stream:
        for _ in stream:
            raise ZeroDivisionError


def crash(stream):
    with pytest.raises(RuntimeError):
        list(stream)


@pytest.mark.parametrize(
    ("script", "use"),
    [
        ([("text", "a")], read),
        ([("error", "timeout")], read),
        ([("delay", 60)], read),
        ([("text", "a")] * 5, read_two_and_close),
        ([("text", "a")] * 5, fail_in_the_consumer),
        ([("crash", "bug")], crash),
    ],
)
def test_an_attempt_that_was_iterated_is_cleaned_up_once(script, use):  # C-79
    assert cleaned(script, use) == 1


def test_an_attempt_that_was_not_iterated_is_not_cleaned_up():  # C-79
    assert cleaned([("text", "a")], lambda stream: stream.close()) == 0
    assert cleaned([("text", "a")], lambda stream: None) == 0


def test_generate_cleans_up_too():  # C-79
    count = []
    fake = Fake(scripts=[[], [("error", "timeout")]], on_cleanup=lambda: count.append(1))
    fake.connect().generate(REQUEST, CallContext())
    with pytest.raises(AdapterError):
        fake.connect().generate(REQUEST, CallContext())
    assert count == [1, 1]


def test_what_the_cleanup_raises_is_swallowed():  # C-79
    fake = Fake(script=[("text", "a")], on_cleanup=lambda: 1 / 0)
    assert list(open_stream(fake))[-1] == completed("a")


def block_in_a_delay(fake):
    connection = fake.connect()
    stream = connection.stream(REQUEST, CallContext())
    seen = queue.SimpleQueue()
    started = threading.Event()

    def consume():
        next(stream)
        started.set()
        seen.put(list(stream))

    thread = threading.Thread(target=consume)
    thread.start()
    assert started.wait(DEADLINE)
    return connection, stream, seen, thread


def test_a_delay_is_cut_short_by_closing():  # C-44, C-79
    _connection, stream, seen, thread = block_in_a_delay(Fake(script=[("delay", 60), ("text", "late")]))
    began = time.monotonic()
    stream.close()
    assert seen.get(timeout=DEADLINE) == []
    assert time.monotonic() - began < 0.5
    thread.join(DEADLINE)


def test_closing_the_connection_ends_its_streams():  # C-91
    count = []
    fake = Fake(scripts=[[("delay", 60), ("text", "late")], []], on_cleanup=lambda: count.append(1))
    connection, _stream, seen, thread = block_in_a_delay(fake)
    unread = connection.stream(REQUEST, CallContext())

    connection.close()
    connection.close()

    down = ErrorEvent(error=AdapterError("adapter_down", provider="fake"))
    assert seen.get(timeout=DEADLINE) == [down]
    assert list(unread) == [down]
    with pytest.raises(AdapterError) as caught:
        connection.stream(REQUEST, CallContext())
    assert caught.value.reason == "adapter_down"
    thread.join(DEADLINE)
    assert count == [1, 1]


def test_a_fake_needs_no_key_and_ignores_the_request():  # C-73
    fake = Fake(script=[("text", "a")])
    assert fake.connect().generate(Request(messages=[]), CallContext()).text == "a"
    assert (Fake.provider, Fake.streams) == ("fake", True)
