"""An answer, piece by piece, as events.

The engine is a value: an adapter (here the scripted one that needs no key) and a model's name.
Leaving the `with` block halts whatever still runs.

Prints:

    Links tell you. Monitors watch.
    -- stop, 9 tokens
"""

import allm_actors as allm
from allm_actors.events import ErrorEvent, MessageCompleted, TextDelta
from allm_actors.providers import Fake

SCRIPT = [
    ("text", "Links "),
    ("text", "tell you. "),
    ("text", "Monitors watch."),
    ("usage", {"input_tokens": 5, "output_tokens": 9}),
    ("finish", "stop"),
]

engine = allm.Engine(adapter=Fake(script=SCRIPT), model="scripted")

with allm.stream_generate(engine, "Explain links and monitors.") as stream:
    for event in stream:
        match event:
            case TextDelta(delta=text):
                print(text, end="", flush=True)
            case MessageCompleted(finish_reason=reason, usage=allm.Usage(output_tokens=tokens)):
                print(f"\n-- {reason}, {tokens} tokens")
            case ErrorEvent(error=error):
                print(f"\nfailed: {error}")
