"""What the caller's data holds cannot add a header, change the path, or turn one request into two."""

from __future__ import annotations

from contextlib import nullcontext
from urllib.parse import urlsplit

import pydantic
import pytest
from pydantic import SecretStr

import allm_actors as allm
from allm_actors.data import Request, user
from allm_actors.engine import CallContext
from allm_actors.errors import AdapterError, AllmError, ValidationError
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.testing import FakeServer

KEY = "canary-key-0123456789"
ASK = Request(messages=[user("hi")], model="m")
BREAKS = [
    "\r\nx-evil: 1",
    "\nx-evil: 1",
    "\r x-evil: 1",
    "\x00",
    "\x0b",
    "\x7f",
    "\x85",
    "\u2028",
    "é",
    "\ud800",
]
ADAPTERS = {"openai": OpenAI, "anthropic": Anthropic, "gemini": Gemini}


def prepared(adapter, request=ASK, key=KEY, *, stream=True, **call):
    connection = adapter.connect()
    context = CallContext(api_key=None if key is None else SecretStr(key), **call)
    return connection.prepare_request(request, context, stream=stream)


@pytest.mark.parametrize("text", BREAKS)
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_key_cannot_bring_a_header(name, text):
    """P-135: refused before anything is sent, and not shown; what stands around a key is stripped."""
    with pytest.raises(AdapterError) as caught:
        prepared(ADAPTERS[name](), key=KEY + text + "y")
    assert caught.value.reason == "authentication_failed"
    assert KEY not in repr(caught.value)
    credential = dict(prepared(ADAPTERS[name](), key=f" {KEY}\r\n").headers)
    assert sum(KEY in value for value in credential.values()) == 1
    assert not any("\n" in value or "\r" in value for value in credential.values())


@pytest.mark.parametrize("text", BREAKS)
def test_configuration_cannot_bring_a_header(text):
    """P-3: names and values, wherever they are configured."""
    for build in (
        lambda: OpenAI(headers={"x-one": "a" + text}),
        lambda: OpenAI(headers={"x-one" + text: "a"}),
        lambda: OpenAI(organization="a" + text),
        lambda: OpenAI(project="a" + text),
        lambda: Anthropic(api_version="a" + text),
        lambda: Anthropic(betas=["a", "b" + text]),
    ):
        with pytest.raises(pydantic.ValidationError):
            build()


@pytest.mark.parametrize("headers", [{"x": " folded"}, {"x y": "z"}, {"": "z"}, {"x:": "z"}, {":path": "z"}])
def test_a_header_that_the_http_library_would_refuse_is_refused_at_construction(headers):
    """P-3: not at the call, in an exception of somebody else's."""
    with pytest.raises(pydantic.ValidationError):
        OpenAI(headers=headers)


@pytest.mark.parametrize("text", ["\r\nx-evil: 1", "\x00", "\x1b[2J"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_ids_of_calls_and_sessions_are_not_sent(name, text):
    """P-161: so nothing in them can be a header, and names of tools and users travel as JSON only."""
    with FakeServer(default="hi") as server:
        engine = allm.Engine(adapter=ADAPTERS[name](base_url=server.base_url), model="m")
        allm.generate(engine, "hi", request_id="id" + text, telemetry_metadata={"x": text}, seed=1)
        (request,) = server.requests
    assert not any(
        "evil" in header or "evil" in value or "id\r" in value for header, value in request.headers.items()
    )


@pytest.mark.parametrize("text", BREAKS[:6])
def test_options_stay_in_the_body(text):
    """P-31: whatever they are called."""
    with FakeServer(default="hi") as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="m" + text)
        allm.generate(
            engine,
            "hi",
            options={"x-evil" + text: text, "headers": {"x-evil": "1"}, "extra_headers": {"x-evil": "1"}},
        )
        (request,) = server.requests
    assert "x-evil" not in request.headers
    assert request.json["model"] == "m" + text


@pytest.mark.parametrize(
    "model",
    ["../x", "..", ".", "a/../../b", "models/../../b", "models/..", "./x", "a/.", "models/models/../x"],
)
def test_a_models_name_cannot_climb_out_of_its_path(model):
    """P-7: with the key in its header, the request would go to another endpoint of the same host."""
    with pytest.raises(ValidationError) as caught:
        prepared(Gemini(), Request(messages=[user("hi")], model=model))
    assert caught.value.reason == "invalid_request"
    assert caught.value.errors == [(("model",), "dot_segment")]


@pytest.mark.parametrize(
    "model",
    [
        "a?key=1", "a#b", "a\r\nhost: evil", "a b", "@evil.invalid", "//evil.invalid/x", "/", "a\\..\\b",
        "%2e%2e/%2e%2e/x", "..%2fx", "a;b", "é", "http://evil.invalid/", "a\x00b", "...", "..a/b..", "v1.5-x",
    ],
)  # fmt: skip
def test_a_models_name_stays_a_part_of_its_path(model):
    """P-7: no query, no fragment, no other host, nothing decoded twice."""
    for stream, end in ((True, ":streamGenerateContent"), (False, ":generateContent")):
        sent = prepared(Gemini(), Request(messages=[user("hi")], model=model), stream=stream)
        parts = urlsplit(sent.url)
        assert parts.netloc == "generativelanguage.googleapis.com"
        assert parts.path.startswith("/v1beta/models/")
        assert parts.path.endswith(end)
        assert parts.query == ("alt=sse" if stream else "")
        assert parts.fragment == ""
        assert not {".", ".."} & set(parts.path.split("/"))
        assert sent.url.isascii()
        assert sent.url.isprintable()
        assert KEY not in sent.url


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_models_name_that_is_no_text_is_our_error(name):
    with pytest.raises(ValidationError) as caught:
        prepared(ADAPTERS[name](), Request(messages=[user("hi")], model="m\ud800"))
    assert caught.value.errors == [(("model",), "not_unicode")]


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_models_name_is_in_no_path_of_the_others(name):
    sent = prepared(ADAPTERS[name](), Request(messages=[user("hi")], model="../../x"))
    assert ".." not in sent.url


@pytest.mark.parametrize("text", BREAKS)
def test_one_call_is_one_request(text):
    """Nothing that a caller passes on can smuggle a second request through the first."""
    smuggled = f"x{text}\r\n\r\nPOST /v1/evil HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    with FakeServer(default="hi") as server:
        for kind in ADAPTERS.values():
            engine = allm.Engine(adapter=kind(base_url=server.base_url), model=smuggled)
            refused = (
                pytest.raises((AllmError, pydantic.ValidationError)) if text == "\ud800" else nullcontext()
            )
            with refused:  # what cannot be written as UTF-8
                allm.generate(engine, smuggled, request_id=smuggled)
        assert len(server.requests) == (0 if text == "\ud800" else 3)
        assert not any(
            "evil" in request.path and "models/" not in request.path for request in server.requests
        )
