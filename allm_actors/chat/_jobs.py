"""One call on its way: what its process does, and what it says to the batch.

Guarantees:
    - Who may say how a call ended is decided once: the handler's end, its timeout, or the closing of the
      batch, whichever takes the claim first. For the others it leads nowhere.
    - A result that comes after the limit is late, even if nobody has looked yet.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from allm_actors import beam
from allm_actors.chat._calls import Failure, execute, settle, settle_without_policy, span_of, tool_error
from allm_actors.chat._log import log
from allm_actors.chat.encoding import encode_error, plain_error, said
from allm_actors.data import ToolExecutionCompleted, ToolExecutionStarted, ToolResultEncoded
from allm_actors.engine import ToolContext
from allm_actors.errors import ToolError

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Sequence

    from allm_actors import telemetry
    from allm_actors.beam import MonitorRef, Pid
    from allm_actors.chat._calls import Toolbox
    from allm_actors.data import Event, ToolCall


@dataclass(frozen=True, slots=True)
class Settled:
    """A call came to these events."""

    index: int
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Expired:
    """The time of a call is over."""

    index: int
    limit: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """The calls that were not executed are answered by these events."""

    events: list[Event]


class Claim:
    """The right to say how a call ended. The first to take it has it; for the others it leads nowhere.

    Attributes:
        lost_to: Why the handler was given up, once it was.
    """

    __slots__ = ("_send", "lost_to")

    def __init__(self, send: Callable[[Any], object]) -> None:
        self._send = [send]
        self.lost_to: str | None = None

    def take(self) -> Callable[[Any], object] | None:
        """The way to the batch, for whoever comes first. Takes no lock."""
        try:
            return self._send.pop()
        except IndexError:
            return None


@dataclass(slots=True)
class Job:
    """One call, as its batch sees it."""

    index: int
    call: ToolCall
    claim: Claim
    cancelled: threading.Event = field(default_factory=threading.Event)
    span: telemetry.Span | None = None
    pid: Pid | None = None
    watch: MonitorRef | None = None
    elsewhere: bool = False
    """Whether it is settled by another process than its own."""
    settled: bool = False
    holds_slot: bool = False


class Work:
    """A function in a context, under a name that the process tree can show."""

    __slots__ = ("__name__", "_variables", "_work")

    def __init__(self, name: str, variables: contextvars.Context, work: Callable[..., None]) -> None:
        self.__name__, self._variables, self._work = name, variables, work

    def __call__(self, *args: Any) -> None:
        self._variables.run(self._work, *args)


# --- in the process of a call -------------------------------------------------------------------------


def perform(box: Toolbox, job: Job, claim: Claim, parent: telemetry.Span | None, batch: Pid) -> None:
    """Run one call's handler and say what it came to, unless its time was over first.

    Args:
        box: What the calls of the run share.
        job: The call.
        claim: Its claim as it was when this process was started: a later one is another process's.
        parent: The span of the step.
        batch: The process of the batch.
    """
    call = job.call
    began = time.monotonic()
    limit = "tool_timeout" if began + box.timeout <= box.ends_at else "deadline"
    deadline = min(began + box.timeout, box.ends_at)
    span = job.span = span_of(box, call, parent)
    try:
        timer = beam.send_after(max(0.0, deadline - began), batch, Expired(job.index, limit))
        try:
            with span.active():
                outcome = execute(box, call, _context(box, job, deadline)) if began < deadline else None
        finally:
            beam.cancel_timer(timer)
    except beam.Exit:
        # Told to exit. If that was its batch, which gave it up, this is the late end of the handler; else the
        # claim stays where it is, and the batch takes it when it hears of the end of this process.
        if claim.lost_to is not None:
            _ended_late(box, call, claim, span, began)
        raise
    late = time.monotonic() >= deadline
    if (send := claim.take()) is None:
        _ended_late(box, call, claim, span, began)
        return
    send(Settled(job.index, settled(box, job, Failure(timeout(box, call, limit)) if late else outcome)))


def _context(box: Toolbox, job: Job, deadline: float) -> ToolContext:
    return ToolContext(
        tool_call=job.call.model_copy(deep=True),
        context=box.context,
        session_id=box.session_id,
        request_id=box.request_id,
        engine=box.engine,
        deadline=deadline,
        cancelled=job.cancelled,
    )


def _ended_late(box: Toolbox, call: ToolCall, claim: Claim, span: telemetry.Span, began: float) -> None:
    """A handler that was given up has ended: what it came to is dropped."""
    log.warning(
        "tool.abandoned_ended",
        tool=call.name,
        tool_call_id=call.id,
        request_id=box.request_id,
        reason=claim.lost_to,
        seconds=round(time.monotonic() - began, 3),
    )
    span.finish()


def settle_later(box: Toolbox, job: Job, error: ToolError) -> None:
    """Settle a call whose own process is gone or given up."""
    send = job.claim.take()
    if send is not None:
        send(Settled(job.index, settled(box, job, Failure(error))))


def settled(box: Toolbox, job: Job, outcome: Any) -> list[Event]:
    """The two events of an outcome; the call's span ends here."""
    call = job.call
    try:
        events = settle(box, call, outcome)
    except Exception as raised:  # noqa: BLE001  an object that lies about itself: the call is answered all the same
        beam.checkpoint()
        failed = tool_error(call, "invalid_return", f"the result of {call.name} is unusable: {said(raised)}")
        events = settle_without_policy(call, failed)
    if job.span is not None:
        result = events[0].result if isinstance(events[0], ToolExecutionCompleted) else None
        error = result if isinstance(result, ToolError) and result is not outcome else None
        job.span.stop(error=error, result=result)
    return events


def timeout(box: Toolbox, call: ToolCall, limit: str) -> ToolError:
    """The error of a call whose time is over."""
    words = f"within {box.timeout:g} s" if limit == "tool_timeout" else "before the deadline of the run"
    error = tool_error(call, "timeout", f"tool {call.name} did not finish {words}")
    error.metadata["limit"] = limit
    return error


def skip(box: Toolbox, calls: Sequence[ToolCall], send: Callable[[Any], object]) -> None:
    """Answer the calls that nobody will execute."""
    send(Skipped([_skipped(call, encode_error(box.encoder, _not_executed(call))) for call in calls]))


def skipped_plainly(calls: Sequence[ToolCall]) -> list[Event]:
    """The same, without anybody's code."""
    return [_skipped(call, plain_error(_not_executed(call))) for call in calls]


def started(call: ToolCall) -> Event:
    """The event that says a call's handler is about to run."""
    return ToolExecutionStarted(id=call.id, name=call.name, arguments=call.arguments)


def _skipped(call: ToolCall, content: str) -> Event:
    return ToolResultEncoded(id=call.id, content=content)


def _not_executed(call: ToolCall) -> ToolError:
    return tool_error(call, "handler_exit", f"{call.name} was not executed: the turn was interrupted")
