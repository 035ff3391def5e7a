"""From the frames of a streamed generateContent answer to events."""

from typing import Any

from allm_actors.data import Event
from allm_actors.errors import AllmError
from allm_actors.providers._decoding import JsonDecoder
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers.gemini._decode import candidate_of, read_block, read_finish, read_names
from allm_actors.providers.gemini._errors import PROVIDER, cut_off, error_of
from allm_actors.providers.gemini._parts import Parts
from allm_actors.providers.gemini._usage import read_usage

__all__ = ["GenerateDecoder"]

_KNOWN = ("candidates", "usageMetadata", "promptFeedback", "error")


class GenerateDecoder(JsonDecoder):
    """Decodes one streamed answer, each frame of which looks like a small whole one.

    Usage and finish reason may come with every frame, and may change: the last ones count. So the answer is
    complete with the first finish reason, but not closed before the body is.
    """

    def __init__(self, redactor: Redactor = SHAPES_ONLY) -> None:
        super().__init__(PROVIDER, redactor)
        self._parts = Parts(self.assembly)
        self._usage: dict[str, Any] | None = None

    def take(self, payload: dict[str, Any], name: str | None) -> None:
        """Read one object. The frame's name means nothing here."""
        if payload.get("error") is not None:
            raise self.error(payload)
        assembly = self.assembly
        if not assembly.started:
            assembly.open()
        candidate = candidate_of(payload)
        if candidate is None and not any(member in payload for member in _KNOWN):
            assembly.unknown(name, payload)
            return
        if assembly.model is None or assembly.response_id is None:
            read_names(assembly, payload)
        usage = payload.get("usageMetadata")
        if type(usage) is dict:
            self._usage = usage
        if "promptFeedback" in payload and read_block(assembly, payload):
            self.finished = True
        if candidate is not None:
            self._parts.take(candidate, name)
            if ("finishReason" in candidate or "finishMessage" in candidate) and read_finish(
                assembly, candidate
            ):
                self.finished = True

    def error(self, payload: dict[str, Any]) -> AllmError:
        """Return the error for an object with an `error` member."""
        return error_of(payload, self.redactor)

    def end_marker(self) -> None:
        """`[DONE]`, which some gateways add: the end of the body, whether the answer is complete or not."""
        if not self.finished:
            raise cut_off()
        self.done = True

    def close(self) -> list[Event]:
        """Return the closing sequence, with the last usage that was sent."""
        self._parts.close()
        self.assembly.usage = read_usage(self._usage)
        return super().close()
