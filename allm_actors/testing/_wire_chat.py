"""OpenAI's Chat Completions, as a server writes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from allm_actors.testing._reply import arguments_of
from allm_actors.testing._wire import Body, Wire, cut, frame, usage_of

if TYPE_CHECKING:
    from allm_actors.testing._reply import Reply


def _chat_finish(reply: Reply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def _chat_usage(reply: Reply) -> Body | None:
    usage = usage_of(reply)
    if usage is None:
        return None
    used, made = usage
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


CHAT = Wire(re.compile(r"/chat/completions$"), _chat_stream, _chat_whole)
