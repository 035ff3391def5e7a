"""Running a tool yourself: the model's calls come out, your results go in.

In `manual` mode no handler runs. `step` makes one request and gives the calls; appending a tool message for
each and asking again is all it takes. (Sessions do the same bookkeeping for you: 17_session.py.)

Prints:

    the model wants: add {'a': 20, 'b': 22}
    20 + 22 = 42.
    roles: user, assistant, tool, assistant
"""

import allm_actors as allm
from allm_actors.providers import Fake


@allm.tool
def add(a: int, b: int) -> int:  # noqa: ARG001
    """Add two numbers."""
    raise AssertionError("nobody calls this: the calls are answered below")


adapter = Fake(
    scripts=[
        [
            ("tool_call", {"id": "1", "name": "add", "arguments": {"a": 20, "b": 22}}),
            ("finish", "tool_calls"),
        ],
        [("text", "20 + 22 = 42."), ("finish", "stop")],
    ]
)
engine = allm.Engine(adapter=adapter, model="scripted", tools=[add])

asked = allm.step(engine, "What is 20 + 22?", mode="manual")
assert asked.thread is not None
messages = [*asked.thread.messages]
for call in asked.manual_tool_calls:
    print(f"the model wants: {call.name} {call.arguments}")
    messages.append(allm.tool_result(call.id, str(sum(call.arguments.values()))))

answered = allm.step(engine, messages, mode="manual")
assert answered.thread is not None
print(answered.text)
print("roles:", ", ".join(message.role for message in answered.thread.messages))
