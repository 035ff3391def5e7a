"""Feeding decoders the way a connection does, and writing events the short way."""

import json

from allm_actors.data import ErrorEvent, StreamCollector
from allm_actors.errors import AdapterError, AllmError, StreamError
from allm_actors.providers._sse import SSEDecoder
from allm_actors.providers.openai._chat_stream import ChatDecoder
from allm_actors.providers.openai._responses_stream import ResponsesDecoder


def chat_body(*chunks, done=True):
    """The bytes of a Chat Completions stream; a chunk may be a dict, or text to send as it is."""
    parts = [f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*parts, "data: [DONE]\n\n" if done else ""]).encode()


def delta(delta=None, finish=None, **members):
    """One chunk with choice 0."""
    return {
        "id": "cc-1",
        "model": "m",
        "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}],
    } | members


def call_delta(**entry):
    """One chunk with one entry of `tool_calls`."""
    return delta({"tool_calls": [entry]})


def responses_body(*events):
    """The bytes of a Responses stream."""
    return "".join(f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def split(body, sizes):
    """Cut `body` into pieces of these sizes, over and over."""
    position = turn = 0
    while position < len(body):
        size = sizes[turn % len(sizes)]
        yield body[position : position + size]
        position, turn = position + size, turn + 1


def play(body, decoder, *, sizes=(1 << 20,)):
    """The events of a stream whose body is `body` and then ends cleanly."""
    sse, events = SSEDecoder(), []
    try:
        for chunk in split(body, sizes):
            for frame in sse.feed(chunk):
                events += decoder.feed(frame)
                if decoder.done:
                    return events + decoder.close()
        for frame in sse.close():
            try:
                events += decoder.feed(frame)
            except StreamError as error:
                if error.reason != "malformed_event":
                    raise
        if decoder.finished:
            return events + decoder.close()
        raise AdapterError("network_error", "cut off", metadata={"premature_close": True})
    except AllmError as error:
        return [*events, ErrorEvent(error=error)]


def chat(*chunks, done=True, sizes=(1 << 20,)):
    """The events of a Chat Completions stream."""
    return play(chat_body(*chunks, done=done), ChatDecoder(), sizes=sizes)


def responses(*events, sizes=(1 << 20,)):
    """The events of a Responses stream."""
    return play(responses_body(*events), ResponsesDecoder(), sizes=sizes)


def fold(events):
    return StreamCollector.collect(events).response()


def short(events):
    """Events as tuples, their type first, only what says something."""
    return [_short(event) for event in events]


def _short(event):  # noqa: PLR0911
    match event.type:
        case "message_started":
            assert (event.message.role, event.message.content) == ("assistant", "")
            return ("message_started",)
        case "text_delta":
            return ("text_delta", event.delta)
        case "text_completed":
            return ("text_completed", event.text)
        case "tool_call_started":
            return ("tool_call_started", event.id, event.name)
        case "tool_call_delta":
            return ("tool_call_delta", event.id, event.arguments_delta)
        case "tool_call_completed":
            return ("tool_call_completed", event.id, event.name, event.arguments, event.raw_arguments)
        case "raw_chunk" if event.kind == "usage":
            return ("usage", {k: v for k, v in event.payload.model_dump().items() if v not in (None, {})})
        case "raw_chunk":
            return (event.kind, event.payload)
        case "message_completed":
            return ("message_completed", event.finish_reason, event.raw_finish_reason)
        case "error":
            return ("error", type(event.error).__name__, event.error.reason)
