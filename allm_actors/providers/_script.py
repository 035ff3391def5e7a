"""The entries of a fake's script: checked and brought into one form when the fake is built.

An entry is a tuple or list, its tag first. Stored is always a tuple: defaults filled in, usage as a
`Usage`, errors as errors. So equal scripts are equal, and a stored script comes back from JSON.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_args

from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError, to_json

from allm_actors.data import FinishReason, Usage
from allm_actors.data._arguments import compact_json
from allm_actors.data.base import JsonData, JsonObject, Model
from allm_actors.errors import AdapterError, AllmError, StreamError
from allm_actors.errors._base import _KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Delta(Model):
    """What a `tool_call_delta` entry holds."""

    id: str
    arguments_delta: str
    name: str | None = None


class Call(Model):
    """What a `tool_call` entry holds."""

    id: str
    name: str
    arguments: JsonObject = {}  # noqa: RUF012  (pydantic copies it)
    raw_arguments: str = ""


_usage = TypeAdapter(Usage)
_delta = TypeAdapter(Delta)
_call = TypeAdapter(Call)
_json = TypeAdapter(JsonData)
_error: TypeAdapter[AllmError] = TypeAdapter(AllmError)

_FINISH_REASONS: Final = get_args(FinishReason)


class _Reader:
    """Reads the parts of one entry; whatever does not fit fails with the entry's tag."""

    def __init__(self, tag: str, parts: tuple[Any, ...], *, from_json: bool) -> None:
        self.tag, self.parts, self.from_json = tag, parts, from_json

    def fail(self, problem: str) -> PydanticCustomError:
        return PydanticCustomError(
            "script_entry", "{tag} entry: {problem}", {"tag": self.tag, "problem": problem}
        )

    def only(self, least: int, most: int | None = None) -> tuple[Any, ...]:
        """Give the parts after the tag, filled up with `None`, if there are as many as there may be."""
        most = least if most is None else most
        if not least <= len(self.parts) <= most:
            wanted = f"{least}" if least == most else f"{least} or {most}"
            raise self.fail(f"takes {wanted} value(s) after the tag, got {len(self.parts)}")
        return self.parts + (None,) * (most - len(self.parts))

    def text(self, value: Any, what: str) -> str:
        if not isinstance(value, str):
            raise self.fail(f"the {what} should be a str, not {type(value).__name__}")
        return value

    def model(self, adapter: TypeAdapter[T], value: Any) -> T:
        """Validate a part as strictly as it would be at its own place, in JSON as in Python."""
        if self.from_json:
            return adapter.validate_json(to_json(value, inf_nan_mode="constants"))
        return adapter.validate_python(value)

    def made(self, kind: type[AllmError], reason: Any, fields: Any) -> AllmError:
        """Build an error from its reason and fields; an error, or its JSON form, is taken as it is."""
        if isinstance(reason, kind) or (isinstance(reason, dict) and fields is None):
            error = self.model(_error, reason)
            if not isinstance(error, kind):
                raise self.fail(f"should be a {kind.__name__}, not {type(error).__name__}")
            return error
        reason = self.text(reason, "reason")
        if reason not in kind.legal_reasons():
            legal = ", ".join(kind.legal_reasons())
            raise self.fail(f"{reason!r} is no reason of {kind.__name__}: {legal}")
        if not isinstance(fields, dict | None):
            raise self.fail(f"the fields should be a dict, not {type(fields).__name__}")
        try:
            return kind(reason, **(fields or {}))
        except (TypeError, ValueError) as error:
            raise self.fail(str(error)) from None


def _text(read: _Reader) -> tuple[Any, ...]:
    (text,) = read.only(1)
    return (read.text(text, "text"),)


def _tool_call(read: _Reader) -> tuple[Any, ...]:
    (fields,) = read.only(1)
    call = read.model(_call, fields)
    given = call.model_fields_set
    raw = call.raw_arguments if "raw_arguments" in given else compact_json(call.arguments)
    return ({"id": call.id, "name": call.name, "arguments": call.arguments, "raw_arguments": raw},)


def _tool_call_delta(read: _Reader) -> tuple[Any, ...]:
    (fields,) = read.only(1)
    return (read.model(_delta, fields).model_dump(exclude_none=True),)


def _usage_report(read: _Reader) -> tuple[Any, ...]:
    return (read.model(_usage, *read.only(1)),)


def _raw_chunk(read: _Reader) -> tuple[Any, ...]:
    payload, kind = read.only(1, 2)
    kind = "provider" if kind is None else read.text(kind, "kind")
    return (read.model(_usage if kind == "usage" else _json, payload), kind)


def _delay(read: _Reader) -> tuple[Any, ...]:
    (seconds,) = read.only(1)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise read.fail(f"the delay should be a number of seconds, not {type(seconds).__name__}")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise read.fail(f"the delay should be finite and not negative, got {seconds!r}")
    return (float(seconds),)


def _finish(read: _Reader) -> tuple[Any, ...]:
    (reason,) = read.only(1)
    if reason not in _FINISH_REASONS:
        raise read.fail(f"{reason!r} is no finish reason: {', '.join(_FINISH_REASONS)}")
    return (reason,)


def _any_error(read: _Reader) -> tuple[Any, ...]:
    what, fields = read.only(1, 2)
    if isinstance(what, AllmError) and fields is None:
        return (what,)
    if isinstance(what, dict) and fields is None and "reason" in what and what.get("kind") in _KINDS:
        return (read.model(_error, what),)
    if fields is not None or (isinstance(what, str) and what in AdapterError.legal_reasons()):
        return (read.made(AdapterError, what, fields),)
    return (AdapterError("unknown", cause=read.model(_json, what)),)


def _stream_error(read: _Reader) -> tuple[Any, ...]:
    return (read.made(StreamError, *read.only(1, 2)),)


def _preflight_error(read: _Reader) -> tuple[Any, ...]:
    return (read.made(AdapterError, *read.only(1, 2)),)


def _crash(read: _Reader) -> tuple[Any, ...]:
    (message,) = read.only(1)
    return (read.text(message, "message"),)


_READERS: Final[dict[str, Callable[[_Reader], tuple[Any, ...]]]] = {
    "text": _text,
    "tool_call": _tool_call,
    "tool_call_delta": _tool_call_delta,
    "usage": _usage_report,
    "raw_chunk": _raw_chunk,
    "delay": _delay,
    "finish": _finish,
    "error": _any_error,
    "stream_error": _stream_error,
    "preflight_error": _preflight_error,
    "crash": _crash,
}


def _read(entry: Any, info: ValidationInfo) -> tuple[Any, ...]:
    if not isinstance(entry, tuple | list) or not entry:
        raise PydanticCustomError(
            "script_entry", "an entry is a tuple or list, its tag first, got {entry}", {"entry": repr(entry)}
        )
    tag, *parts = entry
    if not isinstance(tag, str) or tag not in _READERS:
        raise PydanticCustomError(
            "script_entry", "unknown tag {tag}: {known}", {"tag": repr(tag), "known": ", ".join(_READERS)}
        )
    return (tag, *_READERS[tag](_Reader(tag, tuple(parts), from_json=info.mode == "json")))


def _write(entry: tuple[Any, ...]) -> list[Any]:
    return [_plain(part) for part in entry]


def _plain(part: Any) -> Any:
    if isinstance(part, AllmError):
        return part.to_dict()
    return part.model_dump(mode="json") if isinstance(part, Model) else part


Entry = Annotated[
    tuple[Any, ...], PlainValidator(_read), PlainSerializer(_write), WithJsonSchema({"type": "array"})
]
"""One entry, as `(tag, part, ...)`."""


def check_order(entries: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Refuse a `preflight_error` in any place but the first: a pre-flight comes before everything else."""
    for index, (tag, *_) in enumerate(entries[1:], 1):
        if tag == "preflight_error":
            raise PydanticCustomError(
                "script_entry",
                "entry {index}: a preflight_error can only be the first entry",
                {"index": index},
            )
    return entries
