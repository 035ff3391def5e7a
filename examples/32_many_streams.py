"""Many streams, one consumer: twenty answers at once, read by one thread from one mailbox.

Each stream's own order is kept and none has to wait for a slow one. One that is no longer wanted is
halted alone.

Prints:

    20 answers, 19 of them whole, one halted
    the slow one came last: True
    every answer in its own order: True
"""

from collections import defaultdict

import allm_actors as allm
from allm_actors.events import MessageCompleted, TextDelta
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, ReceivedRequest, Reply

STREAMS = 20
WORDS = [f"word{n} " for n in range(30)]


def model(request: ReceivedRequest) -> Reply:
    """Answer at once; the first prompt is answered slowly, the second never to its end."""
    match request.json["messages"][0]["content"]:
        case "0":
            return Reply(chunks=WORDS, chunk_delay=0.02)
        case "1":
            return Reply(chunks=WORDS, fault="stall", after=10)
        case _:
            return Reply(chunks=WORDS)


def main() -> None:
    heard: defaultdict[str, list[str]] = defaultdict(list)
    finished: list[str] = []
    with FakeServer(default=model) as server, allm.Mailbox() as mailbox:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any")
        handles = [allm.open_stream(engine, str(n), into=mailbox) for n in range(STREAMS)]
        names = {handle.request_id: n for n, handle in enumerate(handles)}

        for stream, event in ((envelope.stream, envelope.event) for envelope in mailbox):
            if isinstance(event, TextDelta):
                heard[stream.request_id].append(event.delta)
                if names[stream.request_id] == 1 and len(heard[stream.request_id]) == 5:
                    stream.halt()
            elif isinstance(event, MessageCompleted):
                finished.append(stream.request_id)

    print(f"{len(heard)} answers, {len(finished)} of them whole, one halted")
    print("the slow one came last:", names[finished[-1]] == 0)
    print("every answer in its own order:", all(said == WORDS[: len(said)] for said in heard.values()))


if __name__ == "__main__":
    main()
