"""Writing the bytes of a Messages stream, and decoding them."""

import json

from allm_actors.providers.anthropic._stream import MessagesDecoder
from tests.providers.openai.decoding import play

LIFTED = "respond_with_json_answer"


def messages_body(*events):
    """The bytes of a stream; an event may be a dict, or text to send as the data of a frame without a name."""
    return "".join(
        f"data: {event}\n\n"
        if isinstance(event, str)
        else f"event: {event.get('type')}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
        for event in events
    ).encode()


def opening(usage=None, **message):
    """The first event."""
    message = {"id": "msg_1", "model": "m", "role": "assistant", "content": []} | message
    return {"type": "message_start", "message": message | ({"usage": usage} if usage is not None else {})}


def start(index, kind, **members):
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **members}}


def delta(index, kind, **members):
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **members}}


def text(index, *pieces):
    """A whole text block."""
    pieces = [delta(index, "text_delta", text=piece) for piece in pieces]
    return [start(index, "text", text=""), *pieces, stop(index)]


def tool(index, wire_id, name, *pieces):
    """A whole call."""
    pieces = [delta(index, "input_json_delta", partial_json=piece) for piece in pieces]
    return [start(index, "tool_use", id=wire_id, name=name, input={}), *pieces, stop(index)]


def thinking(index, *pieces, signature="sig"):
    """A whole reasoning block."""
    pieces = [delta(index, "thinking_delta", thinking=piece) for piece in pieces]
    end = [delta(index, "signature_delta", signature=signature), stop(index)]
    return [start(index, "thinking", thinking="", signature=""), *pieces, *end]


def stop(index):
    return {"type": "content_block_stop", "index": index}


def closing(reason="end_turn", usage=None, **members):
    """The last two events."""
    change = {"stop_reason": reason, "stop_sequence": None} | members
    return [
        {"type": "message_delta", "delta": change} | ({} if usage is None else {"usage": usage}),
        {"type": "message_stop"},
    ]


def messages(*events, lifted=None, sizes=(1 << 20,)):
    """The events of a stream."""
    return play(messages_body(*events), MessagesDecoder(lifted), sizes=sizes)
