"""A tool call of which only a part has been seen."""

import secrets
from typing import Any

from allm_actors.data import ToolCall
from allm_actors.data._arguments import complete_arguments
from allm_actors.providers._json import compact

__all__ = ["NOTHING", "PartialCall", "generated_id"]

NOTHING: Any = object()
"""No value: `None` is one."""


def generated_id() -> str:
    """Return a fresh tool-call id."""
    return f"call_{secrets.token_hex(12)}"


class PartialCall:
    """A tool call of which something has been seen.

    Attributes:
        wire_id: What the wire calls it; our `id` differs where that one was missing or taken.
        id: Empty until known.
        name: Empty until known.
        whole: The arguments as one JSON value, for wires that send them so; fragments win over it.
        facts: What goes into the call's `provider_data`.
    """

    __slots__ = ("_held", "_pieces", "announced", "facts", "id", "name", "whole", "wire_id")

    def __init__(self) -> None:
        self.wire_id = self.id = self.name = ""
        self.announced = False
        self.whole: Any = NOTHING
        self.facts: dict[str, Any] = {}
        self._pieces: list[str] = []
        self._held: list[str] = []

    @property
    def sent(self) -> str:
        """The argument text so far, held back or delivered."""
        return "".join(self._pieces)

    def add(self, fragment: str) -> None:
        """Take one more piece of the argument text."""
        self._pieces.append(fragment)
        if not self.announced:
            self._held.append(fragment)

    def release(self) -> str:
        """Return what was held back, and hold back no more."""
        self.announced = True
        held, self._held = "".join(self._held), []
        return held

    def complete(self, provider: str) -> ToolCall:
        """Return the finished call. Broken arguments become `{}` and keep their text."""
        raw = self.sent
        if not raw and self.whole is not NOTHING:
            raw = compact(self.whole)
        arguments, raw = complete_arguments(raw)
        return ToolCall(
            id=self.id,
            name=self.name,
            arguments=arguments,
            raw_arguments=raw,
            provider_data={provider: self.facts} if self.facts else {},
        )
