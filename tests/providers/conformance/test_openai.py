"""OpenAI passes the conformance suite, over both of its wire formats."""

from typing import ClassVar

from allm_actors.providers import OpenAI

from .http import HttpCase


class TestChatCompletions(HttpCase):  # C-92
    kind = OpenAI
    fields: ClassVar = {"api": "chat"}
    lead = 1
    error_frame: ClassVar = {"error": {"message": "We are overloaded.", "type": "server_error"}}


class TestResponses(HttpCase):  # C-92
    kind = OpenAI
    fields: ClassVar = {"api": "responses"}
    lead = 2
    error_frame: ClassVar = {"type": "error", "code": "server_error", "message": "We are overloaded."}
