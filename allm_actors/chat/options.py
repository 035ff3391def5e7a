"""The options of steps, chats and tool batches: checked at the call, before anything is contacted.

Guarantees:
    - A value of the wrong type is a `TypeError`, an impossible one a `ValueError`, naming the option.
    - Nothing consumed here reaches an adapter, whether it came from the call or from the engine's parameters.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from allm_actors.data import Tool
from allm_actors.engine import ToolExecutor, ToolResultEncoder

if TYPE_CHECKING:
    from allm_actors.data import StepResult, ToolCall
    from allm_actors.engine import Engine
    from allm_actors.errors import ToolError

__all__ = ["NUDGE", "ErrorPolicy", "RunOptions", "sort_run_options", "with_engine"]

NUDGE: Final = "Give the final answer now, in the structured form that was asked for."
"""What asks the model for the structured answer, unless the caller says otherwise."""

DEFAULT_MAX_TURNS: Final = 8
DEFAULT_TOOL_TIMEOUT: Final = 30.0

ErrorPolicy = Literal["continue", "halt"] | Callable[["ToolCall", "ToolError"], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of one run that the model's provider never sees.

    Attributes:
        given: The names of those that the call gave.
        request: Everything else: the options of each single request.
    """

    mode: Literal["auto", "manual"] = "auto"
    max_turns: int = DEFAULT_MAX_TURNS
    halt_when: Callable[[StepResult], Any] | None = None
    on_tool_error: ErrorPolicy = "continue"
    tool_timeout: float = DEFAULT_TOOL_TIMEOUT
    max_concurrency: int | None = None
    tool_executor: ToolExecutor | type[ToolExecutor] | None = None
    tool_result_encoder: ToolResultEncoder | type[ToolResultEncoder] | None = None
    context: Mapping[str, Any] | None = None
    session_id: str | None = None
    structured_finalize: bool = False
    structured_finalize_nudge: str = NUDGE
    tools: list[Tool] | None = None
    given: frozenset[str] = frozenset()
    request: Mapping[str, Any] = field(default_factory=dict)


def sort_run_options(options: Mapping[str, Any]) -> tuple[RunOptions, ValueError | None]:
    """Check the options of a call and take out those of the run.

    Args:
        options: The keyword arguments; `None` means not given.

    Returns:
        The options, and the first impossible value: types are judged before values, those of the other
        arguments too, so it is the caller's to raise.

    Raises:
        TypeError: A value of the wrong type.
    """
    own: dict[str, Any] = {}
    problem: ValueError | None = None
    given = {name: value for name, value in options.items() if value is not None}
    for name in [name for name in given if name in _CHECKS]:
        try:
            own[name] = _CHECKS[name](name, given.pop(name))
        except ValueError as error:
            problem = problem or error
    return RunOptions(**own, given=frozenset(own), request=given), problem


def with_engine(options: RunOptions, engine: Engine) -> RunOptions:
    """Fill in what the engine's parameters say and the call does not; checked like the call's own.

    Raises:
        TypeError: An engine parameter of the wrong type.
        ValueError: An impossible one.
    """
    found = {
        name: _CHECKS[name](name, engine.params[name])
        for name in FROM_ENGINE
        if name not in options.given and engine.params.get(name) is not None
    }
    return replace(options, **found) if found else options


FROM_ENGINE: Final = ("max_turns", "tool_timeout", "max_concurrency", "structured_finalize_nudge")
"""Options that are also read from the engine's parameters."""


def _word(*allowed: str) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be one of {allowed}, not {type(value).__name__}")
        if value not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, not {value!r}")
        return value

    return check


def _positive_int(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, not {value!r}")
    return value


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if math.isnan(value) or value <= 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")
    return float(value)


def _callable(name: str, value: Any) -> Any:
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {type(value).__name__}")
    return value


def _policy(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return _word("continue", "halt")(name, value)
    if not callable(value):
        raise TypeError(f'{name} must be "continue", "halt" or callable, not {type(value).__name__}')
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return value  # it cannot be looked into: calling it will tell
    try:
        signature.bind(None, None)
    except TypeError:
        raise ValueError(f"{name} is called with (tool_call, error); {value!r} cannot take them") from None
    return value


def _instance_or_class(kind: type) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if isinstance(value, kind) or (isinstance(value, type) and issubclass(value, kind)):
            return value
        said = value.__name__ if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name} must be a {kind.__name__}, an instance or the class, not {said}")

    return check


def _of(kind: type, said: str) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be {said}, not {type(value).__name__}")
        return value

    return check


def _tools(name: str, value: Any) -> list[Tool]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of tools, not {type(value).__name__}")
    for place, tool in enumerate(value):
        if not isinstance(tool, Tool):
            raise TypeError(f"{name}[{place}] must be a Tool, not {type(tool).__name__}")
    return list(value)


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "mode": _word("auto", "manual"),
    "max_turns": _positive_int,
    "halt_when": _callable,
    "on_tool_error": _policy,
    "tool_timeout": _seconds,
    "max_concurrency": _positive_int,
    "tool_executor": _instance_or_class(ToolExecutor),
    "tool_result_encoder": _instance_or_class(ToolResultEncoder),
    "context": _of(Mapping, "a mapping"),
    "session_id": _of(str, "a str"),
    "structured_finalize": _of(bool, "a bool"),
    "structured_finalize_nudge": _of(str, "a str"),
    "tools": _tools,
}
