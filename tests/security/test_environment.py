"""What the environment holds neither replaces nor reveals what the caller gave."""

from __future__ import annotations

import base64
import socket

import pytest
from pydantic import SecretStr

from allm_actors.data import Request, user
from allm_actors.engine import CallContext
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.testing import FakeServer
from tests.providers._net import HOST, Certificates, raw_server, read_request, relay

ASK = Request(messages=[user("hi")], model="m")
KEY = "canary-key-0123456789"
CALL = CallContext(connect_timeout=5, stream_timeout=5, request_timeout=5, api_key=SecretStr(KEY))
CREDENTIALS = {
    "openai": (OpenAI, "authorization", f"Bearer {KEY}"),
    "anthropic": (Anthropic, "x-api-key", KEY),
    "gemini": (Gemini, "x-goog-api-key", KEY),
}
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in (*PROXIES, *map(str.upper, PROXIES), *BUNDLES, "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def netrc(tmp_path, monkeypatch):
    """A file that has a password for every host."""
    file = tmp_path / "netrc"
    file.write_text(f"machine {HOST} login me password secret\ndefault login me password secret\n")
    monkeypatch.setenv("NETRC", str(file))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text(file.read_text())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


def ask(adapter, call=CALL):
    connection = adapter.connect()
    answer = connection.generate(ASK, call)
    events = list(connection.stream(ASK, call))
    connection.close()
    assert events[-1].type == "message_completed", events[-1]
    return answer.text


@pytest.mark.parametrize("name", CREDENTIALS)
def test_netrc_neither_replaces_nor_adds_a_credential(name, netrc):
    """P-11: with a key, without one, and where none is to be sent."""
    kind, header, sent = CREDENTIALS[name]
    with FakeServer(default="hi") as server:
        ask(kind(base_url=server.base_url))
        ask(kind(base_url=server.base_url), CALL.model_copy(update={"api_key": None}))
        ask(kind(base_url=server.base_url, auth=False))
        seen = [request.headers for request in server.requests]
    assert [headers.get(header) for headers in seen] == [sent, sent, None, None, None, None]
    assert name == "openai" or not any("authorization" in headers for headers in seen)


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_proxys_own_password_leaves_the_callers_key_alone(name, netrc, monkeypatch):
    """P-11, P-143: each has its own header."""
    kind, header, sent = CREDENTIALS[name]
    with FakeServer(default="through") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//proxyuser:proxypass@"))
        assert ask(kind(base_url="http://provider.invalid/v1")) == "through"
        seen = [request.headers for request in proxy.requests]
    basic = base64.b64encode(b"proxyuser:proxypass").decode()
    assert [headers.get(header) for headers in seen] == [sent, sent]
    assert [headers.get("proxy-authorization") for headers in seen] == [f"Basic {basic}"] * 2
    assert name == "openai" or not any("authorization" in headers for headers in seen)


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_proxy_between_sees_no_key_of_an_https_call(name, certificates, monkeypatch):
    """P-11, P-142: it gets a host and a port, and then ciphertext."""
    kind, header, sent = CREDENTIALS[name]
    heard = []

    def tunnel(sock):
        head = read_request(sock)
        heard.append(head)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with socket.create_connection((HOST, int(server.url.rpartition(":")[2]))) as target:
            relay(sock, target)

    with (
        FakeServer(default="through", tls=certificates.server) as server,
        raw_server(tunnel, connections=2) as port,
    ):
        monkeypatch.setenv("https_proxy", f"http://proxyuser:proxypass@{HOST}:{port}")
        assert ask(kind(base_url=server.base_url, verify=certificates.bundle)) == "through"
        assert [request.headers.get(header) for request in server.requests] == [sent, sent]
        assert not any("proxy-authorization" in request.headers for request in server.requests)
    assert all(head.startswith(b"CONNECT 127.0.0.1:") for head in heard)
    assert KEY.encode() not in b"".join(heard)


def test_a_bundle_of_the_environment_widens_nothing_that_the_adapter_set(certificates, tmp_path, monkeypatch):
    """P-3, P-11: with `verify=True` the environment names the bundle; a path that the caller gave stands."""
    other = Certificates(tmp_path)
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(variable, certificates.bundle)
        with FakeServer(default="hi", tls=certificates.server) as server:
            assert ask(OpenAI(base_url=server.base_url)) == "hi"
            connection = OpenAI(base_url=server.base_url, verify=other.bundle).connect()
            (*_, last) = connection.stream(ASK, CALL)
            connection.close()
            assert last.error.reason == "network_error"
            assert "certificate" in last.error.message
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("value", ["", "0", "false", "/nowhere/at/all.pem"])
def test_no_value_of_the_environment_switches_verification_off(value, certificates, monkeypatch):
    """P-3: only `verify=False` in the program does."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", value)
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    monkeypatch.setenv("CURL_CA_BUNDLE", "")
    with FakeServer(default="hi", tls=certificates.server) as server:
        connection = OpenAI(base_url=server.base_url).connect()
        (*_, last) = connection.stream(ASK, CALL)
        connection.close()
        assert server.requests == []
    assert last.error.reason == "network_error"
