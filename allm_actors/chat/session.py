"""A conversation as data: where it stands, what it waits for, and the operations that take it on.

A `Session` is a frozen value that can be written as JSON at any moment and read in another program. It holds
no engine, no callable and no mode: those are arguments of the operation that runs it.

```python
session, result = Session.start(engine, "Plan a weekend in Kyoto.", id="kyoto")
path.write_text(session.model_dump_json())
...
session = Session.model_validate_json(path.read_text())
session, result = Session.reply(engine, session, "Make it a rainy one.")
```

Guarantees:
    - An operation leaves the session it was given as it was; what came of it is a new one.
    - After every operation the status and the fields that go with it agree.
    - Once the first request of an operation passed its checks, what fails is data: `status == "error"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from allm_actors.chat import _operations as ops
from allm_actors.chat._plan import ask
from allm_actors.chat._session_state import SessionState
from allm_actors.chat.runs import check_into
from allm_actors.data import Message, to_thread, user
from allm_actors.streaming.options import seal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from allm_actors.chat.session_stream import SessionHandle, SessionStream
    from allm_actors.data import ChatResult, StepResult
    from allm_actors.engine import Engine
    from allm_actors.engine.processes import EngineRef
    from allm_actors.streaming import Mailbox

__all__ = ["Session"]


class Session(SessionState):
    """A conversation that can be put down and taken up again, anywhere.

    The status says what may happen next:

    | status | next |
    |---|---|
    | `idle`, `completed` | `reply`, `continue_`, `start`, `step` |
    | `awaiting_user` | `reply` |
    | `awaiting_tools` | `submit_tool_result` for each pending call, then `continue_` or `step` |
    | `error` | `reset_error` |

    Operations that a status does not allow raise `SessionError`. Every operation that runs turns takes the
    options of `chat`; nothing of them is remembered.
    """

    @staticmethod
    def start(
        engine: Engine | EngineRef | str,
        session_input: Any,
        *,
        id: str | None = None,  # noqa: A002
        **options: Any,
    ) -> tuple[Session, ChatResult]:
        """Run the loop on a new conversation, or on a session's thread as it is.

        Args:
            engine: An `Engine`, a started engine's `EngineRef`, or the name it has.
            session_input: Text, messages, a `Thread`, or a `Session` to go on with.
            id: Names the new session.
            **options: Those of `chat`.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An impossible option, or an `id` other than the session's.
            SessionError: The status does not allow it.
            AllmError: What is wrong with the first request.
            Exception: What a callback raised, or the bug of an adapter.
        """
        seal(options)
        session, result = ops.run(_start(engine, session_input, id, options))
        return session, result  # type: ignore[return-value]

    @staticmethod
    def reply(
        engine: Engine | EngineRef | str,
        session: Session,
        input: Any,  # noqa: A002
        **options: Any,
    ) -> tuple[Session, ChatResult]:
        """Append what the user says, an answer to a question for one, and run the loop.

        Args:
            engine: As for `start`.
            session: Where to go on.
            input: Text, or user messages.
            **options: As for `start`.

        Raises:
            Exception: As `start`; a `ValueError` for a message of another role.
        """
        seal(options)
        after, result = ops.run(ops.prepare_reply(engine, session, input, options))
        return after, result  # type: ignore[return-value]

    @staticmethod
    def continue_(
        engine: Engine | EngineRef | str,
        session: Session,
        input: Any = None,  # noqa: A002
        **options: Any,
    ) -> tuple[Session, ChatResult]:
        """Run the loop on the thread as it is, or with messages of any role appended.

        Args:
            engine: As for `start`.
            session: Where to go on.
            input: Text or messages; `None` for none.
            **options: As for `start`.

        Raises:
            Exception: As `start`.
        """
        seal(options)
        after, result = ops.run(ops.prepare_continue(engine, session, input, options))
        return after, result  # type: ignore[return-value]

    @staticmethod
    def step(
        engine: Engine | EngineRef | str, session: Session, **options: Any
    ) -> tuple[Session, StepResult]:
        """Run one turn on the thread as it is.

        Args:
            engine: As for `start`.
            session: Where to go on.
            **options: As for `start`.

        Raises:
            Exception: As `start`.
        """
        seal(options)
        after, result = ops.run(ops.prepare_step(engine, session, options))
        return after, result  # type: ignore[return-value]

    # --- the same as streams --------------------------------------------------------------------------

    @overload
    @staticmethod
    def stream_start(
        engine: Engine | EngineRef | str,
        session_input: Any,
        *,
        id: str | None = None,
        into: None = None,
        **options: Any,
    ) -> SessionStream[Session]: ...
    @overload
    @staticmethod
    def stream_start(
        engine: Engine | EngineRef | str,
        session_input: Any,
        *,
        id: str | None = None,
        into: Mailbox,
        **options: Any,
    ) -> SessionHandle[Session]: ...
    @staticmethod
    def stream_start(
        engine: Engine | EngineRef | str,
        session_input: Any,
        *,
        id: str | None = None,  # noqa: A002
        into: Mailbox | None = None,
        **options: Any,
    ) -> SessionStream[Session] | SessionHandle[Session]:
        """`start` as a stream of events.

        Args:
            engine: As for `start`.
            session_input: As for `start`.
            id: As for `start`.
            into: A mailbox to feed instead; the request goes out at once.
            **options: As for `start`.

        Raises:
            Exception: As `start`, from the call itself.
        """
        seal(options)
        check_into(into)
        return ops.stream(_start(engine, session_input, id, options), into)

    @overload
    @staticmethod
    def stream_reply(
        engine: Engine | EngineRef | str, session: Session, input: Any, *, into: None = None, **options: Any
    ) -> SessionStream[Session]: ...
    @overload
    @staticmethod
    def stream_reply(
        engine: Engine | EngineRef | str, session: Session, input: Any, *, into: Mailbox, **options: Any
    ) -> SessionHandle[Session]: ...
    @staticmethod
    def stream_reply(
        engine: Engine | EngineRef | str,
        session: Session,
        input: Any,  # noqa: A002
        *,
        into: Mailbox | None = None,
        **options: Any,
    ) -> SessionStream[Session] | SessionHandle[Session]:
        """`reply` as a stream of events.

        Args:
            engine: As for `reply`.
            session: As for `reply`.
            input: As for `reply`.
            into: A mailbox to feed instead; the request goes out at once.
            **options: As for `reply`.

        Raises:
            Exception: As `reply`, from the call itself.
        """
        seal(options)
        check_into(into)
        return ops.stream(ops.prepare_reply(engine, session, input, options), into)

    @overload
    @staticmethod
    def stream_continue(
        engine: Engine | EngineRef | str,
        session: Session,
        input: Any = None,
        *,
        into: None = None,
        **options: Any,
    ) -> SessionStream[Session]: ...
    @overload
    @staticmethod
    def stream_continue(
        engine: Engine | EngineRef | str,
        session: Session,
        input: Any = None,
        *,
        into: Mailbox,
        **options: Any,
    ) -> SessionHandle[Session]: ...
    @staticmethod
    def stream_continue(
        engine: Engine | EngineRef | str,
        session: Session,
        input: Any = None,  # noqa: A002
        *,
        into: Mailbox | None = None,
        **options: Any,
    ) -> SessionStream[Session] | SessionHandle[Session]:
        """`continue_` as a stream of events.

        Args:
            engine: As for `continue_`.
            session: As for `continue_`.
            input: As for `continue_`.
            into: A mailbox to feed instead; the request goes out at once.
            **options: As for `continue_`.

        Raises:
            Exception: As `continue_`, from the call itself.
        """
        seal(options)
        check_into(into)
        return ops.stream(ops.prepare_continue(engine, session, input, options), into)

    @overload
    @staticmethod
    def stream_step(
        engine: Engine | EngineRef | str, session: Session, *, into: None = None, **options: Any
    ) -> SessionStream[Session]: ...
    @overload
    @staticmethod
    def stream_step(
        engine: Engine | EngineRef | str, session: Session, *, into: Mailbox, **options: Any
    ) -> SessionHandle[Session]: ...
    @staticmethod
    def stream_step(
        engine: Engine | EngineRef | str, session: Session, *, into: Mailbox | None = None, **options: Any
    ) -> SessionStream[Session] | SessionHandle[Session]:
        """`step` as a stream of events; the last is `StepCompleted`.

        Args:
            engine: As for `step`.
            session: As for `step`.
            into: A mailbox to feed instead; the request goes out at once.
            **options: As for `step`.

        Raises:
            Exception: As `step`, from the call itself.
        """
        seal(options)
        check_into(into)
        return ops.stream(ops.prepare_step(engine, session, options), into)

    # --- without a model ------------------------------------------------------------------------------

    @staticmethod
    def submit_tool_result(session: Session, tool_call_id: str, content: Any) -> Session:
        """Answer a pending call. Makes no request: `continue_` or `step` does.

        Args:
            session: One that is `awaiting_tools`.
            tool_call_id: Which call.
            content: Text or content parts as they are; any other JSON value as compact JSON.

        Raises:
            TypeError: Another content, or an id that is no string.
            SessionError: The status does not allow it; `unknown_tool_call_id` if the call is not pending.
        """
        checked: Session = ops.check_session(session)
        return ops.answer(checked, "submit_tool_result", [(tool_call_id, content)])

    @staticmethod
    def submit_tool_results(
        session: Session, results: Iterable[tuple[str, Any]] | Mapping[str, Any]
    ) -> Session:
        """Answer several pending calls: all, or none if one of them is not pending.

        Args:
            session: One that is `awaiting_tools`; for no results, any.
            results: Pairs of a call's id and a content, or a mapping of them.

        Raises:
            TypeError: As `submit_tool_result`.
            SessionError: As `submit_tool_result`, for the first offender in order.
        """
        checked: Session = ops.check_session(session)
        return ops.answer(checked, "submit_tool_results", results)

    @staticmethod
    def reset_error(session: Session) -> Session:
        """Put a session that failed back to `idle`, its thread as it stands.

        Raises:
            SessionError: There is no error.
        """
        checked: Session = ops.check_session(session)
        checked.require("reset_error", "error")
        return checked.resting("idle")

    @staticmethod
    def append(session: Session, message: Message) -> Session:
        """Append a message to the thread; checks nothing."""
        return session.changed(thread=session.thread.add_message(message))

    @staticmethod
    def append_user(session: Session, text: str) -> Session:
        """Append what the user says to the thread; checks nothing."""
        return Session.append(session, user(text))

    @staticmethod
    def append_tool_result(session: Session, tool_call_id: str, content: Any) -> Session:
        """Append a tool message to the thread; checks nothing, and no pending call is answered by it."""
        message = Message(role="tool", content=ops.content_of(content), tool_call_id=tool_call_id)
        return Session.append(session, message)


def _start(engine: Any, given: Any, id: Any, options: Mapping[str, Any]) -> ops.Operation:  # noqa: A002
    asked = ask(engine, options)
    if id is not None and not isinstance(id, str):
        raise TypeError(f"id must be a str, not {type(id).__name__}")
    session = given if isinstance(given, Session) else Session(id=id, thread=to_thread(given))
    return ops.prepare_start(asked, session, id)
