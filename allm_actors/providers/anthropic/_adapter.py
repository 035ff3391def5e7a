"""The adapter for Anthropic and for everybody who speaks its protocol."""

from typing import ClassVar

from pydantic import Field

from allm_actors.data import Request
from allm_actors.providers._checks import wants_schema_and_tools
from allm_actors.providers._connection import HttpAdapter
from allm_actors.providers._preflight import HeaderText
from allm_actors.providers._wire import Wire
from allm_actors.providers.anthropic._structured import StructuredOutput
from allm_actors.providers.anthropic._wire import AnthropicWire

__all__ = ["Anthropic"]


class Anthropic(HttpAdapter):
    """Language models over the Messages API, written against its version `2023-06-01`.

    The API wants a token limit with every request; where a request has none, 1024 is sent. Anything else that
    a request leaves open is left to the provider: `options={"thinking": {...}}` turns extended thinking on,
    and its blocks are kept in the messages and sent back with them.

    >>> Anthropic(base_url="http://localhost:8080/v1/").base_url
    'http://localhost:8080/v1'
    """

    provider: ClassVar[str] = AnthropicWire.provider
    default_base_url: ClassVar[str] = AnthropicWire.default_base_url

    base_url: str = AnthropicWire.default_base_url
    """Where requests go, the version segment included."""
    api_version: HeaderText = "2023-06-01"
    """The version of the API that is asked for."""
    betas: list[HeaderText] = Field(default_factory=list)
    """The names of the beta features that are asked for."""
    structured_output: StructuredOutput = "tool"
    """How an answer by a JSON schema is asked for: by forcing a tool that takes it, which every model knows,
    or by the API's own output format."""

    def wire(self, request: Request) -> Wire:  # noqa: ARG002 -- there is one format for all requests
        """Return the wire format for `request`."""
        return AnthropicWire(structured_output=self.structured_output)

    def extra_headers(self) -> dict[str, str]:
        """Return the headers that say which API is asked for."""
        headers = {"anthropic-version": self.api_version}
        if self.betas:
            headers["anthropic-beta"] = ",".join(self.betas)
        return headers

    def requires_structured_finalize(self, request: Request) -> bool:
        """Return whether the request has tools and a schema of which only one tool can be forced."""
        return self.structured_output == "tool" and wants_schema_and_tools(request)
