"""What handlers and error policies may return beside plain values, and what a batch of calls comes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from pydantic import Field

from allm_actors.data import Message, OtherHalt
from allm_actors.data.base import JsonObject, Model, Opaque
from allm_actors.errors import AllmError

F = TypeVar("F", bound=Callable[..., None])

__all__ = ["RESERVED_HALT_REASONS", "AskUser", "Continue", "Halt", "ToolBatch"]

RESERVED_HALT_REASONS: Final = frozenset(
    {
        "completed",
        "max_turns",
        "halt_when",
        "ask_user",
        "tool_error",
        "manual_tool_calls",
        "error",
        "cancelled",
    }
)
"""Reasons that the library itself reports; a handler's own has to differ."""


def _own_signature(init: F) -> F:
    """Keep a constructor for those who call the class: pydantic goes by the fields when it reads JSON."""
    init.__pydantic_base_init__ = True  # type: ignore[attr-defined]
    return init


class AskUser(Model):
    """Returned by a handler: put a question to the user, and end the run here.

    Args:
        question: The question; not empty.
        **options: JSON values for whoever shows it (choices, say): `ask_user_options` of the result.
    """

    question: str = Field(min_length=1)
    options: JsonObject = Field(default_factory=dict)

    @_own_signature
    def __init__(self, question: str, /, **options: Any) -> None:
        super().__init__(question=question, options=options)  # type: ignore[call-arg]


class Halt(Model):
    """Returned by a handler: end the run here, for a reason of your own.

    Args:
        reason: `halted_reason` of the result; not empty, and none of those the library reports itself.
        result: Encoded into the call's tool message; the object itself is `halt_result`.
    """

    reason: str = Field(min_length=1)
    result: Opaque = None

    @_own_signature
    def __init__(self, reason: str, result: Any = None) -> None:
        super().__init__(reason=reason, result=result)  # type: ignore[call-arg]


class Continue(Model):
    """Returned by an error policy: go on with `result` as the tool's result.

    Args:
        result: Encoded into the call's tool message.
    """

    result: Opaque = None

    @_own_signature
    def __init__(self, result: Any = None) -> None:
        super().__init__(result=result)  # type: ignore[call-arg]


class ToolBatch(Model):
    """What running the calls of one response came to.

    Attributes:
        messages: One tool message for each call, in call order.
        halted_reason: Why the run has to end, `None` if it need not: that of the earliest call that halted.
        other_halts: Further halts, in call order.
    """

    messages: list[Message] = Field(default_factory=list)
    halted_reason: str | None = None
    error: AllmError | None = None
    pending_question: str | None = None
    pending_tool_call_id: str | None = None
    ask_user_options: JsonObject = Field(default_factory=dict)
    halt_tool_call_id: str | None = None
    halt_result: Opaque = None
    other_halts: list[OtherHalt] = Field(default_factory=list)
