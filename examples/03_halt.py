"""Halting a model that is still talking, from another thread.

The server would go on for an hour. `close()` may come from any thread: it ends the blocked `next()`, and the
connection to the server is shut down, so that nobody pays for words that nobody reads.

Prints:

    one two three
    halted, and the reader was released
"""

import itertools
import threading

import allm_actors as allm
from allm_actors.events import TextDelta
from allm_actors.providers import Fake

SCRIPT = [("text", "one "), ("text", "two "), ("text", "three"), ("delay", 3600), ("text", "never")]

engine = allm.Engine(adapter=Fake(script=SCRIPT), model="scripted")
stream = allm.stream_generate(engine, "Count.", stream_timeout=7200)
heard = threading.Event()


def halt_when_heard() -> None:
    heard.wait(timeout=10)
    stream.close()


threading.Thread(target=halt_when_heard).start()

words = (event.delta for event in stream if isinstance(event, TextDelta))
for count, word in zip(itertools.count(1), words, strict=False):
    print(word, end="", flush=True)
    if count == 3:
        heard.set()
print("\nhalted, and the reader was released")
