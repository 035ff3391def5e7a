"""What data means: checks that construction leaves to the moment of use.

Each function returns `None`, or raises `ValidationError` with all problems in a fixed order. They are pure,
and no constructor calls them. A model's type checks can be bypassed (`model_construct`,
`model_copy(update=...)`), so they are repeated here: whatever is in a field, it is reported and nothing
crashes.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from allm_actors.data._types import type_problems
from allm_actors.data.messages import ImagePart, Message, TextPart
from allm_actors.data.requests import Request
from allm_actors.data.threads import Thread
from allm_actors.data.tools import Tool
from allm_actors.errors import FieldError, ValidationError, ValidationReason

_Path = tuple[str | int, ...]
_Problems = Iterator[FieldError]

_ROLES = ("system", "user", "assistant", "tool")
_STATUSES = ("idle", "awaiting_user", "awaiting_tools", "completed", "error")
_REQUIRED_FOR_STATUS = {
    "awaiting_user": "pending_question",
    "awaiting_tools": "pending_tool_calls",
    "error": "error",
}
_CHOICE_WORDS = ("auto", "none", "required")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOTTEST = 2


def request(request: Request) -> None:
    """Check a request.

    Raises:
        ValidationError: `invalid_request`.
        TypeError: Not a `Request`.
    """
    _expect(request, Request)
    problems = list(_request_problems(request))
    if problems:
        _refuse("invalid_request", problems, _get(request, "messages"))


def message(message: Message) -> None:
    """Check a message.

    Raises:
        ValidationError: `invalid_message`.
        TypeError: Not a `Message`.
    """
    _expect(message, Message)
    problems = list(_message_problems(message, ()))
    if problems:
        _refuse("invalid_message", problems, [message])


def tool(tool: Tool) -> None:
    """Check a tool.

    Raises:
        ValidationError: `invalid_tool`.
        TypeError: Not a `Tool`.
    """
    _expect(tool, Tool)
    problems = list(_tool_problems(tool, ()))
    if problems:
        _refuse("invalid_tool", problems)


def thread(thread: Thread) -> None:
    """Check a thread; an empty one is fine.

    Raises:
        ValidationError: `invalid_thread`.
        TypeError: Not a `Thread`.
    """
    _expect(thread, Thread)
    problems = list(_thread_problems(thread, ()))
    if problems:
        _refuse("invalid_thread", problems, _get(thread, "messages"))


def session(session: Any) -> None:
    """Check a session: anything with a session's attributes.

    Raises:
        ValidationError: `invalid_session`.
    """
    problems = list(_session_problems(session))
    if problems:
        _refuse("invalid_session", problems, _get(_get(session, "thread"), "messages"))


def _request_problems(request: Request) -> _Problems:
    messages, tools = _get(request, "messages"), _get(request, "tools")
    if isinstance(messages, list) and not messages:
        yield FieldError("messages", "empty")
    yield from _messages_problems(messages, ("messages",))
    yield from _tools_problems(tools)
    temperature = _get(request, "temperature")
    if temperature is not None and not _is_temperature(temperature):
        yield FieldError("temperature", "out_of_range")
    max_tokens = _get(request, "max_tokens")
    if max_tokens is not None and not _is_positive(max_tokens):
        yield FieldError("max_tokens", "must_be_positive")
    format_ = _get(request, "response_format")
    if not (format_ is None or isinstance(format_, dict) or (isinstance(format_, str) and format_ == "text")):
        yield FieldError("response_format", "invalid_shape")
    is_schema = isinstance(format_, dict) and format_.get("type") == "json_schema"
    if _get(request, "structured_finalize") is True and not is_schema:
        yield FieldError("structured_finalize", "requires_json_schema")
    options = _get(request, "options")
    if isinstance(options, dict) and "api_key" in options:
        yield FieldError(("options", "api_key"), "reserved_key")
    judged = {"messages", "tools", "temperature", "max_tokens"}
    if not isinstance(format_, dict):
        judged.add("response_format")
    yield from type_problems(request, (), judged)


def _tools_problems(tools: Any) -> _Problems:
    if not isinstance(tools, list):
        yield FieldError("tools", "invalid_type")
        return
    for index, tool in enumerate(tools):
        yield from _tool_problems(tool, ("tools", index))
    names = [name for name in (_get(tool, "name") for tool in tools) if isinstance(name, str)]
    if len(set(names)) < len(names):
        yield FieldError("tools", "duplicate_name")


def _messages_problems(messages: Any, path: _Path) -> _Problems:
    if not isinstance(messages, list):
        yield FieldError(path, "invalid_type")
        return
    for index, message in enumerate(messages):
        yield from _message_problems(message, (*path, index))


def _message_problems(message: Any, path: _Path) -> _Problems:
    if not isinstance(message, Message):
        yield FieldError(path, "invalid_type")
        return
    role, content = _get(message, "role"), _get(message, "content")
    if not isinstance(role, str) or role not in _ROLES:
        yield FieldError((*path, "role"), "unknown")
    judged = {"role", "content"}
    if isinstance(content, list):
        if all(isinstance(part, TextPart | ImagePart) for part in content):
            judged.discard("content")
        else:
            yield FieldError((*path, "content"), "invalid_part_type")
    elif not isinstance(content, str):
        yield FieldError((*path, "content"), "invalid_type")
    if role == "tool" and _is_absent(_get(message, "tool_call_id")):
        yield FieldError((*path, "tool_call_id"), "required")
    yield from type_problems(message, path, judged)


def _tool_problems(tool: Any, path: _Path) -> _Problems:
    if not isinstance(tool, Tool):
        yield FieldError(path, "invalid_type")
        return
    name = _get(tool, "name")
    if not isinstance(name, str):
        yield FieldError((*path, "name"), "invalid_format")
    elif not name:
        yield FieldError((*path, "name"), "empty")
    elif name in _CHOICE_WORDS:
        yield FieldError((*path, "name"), "reserved_tool_name")
    elif _TOOL_NAME.fullmatch(name) is None:
        yield FieldError((*path, "name"), "invalid_format")
    if not isinstance(_get(tool, "description"), str):
        yield FieldError((*path, "description"), "not_a_string")
    judged = {"name", "description", "summary"}
    if not isinstance(_get(tool, "schema"), dict):
        judged.add("schema")
        yield FieldError((*path, "schema"), "not_a_map")
    if not isinstance(_get(tool, "summary"), str | None):
        yield FieldError((*path, "summary"), "not_a_string")
    yield from type_problems(tool, path, judged)


def _thread_problems(thread: Any, path: _Path) -> _Problems:
    yield from _messages_problems(_get(thread, "messages"), (*path, "messages"))
    yield from type_problems(thread, path, {"messages"})


def _session_problems(session: Any) -> _Problems:
    status = _get(session, "status")
    if not isinstance(status, str) or status not in _STATUSES:
        yield FieldError("status", "unknown")
    elif status in _REQUIRED_FOR_STATUS:
        field = _REQUIRED_FOR_STATUS[status]
        if _is_absent(_get(session, field)):
            yield FieldError(field, "required_for_status")
    thread = _get(session, "thread")
    if isinstance(thread, Thread):
        yield from _thread_problems(thread, ("thread",))
    else:
        yield FieldError("thread", "invalid_type")
    yield from type_problems(session, (), {"status", "thread"})


def _is_temperature(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= _HOTTEST


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, str | list) and not value)


def _get(model: Any, name: str) -> Any:
    """Read a field that may not even be there."""
    return getattr(model, name, None)


def _expect(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"expected a {kind.__name__}, got {type(value).__name__}")


def _refuse(reason: ValidationReason, problems: list[FieldError], messages: Any = None) -> NoReturn:
    text = f"validation failed: {reason} ({len(problems)} error(s)): {_listed(problems)}"
    found = next((problem for problem in problems if problem.reason == "invalid_part_type"), None)
    if found is None:
        raise ValidationError(reason, problems, text)
    offender = _first_offender(messages)
    raise ValidationError(
        reason,
        problems,
        f"{text}; a part of a message's content is a TextPart or an ImagePart, not {offender}",
        metadata={"invalid_part_type": {"expected": ["TextPart", "ImagePart"], "got": offender}},
    )


def _listed(problems: list[FieldError]) -> str:
    """The problems in words: where, and what; not more of them than one reads."""
    lines = [f"{_where(problem.path)} {problem.reason}" for problem in problems[:_MOST_LISTED]]
    return ", ".join(lines) + (", ..." if len(problems) > _MOST_LISTED else "")


def _where(path: tuple[str | int, ...]) -> str:
    """A path as one writes it: `messages[0].role`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


_MOST_LISTED = 10


def _first_offender(messages: Any) -> str:
    parts = (
        part
        for message in messages
        if isinstance(message, Message) and isinstance(_get(message, "content"), list)
        for part in message.content
    )
    return next(type(part).__name__ for part in parts if not isinstance(part, TextPart | ImagePart))
