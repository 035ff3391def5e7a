"""One turn: a request, and the tools its answer asks for.

Guarantees:
    - The adapter's events come through complete and unchanged; then those of the tools; then one
      `StepCompleted`.
    - In the thread of a step each recorded call is followed by exactly one tool message, but for calls the
      caller has to answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allm_actors.chat._batch import Batch
from allm_actors.chat._source import GATE
from allm_actors.data import ErrorEvent, Message, StepCompleted
from allm_actors.data.base import to_text
from allm_actors.engine import capability
from allm_actors.errors import EngineError
from allm_actors.streaming.event_stream import ENDED

if TYPE_CHECKING:
    from collections.abc import Generator

    from allm_actors import telemetry
    from allm_actors.chat._calls import Toolbox
    from allm_actors.chat._source import Run
    from allm_actors.data import Mode, Response, StepResult, StreamCollector, Thread, ToolCall
    from allm_actors.errors import AdapterError, AllmError
    from allm_actors.streaming._producer import ProducerTap
    from allm_actors.streaming.stream_runner import OpenCall

__all__ = ["Begun", "OpenTurn", "Turns", "unknown_tool"]


class OpenTurn:
    """A turn whose request passed every check: nothing was sent yet.

    Attributes:
        opened: The request.
        tap: Where its events come from.
        span: The span of the step.
    """

    __slots__ = ("opened", "span", "tap")

    def __init__(self, opened: OpenCall, span: telemetry.Span) -> None:
        self.opened = opened
        self.tap: ProducerTap = opened.tap()
        self.span = span


@dataclass(slots=True)
class Begun:
    """The turn that was begun last.

    Attributes:
        place: How many turns were completed before it.
        thread: The conversation it was opened on.
        box: Its tools; `None` for a turn that is sent none.
        batch: Its tools at work, once they are.
        said: How many events of its tools were said.
    """

    place: int
    opened: OpenCall
    span: telemetry.Span
    thread: Thread
    box: Toolbox | None
    batch: Batch | None = None
    said: int = 0


class Turns:
    """Runs turns of one run, one after the other, and folds what they say.

    Args:
        run: What stops them.
        folded: The fold of everything the run says.
        mode: The call's.
        own_errors: Takes the error events that are made here and not by an adapter.

    Attributes:
        begun: The turn in progress, or else the last one.
    """

    begun: Begun

    def __init__(self, run: Run, folded: StreamCollector, mode: Mode, own_errors: list[ErrorEvent]) -> None:
        self._run = run
        self._folded = folded
        self._mode: Mode = mode
        self._own_errors = own_errors

    def begin(self, turn: OpenTurn, thread: Thread, box: Toolbox | None) -> None:
        """Make a turn the one in progress."""
        self.begun = Begun(len(self._folded.steps), turn.opened, turn.span, thread, box)

    def run(
        self, turn: OpenTurn, thread: Thread, box: Toolbox | None
    ) -> Generator[Any, None, StepResult | None]:
        """Give the events of one turn.

        Args:
            turn: The turn.
            thread: The conversation it was opened on.
            box: The tools; `None` for a turn that is sent none: every call in it is one of an unknown tool.

        Returns:
            The step; `None` if the run was closed.
        """
        run, folded = self._run, self._folded
        self.begin(turn, thread, box)
        yield GATE
        if not run.work_on(turn.tap):
            return None
        take, apply = turn.tap.take, folded.apply
        while (event := take()) is not ENDED:
            apply(event)
            yield event
        if not run.work_on(None):
            return None
        calls = folded.tool_calls if folded.finish_reason == "tool_calls" else []
        if (unknown := self._unknown(calls, box)) is not None:
            yield self.error(unknown_tool(unknown))
            yield self._completed(self.begun, thread, [])
            return folded.steps[-1]
        auto, manual = self._parted(calls, box)
        if auto and box is not None:
            finished = yield from self._tools(box, auto, manual, turn.span)
            if not finished:
                return None
        yield self._completed(self.begun, self._answered(thread), self._pending(manual))
        return folded.steps[-1]

    def rest(self, begun: Begun, said: int, error: AdapterError) -> Generator[Any, None, None]:
        """Give what is left of a turn that goes no further, to someone who was given what is folded here.

        What the model had answered counts as far as no tool would have to run for it. Tools that were running
        are given up: calls without an outcome are answered, and end the run.

        Args:
            begun: The turn.
            said: How many events of its tools were given.
            error: Why it goes no further.
        """
        folded, thread = self._folded, begun.thread
        if folded.error is not None and any(own.error is folded.error for own in self._own_errors):
            yield self._completed(begun, thread, [])
            return
        calls = folded.tool_calls if folded.finish_reason == "tool_calls" else []
        if (unknown := self._unknown(calls, begun.box)) is not None:
            yield self.error(unknown_tool(unknown))
            yield self._completed(begun, thread, [])
            return
        auto, manual = self._parted(calls, begun.box)
        if begun.batch is not None:
            for event in begun.batch.rest(said):
                folded.apply(event)
                yield event
        elif folded.finish_reason != "error" and (auto or folded.response().message is None):
            event = ErrorEvent(error=error)
            folded.apply(event)
            yield event
            manual = []
        yield self._completed(begun, self._answered(thread), self._pending(manual))

    def _tools(
        self, box: Toolbox, auto: list[ToolCall], manual: list[ToolCall], span: telemetry.Span
    ) -> Generator[Any, None, bool]:
        """Give the events of a batch; whether it came to its end."""
        run, apply = self._run, self._folded.apply
        yield GATE
        if run.closed:
            return False
        batch = self.begun.batch = Batch(box, auto, manual, span)
        if not run.work_on(batch):
            return False
        while (events := batch.take()) is not None:
            for event in events:
                apply(event)
                self.begun.said += 1
                yield event
        return run.work_on(None)

    def error(self, error: AllmError) -> ErrorEvent:
        """Make an error event that no adapter sent; it is folded."""
        event = ErrorEvent(error=error)
        self._own_errors.append(event)
        self._folded.apply(event)
        return event

    # --- what becomes of the calls --------------------------------------------------------------------

    def _unknown(self, calls: list[ToolCall], box: Toolbox | None) -> ToolCall | None:
        if box is None:
            return calls[0] if calls else None
        return None if self._mode == "manual" else box.unknown(calls)

    def _parted(self, calls: list[ToolCall], box: Toolbox | None) -> tuple[list[ToolCall], list[ToolCall]]:
        """The calls that are executed here, and those the caller has to answer."""
        if self._mode == "manual" or box is None:
            return [], calls
        manual = {call.id for call in calls if box.tools[call.name].manual}
        return [call for call in calls if call.id not in manual], [
            call for call in calls if call.id in manual
        ]

    def _pending(self, manual: list[ToolCall]) -> list[ToolCall]:
        """The manual calls, unless a halt beat them."""
        return [] if self._folded.step_result().halted_reason is not None else manual

    # --- what becomes of the thread -------------------------------------------------------------------

    def _answered(self, thread: Thread) -> Thread:
        """The thread with the answer, and with what the tools answered to it."""
        response = self._folded.response()
        text = response.output_text or ""
        if response.finish_reason == "error" and not text:
            return thread
        said = Message(
            role="assistant",
            content=to_text(text),
            tool_calls=response.tool_calls if response.finish_reason == "tool_calls" else [],
            provider_data=response.message.provider_data if response.message is not None else {},
        )
        return thread.add_messages([said, *self._folded.step_result().tool_results])

    def _completed(self, turn: Begun, thread: Thread, pending: list[ToolCall]) -> StepCompleted:
        folded = self._folded
        event = StepCompleted(
            response=_response(turn.opened, folded.response()),
            thread=thread,
            mode=self._mode,
            manual_tool_calls=pending,
        )
        folded.apply(event)
        step = folded.steps[-1]
        self._run.end(turn.span, step.error, step_result=step)
        return event


def _response(opened: OpenCall, folded: Response) -> Response:
    """The answer, with what only the library knows of it."""
    ref = capability.lookup(opened.request.model)
    usage = capability.populate_costs(folded.usage, ref)
    return folded.model_copy(update={"request_id": opened.request_id, "usage": usage})


def unknown_tool(call: ToolCall) -> EngineError:
    """The error of a call that names no tool."""
    return EngineError(
        "unknown_tool",
        f"the model called {call.name!r}, which is no tool of this run",
        metadata={"tool_name": call.name, "tool_call_id": call.id},
    )
