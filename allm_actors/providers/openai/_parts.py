"""Pieces of a request that both of OpenAI's endpoints write alike."""

from typing import Any

from allm_actors.data import Request

__all__ = ["IMAGE_TYPES", "prompt_cache"]

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})


def prompt_cache(request: Request) -> dict[str, Any]:
    """Return the members of the body that ask for prompt caching; none if it is off."""
    members: dict[str, Any] = {}
    if request.prompt_cache is not None:
        if request.prompt_cache.key is not None:
            members["prompt_cache_key"] = request.prompt_cache.key
        if request.prompt_cache.retention == "long":
            members["prompt_cache_retention"] = "24h"
    return members
