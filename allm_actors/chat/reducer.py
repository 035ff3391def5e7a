"""The fold of a session's stream into the session and the result it leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from allm_actors.chat._session_state import SessionState
from allm_actors.data import StepResult, StreamCollector

if TYPE_CHECKING:
    from allm_actors.data import ChatResult

__all__ = ["StreamReducer"]

S = TypeVar("S", bound=SessionState)


class StreamReducer(Generic[S]):
    """Folds the events of one session operation.

    A stream that was cut short before it achieved anything leaves the session as it was. If turns had
    completed, what their tools did is real, and is kept.

    Args:
        session: The session the operation was called with; it is never touched.
        mode: Whether the operation runs the loop or one turn.

    Raises:
        TypeError: No session.
        ValueError: Another mode.
    """

    def __init__(self, session: S, mode: Literal["chat", "step"] = "chat") -> None:
        if not isinstance(session, SessionState):
            raise TypeError(f"session must be a Session, not {type(session).__name__}")
        if mode not in ("chat", "step"):
            raise ValueError(f'mode must be "chat" or "step", not {mode!r}')
        self.session: S = session
        self.mode = mode
        self._folded = StreamCollector(session.thread)

    def apply(self, event: Any) -> None:
        """Fold one more event, in place; never raises for an event."""
        self._folded.apply(event)

    def finalize(self) -> tuple[S, ChatResult | StepResult]:
        """Give the session and the result of what was seen so far; any number of times."""
        return self._after_step() if self.mode == "step" else self._after_chat()

    def _after_chat(self) -> tuple[S, ChatResult]:
        folded, session = self._folded, self.session
        result = folded.chat_result()
        if folded.done:
            return session.after_chat(result), result
        steps = folded.steps
        return (session.after_step(steps[-1]) if steps else session), result

    def _after_step(self) -> tuple[S, StepResult]:
        folded, session = self._folded, self.session
        if steps := folded.steps:
            return session.after_step(steps[-1]), steps[-1]
        cut = folded.chat_result()
        result = StepResult(
            thread=cut.thread,
            response=cut.final_response,
            done=True,
            halted_reason=cut.halted_reason,
            error=cut.error,
        )
        return session, result
