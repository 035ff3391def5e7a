"""What only Gemini knows of a message or a call: thought signatures, and ids the API did not give."""

import re
from collections.abc import Mapping
from typing import Any

from allm_actors.data import ToolCall
from allm_actors.providers.gemini._errors import PROVIDER

__all__ = ["STAND_IN", "THOUGHT_SIGNATURE", "demands_signatures", "is_generated", "signature_in"]

THOUGHT_SIGNATURE = "thought_signature"
"""Where a signature stands in the `provider_data` of a call or a message."""

STAND_IN = "skip_thought_signature_validator"
"""What the API documents for a call that it has not made itself and that therefore has no signature."""

_GENERATION = re.compile(r"(?:^|/)gemini-(\d+)", re.IGNORECASE)
_FIRST_TO_DEMAND = 3


def demands_signatures(model: str) -> bool:
    """Return whether a model refuses a turn whose first call has no signature."""
    found = _GENERATION.search(model)
    return found is not None and int(found[1]) >= _FIRST_TO_DEMAND


def signature_in(provider_data: Mapping[str, Any]) -> str | None:
    """Return the signature that came with a call or a message."""
    signature = _own(provider_data).get(THOUGHT_SIGNATURE)
    return signature if isinstance(signature, str) and signature else None


def is_generated(call: ToolCall) -> bool:
    """Return whether the id of a call was made here, so that the API does not know it."""
    return _own(call.provider_data).get("generated_id") is True


def _own(provider_data: Mapping[str, Any]) -> Mapping[str, Any]:
    own = provider_data.get(PROVIDER)
    return own if isinstance(own, dict) else {}
