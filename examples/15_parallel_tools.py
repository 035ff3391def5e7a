"""Tools that run side by side.

The model asks for three look-ups at once. Each waits at a barrier until all three are there, which only tools
that run at the same time can pass. The results go back in the order of the calls, whoever was first.

Prints:

    Oslo: 3 look-ups at once
    Lima: 3 look-ups at once
    Cairo: 3 look-ups at once
    All three are fine.
"""

import threading

import allm_actors as allm
from allm_actors.providers import Fake

CITIES = ("Oslo", "Lima", "Cairo")
everyone = threading.Barrier(len(CITIES))


@allm.tool
def look_up(city: str) -> str:
    """Look a city up."""
    everyone.wait(timeout=10)
    return f"{city}: {len(CITIES)} look-ups at once"


calls = [
    ("tool_call", {"id": str(n), "name": "look_up", "arguments": {"city": city}})
    for n, city in enumerate(CITIES)
]
adapter = Fake(
    scripts=[[*calls, ("finish", "tool_calls")], [("text", "All three are fine."), ("finish", "stop")]]
)
engine = allm.Engine(adapter=adapter, model="scripted", tools=[look_up])

result = allm.chat(engine, "How are Oslo, Lima and Cairo?", max_concurrency=len(CITIES))
for message in result.steps[0].tool_results:
    print(message.content)
print(result.text)
