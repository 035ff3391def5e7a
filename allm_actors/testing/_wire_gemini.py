"""Gemini's generateContent, as a server writes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from allm_actors.testing._reply import arguments_of
from allm_actors.testing._wire import Body, Wire, frame, object_of, usage_of

if TYPE_CHECKING:
    from allm_actors.data import ToolCall
    from allm_actors.testing._reply import Reply

_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}


def _finish(reply: Reply) -> str:
    reason = reply.finish_reason or "stop"
    return _FINISH.get(reason, reason)


def _part(call: ToolCall) -> Body:
    given = object_of(arguments_of(call))
    return {"functionCall": {"id": call.id, "name": call.name, "args": given}}


def _thought(reply: Reply) -> list[Body]:
    return [{"text": reply.reasoning, "thought": True}] if reply.reasoning else []


def _answer(reply: Reply, parts: list[Body], *, finish: str | None) -> Body:
    candidate: Body = {"index": 0, "content": {"role": "model", "parts": parts}}
    if finish is not None:
        candidate["finishReason"] = finish
    answer: Body = {"candidates": [candidate], "responseId": reply.id}
    if reply.model is not None:
        answer["modelVersion"] = reply.model
    usage = usage_of(reply)
    if usage is not None:
        answer["usageMetadata"] = {
            "promptTokenCount": usage[0],
            "candidatesTokenCount": usage[1],
            "totalTokenCount": sum(usage),
        }
    return answer


def _stream(reply: Reply, _body: Body) -> list[bytes]:
    parts = [*_thought(reply), *({"text": piece} for piece in reply.text_pieces())]
    parts += [_part(call) for call in reply.tool_calls]
    answers = [_answer(reply, [part], finish=None) for part in parts]
    return [frame(answer) for answer in [*answers, _answer(reply, [{"text": ""}], finish=_finish(reply))]]


def _whole(reply: Reply, _body: Body) -> Body:
    text = [{"text": reply.whole_text()}] if reply.whole_text() else []
    parts: list[Any] = [*_thought(reply), *text, *(_part(call) for call in reply.tool_calls)]
    return _answer(reply, parts, finish=_finish(reply))


def _asked_to_stream(path: str, _body: Body) -> bool:
    return ":streamGenerateContent" in path


GEMINI = Wire(re.compile(r":(streamG|g)enerateContent$"), _stream, _whole, _asked_to_stream)
