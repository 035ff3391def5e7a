"""Anthropic passes the conformance suite."""

from typing import ClassVar

from allm_actors.providers import Anthropic

from .http import HttpCase


class TestMessages(HttpCase):  # C-92
    kind = Anthropic
    lead = 2
    error_frame: ClassVar = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
