"""What an adapter sends that nobody asked for."""

import pytest

from allm_actors.data import Message, Request, Tool, json_schema
from allm_actors.providers import Anthropic, Gemini, OpenAI

QUESTION = {"model", "messages", "input", "contents"}
ADAPTERS = [OpenAI(), OpenAI(api="chat"), OpenAI(api="responses"), OpenAI(base_url="http://127.0.0.1/v1"), Anthropic(), Gemini()]  # fmt: skip
REQUESTS = [
    Request(model=model, messages=[Message(role="user", content="hi")])
    for model in ("gpt-4o", "gpt-5", "gemini-3-pro", "claude")
]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=repr)
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.model)
def test_a_default_that_an_adapter_invents_stands_in_its_docstring(adapter, request_):  # C-46, P-75
    body = adapter.wire(request_).build(request_, {}, stream=False).body

    invented = {name: value for name, value in body.items() if name not in QUESTION}

    assert invented == ({"max_tokens": 1024} if isinstance(adapter, Anthropic) else {})
    for value in invented.values():
        assert str(value) in type(adapter).__doc__


@pytest.mark.parametrize("adapter", ADAPTERS, ids=repr)
def test_tools_and_schemas_bring_no_sampling_of_their_own(adapter):  # C-46, P-32
    request = Request(
        model="gpt-4o",
        messages=[Message(role="user", content="hi")],
        tools=[Tool(name="f", description="does f", schema={"type": "object"})],
        response_format=json_schema("a", {"type": "object"}),
    )
    body = adapter.wire(request).build(request, {}, stream=False).body
    known = QUESTION | {"tools", "tool_choice", "response_format", "text", "generationConfig", "max_tokens"}
    assert body.keys() <= known
    assert ("max_tokens" in body) == isinstance(adapter, Anthropic)
    assert body.get("generationConfig", {}).keys() <= {"responseMimeType", "responseJsonSchema"}
