"""What a model's name says about how OpenAI wants to be asked."""

import re

__all__ = ["refuses_max_tokens", "thinks"]

_NEW = re.compile(r"gpt-(?:[5-9]|[1-9]\d+)(?!\d)|o[1-9](?![a-z0-9])", re.IGNORECASE)
_RENAMED = re.compile(r"gpt-4o|gpt-4\.1", re.IGNORECASE)


def thinks(model: str) -> bool:
    """Return whether the model is `gpt-5` or later, or of the o-series, or fine-tuned from one."""
    return _NEW.match(_base(model)) is not None


def refuses_max_tokens(model: str) -> bool:
    """Return whether Chat Completions wants `max_completion_tokens` for the model."""
    return thinks(model) or _RENAMED.match(_base(model)) is not None


def _base(model: str) -> str:
    return model[3:] if model[:3].lower() == "ft:" else model
