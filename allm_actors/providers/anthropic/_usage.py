"""Reading Anthropic's token counters.

The wire counts the input in three parts that do not overlap: what was read from the cache, what was written
to it, and the rest.
"""

from collections.abc import Mapping
from typing import Any

from allm_actors.data import Usage
from allm_actors.providers._json import plain
from allm_actors.providers._usage import Path, lift

__all__ = ["merge_usage", "read_usage"]

_COUNTERS: Mapping[str, Path] = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_input_tokens": "cache_read_input_tokens",
    "cache_write_input_tokens": "cache_creation_input_tokens",
    "reasoning_tokens": ("output_tokens_details", "thinking_tokens"),
}


def read_usage(raw: Any) -> Usage | None:
    """Return the usage that `raw` is, or `None` if it is no object. Input counts cached tokens, too."""
    if not isinstance(raw, dict):
        return None
    counters, extra = lift(raw, _COUNTERS)
    uncached, made = counters["input_tokens"], counters["output_tokens"]
    if uncached is not None:
        extra["uncached_input_tokens"] = uncached
        read, written = counters["cached_input_tokens"], counters["cache_write_input_tokens"]
        counters["input_tokens"] = whole = uncached + (read or 0) + (written or 0)
        if made is not None:
            counters["total_tokens"] = whole + made
    return Usage.model_validate({**counters, "extra": plain(extra)})


def merge_usage(known: dict[str, Any] | None, later: Any) -> dict[str, Any] | None:
    """Return `known` with what `later` reports over it: its counters are totals, and `None` says nothing."""
    if not isinstance(later, dict):
        return known
    return {**(known or {}), **{name: value for name, value in later.items() if value is not None}}
