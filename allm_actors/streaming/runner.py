"""Whole answers: the fold of a stream.

There is one road to a provider, the stream. A whole answer is what its events come to, so both have the same
retries, limits, processes and failures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allm_actors.data import StreamCollector
from allm_actors.engine import capability
from allm_actors.streaming.event_stream import EventStream
from allm_actors.streaming.options import seal
from allm_actors.streaming.stream_runner import open_call

if TYPE_CHECKING:
    from allm_actors.data import Event, Response
    from allm_actors.engine import Engine
    from allm_actors.engine.processes import EngineRef

__all__ = ["Runner", "generate"]


class Runner:
    """Asks one engine for whole answers.

    Args:
        engine: An `Engine`, a started engine's `EngineRef`, or the name it has.
    """

    def __init__(self, engine: Engine | EngineRef | str) -> None:
        self.engine = engine

    def run(self, input: Any, **options: Any) -> Response:  # noqa: A002
        """Make the call, wait for its last event and give what all of them come to.

        A failure of the provider is data: the response has `finish_reason == "error"`, the `error`, and what
        text and tool calls had arrived. `on_event` runs in this thread.

        Raises:
            Exception: What the call itself raises, as `StreamRunner.run`; what `on_event` raised; the bug
                of an adapter. The stream is closed by then.
        """
        seal(options)
        opened = open_call(self.engine, input, options, span="generate")
        try:
            stream: EventStream[Event] = EventStream(
                opened.tap(), request_id=opened.request_id, on_event=opened.options.on_event
            )
            with stream:
                folded = StreamCollector.collect(stream).response()
            ref = capability.lookup(opened.request.model)
            response = folded.model_copy(
                update={
                    "request_id": opened.request_id,
                    "usage": capability.populate_costs(folded.usage, ref),
                }
            )
        except BaseException as error:
            opened.span.finish(error)
            raise
        opened.span.finish(response.error, response=response)
        return response


def generate(engine: Engine | EngineRef | str, input: Any, **options: Any) -> Response:  # noqa: A002
    """Make a call and wait for its whole answer.

    Raises:
        AllmError: What the answer failed with, its `partial` what had arrived; or what is wrong with the
            call.
        Exception: As `Runner.run`.
    """
    seal(options)
    response = Runner(engine).run(input, **options)
    if response.error is not None:
        error = response.error.replace()  # a copy: no traceback hangs on the response
        error.partial = response
        raise error
    return response
