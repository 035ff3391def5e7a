"""Compact tools: the model is shown one line for each, and asks for the rest.

A tool with `compact=True` is sent as a stub; a built-in tool named `tool_help` gives the full description on
request. Only what is sent changes: execution, the manual partition and the check for unknown tools use the
full tools.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from allm_actors.data import Tool
from allm_actors.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allm_actors.data import ToolCall

__all__ = ["NAME", "answer", "check_args", "full_help", "help_tool", "is_help", "project", "with_help"]

NAME: Final = "tool_help"
_MARK: Final = "[compact]"
_LONGEST_SUMMARY: Final = 160
_NAME_LISTS: Final = ("allowedFunctionNames", "allowed_function_names", "allowed_names", "names", "tools")
_USAGE: Final = f'Usage: {NAME}({{"names": ["<tool name>", ...]}})'


def help_tool() -> Tool:
    """The built-in tool that describes compact tools."""
    return Tool(
        name=NAME,
        description=(
            f"Get the full description and the argument schema of tools marked {_MARK}. "
            "Call it before the first use of such a tool."
        ),
        schema={
            "type": "object",
            "properties": {"names": {"type": "array", "items": {"type": "string"}}},
            "required": ["names"],
        },
    )


def with_help(tools: Sequence[Tool]) -> Sequence[Tool]:
    """The tools a run uses: the help tool goes last when any tool is compact.

    A tool of the caller's own with that name stays: the duplicate is what the check of the request refuses.
    """
    if not any(tool.compact for tool in tools) or tools[-1] == help_tool():
        return tools
    return [*tools, help_tool()]


def is_help(tools: Sequence[Tool], name: str) -> bool:
    """Whether a call of this name is the library's to answer: only next to a compact tool."""
    return name == NAME and any(tool.compact for tool in tools)


def project(tools: Sequence[Tool], tool_choice: str | dict[str, Any] | None = None) -> Sequence[Tool]:
    """The tools as the model is shown them: compact ones as stubs, but for the one it is forced to call.

    Pure; equal input gives equal output on every turn. Without a compact tool the input itself comes back.
    """
    if not any(tool.compact for tool in tools):
        return tools
    forced = _forced(tool_choice)
    return [_stub(tool) if tool.compact and tool.name != forced else tool for tool in with_help(tools)]


def _stub(tool: Tool) -> Tool:
    words = [_summary(tool), _hint(tool.schema), _MARK]
    return Tool(name=tool.name, description=" ".join(filter(None, words)), schema={"type": "object"})


def _summary(tool: Tool) -> str:
    if tool.summary:
        return tool.summary
    line = tool.description.split("\n", 1)[0]
    for place, char in enumerate(line):
        if char in ".!?" and (place + 1 == len(line) or line[place + 1].isspace()):
            line = line[: place + 1]
            break
    return line if len(line) <= _LONGEST_SUMMARY else line[: _LONGEST_SUMMARY - 3] + "..."


def _hint(schema: dict[str, Any]) -> str:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return ""
    if not properties:
        return "Args: none"
    required = _required(schema)
    optional = sorted(name for name in properties if name not in required)
    hint = "Args: " + ", ".join(required)
    if optional:
        hint += f"{' ' if required else ''}[{', '.join(optional)}]"
    return hint


def _required(schema: dict[str, Any]) -> list[str]:
    """The required names that are properties, in the order in which the schema requires them."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return []
    return [name for name in required if isinstance(name, str) and name in properties]


def _forced(choice: str | dict[str, Any] | None) -> str | None:
    """The one tool that a choice forces, in the shapes that providers have for it."""
    if isinstance(choice, str):
        return choice
    if not isinstance(choice, dict):
        return None
    if choice.get("type") in ("tool", "function"):
        return _name_in(choice)
    for inside in (choice, *choice.values()):
        if not isinstance(inside, dict):
            continue
        for key in _NAME_LISTS:
            names = inside.get(key)
            if isinstance(names, list) and len(names) == 1:
                return _name_in(names[0])
    return None


def _name_in(choice: Any) -> str | None:
    """The name in a bare string, `{"name": ...}` or `{"function": {"name": ...}}`."""
    if isinstance(choice, dict):
        function = choice.get("function")
        choice = choice.get("name") or (function.get("name") if isinstance(function, dict) else None)
    return choice if isinstance(choice, str) else None


def answer(tools: Sequence[Tool], tool_call: ToolCall) -> str:
    """The content of the tool message that answers a `tool_help` call; never fails."""
    names = tool_call.arguments.get("names")
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return f"{_USAGE}. {_compact_names(tools)}"
    known = {tool.name: tool for tool in tools if tool.name != NAME}
    parts = []
    for name in dict.fromkeys(names):
        if name in known:
            parts.append(full_help(known[name]))
        else:
            parts.append(f"There is no tool named {name!r}. {_compact_names(tools)}")
    return "\n\n".join(parts)


def _compact_names(tools: Sequence[Tool]) -> str:
    return "Compact tools: " + ", ".join(tool.name for tool in tools if tool.compact)


def full_help(tool: Tool) -> str:
    """The whole description of one tool: a heading, the description, the schema as compact JSON."""
    schema = json.dumps(tool.schema, ensure_ascii=False, separators=(",", ":"))
    return "\n".join(filter(None, [f"# {tool.name}", tool.description, f"Arguments: {schema}"]))


def check_args(tool: Tool, arguments: dict[str, Any]) -> None:
    """Check that a call of a compact tool has every required top-level argument: presence only, no types.

    Raises:
        ToolError: `invalid_arguments`, naming the missing ones, with the tool's full help.
    """
    required = tool.schema.get("required")
    if not tool.compact or not isinstance(required, list):
        return
    missing = [name for name in required if isinstance(name, str) and name not in arguments]
    if missing:
        raise ToolError(
            "invalid_arguments",
            f"invalid arguments for {tool.name}: missing {', '.join(missing)}\n\n{full_help(tool)}",
            tool_name=tool.name,
        )
