"""The wire formats that a `FakeServer` speaks, told apart by the path of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allm_actors.testing._wire_chat import CHAT
from allm_actors.testing._wire_gemini import GEMINI
from allm_actors.testing._wire_messages import MESSAGES
from allm_actors.testing._wire_responses import RESPONSES

if TYPE_CHECKING:
    from allm_actors.testing._wire import Wire

WIRES: list[Wire] = [CHAT, RESPONSES, MESSAGES, GEMINI]
"""The formats, in the order in which they are tried."""


def wire_for(path: str) -> Wire | None:
    """The format that an endpoint speaks, by its path without the query."""
    return next((wire for wire in WIRES if wire.path.search(path)), None)
