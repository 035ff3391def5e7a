"""From our messages to the turns of a Messages call."""

import functools
import re
from typing import Any

from allm_actors.data import ImagePart, Message, ToolCall
from allm_actors.providers._checks import Checked
from allm_actors.providers._content import flatten, user_content
from allm_actors.providers._images import ResolvedImage
from allm_actors.providers._log import debug
from allm_actors.providers.anthropic._errors import PROVIDER
from allm_actors.providers.anthropic._thoughts import THINKING_BLOCKS

__all__ = ["wire_messages"]

_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]")


def wire_messages(checked: Checked) -> list[dict[str, Any]]:
    """Return the turns: without system messages, and with tool results that follow each other in one turn."""
    turns: list[dict[str, Any]] = []
    results: list[dict[str, Any]] | None = None  # those of the last turn, if that is what it holds
    for row, message in enumerate(checked.request.messages):
        match message.role:
            case "user":
                results = None
                content = user_content(
                    message, row, checked.images, text_block=_text_block, image_block=_image_block
                )
                turns.append({"role": "user", "content": content})
            case "tool":
                if results is None:
                    results = []
                    turns.append({"role": "user", "content": results})
                results.append(_result_block(message))
            case "assistant":
                turn = _assistant(message)
                if turn is not None:
                    results = None
                    turns.append(turn)
            case "system":
                pass
    return turns


def _assistant(message: Message) -> dict[str, Any] | None:
    """Return the turn; `None` for an assistant who said and did nothing, which the API refuses.

    White space alone is nothing: the API refuses such a text, and other models begin their calls with it.
    """
    text = flatten(message)
    if not text.strip():
        text = ""
    blocks = _thinking_blocks(message)
    if not blocks and not message.tool_calls:
        return {"role": "assistant", "content": text} if text else None
    if text:
        blocks.append(_text_block(text))
    blocks.extend(_call_block(call) for call in message.tool_calls)
    return {"role": "assistant", "content": blocks}


def _thinking_blocks(message: Message) -> list[dict[str, Any]]:
    """Return the reasoning blocks that came with the message, as they came."""
    own = message.provider_data.get(PROVIDER)
    kept = own.get(THINKING_BLOCKS) if isinstance(own, dict) else None
    return [block for block in kept if isinstance(block, dict)] if isinstance(kept, list) else []


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image_block(part: ImagePart, image: ResolvedImage) -> dict[str, Any]:
    if part.detail != "auto":
        _tell_of_detail()
    if image.data is None:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    mime_type = (image.mime_type or "").lower()
    return {"type": "image", "source": {"type": "base64", "media_type": mime_type, "data": image.data}}


def _call_block(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": _wire_id(call.id), "name": call.name, "input": call.arguments}


def _result_block(message: Message) -> dict[str, Any]:
    call_id = _wire_id(message.tool_call_id or "")
    return {"type": "tool_result", "tool_use_id": call_id, "content": flatten(message)}


def _wire_id(call_id: str) -> str:
    """Return the id with characters the API accepts; other providers make others."""
    return _NOT_IN_AN_ID.sub("_", call_id)


@functools.cache
def _tell_of_detail() -> None:
    debug("this API takes no `detail` with an image: dropped")
