"""Gemini passes the conformance suite."""

from typing import ClassVar

from allm_actors.data import Image, ImagePart, Message, Request
from allm_actors.providers import Gemini
from allm_actors.testing import Reply

from .http import HttpCase


class TestGenerateContent(HttpCase):  # C-92
    kind = Gemini
    lead = 0
    error_frame: ClassVar = {"error": {"code": 503, "message": "Overloaded.", "status": "UNAVAILABLE"}}

    def request(self, scenario):
        if scenario.reason != "unsupported_feature":
            return super().request(scenario)
        picture = ImagePart(image=Image.from_url("https://example.com/cat.png"))
        return Request(messages=[Message(role="user", content=[picture])], model="conformance")

    def failure(self, scenario):
        if scenario.reason == "unsupported_feature":  # the request is refused before it is sent
            return Reply()
        return super().failure(scenario)
