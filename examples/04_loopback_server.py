"""Testing a service against a provider on loopback, with the faults a real one has.

`FakeServer` speaks real HTTP, so everything on the way is what production runs: sockets, retries, timeouts.
The first request meets a 503 and is repeated; the second answer stalls after three frames.

Prints:

    Links tell you.
    requests the server saw: 2
    Links ... timeout
"""

import logging

import allm_actors as allm
from allm_actors.events import ErrorEvent, TextDelta
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, Reply

logging.getLogger("allm_actors").setLevel(logging.ERROR)  # the repeated attempt is a warning in the log

with FakeServer(script=[Reply(status=503), "Links tell you."]) as server:
    engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any")

    print(allm.generate(engine, "Explain links.").text)
    print("requests the server saw:", len(server.requests))

    server.add(Reply("Links tell you.", fault="stall", after=2))
    with allm.stream_generate(engine, "Again?", stream_timeout=0.3) as stream:
        for event in stream:
            match event:
                case TextDelta(delta=text):
                    print(text, end=" ")
                case ErrorEvent(error=error):
                    print("...", error.reason)
