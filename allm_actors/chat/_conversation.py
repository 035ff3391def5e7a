"""A step or a chat as one run: the loop over turns, and what it comes to.

Guarantees:
    - Each model request and each batch of tools begins only when the consumer has taken everything before it
      and asked for more.
    - What goes wrong once the first request passed its checks is part of the result: an error event, and the
      turns that were completed.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from allm_actors import telemetry
from allm_actors.chat._driver import RunTap
from allm_actors.chat._source import GATE, Run
from allm_actors.chat._turn import Begun, OpenTurn, Turns
from allm_actors.data import (
    ChatCompleted,
    ChatResult,
    ErrorEvent,
    Message,
    StreamCollector,
    ToolExecutionCompleted,
    ToolExecutionStarted,
    user,
)
from allm_actors.data.base import to_text
from allm_actors.data.events import AskUserRequested, StepCompleted, ToolHalt, ToolResultEncoded
from allm_actors.errors import AdapterError, AllmError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from allm_actors.chat._plan import Pass, Plan
    from allm_actors.data import Event, StepResult, Thread
    from allm_actors.streaming.filters import Filter

__all__ = ["Conversation"]

_OWN_EVENTS: Final = frozenset(
    {
        ToolExecutionStarted,
        ToolExecutionCompleted,
        ToolResultEncoded,
        AskUserRequested,
        ToolHalt,
        StepCompleted,
        ChatCompleted,
    }
)

_FINAL_ANSWER_FOLLOWS: Final = frozenset({"completed", "max_turns", "halt_when"})


class Conversation:
    """One step or one chat, its first request checked and not yet sent.

    Args:
        plan: What it is to do.
        thread: What it goes on from.
        name: Which of the two.

    Raises:
        AllmError: What is wrong with the first request.
        Exception: A bug of the adapter.

    Attributes:
        folded: The fold of everything it says: where results come from.
        run: What stops it.
        passes: What the consumer wants to see.
        last: The class of its last event.
    """

    def __init__(self, plan: Plan, thread: Thread, name: telemetry.SpanName) -> None:
        self.folded = StreamCollector(thread)
        self.run = Run()
        self.request_id = plan.request_id
        self._plan = plan
        self._own_errors: list[ErrorEvent] = []
        self._first_ended: str | None = None
        self._turns = Turns(self.run, self.folded, plan.options.mode, self._own_errors)
        self._chat = self._span("chat", None) if name == "chat" else None
        try:
            turn = self._open(plan.first, thread)
        except BaseException as error:
            self.run.close(error.replace() if isinstance(error, AllmError) else error)
            raise
        chosen = turn.opened.options
        self.passes: Filter | None = turn.opened.passes()
        self.on_event = _on_adapter_events(chosen.on_event, self._own_errors)
        self.run.work_on(turn.tap)
        self._turns.begin(turn, thread, plan.toolbox)
        self.last: type = ChatCompleted if name == "chat" else StepCompleted
        if name == "chat":
            self.run.begin(self._loop(turn, thread), self._listen)
        else:
            self.run.begin(self._turns.run(turn, thread, plan.toolbox), self._listen)

    def tap(self) -> RunTap:
        """What an event stream reads."""
        return RunTap(self.run)

    # --- opening --------------------------------------------------------------------------------------

    def _span(self, name: telemetry.SpanName, parent: telemetry.Span | None) -> telemetry.Span:
        details = {"session_id": self._plan.options.session_id}
        return self.run.span(telemetry.start(name, self._plan.metadata, parent=parent, details=details))

    def _open(self, chosen: Pass, thread: Thread) -> OpenTurn:
        span = self._span("step", self._chat)
        return OpenTurn(chosen.open(thread, span, lambda: not self.run.closed), span)

    # --- the loop -------------------------------------------------------------------------------------

    def _loop(self, turn: OpenTurn, thread: Thread) -> Generator[Any, None, None]:
        result = yield from self._first_pass(turn, thread)
        if result is not None and self._plan.options.structured_finalize:
            result = yield from self._second_pass(result)
        if result is None:
            return
        event = ChatCompleted(result=result)
        self.folded.apply(event)
        if self._chat is not None:
            self.run.end(self._chat, result.error, chat_result=result)
        yield event

    def _first_pass(self, turn: OpenTurn | None, thread: Thread) -> Generator[Any, None, ChatResult | None]:
        plan, made = self._plan, 0
        while turn is not None:
            step = yield from self._turns.run(turn, thread, plan.toolbox)
            if step is None:
                return None
            assert step.thread is not None
            thread, made = step.thread, made + 1
            reason = _decided(step)
            if reason is None:
                yield GATE
                if self.run.closed:
                    return None
                reason = self._judged(step, made)
            if reason is not None:
                return self._result(reason, step.error, _with_question(thread, step))
            turn = yield from self._next(plan.first, thread)
        if self.run.closed:
            return None
        return self._result("error", self.folded.error, thread)

    def _judged(self, step: StepResult, made: int) -> str | None:
        """Why a loop that could go on does not."""
        halt_when = self._plan.options.halt_when
        if halt_when is not None and halt_when(step):
            return "halt_when"
        return "max_turns" if made >= self._plan.options.max_turns else None

    def _second_pass(self, first: ChatResult) -> Generator[Any, None, ChatResult | None]:
        """The structured answer: one more turn, without tools."""
        reason, last = first.halted_reason, self._plan.second
        if reason not in _FINAL_ANSWER_FOLLOWS or last is None:
            return first.model_copy(update={"pass_1_halted_reason": reason})
        assert first.thread is not None
        nudge = self._plan.options.structured_finalize_nudge
        thread = first.thread.add_message(user(nudge)) if nudge else first.thread
        self._first_ended = reason
        yield GATE
        if self.run.closed:
            return None
        turn = yield from self._next(last, thread)
        if turn is None:
            if self.run.closed:
                return None
            result = self._result("error", self.folded.error, first.thread)
        else:
            step = yield from self._turns.run(turn, thread, None)
            if step is None:
                return None
            result = self._result(_decided(step) or "completed", step.error, step.thread)
        return result.model_copy(update={"pass_1_halted_reason": reason})

    def _next(self, chosen: Pass, thread: Thread) -> Generator[Any, None, OpenTurn | None]:
        """Open a later turn; if that fails, an error event says why. `None`, too, once the run is closed."""
        if self.run.closed:
            return None
        try:
            turn = self._open(chosen, thread)
        except AllmError as error:
            failure = error.replace()
        else:
            if self.run.work_on(turn.tap):
                return turn
            return None
        self.run.end_last(failure)
        if self.run.closed:
            return None
        yield self._turns.error(failure)
        return None

    def _result(
        self,
        reason: str | None,
        error: AllmError | None,
        thread: Thread | None,
        folded: StreamCollector | None = None,
    ) -> ChatResult:
        """What the turns so far come to, for a reason the fold of a stream cannot know."""
        result = (folded or self.folded).chat_result()
        return result.model_copy(update={"halted_reason": reason, "error": error, "thread": thread})

    # --- the end that comes from outside --------------------------------------------------------------

    def _listen(self) -> _Listener:
        return _Listener(self.rest, copy.copy(self.folded), self._turns.begun.said)

    def rest(self, folded: StreamCollector, said: int, error: AdapterError) -> Generator[Any, None, None]:
        """Give what is left of a run that nobody advances any more.

        Args:
            folded: The fold of what the reader was given; goes on with what is given here.
            said: How many events of the last turn's tools were among it.
            error: Why it goes no further.
        """
        turns = Turns(self.run, folded, self._plan.options.mode, self._own_errors)
        begun = self._turns.begun
        if folded.done or (self.last is StepCompleted and folded.steps):
            return
        if begun.place == len(folded.steps):
            yield from turns.rest(begun, said, error)
        if self.last is ChatCompleted:
            yield from self._ended_early(folded, turns, begun, error)

    def _ended_early(
        self, folded: StreamCollector, turns: Turns, begun: Begun, error: AdapterError
    ) -> Generator[Any, None, None]:
        """Give the end of a chat whose turns are over: what they come to, or why no more follow."""
        step = folded.steps[-1]
        assert step.thread is not None
        reason, thread = _decided(step), step.thread
        two, second = self._plan.options.structured_finalize, begun.box is None
        first_ended = self._first_ended or reason or "error"
        if second:
            reason = reason or "completed"
        elif two and first_ended in _FINAL_ANSWER_FOLLOWS:
            reason = None
        if reason is None:
            if folded.finish_reason != "error":  # else a turn could not be opened, and that was said
                yield turns.error(error)
            result = self._result("error", folded.error, thread, folded)
        else:
            result = self._result(reason, step.error, _with_question(thread, step), folded)
        if two:
            result = result.model_copy(update={"pass_1_halted_reason": first_ended})
        if self._chat is not None:
            self.run.end(self._chat, result.error, chat_result=result)
        yield ChatCompleted(result=result)


class _Listener:
    """What the reader of a driven conversation was given."""

    def __init__(
        self,
        rest: Callable[[StreamCollector, int, AdapterError], Generator[Any, None, None]],
        folded: StreamCollector,
        said: int,
    ) -> None:
        self._rest, self._folded, self._said = rest, folded, said

    def note(self, event: Any) -> None:
        """Take notice of an event."""
        self._folded.apply(event)
        kind = type(event)
        if kind in _OWN_EVENTS:
            self._said = 0 if kind is StepCompleted else self._said + 1

    def rest(self, error: AdapterError) -> list[Any]:
        """The events that are left."""
        return list(self._rest(self._folded, self._said, error))


def _decided(step: StepResult) -> str | None:
    """Why the loop ends with this step, whatever the caller's own conditions say."""
    if step.halted_reason is not None:
        return step.halted_reason
    if step.manual_tool_calls:
        return "manual_tool_calls"
    return "completed" if step.done else None


def _with_question(thread: Thread, step: StepResult) -> Thread:
    """The thread with the question a tool put to the user, if it did."""
    if step.halted_reason != "ask_user" or step.pending_question is None:
        return thread
    return thread.add_message(
        Message(
            role="assistant", content=to_text(step.pending_question), ask_user_for=step.pending_tool_call_id
        )
    )


def _on_adapter_events(
    on_event: Callable[[Event], object] | None, own_errors: list[ErrorEvent]
) -> Callable[[Event], object] | None:
    """The caller's observer, told of what adapters say and of nothing else."""
    if on_event is None:
        return None

    def observe(event: Event) -> object:
        kind = type(event)
        if kind in _OWN_EVENTS or (kind is ErrorEvent and any(event is own for own in own_errors)):
            return None
        return on_event(event)

    return observe
