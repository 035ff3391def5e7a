"""How a reply is written in the wire format of the endpoint that was asked.

A format has two functions: the frames of a stream, and the object of a whole answer. `wire_for` finds it by
the path of the request.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allm_actors.testing._reply import arguments_of

if TYPE_CHECKING:
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
    """Whether a request asks for a stream."""


def frame(data: Mapping[str, Any] | str, event: str | None = None) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    head = f"event: {event}\n" if event else ""
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    return f"{head}{lines}\n".encode()


def cut(text: str, pieces: int) -> list[str]:
    """A text in about that many pieces, none of them empty."""
    size = max(1, -(-len(text) // max(1, pieces)))
    return [text[i : i + size] for i in range(0, len(text), size)]


# --- Chat Completions ---------------------------------------------------------------------------------


def _chat_finish(reply: Reply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def _chat_usage(reply: Reply) -> Body | None:
    if reply.usage is None:
        return None
    used, made = reply.usage.get("input_tokens", 0), reply.usage.get("output_tokens", 0)
    return {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}


def _chat_stream(reply: Reply, body: Body) -> list[bytes]:
    head = {
        "id": reply.id,
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": reply.model or body.get("model"),
    }

    def chunk(delta: Body, finish: str | None = None) -> bytes:
        return frame({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    frames = [chunk({"role": "assistant", "content": ""})]
    if reply.reasoning:
        frames.append(chunk({"reasoning_content": reply.reasoning}))
    frames += [chunk({"content": piece}) for piece in reply.text_pieces()]
    for index, call in enumerate(reply.tool_calls):
        opening = {"index": index, "id": call.id, "type": "function"}
        frames.append(chunk({"tool_calls": [{**opening, "function": {"name": call.name, "arguments": ""}}]}))
        frames += [
            chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            for piece in cut(arguments_of(call), reply.argument_pieces)
        ]
    frames.append(chunk({}, _chat_finish(reply)))
    usage = _chat_usage(reply)
    if usage is not None and (body.get("stream_options") or {}).get("include_usage"):
        frames.append(frame({**head, "choices": [], "usage": usage}))
    return [*frames, frame("[DONE]")]


def _chat_whole(reply: Reply, body: Body) -> Body:
    message: Body = {"role": "assistant", "content": reply.whole_text()}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": arguments_of(call)},
            }
            for call in reply.tool_calls
        ]
    answer: Body = {
        "id": reply.id,
        "object": "chat.completion",
        "created": 1700000000,
        "model": reply.model or body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": _chat_finish(reply)}],
    }
    usage = _chat_usage(reply)
    return {**answer, "usage": usage} if usage is not None else answer


WIRES: list[Wire] = [Wire(re.compile(r"/chat/completions$"), _chat_stream, _chat_whole)]
"""The formats, in the order in which they are tried."""


def wire_for(path: str) -> Wire | None:
    """The format that an endpoint speaks, by its path without the query."""
    return next((wire for wire in WIRES if wire.path.search(path)), None)
