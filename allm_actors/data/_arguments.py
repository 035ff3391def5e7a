"""The arguments of a tool call: from the text a model wrote to a dict, and compact JSON."""

import json
from typing import Any

import pydantic
from pydantic_core import from_json

from allm_actors.errors._json import check_json_object


def parse_arguments(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text holds, or `None` if it holds none.

    Of repeated keys the last counts. NaN, infinities and lone surrogates are not JSON.
    """
    try:
        return check_json_object(from_json(text, allow_inf_nan=False))
    except (ValueError, pydantic.ValidationError):
        return None


def complete_arguments(text: str) -> tuple[dict[str, Any], str]:
    """Return `arguments` and `raw_arguments` for the whole argument text of a call.

    No text is a call without arguments, `{}` and `"{}"`. Text that is no JSON object gives `{}` and is kept
    verbatim.
    """
    if not text:
        return {}, "{}"
    return parse_arguments(text) or {}, text


def compact_json(value: Any) -> str:
    """Return a JSON value as text without spaces between tokens; non-ASCII text stays readable.

    Raises:
        ValueError: NaN or an infinity.
        TypeError: Something else that is not JSON.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
