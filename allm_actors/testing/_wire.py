"""What a wire format of the `FakeServer` is, and the pieces all of them are made with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping

    from allm_actors.testing._reply import Reply

Body = dict[str, Any]


@dataclass(frozen=True)
class Wire:
    """One provider's format: which paths speak it, and how it writes a reply to a request body."""

    path: re.Pattern[str]
    stream: Callable[[Reply, Body], list[bytes]]
    whole: Callable[[Reply, Body], Body]
    streams: Callable[[str, Body], bool] = lambda _path, body: body.get("stream") is True
    """Whether a request asks for a stream, by its path with the query and its body."""


def frame(data: Mapping[str, Any] | str, event: str | None = None) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else compact(data)
    head = f"event: {event}\n" if event else ""
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    return f"{head}{lines}\n".encode()


def compact(value: Any) -> str:
    """A JSON value as text, without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def cut(text: str, pieces: int) -> list[str]:
    """A text in about that many pieces, none of them empty."""
    size = max(1, -(-len(text) // max(1, pieces)))
    return [text[i : i + size] for i in range(0, len(text), size)]


def object_of(text: str) -> Any:
    """The value of an argument text, for wires that send values; the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def usage_of(reply: Reply) -> tuple[int, int] | None:
    """Input and output tokens, if the reply reports any."""
    if reply.usage is None:
        return None
    return reply.usage.get("input_tokens", 0), reply.usage.get("output_tokens", 0)
