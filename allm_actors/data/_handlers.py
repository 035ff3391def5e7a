"""What a tool's handler must be able to take, and whether it takes a tool context."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

CONTEXT_NAMES = frozenset({"ctx", "context"})
"""Parameters of these names receive the tool context."""

_POSITIONAL = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


def check_handler(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that can be called with the arguments dict, or with it and a context.

    Raises:
        ValueError: It cannot, or it is a coroutine function.
    """
    if is_coroutine_function(handler):
        raise ValueError("a handler is called in a thread of its own: it cannot be a coroutine function")
    signature = _signature(handler)
    if signature is not None and not _takes(signature, 1) and not _takes(signature, 2):
        raise ValueError(
            "a handler takes the arguments dict, and at most the tool context after it; "
            f"this one takes {signature}"
        )
    return handler


def wants_context(handler: Callable[..., Any]) -> bool:
    """Whether a handler takes a `ToolContext` as its second positional argument.

    It does if its second positional parameter is required, or named `ctx` or `context`, or, with no such
    parameter, if it takes `*args`. A callable that cannot be inspected gets the arguments alone.
    """
    signature = _signature(handler)
    if signature is None:
        return False
    parameters = signature.parameters.values()
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    if len(positional) > 1:
        second = positional[1]
        return second.default is inspect.Parameter.empty or second.name in CONTEXT_NAMES
    return any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)


def is_coroutine_function(function: Any) -> bool:
    """Whether calling a function, a partial or a callable object gives a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    called = None if isinstance(function, type) else getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _signature(handler: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(handler)
    except (ValueError, TypeError):
        return None


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
