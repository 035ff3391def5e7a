"""JSON values: the check that everything stored as JSON passes.

`check_json` and `check_json_object` return a plain, deep copy made of `dict`, `list`, `str`, `int`,
`float`, `bool` and `None` only; or raise `pydantic.ValidationError` with one line per offending value, each
with its path.

A value passes when writing it as JSON and reading it back gives an equal one: so no tuple, no key but a
string, no NaN or infinity, no lone surrogate, and at most `MAX_DEPTH` containers inside one another.
"""

from math import isfinite
from typing import Any, LiteralString

import pydantic
from pydantic_core import InitErrorDetails, PydanticCustomError

MAX_DEPTH = 200
"""As deep as pydantic's own JSON parser goes."""

_TOO_LARGE = 10**4300  # Python writes and reads no more digits than that


class _NotJsonError(Exception):
    """Leaves the quick pass at the first value that is not JSON."""


def check_json(value: Any, *, title: str = "JsonValue") -> Any:
    """Return a plain copy of a JSON value.

    Raises:
        pydantic.ValidationError: Something in it is not JSON; every such place is listed.
    """
    try:
        return _plain(value, 0)
    except _NotJsonError:
        raise pydantic.ValidationError.from_exception_data(title, json_problems(value)) from None


def check_json_object(value: Any) -> dict[str, Any]:
    """Return a plain copy of a dict with string keys and JSON values.

    Raises:
        pydantic.ValidationError: It is not a dict, or something in it is not JSON.
    """
    if not isinstance(value, dict):
        problem = InitErrorDetails(type="dict_type", loc=(), input=value)
        raise pydantic.ValidationError.from_exception_data("JsonObject", [problem])
    if not value:
        return {}
    return check_json(value, title="JsonObject")  # type: ignore[no-any-return]


def json_problems(value: Any, loc: tuple[str | int, ...] = ()) -> list[InitErrorDetails]:
    """List what keeps a value from being JSON, as line errors for pydantic; empty if nothing does."""
    problems: list[InitErrorDetails] = []
    _collect(value, loc, problems, 0)
    return problems


def _plain(value: Any, depth: int) -> Any:  # noqa: PLR0911 - one per JSON type
    """Copy, quickly: the exact types first, as they come out of every JSON parser."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _encodable(value)
    if kind is int:
        return _writable(value)
    if kind is bool or value is None:
        return value
    if kind is float:
        return _finite(value)
    if depth >= MAX_DEPTH:
        raise _NotJsonError
    if isinstance(value, dict):
        return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    """Store subclasses as what they stand for: a `StrEnum` member as its string, a numpy float as a float."""
    if isinstance(value, str):
        return _encodable(str.__str__(value))
    if isinstance(value, int):
        return _writable(int(value))
    if isinstance(value, float):
        return _finite(float(value))
    raise _NotJsonError


def _key(key: Any) -> str:
    if type(key) is str:
        return key if key.isascii() else _encodable(key)
    if isinstance(key, str):
        return _encodable(str.__str__(key))
    raise _NotJsonError


def _writable(value: int) -> int:
    if -_TOO_LARGE < value < _TOO_LARGE:
        return value
    raise _NotJsonError


def _finite(value: float) -> float:
    if isfinite(value):
        return value
    raise _NotJsonError


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NotJsonError from None
    return text


def _collect(value: Any, loc: tuple[str | int, ...], problems: list[InitErrorDetails], depth: int) -> None:
    if isinstance(value, dict | list) and depth >= MAX_DEPTH:
        _note(
            problems, loc, type(value).__name__, "Input is nested more than {depth} levels deep", depth=depth
        )
    elif isinstance(value, dict):
        for key, item in value.items():
            try:
                name = _key(key)
            except _NotJsonError:
                where = key if type(key) is int else repr(key)
                _note(
                    problems, (*loc, where), key, "Keys should be strings, not {got}", got=type(key).__name__
                )
            else:
                _collect(item, (*loc, name), problems, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect(item, (*loc, index), problems, depth + 1)
    else:
        _collect_scalar(value, loc, problems)


def _collect_scalar(value: Any, loc: tuple[str | int, ...], problems: list[InitErrorDetails]) -> None:
    try:
        _plain(value, 0)
    except _NotJsonError:
        if isinstance(value, float):
            _note(problems, loc, value, "Input should be a finite number")
        elif isinstance(value, int):
            _note(problems, loc, "a number", "Input should be a number of at most 4300 digits")
        elif isinstance(value, str):
            # The text itself cannot be written down in an error message either.
            _note(problems, loc, ascii(value), "Input should be text without lone surrogates")
        else:
            got = type(value).__name__
            _note(problems, loc, value, "Input should be a JSON value, not {got}", got=got)


def _note(
    problems: list[InitErrorDetails],
    loc: tuple[str | int, ...],
    found: Any,
    text: LiteralString,
    **context: Any,
) -> None:
    error = PydanticCustomError("json_value", text, context)
    problems.append(InitErrorDetails(type=error, loc=loc, input=found))
