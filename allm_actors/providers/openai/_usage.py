"""Where OpenAI's two endpoints keep the token counters."""

from collections.abc import Mapping

from allm_actors.providers._usage import Path

__all__ = ["CHAT", "RESPONSES"]

CHAT: Mapping[str, Path] = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "total_tokens": "total_tokens",
    "cached_input_tokens": ("prompt_tokens_details", "cached_tokens"),
    "cache_write_input_tokens": ("prompt_tokens_details", "cache_write_tokens"),
    "reasoning_tokens": ("completion_tokens_details", "reasoning_tokens"),
}

RESPONSES: Mapping[str, Path] = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "total_tokens": "total_tokens",
    "cached_input_tokens": ("input_tokens_details", "cached_tokens"),
    "cache_write_input_tokens": ("input_tokens_details", "cache_write_tokens"),
    "reasoning_tokens": ("output_tokens_details", "reasoning_tokens"),
}
