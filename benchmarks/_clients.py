"""The clients that are compared, each behind the same few calls: its events' texts, and its way to stop.

A client belongs to one process. What it needs for one address it makes once, as a service would. Nothing is
set but what the comparison is about: each keeps its own defaults for the rest.
"""

import functools
import json
from typing import Any, NamedTuple

FOREVER = 100.0


class Opened(NamedTuple):
    """A stream: its texts, to be iterated, and what its users call to stop it."""

    texts: Any
    stop: Any


class Requests:
    """The floor: what nobody can go below in plain Python with `requests`."""

    package, module = "requests", "requests"
    path = "/v1/chat/completions"

    def __init__(self):
        import requests

        self.http = requests.Session()
        self.http.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=5000))

    @staticmethod
    def text(chunk):
        """The text in a chunk."""
        return chunk["choices"][0]["delta"].get("content")

    def open(self, base, *, timeout=FOREVER, **_):
        """Send the request."""
        reply = self.http.post(base + self.path, json={"stream": True}, stream=True, timeout=timeout)
        if reply.status_code != 200:
            raise OSError(reply.status_code)
        return Opened(self.texts(reply), reply.close)

    def texts(self, reply):
        """Read it."""
        for line in reply.iter_lines():
            if (
                line.startswith(b"data: ")
                and line != b"data: [DONE]"
                and (text := self.text(json.loads(line[6:])))
            ):
                yield text


class RequestsMessages(Requests):
    """The floor of the Messages format."""

    path = "/v1/messages"

    @staticmethod
    def text(chunk):
        """The text in a chunk."""
        return chunk["delta"].get("text") if "delta" in chunk else None


class Ours:
    """This library, on threads; `aopen` in asyncio."""

    package, module = "allm-actors", "allm_actors"

    def __init__(self):
        import structlog

        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

    @functools.cache  # noqa: B019  a client lives as long as its process
    def engine(self, base):
        """The engine of an address."""
        import allm_actors as allm
        from allm_actors.providers import OpenAI

        return allm.Engine(adapter=OpenAI(base_url=f"{base}/v1", auth=False), model="m")

    def _stream(self, base, timeout=None, content_timeout=None, deadline=None):
        import allm_actors as allm

        times = {"stream_timeout": timeout, "content_timeout": content_timeout, "deadline": deadline}
        if deadline is not None:
            times["retry"] = allm.Retry(max_attempts=1000)
        return allm.stream_generate(self.engine(base), "hi", **times)

    def open(self, base, **options):
        """Make the call."""
        stream = self._stream(base, **options)
        return Opened(self.texts(stream), stream.close)

    @staticmethod
    def texts(stream):
        """Read it."""
        for event in stream:
            if event.type == "text_delta":
                yield event.delta
            elif event.type == "error":
                raise event.error

    async def aopen(self, base, **options):
        """Make the call, and read it in asyncio."""
        async for event in self._stream(base, **options):
            if event.type == "text_delta":
                yield event.delta
            elif event.type == "error":
                raise event.error

    def into_mailbox(self, base, streams):
        """Read so many streams of one address in one place: the number of a stream, and a text of it."""
        import allm_actors as allm

        with allm.Mailbox(maxsize=64 * streams) as mailbox:
            numbers = {}
            for number in range(streams):
                handle = allm.open_stream(self.engine(base), "hi", into=mailbox)
                numbers[handle.request_id] = number
            for envelope in mailbox:
                event = envelope.event
                if event.type == "text_delta":
                    yield numbers[envelope.stream.request_id], event.delta
                elif event.type == "error":
                    raise event.error

    def prepare(self, base):
        """Start what serves all streams of an address, and stays."""
        self.open(base).stop()


class OpenAI:
    """The `openai` package; `aopen` is its asynchronous client."""

    package, module = "openai", "openai"

    @functools.cache  # noqa: B019  a client lives as long as its process
    def client(self, base, kind):
        """The client of an address, allowed as many connections as there are streams."""
        import openai
        from openai._base_client import httpx

        http = {"OpenAI": openai.DefaultHttpxClient, "AsyncOpenAI": openai.DefaultAsyncHttpxClient}[kind]
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        http_client = http(limits=limits, timeout=FOREVER)
        return getattr(openai, kind)(
            base_url=f"{base}/v1", api_key="none", timeout=FOREVER, http_client=http_client
        )

    def _create(self, base, kind, timeout=FOREVER, deadline=None, **_):
        client = self.client(base, kind)
        if deadline is not None:
            client, timeout = client.with_options(max_retries=1000), deadline
        return client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True, timeout=timeout
        )

    def open(self, base, **options):
        """Send the request."""
        stream = self._create(base, "OpenAI", **options)
        return Opened(self.texts(stream), stream.close)

    @staticmethod
    def texts(stream):
        """Read it."""
        for chunk in stream:
            if text := chunk.choices[0].delta.content:
                yield text

    async def aopen(self, base, **options):
        """Send the request, and read the answer in asyncio."""
        async for chunk in await self._create(base, "AsyncOpenAI", **options):
            if text := chunk.choices[0].delta.content:
                yield text


class Anthropic:
    """The `anthropic` package."""

    package, module = "anthropic", "anthropic"

    @functools.cache  # noqa: B019  a client lives as long as its process
    def client(self, base):
        """The client of an address."""
        import anthropic

        return anthropic.Anthropic(base_url=base, api_key="none", timeout=FOREVER)

    def open(self, base, *, timeout=FOREVER, deadline=None, **_):
        """Send the request."""
        client = self.client(base)
        if deadline is not None:
            client, timeout = client.with_options(max_retries=1000), deadline
        stream = client.messages.create(
            model="m",
            max_tokens=9,
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            timeout=timeout,
        )
        return Opened(self.texts(stream), stream.close)

    @staticmethod
    def texts(stream):
        """Read it."""
        for event in stream:
            if event.type == "content_block_delta":
                yield event.delta.text


class LiteLLM:
    """The `litellm` package. Its streams have no way to stop but that of what they hold."""

    package, module = "litellm", "litellm"

    def open(self, base, *, timeout=FOREVER, deadline=None, **_):
        """Send the request."""
        import litellm

        litellm.suppress_debug_info = True
        more = {} if deadline is None else {"num_retries": 1000}
        stream = litellm.completion(
            model="openai/m",
            messages=[{"role": "user", "content": "hi"}],
            api_base=f"{base}/v1",
            api_key="none",
            stream=True,
            timeout=timeout if deadline is None else deadline,
            **more,
        )
        return Opened(OpenAI.texts(stream), stream.completion_stream.close)


class LangChain:
    """The `langchain-openai` package. A stream is a generator, and closed as such."""

    package, module = "langchain-openai", "langchain_openai"

    @functools.cache  # noqa: B019  a client lives as long as its process
    def model(self, base, timeout, retries):
        """The model of an address."""
        from langchain_openai import ChatOpenAI

        more = {} if retries is None else {"max_retries": retries}
        return ChatOpenAI(model="m", base_url=f"{base}/v1", api_key="none", timeout=timeout, **more)

    def open(self, base, *, timeout=FOREVER, deadline=None, **_):
        """Make the call; nothing is sent before it is read."""
        times = (timeout, None) if deadline is None else (deadline, 1000)
        model = self.model(base, *times)
        stream = model.stream("hi")
        return Opened(self.texts(stream), stream.close)

    @staticmethod
    def texts(stream):
        """Read it."""
        for chunk in stream:
            if text := chunk.content:
                yield text


class PydanticAI:
    """The `pydantic-ai` package, by its direct requests; a stream is stopped by leaving its context."""

    package, module = "pydantic-ai", "pydantic_ai"

    @functools.cache  # noqa: B019  a client lives as long as its process
    def model(self, base):
        """The model of an address."""
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        return OpenAIChatModel("m", provider=OpenAIProvider(base_url=f"{base}/v1", api_key="none"))

    def open(self, base, *, timeout=FOREVER, deadline=None, **_):
        """Send the request."""
        from pydantic_ai.direct import model_request_stream_sync
        from pydantic_ai.messages import ModelRequest

        manager = model_request_stream_sync(
            self.model(base),
            [ModelRequest.user_text_prompt("hi")],
            model_settings={"timeout": timeout if deadline is None else deadline},
        )
        stream = manager.__enter__()
        return Opened(self.texts(stream), lambda: manager.__exit__(None, None, None))

    @staticmethod
    def texts(stream):
        """Read it."""
        for event in stream:
            if event.event_kind == "part_start":
                yield event.part.content
            elif event.event_kind == "part_delta":
                yield event.delta.content_delta


CLIENTS = {
    "plain requests": Requests,
    "plain requests (messages)": RequestsMessages,
    "allm-actors": Ours,
    "openai": OpenAI,
    "anthropic": Anthropic,
    "litellm": LiteLLM,
    "langchain-openai": LangChain,
    "pydantic-ai": PydanticAI,
}
PEERS = ("openai", "anthropic", "litellm", "langchain-openai", "pydantic-ai")
