"""The fold of a stream of events into a response, a step's result, a chat's result.

Guarantees:
    - `apply` costs the same however long the text has become, and never raises for an event: what is not
      one, or has no effect here, changes nothing.
    - Everything can be read at any time, and what was read does not change afterwards.
    - A collector is not shared between threads.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any, Self

import pydantic

from allm_actors.data._opaque import described
from allm_actors.data._turn import CallSoFar, Turn
from allm_actors.data.events import (
    AskUserRequested,
    ChatCompleted,
    ErrorEvent,
    MessageCompleted,
    RawChunk,
    StepCompleted,
    TextCompleted,
    TextDelta,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionCompleted,
    ToolHalt,
    ToolResultEncoded,
)
from allm_actors.data.messages import ToolCall
from allm_actors.data.requests import tool_result
from allm_actors.data.responses import FinishReason, Response, Usage
from allm_actors.data.results import ChatResult, StepResult
from allm_actors.data.threads import Thread
from allm_actors.errors import AllmError, StreamError

AWAITING_USER = "<awaiting user response>"
"""The content of the tool message of a call that asks the user."""

_HALT_FIELDS = (
    "pending_question",
    "pending_tool_call_id",
    "ask_user_options",
    "manual_tool_calls",
    "skipped_tool_calls",
    "halt_tool_call_id",
    "halt_result",
    "other_halts",
)


class StreamCollector:
    """A mutable fold over events.

    Attributes:
        thread: The conversation the stream goes on from: the one given, then that of the last completed step.
        error: The error seen last, in any turn.
        done: Whether the result of a chat was seen.
    """

    def __init__(self, thread: Thread | None = None) -> None:
        if not isinstance(thread, Thread | None):
            raise TypeError(f"thread must be a Thread or None, got {type(thread).__name__}")
        self.thread: Thread | None = thread
        self.error: AllmError | None = None
        self.done: bool = False
        self._failure: AllmError | None = None  # the error seen last that was not a cancellation
        self._steps: list[StepResult] = []
        self._result: ChatResult | None = None
        self._turn = Turn()

    @classmethod
    def collect(cls, events: Iterable[Any], thread: Thread | None = None) -> Self:
        """Return the collector that has seen these events."""
        collector = cls(thread)
        for event in events:
            collector.apply(event)
        return collector

    def apply(self, event: Any) -> None:
        """Fold one more event, in place."""
        rule = _RULES.get(type(event))
        if rule is None:
            rule = next((_RULES[kind] for kind in type(event).__mro__ if kind in _RULES), None)
            if rule is None:
                return
        rule(self, event)

    def __copy__(self) -> Self:
        """A collector that has seen the same, and goes on by itself."""
        twin = type(self)(self.thread)
        twin.__dict__.update(self.__dict__, _steps=list(self._steps), _turn=copy.copy(self._turn))
        return twin

    @property
    def text(self) -> str:
        """The text of this turn so far."""
        return self._turn.text()

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls of this turn so far, first seen first."""
        return self._turn.tool_calls()

    @property
    def usage(self) -> Usage:
        """The usage reported last in this turn."""
        return self._turn.usage

    @property
    def finish_reason(self) -> FinishReason | None:
        """How the answer of this turn ended, `None` if it has not; `error` once an error was seen."""
        return self._turn.finish_reason

    @property
    def steps(self) -> list[StepResult]:
        """The completed steps."""
        return list(self._steps)

    def response(self) -> Response:
        """Return the answer so far; `output_text` is `""` when there is no text."""
        return self._turn.response(self.error)

    def step_result(self) -> StepResult:
        """Return the step being folded; right after a `StepCompleted`, the one just completed.

        Raises:
            ValueError: There is no thread.
        """
        if self._steps and not self._turn.touched:
            return self._steps[-1]
        return self._turn.step_result(self.response(), self._required_thread("a step's result"))

    def chat_result(self) -> ChatResult:
        """Return the chat's result if it was seen; else what a chat cut short here comes to.

        Raises:
            ValueError: It was not seen, and there is no thread.
        """
        if self._result is not None:
            return self._result
        thread = self._required_thread("a chat's result")
        last = self._steps[-1] if self._steps else None
        fields = {name: getattr(last, name) for name in _HALT_FIELDS} if last is not None else {}
        return ChatResult(
            thread=thread,
            final_response=last.response if last is not None else self.response(),
            steps=self._steps,
            halted_reason="cancelled" if self._failure is None else "error",
            error=self._failure,
            **fields,
        )

    def _required_thread(self, what: str) -> Thread:
        if self.thread is None:
            raise ValueError(
                f"{what} needs a thread: give one to the collector, or read response(), which needs none"
            )
        return self.thread

    # One method per rule. The two that run once per token check their one field themselves; the others have
    # the event checked by `_checked`, for an event built past its checks must change nothing.

    def _text_delta(self, event: TextDelta) -> None:
        turn = self._turn
        delta = getattr(event, "delta", None)
        if isinstance(delta, str):
            turn.touched = True
            turn.pieces.append(delta)

    def _tool_call_delta(self, event: ToolCallDelta) -> None:
        call_id, delta = getattr(event, "id", None), getattr(event, "arguments_delta", None)
        if isinstance(call_id, str) and isinstance(delta, str):
            call = self._call(call_id)
            if call.completed is None:
                call.pieces.append(delta)

    def _text_completed(self, event: TextCompleted) -> None:
        self._touch().pieces = [event.text]

    def _tool_call_started(self, event: ToolCallStarted) -> None:
        call = self._call(event.id)
        call.name = call.name or event.name

    def _tool_call_completed(self, event: ToolCallCompleted) -> None:
        call = self._call(event.id)
        call.name = event.name
        call.completed = ToolCall(
            id=event.id,
            name=event.name,
            arguments=event.arguments,
            raw_arguments=event.raw_arguments,
            provider_data=event.provider_data,
        )

    def _message_completed(self, event: MessageCompleted) -> None:
        turn = self._touch()
        turn.message = event.message
        if event.finish_reason is not None and turn.failure is None:
            turn.finish_reason = event.finish_reason
        for name in ("raw_finish_reason", "response_id", "model", "usage", "reasoning", "refusal"):
            value = getattr(event, name)
            if value is not None:
                setattr(turn, name, value)
        turn.provider_data = {**turn.provider_data, **event.provider_data}

    def _raw_chunk(self, event: RawChunk) -> None:
        payload = getattr(event, "payload", None)
        if isinstance(payload, Usage) and getattr(event, "kind", None) == "usage":
            self._touch().usage = payload

    def _error(self, event: ErrorEvent) -> None:
        turn = self._touch()
        turn.finish_reason = "error"
        turn.failure = self.error = event.error
        if not (isinstance(event.error, StreamError) and event.error.reason == "cancelled"):
            self._failure = event.error

    def _tool_execution_completed(self, event: ToolExecutionCompleted) -> None:
        self._touch().executed.add(event.id)

    def _tool_result_encoded(self, event: ToolResultEncoded) -> None:
        self._touch().results[event.id] = tool_result(event.id, event.content)

    def _ask_user_requested(self, event: AskUserRequested) -> None:
        turn = self._touch()
        turn.results[event.tool_call_id] = tool_result(event.tool_call_id, AWAITING_USER)
        turn.halts[event.tool_call_id] = {
            "halted_reason": "ask_user",
            "pending_question": event.question,
            "pending_tool_call_id": event.tool_call_id,
            "ask_user_options": event.options,
        }

    def _tool_halt(self, event: ToolHalt) -> None:
        turn = self._touch()
        content = described(event.result) if event.content is None else event.content
        turn.results[event.tool_call_id] = tool_result(event.tool_call_id, content)
        turn.halts[event.tool_call_id] = {
            "halted_reason": event.reason,
            "halt_tool_call_id": event.tool_call_id,
            "halt_result": event.result,
            "error": event.error,
        }

    def _step_completed(self, event: StepCompleted) -> None:
        step = self._turn.step_result(
            event.response, event.thread, mode=event.mode, manual_tool_calls=event.manual_tool_calls
        )
        self._steps.append(step)
        self.thread = event.thread
        self._turn = Turn()

    def _chat_completed(self, event: ChatCompleted) -> None:
        self._result = event.result
        self.done = True

    def _touch(self) -> Turn:
        self._turn.touched = True
        return self._turn

    def _call(self, call_id: str) -> CallSoFar:
        calls = self._touch().calls
        call = calls.get(call_id)
        if call is None:
            call = calls[call_id] = CallSoFar(call_id, "")
        return call


_Rule = Callable[[StreamCollector, Any], None]


def _checked(rule: _Rule) -> _Rule:
    """Apply a rule to events that are what they say they are."""

    def apply(collector: StreamCollector, event: Any) -> None:
        try:
            type(event).__pydantic_validator__.validate_python(event.__dict__)
        except pydantic.ValidationError:
            return
        rule(collector, event)

    return apply


_RULES: dict[type, _Rule] = {
    TextDelta: StreamCollector._text_delta,  # noqa: SLF001 - the class's own table
    TextCompleted: _checked(StreamCollector._text_completed),  # noqa: SLF001
    ToolCallStarted: _checked(StreamCollector._tool_call_started),  # noqa: SLF001
    ToolCallDelta: StreamCollector._tool_call_delta,  # noqa: SLF001
    ToolCallCompleted: _checked(StreamCollector._tool_call_completed),  # noqa: SLF001
    MessageCompleted: _checked(StreamCollector._message_completed),  # noqa: SLF001
    RawChunk: StreamCollector._raw_chunk,  # noqa: SLF001
    ErrorEvent: _checked(StreamCollector._error),  # noqa: SLF001
    ToolExecutionCompleted: _checked(StreamCollector._tool_execution_completed),  # noqa: SLF001
    ToolResultEncoded: _checked(StreamCollector._tool_result_encoded),  # noqa: SLF001
    AskUserRequested: _checked(StreamCollector._ask_user_requested),  # noqa: SLF001
    ToolHalt: _checked(StreamCollector._tool_halt),  # noqa: SLF001
    StepCompleted: _checked(StreamCollector._step_completed),  # noqa: SLF001
    ChatCompleted: _checked(StreamCollector._chat_completed),  # noqa: SLF001
}
