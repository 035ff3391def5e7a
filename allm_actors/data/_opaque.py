"""Any object as JSON, if the whole of it can be; else as its `repr`.

What can be: JSON values, tuples among them (written as arrays), pydantic models, dataclasses and the
library's errors, at any depth. One part that cannot be makes the whole value its `repr`, for half an object
would pass for the object.
"""

import dataclasses
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from allm_actors.errors import AllmError
from allm_actors.errors._json import MAX_DEPTH, check_json


def to_jsonable(value: Any) -> Any:
    """Return a JSON value that stands for `value`; never raises."""
    try:
        plain = check_json(_unwrapped(value, 0))
        to_json(plain)
    except Exception:  # noqa: BLE001 - models and dataclasses run their own code here
        return described(value)
    return plain


def _unwrapped(value: Any, depth: int) -> Any:
    """Replace models, dataclasses, errors and tuples by what they are made of."""
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, dict):
        return {key: _unwrapped(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unwrapped(item, depth + 1) for item in value]
    if isinstance(value, AllmError):
        return value.to_dict()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _unwrapped(getattr(value, field.name), depth + 1)
            for field in dataclasses.fields(value)
        }
    return value


def described(value: Any) -> str:
    """Return the `repr` of anything as text that can be written, or its class where that fails."""
    try:
        return repr(value).encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001 - a `repr` that raises must not keep its owner from being written
        return f"<{type(value).__module__}.{type(value).__qualname__} object>"
