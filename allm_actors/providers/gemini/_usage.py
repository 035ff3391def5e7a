"""Reading Gemini's token counters. The wire counts thoughts apart from the rest of the output."""

from collections.abc import Mapping
from typing import Any

from allm_actors.data import Usage
from allm_actors.providers._json import plain
from allm_actors.providers._usage import Path, counter, lift

__all__ = ["read_usage"]

_COUNTERS: Mapping[str, Path] = {
    "input_tokens": "promptTokenCount",
    "total_tokens": "totalTokenCount",
    "cached_input_tokens": "cachedContentTokenCount",
    "reasoning_tokens": "thoughtsTokenCount",
}
_OUTPUT = ("candidatesTokenCount", "responseTokenCount")
"""The names of the counter of the output without the thoughts; the first that says something counts."""


def read_usage(raw: Any) -> Usage | None:
    """Return the usage that `raw` is, or `None` if it is no object. Output counts thoughts, too."""
    if not isinstance(raw, dict):
        return None
    counters, extra = lift(raw, _COUNTERS)
    thoughts = counters["reasoning_tokens"]
    for name in _OUTPUT:
        spoken = counter(extra.pop(name, None))
        if spoken is None:
            continue
        counters["output_tokens"] = spoken + (thoughts or 0)
        if thoughts is not None:
            extra[name] = spoken
        break
    else:
        counters["output_tokens"] = thoughts
    return Usage.model_validate({**counters, "extra": plain(extra)})
