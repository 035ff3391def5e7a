"""Three worker processes share one engine, by sending it messages.

Shows: a started engine found by name, `beam.call(name, Generate(...))` from other processes, a worker that
streams into a mailbox through `StreamGenerate`, and that none of them waits for the others: the engine's own
mailbox is free all the time, the work is done in tasks.

Prints:

    ann: Ann reads quickly.
    bob: Bob reads quickly.
    cid: Cid reads quickly.
    streamed: Dora reads quickly.
"""

import allm_actors as allm
from allm_actors import beam
from allm_actors.events import TextDelta
from allm_actors.messages import Generate, StreamGenerate
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, ReceivedRequest


class Worker(beam.Process):
    """Asks the shared engine, and reports what it said."""

    def init(self, name: str, results: beam.Inbox) -> None:
        self.name, self.results = name, results
        self.continue_with("ask")

    def handle_continue(self, token: str) -> beam.Stop:  # noqa: ARG002
        response = beam.call("shared", Generate(self.name), timeout=10)
        beam.send(self.results, f"{self.name}: {response.text}")
        return beam.Stop("normal")


def answer(request: ReceivedRequest) -> str:
    """What the loopback provider says: the name it was asked about reads quickly."""
    return f"{request.json['messages'][0]['content'].title()} reads quickly."


def main() -> None:
    with FakeServer(script=[answer] * 4) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any")
        with allm.start_engine(engine, name="shared"):
            results = beam.Inbox()
            for name in ("ann", "bob", "cid"):
                Worker.start(name, results)
            for line in sorted(results.receive(timeout=10) for _ in range(3)):
                print(line)

            with allm.Mailbox() as mailbox:
                beam.call("shared", StreamGenerate("dora", into=mailbox))
                print("streamed: ", end="")
                for envelope in mailbox:
                    if isinstance(envelope.event, TextDelta):
                        print(envelope.event.delta, end="")
                print()


if __name__ == "__main__":
    main()
