"""Reasoning blocks: kept as they came, for the next request to send them back, and read."""

from typing import Any

from allm_actors.providers._assembly import Assembly

__all__ = ["THINKING_BLOCKS", "Thought", "keep_thoughts"]

THINKING_BLOCKS = "thinking_blocks"
"""Where the blocks stand in the `provider_data` of a message."""


class Thought:
    """A reasoning block of which a stream has sent something."""

    __slots__ = ("_block", "_signature", "_text")

    def __init__(self, block: dict[str, Any]) -> None:
        self._block = block
        self._text: list[str] = []
        self._signature: list[str] = []

    def think(self, delta: str) -> None:
        """A piece of the reasoning."""
        self._text.append(delta)

    def sign(self, delta: str) -> None:
        """The signature, without which the block cannot be sent back."""
        self._signature.append(delta)

    def whole(self) -> dict[str, Any]:
        """Return the block, as a whole answer would hold it."""
        block = dict(self._block)
        if self._text:
            block["thinking"] = _text(block) + "".join(self._text)
        if self._signature:
            block["signature"] = "".join(self._signature)
        return block


def keep_thoughts(assembly: Assembly, blocks: list[dict[str, Any]]) -> None:
    """Put the blocks, in their order, into the message, and what can be read of them into the reasoning."""
    if blocks:
        assembly.message_facts[THINKING_BLOCKS] = blocks
        assembly.reasoning = [_text(block) for block in blocks if block.get("type") == "thinking"]


def _text(block: dict[str, Any]) -> str:
    text = block.get("thinking")
    return text if isinstance(text, str) else ""
