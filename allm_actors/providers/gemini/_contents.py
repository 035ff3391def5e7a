"""From our messages to the turns of a generateContent call."""

import functools
from typing import Any

from allm_actors.data import ImagePart, Message, ToolCall
from allm_actors.errors import AdapterError, FieldError, ValidationError
from allm_actors.providers._checks import Checked
from allm_actors.providers._content import flatten, user_content
from allm_actors.providers._images import ResolvedImage
from allm_actors.providers._log import debug
from allm_actors.providers.gemini._errors import DISPLAY, PROVIDER
from allm_actors.providers.gemini._signatures import (
    STAND_IN,
    demands_signatures,
    is_generated,
    signature_in,
)

__all__ = ["wire_contents"]

_Part = dict[str, Any]


def wire_contents(checked: Checked) -> list[dict[str, Any]]:
    """Return the turns: without system messages, and with tool results that follow each other in one turn.

    Raises:
        AdapterError: `unsupported_feature`: an image is somewhere else, and would have to be fetched.
        ValidationError: `invalid_message`: a tool result answers a call that nobody has made.
    """
    _check_images(checked)
    messages = checked.request.messages
    _check_results(messages)
    turns: list[dict[str, Any]] = []
    calls: dict[str, ToolCall] = {}
    results: list[_Part] | None = None  # those of the last turn, if that is what it holds
    for row, message in enumerate(messages):
        match message.role:
            case "user":
                results = None
                turns.append({"role": "user", "parts": _user_parts(message, row, checked)})
            case "tool":
                if results is None:
                    results = []
                    turns.append({"role": "user", "parts": results})
                results.append(_result_part(message, calls))
            case "assistant":
                calls |= {call.id: call for call in message.tool_calls}
                parts = _assistant_parts(message, checked.model)
                if parts:  # who said and did nothing has no turn: the API refuses an empty one
                    results = None
                    turns.append({"role": "model", "parts": parts})
            case "system":
                pass
    return turns


def _check_images(checked: Checked) -> None:
    if any(image.data is None for image in checked.images.values()):
        raise AdapterError(
            "unsupported_feature",
            f"{DISPLAY} takes no remote images: pass the image itself, as bytes, base64 or a file",
            provider=PROVIDER,
        )


def _check_results(messages: list[Message]) -> None:
    """Every tool result must say which function it is the result of, or which call, made before it."""
    made: set[str] = set()
    unknown: list[FieldError] = []
    for row, message in enumerate(messages):
        made.update(call.id for call in message.tool_calls if message.role == "assistant")
        if message.role == "tool" and not message.name and message.tool_call_id not in made:
            unknown.append(FieldError(("messages", row, "name"), "unknown_tool_call"))
    if unknown:
        raise ValidationError("invalid_message", unknown)


def _user_parts(message: Message, row: int, checked: Checked) -> list[_Part]:
    content = user_content(message, row, checked.images, text_block=_text_part, image_block=_image_part)
    return [_text_part(content)] if isinstance(content, str) else content


def _assistant_parts(message: Message, model: str) -> list[_Part]:
    parts: list[_Part] = []
    text = flatten(message)
    if text:
        parts.append(_signed(_text_part(text), signature_in(message.provider_data)))
    for number, call in enumerate(message.tool_calls):
        signature = signature_in(call.provider_data)
        if signature is None and number == 0 and demands_signatures(model):
            signature = STAND_IN
        parts.append(_signed(_call_part(call), signature))
    return parts


def _text_part(text: str) -> _Part:
    return {"text": text}


def _image_part(part: ImagePart, image: ResolvedImage) -> _Part:
    if part.detail != "auto":
        _tell_of_detail()
    return {"inlineData": {"mimeType": (image.mime_type or "").lower(), "data": image.data}}


def _call_part(call: ToolCall) -> _Part:
    wire: _Part = {"name": call.name, "args": call.arguments}
    if not is_generated(call):
        wire["id"] = call.id
    return {"functionCall": wire}


def _result_part(message: Message, calls: dict[str, ToolCall]) -> _Part:
    call_id = message.tool_call_id or ""
    call = calls.get(call_id)
    name = message.name or (call.name if call is not None else "")
    wire: _Part = {"name": name, "response": {"output": flatten(message)}}
    if call is None or not is_generated(call):
        wire["id"] = call_id
    return {"functionResponse": wire}


def _signed(part: _Part, signature: str | None) -> _Part:
    """Return the part with the signature beside what it signs."""
    return part if signature is None else {**part, "thoughtSignature": signature}


@functools.cache
def _tell_of_detail() -> None:
    debug("this API takes no `detail` with an image: dropped", provider=PROVIDER)
