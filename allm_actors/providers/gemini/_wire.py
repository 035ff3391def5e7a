"""Gemini's generateContent format as a `Wire`."""

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from allm_actors.data import Request, Response
from allm_actors.errors import FieldError, ValidationError
from allm_actors.providers._checks import check_request
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers._wire import StreamDecoder, Wire, WireRequest
from allm_actors.providers.gemini._build import build_generate
from allm_actors.providers.gemini._decode import decode_generate
from allm_actors.providers.gemini._errors import DISPLAY, PROVIDER
from allm_actors.providers.gemini._stream import GenerateDecoder

__all__ = ["GeminiWire"]

_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"})


def _segments(model: str) -> str:
    """Return a model's name as part of a path, which it must not lead out of.

    Raises:
        ValidationError: It climbs (`..`), or is not Unicode.
    """
    if any(segment in (".", "..") for segment in model.split("/")):
        raise ValidationError("invalid_request", [FieldError(("model",), "dot_segment")])
    try:
        return quote(model, safe="/:")
    except UnicodeEncodeError:
        pass
    raise ValidationError("invalid_request", [FieldError(("model",), "not_unicode")])


class GeminiWire(Wire):
    """generateContent and streamGenerateContent, which take the same body."""

    provider: ClassVar[str] = PROVIDER
    display: ClassVar[str] = DISPLAY
    default_base_url: ClassVar[str] = "https://generativelanguage.googleapis.com/v1beta"

    def build(self, request: Request, options: Mapping[str, Any], *, stream: bool) -> WireRequest:
        """Check `request` and translate it. The path alone says whether a stream is asked for."""
        checked = check_request(request, options, images=_IMAGE_TYPES)
        body = build_generate(checked)
        model = _segments(checked.model.removeprefix("models/"))
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return WireRequest(f"/models/{model}:{method}", body)

    def credential(self, key: str) -> dict[str, str]:
        """Return the header that carries `key`."""
        return {"x-goog-api-key": key}

    def decode(
        self,
        body: dict[str, Any],
        request: Request,  # noqa: ARG002 -- an answer is read alike whatever was asked
        *,
        redactor: Redactor = SHAPES_ONLY,
    ) -> Response:
        """Read a whole 2xx body."""
        return decode_generate(body, redactor=redactor)

    def decoder(
        self,
        request: Request,  # noqa: ARG002
        *,
        redactor: Redactor = SHAPES_ONLY,
    ) -> StreamDecoder:
        """Return a decoder for one streamed answer."""
        return GenerateDecoder(redactor)
