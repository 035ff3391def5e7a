"""The public API as a user writes it. Never run: a type checker reads it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, assert_type

import allm_actors as allm
from allm_actors.engine import Connection
from allm_actors.errors import AdapterError, AllmError
from allm_actors.events import (
    ErrorEvent,
    Event,
    MessageCompleted,
    MessageStarted,
    TextCompleted,
    TextDelta,
    ToolCallCompleted,
)
from allm_actors.providers import Fake, Llama, OpenAI
from allm_actors.testing import FakeServer, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator


def streaming() -> None:
    engine = allm.Engine(adapter=OpenAI(base_url="http://localhost:11434/v1"), model="qwen3")
    with allm.stream_generate(engine, "Explain links.", temperature=0.2, deadline=30) as stream:
        assert_type(stream, allm.EventStream[Event])
        assert_type(stream.request_id, str)
        for event in stream:
            match event:
                case TextDelta(delta=text):
                    assert_type(text, str)
                case ToolCallCompleted(name=name, raw_arguments=raw):
                    assert_type(name + raw, str)
                case MessageCompleted(usage=usage):
                    assert_type(usage, allm.Usage | None)
                case ErrorEvent(error=error):
                    assert_type(error, AllmError)
                case _:
                    pass


async def streaming_in_asyncio() -> None:
    engine = allm.Engine(adapter=Fake(), model="m")
    async with allm.stream_generate(engine, [allm.system("Be brief."), allm.user("Hi")]) as stream:
        async for event in stream:
            print(event.type)


def whole_answers() -> str:
    engine = allm.Engine(adapter=Llama(model="model.gguf"), params={"temperature": 0})
    try:
        response = allm.generate(engine, "Hi", on_event=print, retry=allm.Retry(max_attempts=1))
    except AdapterError as error:
        assert_type(error.status, int | None)
        return error.reason
    assert_type(response, allm.Response)
    assert_type(response.text, str | None)
    return response.require_text()


def values() -> None:
    engine = allm.Engine(adapter=Fake(script=[("text", "hi"), ("finish", "stop")]))
    assert_type(engine.with_model("m").put_param("temperature", 1), allm.Engine)
    request = allm.request("Hi", max_tokens=5)
    assert_type(request.messages, list[allm.Message])
    thread = allm.Thread().add_user("Hi").add_assistant("Hello")
    allm.request(request.messages)
    messages = [*thread.messages, allm.user("And now?")]
    allm.request(messages)
    texts = ["one", "two"]
    allm.request(texts)
    assert_type(thread.last_message(), allm.Message | None)
    assert_type(allm.StreamCollector.collect([]).response(), allm.Response)


@allm.tool
def weather(city: str, days: int = 1) -> str:
    """Say what the weather will be."""
    return f"{city}: rain for {days} days"


def tools() -> None:
    assert_type(weather, allm.Tool)
    allm.Engine(tools=[weather])


def tool_loops() -> None:
    assert_type(allm.step("main", "Hi", mode="manual"), allm.StepResult)
    result = allm.chat("main", "Hi", tools=[weather], max_turns=3, on_tool_error=decide)
    assert_type(result, allm.ChatResult)
    assert_type(result.text, str | None)
    with allm.stream("main", result.thread or "Hi") as events:
        assert_type(events, allm.EventStream[Event])
    assert_type(allm.stream_step("main", "Hi", into=allm.Mailbox()), allm.StreamHandle)
    batch = allm.run_tool_calls(result.manual_tool_calls, [weather])
    assert_type(batch, allm.ToolBatch)
    assert_type(batch.messages, list[allm.Message])


def decide(call: allm.ToolCall, error: AllmError) -> object:
    return allm.Continue(f"{call.name}: {error}") if error.reason == "timeout" else "halt"


@allm.tool
def questions(city: str, ctx: allm.ToolContext) -> allm.AskUser | allm.Halt:
    """Ask, or stop."""
    ctx.raise_if_cancelled()
    return (
        allm.AskUser(f"Which {city}?", choices=["a", "b"]) if city else allm.Halt("nowhere", {"city": city})
    )


def sessions() -> None:
    session, result = allm.Session.start("main", "Hi", id="s", tools=[questions])
    assert_type(session, allm.Session)
    assert_type(result, allm.ChatResult)
    assert_type(allm.Session.step("main", session)[1], allm.StepResult)
    assert_type(allm.Session.submit_tool_result(session, "1", {"a": 1}), allm.Session)
    with allm.Session.stream_reply("main", session, "And tomorrow?") as events:
        fold = events.reducer()
        assert_type(fold, allm.StreamReducer[allm.Session])
        for event in events:
            assert_type(event, Event)
            fold.apply(event)
    assert_type(fold.finalize()[0], allm.Session)
    with allm.Mailbox() as mailbox:
        handle = allm.Session.stream_continue("main", session, into=mailbox)
        assert_type(handle.session, allm.Session)


def supervised() -> None:
    with allm.start_engine(allm.Engine(adapter=Fake()), name="main") as ref:
        assert_type(ref, allm.EngineRef)
        allm.generate("main", "Hi")
        ref.update(lambda engine: engine.with_model("other"))


def many_streams() -> None:
    mailbox = allm.Mailbox()
    handle = allm.open_stream("main", "Hi", into=mailbox)
    assert_type(handle, allm.StreamHandle)
    for envelope in mailbox:
        assert_type(envelope.stream, allm.StreamHandle)
        print(envelope.stream.request_id, envelope.event)


def served() -> None:
    with FakeServer(script=["Hello!", Reply(status=503)]) as server:
        allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any")


class Echo(allm.Adapter):
    """An adapter of one's own."""

    provider: ClassVar[str] = "echo"
    prefix: str = ""

    def connect(self) -> Connection:
        return EchoConnection(self)


class EchoConnection(Connection):
    def __init__(self, config: Echo) -> None:
        self.config = config

    def stream(self, request: allm.Request, call: allm.CallContext) -> allm.AdapterStream:
        assert call.deadline == math.inf
        return allm.AdapterStream(self._events(self.config.prefix + str(request.messages[-1].content)))

    def _events(self, text: str) -> Iterator[Event]:
        yield MessageStarted(message=allm.assistant(""))
        yield TextDelta(id=None, delta=text)
        yield TextCompleted(id=None, text=text)
        yield MessageCompleted(message=allm.assistant(text), finish_reason="stop")
