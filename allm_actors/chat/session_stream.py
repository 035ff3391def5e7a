"""The stream of a session's operation, which knows what its events will have made of the session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from allm_actors.chat._session_state import SessionState
from allm_actors.chat.reducer import StreamReducer
from allm_actors.data import Event
from allm_actors.streaming import EventStream, StreamHandle

if TYPE_CHECKING:
    from allm_actors.chat._conversation import Conversation
    from allm_actors.data import ChatResult, StepResult

__all__ = ["SessionHandle", "SessionStream"]

S = TypeVar("S", bound=SessionState)

Mode = Literal["chat", "step"]


class SessionStream(EventStream[Event], Generic[S]):
    """An `EventStream` of one operation.

    Attributes:
        session: The session the operation was called with, or the one made from its input.
    """

    def __init__(self, conversation: Conversation, session: S, mode: Mode, *, filtered: bool = True) -> None:
        super().__init__(
            conversation.tap(),
            request_id=conversation.request_id,
            on_event=conversation.on_event,
            passes=conversation.passes if filtered else None,
        )
        self.session: S = session
        self._mode: Mode = mode
        self._folded = self.reducer()

    def reducer(self) -> StreamReducer[S]:
        """A reducer for these events."""
        return StreamReducer(self.session, self._mode)

    def drain(self) -> tuple[S, ChatResult | StepResult]:
        """Consume the rest; the session and the result that all events of the stream lead to."""
        for _ in self:
            pass
        return self._folded.finalize()

    def __next__(self) -> Event:
        """The next event: see `EventStream`."""
        event = super().__next__()
        self._folded.apply(event)
        return event

    async def __anext__(self) -> Event:
        """The next event, without blocking the loop: see `EventStream`."""
        event = await super().__anext__()
        self._folded.apply(event)
        return event


class SessionHandle(StreamHandle, Generic[S]):
    """One operation that feeds a mailbox.

    Attributes:
        session: The session the operation was called with, or the one made from its input.
    """

    def __init__(self, feed: Any, request_id: str, session: S, mode: Mode) -> None:
        super().__init__(feed, request_id)
        self.session: S = session
        self._mode: Mode = mode

    def reducer(self) -> StreamReducer[S]:
        """A reducer for the events of this stream."""
        return StreamReducer(self.session, self._mode)
