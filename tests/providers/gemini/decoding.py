"""Writing the bytes of a generateContent stream, and decoding them."""

import json

from allm_actors.providers.gemini._decode import decode_generate
from allm_actors.providers.gemini._stream import GenerateDecoder
from tests.providers.openai.decoding import fold, play

__all__ = ["answer", "call", "fold", "play", "stream", "stream_body", "whole"]


def answer(*parts, finish=None, usage=None, index=0, **members):
    """One object with a candidate; a part may be a string, which is a text."""
    wire = [{"text": part} if isinstance(part, str) else part for part in parts]
    candidate = {"content": {"role": "model", "parts": wire}}
    if index is not None:
        candidate["index"] = index
    if finish is not None:
        candidate["finishReason"] = finish
    found = {"candidates": [candidate], "responseId": "r1", "modelVersion": "m"}
    return found | ({} if usage is None else {"usageMetadata": usage}) | members


def call(name=None, *, signature=None, **members):
    """A part with a `functionCall`."""
    part = {"functionCall": ({} if name is None else {"name": name}) | members}
    return part if signature is None else part | {"thoughtSignature": signature}


def stream_body(*objects):
    """The bytes of a stream; an object may be a dict, or text to send as it is."""
    return "".join(
        f"data: {each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)}\r\n\r\n"
        for each in objects
    ).encode()


def stream(*objects, sizes=(1 << 20,)):
    """The events of a stream."""
    return play(stream_body(*objects), GenerateDecoder(), sizes=sizes)


def whole(*parts, **members):
    """The response of a whole body with these parts."""
    return decode_generate(answer(*parts, **({"finish": "STOP"} | members)))
