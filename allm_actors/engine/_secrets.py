"""What an API key looks like, and how configuration that holds one is refused.

Keys travel with calls. Data that is stored, printed and compared (an engine's `params`, an
adapter's fields) is refused when it holds one.

Guarantees:
    - What is refused never shows up: neither the text nor `errors()` of the exception holds it.
    - Nothing here writes to a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

REDACTED: Final = "[REDACTED]"

_OPENAI = r"(?:sk|rk|org)-[A-Za-z0-9_-]{6,}"
_GOOGLE = r"AIza[A-Za-z0-9_-]{6,}|ya29\.[A-Za-z0-9_.-]{6,}"
KEY_SHAPES: Final = re.compile(rf"\b(?:{_OPENAI}|{_GOOGLE})")
"""Anything shaped like a key of a bundled provider (`sk-ant-...` is an `sk-...`)."""

_SHORTEST_WHOLE_KEY = 20
_CREDENTIAL_HEADERS = frozenset(
    {"api-key", "x-api-key", "x-goog-api-key", "authorization", "proxy-authorization", "cookie"}
)

_Path = tuple[int | str, ...]


def looks_like_key(text: str) -> bool:
    """True when `text`, as a whole, is a provider's key: 20 characters or longer, no `org-` id."""
    return (
        len(text) >= _SHORTEST_WHOLE_KEY
        and not text.startswith("org-")
        and KEY_SHAPES.fullmatch(text) is not None
    )


def refuse_secrets(title: str, data: Mapping[str, Any], *, shapes: bool = False) -> None:
    """Raise for an API key anywhere in `data`, without showing it.

    Found are an `api_key` at any depth, a credential among the names in a top-level `headers`,
    and, with `shapes`, a string that is a key as a whole.

    Raises:
        pydantic.ValidationError: Each place that holds one, by its path.
    """
    problems = [
        InitErrorDetails(type=PydanticCustomError("secret", why), loc=path, input=REDACTED)
        for path, why in _find(data, shapes=shapes)
    ]
    if problems:
        raise ValidationError.from_exception_data(title, problems, hide_input=True)


_NAMED = "an API key is not configuration: pass api_key= to the call or use allm_actors.keys"
_HEADER = "a credential header is not configuration: pass api_key= to the call or use allm_actors.keys"
_SHAPED = "this looks like an API key: pass api_key= to the call or use allm_actors.keys"


def _find(data: Mapping[str, Any], *, shapes: bool) -> Iterator[tuple[_Path, Any]]:
    headers = data.get("headers")
    if isinstance(headers, Mapping):
        for name in headers:
            if isinstance(name, str) and name.strip().lower() in _CREDENTIAL_HEADERS:
                yield ("headers", name), _HEADER
    yield from _walk(data, (), shapes=shapes)


def _walk(value: Any, path: _Path, *, shapes: bool) -> Iterator[tuple[_Path, Any]]:
    match value:
        case str():
            if shapes and looks_like_key(value):
                yield path, _SHAPED
        case Mapping():
            for name, item in value.items():
                if name == "api_key":
                    yield (*path, name), _NAMED
                else:
                    yield from _walk(item, (*path, _step(name, shapes=shapes)), shapes=shapes)
        case BaseModel():
            yield from _walk(dict(value), path, shapes=shapes)
        case list() | tuple():
            for index, item in enumerate(value):
                yield from _walk(item, (*path, index), shapes=shapes)
        case _:
            pass


def _step(name: object, *, shapes: bool) -> str:
    text = str(name)
    return REDACTED if shapes and looks_like_key(text) else text
