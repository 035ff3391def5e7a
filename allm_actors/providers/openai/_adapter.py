"""The adapter for OpenAI and for everybody who speaks its protocols."""

from typing import ClassVar

from allm_actors.data import Request
from allm_actors.providers._checks import wants_schema_and_tools
from allm_actors.providers._connection import HttpAdapter
from allm_actors.providers._preflight import HeaderText
from allm_actors.providers._wire import Wire
from allm_actors.providers.openai._chat_build import MaxTokensParam
from allm_actors.providers.openai._wire import Api, OpenAIWire

__all__ = ["OpenAI"]


class OpenAI(HttpAdapter):
    """Language models over Chat Completions or Responses.

    On OpenAI's own host the `gpt-5` and o-series models, and later ones, are asked through Responses and all
    others through Chat Completions. Any other host (Ollama, vLLM, llama.cpp's server, LM Studio, a hosted
    gateway) is asked through Chat Completions and needs no key. `api` overrides this.

    No default is invented: what a request leaves open is left to the provider.

    >>> OpenAI(base_url="http://localhost:11434/v1/").base_url
    'http://localhost:11434/v1'
    """

    provider: ClassVar[str] = OpenAIWire.provider
    default_base_url: ClassVar[str] = OpenAIWire.default_base_url

    base_url: str = OpenAIWire.default_base_url
    """Where requests go, the version segment included."""
    api: Api | None = None
    """The endpoint for every request; `None` chooses by host and model."""
    organization: HeaderText | None = None
    """The organisation that is billed."""
    project: HeaderText | None = None
    """The project that is billed."""
    max_tokens_param: MaxTokensParam | None = None
    """The name of the token limit on Chat Completions; `None` chooses by host and model."""

    def wire(self, request: Request) -> Wire:  # noqa: ARG002 -- the wire itself looks at each request
        """Return the wire format for `request`."""
        return OpenAIWire(api=self.api, custom_host=self.custom_host, max_tokens_param=self.max_tokens_param)

    def extra_headers(self) -> dict[str, str]:
        """Return the headers that say who is billed."""
        headers = {"openai-organization": self.organization, "openai-project": self.project}
        return {name: value for name, value in headers.items() if value is not None}

    def requires_structured_finalize(self, request: Request) -> bool:
        """Return whether the request has both tools and a `json_schema` response format."""
        return wants_schema_and_tools(request)
