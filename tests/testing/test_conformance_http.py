"""Every bundled HTTP provider passes the conformance suite."""

from allm_actors.data import Image, ImagePart, Request, TextPart, user
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.testing import Reply
from allm_actors.testing._wire import frame

from .http_case import HttpCase

OVERLOADED = {"message": "Overloaded, try again", "type": "overloaded_error", "code": 503}


class TestChatCompletions(HttpCase):
    """C-92."""

    midstream_error = frame({"error": OVERLOADED})

    def adapter(self, **fields):
        return OpenAI(api="chat", **fields)


class TestResponses(HttpCase):
    """C-92."""

    midstream_error = frame(
        {"type": "error", "error": {"type": "server_error", "code": "server_error", "message": "Overloaded"}},
        "error",
    )

    def adapter(self, **fields):
        return OpenAI(api="responses", **fields)


class TestAnthropic(HttpCase):
    """C-92."""

    midstream_error = frame({"type": "error", "error": OVERLOADED}, "error")

    def adapter(self, **fields):
        return Anthropic(**fields)


class TestGemini(HttpCase):
    """C-92."""

    midstream_error = frame({"error": {**OVERLOADED, "status": "UNAVAILABLE"}})

    def adapter(self, **fields):
        return Gemini(**fields)

    def reply(self, scenario):
        if scenario == "malformed_arguments":
            return None  # this format carries arguments as values, not as text
        if scenario.reason == "unsupported_feature":
            return Reply("never sent")
        return super().reply(scenario)

    def request(self, scenario):
        if scenario.reason != "unsupported_feature":
            return super().request(scenario)
        image = ImagePart(image=Image.from_url("https://example.invalid/cat.png"))
        return Request(
            messages=[user("x").model_copy(update={"content": [TextPart(text="x"), image]})], model="m"
        )
