"""The operations of a session: what they check, in which order, and what they run.

Argument types come first, then the session's status, then everything a run checks itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import pydantic

from allm_actors.chat._conversation import Conversation
from allm_actors.chat._plan import Asked, ask, plan
from allm_actors.chat._session_state import RESTING, SessionState
from allm_actors.chat.runs import feed
from allm_actors.chat.session_stream import SessionHandle, SessionStream
from allm_actors.data import ImagePart, Message, TextPart, compact_json, to_messages
from allm_actors.errors import SessionError
from allm_actors.errors._json import check_json

if TYPE_CHECKING:
    from allm_actors.data import ChatResult, StepResult, Thread
    from allm_actors.streaming import Mailbox

__all__ = [
    "Operation",
    "answer",
    "check_session",
    "content_of",
    "prepare_continue",
    "prepare_reply",
    "prepare_start",
    "prepare_step",
    "run",
    "stream",
]

S = TypeVar("S", bound=SessionState)

Mode = Literal["chat", "step"]


class Operation(NamedTuple):
    """An operation whose argument types and status were checked: what it goes on from, and how."""

    asked: Asked
    session: Any
    thread: Thread
    mode: Mode = "chat"


# --- those that run turns -----------------------------------------------------------------------------


def prepare_start(asked: Asked, session: SessionState, id: str | None) -> Operation:  # noqa: A002
    """A loop on the session's thread as it is."""
    session.require("start", *RESTING)
    if id is not None and session.id not in (None, id):
        raise ValueError(f"id is {id!r}, but the session's is {session.id!r}")
    if id is not None and session.id is None:
        session = session.changed(id=id)
    return Operation(asked, session, session.thread)


def prepare_reply(engine: Any, session: Any, given: Any, options: Mapping[str, Any]) -> Operation:
    """A loop on the thread with user messages appended."""
    asked = ask(engine, options)
    check_session(session)
    messages = _messages(given)
    session.require("reply", *RESTING, "awaiting_user")
    if not messages:
        raise ValueError("reply needs at least one user message")
    for message in messages:
        if message.role != "user":
            raise ValueError(f"reply takes user messages only, not one of role {message.role!r}")
    return Operation(asked, session, session.thread.add_messages(messages))


def prepare_continue(engine: Any, session: Any, given: Any, options: Mapping[str, Any]) -> Operation:
    """A loop on the thread as it is, or with messages appended."""
    asked = ask(engine, options)
    check_session(session)
    messages = _messages(given) if given is not None else []
    if messages and all(message.role == "user" for message in messages):
        session.require("continue_", *RESTING, "awaiting_user")
    elif messages or session.pending_tool_calls:
        session.require("continue_", *RESTING)
    else:
        session.require("continue_", *RESTING, "awaiting_tools")
    return Operation(asked, session, session.thread.add_messages(messages) if messages else session.thread)


def prepare_step(engine: Any, session: Any, options: Mapping[str, Any]) -> Operation:
    """One turn on the thread as it is."""
    asked = ask(engine, options)
    check_session(session).require("step", *RESTING)
    return Operation(asked, session, session.thread, "step")


def run(operation: Operation) -> tuple[Any, ChatResult | StepResult]:
    """Run an operation to its end."""
    with SessionStream(_opened(operation), operation.session, operation.mode, filtered=False) as events:
        return events.drain()


def stream(operation: Operation, into: Mailbox | None) -> SessionStream[Any] | SessionHandle[Any]:
    """Give the events of an operation, or have them put into a mailbox."""
    if into is None:
        return SessionStream(_opened(operation), operation.session, operation.mode)
    into.check_open()
    handle = feed(
        into,
        _opened(operation),
        lambda source, request_id: SessionHandle(source, request_id, operation.session, operation.mode),
    )
    assert isinstance(handle, SessionHandle)
    return handle


def _opened(operation: Operation) -> Conversation:
    asked, session, thread, mode = operation
    chosen = plan(asked, thread, passes=mode == "chat", context=session.context, session_id=session.id)
    return Conversation(chosen, thread, mode)


def check_session(session: Any) -> Any:
    """Give a session back; raise `TypeError` for anything else."""
    if not isinstance(session, SessionState):
        raise TypeError(f"session must be a Session, not {type(session).__name__}")
    return session


def _messages(given: Any) -> list[Message]:
    if not isinstance(given, (str, Message, list)):
        raise TypeError(
            f"input must be a str, a Message, or a list of strings, messages and message dicts; "
            f"got {type(given).__name__}"
        )
    return to_messages(given)


# --- those that answer calls --------------------------------------------------------------------------


def answer(session: S, operation: str, results: Any) -> S:
    """Append the answers to pending calls: all of them, or none.

    Raises:
        TypeError: Not pairs of a call id and a content.
        SessionError: The status does not allow it; or `unknown_tool_call_id`, for the first id in order that
            is not pending or comes twice.
    """
    pairs = _pairs(results)
    messages = [_answer(call_id, content) for call_id, content in pairs]
    if not pairs:
        return session
    session.require(operation, "awaiting_tools")
    left = {call.id for call in session.pending_tool_calls}
    for call_id, _ in pairs:
        if call_id not in left:
            raise SessionError(
                "unknown_tool_call_id",
                f"no tool call with the id {call_id!r} is pending",
                metadata={"tool_call_id": call_id},
            )
        left.remove(call_id)
    return session.answered({call_id for call_id, _ in pairs}, session.thread.add_messages(messages))


def _pairs(results: Any) -> list[tuple[Any, Any]]:
    if isinstance(results, Mapping):
        return list(results.items())
    if isinstance(results, (str, bytes)) or not hasattr(results, "__iter__"):
        raise TypeError(f"results must be pairs or a mapping, not {type(results).__name__}")
    pairs = []
    for place, pair in enumerate(results):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:  # noqa: PLR2004
            raise TypeError(f"results[{place}] must be a pair of a tool call id and a content")
        pairs.append((pair[0], pair[1]))
    return pairs


def _answer(call_id: Any, content: Any) -> Message:
    if not isinstance(call_id, str):
        raise TypeError(f"tool_call_id must be a str, not {type(call_id).__name__}")
    return Message(role="tool", content=content_of(content), tool_call_id=call_id)


def content_of(content: Any) -> Any:
    """The content of a tool message: text and lists of parts as they are, other JSON values as compact JSON.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content and all(isinstance(p, TextPart | ImagePart) for p in content):
        return content
    try:
        return compact_json(check_json(content))
    except pydantic.ValidationError as error:
        raise TypeError(
            f"content must be text, content parts or a JSON value, not {type(content).__name__}: {error}"
        ) from None
