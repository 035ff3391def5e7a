"""Steps and chats: one turn, and turn after turn until the model is done.

`stream_step` and `stream` give the events; `step` and `chat` are their folds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from allm_actors.chat._conversation import Conversation
from allm_actors.chat._driver import RunProducer
from allm_actors.chat._plan import ask, plan
from allm_actors.data import to_thread
from allm_actors.streaming import EventStream, Mailbox, StreamHandle
from allm_actors.streaming.options import seal

if TYPE_CHECKING:
    from collections.abc import Callable

    from allm_actors.data import ChatResult, Event, StepResult
    from allm_actors.engine import Engine
    from allm_actors.engine.processes import EngineRef
    from allm_actors.errors import AllmError
    from allm_actors.telemetry import SpanName

__all__ = ["chat", "check_into", "feed", "run_to_end", "step", "stream", "stream_step"]


def step(engine: Engine | EngineRef | str, input: Any, **options: Any) -> StepResult:  # noqa: A002
    """Make one request and run the tools it asks for; the model does not see their results.

    Args:
        engine: An `Engine`, a started engine's `EngineRef`, or the name it has.
        input: Text, messages, or a `Thread`.
        **options: Of the run (`mode`, `on_tool_error`, `tool_timeout`, `max_concurrency`, `tools`, `context`
            ...) and of the request, as for `generate`. `None` means not given.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An impossible option.
        AllmError: What is wrong with the call; or what the turn failed with, its `partial` the `StepResult`.
        Exception: What `on_event` raised, or the bug of an adapter; everything was stopped by then.
    """
    seal(options)
    conversation = _open(engine, input, options, "step")
    run_to_end(conversation)
    result = conversation.folded.steps[-1]
    if result.halted_reason == "error":
        raise _raised(result.error, result)
    return result


def chat(engine: Engine | EngineRef | str, input: Any, **options: Any) -> ChatResult:  # noqa: A002
    """Make turns, tools included, until the model answers or something ends the loop.

    Args:
        engine: As for `step`.
        input: As for `step`.
        **options: As for `step`, and `max_turns`, `halt_when`, `structured_finalize`.

    Raises:
        TypeError: As `step`.
        ValueError: As `step`.
        AllmError: What is wrong with the call; or what a turn failed with, its `partial` the `ChatResult`.
        Exception: What `halt_when` or `on_event` raised, or the bug of an adapter.
    """
    seal(options)
    conversation = _open(engine, input, options, "chat")
    run_to_end(conversation)
    result = conversation.folded.chat_result()
    if result.halted_reason == "error":
        raise _raised(result.error, result)
    return result


@overload
def stream_step(
    engine: Engine | EngineRef | str,
    input: Any,
    *,
    into: None = None,
    **options: Any,
) -> EventStream[Event]: ...
@overload
def stream_step(
    engine: Engine | EngineRef | str,
    input: Any,
    *,
    into: Mailbox,
    **options: Any,
) -> StreamHandle: ...
def stream_step(
    engine: Engine | EngineRef | str,
    input: Any,  # noqa: A002
    *,
    into: Mailbox | None = None,
    **options: Any,
) -> EventStream[Event] | StreamHandle:
    """Give the events of one turn, lazily; the last is `StepCompleted`.

    The request is sent at the first `next()`, and tools run when the consumer asks for more than the answer.

    Args:
        engine: As for `step`.
        input: As for `step`.
        into: A mailbox to feed instead: a `StreamHandle` is returned, and the request goes out at once.
        **options: As for `step`.

    Raises:
        Exception: As `step`, but for what the turn fails with: that is an event.
    """
    seal(options)
    return _stream(engine, input, options, "step", into)


@overload
def stream(
    engine: Engine | EngineRef | str,
    input: Any,
    *,
    into: None = None,
    **options: Any,
) -> EventStream[Event]: ...
@overload
def stream(
    engine: Engine | EngineRef | str,
    input: Any,
    *,
    into: Mailbox,
    **options: Any,
) -> StreamHandle: ...
def stream(
    engine: Engine | EngineRef | str,
    input: Any,  # noqa: A002
    *,
    into: Mailbox | None = None,
    **options: Any,
) -> EventStream[Event] | StreamHandle:
    """Give the events of a chat, lazily; the last is `ChatCompleted`, its result what `chat` returns.

    Every request and every batch of tools begins when the consumer has taken all events before it and asks
    for another.

    Args:
        engine: As for `step`.
        input: As for `step`.
        into: As for `stream_step`.
        **options: As for `chat`.

    Raises:
        Exception: As `chat`, but for what a turn fails with: that is an event, and in the result.
    """
    seal(options)
    return _stream(engine, input, options, "chat", into)


def _open(engine: Any, given: Any, options: dict[str, Any], name: SpanName) -> Conversation:
    asked = ask(engine, options)
    thread = to_thread(given)
    return Conversation(plan(asked, thread, passes=name == "chat"), thread, name)


def run_to_end(conversation: Conversation) -> None:
    """Have a conversation run to its end, in this thread."""
    with EventStream[Any](
        conversation.tap(), request_id=conversation.request_id, on_event=conversation.on_event
    ) as events:
        for _ in events:
            pass


def _raised(error: AllmError | None, partial: StepResult | ChatResult) -> AllmError:
    """A copy of the error of a result, for no traceback may hang on that."""
    assert error is not None
    raised = error.replace()
    raised.partial = partial
    return raised


def _stream(
    engine: Any, given: Any, options: dict[str, Any], name: SpanName, into: Mailbox | None
) -> EventStream[Event] | StreamHandle:
    check_into(into)
    asked = ask(engine, options)
    thread = to_thread(given)
    if into is not None:
        into.check_open()
    conversation = Conversation(plan(asked, thread, passes=name == "chat"), thread, name)
    if into is None:
        return EventStream(
            conversation.tap(),
            request_id=conversation.request_id,
            on_event=conversation.on_event,
            passes=conversation.passes,
        )
    return feed(into, conversation)


def check_into(into: object) -> None:
    """Raise `TypeError` for a mailbox that is none."""
    if into is not None and not isinstance(into, Mailbox):
        raise TypeError(f"into must be a Mailbox, not {type(into).__name__}")


def feed(
    into: Mailbox,
    conversation: Conversation,
    handle: Callable[[Any, str], StreamHandle] = StreamHandle,
) -> StreamHandle:
    """Have a driver put the events of a conversation into a mailbox."""
    producer = RunProducer(conversation.run)
    try:
        return into.feed(
            producer,
            request_id=conversation.request_id,
            on_event=producer.hearing(conversation.on_event),
            passes=conversation.passes,
            last=frozenset({conversation.last}),
            handle=handle,
        )
    except BaseException:
        conversation.run.close()
        raise
