"""A call, up to the stream it returns: what is checked, in which order, and what reaches the adapter."""

import math
import threading

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

import allm_actors as allm
from allm_actors import beam, errors, keys, telemetry
from allm_actors.data import Message, PromptCache, Request, TextDelta, Thread, tool, user
from allm_actors.engine import AdapterStream, Engine, Retry, set_catalog
from allm_actors.providers import Fake
from allm_actors.streaming import EventStream, StreamRunner

from .adapters import Handmade, WholeOnly, plays, refuses
from .helpers import good, until

HI = [("text", "hi"), ("finish", "stop")]


class Seen:
    """A fake whose calls a test looks at."""

    def __init__(self, **engine):
        # The connection outlives this object only if it does not hold it.
        calls = self.calls = []
        fake = Fake(scripts=[HI] * 9, on_request=lambda request, call: calls.append((request, call)))
        self.engine = Engine(adapter=fake, **engine)

    def ask(self, input="hello", **options):
        with StreamRunner(self.engine).run(input, **options) as stream:
            list(stream)
        return self.calls[-1]

    def request(self, input="hello", **options):
        return self.ask(input, **options)[0]

    def call(self, **options):
        return self.ask(**options)[1]


@pytest.fixture
def no_catalog():
    yield
    set_catalog(None)


class Catalog:
    def __init__(self, **known):
        self.known = known

    def lookup(self, model):
        return self.known.get(model)

    def select(self, require, prefer):
        raise NotImplementedError


# --- the order of the checks ------------------------------------------------------------------------------


@pytest.fixture
def requires_finalize():
    class Finalizing(Handmade):
        provider = "finalizing"

        def requires_structured_finalize(self, request):
            return True

    return Finalizing


def refusing(error):
    return Handmade(make=refuses(error).make)


BAD_REQUEST = Request(messages=[], model="m")


@pytest.mark.parametrize(
    ("engine", "input", "options", "expected"),
    [
        # (1) types of engine, input and options
        (7, "hi", {}, TypeError),
        (None, "hi", {}, TypeError),
        ("nobody", 7, {}, TypeError),
        ("nobody", "hi", {"temperature": "hot"}, TypeError),
        ("nobody", "hi", {"deadline": 0}, ValueError),
        ("nobody", "hi", {"tools": []}, TypeError),
        # (2) the name
        ("nobody", BAD_REQUEST, {}, "engine_down"),
        # (3) an adapter
        (Engine, BAD_REQUEST, {}, "missing_adapter"),
        # (4) that streams
        (lambda: Engine(adapter=WholeOnly()), BAD_REQUEST, {}, "missing_stream_adapter"),
        # (6) the request, before the pre-flight of the adapter
        (lambda: Engine(adapter=refusing(ZeroDivisionError())), BAD_REQUEST, {}, "invalid_request"),
        (lambda: Engine(adapter=refusing(ZeroDivisionError())), "hi", {"temperature": 9}, "invalid_request"),
        # (9) the adapter's own, unchanged
        (lambda: Engine(adapter=refusing(ZeroDivisionError())), "hi", {}, ZeroDivisionError),
    ],
)
def test_the_first_failure_wins_and_is_raised_by_the_call(engine, input, options, expected):
    """C-47: never at the first `next()`."""
    engine = engine() if callable(engine) else engine
    if isinstance(expected, str):
        with pytest.raises(errors.AllmError) as caught:
            StreamRunner(engine).run(input, **options)
        assert caught.value.reason == expected
    else:
        with pytest.raises(expected):
            StreamRunner(engine).run(input, **options)


def test_what_the_model_cannot_do_is_refused_before_the_key_and_after_the_request(no_catalog):
    """C-47 (7), P-154: it needs no key and makes no traffic."""
    set_catalog(Catalog(blind=allm.ModelRef(provider="p", id="blind", capabilities={"json_native": False})))
    seen = Seen(model="blind")
    schema = allm.json_schema("x", {"type": "object"})

    with pytest.raises(errors.ValidationError) as caught:
        StreamRunner(seen.engine).run("hi", response_format=schema)
    assert caught.value.reason == "unsupported_capability"
    with pytest.raises(errors.ValidationError) as caught:
        StreamRunner(seen.engine).run("hi", response_format=schema, max_tokens=0)
    assert caught.value.reason == "invalid_request"
    assert seen.calls == []


def test_the_finalize_mark_is_set_without_a_catalog(requires_finalize):
    """C-47 (7)."""
    adapter = plays(good(), good())
    engine = Engine(adapter=requires_finalize(make=adapter.make))
    schema = allm.json_schema("x", {"type": "object"})

    list(StreamRunner(engine).run("hi", response_format=schema))

    assert adapter.calls[0][0].structured_finalize is True


def test_a_key_that_is_not_found_is_no_failure_yet(monkeypatch):
    """C-47 (8), (9)."""
    monkeypatch.delenv("FAKE_API_KEY", raising=False)

    assert Seen().call().api_key is None


@pytest.mark.parametrize("already", [{}, {"checked_sources": ["mine"]}])
def test_a_missing_key_says_where_it_was_looked_for(already):
    """C-47 (9), P-131."""
    error = errors.EngineError("missing_key", "no key", provider="handmade", metadata={"a": 1, **already})

    with pytest.raises(errors.EngineError) as caught:
        StreamRunner(Engine(adapter=refuses(error))).run("hi")

    assert caught.value.reason == "missing_key"
    sources = already.get("checked_sources", ["call", "runtime", "config", "env"])
    assert caught.value.metadata == {"a": 1, "checked_sources": sources}


def test_any_other_exception_of_the_preflight_is_raised_unchanged():
    """C-47 (9)."""
    for error in (errors.AdapterError("invalid_request"), ZeroDivisionError("boom"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            StreamRunner(Engine(adapter=refuses(error))).run("hi")
        assert caught.value is error


def test_a_preflight_that_fails_at_the_call_is_never_repeated():
    """C-52, P-130: only what fails after the call is."""
    adapter = refuses(errors.AdapterError("timeout"), ZeroDivisionError())

    with pytest.raises(errors.AdapterError):
        StreamRunner(Engine(adapter=adapter)).run("hi")


def test_an_adapter_that_gives_no_stream_is_named():
    """C-41: a bare generator cannot be closed from another thread."""
    engine = Engine(adapter=Handmade(make=lambda request, call: iter(good())))

    with pytest.raises(TypeError, match=r"HandmadeConnection\.stream"):
        StreamRunner(engine).run("hi")


def test_a_call_that_is_refused_leaves_nothing_behind():
    """C-47: no process of the stream, no thread."""
    engine = Engine(adapter=refuses(*[errors.AdapterError("invalid_request") for _ in range(5)]))
    with pytest.raises(errors.AdapterError):
        StreamRunner(engine).run("hi")
    before, threads = beam.processes(), set(threading.enumerate())

    for _ in range(4):
        with pytest.raises(errors.AdapterError):
            StreamRunner(engine).run("hi")

    assert beam.processes() == before
    assert set(threading.enumerate()) == threads


# --- laziness -------------------------------------------------------------------------------------------


def test_before_the_first_next_nothing_was_asked_and_on_event_has_not_run():
    """C-50, C-43: the pre-flight has, the stream has not."""
    asked, told = [], []

    def events():
        asked.append(1)
        yield from good()

    stream = StreamRunner(Engine(adapter=Handmade(make=lambda *_: AdapterStream(events())))).run(
        "hi", on_event=told.append
    )

    assert isinstance(stream, EventStream)
    assert (asked, told) == ([], [])
    assert list(stream) == good()
    assert told == good()


def test_closing_an_unread_stream_asks_for_nothing():
    """C-44, C-50."""
    asked, released = [], []

    def events():
        asked.append(1)
        yield from good()

    adapter = Handmade(make=lambda *_: AdapterStream(events(), lambda: released.append(1)))
    stream = StreamRunner(Engine(adapter=adapter)).run("hi")

    stream.close()

    assert list(stream) == []
    assert (asked, released) == ([], [])


# --- input and engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "input",
    [
        "hello",
        user("hello"),
        ["hello"],
        [{"role": "user", "content": "hello"}],
        [user("hello")],
        Thread.from_messages([user("hello")]),
        Request(messages=[user("hello")]),
    ],
)
def test_the_input_may_be_said_in_many_ways(input):
    """C-10."""
    assert Seen().request(input).messages == [user("hello")]


@pytest.mark.parametrize("input", [None, 3, b"hi", {"messages": []}, object(), ("hi",)])
def test_any_other_input_is_a_type_error_naming_its_type(input):
    """C-10."""
    with pytest.raises(TypeError, match=type(input).__name__):
        Seen().ask(input)


def test_an_engine_is_a_value_a_reference_or_a_name():
    """C-9."""
    fake = Fake(scripts=[HI] * 3)
    with allm.start_engine(Engine(adapter=fake), name="kyoto") as ref:
        assert [allm.generate(each, "x").text for each in ("kyoto", ref, ref.engine)] == ["hi"] * 3
    for gone in ("kyoto", ref):
        with pytest.raises(errors.EngineError) as caught:
            StreamRunner(gone).run("x")
        assert caught.value.reason == "engine_down"


# --- precedence -----------------------------------------------------------------------------------------

SCHEMA = allm.json_schema("a", {"type": "object"})
OTHER = allm.json_schema("b", {"type": "object"})
LEVELS = [
    # name, of the call, of the request, of the engine
    ("temperature", 0.1, 0.2, 0.3),
    ("max_tokens", 1, 2, 3),
    ("tool_choice", "auto", "none", "required"),
    ("response_format", SCHEMA, OTHER, {"type": "json_object"}),
    ("prompt_cache", PromptCache(key="a"), PromptCache(key="b"), {"key": "c"}),
]


@pytest.mark.parametrize(("name", "call", "request_", "engine"), LEVELS)
def test_the_call_wins_over_the_request_and_that_over_the_engine(name, call, request_, engine):
    """C-48."""
    said = Request(messages=[user("hi")], **{name: request_})
    unsaid = Request(messages=[user("hi")])
    seen = Seen(params={name: engine})
    from_engine = PromptCache(key="c") if name == "prompt_cache" else engine

    assert getattr(seen.request(said, **{name: call}), name) == call
    assert getattr(seen.request(unsaid, **{name: call}), name) == call
    assert getattr(seen.request(said), name) == request_
    assert getattr(seen.request(unsaid), name) == from_engine
    assert getattr(Seen().request(unsaid), name) is None
    assert said == Request(messages=[user("hi")], **{name: request_})  # a copy was changed


def test_structured_finalize_follows_the_same_rule():
    """C-48: `False` on the request is its default, and counts as absent; in a call it counts."""
    said = Request(messages=[user("hi")], structured_finalize=True, response_format=SCHEMA)
    unsaid = Request(messages=[user("hi")], response_format=SCHEMA)
    seen = Seen(params={"structured_finalize": True})

    assert seen.request(unsaid).structured_finalize is True
    assert seen.request(unsaid, structured_finalize=False).structured_finalize is False
    assert seen.request(said, structured_finalize=False).structured_finalize is False
    assert Seen().request(said).structured_finalize is True


@pytest.mark.parametrize(
    ("call", "request_", "engine", "expected"),
    [
        ("a", "b", "c", "a"),
        (None, "b", "c", "b"),
        (None, None, "c", "c"),
        (None, None, None, None),
        ("a", None, None, "a"),
    ],
)
def test_the_model_is_the_calls_the_requests_or_the_engines(call, request_, engine, expected):
    """C-48, C-38."""
    request = Request(messages=[user("hi")], model=request_)

    assert Seen(model=engine).request(request, model=call).model == expected


def test_a_model_in_the_params_is_the_last_resort_and_no_option():
    """C-48, C-49."""
    request, call = Seen(params={"model": "p"}).ask()
    assert (request.model, call.options) == ("p", {})
    assert Seen(model="e", params={"model": "p"}).request().model == "e"


def test_the_catalog_knows_the_model(no_catalog):
    """C-38, K-128."""
    ref = allm.ModelRef(provider="p", id="known")
    set_catalog(Catalog(known=ref))

    assert Seen(model="known").request().model == ref
    assert Seen().request(model="known").model == ref
    assert Seen().request(model="unknown").model == "unknown"


@pytest.mark.parametrize("request_", [None, PromptCache(key="r")])
def test_prompt_cache_false_is_off_whatever_the_others_say(request_):
    """K-121."""
    seen = Seen(params={"prompt_cache": True})

    request = Request(messages=[user("hi")], prompt_cache=request_)

    assert seen.request(request, prompt_cache=False).prompt_cache is None


def test_the_tools_of_the_engine_are_not_added():
    """C-48."""

    @tool
    def weather(city: str) -> str:
        """The weather."""
        return city

    assert Seen(tools=[weather]).request().tools == []
    asked = Request(messages=[user("hi")], tools=[weather])
    assert Seen().request(asked).tools == [weather]


def test_a_request_nobody_changes_is_sent_as_it_is():
    """C-47, P-152: the same object goes on."""
    request = Request(messages=[user("hi")], model="m")

    assert Seen().request(request) is request


# --- options --------------------------------------------------------------------------------------------


def test_times_reach_the_adapter():
    """C-49, C-42."""
    call = Seen(params={"stream_timeout": 3, "connect_timeout": 4}).call(
        connect_timeout=1, request_timeout=2.5, content_timeout=math.inf, deadline=99
    )

    assert (call.connect_timeout, call.request_timeout, call.stream_timeout) == (1.0, 2.5, 3.0)
    assert (call.content_timeout, call.deadline) == (math.inf, 99.0)
    default = Seen().call()
    assert (default.connect_timeout, default.request_timeout, default.stream_timeout) == (10, 600, 60)


def test_unknown_options_reach_the_adapter_and_nothing_else_does():
    """C-49."""
    everything = {
        "temperature": 0.5,
        "model": "m",
        "on_event": lambda event: None,
        "emit_text_deltas": True,
        "emit_tool_deltas": True,
        "include_raw_chunks": False,
        "telemetry_metadata": {"x": 1},
        "deadline": 50,
        "retry": Retry(max_attempts=1),
        "request_id": "r",
        "api_key": "k",
        "mode": "auto",
        "max_turns": 3,
        "session_id": "s",
    }

    assert Seen().call(**everything, top_k=3).options == {"top_k": 3}


def test_params_are_sorted_like_options_underneath_the_call():
    """C-49: the call wins over them, and so does an option that the request itself names."""
    params = {"top_k": 1, "seed": 2, "stop": ["x"], "deadline": 9, "max_turns": 3, "temperature": 0.5}
    request = Request(messages=[user("hi")], options={"stop": ["y"]})

    sent, call = Seen(params=params).ask(request, top_k=7)

    assert call.options == {"top_k": 7, "seed": 2}
    assert call.deadline == 9.0
    assert sent.temperature == 0.5
    assert sent.options == {"stop": ["y"]}


def test_filters_in_the_params_take_effect():
    """C-49."""
    engine = Engine(adapter=Fake(scripts=[HI, HI]), params={"emit_text_deltas": False})

    assert TextDelta not in map(type, StreamRunner(engine).run("hi"))
    assert TextDelta in map(type, StreamRunner(engine).run("hi", emit_text_deltas=True))


def test_a_bad_value_in_the_params_is_found_at_the_call():
    """C-49, C-8: they are sorted by the same table."""
    for params in ({"deadline": 0}, {"temperature": "hot"}, {"tools": []}):
        with pytest.raises((TypeError, ValueError)):
            Seen(params=params).ask()


def test_orchestration_options_are_named_in_the_log_and_left_out():
    """C-49."""
    with capture_logs() as logs:
        assert Seen(params={"max_turns": 2}).call(tool_timeout="secret").options == {}

    ignored = [line for line in logs if line["event"] == "option.ignored"]
    assert [(line["option"], line["log_level"]) for line in ignored] == [("tool_timeout", "debug")]
    assert "secret" not in repr(logs)


@pytest.mark.parametrize(
    ("call", "engine", "expected"),
    [
        (Retry(max_attempts=9), Retry(max_attempts=5), Retry(max_attempts=9)),
        (None, Retry(max_attempts=5), Retry(max_attempts=5)),
        (None, None, None),
        (Retry(max_attempts=9), None, Retry(max_attempts=9)),
    ],
)
def test_the_retry_policy_is_the_calls_or_the_engines(call, engine, expected):
    """C-49, C-35."""
    assert Seen(retry=engine).call(retry=call).retry == expected


def test_the_request_id_is_the_given_one_or_fresh():
    """C-49, C-53, P-161: it is there at once."""
    seen = Seen()
    given = StreamRunner(seen.engine).run("hi", request_id="mine")
    one, other = StreamRunner(seen.engine).run("hi"), StreamRunner(seen.engine).run("hi")

    assert given.request_id == "mine"
    assert len(one.request_id) == 22
    assert one.request_id != other.request_id
    assert [call.request_id for _, call in seen.calls] == ["mine", one.request_id, other.request_id]


def test_the_key_of_the_call_is_looked_up_first(monkeypatch):
    """C-49, C-36, P-131."""
    monkeypatch.setenv("FAKE_API_KEY", "from-env")
    keys.put("fake", "from-store")
    try:
        assert Seen().call(api_key="from-call").api_key == SecretStr("from-call")
        assert Seen().call(api_key=SecretStr("s")).api_key == SecretStr("s")
        assert Seen().call(api_key="").api_key == SecretStr("from-store")
    finally:
        keys.delete("fake")
    assert Seen().call().api_key == SecretStr("from-env")


def test_without_auth_no_key_is_looked_for(monkeypatch):
    """P-131."""
    monkeypatch.setenv("HANDMADE_API_KEY", "from-env")

    class Open(Handmade):
        provider = "handmade"
        auth: bool = False

    adapter = plays(good())
    list(StreamRunner(Engine(adapter=Open(make=adapter.make))).run("hi", api_key="k"))

    assert adapter.calls[0][1].api_key is None


# --- telemetry ------------------------------------------------------------------------------------------


@pytest.fixture
def watched():
    seen = []
    names = [
        f"allm.{span}.{end}" for span in ("stream", "generate") for end in ("start", "stop", "exception")
    ]
    telemetry.attach("watched", [*names, "allm.retry"], lambda *event: seen.append(event))
    yield seen
    telemetry.detach("watched")


def test_a_stream_is_a_span_that_ends_with_it(watched):
    """P-160."""
    engine = Engine(adapter=Fake(script=HI), model="m")
    stream = StreamRunner(engine).run("hi", telemetry_metadata={"who": "me", "model": "x"})
    (start,) = watched
    assert start[0] == "allm.stream.start"
    expected = {
        "who": "me",
        "request_id": stream.request_id,
        "engine": None,
        "provider": "fake",
        "model": "m",
    }
    assert start[2] == expected

    list(stream)
    stream.close()

    assert [event[0] for event in watched] == ["allm.stream.start", "allm.stream.stop"]
    assert watched[1][2] == {**expected, "error": None}


def test_a_span_of_a_started_engine_has_its_name(watched):
    """P-160."""
    with allm.start_engine(Engine(adapter=Fake(script=HI)), name="main"):
        list(StreamRunner("main").run("hi"))

    assert {event[2]["engine"] for event in watched} == {"main"}


@pytest.mark.parametrize(
    ("script", "moment", "detail"),
    [
        ([("error", "invalid_request")], "stop", {"error": errors.AdapterError("invalid_request")}),
        ([("crash", "boom")], "exception", {"error_type": "RuntimeError", "error_reason": None}),
        ([("preflight_error", "invalid_request")], "stop", {"error": errors.AdapterError("invalid_request")}),
    ],
)
@pytest.mark.logs_errors("a crash of an adapter is reported")
def test_how_a_span_ends(watched, script, moment, detail):
    """P-160: once, and by what ended the stream."""
    try:
        list(StreamRunner(Engine(adapter=Fake(script=script))).run("hi"))
    except (RuntimeError, errors.AdapterError):
        pass

    assert [event[0] for event in watched] == ["allm.stream.start", f"allm.stream.{moment}"]
    for name, value in detail.items():
        got = watched[1][2][name]
        assert getattr(got, "reason", got) == getattr(value, "reason", value)


def test_a_missing_key_ends_the_span_in_an_exception(watched):
    """P-160."""
    error = errors.EngineError("missing_key")
    with pytest.raises(errors.EngineError):
        StreamRunner(Engine(adapter=refuses(error))).run("hi")

    assert watched[1][0] == "allm.stream.exception"
    assert watched[1][2]["error_reason"] == "missing_key"


def test_an_unread_stream_that_is_closed_or_dropped_ends_its_span(watched):
    """P-160: once."""
    engine = Engine(adapter=Fake(scripts=[HI, HI]))
    StreamRunner(engine).run("hi").close()
    assert [event[0] for event in watched] == ["allm.stream.start", "allm.stream.stop"]

    StreamRunner(engine).run("hi")  # dropped at once

    until(lambda: len(watched) == 4)
    assert watched[3][0] == "allm.stream.stop"


def test_each_retry_is_one_record_and_one_event(watched):
    """C-52, P-130, P-160: `on_event` does not see it."""
    told = []
    engine = Engine(adapter=Fake(script=HI, fail_first=2), retry=Retry(base_delay=0, jitter=0))

    with capture_logs() as logs:
        stream = StreamRunner(engine).run("hi", on_event=told.append)
        list(stream)

    assert [event.type for event in told] == [
        "message_started",
        "text_delta",
        "text_completed",
        "message_completed",
    ]
    retries = [event for event in watched if event[0] == "allm.retry"]
    assert [event[1] for event in retries] == [{"attempt": 1, "delay": 0.0}, {"attempt": 2, "delay": 0.0}]
    assert retries[0][2] == {
        "request_id": stream.request_id,
        "provider": "fake",
        "status": None,
        "reason": "timeout",
    }
    records = [line for line in logs if line["event"] == "stream.retry"]
    assert [(line["log_level"], line["attempt"], line["reason"]) for line in records] == [
        ("warning", 1, "timeout"),
        ("warning", 2, "timeout"),
    ]


def test_messages_of_the_wrong_kind_do_not_get_far():
    """C-3: what `model_construct` let through is found by the check of the resolved request."""
    request = Request.model_construct(
        messages=[Message.model_construct(role="alien", content="x")], options={}
    )

    with pytest.raises(errors.ValidationError) as caught:
        Seen().ask(request)
    assert caught.value.reason == "invalid_request"
