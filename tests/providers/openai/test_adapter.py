"""The adapter value: configuration, endpoint choice, and the request it leads to."""

import json
import pickle

import pydantic
import pytest

from allm_actors.data import Message, ModelRef, Request, Tool, json_schema
from allm_actors.engine import CallContext
from allm_actors.errors import EngineError
from allm_actors.providers import OpenAI
from allm_actors.providers.openai._wire import OpenAIWire

CALL = CallContext(api_key="key-of-the-call")


def ask(model="gpt-4o", **fields):
    return Request(messages=[Message(role="user", content="hi")], model=model, **fields)


def prepared(adapter, request=None, call=CALL, *, stream=False):
    connection = adapter.connect()
    try:
        return connection.prepare_request(request or ask(), call, stream=stream)
    finally:
        connection.close()


def test_defaults():  # P-3, P-7
    adapter = OpenAI()
    assert (adapter.provider, adapter.base_url) == ("openai", "https://api.openai.com/v1")
    assert (adapter.headers, adapter.auth, adapter.verify) == ({}, True, True)
    assert (adapter.api, adapter.organization, adapter.project, adapter.max_tokens_param) == (None,) * 4
    assert not adapter.custom_host


def test_a_value_comes_back():  # C-84, C-89
    adapter = OpenAI(
        base_url="http://localhost:8000/v1/",
        api="responses",
        organization="acme",
        max_tokens_param="max_tokens",
    )
    assert OpenAI.model_validate_json(adapter.model_dump_json()) == adapter
    assert pickle.loads(pickle.dumps(adapter)) == adapter
    assert adapter.model_dump()["type"] == "openai"


@pytest.mark.parametrize(
    "field",
    [
        {"api": "assistants"},
        {"api_key": "sk-0123456789abcdefghij"},
        {"organization": 5},
        {"organization": "a\nb"},
        {"project": "é"},
        {"max_tokens_param": "max_output_tokens"},
        {"max_tokens": 5},
        {"base_url": "ftp://x"},
        {"base_url": None},
        {"project": "sk-0123456789abcdefghij"},
    ],
)
def test_bad_configuration(field):  # P-3, P-136
    with pytest.raises(pydantic.ValidationError) as caught:
        OpenAI(**field)
    assert next(iter(field)) in str(caught.value)
    assert "0123456789" not in f"{caught.value} {caught.value.errors()}"


def test_an_organisation_may_look_like_one():  # P-136
    assert OpenAI(organization="org-0123456789abcdefghij").organization


@pytest.mark.parametrize(
    ("model", "api"),
    [
        *[(model, "responses") for model in ("gpt-5", "GPT-5-mini", "gpt-5.1", "gpt-6", "gpt-12-x", "o1", "o3-mini", "O4-mini", "o9", "ft:gpt-5:acme", "FT:o3:acme::1")],
        *[(model, "chat") for model in ("gpt-4o", "gpt-4.1", "gpt-3.5-turbo", "gpt-image-1", "gpt-oss-20b", "o", "omni", "o0", "o10", "chatgpt-5", "llama", "ft:gpt-4o:acme", "gpt-", "gpt-4-5")],
    ],
)  # fmt: skip
def test_the_endpoint_is_chosen_by_model(model, api):  # P-50
    assert OpenAIWire().api(ask(model)) == api
    assert OpenAIWire().api(ask(ModelRef(provider="openai", id=model))) == api
    assert OpenAIWire(custom_host=True).api(ask(model)) == "chat"
    for chosen in ("chat", "responses"):
        for custom_host in (True, False):
            assert OpenAIWire(api=chosen, custom_host=custom_host).api(ask(model)) == chosen


@pytest.mark.parametrize(
    ("adapter", "model", "url"),
    [
        (OpenAI(), "gpt-4o", "https://api.openai.com/v1/chat/completions"),
        (OpenAI(), "gpt-5", "https://api.openai.com/v1/responses"),
        (OpenAI(api="chat"), "gpt-5", "https://api.openai.com/v1/chat/completions"),
        (OpenAI(base_url="https://API.openai.com/v2/"), "gpt-5", "https://api.openai.com/v2/responses"),
        (OpenAI(base_url="http://127.0.0.1:11434/v1"), "gpt-5", "http://127.0.0.1:11434/v1/chat/completions"),
        (
            OpenAI(base_url="http://127.0.0.1:11434/v1", api="responses"),
            "x",
            "http://127.0.0.1:11434/v1/responses",
        ),
    ],
)
def test_urls(adapter, model, url):  # P-7, P-8, P-50
    assert prepared(adapter, ask(model)).url == url


def test_the_request_that_would_be_sent():  # P-1, P-9, P-51
    http = prepared(OpenAI(organization="acme", project="p1", headers={"x-extra": "1"}), stream=True)
    assert http.method == "POST"
    assert http.headers["authorization"] == "Bearer key-of-the-call"
    assert (http.headers["openai-organization"], http.headers["openai-project"]) == ("acme", "p1")
    assert (http.headers["x-extra"], http.headers["content-type"]) == ("1", "application/json")
    assert json.loads(http.body) == {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_headers_are_sent_only_when_configured():  # P-9
    assert not [name for name in prepared(OpenAI()).headers if name.lower().startswith("openai-")]


def test_the_body_is_the_same_bytes_without_a_prompt_cache():  # K-121
    assert prepared(OpenAI()).body == b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'


def test_a_missing_key():  # P-8, P-131
    with pytest.raises(EngineError) as caught:
        prepared(OpenAI(), call=CallContext())
    assert caught.value.reason == "missing_key"
    local = OpenAI(base_url="http://localhost:1/v1")
    for adapter in (local, OpenAI(auth=False)):
        assert "authorization" not in prepared(adapter, call=CallContext()).headers
    assert "authorization" not in prepared(OpenAI(auth=False)).headers


def test_the_key_is_looked_for_last():  # P-4
    with pytest.raises(EngineError) as caught:
        prepared(OpenAI(), ask(None), CallContext())
    assert caught.value.reason == "missing_model"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_structured_answers_with_tools_take_two_passes(api):  # P-112
    tool, schema = Tool(name="f", description="", schema={}), json_schema("a", {})
    adapter = OpenAI(api=api)
    assert adapter.requires_structured_finalize(ask(tools=[tool], response_format=schema))
    assert not adapter.requires_structured_finalize(ask(tools=[tool]))
    assert not adapter.requires_structured_finalize(ask(response_format=schema))
    both = json.loads(prepared(adapter, ask(tools=[tool], response_format=schema)).body)
    assert {"tools", "response_format" if api == "chat" else "text"} <= both.keys()
