"""OpenAI's Responses, as a server writes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from allm_actors.testing._reply import arguments_of
from allm_actors.testing._wire import Body, Wire, cut, frame, usage_of

if TYPE_CHECKING:
    from allm_actors.data import ToolCall
    from allm_actors.testing._reply import Reply

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def _head(reply: Reply, body: Body, status: str) -> Body:
    return {
        "id": reply.id,
        "object": "response",
        "created_at": 1700000000,
        "model": reply.model or body.get("model"),
        "status": status,
    }


def _whole(reply: Reply, body: Body) -> Body:
    why = _INCOMPLETE.get(reply.finish_reason or "")
    answer = _head(reply, body, "incomplete" if why else "completed")
    if why:
        answer["incomplete_details"] = {"reason": why}
    answer["output"] = [_done(item) for item in _items(reply)]
    usage = usage_of(reply)
    if usage is not None:
        answer["usage"] = {"input_tokens": usage[0], "output_tokens": usage[1], "total_tokens": sum(usage)}
    return answer


def _items(reply: Reply) -> list[Any]:
    """The output items: a reasoning text, the text, the calls, as far as there are any."""
    items: list[Any] = []
    if reply.reasoning:
        items.append(("reasoning", reply.reasoning))
    if reply.whole_text() or not reply.tool_calls:
        items.append(("message", reply.whole_text()))
    return [*items, *reply.tool_calls]


def _done(item: Any) -> Body:
    match item:
        case ("reasoning", text):
            return {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": text}]}
        case ("message", text):
            content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
            return {"type": "message", "id": "msg_1", "role": "assistant", "content": content}
        case _:
            return {**_call(item), "arguments": arguments_of(item), "status": "completed"}


def _call(call: ToolCall) -> Body:
    return {"type": "function_call", "id": f"fc_{call.id}", "call_id": call.id, "name": call.name}


def _stream(reply: Reply, body: Body) -> list[bytes]:
    frames: list[bytes] = []

    def send(kind: str, **fields: Any) -> None:
        frames.append(frame({"type": kind, "sequence_number": len(frames), **fields}, kind))

    send("response.created", response=_head(reply, body, "in_progress"))
    for index, item in enumerate(_items(reply)):
        done = _done(item)
        where = {"item_id": done["id"], "output_index": index}
        send("response.output_item.added", output_index=index, item=_opening(item, done))
        match item:
            case ("reasoning", text):
                send("response.reasoning_summary_text.delta", **where, summary_index=0, delta=text)
            case ("message", _):
                for piece in reply.text_pieces():
                    send("response.output_text.delta", **where, content_index=0, delta=piece)
                if reply.whole_text():
                    send("response.output_text.done", **where, content_index=0, text=reply.whole_text())
            case _:
                for piece in cut(done["arguments"], reply.argument_pieces):
                    send("response.function_call_arguments.delta", **where, delta=piece)
                send("response.function_call_arguments.done", **where, arguments=done["arguments"])
        send("response.output_item.done", output_index=index, item=done)
    answer = _whole(reply, body)
    send(f"response.{answer['status']}", response=answer)
    return frames


def _opening(item: Any, done: Body) -> Body:
    match item:
        case ("reasoning", _):
            return {**done, "summary": []}
        case ("message", _):
            return {**done, "content": []}
        case _:
            return {**done, "arguments": "", "status": "in_progress"}


RESPONSES = Wire(re.compile(r"/responses$"), _stream, _whole)
