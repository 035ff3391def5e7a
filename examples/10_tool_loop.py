"""A model that uses tools: every event of the loop, and the whole result.

The scripted model asks for two tools at once; one of them fails, and it reads why.

Prints:

    Kyoto: sun, 21 degrees
    Atlantis: {"error":"no such city: Atlantis"}
    Take an umbrella to Kyoto only if you like it.
    completed after 2 turns, 5 messages
"""

import allm_actors as allm
from allm_actors.events import ChatCompleted, TextDelta, ToolExecutionStarted, ToolResultEncoded
from allm_actors.providers import Fake


@allm.tool
def weather(city: str) -> str:
    """Look up the weather in a city."""
    if city != "Kyoto":
        raise LookupError(f"no such city: {city}")
    return "sun, 21 degrees"


adapter = Fake(
    scripts=[
        [
            ("tool_call", {"id": "1", "name": "weather", "arguments": {"city": "Kyoto"}}),
            ("tool_call", {"id": "2", "name": "weather", "arguments": {"city": "Atlantis"}}),
            ("finish", "tool_calls"),
        ],
        [
            ("text", "Take an umbrella to Kyoto "),
            ("text", "only if you like it."),
            ("finish", "stop"),
        ],
    ]
)
engine = allm.Engine(adapter=adapter, model="scripted", tools=[weather])
cities = {}

with allm.stream(engine, "Where do I need an umbrella?", max_concurrency=1) as events:
    for event in events:
        match event:
            case ToolExecutionStarted(id=call_id, name=name, arguments=arguments):
                cities[call_id] = arguments["city"]
            case ToolResultEncoded(id=call_id, content=content):
                print(f"{cities[call_id]}: {content}")
            case TextDelta(delta=text):
                print(text, end="", flush=True)
            case ChatCompleted(
                result=allm.ChatResult(halted_reason=reason, steps=steps, thread=allm.Thread() as thread)
            ):
                print(f"\n{reason} after {len(steps)} turns, {len(thread.messages)} messages")
