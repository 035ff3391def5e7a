"""A whole answer in one call, and what a failure looks like.

Prints:

    Four.
    stop: 2 tokens
    refused: authentication_failed (retryable: False)
"""

import allm_actors as allm
from allm_actors.errors import AdapterError
from allm_actors.providers import Fake

adapter = Fake(
    scripts=[
        [("text", "Four."), ("usage", {"output_tokens": 2}), ("finish", "stop")],
        [("error", "authentication_failed", {"status": 401})],
    ]
)
engine = allm.Engine(adapter=adapter, model="scripted")

response = allm.generate(engine, "What is two plus two?")
print(response.text)
print(f"{response.finish_reason}: {response.usage.output_tokens} tokens")

try:
    allm.generate(engine, "And now with a wrong key?")
except AdapterError as error:
    print(f"refused: {error.reason} (retryable: {error.retryable})")
