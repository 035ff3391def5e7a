"""The options of a call: some belong to the library, some have their own place, the rest go to the body."""

from collections.abc import Collection, Mapping
from typing import Any

from allm_actors.data import Request
from allm_actors.errors import FieldError, ValidationError

__all__ = ["REASONING_OPTIONS", "check_reasoning_options", "join_options", "write_options"]

_RESERVED = ("model", "messages", "input", "contents", "stream", "api_key")

REASONING_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "reasoning_effort": ("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "reasoning_summary": ("auto", "concise", "detailed"),
    "verbosity": ("low", "medium", "high"),
}
"""The options for which each wire has a place of its own, and what they may be."""


def join_options(request: Request, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's options with the call's over them.

    Raises:
        ValidationError: One of them is a name that belongs to the library.
    """
    joined = {**request.options, **options}
    reserved = [FieldError(("options", name), "reserved_key") for name in _RESERVED if name in joined]
    if reserved:
        raise ValidationError("invalid_request", reserved)
    return joined


def check_reasoning_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Return those of the reasoning options that were given.

    Raises:
        ValidationError: One has a value no provider knows.
    """
    given = {name: options[name] for name in REASONING_OPTIONS if options.get(name) is not None}
    unknown = [
        FieldError(("options", name), "unknown_value")
        for name, value in given.items()
        if value not in REASONING_OPTIONS[name]
    ]
    if unknown:
        raise ValidationError("invalid_request", unknown)
    return given


def write_options(
    body: dict[str, Any], options: Mapping[str, Any], *, placed: Collection[str] = REASONING_OPTIONS
) -> None:
    """Write `options` over `body`: `None` takes a key away, and those in `placed` are left to others."""
    for name, value in options.items():
        if name in placed:
            continue
        if value is None:
            body.pop(name, None)
        else:
            body[name] = value
