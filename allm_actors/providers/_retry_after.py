"""How long a provider asks us to wait."""

import math
import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

__all__ = ["retry_after"]

_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)


def retry_after(
    headers: Mapping[str, str],
    details: Iterable[Mapping[str, Any]] = (),
    *,
    now: float | None = None,
) -> float | None:
    """Return the seconds to wait, or `None` if nothing usable is said.

    The first usable of: the header `retry-after-ms`, the header `retry-after` (seconds, or an HTTP date
    counted from `now`, a Unix time), Google's `RetryInfo` among the error's details. Names of headers are in
    lower case. Negative, infinite and unreadable values count as absent; a date in the past is 0.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    seconds = _number(headers.get("retry-after"))
    if seconds is None:
        seconds = _until(headers.get("retry-after"), time.time() if now is None else now)
    if seconds is None:
        seconds = next((wait for detail in details if (wait := _retry_info(detail)) is not None), None)
    return seconds


def _number(text: Any) -> float | None:
    if not isinstance(text, str) or not _NUMBER.fullmatch(text.strip()):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def _until(text: str | None, now: float) -> float | None:
    if not text:
        return None
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:  # an HTTP date is in UTC, whether it says so or not
            date = date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _retry_info(detail: Mapping[str, Any]) -> float | None:
    delay = detail.get("retryDelay")
    if not str(detail.get("@type", "")).endswith("RetryInfo") or not isinstance(delay, str):
        return None
    return _number(delay.strip().removesuffix("s")) if delay.strip().endswith("s") else None
