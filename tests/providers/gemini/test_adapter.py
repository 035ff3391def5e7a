"""The adapter value: configuration, and the request it leads to."""

import json
import pickle

import pydantic
import pytest

from allm_actors.data import Image, ImagePart, Message, Request, Tool, json_schema
from allm_actors.engine import CallContext
from allm_actors.errors import AdapterError, EngineError, ValidationError
from allm_actors.providers import Gemini

KEY = "AIza0123456789abcdefghij"
CALL = CallContext(api_key=KEY)


def ask(model="gemini-2.5-flash", **fields):
    return Request(**({"messages": [Message(role="user", content="hi")], "model": model} | fields))


def prepared(adapter, request=None, call=CALL, *, stream=False):
    connection = adapter.connect()
    try:
        return connection.prepare_request(request or ask(), call, stream=stream)
    finally:
        connection.close()


def test_defaults():  # P-3, P-7
    adapter = Gemini()
    assert adapter.provider == "gemini"
    assert adapter.base_url == "https://generativelanguage.googleapis.com/v1beta"
    assert (adapter.headers, adapter.auth, adapter.verify) == ({}, True, True)
    assert not adapter.custom_host


def test_a_value_comes_back():  # C-84, C-89
    adapter = Gemini(base_url="http://localhost:8000/v1beta/", headers={"x-extra": "1"}, auth=False)
    assert Gemini.model_validate_json(adapter.model_dump_json()) == adapter
    assert pickle.loads(pickle.dumps(adapter)) == adapter
    assert adapter.model_dump()["type"] == "gemini"


@pytest.mark.parametrize(
    "field",
    [
        {"api_key": KEY},
        {"api_version": "v1"},
        {"base_url": f"http://h/v1?key={KEY}"},
        {"base_url": "ftp://x"},
        {"base_url": None},
        {"headers": {"x-goog-api-key": KEY}},
        {"headers": {"x-extra": KEY}},
    ],
)
def test_bad_configuration(field):  # P-3, P-7, P-136
    with pytest.raises(pydantic.ValidationError) as caught:
        Gemini(**field)
    assert next(iter(field)) in str(caught.value)
    assert KEY not in f"{caught.value} {caught.value.errors()}"


@pytest.mark.parametrize(
    ("base_url", "model", "stream", "url"),
    [
        (
            None,
            "gemini-2.5-flash",
            False,
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent",
        ),
        (
            None,
            "models/gemini-2.5-flash",
            True,
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        ),
        ("http://127.0.0.1:8080/x//", "a b", True, "http://127.0.0.1:8080/x/models/a%20b:streamGenerateContent?alt=sse"),
        ("http://h/v1", "tuned/ü?", False, "http://h/v1/models/tuned/%C3%BC%3F:generateContent"),
    ],
)  # fmt: skip
def test_urls(base_url, model, stream, url):  # P-7, P-90
    adapter = Gemini() if base_url is None else Gemini(base_url=base_url)
    assert prepared(adapter, ask(model), stream=stream).url == url


@pytest.mark.parametrize("stream", [False, True])
def test_the_request_that_would_be_sent(stream):  # P-1, P-9, P-90
    http = prepared(Gemini(headers={"x-extra": "1"}), stream=stream)
    assert http.method == "POST"
    assert http.headers["x-goog-api-key"] == KEY
    assert "authorization" not in http.headers
    assert KEY not in http.url
    assert (http.headers["x-extra"], http.headers["content-type"]) == ("1", "application/json")
    assert http.headers["accept"] == ("text/event-stream" if stream else "application/json")
    assert http.body == b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'


def test_non_ascii_characters_stay_readable():  # P-9
    request = ask(messages=[Message(role="user", content="Grüße \u2028")])
    assert json.loads(prepared(Gemini(), request).body)["contents"][0]["parts"] == [{"text": "Grüße \u2028"}]
    assert "Grüße".encode() in prepared(Gemini(), request).body


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_has_not(number):  # P-9
    with pytest.raises(ValidationError) as caught:
        prepared(Gemini(), ask(temperature=number))
    assert caught.value.reason == "invalid_request"
    assert caught.value.errors[0].path == ("generationConfig", "temperature")


def test_a_missing_key():  # P-8, P-131
    with pytest.raises(EngineError) as caught:
        prepared(Gemini(), call=CallContext())
    assert (caught.value.reason, caught.value.provider) == ("missing_key", "gemini")
    for adapter in (Gemini(base_url="http://localhost:1/v1beta"), Gemini(auth=False)):
        assert "x-goog-api-key" not in prepared(adapter, call=CallContext()).headers
    assert "x-goog-api-key" not in prepared(Gemini(auth=False)).headers


def test_a_key_that_is_no_header():  # P-135
    with pytest.raises(AdapterError) as caught:
        prepared(Gemini(), call=CallContext(api_key="schlüssel"))
    assert caught.value.reason == "authentication_failed"
    assert "schl" not in str(caught.value)


def test_the_key_is_looked_for_last():  # P-4
    remote = Message(role="user", content=[ImagePart(image=Image.from_url("https://example.com/a.png"))])
    for request in (ask(None), ask(messages=[remote])):
        with pytest.raises((EngineError, AdapterError)) as caught:
            prepared(Gemini(), request, CallContext())
        assert caught.value.reason in ("missing_model", "unsupported_feature")


def test_structured_answers_with_tools_take_two_passes():  # P-112
    tool, schema = Tool(name="f", description="", schema={}), json_schema("a", {})
    finalize = Gemini().requires_structured_finalize
    for wanted in (schema, {"type": "json_object"}):
        assert finalize(ask(tools=[tool], response_format=wanted))
        assert not finalize(ask(response_format=wanted))
    for wanted in (None, "text", {"type": "text"}):
        assert not finalize(ask(tools=[tool], response_format=wanted))
    body = json.loads(prepared(Gemini(), ask(tools=[tool], response_format=schema)).body)
    assert {"tools", "generationConfig"} <= body.keys()
