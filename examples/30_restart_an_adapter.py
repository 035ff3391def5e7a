"""An adapter that fails is replaced: the calls it held end with an error, the next finds a fresh one.

Shows: a started engine and its supervisor, a stream that is told at once that its adapter is gone, and the
new connection that the next call gets without anybody doing anything.

Prints:

    heard: working
    the stream ended: adapter_down
    heard: working
    connections made: 2, by different processes: True
"""

import logging
from collections.abc import Iterator

import allm_actors as allm
from allm_actors import beam
from allm_actors.events import ErrorEvent, TextDelta
from allm_actors.providers import Fake
from allm_actors.providers.fake import FakeConnection

makers: list[beam.Pid | None] = []


class Flaky(Fake):
    """The scripted adapter; it notes which process makes its connections."""

    def connect(self) -> FakeConnection:
        makers.append(beam.current())
        return super().connect()


def hear(stream: Iterator[object]) -> None:
    """Read on until there is some text, or the end."""
    for event in stream:
        if isinstance(event, TextDelta):
            print("heard:", event.delta)
            return
        if isinstance(event, ErrorEvent):
            print("the stream ended:", event.error.reason)
            return


def main() -> None:
    logging.getLogger("allm_actors").setLevel(logging.CRITICAL)  # hide the crash reports: this crash is meant
    answer = [("text", "working"), ("delay", 3600), ("text", "never"), ("finish", "stop")]
    adapter = Flaky(scripts=[answer, answer])
    with allm.start_engine(allm.Engine(adapter=adapter, model="scripted"), name="model"):
        with allm.stream_generate("model", "Are you there?") as stream:
            hear(stream)
            assert makers[0] is not None
            beam.exit(makers[0], "kill")  # the adapter's process, and its connection with it
            hear(stream)
        with allm.stream_generate("model", "And now?") as stream:
            hear(stream)
    print(f"connections made: {len(makers)}, by different processes: {makers[0] != makers[1]}")


if __name__ == "__main__":
    main()
