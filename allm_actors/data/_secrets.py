"""Keeping keys out of data: the check that configuration passes, and what a key looks like.

The errors made here name the place, never the value.
"""

import re
from typing import Any

import pydantic
from pydantic import SecretStr
from pydantic_core import InitErrorDetails, PydanticCustomError

_SHAPES = (
    r"(?:sk|rk|org|pa)-[A-Za-z0-9_-]{6,}"
    r"|(?:sk|apikey)_[A-Za-z0-9_-]{6,}"
    r"|AIza[A-Za-z0-9_-]{6,}"
    r"|ya29\.[A-Za-z0-9_.-]{6,}"
)
KEY_SHAPES = re.compile(rf"\b(?:{_SHAPES})")
"""Finds what looks like a provider's key, anywhere in a text."""

REDACTED = "[REDACTED]"
_CREDENTIAL_HEADERS = frozenset(
    {"api-key", "x-api-key", "x-goog-api-key", "authorization", "proxy-authorization", "cookie"}
)
_WHOLE_KEY = 20
_LITERAL_KEY = 8
_HIDDEN = "<hidden>"


def looks_like_key(text: str) -> bool:
    """Whether a text is, as a whole, of a key's shape and of a key's length (organisation ids aside)."""
    return len(text) >= _WHOLE_KEY and not text.startswith("org-") and KEY_SHAPES.fullmatch(text) is not None


def redact(text: str, *keys: str | SecretStr | None) -> str:
    """Return a text with keys replaced by `[REDACTED]`.

    Args:
        text: What a provider wrote.
        keys: Known keys; shorter ones than 8 characters would garble texts and are left. Whatever has the
            shape of a key is replaced too.
    """
    for key in keys:
        literal = key.get_secret_value() if isinstance(key, SecretStr) else key
        if literal and len(literal) >= _LITERAL_KEY:
            text = text.replace(literal, REDACTED)
    return KEY_SHAPES.sub(REDACTED, text)


def refuse_keys(value: Any, *, title: str, loc: tuple[str | int, ...] = ()) -> None:
    """Check that configuration holds no key: none named `api_key`, none that looks like one, at any depth.

    Within a dict called `headers` the names of credential headers are refused too, case ignored.

    Args:
        value: Dicts and lists are looked into; pydantic models and other objects are not.
        title: What is being built, for the error.
        loc: Where the value stands in it.

    Raises:
        pydantic.ValidationError: There is one. Each place is listed; no value is in its text or in
        `errors()`.
    """
    problems: list[InitErrorDetails] = []
    _collect(value, loc, problems, set())
    if problems:
        raise pydantic.ValidationError.from_exception_data(title, problems, hide_input=True)


def _collect(
    value: Any, loc: tuple[str | int, ...], problems: list[InitErrorDetails], above: set[int]
) -> None:
    if isinstance(value, SecretStr) or (isinstance(value, str) and looks_like_key(value)):
        _refuse(
            problems, loc, "Input looks like an API key; keys are passed per call (api_key=...), never stored"
        )
    elif isinstance(value, dict | list | tuple) and id(value) not in above:
        above.add(id(value))
        is_headers = bool(loc) and loc[-1] == "headers"
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            where = (*loc, key if isinstance(key, int) else str(key))
            if key == "api_key":
                _refuse(problems, where, "An api_key is passed per call (api_key=...), never stored")
            elif is_headers and isinstance(key, str) and key.lower() in _CREDENTIAL_HEADERS:
                _refuse(problems, where, "Credential headers are made from the key of the call, never stored")
            else:
                _collect(item, where, problems, above)
        above.discard(id(value))


def _refuse(problems: list[InitErrorDetails], loc: tuple[str | int, ...], text: str) -> None:
    error = PydanticCustomError("secret", text)
    problems.append(InitErrorDetails(type=error, loc=loc, input=_HIDDEN))
