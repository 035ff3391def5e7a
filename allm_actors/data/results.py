"""What a step, and a chat of many steps, came to."""

from typing import Literal

from pydantic import Field

from allm_actors.data.base import JsonObject, Model, Opaque
from allm_actors.data.messages import Message, ToolCall
from allm_actors.data.responses import Response
from allm_actors.data.threads import Thread
from allm_actors.errors import AllmError

Mode = Literal["auto", "manual"]


class OtherHalt(Model):
    """A further halt of the same step, beside the one that decided."""

    tool_call_id: str
    halted_reason: str
    metadata: JsonObject = Field(default_factory=dict)


class StepResult(Model):
    """One turn: the model's response, and the results of the tools it asked for.

    Attributes:
        done: Whether there is nothing left to do for this turn's sake: `False` exactly when tool results
            wait to be sent back, or calls are pending.
        halted_reason: Why the loop has to end here, if it has to: an open set.
        manual_tool_calls: The calls the caller must answer, in call order.
        skipped_tool_calls: Manual calls answered as not executed, because the turn was interrupted.
        halt_result: The object a handler halted with.
        other_halts: Further halts of the turn, in call order.
    """

    thread: Thread | None = None
    response: Response | None = None
    tool_results: list[Message] = Field(default_factory=list)
    done: bool = False
    mode: Mode = "auto"
    halted_reason: str | None = None
    error: AllmError | None = None
    pending_question: str | None = None
    pending_tool_call_id: str | None = None
    ask_user_options: JsonObject = Field(default_factory=dict)
    manual_tool_calls: list[ToolCall] = Field(default_factory=list)
    skipped_tool_calls: list[ToolCall] = Field(default_factory=list)
    halt_tool_call_id: str | None = None
    halt_result: Opaque = None
    other_halts: list[OtherHalt] = Field(default_factory=list)
    metadata: JsonObject = Field(default_factory=dict)

    @property
    def text(self) -> str | None:
        """The text of the response, `None` without one; raises the response's error, if it has one."""
        return self.response.text if self.response is not None else None


class ChatResult(Model):
    """A whole run: every step, and why it ended. The fields it shares with `StepResult` are the last step's.

    Attributes:
        halted_reason: `completed`, `error`, `max_turns`, `halt_when`, `ask_user`, `tool_error`,
            `manual_tool_calls`, `cancelled`, or a handler's own.
        pass_1_halted_reason: Of a run in two passes: how the first one ended.
    """

    thread: Thread | None = None
    final_response: Response | None = None
    steps: list[StepResult] = Field(default_factory=list)
    pass_1_halted_reason: str | None = None
    halted_reason: str | None = None
    error: AllmError | None = None
    pending_question: str | None = None
    pending_tool_call_id: str | None = None
    ask_user_options: JsonObject = Field(default_factory=dict)
    manual_tool_calls: list[ToolCall] = Field(default_factory=list)
    skipped_tool_calls: list[ToolCall] = Field(default_factory=list)
    halt_tool_call_id: str | None = None
    halt_result: Opaque = None
    other_halts: list[OtherHalt] = Field(default_factory=list)
    metadata: JsonObject = Field(default_factory=dict)

    def halted(self) -> bool:
        """Whether the run ended for any reason but `completed`."""
        return self.halted_reason not in {None, "completed"}

    @property
    def text(self) -> str | None:
        """The text of the final response, `None` without one; raises the response's error, if it has one."""
        return self.final_response.text if self.final_response is not None else None
