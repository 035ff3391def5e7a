"""The adapter for Gemini and for everybody who speaks its protocol."""

from typing import ClassVar

from allm_actors.data import Request
from allm_actors.providers._connection import HttpAdapter
from allm_actors.providers._wire import Wire
from allm_actors.providers.gemini._config import wanted_format
from allm_actors.providers.gemini._wire import GeminiWire

__all__ = ["Gemini"]


class Gemini(HttpAdapter):
    """Language models over generateContent, written against version `v1beta` of the Gemini API.

    Options become members of `generationConfig`, those aside that the API has at the top of a request:
    `options={"thinkingConfig": {"includeThoughts": True}}` makes the model's thoughts readable. The
    signatures by which the API recognises its own thoughts are kept in the messages and sent back with them.

    Remote images are not fetched, and the API takes no links to them: such a request is refused.

    >>> Gemini(base_url="http://localhost:8080/v1beta/").base_url
    'http://localhost:8080/v1beta'
    """

    provider: ClassVar[str] = GeminiWire.provider
    default_base_url: ClassVar[str] = GeminiWire.default_base_url

    base_url: str = GeminiWire.default_base_url
    """Where requests go, the version segment included."""

    def wire(self, request: Request) -> Wire:  # noqa: ARG002 -- there is one format for all requests
        """Return the wire format for `request`."""
        return GeminiWire()

    def requires_structured_finalize(self, request: Request) -> bool:
        """Return whether the request has tools and asks for JSON, which the API does not give at once."""
        return bool(request.tools) and wanted_format(request) in ("json_object", "json_schema")
