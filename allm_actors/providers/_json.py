"""Reading the JSON of the wires without ever raising anything foreign.

What providers send is mostly plain JSON, which the fast parser reads. What it refuses and a patient reader
would not (half of a surrogate pair, a NaN among numbers nobody looks at) is read a second time, and repaired.
"""

import json
import math
from typing import Any

from pydantic_core import from_json

from allm_actors.data._arguments import compact_json

__all__ = ["compact", "parse", "plain"]

_MAX_DEPTH = 180  # our models hold 200 levels, of which wrappers may take a few


def parse(text: str) -> Any:
    """Return the JSON value `text` stands for; of duplicate keys the last wins.

    Raises:
        ValueError: It is not JSON, or too deep or too big to be held.
    """
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        pass
    try:
        return plain(json.loads(text))
    except RecursionError:
        pass
    raise ValueError("nested too deeply")


def compact(value: Any) -> str:
    """Return a parsed `value` as JSON without spaces, non-ASCII characters as they are."""
    return compact_json(plain(value))


def plain(value: Any, depth: int = 0) -> Any:
    """Return a copy of the parsed `value` that one of our models can hold.

    Lone surrogates become U+FFFD; numbers that are not finite, and what is nested too deeply, become `None`.
    """
    match value:
        case str():
            return value if value.isascii() else _repaired(value)
        case float():
            return value if math.isfinite(value) else None
        case dict():
            if depth > _MAX_DEPTH:
                return None
            return {plain(key): plain(item, depth + 1) for key, item in value.items()}
        case list():
            return [plain(item, depth + 1) for item in value] if depth <= _MAX_DEPTH else None
        case _:
            return value


def _repaired(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
