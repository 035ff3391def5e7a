"""Reading the parts of an answer: texts, thoughts, calls and images."""

from typing import Any

from allm_actors.providers._assembly import Assembly
from allm_actors.providers.gemini._calls import Calls
from allm_actors.providers.gemini._signatures import THOUGHT_SIGNATURE

__all__ = ["Parts"]


class Parts:
    """Tells an assembly what the parts of one answer say, in their order."""

    __slots__ = ("_assembly", "_calls")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._calls = Calls(assembly)

    def take(self, candidate: dict[str, Any], name: str | None = None) -> None:
        """Read the parts that a candidate has. `name` is the frame's own."""
        content = candidate.get("content")
        parts = content.get("parts") if type(content) is dict else None
        if type(parts) is list:
            for part in parts:
                if type(part) is dict:
                    self._take_part(part, name)

    def close(self) -> None:
        """The answer is complete."""
        self._calls.close()

    def _take_part(self, part: dict[str, Any], name: str | None) -> None:
        text = part.get("text")
        if type(text) is str:
            if part.get("thought") is True:
                self._assembly.thought(text)
            else:
                self._assembly.text(text)
                if "thoughtSignature" in part:
                    self._sign(part["thoughtSignature"])
            return
        call, data = part.get("functionCall"), part.get("inlineData")
        if isinstance(call, dict):
            self._calls.take(call, part.get("thoughtSignature"))
        elif isinstance(data, dict):
            self._take_data(data)
        elif not part.keys() <= _SILENT:
            self._assembly.unknown(name, part)
        elif part.get("thought") is not True:
            self._sign(part.get("thoughtSignature"))  # the text it signs is empty, and left out

    def _take_data(self, data: dict[str, Any]) -> None:
        """Take an image; what else models make (sound, say) nobody here can hold."""
        mime_type, encoded = data.get("mimeType"), data.get("data")
        if isinstance(mime_type, str) and isinstance(encoded, str) and mime_type.lower().startswith("image/"):
            self._assembly.image(mime_type, encoded)

    def _sign(self, signature: Any) -> None:
        if isinstance(signature, str) and signature:
            self._assembly.message_facts[THOUGHT_SIGNATURE] = signature


_SILENT = {"text", "thought", "thoughtSignature", "functionCall", "inlineData"}
"""What a part may hold that says nothing by itself, or nothing that can be read."""
