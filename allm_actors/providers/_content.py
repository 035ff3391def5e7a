"""What our messages hold, as the wires want it: texts flattened, blocks in order, arguments as text."""

from collections.abc import Callable, Mapping
from typing import Any

from allm_actors.data import ImagePart, Message, TextPart, ToolCall
from allm_actors.providers._images import ResolvedImage
from allm_actors.providers._json import compact
from allm_actors.providers._log import debug

__all__ = ["arguments_text", "flatten", "user_content"]


def flatten(message: Message) -> str:
    """Return the text of a message. Of its parts, images say nothing; a debug line tells."""
    if isinstance(message.content, str):
        return message.content
    if any(isinstance(part, ImagePart) for part in message.content):
        debug("an image in this message is not sent", role=message.role)
    return "\n".join(part.text if isinstance(part, TextPart) else "" for part in message.content)


def user_content(
    message: Message,
    row: int,
    images: Mapping[tuple[int, int], ResolvedImage],
    *,
    text_block: Callable[[str], dict[str, Any]],
    image_block: Callable[[ImagePart, ResolvedImage], dict[str, Any]],
) -> str | list[dict[str, Any]]:
    """Return a user message's content: one string, or where there are images a list of blocks in order.

    Args:
        message: The message, which is number `row` of the request.
        row: Its place, under which `images` holds its images.
        images: From `resolve_images`.
        text_block: Builds the wire's block for a text.
        image_block: Builds the wire's block for an image.
    """
    if isinstance(message.content, str) or not any(isinstance(part, ImagePart) for part in message.content):
        return flatten(message)
    return [
        text_block(part.text) if isinstance(part, TextPart) else image_block(part, images[row, column])
        for column, part in enumerate(message.content)
    ]


def arguments_text(call: ToolCall) -> str:
    """Return a call's arguments as the provider wrote them, else as compact JSON."""
    return call.raw_arguments or compact(call.arguments)
