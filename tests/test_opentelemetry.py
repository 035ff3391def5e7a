"""The bridge to OpenTelemetry."""

import builtins
import json

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from allm_actors import telemetry
from allm_actors.data import (
    Message,
    MessageCompleted,
    Request,
    Response,
    Tool,
    ToolCall,
    Usage,
    assistant,
    system,
    tool_result,
    user,
)
from allm_actors.engine import Engine, Retry
from allm_actors.errors import AdapterError, EngineError
from allm_actors.providers import Fake, OpenAI
from allm_actors.streaming import generate, stream_generate

META = {"request_id": "r", "engine": None, "provider": "openai", "model": "gpt-5"}
CANARY = "CANARY"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    yield made
    telemetry.uninstrument_opentelemetry()
    made.shutdown()


@pytest.fixture
def bridge(provider):
    telemetry.instrument_opentelemetry(provider)


def only(exporter):
    (span,) = exporter.get_finished_spans()
    return span


REQUEST = Request(
    messages=[system("be brief " + CANARY), user("hi " + CANARY), tool_result("c", CANARY)],
    tools=[Tool(name="f", description="does", schema={"type": "object"})],
    temperature=0.5,
    response_format={"type": "json_object"},
    options={"top_p": 0.9, "stop": "END", "n": 2},
)


@pytest.mark.usefixtures("bridge")
def test_a_stream_is_a_client_span(exporter):  # P-163
    span = telemetry.start(
        "stream",
        META,
        details={
            "request": REQUEST,
            "options": {"max_tokens": 7, "top_p": 0.1, "seed": 3, "frequency_penalty": 1, "top_k": 4},
            "adapter": OpenAI(base_url="https://example.com/v1"),
            "session_id": "s",
        },
    )
    telemetry.emit(
        "allm.retry",
        {"attempt": 1, "delay": 0.5},
        {"request_id": "r", "provider": "openai", "status": None, "reason": "timeout"},
        span=span,
    )
    span.details["first_chunk"] = 0.25
    span.details["completed"] = MessageCompleted(
        message=assistant(CANARY),
        finish_reason="stop",
        raw_finish_reason="end_turn",
        response_id="id",
        model="gpt-5-2026",
        usage=Usage(input_tokens=10, output_tokens=0, cached_input_tokens=3, reasoning_tokens=1),
        provider_data={"openai": {"service_tier": "default", "system_fingerprint": "fp"}},
    )
    span.stop()

    seen = only(exporter)
    assert seen.name == "chat gpt-5"
    assert seen.kind is trace.SpanKind.CLIENT
    assert dict(seen.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": "s",
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.1,
        "gen_ai.request.top_k": 4,
        "gen_ai.request.frequency_penalty": 1,
        "gen_ai.request.seed": 3,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.choice.count": 2,
        "gen_ai.output.type": "json",
        "server.address": "example.com",
        "server.port": 443,
        "openai.api.type": "chat_completions",
        "gen_ai.response.id": "id",
        "gen_ai.response.model": "gpt-5-2026",
        "gen_ai.response.finish_reasons": ("end_turn",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 0,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "openai.response.service_tier": "default",
        "openai.response.system_fingerprint": "fp",
    }
    (event,) = seen.events
    assert event.name == "allm.retry"
    assert dict(event.attributes) == {
        "attempt": 1,
        "delay": 0.5,
        "request_id": "r",
        "provider": "openai",
        "reason": "timeout",
    }
    assert CANARY not in seen.to_json()


@pytest.mark.usefixtures("bridge")
def test_what_is_not_set_is_left_out(exporter):  # P-163
    span = telemetry.start(
        "generate",
        {**META, "provider": "gemini", "model": "g"},
        details={
            "request": Request(
                messages=[], options={"n": 1, "generationConfig": {"topP": 0.3}}, response_format="text"
            )
        },
    )
    span.stop(response=Response(finish_reason="length"))
    seen = only(exporter)
    assert seen.name == "generate_content g"
    assert dict(seen.attributes) == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "g",
        "gen_ai.request.top_p": 0.3,
        "gen_ai.output.type": "text",
        "gen_ai.response.finish_reasons": ("length",),
    }


@pytest.mark.usefixtures("bridge")
@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("text", "text"),
        ({"type": "text"}, "text"),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "name": "a", "schema": {}}, "json"),
        ({"type": "grammar"}, None),
        ({}, None),
    ],
)
def test_the_type_of_output_is_told_when_one_was_asked_for(exporter, wanted, told):  # P-163
    telemetry.start(
        "generate", META, details={"request": Request(messages=[], response_format=wanted)}
    ).stop()

    assert only(exporter).attributes.get("gen_ai.output.type") == told


@pytest.mark.usefixtures("bridge")
def test_spans_nest_as_their_calls_do(exporter):  # P-162, P-163
    chat = telemetry.start("chat", META)
    step = telemetry.start("step", META, parent=chat)
    call = telemetry.start("stream", META, parent=step)
    call.stop()
    tool = telemetry.start(
        "tool",
        META,
        parent=step,
        details={
            "tool_call": ToolCall(id="1", name="weather", arguments={"c": CANARY}),
            "tool": Tool(name="weather", description="tells", schema={}),
        },
    )
    tool.stop(result=CANARY)
    step.stop()
    chat.stop()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {name: span.parent and span.parent.span_id for name, span in spans.items()} == {
        "invoke_agent": None,
        "allm.step": spans["invoke_agent"].context.span_id,
        "chat gpt-5": spans["allm.step"].context.span_id,
        "execute_tool weather": spans["allm.step"].context.span_id,
    }
    assert {span.kind for name, span in spans.items() if name != "chat gpt-5"} == {trace.SpanKind.INTERNAL}
    assert spans["invoke_agent"].attributes["gen_ai.operation.name"] == "invoke_agent"
    assert "gen_ai.operation.name" not in spans["allm.step"].attributes
    attributes = spans["execute_tool weather"].attributes
    assert attributes["gen_ai.operation.name"] == "execute_tool"
    assert attributes["gen_ai.tool.name"] == "weather"
    assert attributes["gen_ai.tool.call.id"] == "1"
    assert attributes["gen_ai.tool.description"] == "tells"
    assert attributes["gen_ai.tool.type"] == "function"
    assert not any(CANARY in span.to_json() for span in spans.values())


@pytest.mark.usefixtures("bridge")
def test_the_programs_own_span_is_the_outermost_parent(exporter, provider):  # P-163
    with provider.get_tracer("mine").start_as_current_span("mine") as mine:
        telemetry.start("generate", META).stop()
    assert exporter.get_finished_spans()[0].parent.span_id == mine.get_span_context().span_id


@pytest.mark.usefixtures("bridge")
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AdapterError("rate_limited"), "rate_limited"),
        (EngineError("missing_key"), "EngineError"),
        (KeyError(), "KeyError"),
    ],
)
def test_errors_are_named_and_mark_the_span(exporter, error, kind):  # P-163
    telemetry.start("generate", META).finish(error)
    seen = only(exporter)
    assert seen.attributes["error.type"] == kind
    assert seen.status.status_code is trace.StatusCode.ERROR


def test_content_is_recorded_only_when_asked_for(exporter, provider):  # P-163
    telemetry.instrument_opentelemetry(provider, capture_content=True)
    request = REQUEST.model_copy(
        update={
            "messages": [
                *REQUEST.messages,
                Message(
                    role="assistant", content="", tool_calls=[ToolCall(id="1", name="f", arguments={"a": 1})]
                ),
            ]
        }
    )
    span = telemetry.start("generate", META, details={"request": request})
    span.stop(response=Response(message=assistant("answer"), finish_reason="stop"))
    call = ToolCall(id="1", name="f", arguments={"a": 1})
    telemetry.start("tool", META, details={"tool_call": call}).stop(result={"b": [2]})

    model, tool = exporter.get_finished_spans()
    loaded = {
        name: json.loads(value)
        for name, value in model.attributes.items()
        if name.count(".") >= 1 and str(value)[:1] in "[{"
    }
    assert loaded["gen_ai.system_instructions"] == [{"type": "text", "content": "be brief " + CANARY}]
    assert loaded["gen_ai.input.messages"] == [
        {"role": "user", "parts": [{"type": "text", "content": "hi " + CANARY}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": CANARY}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "1", "name": "f", "arguments": {"a": 1}}],
        },
    ]
    assert loaded["gen_ai.output.messages"] == [
        {"role": "assistant", "parts": [{"type": "text", "content": "answer"}], "finish_reason": "stop"}
    ]
    assert loaded["gen_ai.tool.definitions"][0]["name"] == "f"
    assert json.loads(tool.attributes["gen_ai.tool.call.arguments"]) == {"a": 1}
    assert json.loads(tool.attributes["gen_ai.tool.call.result"]) == {"b": [2]}


def test_instrumenting_again_replaces_the_bridge(exporter, provider):  # P-163
    telemetry.instrument_opentelemetry(provider)
    telemetry.instrument_opentelemetry(provider)
    telemetry.start("chat", META).stop()
    only(exporter)
    telemetry.uninstrument_opentelemetry()
    telemetry.uninstrument_opentelemetry()
    telemetry.start("chat", META).stop()
    only(exporter)


def test_without_the_api_instrumenting_is_an_import_error(monkeypatch):  # P-163
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="opentelemetry"):
        telemetry.instrument_opentelemetry()


@pytest.mark.usefixtures("bridge")
@pytest.mark.parametrize("whole", [True, False])
def test_a_call_of_an_engine_is_traced_with_its_retries(exporter, whole):  # P-163
    fake = Fake(
        scripts=[[("text", CANARY), ("usage", {"input_tokens": 3, "output_tokens": 0}), ("finish", "stop")]],
        fail_first=1,
    )
    engine = Engine(adapter=fake, model="m", retry=Retry(base_delay=0, jitter=0), params={"seed": 1})
    options = {"max_tokens": 5, "top_p": 0.5}
    if whole:
        generate(engine, CANARY, **options)
    else:
        with stream_generate(engine, CANARY, **options) as stream:
            list(stream)
    seen = only(exporter)
    attributes = dict(seen.attributes)
    if not whole:
        assert 0 <= attributes.pop("gen_ai.response.time_to_first_chunk") < 10
        assert attributes.pop("gen_ai.request.stream") is True
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fake",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.seed": 1,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 0,
    }
    assert seen.name == "chat m"
    assert [event.name for event in seen.events] == ["allm.retry"]
    assert CANARY not in seen.to_json()
