"""From our request to the body of a Messages call."""

from typing import Any

from allm_actors.data import Request, Tool
from allm_actors.errors import FieldError, ValidationError
from allm_actors.providers._checks import Checked
from allm_actors.providers._content import flatten
from allm_actors.providers._options import REASONING_OPTIONS, write_options
from allm_actors.providers.anthropic._messages import wire_messages
from allm_actors.providers.anthropic._structured import StructuredOutput, write_structured

__all__ = ["build_messages"]

_MAX_TOKENS = 1024
_PLACED = (*REASONING_OPTIONS, "parallel_tool_calls")


def build_messages(checked: Checked, *, stream: bool, structured_output: StructuredOutput) -> dict[str, Any]:
    """Return the body for a request that has passed its checks.

    Raises:
        ValidationError: `invalid_request`: there is nothing to answer, only system messages.
    """
    request = checked.request
    messages = wire_messages(checked)
    if not messages:
        raise ValidationError("invalid_request", [FieldError(("messages",), "empty")])
    body: dict[str, Any] = {
        "model": checked.model,
        "max_tokens": _MAX_TOKENS if request.max_tokens is None else request.max_tokens,
        "messages": messages,
    }
    system = [flatten(message) for message in request.messages if message.role == "system"]
    if system:
        body["system"] = "\n\n".join(system)
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    choice = _tool_choice(checked.tool_choice)
    if choice is not None:
        body["tool_choice"] = choice
    if request.prompt_cache is not None:
        body["cache_control"] = _cache_control(request.prompt_cache.retention)
    write_options(body, _renamed(checked.options), placed=_PLACED)
    _write_own(body, checked, request, structured_output)
    if stream:
        body["stream"] = True
    return body


def _tool(tool: Tool) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.schema,
    }
    if tool.strict:
        wire["strict"] = True
    return wire


def _tool_choice(choice: str | dict[str, Any] | None) -> dict[str, Any] | None:
    match choice:
        case None | "auto":
            return None
        case "none":
            return {"type": "none"}
        case "required":
            return {"type": "any"}
        case str():
            return {"type": "tool", "name": choice}
        case _:
            return choice


def _cache_control(retention: str) -> dict[str, Any]:
    return {"type": "ephemeral", "ttl": "1h"} if retention == "long" else {"type": "ephemeral"}


def _renamed(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options under the wire's names; the stop sequences are always a list."""
    renamed: dict[str, Any] = {}
    for name, value in options.items():
        if name == "stop":
            renamed["stop_sequences"] = [value] if isinstance(value, str) else value
        else:
            renamed[name] = value
    return renamed


def _write_own(
    body: dict[str, Any], checked: Checked, request: Request, structured_output: StructuredOutput
) -> None:
    """Write what has the last word: how the answer is structured, and how many calls a turn may make."""
    write_structured(body, request, structured_output)
    if checked.options.get("parallel_tool_calls") is not False or not body.get("tools"):
        return
    choice = body.get("tool_choice", {"type": "auto"})
    if isinstance(choice, dict) and choice.get("type") != "none":  # no call at all is no parallel call either
        body["tool_choice"] = {**choice, "disable_parallel_tool_use": True}
