"""Anthropic's Messages format as a `Wire`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from allm_actors.data import Request, Response
from allm_actors.providers._checks import check_request
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers._wire import StreamDecoder, Wire, WireRequest
from allm_actors.providers.anthropic._build import build_messages
from allm_actors.providers.anthropic._decode import decode_messages
from allm_actors.providers.anthropic._errors import DISPLAY, PROVIDER
from allm_actors.providers.anthropic._stream import MessagesDecoder
from allm_actors.providers.anthropic._structured import StructuredOutput, lifted_tool

__all__ = ["AnthropicWire"]

_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})


class AnthropicWire(Wire):
    """Messages.

    Args:
        structured_output: How an answer by a JSON schema is asked for.
    """

    provider: ClassVar[str] = PROVIDER
    display: ClassVar[str] = DISPLAY
    default_base_url: ClassVar[str] = "https://api.anthropic.com/v1"

    def __init__(self, *, structured_output: StructuredOutput = "tool") -> None:
        self._structured_output: StructuredOutput = structured_output

    def build(self, request: Request, options: Mapping[str, Any], *, stream: bool) -> WireRequest:
        """Check `request` and translate it."""
        checked = check_request(request, options, images=_IMAGE_TYPES)
        body = build_messages(checked, stream=stream, structured_output=self._structured_output)
        return WireRequest("/messages", body)

    def credential(self, key: str) -> dict[str, str]:
        """Return the header that carries `key`."""
        return {"x-api-key": key}

    def decode(self, body: dict[str, Any], request: Request, *, redactor: Redactor = SHAPES_ONLY) -> Response:
        """Read a whole 2xx body."""
        return decode_messages(body, lifted=self._lifted(request), redactor=redactor)

    def decoder(self, request: Request, *, redactor: Redactor = SHAPES_ONLY) -> StreamDecoder:
        """Return a decoder for one streamed answer."""
        return MessagesDecoder(self._lifted(request), redactor)

    def _lifted(self, request: Request) -> str | None:
        return lifted_tool(request, self._structured_output)
