"""A redirect is an error: the key goes where the caller sent it and nowhere else."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

import allm_actors as allm
from allm_actors.data import Request, user
from allm_actors.engine import CallContext
from allm_actors.errors import AdapterError
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.testing import FakeServer, Reply
from tests.providers._net import HOST, Certificates

ASK = Request(messages=[user("hi")], model="m")
KEY = "canary-key-0123456789"
CALL = CallContext(connect_timeout=5, stream_timeout=5, request_timeout=5, api_key=SecretStr(KEY))
ADAPTERS = {"openai": OpenAI, "anthropic": Anthropic, "gemini": Gemini}

LOCATIONS = {
    "another host": "http://localhost:{other}/v1/chat/completions",
    "another port": "http://127.0.0.1:{other}/v1/chat/completions",
    "from https to http": "http://127.0.0.1:{other}/",
    "without a scheme": "//127.0.0.1:{other}/v1",
    "with a user name": "http://me:secret@127.0.0.1:{other}/v1",
    "another path": "/v1/elsewhere",
    "relative": "../elsewhere",
    "the same": "",
    "no URL": "http://[bad",
    "another scheme": "file:///etc/passwd",
    "a header inside": "http://127.0.0.1:{other}/\t x",
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize("where", LOCATIONS)
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_redirect_is_refused_wherever_it_leads(name, where, certificates):
    """P-10: neither another host, nor plain HTTP, nor another path of the same server sees a request."""
    secure = where == "from https to http"
    with FakeServer(default="caught") as elsewhere:
        location = LOCATIONS[where].format(other=elsewhere.url.rpartition(":")[2])
        redirect = Reply(status=302, headers={"location": location}, body="moved")
        with FakeServer(default=redirect, tls=certificates.server if secure else None) as server:
            adapter = ADAPTERS[name](base_url=server.base_url, verify=certificates.bundle)
            connection = adapter.connect()
            *_, last = connection.stream(ASK, CALL)
            with pytest.raises(AdapterError) as caught:
                connection.generate(ASK, CALL)
            connection.close()
            assert len(server.requests) == 2
        assert elsewhere.connections == 0
    for error in (last.error, caught.value):
        assert (error.reason, error.status) == ("unknown", 302)
        assert "redirect refused" in error.message
        assert "secret" not in repr(error) + str(error.to_dict())


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308, 399])
def test_every_kind_of_redirect_is_refused(status):
    """P-10: also those that would turn the request into a GET, or keep its body."""
    with FakeServer(default="caught") as elsewhere:
        redirect = Reply(
            status=status, headers={"location": elsewhere.url, "refresh": f"0;url={elsewhere.url}"}
        )
        with FakeServer(default=redirect) as server:
            engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="m")
            with pytest.raises(AdapterError) as caught:
                allm.generate(engine, "hi", api_key=KEY)
            assert len(server.requests) == 1
        assert elsewhere.connections == 0
    assert caught.value.status == status


def test_a_cookie_is_not_brought_back():
    """P-11: a pool shared by several tenants must not link them."""
    with FakeServer(default=Reply("x", headers={"set-cookie": f"id=1; Domain={HOST}; Path=/"})) as server:
        connection = OpenAI(base_url=server.base_url).connect()
        for _ in range(2):
            connection.generate(ASK, CALL)
        connection.close()
        assert "cookie" not in server.requests[1].headers
