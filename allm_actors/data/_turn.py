"""One turn while it is being folded: the answer so far, and what its tools reported."""

from typing import Any

from allm_actors.data._arguments import complete_arguments
from allm_actors.data.messages import Message, ToolCall
from allm_actors.data.responses import FinishReason, Response, Usage
from allm_actors.data.results import OtherHalt, StepResult
from allm_actors.data.threads import Thread
from allm_actors.errors import AllmError


class CallSoFar:
    """A tool call in the making: its argument text in pieces, until it completes."""

    __slots__ = ("completed", "id", "name", "pieces")

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.pieces: list[str] = []
        self.completed: ToolCall | None = None

    def twin(self) -> "CallSoFar":
        """Return another call in the same state."""
        twin = CallSoFar(self.id, self.name)
        twin.pieces, twin.completed = list(self.pieces), self.completed
        return twin

    def tool_call(self) -> ToolCall:
        """Return the call as it stands."""
        if self.completed is not None:
            if self.completed.name == self.name:
                return self.completed
            return self.completed.model_copy(update={"name": self.name})
        text = "".join(self.pieces)
        self.pieces = [text]
        arguments, _ = complete_arguments(text)
        return ToolCall(id=self.id, name=self.name, arguments=arguments, raw_arguments=text)


class Turn:
    """The state of one turn; a new turn is a new object.

    Attributes:
        touched: Whether any event has had an effect here.
        failure: The error seen in this turn.
        results: The tool messages, by call id.
        executed: The ids of calls whose handlers ended.
        halts: The halts, by call id: the fields they give a step's result.
    """

    __slots__ = (
        "calls",
        "executed",
        "failure",
        "finish_reason",
        "halts",
        "message",
        "model",
        "pieces",
        "provider_data",
        "raw_finish_reason",
        "reasoning",
        "refusal",
        "response_id",
        "results",
        "touched",
        "usage",
    )

    def __init__(self) -> None:
        self.touched = False
        self.pieces: list[str] = []
        self.calls: dict[str, CallSoFar] = {}
        self.message: Message | None = None
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason: str | None = None
        self.response_id: str | None = None
        self.model: str | None = None
        self.usage = Usage()
        self.reasoning: str | None = None
        self.refusal: str | None = None
        self.provider_data: dict[str, Any] = {}
        self.failure: AllmError | None = None
        self.results: dict[str, Message] = {}
        self.executed: set[str] = set()
        self.halts: dict[str, dict[str, Any]] = {}

    def __copy__(self) -> "Turn":
        """Another turn in the same state."""
        twin = Turn()
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(twin, name, value.copy() if isinstance(value, (list, dict, set)) else value)
        twin.calls = {call_id: call.twin() for call_id, call in self.calls.items()}
        return twin

    def text(self) -> str:
        """Return the text so far."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def tool_calls(self) -> list[ToolCall]:
        """Return the calls so far, first seen first."""
        return [call.tool_call() for call in self.calls.values()]

    def response(self, error: AllmError | None) -> Response:
        """Return the answer so far."""
        return Response(
            id=self.response_id,
            model=self.model,
            message=self.message,
            output_text=self.text(),
            tool_calls=self.tool_calls(),
            finish_reason=self.finish_reason,
            raw_finish_reason=self.raw_finish_reason,
            reasoning=self.reasoning,
            refusal=self.refusal,
            usage=self.usage,
            error=error,
            provider_data=self.provider_data,
        )

    def step_result(self, response: Response, thread: Thread, **fields: Any) -> StepResult:
        """Return the step that this turn, with this response, comes to.

        Args:
            response: Its calls give the order of results and halts, its finish reason tells whether they
                count.
            thread: The conversation after the step.
            fields: Further fields of the result.
        """
        places = {call.id: place for place, call in enumerate(response.tool_calls)}

        def in_call_order(call_id: str) -> int:
            return places.get(call_id, len(places))

        halts = [(call_id, self.halts[call_id]) for call_id in sorted(self.halts, key=in_call_order)]
        decided: dict[str, Any] = {}
        if self.failure is not None:
            decided = {"halted_reason": "error", "error": self.failure}
        elif halts:
            decided = halts.pop(0)[1]
        idle = response.finish_reason != "tool_calls" or not response.tool_calls
        return StepResult(
            thread=thread,
            response=response,
            tool_results=[self.results[call_id] for call_id in sorted(self.results, key=in_call_order)],
            done=bool(decided) or idle,
            skipped_tool_calls=[call for call in response.tool_calls if self._was_skipped(call.id)],
            other_halts=[
                OtherHalt(tool_call_id=call_id, halted_reason=halt["halted_reason"])
                for call_id, halt in halts
            ],
            **decided,
            **fields,
        )

    def _was_skipped(self, call_id: str) -> bool:
        """Whether a call was answered although no handler ran for it."""
        return call_id in self.results and call_id not in self.executed and call_id not in self.halts
