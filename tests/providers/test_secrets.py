"""A canary key goes through every provider and every way to fail, and is looked for everywhere.

The key is made where it is passed on and stands in no variable of a test, for the variables of all frames are
searched as `rich` and `structlog` print them.
"""

from __future__ import annotations

import gc
import io
import json
import logging
import pickle
import threading

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr
from rich.console import Console
from rich.traceback import Traceback

import allm_actors as allm
from allm_actors import beam, keys, telemetry
from allm_actors.data import Request, user
from allm_actors.engine import CallContext
from allm_actors.errors import AllmError
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.testing import FakeServer, Reply

MARK = "canaryvalue"
HEADERS = ("authorization", "x-api-key", "x-goog-api-key")
ASK = Request(messages=[user("hi")], model="m")
ADAPTERS = {
    "chat": (OpenAI, {"api": "chat"}),
    "responses": (OpenAI, {"api": "responses"}),
    "messages": (Anthropic, {}),
    "gemini": (Gemini, {}),
}


def key():
    """Of no provider's shape, so that only knowing it can hide it."""
    return "Zz" + MARK + "0123456789"


def bad_key():
    return key() + "\n" + key()


def echo(**fields):
    """An answer that repeats the key it was asked with, in these fields."""

    def answer(request):
        sent = next(request.headers[name] for name in HEADERS if name in request.headers)
        sent = sent.removeprefix("Bearer ")
        text = json.dumps(fields).replace("KEY", sent)
        return Reply(**json.loads(text))

    return answer


FAILURES = {
    "unauthorized": echo(
        status=401, json={"error": {"message": "bad key KEY", "code": "KEY", "type": "KEY"}}
    ),
    "bare": echo(status=403, body="bad key KEY", headers={"x-request-id": "KEY", "retry-after": "KEY"}),
    "overloaded": echo(status=503, body="KEY", headers={"x-request-id": "KEY"}),
    "redirect": echo(status=302, headers={"location": "http://127.0.0.1:1/?key=KEY"}, body="KEY"),
    "malformed": echo(frames=['{"a": "KEY'], headers={"x-request-id": "KEY"}),
    "not an object": echo(frames=['"KEY"']),
    "not utf-8": lambda request: Reply(
        frames=[b"data: \xff" + FAILURES["bare"](request).body.encode() + b"\n\n"]
    ),
    "in-stream error": echo(
        frames=[{"type": "error", "error": {"message": "KEY", "code": "KEY", "type": "KEY"}}]
    ),
    "error field": echo(frames=[{}], body='error: {"message": "KEY"}\n\n'),
    "whole error": echo(json={"error": {"message": "KEY", "status": "KEY"}}),
    "not an answer": echo(json={"id": "KEY", "model": 3}),
    "content type": echo(body="KEY", headers={"content-type": "text/KEY"}),
    "drop": Reply(fault="drop", after=-1),
    "truncate": Reply("a b c", fault="truncate", after=1),
    "end": Reply("a b c", fault="end", after=1),
    "stall": Reply(fault="stall", after=-1),
}


class Everything:
    """What is written anywhere while calls are made."""

    def __init__(self, caplog):
        self.texts, self._caplog = [], caplog
        caplog.set_level(logging.DEBUG)
        for name in ("urllib3", "requests", "allm_actors"):
            logging.getLogger(name).setLevel(logging.DEBUG)
        structlog.configure(
            processors=[
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=True, locals_max_string=10_000)
                ),
                self._record,
            ],
            cache_logger_on_first_use=False,
        )
        self.exporter = InMemorySpanExporter()
        self.tracer = TracerProvider(shutdown_on_exit=False)
        self.tracer.add_span_processor(SimpleSpanProcessor(self.exporter))
        telemetry.instrument_opentelemetry(self.tracer)
        telemetry.attach("canary", telemetry.NAMES, lambda *event: self.note("telemetry", event))

    def _record(self, _logger, _method, event):
        self.note("log", event)
        raise structlog.DropEvent

    def note(self, where, what):
        self.texts.append((where, repr(what)))

    def error(self, error):
        """All that can be made of an exception."""
        seen = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            self.note("repr", error)
            self.texts.append(("str", str(error)))
            self.note("vars", vars(error))
            self.note("args", error.args)
            if isinstance(error, AllmError):
                self.texts.append(("json", json.dumps(error.to_dict())))
                self.note("pickle", pickle.dumps(error))
            self._printed(error)
            error = error.__cause__ or error.__context__

    def _printed(self, error):
        trace = Traceback.from_exception(
            type(error), error, error.__traceback__,
            show_locals=True, locals_max_length=None, locals_max_string=None, locals_hide_dunder=False,
            locals_hide_sunder=False, max_frames=0, extra_lines=0,
        )  # fmt: skip
        out = io.StringIO()
        Console(file=out, width=400).print(trace)
        self.texts.append(("rich", out.getvalue()))
        transform = structlog.tracebacks.ExceptionDictTransformer(
            show_locals=True, locals_max_length=1000, locals_max_string=100_000, max_frames=1000
        )
        self.note("structlog", transform((type(error), error, error.__traceback__)))

    def close(self):
        telemetry.detach("canary")
        telemetry.uninstrument_opentelemetry()
        for span in self.exporter.get_finished_spans():
            self.texts.append(("span", span.to_json()))
        self.tracer.shutdown()
        structlog.reset_defaults()
        for record in self._caplog.records:
            self.note("logging", vars(record))

    def leaks(self):
        return sorted({where for where, text in self.texts if MARK in text})


@pytest.fixture
def everything(caplog):
    made = Everything(caplog)
    yield made
    made.close()
    assert len(made.texts) > 3
    assert made.leaks() == []


def runtime(everything):
    everything.note("tree", beam.tree())
    beam.dump()  # into the log
    for pid in beam.processes():
        everything.note("info", beam.info(pid))
    everything.note("threads", [thread.name for thread in threading.enumerate()])


def failing(call, everything):
    """Make a call, and look at what it raises."""
    try:
        result = call()
    except Exception as error:  # any exception is printed by somebody
        everything.error(error)
        return type(error).__name__
    everything.note("result", result)
    return None


def connected(adapter, url, everything):
    """Every road through a connection."""
    connection = adapter.connect()
    context = CallContext(
        api_key=SecretStr(key()), connect_timeout=2, stream_timeout=0.15, request_timeout=0.15
    )
    everything.note("call", (connection, vars(connection), context))
    everything.texts.append(("call json", context.model_dump_json()))
    failing(lambda: connection.generate(ASK, context), everything)
    stream = connection.stream(ASK, context)
    everything.note("stream", stream)
    for event in stream:
        everything.note("event", event)
        everything.texts.append(("event json", event.model_dump_json()))
        if event.type == "error":
            everything.error(event.error)
    connection.close()


def through_the_facade(adapter, everything, *asks):
    """The roads a user takes, the key given as text."""
    engine = allm.Engine(adapter=adapter, model="m")
    everything.texts.append(("engine", repr(engine) + engine.model_dump_json()))
    options = {"retry": allm.Retry(max_attempts=2, base_delay=0, jitter=0), "stream_timeout": 0.15}

    def streamed():
        with allm.stream_generate(engine, "hi", api_key=key(), **options) as stream:
            runtime(everything)
            for event in stream:
                everything.note("event", event)
                if event.type == "error":
                    everything.error(event.error)

    failing(streamed, everything)
    for ask in asks:
        failing(lambda ask=ask: ask(engine, "hi", api_key=key(), **options), everything)
    runtime(everything)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_key_of_a_call_that_fails_is_nowhere(name, failure, everything):
    """P-140..P-144, C-33: errors with their chains and frames, events, logs, telemetry, spans, the runtime."""
    kind, fields = ADAPTERS[name]
    with FakeServer(default=FAILURES[failure]) as server:
        adapter = kind(base_url=server.base_url, **fields)
        connected(adapter, server.url, everything)
        through_the_facade(adapter, everything, allm.generate)
        assert any(MARK in repr(request.headers) for request in server.requests)  # it was sent


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_key_of_a_call_nobody_answers_is_nowhere(name, everything):
    """P-140..P-142."""
    kind, fields = ADAPTERS[name]
    for url in ("http://127.0.0.1:1/v1", "http://nobody.invalid/v1", "https://127.0.0.1:1/v1"):
        adapter = kind(base_url=url, **fields)
        connected(adapter, url, everything)
    through_the_facade(adapter, everything, allm.generate, allm.step, allm.chat)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_key_no_header_can_hold_is_nowhere(name, everything):
    """P-135, P-142: the HTTP library would quote it."""
    kind, fields = ADAPTERS[name]
    engine = allm.Engine(adapter=kind(**fields), model="m")
    context = CallContext(api_key=SecretStr(bad_key()))
    connection = engine.adapter.connect()
    for ask in (connection.stream, connection.generate, connection.prepare_request):
        assert failing(lambda ask=ask: ask(ASK, context), everything) == "AdapterError"
    for ask in (allm.generate, allm.stream_generate, allm.step, allm.chat):
        assert failing(lambda ask=ask: ask(engine, "hi", api_key=bad_key()), everything)
    connection.close()


@pytest.mark.parametrize(
    "wrong", [{"temperature": "hot"}, {"model": 3}, {"stream_timeout": -1}, {"retry": 1}]
)
def test_a_call_that_is_refused_shows_no_key(wrong, everything):
    """P-142: the frames between the user and the mistake hold the options of the call."""
    engine = allm.Engine(adapter=OpenAI(), model="m")
    for ask in (allm.generate, allm.stream_generate, allm.step, allm.chat, allm.stream):
        assert failing(lambda ask=ask: ask(engine, "hi", api_key=key(), **wrong), everything)
    for ask in (allm.Session.start, allm.Session.stream_start):
        assert failing(lambda ask=ask: ask(engine, [user("hi")], api_key=key(), **wrong), everything)


def test_a_key_out_of_the_store_is_nowhere_either(everything):
    """P-133, P-142."""
    keys.put("anthropic", key())
    try:
        with FakeServer(default=FAILURES["unauthorized"]) as server:
            engine = allm.Engine(adapter=Anthropic(base_url=server.base_url), model="m")
            assert failing(lambda: allm.generate(engine, "hi"), everything) == "AdapterError"
            runtime(everything)
        everything.note("hit", keys.get("anthropic"))
    finally:
        keys.clear()


def test_content_is_in_no_log_by_default(caplog):
    """P-144: prompts, answers and tool arguments are the user's own."""
    lines = []
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[lambda _l, _m, event: lines.append(event) or (_ for _ in ()).throw(structlog.DropEvent)],
        cache_logger_on_first_use=False,
    )
    caplog.set_level(logging.INFO)
    with FakeServer(
        script=["the " + MARK, Reply("the " + MARK, fault="end", after=2), Reply(status=500)]
    ) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="m")
        retry = allm.Retry(max_attempts=1)
        assert MARK in allm.generate(engine, "say " + MARK, retry=retry).text
        for _ in range(2):
            with pytest.raises(AllmError):
                allm.generate(engine, "say " + MARK, retry=retry)
    assert MARK not in repr(lines) + caplog.text


def test_the_search_finds_what_is_there(caplog):
    """The other tests would fail: a key in the variables of a frame, or in a chained error."""
    everything = Everything(caplog)

    def leaky():
        held = [key()]
        raise ValueError(len(held))

    failing(leaky, everything)
    everything.close()
    gc.collect()
    assert {"rich", "structlog"} <= set(everything.leaks())
