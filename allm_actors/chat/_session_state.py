"""Where a conversation stands: the fields of a session, and the rules they obey.

| status | `pending_tool_calls` | `pending_question`, `pending_tool_call_id` | `error` |
|---|---|---|---|
| `idle` | empty | `None` | `None` |
| `awaiting_user` | empty | set | `None` |
| `awaiting_tools` | at least one | `None` | `None` |
| `completed` | empty | `None` | `None` |
| `error` | empty | `None` | set |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import Field

from allm_actors.data import Thread, ToolCall
from allm_actors.data.base import JsonObject, Model
from allm_actors.errors import AllmError, SessionError

if TYPE_CHECKING:
    from collections.abc import Collection

    from allm_actors.data import ChatResult, StepResult

__all__ = ["RESTING", "SessionState", "Status"]

Status = Literal["idle", "awaiting_user", "awaiting_tools", "completed", "error"]

RESTING: Final = ("idle", "completed")
"""The statuses that wait for nothing in particular."""

_INSTEAD: Final = {
    "idle": "no tool call is pending and there is no error; use reply, continue_ or step",
    "completed": "no tool call is pending and there is no error; use reply, continue_ or step",
    "awaiting_user": "a question is pending; use reply with the user's answer",
    "awaiting_tools": "tool calls are pending; use submit_tool_result for each, then continue_",
    "error": "use reset_error, then the same operation again",
}


class SessionState(Model):
    """The fields of a session; see the module for how they go together.

    Attributes:
        halted_reason: That of the last operation that ran a turn.
        context: The caller's data for tool handlers, JSON.
        metadata: The caller's, untouched.
    """

    id: str | None = None
    thread: Thread = Field(default_factory=Thread)
    status: Status = "idle"
    pending_tool_calls: list[ToolCall] = Field(default_factory=list)
    pending_question: str | None = None
    pending_tool_call_id: str | None = None
    ask_user_options: JsonObject = Field(default_factory=dict)
    halted_reason: str | None = None
    error: AllmError | None = None
    context: JsonObject = Field(default_factory=dict)
    metadata: JsonObject = Field(default_factory=dict)

    def require(self, operation: str, *allowed: Status) -> None:
        """Refuse an operation that this status does not allow.

        Raises:
            SessionError: `session_in_error_state`, or `invalid_status_for_operation`.
        """
        if self.status in allowed:
            return
        raise SessionError(
            "session_in_error_state" if self.status == "error" else "invalid_status_for_operation",
            f"{operation} is not possible while the session is {self.status}: {_INSTEAD[self.status]}",
            metadata={"status": self.status, "operation": operation},
        )

    def changed(self, **changes: Any) -> Self:
        """The session with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def resting(self, status: Status, **changes: Any) -> Self:
        """The session in a status, the fields of all others empty but for those given."""
        empty: dict[str, Any] = {
            "pending_tool_calls": [],
            "pending_question": None,
            "pending_tool_call_id": None,
            "ask_user_options": {},
            "error": None,
        }
        return self.changed(status=status, **{**empty, **changes})

    def after_chat(self, result: ChatResult) -> Self:
        """The session after a loop."""
        match result.halted_reason:
            case "ask_user":
                return self._asking(result)
            case "manual_tool_calls":
                return self._after("awaiting_tools", result, pending_tool_calls=result.manual_tool_calls)
            case "tool_error" | "error":
                return self._after("error", result, error=result.error)
            case _:
                return self._after("completed", result)

    def after_step(self, step: StepResult) -> Self:
        """The session after one turn."""
        if step.halted_reason == "ask_user":
            return self._asking(step)
        if step.halted_reason in ("tool_error", "error"):
            return self._after("error", step, error=step.error)
        if step.manual_tool_calls:
            return self._after("awaiting_tools", step, pending_tool_calls=step.manual_tool_calls)
        return self._after("completed" if step.done else "idle", step)

    def _asking(self, result: ChatResult | StepResult) -> Self:
        return self._after(
            "awaiting_user",
            result,
            pending_question=result.pending_question,
            pending_tool_call_id=result.pending_tool_call_id,
            ask_user_options=result.ask_user_options,
        )

    def _after(self, status: Status, result: ChatResult | StepResult, **changes: Any) -> Self:
        thread = self.thread if result.thread is None else result.thread
        return self.resting(status, thread=thread, halted_reason=result.halted_reason, **changes)

    def answered(self, ids: Collection[str], thread: Thread) -> Self:
        """The session without these pending calls."""
        left = [call for call in self.pending_tool_calls if call.id not in ids]
        return self.changed(
            thread=thread, pending_tool_calls=left, status="awaiting_tools" if left else "idle"
        )
