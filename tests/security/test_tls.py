"""Certificates are verified unless the program says otherwise, and nothing is sent before they are."""

from __future__ import annotations

import datetime as dt
import ssl

import pytest
import trustme
from pydantic import SecretStr

from allm_actors.data import Request, user
from allm_actors.engine import CallContext
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.providers._http_pool import CuttableAdapter
from allm_actors.testing import FakeServer
from tests.providers._net import HOST

ASK = Request(messages=[user("hi")], model="m")
CALL = CallContext(
    connect_timeout=5, stream_timeout=5, request_timeout=5, api_key=SecretStr("canary-key-0123456789")
)
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)

AUTHORITY, STRANGER = trustme.CA(), trustme.CA()


def issued(*names, by=AUTHORITY, **times):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    by.issue_cert(*names, **times).configure_cert(context)
    return context


CERTIFICATES = {
    "by a stranger": lambda: issued(HOST, by=STRANGER),
    "for another host": lambda: issued("example.org"),
    "for another address": lambda: issued("127.0.0.2"),
    "for a name that only contains it": lambda: issued("127.0.0.1.example.org"),
    "for everybody": lambda: issued("*.0.0.1"),
    "expired": lambda: issued(HOST, not_before=NOW - 2 * DAY, not_after=NOW - DAY),
    "not valid yet": lambda: issued(HOST, not_before=NOW + DAY, not_after=NOW + 2 * DAY),
}


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return str(path)


def last_of(adapter):
    connection = adapter.connect()
    *_, last = connection.stream(ASK, CALL)
    connection.close()
    return last


@pytest.mark.parametrize("certificate", CERTIFICATES)
@pytest.mark.parametrize("kind", [OpenAI, Anthropic, Gemini])
def test_a_certificate_that_proves_nothing_is_refused(kind, certificate, bundle):
    """P-3, P-101: before a byte of the request, and with it of the key, is sent."""
    with FakeServer(default="hi", tls=CERTIFICATES[certificate]()) as server:
        last = last_of(kind(base_url=server.base_url, verify=bundle))
        assert server.requests == []
    assert last.type == "error"
    assert last.error.reason == "network_error"
    assert "the certificate was not accepted" in last.error.message


def test_a_good_certificate_is_accepted(bundle):
    """The others are refused for what is wrong with them, not for anything else."""
    with FakeServer(default="hi", tls=issued(HOST)) as server:
        assert last_of(OpenAI(base_url=server.base_url, verify=bundle)).type == "message_completed"


def test_a_self_signed_certificate_is_refused_by_default(monkeypatch):
    """P-3: without a word about verification."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    with FakeServer(default="hi", tls=issued(HOST)) as server:
        assert last_of(OpenAI(base_url=server.base_url)).error.reason == "network_error"
        assert server.requests == []


@pytest.mark.parametrize("kind", [OpenAI, Anthropic, Gemini])
def test_verification_is_the_default_and_old_protocols_are_off(kind):
    assert kind().verify is True
    context = CuttableAdapter()._context(True)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_the_base_urls_of_the_providers_are_https():
    assert all(kind.default_base_url.startswith("https://") for kind in (OpenAI, Anthropic, Gemini))


def test_verification_can_only_be_switched_off_in_the_program():
    """P-3: an adapter that was stored says so in its own data."""
    assert OpenAI.model_validate_json('{"verify": false}').verify is False
    with pytest.raises(ValueError):
        OpenAI(verify=0)
    with pytest.raises(ValueError):
        OpenAI(verify=None)
