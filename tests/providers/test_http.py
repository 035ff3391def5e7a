"""The transport: requests that can be cut in every phase, and bytes as they arrive."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import math
import queue
import select
import socket
import ssl
import sys
import threading
import time
import zlib

import pytest
import requests

from allm_actors import beam
from allm_actors.beam.interrupt import Interrupted, Scope
from allm_actors.providers import _http
from allm_actors.providers._http import HttpTransport, TransportError
from allm_actors.testing import FakeServer, Reply
from tests.providers._net import HOST, Certificates, descriptors, post, raw_server, read_request, relay

LONG = {"connect_timeout": 5, "idle_timeout": 5}
linux = pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def transport():
    made = HttpTransport()
    yield made
    made.close()


@pytest.fixture(params=["http", "https"])
def secured(request, certificates):
    """A transport, and what a `FakeServer` needs to be reached by it: plain and with TLS."""
    plain = request.param == "http"
    made = HttpTransport(verify=True if plain else certificates.bundle)
    yield made, {} if plain else {"tls": certificates.server}
    made.close()


def whole(transport, request, **limits):
    with Scope():
        return transport.send(request, **(limits or LONG)).read_all()


# --- plain use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("piece", [None, 1, 7])
def test_the_body_comes_whole_whatever_the_framing(secured, framing, piece):
    transport, tls = secured
    with FakeServer(script=[Reply(body="x" * 300, framing=framing, piece=piece)], **tls) as server:
        assert whole(transport, post(server.url)) == b"x" * 300


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_bytes_are_there_as_soon_as_they_have_arrived(secured, framing):
    """P-12: nothing waits for a read to fill."""
    transport, tls = secured
    body = "data: 1\n\n" + "data: 2\n\n"
    reply = Reply(body=body, split_at=[9], fault="stall", after=1, framing=framing)
    with FakeServer(script=[reply], **tls) as server, Scope():
        answer = transport.send(post(server.url), **LONG)

        assert answer.read() == b"data: 1\n\n"
        server.resume()
        assert answer.read() == b"data: 2\n\n"
        assert answer.read() == b""
        assert answer.read() == b""


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_a_compressed_body_is_understood(transport, framing):
    """P-9: also from a server that was not asked to."""
    with FakeServer(script=[Reply(body="hello " * 50, gzip=True, framing=framing, piece=5)]) as server:
        assert whole(transport, post(server.url)) == b"hello " * 50


def test_a_compressed_event_is_there_as_soon_as_it_has_arrived(transport):
    """P-12: decompression waits for no more than one event."""
    packer = zlib.compressobj(wbits=31)
    parts = [
        packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH) for text in (b"data: 1\n\n", b"data: 2\n\n")
    ]
    reply = Reply(
        body=b"".join(parts),
        split_at=[len(parts[0])],
        fault="stall",
        after=1,
        headers={"content-encoding": "gzip"},
    )
    with FakeServer(script=[reply]) as server, Scope():
        answer = transport.send(post(server.url), **LONG)

        assert answer.read() == b"data: 1\n\n"
        server.resume()
        assert answer.read_all() == b"data: 2\n\n"


def test_status_and_headers(transport):
    with FakeServer(script=[Reply(status=429, headers={"Retry-After": "3"}, body="no")]) as server, Scope():
        answer = transport.send(post(server.url), **LONG)

        assert (answer.status, answer.headers["retry-after"]) == (429, "3")
        assert answer.read_all() == b"no"


def test_redirects_are_not_followed(transport):
    """P-10."""
    with FakeServer() as elsewhere:
        reply = Reply(status=307, headers={"location": elsewhere.base_url}, body="moved")
        with FakeServer(script=[reply]) as server, Scope():
            answer = transport.send(post(server.url), **LONG)
            assert (answer.status, answer.read_all()) == (307, b"moved")
        assert elsewhere.requests == []


def test_netrc_is_not_read(transport, tmp_path, monkeypatch):
    """P-11: it would replace the credential."""
    file = tmp_path / "netrc"
    file.write_text(f"machine {HOST} login me password secret\n")
    monkeypatch.setenv("NETRC", str(file))
    assert requests.utils.get_netrc_auth(f"http://{HOST}/") == ("me", "secret")
    with FakeServer(default="hi") as server:
        whole(transport, post(server.url, authorization="Bearer key"))
        whole(transport, post(server.url))

        assert [request.headers.get("authorization") for request in server.requests] == ["Bearer key", None]


def test_cookies_are_neither_stored_nor_sent(transport):
    """P-11."""
    reply = Reply("hi", headers={"set-cookie": "a=b; Path=/"})
    with FakeServer(default=reply) as server:
        for _ in range(2):
            whole(transport, post(server.url))

        assert [request.headers.get("cookie") for request in server.requests] == [None, None]


# --- TLS and proxies ------------------------------------------------------------------------------------


def test_a_certificate_nobody_vouches_for_is_refused(certificates, transport):
    with FakeServer(script=["x"], tls=certificates.server) as server:
        with pytest.raises(TransportError, match="certificate was not accepted") as caught:
            whole(transport, post(server.url))

        assert caught.value.kind == "network"
        assert server.requests == []


def test_verify_false_accepts_it_without_a_warning(certificates):
    """P-3."""
    transport = HttpTransport(verify=False)
    with FakeServer(script=["x"], tls=certificates.server) as server:
        assert whole(transport, post(server.url))
    transport.close()


def test_a_certificate_for_another_host_is_refused(certificates, tmp_path):
    other = Certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.authority.issue_cert("example.org").configure_cert(context)
    transport = HttpTransport(verify=other.bundle)
    with FakeServer(script=["x"], tls=context) as server:
        with pytest.raises(TransportError, match="certificate was not accepted"):
            whole(transport, post(server.url))
    transport.close()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_may_name_a_bundle(certificates, transport, monkeypatch, variable):
    """P-11."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, certificates.bundle)
    with FakeServer(script=["x"], tls=certificates.server) as server:
        assert whole(transport, post(server.url))


def test_a_bundle_that_is_not_there_is_a_network_failure(certificates, tmp_path):
    transport = HttpTransport(verify=str(tmp_path / "none.pem"))
    with FakeServer(script=["x"], tls=certificates.server) as server:
        with pytest.raises(TransportError) as caught:
            whole(transport, post(server.url))
    assert caught.value.kind == "network"
    transport.close()


def test_one_tls_context_serves_all_connections(certificates, monkeypatch):
    loaded = []
    real = ssl.SSLContext.load_verify_locations
    monkeypatch.setattr(
        ssl.SSLContext,
        "load_verify_locations",
        lambda self, *a, **k: (loaded.append(1), real(self, *a, **k))[1],
    )
    transport = HttpTransport(verify=certificates.bundle)
    with FakeServer(default=Reply("x", keep_alive=False), tls=certificates.server) as server:
        for _ in range(3):
            whole(transport, post(server.url))
        assert server.connections == 3
    assert len(loaded) == 1
    transport.close()


def test_an_http_proxy_from_the_environment_is_used(transport, monkeypatch):
    """P-11."""
    with FakeServer(script=["proxied"]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        assert b"proxied" in whole(transport, post("http://provider.invalid"))

        (request,) = proxy.requests
        assert request.path == "http://provider.invalid/v1/chat/completions"


def test_tls_through_a_proxy(certificates, monkeypatch):
    """P-11: through a tunnel, and cut like any other connection."""
    heads = queue.SimpleQueue()

    def tunnel(sock):
        head = read_request(sock)
        heads.put(head)
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection((HOST, int(head.split()[1].rpartition(b":")[2]))) as target:
            relay(sock, target)

    transport = HttpTransport(verify=certificates.bundle)
    script = ["tunnelled", "again", Reply("x", fault="stall", after=1)]
    with FakeServer(script=script, tls=certificates.server) as server, raw_server(tunnel) as port:
        monkeypatch.setenv("https_proxy", f"http://user:secret@{HOST}:{port}")
        monkeypatch.setenv("no_proxy", "")
        assert b"tunnelled" in whole(transport, post(server.url))
        assert b"again" in whole(transport, post(server.url))
        assert server.connections == 1
        assert heads.get(timeout=5).startswith(b"CONNECT 127.0.0.1:")
        with Scope() as scope:
            answer = transport.send(post(server.url), **LONG)
            answer.read()
            scope.interrupt()
            with pytest.raises(Interrupted):
                answer.read()
        assert server.requests[2].wait_disconnected()
        transport.close()


@contextlib.contextmanager
def tls_proxy(certificates):
    """A proxy that is itself spoken to over TLS; yields its port."""

    def serve(sock):
        with certificates.server.wrap_socket(sock, server_side=True) as outer:
            head = read_request(outer)
            method, target, _ = head.split(None, 2)
            address = target if method == b"CONNECT" else target.split(b"/")[2]
            with socket.create_connection((HOST, int(address.rpartition(b":")[2]))) as inner:
                if method == b"CONNECT":
                    outer.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    inner.sendall(head)
                relay(outer, inner)

    with raw_server(serve) as port:
        yield port


def test_a_proxy_that_speaks_tls_is_trusted_as_the_provider_is(secured, certificates, monkeypatch):
    """P-11, P-3: by the bundle that `verify` names, for a tunnel and for a plain URL."""
    _, tls = secured
    transport = HttpTransport(verify=certificates.bundle)
    with FakeServer(script=["proxied", "again"], **tls) as server, tls_proxy(certificates) as port:
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", f"https://{HOST}:{port}")
        monkeypatch.setenv("no_proxy", "")
        assert b"proxied" in whole(transport, post(server.url))
        assert b"again" in whole(transport, post(server.url))
        assert server.connections == 1
        transport.close()


def test_a_proxy_that_speaks_tls_is_not_trusted_without_reason(secured, certificates, monkeypatch):
    """P-11, P-101."""
    _, tls = secured
    transport = HttpTransport()
    with FakeServer(**tls) as server, tls_proxy(certificates) as port:
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", f"https://{HOST}:{port}")
        monkeypatch.setenv("no_proxy", "")
        assert "certificate" in failure(transport, server.url).text
        assert server.requests == []
        transport.close()


def socks_proxy(sock):
    """Lets one SOCKS5 connection through to a port of this machine."""
    sock.recv(2 + 255)
    sock.sendall(b"\x05\x00")
    asked = sock.recv(1024)
    sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
    with socket.create_connection((HOST, int.from_bytes(asked[-2:]))) as target:
        relay(sock, target)


def test_a_socks_proxy_can_be_cut_like_any_other(secured, monkeypatch):
    """P-11, P-127: its connections are pooled, and a reader that waits behind it is freed at once."""
    pytest.importorskip("socks", reason="PySocks is not installed")
    transport, tls = secured
    script = ["through", "again", Reply("x", fault="stall", after=1)]
    with FakeServer(script=script, **tls) as server, raw_server(socks_proxy) as port:
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", f"socks5h://{HOST}:{port}")
        monkeypatch.setenv("no_proxy", "")
        assert b"through" in whole(transport, post(server.url))
        assert b"again" in whole(transport, post(server.url))
        assert server.connections == 1
        with Scope() as scope:
            answer = transport.send(post(server.url), connect_timeout=5, idle_timeout=math.inf)
            answer.read()
            timer = threading.Timer(0.05, scope.interrupt)
            timer.start()
            with pytest.raises(Interrupted):
                list(answer)
            timer.join()
        assert server.requests[2].wait_disconnected()


@pytest.mark.parametrize(
    "proxy", ["http://me:secret@127.0.0.1:1", "http://me:secret@[bad", "http://me:secret@"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxys_password_is_in_no_error(transport, monkeypatch, proxy, scheme, caplog):
    """P-143."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(TransportError) as caught:
        whole(transport, post(f"{scheme}://provider.invalid"))

    assert "secret" not in str(caught.value)
    assert "secret" not in caplog.text


def test_a_proxy_that_refuses_is_a_network_failure(transport, monkeypatch):
    def refuse(sock):
        read_request(sock)
        sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    with raw_server(refuse) as port:
        monkeypatch.setenv("https_proxy", f"http://{HOST}:{port}")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(TransportError, match="407"):
            whole(transport, post("https://provider.invalid"))


# --- failures -------------------------------------------------------------------------------------------


def failure(transport, url, **limits):
    with pytest.raises(TransportError) as caught:
        whole(transport, post(url), **limits)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def test_a_refused_connection(transport):
    """P-101, P-141."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(transport, f"http://{HOST}:{port}")

    assert (error.kind, error.text) == ("network", "connection refused")


def test_a_name_that_does_not_resolve(transport, monkeypatch):
    """P-101."""

    def fail(*_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    error = failure(transport, "http://provider.invalid")

    assert error.kind == "network"
    assert "Name or service not known" in error.text


def test_an_illegal_host_name(transport):
    """P-101."""
    error = failure(transport, f"http://{'x' * 70}.example")

    assert error.kind == "network"
    assert error.text.startswith("the host name")


@pytest.mark.parametrize("proxy", ["http://", "ftp://127.0.0.1:1", "http://127.0.0.1:99999", "http://[::1"])
def test_a_proxy_that_is_none_is_named_as_the_culprit(transport, monkeypatch, proxy):
    """P-11, P-101."""
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")

    error = failure(transport, "http://provider.invalid")

    assert error.kind == "network"
    assert "proxy" in error.text


def test_a_body_that_is_not_compressed_as_it_says(transport):
    """P-9, P-101."""
    reply = Reply("x", headers={"content-encoding": "gzip"})
    with FakeServer(script=[reply]) as server:
        error = failure(transport, server.url)

    assert error.text == "the body is not compressed the way its headers say"
    assert error.reading


NO_ROUTE = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("255.255.255.255", 9))


def test_an_address_without_a_route(transport, monkeypatch):
    """P-101: said at once by the system, which then has a socket that looks connected."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [NO_ROUTE])
    error = failure(transport, "http://provider.invalid")

    assert error.kind == "network"
    assert error.text in ("permission denied", "network is unreachable")


def test_an_address_without_a_route_does_not_keep_from_the_next(secured, monkeypatch):
    """P-1: as for a host with an IPv6 address where there is no IPv6."""
    transport, tls = secured
    with FakeServer(script=["x"], **tls) as server:
        live = (*NO_ROUTE[:4], (HOST, int(server.url.rpartition(":")[2])))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [NO_ROUTE, live])

        assert whole(transport, post(server.url))


@pytest.mark.parametrize(
    ("fault", "framing"),
    [("drop", "chunked"), ("truncate", "chunked"), ("truncate", "length"), ("drop", "length")],
)
def test_a_broken_body(secured, fault, framing):
    """P-101, P-49: never taken for the end."""
    transport, tls = secured
    reply = Reply("a b c d", fault=fault, after=2, framing=framing)
    with FakeServer(script=[reply], **tls) as server:
        error = failure(transport, server.url)

    assert error.kind == "network"
    assert error.reading


def test_a_server_that_closes_without_an_answer(transport):
    def hang_up(sock):
        read_request(sock)
        sock.close()

    with raw_server(hang_up) as port:
        error = failure(transport, f"http://{HOST}:{port}")

    assert error.kind == "network"
    assert not error.reading


def test_what_is_not_http(transport):
    def talk(sock):
        read_request(sock)
        sock.sendall(b"SSH-2.0-hello\r\n" * 200)

    with raw_server(talk) as port:
        assert failure(transport, f"http://{HOST}:{port}").kind == "network"


def test_plain_http_where_tls_was_expected(transport):
    def talk(sock):
        sock.recv(10)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with raw_server(talk) as port:
        error = failure(transport, f"https://{HOST}:{port}")

    assert error.kind == "network"
    assert error.text.startswith("TLS failed")


# --- times ----------------------------------------------------------------------------------------------


def elapsed(function):
    began = time.monotonic()
    result = function()
    return time.monotonic() - began, result


def test_silence_before_the_headers(secured):
    """P-125."""
    transport, tls = secured
    with FakeServer(script=[Reply(fault="stall", after=-1)], **tls) as server:
        took, error = elapsed(lambda: failure(transport, server.url, connect_timeout=5, idle_timeout=0.1))
        assert server.requests[0].wait_disconnected()

    assert (error.kind, error.connecting) == ("timeout", False)
    assert 0.1 <= took < 1


def test_silence_in_the_body(secured):
    """P-125."""
    transport, tls = secured
    with FakeServer(script=[Reply("a b c", fault="stall", after=2)], **tls) as server:
        took, error = elapsed(lambda: failure(transport, server.url, connect_timeout=5, idle_timeout=0.1))
        assert server.requests[0].wait_disconnected()

    assert (error.kind, error.reading) == ("timeout", True)
    assert 0.1 <= took < 1


def test_any_byte_restarts_the_clock(transport):
    """P-123, P-125: a body that takes longer than the idle timeout in all, but is never silent for so long."""
    with FakeServer(script=[Reply(body="x" * 12, piece=1, chunk_delay=0.03)]) as server:
        took, body = elapsed(lambda: whole(transport, post(server.url), connect_timeout=5, idle_timeout=0.2))

    assert body == b"x" * 12
    assert took > 0.3


def test_the_readers_own_time_does_not_count(transport):
    """P-126."""
    with FakeServer(script=[Reply(body="ab", piece=1, framing="length")]) as server, Scope():
        answer = transport.send(post(server.url), connect_timeout=5, idle_timeout=0.1)
        assert answer.read()
        threading.Event().wait(0.15)

        answer.read_all()


def full_backlog():
    """A port whose connections are never accepted, and the sockets that keep it so."""
    listener = socket.create_server((HOST, 0), backlog=0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    return listener, fillers


@pytest.fixture
def unreachable():
    """A URL that no connection can be established to: nobody answers."""
    if sys.platform != "linux":
        pytest.skip("relies on how Linux treats a full backlog")
    listener, fillers = full_backlog()
    yield f"http://{HOST}:{listener.getsockname()[1]}"
    for each in (listener, *fillers):
        each.close()


def test_connecting_takes_no_longer_than_its_limit(transport, unreachable):
    """P-125."""
    took, error = elapsed(lambda: failure(transport, unreachable, connect_timeout=0.15, idle_timeout=5))

    assert (error.kind, error.connecting) == ("timeout", True)
    assert 0.15 <= took < 1


def test_the_limit_holds_for_all_addresses_together(transport, unreachable, monkeypatch):
    """P-125: a name with many dead addresses takes no longer."""
    port = int(unreachable.rpartition(":")[2])
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [entry] * 4)
    took, error = elapsed(lambda: failure(transport, unreachable, connect_timeout=0.2, idle_timeout=5))

    assert error.connecting
    assert 0.15 <= took < 0.8


def test_a_dead_address_does_not_keep_from_the_next(transport, unreachable, monkeypatch):
    with FakeServer(script=["x"]) as server:
        dead = ("127.0.0.1", int(unreachable.rpartition(":")[2]))
        live = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (dead, live)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: entries)

        took, body = elapsed(lambda: whole(transport, post(server.url), connect_timeout=0.6, idle_timeout=5))

    assert body
    assert took < 0.55


def test_the_tls_handshake_counts_as_connecting(transport):
    """P-125."""
    with raw_server(lambda sock: sock.recv(1 << 20) and threading.Event().wait(0.5)) as port:
        took, error = elapsed(
            lambda: failure(transport, f"https://{HOST}:{port}", connect_timeout=0.15, idle_timeout=5)
        )

    assert (error.kind, error.connecting) == ("timeout", True)
    assert 0.15 <= took < 1


def test_a_dripping_handshake_is_bounded_too(transport):
    """P-125: the limit is for all of it, not for each byte."""

    def drip(sock):
        sock.recv(1 << 16)
        sock.sendall(b"\x16\x03\x03\x40\x00")
        for _ in range(100):
            sock.sendall(b"\x00")
            threading.Event().wait(0.02)

    with raw_server(drip) as port:
        took, error = elapsed(
            lambda: failure(transport, f"https://{HOST}:{port}", connect_timeout=0.2, idle_timeout=5)
        )

    assert error.connecting
    assert took < 1


@pytest.mark.parametrize(("first", "again"), [(b"", b"H"), (b"HTTP/1.1 200 OK\r\n", b"x: 1\r\n")])
def test_a_proxy_that_drips_its_consent_is_bounded_too(transport, monkeypatch, first, again):
    """P-125: the tunnel is part of connecting, and the limit is for all of it."""

    def drip(sock):
        read_request(sock)
        sock.sendall(first)
        for _ in range(100):
            sock.sendall(again)
            threading.Event().wait(0.02)

    with raw_server(drip) as port:
        monkeypatch.setenv("https_proxy", f"http://{HOST}:{port}")
        monkeypatch.setenv("no_proxy", "")
        took, error = elapsed(
            lambda: failure(transport, "https://provider.invalid", connect_timeout=0.2, idle_timeout=5)
        )

    assert (error.kind, error.connecting) == ("timeout", True)
    assert 0.2 <= took < 1


@pytest.mark.parametrize("reused", [False, True])
def test_sending_is_bounded_by_the_idle_timeout_alone(transport, reused):
    """P-126: a large request may take longer than connecting may, on a fresh connection and on a used one."""
    release = threading.Event()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    def slowly(sock):
        if reused:
            read_request(sock)
            sock.sendall(answer)
        release.wait(5)
        data = read_request(sock)
        missing = int(data.split(b"Content-Length: ")[1].split(b"\r\n")[0]) - len(
            data.partition(b"\r\n\r\n")[2]
        )
        while missing > 0:
            missing -= len(sock.recv(1 << 20))
        sock.sendall(answer)

    with raw_server(slowly) as port:
        url = f"http://{HOST}:{port}/"
        if reused:
            assert whole(transport, requests.Request("POST", url).prepare()) == b"ok"
        timer = threading.Timer(0.3, release.set)
        timer.start()
        large = requests.Request("POST", url, data=b"x" * 20_000_000).prepare()

        assert whole(transport, large, connect_timeout=0.1, idle_timeout=5) == b"ok"
        timer.join()


@pytest.mark.parametrize("limit", [math.inf, 1e300, 10**12, 10**8, 2_147_484, 10**6])
def test_limits_without_end(transport, limit):
    """P-125: any number above 0, also one that the system's own waits do not take."""
    with FakeServer(script=["x"]) as server:
        assert whole(transport, post(server.url), connect_timeout=limit, idle_timeout=limit)


# --- cutting --------------------------------------------------------------------------------------------


def until_it_waits(thread):
    """Return once a thread has been seen at one and the same instruction often enough to be blocked there."""
    deadline = time.monotonic() + 5
    seen, times = None, 0
    while times < 10 and time.monotonic() < deadline:
        frame = sys._current_frames().get(thread.ident)
        now = frame and (frame.f_code, frame.f_lasti)
        seen, times = now, times + 1 if now == seen else 0
        time.sleep(0.0005)


def cut_while(transport, request, blocked, *, read=0):
    """Interrupt a request from this thread once `blocked` says it waits; how it ended, and how soon."""
    outcome: queue.SimpleQueue = queue.SimpleQueue()
    began: queue.SimpleQueue = queue.SimpleQueue()

    def run():
        try:
            with Scope() as scope:
                began.put(scope)
                answer = transport.send(request, **LONG)
                for _ in range(read):
                    answer.read()
                began.put("reading")
                outcome.put(answer.read_all())
        except BaseException as error:
            outcome.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    scope = began.get(timeout=5)
    if read:
        assert began.get(timeout=5) == "reading"
    blocked()
    until_it_waits(thread)
    cut = time.monotonic()
    scope.interrupt()
    result = outcome.get(timeout=5)
    took = time.monotonic() - cut
    thread.join(5)
    assert isinstance(result, Interrupted), result
    assert took < 0.5
    return took


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_cut_in_the_body(secured, framing):
    """B-95, B-96, B-97, P-127: in a body that ends with the connection a cut looks like a clean end."""
    transport, tls = secured
    reply = Reply("a b c", fault="stall", after=1, framing=framing)
    with FakeServer(script=[reply], **tls) as server:
        cut_while(transport, post(server.url), lambda: None, read=1)

        assert server.requests[0].wait_disconnected()


def test_cut_in_the_body_of_a_closing_connection(secured):
    """B-96: the connection object has gone, the answer is still being read."""
    transport, tls = secured
    reply = Reply("a b c", fault="stall", after=1, keep_alive=False)
    with FakeServer(script=[reply], **tls) as server:
        cut_while(transport, post(server.url), lambda: None, read=1)

        assert server.requests[0].wait_disconnected()


def test_cut_before_the_headers(secured):
    """B-95."""
    transport, tls = secured
    with FakeServer(script=[Reply(fault="stall", after=-1)], **tls) as server:
        cut_while(transport, post(server.url), server.wait_for_requests)

        assert server.requests[0].wait_disconnected()


def test_cut_in_connecting(transport, unreachable):
    """B-95."""
    cut_while(transport, post(unreachable), lambda: None)


def test_cut_in_the_tls_handshake(transport):
    """B-95."""
    arrived = threading.Event()

    def wait(sock):
        sock.recv(1 << 16)
        arrived.set()
        sock.recv(1)

    with raw_server(wait) as port:
        cut_while(transport, post(f"https://{HOST}:{port}"), lambda: arrived.wait(5))


def test_cut_in_sending(transport):
    """B-95."""
    arrived = threading.Event()

    def never(sock):
        sock.recv(10)
        arrived.set()
        threading.Event().wait(0.5)

    with raw_server(never) as port:
        request = requests.Request("POST", f"http://{HOST}:{port}/", data=b"x" * 30_000_000).prepare()
        cut_while(transport, request, lambda: arrived.wait(5))


def test_a_request_in_a_scope_that_was_interrupted_sends_nothing(secured):
    """B-97."""
    transport, tls = secured
    with FakeServer(default="x", **tls) as server:
        whole(transport, post(server.url))
        with Scope() as scope:
            scope.interrupt()
            with pytest.raises(Interrupted):
                transport.send(post(server.url), **LONG)

        assert len(server.requests) == 1


def test_an_interrupt_during_name_resolution_sends_nothing(transport, monkeypatch):
    """B-99, P-127: the resolver cannot be woken, but what comes after it is not begun."""
    with FakeServer(default="x") as server, Scope() as scope:
        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a: (scope.interrupt(), real(*a))[1])
        with pytest.raises(Interrupted):
            transport.send(post(server.url), **LONG)

        assert server.connections == 0


def test_an_interrupt_between_two_steps_of_connecting_is_not_lost(transport, monkeypatch, unreachable):
    """B-95: nothing is connected yet when it comes, and shutting that down wakes nobody."""
    with Scope() as scope:
        real = socket.socket.setblocking

        def interrupt_first(self, flag):
            scope.interrupt()
            real(self, flag)

        monkeypatch.setattr(socket.socket, "setblocking", interrupt_first)
        began = time.monotonic()
        with pytest.raises(Interrupted):
            transport.send(post(unreachable), **LONG)

    assert time.monotonic() - began < 0.5


def test_after_an_interrupt_nothing_read_is_handed_out(secured):
    """B-97: not even what had arrived before."""
    transport, tls = secured
    with FakeServer(script=["a b c"], **tls) as server, Scope() as scope:
        answer = transport.send(post(server.url), **LONG)
        scope.interrupt()

        with pytest.raises(Interrupted):
            answer.read()
        assert answer.read() == b""


def test_a_cut_connection_is_never_reused(secured):
    """B-98."""
    transport, tls = secured
    with FakeServer(script=[Reply("a b", fault="stall", after=1), "c"], **tls) as server:
        with Scope() as scope:
            answer = transport.send(post(server.url), **LONG)
            answer.read()
            scope.interrupt()
            with pytest.raises(Interrupted):
                answer.read()
        assert whole(transport, post(server.url))

        assert [request.connection for request in server.requests] == [1, 2]


@pytest.mark.parametrize("reply", [Reply("a b", fault="drop", after=1), Reply("a b", fault="stall", after=1)])
def test_a_failed_connection_is_never_reused(transport, reply):
    """B-98, P-127."""
    with FakeServer(script=[reply, "c"]) as server:
        failure(transport, server.url, connect_timeout=1, idle_timeout=0.05)
        assert whole(transport, post(server.url))

        assert [request.connection for request in server.requests] == [1, 2]


def test_an_answer_that_is_given_up_is_closed(secured):
    """P-127."""
    transport, tls = secured
    with FakeServer(script=[Reply("a b", fault="stall", after=1)], **tls) as server:
        with Scope():
            answer = transport.send(post(server.url), **LONG)
            answer.read()
            answer.abort()
            answer.abort()

            assert server.requests[0].wait_disconnected()


def test_an_interrupt_after_the_answer_does_not_reach_the_pooled_connection(secured):
    """B-95: it is detached before it goes back."""
    transport, tls = secured
    with FakeServer(default=Reply(body="ok", framing="length"), **tls) as server:
        with Scope() as scope:
            transport.send(post(server.url), **LONG).read_all()
            scope.interrupt()
        assert whole(transport, post(server.url)) == b"ok"

        assert server.connections == 1


def test_an_interrupt_between_the_end_of_the_answer_and_the_pool_closes_the_connection(secured):
    """B-98: it was cut, and nobody may have it."""
    transport, tls = secured
    with FakeServer(default=Reply(body="ok", framing="length"), **tls) as server, Scope() as scope:
        answer = transport.send(post(server.url), **LONG)
        pool, put = answer._raw._pool, answer._raw.release_conn
        answer._raw.release_conn = lambda: (scope.interrupt(), put())
        assert answer.read_all() == b"ok"

        pooled = [each for each in pool.pool.queue if each is not None]
        assert all(each.is_closed for each in pooled)
        server.wait_for_connections(0)


@pytest.mark.race
def test_late_interrupts_hurt_no_reused_connection(secured):
    """B-95: 300 interrupts that come when the answer has just been read."""
    transport, tls = secured
    jobs: queue.SimpleQueue = queue.SimpleQueue()

    def interrupt_all():
        while (scope := jobs.get()) is not None:
            scope.interrupt()

    interrupter = threading.Thread(target=interrupt_all)
    interrupter.start()
    late = 0
    with FakeServer(default=Reply(body="ok", framing="length"), **tls) as server:
        for _ in range(300):
            with Scope() as scope:
                answer = transport.send(post(server.url), **LONG)
                try:
                    assert answer.read() == b"ok"
                    jobs.put(scope)
                    assert answer.read() == b""
                    late += 1
                except Interrupted:
                    continue  # it was not late
            # While the late interrupt runs, this thread uses the same connection.
            assert whole(transport, post(server.url)) == b"ok"
        jobs.put(None)
        interrupter.join(5)
        assert late > 0


@pytest.mark.race
def test_interrupts_at_any_moment_free_the_reader(transport):
    """B-95: whatever the request is doing just then."""
    with FakeServer(default=Reply("a b c d e f", chunk_delay=0.001)) as server:
        for step in range(60):
            with Scope() as scope:
                timer = threading.Timer(step / 6000, scope.interrupt)
                timer.start()
                try:
                    transport.send(post(server.url), **LONG).read_all()
                except Interrupted:
                    pass
                timer.join()
        assert whole(transport, post(server.url))


@pytest.mark.logs_errors("a process that was killed is reported")
@pytest.mark.parametrize("reason", ["shutdown", "kill"])
def test_an_exit_ends_a_process_that_waits_for_bytes(transport, reason):
    """B-22, B-75: reading is a checkpoint, and raises `Exit`."""
    ends = queue.SimpleQueue()

    def work(url):
        try:
            with Scope():
                transport.send(post(url), **LONG).read_all()
        except BaseException as error:
            ends.put(error)
            raise

    with FakeServer(script=[Reply("a b", fault="stall", after=1)]) as server:
        pid = beam.spawn(work, server.url)
        (request,) = server.wait_for_requests()
        beam.exit(pid, reason)

        assert request.wait_disconnected(1)
        error = ends.get(timeout=5)
        assert isinstance(error, beam.Exit)


# --- the pool -------------------------------------------------------------------------------------------


def test_an_answer_read_to_its_end_gives_its_connection_back(secured):
    """P-127."""
    transport, tls = secured
    replies = [
        Reply("x", framing="chunked"),
        Reply("x", framing="length"),
        Reply(status=500),
        Reply("x", gzip=True),
    ]
    with FakeServer(script=[*replies, "last"], **tls) as server:
        for _ in range(5):
            whole(transport, post(server.url))

        assert server.connections == 1


def _leaves_after_a_stream(sock):
    """llama.cpp at its slowest: it takes the next request of a connection that it has given up."""
    read_request(sock)
    body = b"2\r\nok\r\n0\r\n\r\n"
    head = (
        b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    sock.sendall(head + body)
    read_request(sock)
    sock.close()


def test_a_connection_that_its_server_is_about_to_leave_is_not_used_again(transport):
    """P-127, P-130: the call after a stream of llama.cpp's does not fail first."""
    with raw_server(_leaves_after_a_stream, connections=5) as port:
        for _ in range(5):
            assert whole(transport, post(f"http://{HOST}:{port}")) == b"ok"


def test_a_whole_answer_of_the_same_server_gives_its_connection_back(transport):
    reply = Reply(body="ok", framing="length", headers={"server": "llama.cpp"})
    with FakeServer(default=reply) as server:
        for _ in range(3):
            whole(transport, post(server.url))
        assert server.connections == 1


@pytest.mark.parametrize("interim", [100, 102, 103, 199])
def test_an_interim_answer_is_not_the_answer(transport, interim):
    """P-101, P-1: nor is the answer behind it left on a pooled connection, for the next caller to read."""
    asked = itertools.count(1)

    def serve(sock):
        while read_request(sock):
            body = b"answer %d" % next(asked)
            sock.sendall(b"HTTP/1.1 %d Wait\r\nlink: </a>\r\n\r\n" % interim * 2)
            # The client must be seen to wait on: a moment without bytes follows what it must not stop at.
            threading.Event().wait(0.05)
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    with raw_server(serve) as port:
        url = f"http://{HOST}:{port}"
        assert [whole(transport, post(url)) for _ in range(2)] == [b"answer 1", b"answer 2"]


def test_a_peer_that_changes_the_protocol_is_not_spoken_to_again(transport):
    """P-101, P-127."""

    def serve(sock):
        read_request(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: other\r\n\r\n")
        hung_up.put(sock.recv(1))

    hung_up: queue.SimpleQueue = queue.SimpleQueue()
    with raw_server(serve) as port, Scope():
        reply = transport.send(post(f"http://{HOST}:{port}"), **LONG)
        assert reply.status == 101
        assert reply.read_all() == b""
        assert hung_up.get(timeout=5) == b""


def test_drain_gives_a_connection_back_if_the_end_is_next(secured):
    transport, tls = secured
    with FakeServer(script=[Reply("x"), "y"], **tls) as server:
        with Scope():
            answer = transport.send(post(server.url), **LONG)
            while b"[DONE]" not in answer.read():
                pass
            answer.drain()
        whole(transport, post(server.url))

        assert server.connections == 1


@pytest.mark.parametrize("reply", [Reply("x", fault="stall", after=99), Reply("x", fault="drop", after=99)])
def test_drain_does_not_wait_for_an_end_that_does_not_come(transport, reply):
    with FakeServer(script=[reply]) as server:
        with Scope():
            answer = transport.send(post(server.url), **LONG)
            while b"[DONE]" not in answer.read():
                pass
            took, _ = elapsed(answer.drain)

            assert took < 0.5
            assert server.requests[0].wait_disconnected()


def test_drain_sets_no_timer_if_the_end_has_arrived(transport, monkeypatch):
    """An end that is there already costs no other thread a wake-up."""
    armed = []
    monkeypatch.setattr(_http, "send_after", lambda *args: armed.append(args))

    def serve(sock):
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
        sock.recv(1)

    with raw_server(serve) as port, Scope():
        answer = transport.send(post(f"http://{HOST}:{port}"), **LONG)
        assert answer.read() == b"x"
        answer.drain()
        transport.close()
    assert armed == []


def test_what_looks_like_the_end_within_a_chunk_is_not_the_end(transport):
    """Bytes of the body that read like its end let nobody wait for the rest of it."""
    first = b"x" * (32 * 1024)
    looks = b"\r\n0\r\n\r\n"
    hung_up: queue.SimpleQueue = queue.SimpleQueue()

    def serve(sock):
        read_request(sock)
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        sock.sendall(head + b"%x\r\n" % (len(first) + 1000) + first + looks)
        hung_up.put(until_closed(sock))

    def until_closed(sock):
        try:
            while True:
                sock.sendall(b"y")
                if select.select([sock], [], [], 0.01)[0]:
                    return sock.recv(1)
        except OSError:
            return b""

    with raw_server(serve) as port, Scope():
        answer = transport.send(post(f"http://{HOST}:{port}"), **LONG)
        got = b""
        while len(got) < len(first):
            got += answer.read()
        took, _ = elapsed(answer.drain)
        assert took < 2
        assert hung_up.get(timeout=10) == b""


def test_no_call_waits_for_another(transport):
    """P-1."""
    with FakeServer(default=Reply("x", fault="stall", after=1)) as server:
        scopes = [Scope() for _ in range(150)]
        answers = []
        for scope in scopes:
            with scope:
                pass
            answers.append(transport.send(post(server.url), **LONG))
        assert server.connections == 150
        for answer in answers:
            answer.abort()


def test_surplus_connections_are_closed_without_a_word(transport, caplog, monkeypatch):
    """P-1: neither a warning nor a socket that stays."""
    caplog.set_level(logging.WARNING)
    with FakeServer(default=Reply(body="x", framing="length")) as server:
        with Scope():
            answers = [transport.send(post(server.url), **LONG) for _ in range(140)]
            for answer in answers:
                answer.read_all()
        server.wait_for_connections(128)

        assert server.open_connections == 128
        assert caplog.text == ""


def test_close_closes_idle_connections(secured):
    """P-1."""
    transport, tls = secured
    with FakeServer(default="x", **tls) as server:
        whole(transport, post(server.url))
        assert server.open_connections == 1
        transport.close()
        transport.close()

        server.wait_for_connections(0)


def test_a_connection_that_comes_back_to_a_closed_pool_is_closed(transport):
    with FakeServer(default=Reply(body="x", framing="length")) as server, Scope():
        answer = transport.send(post(server.url), **LONG)
        transport.close()
        answer.read_all()

        server.wait_for_connections(0)


def test_a_connection_that_comes_back_while_the_pool_is_being_closed_is_closed(transport):
    # 1. The answer has been read, and the pool is open.
    # 2. The pool is closed and everything in it with it.
    # 3. Only now does the connection get into the pool's queue.
    with FakeServer(default=Reply(body="x", framing="length")) as server, Scope():
        answer = transport.send(post(server.url), **LONG)
        store = answer._raw._pool.pool
        put = store.put
        store.put = lambda *args, **kwargs: (transport.close(), put(*args, **kwargs))
        answer.read_all()

        server.wait_for_connections(0)


@linux
def test_descriptors_stay_constant(secured):
    """B-96."""
    transport, tls = secured
    replies = [
        Reply("x"), Reply("x", keep_alive=False), Reply("x", framing="close"), Reply("x", fault="drop", after=1),
        Reply("x", fault="stall", after=1), Reply(fault="drop", after=-1), Reply("x", gzip=True), Reply(status=500),
    ]  # fmt: skip
    with FakeServer(script=replies * 41, **tls) as server:

        def go():
            for number in range(len(replies)):
                with Scope() as scope:
                    try:
                        answer = transport.send(post(server.url), **LONG)
                        answer.read()
                        if number == 4:
                            scope.interrupt()
                        answer.read_all()
                    except (TransportError, Interrupted):
                        pass

        go()
        server.wait_for_connections(1)
        gc.collect()
        before = descriptors()
        for _ in range(40):
            go()
        server.wait_for_connections(1)

        assert descriptors() <= before + 4


# --- secrets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [Reply("x"), Reply(status=401), Reply(fault="drop", after=-1)])
def test_the_librarys_debug_log_shows_no_header(transport, caplog, reply):
    """P-142."""
    caplog.set_level(logging.DEBUG)
    with FakeServer(script=[reply]) as server:
        with contextlib.suppress(TransportError):
            whole(transport, post(server.url, authorization="Bearer canary-1234567"))

    assert "canary" not in caplog.text
