"""A key is where its call needs it, and nowhere else: not in what is kept, shown, pickled, logged or traced.

That errors, events, logs, spans and the tree of processes of failing calls are free of it, on every wire and for
every way to fail, is shown in `tests/providers/test_secrets.py`. Here is what remains: what is left after a call,
what is pickled, the renderers as programs configure them, crashes, sessions, asyncio.

The key is made where it is passed on and stands in no variable of a test, for the variables of frames are searched.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import faulthandler
import gc
import io
import logging
import pickle
import tempfile
import time
import traceback

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from pydantic import SecretStr
from rich.console import Console
from rich.logging import RichHandler
from rich.traceback import Traceback

import allm_actors as allm
from allm_actors import beam, keys, telemetry
from allm_actors.data import Request, ToolCall, user
from allm_actors.engine import CallContext
from allm_actors.errors import AllmError
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.testing import FakeServer, Reply

MARK = f"Zz{3}canaryvalue"  # so that no source line shows it whole
ADAPTERS = {"openai": OpenAI, "anthropic": Anthropic, "gemini": Gemini}
NO_RETRY = allm.Retry(max_attempts=1)
DENIED = Reply(status=401, json={"error": {"message": "no"}})


def key():
    return MARK + "0123456789"


def sealed():
    return SecretStr(key())


def engine_on(server, kind=OpenAI):
    return allm.Engine(adapter=kind(base_url=server.base_url), model="m")


# --- what is left after a call ----------------------------------------------------------------------------


def bears(value):
    """Whether a value is a text with the key in it."""
    if type(value) is str:
        return MARK in value and value != MARK
    return type(value) in (bytes, bytearray) and MARK.encode() in value


def holders():
    """The types of what in this program refers to the key, whatever it is."""
    gc.collect()
    found = []
    for thing in gc.get_objects():
        if isinstance(thing, SecretStr) and bears(thing.get_secret_value()):
            found.append("a sealed key")
            continue
        inside = gc.get_referents(thing)
        for each in inside:
            if not gc.is_tracked(each) and type(each) in (dict, tuple):
                inside += gc.get_referents(each)
        if any(map(bears, inside)):
            found.append(type(thing).__name__)
    return found


def first(stream):
    with stream:
        next(iter(stream))


WAYS = {
    "whole": lambda engine: allm.generate(engine, "hi", api_key=key(), retry=NO_RETRY),
    "step": lambda engine: allm.step(engine, "hi", api_key=key(), retry=NO_RETRY),
    "chat": lambda engine: allm.chat(engine, "hi", api_key=key(), retry=NO_RETRY),
    "stream": lambda engine: list(allm.stream_generate(engine, "hi", api_key=key(), retry=NO_RETRY)),
    "halted": lambda engine: first(allm.stream_generate(engine, "hi", api_key=key(), retry=NO_RETRY)),
    "dropped": lambda engine: next(iter(allm.stream_generate(engine, "hi", api_key=key(), retry=NO_RETRY))),
}


@pytest.mark.parametrize(
    ("way", "reply"),
    [
        *((way, Reply("a b c")) for way in WAYS),
        *((way, DENIED) for way in ("whole", "stream")),
        *((way, Reply("a b", fault="drop", after=1)) for way in ("whole", "stream")),
    ],
)
def test_nothing_holds_the_key_after_its_call(way, reply):
    """P-142: neither the engine's processes, which live on, nor the pooled connection, nor an error."""
    with FakeServer(default=reply) as server:
        with allm.start_engine(engine_on(server), name="keys"):
            kept = None
            try:
                kept = WAYS[way]("keys")
            except AllmError as error:
                kept = error.with_traceback(None)  # the frames of the caller hold it, sealed
            server.wait_for_requests(1)
            assert any(map(bears, server.requests[0].headers.values()))  # it was sent
            for request in server.requests:
                request.headers = {}  # the server of the test is in this program, too
            assert gone_within(5), holders()
            assert kept is None or MARK not in repr(kept)


def gone_within(seconds):
    """Whether nobody holds the key, at last: a halted stream's thread may still be on its way out."""
    deadline = time.monotonic() + seconds
    while holders():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_the_search_for_holders_finds_them():
    held = [sealed(), [key()], {"x": (key(),)}, CallContext(api_key=sealed())]
    assert len(holders()) >= 4
    del held
    assert holders() == []


# --- what is pickled, copied and written ------------------------------------------------------------------


@pytest.mark.parametrize("name", ADAPTERS)
def test_engines_and_adapters_hold_no_key_in_any_form(name):
    """P-136, P-142: before and after calls, with a key in the store and in the environment."""
    keys.put(name, key())
    try:
        with FakeServer(default="hi") as server:
            engine = engine_on(server, ADAPTERS[name])
            allm.generate(engine, "hi")
            connection = engine.adapter.connect()
            stream = connection.stream(
                Request(messages=[user("x")], model="m"), CallContext(api_key=sealed())
            )
            texts = [
                *(form(thing) for thing in (engine, engine.adapter) for form in FORMS),
                repr(connection), repr(vars(connection)), repr(stream),
            ]  # fmt: skip
            stream.close()
            connection.close()
    finally:
        keys.clear()
    assert not [text for text in texts if MARK in text]


FORMS = [
    repr, str, lambda x: repr(vars(x)), lambda x: x.model_dump_json(), lambda x: repr(x.model_dump()),
    lambda x: repr(pickle.dumps(x)), lambda x: repr(copy.deepcopy(x)), lambda x: repr(list(x)),
]  # fmt: skip


def test_what_may_hold_a_key_does_not_show_it():
    """P-133, P-142: a sealed key in a call context and in a hit."""
    keys.put("openai", key())
    try:
        context, hit = CallContext(api_key=sealed()), keys.get("openai")
        for thing in (context, hit):
            assert MARK not in repr(thing) + str(thing) + f"{thing}"
        assert MARK not in context.model_dump_json() + repr(context.model_dump())
    finally:
        keys.clear()


@pytest.mark.parametrize("way", ["whole", "step", "chat", "stream"])
def test_errors_and_results_pickle_without_the_key(way):
    """P-142: an error crosses to another interpreter, and takes no key along."""
    with FakeServer(default=DENIED) as server:
        try:
            made = WAYS[way](engine_on(server))
        except AllmError as error:
            made = error
            assert repr(pickle.loads(pickle.dumps(made))) == repr(made)
    assert MARK.encode() not in pickle.dumps(made)
    assert MARK not in repr(getattr(made, "partial", None))


# --- renderers, as programs configure them ----------------------------------------------------------------


def rich_text(error):
    out = io.StringIO()
    trace = Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True, locals_max_string=None, locals_max_length=None,
        locals_hide_sunder=False, locals_hide_dunder=False, max_frames=0,
    )  # fmt: skip
    Console(file=out, width=500).print(trace)
    return out.getvalue()


def standard(error):
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def rendered(processors, error):
    out = io.StringIO()
    structlog.configure(
        processors=processors,
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    structlog.get_logger().error("failed", exc_info=error, error=error)
    return out.getvalue()


def development(error):
    formatter = structlog.dev.RichTracebackFormatter(
        color_system=None, show_locals=True, locals_max_string=10_000, width=500, max_frames=0
    )
    return rendered([structlog.dev.ConsoleRenderer(colors=False, exception_formatter=formatter)], error)


def production(error):
    transform = structlog.tracebacks.ExceptionDictTransformer(
        show_locals=True, locals_max_string=100_000, locals_max_length=1000, max_frames=1000
    )
    return rendered(
        [structlog.processors.ExceptionRenderer(transform), structlog.processors.JSONRenderer()], error
    )


def handler_of_rich(error):
    out = io.StringIO()
    handler = RichHandler(
        console=Console(file=out, width=500), rich_tracebacks=True, tracebacks_show_locals=True
    )
    record = logging.LogRecord(
        "x", logging.ERROR, "x.py", 1, "failed", (), (type(error), error, error.__traceback__)
    )
    handler.emit(record)
    return out.getvalue()


RENDERERS = {
    "rich": rich_text, "traceback": standard, "structlog, development": development,
    "structlog, production": production, "logging by rich": handler_of_rich,
}  # fmt: skip


async def asynchronously(engine):
    async for event in allm.stream_generate(engine, "hi", api_key=key(), retry=NO_RETRY):
        if event.type == "error":
            raise event.error


def tool_that_fails(engine):
    @allm.tool
    def fails() -> str:
        raise ValueError("no")

    allm.chat(engine, "hi", tools=[fails], api_key=key(), retry=NO_RETRY, on_tool_error="raise")


FAILURES = {
    **{way: WAYS[way] for way in ("whole", "step", "chat")},
    "asyncio": lambda engine: asyncio.run(asynchronously(engine)),
    "session": lambda engine: allm.Session.start(engine, [user("hi")], api_key=key(), stream_timeout=-1),
    "consumer": lambda engine: allm.generate(engine, "hi", api_key=key(), on_event=lambda _: 1 / 0),
    "wrong option": lambda engine: allm.generate(engine, "hi", api_key=key(), temperature="hot"),
    "wrong key": lambda engine: allm.generate(engine, "hi", api_key=key() + "\n" + key()),
    "unknown tool": lambda engine: allm.chat(engine, "hi", api_key=key(), tools=[3]),
    "failing tool": tool_that_fails,
}


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("failure", FAILURES)
def test_no_renderer_of_exceptions_shows_the_key(failure, renderer):
    """P-142: with the variables of every frame, from the caller down to the network."""
    calls = Reply(tool_calls=[ToolCall(id="1", name="fails", arguments={})])
    default = calls if failure == "failing tool" else Reply("x") if failure == "consumer" else DENIED
    with FakeServer(default=default) as server:
        engine = engine_on(server)
        with pytest.raises(Exception) as caught:
            FAILURES[failure](engine)
        text = RENDERERS[renderer](caught.value)
    assert len(text) > 200
    assert MARK not in text


@pytest.mark.parametrize("renderer", RENDERERS)
def test_each_renderer_would_show_a_key(renderer):
    """The test above could fail: a text in a variable is shown."""

    def leaky():
        held = key()
        raise ValueError(len(held))

    with pytest.raises(ValueError) as caught:
        leaky()
    assert MARK in RENDERERS[renderer](caught.value)


# --- crashes ----------------------------------------------------------------------------------------------


@pytest.mark.logs_errors("an adapter crashes on purpose")
def test_the_report_of_a_crash_holds_no_key(monkeypatch, caplog):
    """P-142, B-130: a bug of an adapter, in the middle of a call that has a key."""
    out = []
    structlog.configure(processors=[lambda _l, _m, event: (out.append(repr(event)), event)[1], structlog.processors.JSONRenderer()],
                        logger_factory=structlog.PrintLoggerFactory(io.StringIO()), cache_logger_on_first_use=False)  # fmt: skip
    caplog.set_level(logging.DEBUG)
    from allm_actors.providers import _connection

    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(_connection, "read_stream", broken)
    with FakeServer(default="hi") as server:
        ref = allm.start_engine(engine_on(server), name="crashing")
        with pytest.raises(Exception) as caught:
            allm.generate("crashing", "hi", api_key=key(), retry=NO_RETRY)
        out += [repr(beam.tree()), *(repr(beam.info(each)) for each in beam.processes())]
        beam.dump()
        ref.stop()
    out += [caplog.text, *(render(caught.value) for render in RENDERERS.values())]
    assert any("a bug" in text for text in out)
    assert MARK not in "".join(out)


def test_a_dump_of_all_stacks_holds_no_key():
    """What `faulthandler` writes when the interpreter dies."""
    with FakeServer(default=Reply("a b", fault="stall", after=1)) as server, tempfile.TemporaryFile() as file:
        with allm.stream_generate(engine_on(server), "hi", api_key=key()) as stream:
            next(iter(stream))
            faulthandler.dump_traceback(file)
            threads = repr(beam.tree()) + repr([beam.info(pid) for pid in beam.processes()])
        file.seek(0)
        assert MARK.encode() not in file.read()
        assert MARK not in threads


# --- traces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ADAPTERS)
def test_traces_hold_no_key_even_with_content(name):
    """P-142, P-163: with everything that can be recorded recorded."""
    out = io.StringIO()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out)))
    telemetry.instrument_opentelemetry(provider, capture_content=True)
    seen = []
    telemetry.attach("keys", telemetry.NAMES, lambda *event: seen.append(repr(event)))
    try:
        with FakeServer(script=[DENIED, "hi", DENIED]) as server:
            engine = engine_on(server, ADAPTERS[name])
            for way in ("whole", "stream", "chat"):
                with contextlib.suppress(AllmError):
                    WAYS[way](engine)
    finally:
        telemetry.detach("keys")
        telemetry.uninstrument_opentelemetry()
        provider.shutdown()
    assert "gen_ai" in out.getvalue()
    assert len(seen) >= 6
    assert MARK not in out.getvalue() + "".join(seen)
