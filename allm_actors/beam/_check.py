"""Checks of arguments: a wrong one is refused in the caller, before anything happens."""

from __future__ import annotations

import math
from typing import Any


def seconds(name: str, value: Any, *, zero: bool = False) -> float:
    """A time in seconds: an int or float, not negative, not NaN; `math.inf` is no limit.

    Args:
        name: What the value is called, for the error.
        value: The value.
        zero: Whether 0 is allowed.

    Raises:
        TypeError: Not a number (a bool is none).
        ValueError: Negative, NaN, or 0 where that makes no sense.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if math.isnan(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be {'0 or more' if zero else 'more than 0'} seconds, not {value!r}")
    return value
