"""What a provider or a model writes cannot forge or break a line of a log, whoever renders it."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import allm_actors as allm
from allm_actors import beam, telemetry
from allm_actors.data import ToolCall
from allm_actors.errors import AdapterError, AllmError, StreamError, ToolError
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.testing import FakeServer, Reply

FORGED = "2026-01-01 [info] all is well"
EVIL = f"x\x1b[2J\x1b]0;title\x07\r\n{FORGED}\x9b31m\x85\u2028\u202eabc\u2066\x00\x7f"
TERMINAL = {
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e",
}
TERMINAL |= set("\u2066\u2067\u2068\u2069")
ADAPTERS = {"openai": OpenAI, "anthropic": Anthropic, "gemini": Gemini}


def harmless(text, *allowed):
    """Whether nothing in a text is obeyed by a terminal or ends a line."""
    return not (set(text) - set(allowed)) & TERMINAL


RENDERERS = {
    "console": lambda: structlog.dev.ConsoleRenderer(colors=False),
    "console, in columns of its own": lambda: structlog.dev.ConsoleRenderer(
        colors=False, pad_event_to=5, sort_keys=False
    ),
    "json": structlog.processors.JSONRenderer,
    "json, as it is": lambda: structlog.processors.JSONRenderer(ensure_ascii=False),
    "key=value": lambda: structlog.processors.KeyValueRenderer(key_order=["event"]),
    "logfmt": lambda: structlog.processors.LogfmtRenderer(bool_as_flag=False),
}


@pytest.fixture(params=RENDERERS)
def lines(request):
    """Every line that is written while the test runs, by one of structlog's renderers."""
    out = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, RENDERERS[request.param]()],
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    return lambda: out.getvalue().split("\n")[:-1]


def checked(lines, *events):
    """The lines are one record each, and nothing in them is obeyed."""
    assert lines
    for line in lines:
        assert harmless(line), line
        assert not line.startswith(FORGED[:4])
    for event in events:
        assert any(event in line for line in lines), (event, lines)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_failing_provider_breaks_no_line(name, lines):
    """P-140, P-144: its message, codes and ids, in the retries and in the record of the program itself."""
    body = {"error": {"message": EVIL, "code": EVIL, "type": EVIL, "status": EVIL}, "request_id": EVIL}
    with FakeServer(default=Reply(status=503, json=body)) as server:
        engine = allm.Engine(adapter=ADAPTERS[name](base_url=server.base_url), model=EVIL)
        retry = allm.Retry(max_attempts=2, base_delay=0, jitter=0)
        with pytest.raises(AdapterError) as caught:
            allm.generate(engine, "hi", retry=retry, request_id=EVIL)
    error = caught.value
    structlog.get_logger().error(
        "failed", text=str(error).replace("\n", " "), id=error.request_id, of=error.metadata
    )
    checked(lines(), "retry", "failed")


def test_names_of_tools_break_no_line(lines):
    """Nor do the ids and arguments of a model's calls, or what a tool makes of them."""
    calls = [
        ToolCall(id=EVIL, name="fails", arguments={}),
        ToolCall(id="2", name="fails", arguments={"x": EVIL}),
    ]

    @allm.tool
    def fails() -> str:
        raise ValueError(EVIL)

    with FakeServer(script=[Reply(tool_calls=calls), "bye"]) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="m")
        allm.chat(engine, "hi", tools=[fails])
    checked([line for line in lines() if line.strip()], "tool.failed")


def test_a_tool_that_a_model_made_up_is_named_harmlessly():
    with FakeServer(script=[Reply(tool_calls=[ToolCall(id="1", name=EVIL, arguments={})])]) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="m")
        with pytest.raises(AllmError) as caught:
            allm.chat(engine, "hi", tools=[allm.Tool(name="t", description="", schema={}, manual=True)])
    assert harmless(str(caught.value))


@pytest.mark.logs_errors("a process crashes on purpose")
def test_a_crash_breaks_no_line(lines):
    """B-130: its reason is what some provider said."""

    class Crashing(beam.Process):
        def handle_cast(self, message):
            raise ValueError(message)

    pid = Crashing.start(name=("crash", EVIL))
    gone = beam.Inbox()
    beam.monitor(pid, to=gone)
    beam.cast(pid, EVIL)
    gone.receive(5)
    records = [line for line in lines() if "process.exited" in line]
    assert records
    for line in records:
        assert harmless(line)


def test_what_the_library_logs_is_one_line_in_the_standard_log_too(caplog):
    """Where the program has not configured structlog."""
    structlog.reset_defaults()
    from allm_actors.beam._log import Logger

    with caplog.at_level(logging.DEBUG):
        Logger("allm_actors.beam").warning("event", text=EVIL, many=[EVIL], name=("a", EVIL))
    (record,) = caplog.records
    assert harmless(record.getMessage())


def test_stacks_keep_their_line_breaks_and_nothing_else(lines):
    """They are many lines by nature; what they quote is escaped."""
    from allm_actors.beam._log import Logger

    Logger("allm_actors.beam").warning("event", traceback=f"Traceback\n  File x\n{EVIL}")
    assert all(harmless(line) for line in lines())


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda: AdapterError("unknown", EVIL),
        lambda: AdapterError("unknown", provider=EVIL),
        lambda: ToolError("not_found", tool_name=EVIL),
        lambda: StreamError("malformed_event", EVIL),
        lambda: AllmError.from_dict({**AdapterError("unknown").to_dict(), "message": EVIL}),
        lambda: AdapterError("unknown").replace(message=EVIL),
    ],
)
def test_the_text_of_an_error_drives_no_terminal(build):
    """However it is built; line breaks stay, for providers write lists."""
    error = build()
    assert harmless(str(error), "\n", "\t")
    assert harmless(repr(error))
    assert str(error) == error.message
    assert AllmError.from_dict(error.to_dict()) == error


def test_ordinary_text_of_an_error_stays_as_it_is():
    text = "Kontingent überschritten: 猫 👩‍🚀 שלום\n* first\n\t* second"
    assert AdapterError("unknown", text).message == text


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_providers_words_for_itself_are_one_line(name):
    """P-107: its codes and its id of the request, from the body and from the headers."""
    body = {"error": {"message": "no", "code": EVIL, "type": EVIL}, "request_id": EVIL}
    replies = [
        Reply(status=400, json=body),
        Reply(status=400, headers={"x-request-id": "a\x1b[2Jb"}, json=body),
    ]
    with FakeServer(script=replies) as server:
        connection = ADAPTERS[name](base_url=server.base_url, auth=False).connect()
        errors = []
        for _ in replies:
            *_, last = connection.stream(
                allm.Request(messages=[allm.user("x")], model="m"), allm.CallContext()
            )
            errors.append(last.error)
        connection.close()
    for error in errors:
        words = [error.request_id, *(value for value in error.metadata.values() if isinstance(value, str))]
        assert all(harmless(word) for word in words if word), words
    assert errors[1].request_id == "a\\x1b[2Jb"


def test_a_broken_frame_is_quoted_harmlessly():
    """P-109: the excerpt of malformed data."""
    with FakeServer(script=[Reply(frames=[("\x1b[2J\u202e" * 20)])]) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="m")
        with pytest.raises(StreamError) as caught:
            allm.generate(engine, "hi")
    assert harmless(str(caught.value))


def test_a_console_exporter_of_spans_writes_json():
    """P-163: whatever the model is called."""
    out = io.StringIO()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out)))
    telemetry.instrument_opentelemetry(provider)
    try:
        body = {"error": {"message": EVIL, "code": EVIL}}
        with FakeServer(default=Reply(status=400, json=body)) as server:
            engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model=EVIL)
            with pytest.raises(AdapterError):
                allm.generate(engine, "hi")
    finally:
        telemetry.uninstrument_opentelemetry()
        provider.shutdown()
    text = out.getvalue()
    assert harmless(text, "\n")
    decoder, at = json.JSONDecoder(), 0
    while text[at:].strip():
        _, end = decoder.raw_decode(text[at:].lstrip())
        at += end + len(text[at:]) - len(text[at:].lstrip())
