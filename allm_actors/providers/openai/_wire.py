"""OpenAI's two wire formats behind one `Wire`: each request goes to the endpoint its model wants."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from allm_actors.data import Request, Response
from allm_actors.providers._checks import check_request, model_name
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers._wire import StreamDecoder, Wire, WireRequest
from allm_actors.providers.openai._chat_build import MaxTokensParam, build_chat
from allm_actors.providers.openai._chat_decode import DISPLAY, PROVIDER, decode_chat
from allm_actors.providers.openai._chat_stream import ChatDecoder
from allm_actors.providers.openai._models import thinks
from allm_actors.providers.openai._parts import IMAGE_TYPES
from allm_actors.providers.openai._responses_build import build_responses
from allm_actors.providers.openai._responses_decode import decode_responses
from allm_actors.providers.openai._responses_stream import ResponsesDecoder

__all__ = ["Api", "OpenAIWire"]

Api = Literal["chat", "responses"]


class OpenAIWire(Wire):
    """Chat Completions and Responses.

    Args:
        api: The endpoint for every request; `None` leaves the choice to the host and the model.
        custom_host: Whether requests go to somebody else's server.
        max_tokens_param: The name of the token limit on Chat Completions, whatever the model.
    """

    provider: ClassVar[str] = PROVIDER
    display: ClassVar[str] = DISPLAY
    default_base_url: ClassVar[str] = "https://api.openai.com/v1"

    def __init__(
        self,
        *,
        api: Api | None = None,
        custom_host: bool = False,
        max_tokens_param: MaxTokensParam | None = None,
    ) -> None:
        self._api: Api | None = api
        self._custom_host = custom_host
        self._max_tokens_param: MaxTokensParam | None = max_tokens_param

    def api(self, request: Request) -> Api:
        """Return the endpoint that `request` goes to."""
        if self._api is not None:
            return self._api
        return "responses" if not self._custom_host and thinks(model_name(request)) else "chat"

    def build(self, request: Request, options: Mapping[str, Any], *, stream: bool) -> WireRequest:
        """Check `request` and translate it for its endpoint."""
        checked = check_request(request, options, images=IMAGE_TYPES)
        if self.api(request) == "responses":
            return WireRequest("/responses", build_responses(checked, stream=stream))
        body = build_chat(
            checked,
            stream=stream,
            custom_host=self._custom_host,
            max_tokens_param=self._max_tokens_param,
        )
        return WireRequest("/chat/completions", body)

    def credential(self, key: str) -> dict[str, str]:
        """Return the header that carries `key`."""
        return {"authorization": f"Bearer {key}"}

    def decode(self, body: dict[str, Any], request: Request, *, redactor: Redactor = SHAPES_ONLY) -> Response:
        """Read a whole 2xx body of the endpoint `request` went to."""
        decode = decode_responses if self.api(request) == "responses" else decode_chat
        return decode(body, redactor=redactor)

    def decoder(self, request: Request, *, redactor: Redactor = SHAPES_ONLY) -> StreamDecoder:
        """Return a decoder for one streamed answer of the endpoint `request` went to."""
        return ResponsesDecoder(redactor) if self.api(request) == "responses" else ChatDecoder(redactor)
