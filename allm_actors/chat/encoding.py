"""How tool results and tool errors become the text a model reads.

Guarantees:
    - A string is passed through as it is; everything else is compact JSON, non-ASCII text readable, key order
      kept, so the same value always gives the same text.
    - Whatever an encoder does, an error gets a text: what a custom one cannot write, the built-in one does.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

import pydantic

from allm_actors import beam
from allm_actors.engine import ToolResultEncoder
from allm_actors.errors import AllmError, ToolError

__all__ = ["DefaultEncoder", "encode", "encode_error", "plain_error", "said"]


class DefaultEncoder(ToolResultEncoder):
    """Writes strings as they are and everything else as compact JSON."""

    def encode(self, value: Any) -> str:
        """Give the text of a value.

        Raises:
            TypeError: Something in it has no JSON form.
            ValueError: It holds NaN or an infinity, or refers to itself.
        """
        if isinstance(value, str):
            return value
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """The fields of a model, dataclass or error; `json` calls it for what it cannot write."""
    if isinstance(value, AllmError):
        return value.to_dict()
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


_BUILT_IN: Final = DefaultEncoder()


def encode(encoder: ToolResultEncoder, value: Any, *, tool_name: str, tool_call_id: str) -> str:
    """Encode a result.

    Raises:
        ToolError: `encoding_failed`: the encoder raised, or gave something that is no text.
        beam.Exit: The calling process was told to exit.
    """
    text: Any = None
    cause: BaseException | None = None
    try:
        text = encoder.encode(value)
        problem = None if isinstance(text, str) else f"{type(encoder).__name__} gave {type(text).__name__}"
        if problem is None:
            text.encode()  # a string may hold half of a character, which no message can
    except BaseException as raised:  # noqa: BLE001  somebody's encoder: whatever it raises, the run goes on
        beam.checkpoint()
        cause, problem = raised, said(raised)
    if problem is None:
        return text  # type: ignore[no-any-return]
    error = ToolError(
        "encoding_failed",
        f"the result of {tool_name} cannot be encoded: {problem}",
        tool_name=tool_name,
        tool_call_id=tool_call_id,
    )
    error.__cause__ = cause
    raise error


def encode_error(encoder: ToolResultEncoder, error: ToolError) -> str:
    """Encode an error; never fails, but for the exit of the calling process."""
    if error.reason != "encoding_failed":
        try:
            text = encoder.encode_error(error)
            if isinstance(text, str):
                text.encode()
                return text
        except BaseException:  # noqa: BLE001  the built-in encoder writes it instead
            beam.checkpoint()
    return plain_error(error)


def plain_error(error: ToolError) -> str:
    """Encode an error with the built-in encoder: runs nobody's code but a `__str__`."""
    return _BUILT_IN.encode_error(error)


def said(error: BaseException) -> str:
    """The text of an exception as it can be written, or its class's name."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  somebody's `__str__`
        text = ""
    text = text.encode("utf-8", "replace").decode()
    return text if text.strip() else type(error).__name__
