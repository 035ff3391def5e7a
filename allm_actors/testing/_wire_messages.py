"""Anthropic's Messages, as a server writes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from allm_actors.testing._reply import arguments_of
from allm_actors.testing._wire import Body, Wire, cut, frame, object_of, usage_of

if TYPE_CHECKING:
    from allm_actors.testing._reply import Reply

_STOP = {
    "stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal",
}  # fmt: skip


def _stop_reason(reply: Reply) -> str:
    reason = reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")
    return _STOP.get(reason, reason)


def _head(reply: Reply, body: Body) -> Body:
    return {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "model": reply.model or body.get("model"),
    }


def _blocks(reply: Reply) -> list[tuple[Body, list[Body]]]:
    """Each content block as it opens, and the deltas that fill it."""
    blocks: list[tuple[Body, list[Body]]] = []
    if reply.reasoning:
        signature = {"type": "signature_delta", "signature": "c2lnbmVk"}
        thoughts = [{"type": "thinking_delta", "thinking": reply.reasoning}, signature]
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, thoughts))
    if reply.whole_text():
        texts = [{"type": "text_delta", "text": piece} for piece in reply.text_pieces()]
        blocks.append(({"type": "text", "text": ""}, texts))
    for call in reply.tool_calls:
        pieces = cut(arguments_of(call), reply.argument_pieces)
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        blocks.append(({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, deltas))
    return blocks


def _stream(reply: Reply, body: Body) -> list[bytes]:
    frames: list[bytes] = []

    def send(kind: str, **fields: Any) -> None:
        frames.append(frame({"type": kind, **fields}, kind))

    usage = usage_of(reply)
    opening: Body = {**_head(reply, body), "content": [], "stop_reason": None}
    if usage is not None:
        opening["usage"] = {"input_tokens": usage[0], "output_tokens": 1}
    send("message_start", message=opening)
    for index, (block, deltas) in enumerate(_blocks(reply)):
        send("content_block_start", index=index, content_block=block)
        for delta in deltas:
            send("content_block_delta", index=index, delta=delta)
        send("content_block_stop", index=index)
    counted = {} if usage is None else {"usage": {"output_tokens": usage[1]}}
    send("message_delta", delta={"stop_reason": _stop_reason(reply), "stop_sequence": None}, **counted)
    send("message_stop")
    return frames


def _whole(reply: Reply, body: Body) -> Body:
    content: list[Body] = []
    if reply.reasoning:
        content.append({"type": "thinking", "thinking": reply.reasoning, "signature": "c2lnbmVk"})
    if reply.whole_text():
        content.append({"type": "text", "text": reply.whole_text()})
    for call in reply.tool_calls:
        given = object_of(arguments_of(call))
        content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
    answer = {
        **_head(reply, body),
        "content": content,
        "stop_reason": _stop_reason(reply),
        "stop_sequence": None,
    }
    usage = usage_of(reply)
    if usage is not None:
        answer["usage"] = {"input_tokens": usage[0], "output_tokens": usage[1]}
    return answer


MESSAGES = Wire(re.compile(r"/messages$"), _stream, _whole)
