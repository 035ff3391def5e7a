"""One tool call: from the model's arguments to what it came to, and to the events that say so.

Everything here that runs somebody's code, a handler, an executor, a policy or an encoder, runs in the call's
own process.

Guarantees:
    - Every call comes to one outcome: a value, or a `ToolError` that names the tool and the call.
    - A policy is asked once for each failed call, about nothing else, and never about its own failures.
"""

from __future__ import annotations

import copy
import inspect
import math
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from allm_actors import beam, telemetry
from allm_actors.beam.pid import drop_frames
from allm_actors.chat import tool_help
from allm_actors.chat._log import log
from allm_actors.chat.encoding import DefaultEncoder, encode, encode_error, plain_error, said
from allm_actors.chat.outcomes import RESERVED_HALT_REASONS, AskUser, Continue, Halt
from allm_actors.data import (
    AskUserRequested,
    ToolExecutionCompleted,
    ToolHalt,
    ToolResultEncoded,
    described,
    wants_context,
)
from allm_actors.engine import ToolContext, ToolExecutor, ToolResultEncoder
from allm_actors.errors import ToolError

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Mapping, Sequence

    from allm_actors.chat.options import ErrorPolicy
    from allm_actors.data import Event, Tool, ToolCall
    from allm_actors.engine import Engine
    from allm_actors.engine.processes import EngineRef

__all__ = [
    "DefaultExecutor",
    "Failure",
    "Toolbox",
    "execute",
    "settle",
    "settle_without_policy",
    "span_of",
    "tool_error",
]


class DefaultExecutor(ToolExecutor):
    """Calls the tool's handler, in this process."""

    def execute(self, tool: Tool, arguments: dict[str, Any], ctx: ToolContext) -> Any:
        """Call the handler with the arguments, and with the context if it takes one.

        Raises:
            ToolError: `not_found`: the tool has no handler.
            Exception: What the handler raises.
        """
        handler = tool.handler
        if handler is None:
            raise ToolError("not_found", f"tool {tool.name} has no handler", tool_name=tool.name)
        return handler(arguments, ctx) if wants_context(handler) else handler(arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """What the calls of one run share.

    Attributes:
        tools: The tools by name; next to a compact one, `tool_help` is the library's.
        timeout: Seconds a handler may take.
        ends_at: When the whole run has to be over, on the clock of `time.monotonic()`.
        variables: The context variables as they were where the run was called.
        metadata: What every telemetry event of the run says.
    """

    tools: Mapping[str, Tool] = field(default_factory=dict)
    executor: ToolExecutor = field(default_factory=DefaultExecutor)
    encoder: ToolResultEncoder = field(default_factory=DefaultEncoder)
    policy: ErrorPolicy = "continue"
    timeout: float = math.inf
    max_concurrency: int | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    request_id: str = ""
    engine: Engine | EngineRef | None = None
    ends_at: float = math.inf
    variables: contextvars.Context
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs_own_code_only(self) -> bool:
        """Whether an outcome can be settled without anybody else's code."""
        return isinstance(self.policy, str) and type(self.encoder) is DefaultEncoder

    def answers(self, call: ToolCall) -> bool:
        """Whether a call is answered here, without a handler."""
        tool = self.tools.get(call.name)
        return call.name == tool_help.NAME and tool is not None and tool == tool_help.help_tool()

    def help(self, call: ToolCall) -> str:
        """The answer to such a call."""
        return tool_help.answer(list(self.tools.values()), call)

    def unknown(self, calls: Sequence[ToolCall]) -> ToolCall | None:
        """The first call that names no tool of this run."""
        return next((call for call in calls if call.name not in self.tools), None)


# --- running ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """The outcome of a call that failed. Not the error itself: that a handler may return like any value."""

    error: ToolError


def execute(box: Toolbox, call: ToolCall, ctx: ToolContext) -> Any:
    """Run the handler of a call.

    Returns:
        What it returned, or the `Failure` it came to.

    Raises:
        beam.Exit: The process was told to exit.
    """
    tool = box.tools[call.name]
    value: Any = None
    try:
        _check_arguments(tool, call)
        value = box.executor.execute(tool, copy.deepcopy(call.arguments), ctx)
        error = _problem(call, value)
    except ToolError as raised:
        error = _completed(tool, call, raised)
    except Exception as raised:  # noqa: BLE001  somebody's handler
        error = tool_error(call, "handler_raised", f"{call.name} raised {_in_words(raised)}", raised)
    except BaseException as raised:  # noqa: BLE001  a handler that wants to exit ends its call, not the run
        beam.checkpoint()
        error = tool_error(call, "handler_exit", f"{call.name} ended with {_in_words(raised)}", raised)
    return value if error is None else Failure(error)


def tool_error(
    call: ToolCall, reason: str, message: str, cause: BaseException | None = None, **metadata: Any
) -> ToolError:
    """Make the error a call came to."""
    error = ToolError(reason, message, tool_name=call.name, tool_call_id=call.id, metadata=metadata)
    error.__cause__ = cause
    return error


def _in_words(error: BaseException) -> str:
    name, text = type(error).__name__, said(error)
    return name if text == name else f"{name}: {text}"


def _check_arguments(tool: Tool, call: ToolCall) -> None:
    if call.invalid_arguments and not call.arguments:
        raise ToolError(
            "invalid_arguments",
            f"invalid arguments for {call.name}: not a JSON object: {_shortened(call.raw_arguments or '')}",
        )
    tool_help.check_args(tool, call.arguments)


_LONGEST_QUOTE: Final = 200


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}... ({len(text)} characters)"


def _problem(call: ToolCall, value: Any) -> ToolError | None:
    """What is wrong with what a handler returned."""
    if inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value):
        if inspect.iscoroutine(value):
            value.close()  # else Python warns that nobody awaited it
        return tool_error(
            call, "invalid_return", f"{call.name} returned {type(value).__name__}, which is not a result yet"
        )
    if isinstance(value, Halt) and value.reason in RESERVED_HALT_REASONS:
        return tool_error(
            call,
            "invalid_return",
            f"{call.name} halted with {value.reason!r}, a reason of the library's own: pick another",
            reserved_halt_reason=value.reason,
        )
    return None


def _completed(tool: Tool, call: ToolCall, error: ToolError) -> ToolError:
    """The error with what it lacks: whose it is, and for a compact tool how to do better."""
    changes: dict[str, Any] = {}
    if error.tool_name is None:
        changes["tool_name"] = call.name
    if error.tool_call_id is None:
        changes["tool_call_id"] = call.id
    if tool.compact and error.reason == "invalid_arguments":
        advice = tool_help.full_help(tool)
        if not error.message.endswith(advice):
            changes["message"] = f"{error.message}\n\n{advice}"
    return error.replace(**changes)


# --- settling -----------------------------------------------------------------------------------------


def settle(box: Toolbox, call: ToolCall, outcome: Any) -> list[Event]:
    """Turn an outcome into its two events: ask the policy, encode.

    Raises:
        beam.Exit: The process was told to exit.
    """
    if isinstance(outcome, Failure):
        error = outcome.error
    else:
        try:
            return [_ended(call, outcome), _said(box, call, outcome)]
        except ToolError as failed:
            error = failed
    events = [_ended(call, error), _decided(box, call, error)]
    _forget_frames(error)
    return events


def _ended(call: ToolCall, result: Any) -> Event:
    return ToolExecutionCompleted(id=call.id, name=call.name, result=result)


def settle_without_policy(call: ToolCall, error: ToolError) -> list[Event]:
    """The two events of a call whose batch or process was ended from outside: a halt, nobody asked."""
    content = plain_error(error)
    return [
        _ended(call, error),
        ToolHalt(tool_call_id=call.id, reason="tool_error", result=None, content=content, error=error),
    ]


def _said(box: Toolbox, call: ToolCall, value: Any) -> Event:
    """The event of a success; raises the `ToolError` of a value that cannot be encoded."""
    if isinstance(value, AskUser):
        return AskUserRequested(
            tool_call_id=call.id, tool_name=call.name, question=value.question, options=value.options
        )
    if isinstance(value, Halt):
        content = _encoded(box, call, value.result)
        return ToolHalt(tool_call_id=call.id, reason=value.reason, result=value.result, content=content)
    return ToolResultEncoded(id=call.id, content=_encoded(box, call, value))


def _encoded(box: Toolbox, call: ToolCall, value: Any) -> str:
    return encode(box.encoder, value, tool_name=call.name, tool_call_id=call.id)


def _decided(box: Toolbox, call: ToolCall, error: ToolError) -> Event:
    """The event that follows from what the policy says of an error."""
    decision: Any = box.policy
    if callable(decision):
        try:
            decision = decision(call, error)
        except BaseException as raised:  # noqa: BLE001  somebody's policy: whatever it raises, the run halts
            beam.checkpoint()
            error, decision = _policy_raised(call, raised), "halt"
    if isinstance(decision, Continue):
        try:
            return ToolResultEncoded(id=call.id, content=_encoded(box, call, decision.result))
        except ToolError as failed:
            error, decision = failed, "halt"
    if not (isinstance(decision, str) and decision in ("continue", "halt")):
        error = tool_error(
            call,
            "invalid_return",
            f"on_tool_error gave {described(decision)} for {call.name}, "
            'not Continue(...), "continue" or "halt"',
            on_tool_error_invalid=True,
        )
        decision = "halt"
    content = encode_error(box.encoder, error)
    if decision == "continue":
        return ToolResultEncoded(id=call.id, content=content)
    _forget_frames(error)
    return ToolHalt(tool_call_id=call.id, reason="tool_error", result=None, content=content, error=error)


def _policy_raised(call: ToolCall, raised: BaseException) -> ToolError:
    return tool_error(
        call,
        "invalid_return",
        f"on_tool_error raised {_in_words(raised)} for {call.name}",
        raised,
        on_tool_error_exception=described(raised),
    )


def _forget_frames(error: ToolError) -> None:
    """No traceback hangs on a result: it would keep alive whatever the handler held."""
    cause = error.__cause__
    if log.wants_debug():
        log.debug(
            "tool.failed",
            tool=error.tool_name,
            tool_call_id=error.tool_call_id,
            reason=error.reason,
            traceback="".join(traceback.format_exception(cause)) if cause is not None else None,
        )
    drop_frames(error)


def span_of(box: Toolbox, call: ToolCall, parent: telemetry.Span | None) -> telemetry.Span:
    """Begin the span of a call."""
    return telemetry.start(
        "tool",
        {**box.metadata, "tool_name": call.name, "tool_call_id": call.id},
        parent=parent,
        details={"tool": box.tools[call.name], "tool_call": call, "session_id": box.session_id},
    )
