"""What the transport tests share: requests to send, certificates, odd servers."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from pathlib import Path

import requests
import trustme

HOST = "127.0.0.1"


def post(url, *, stream=True, **headers):
    """A request as the connection prepares it."""
    return requests.Request(
        "POST", f"{url}/v1/chat/completions", json={"model": "m", "stream": stream}, headers=headers
    ).prepare()


class Certificates:
    """An authority, the context of a server it vouches for, and the file to trust it by."""

    def __init__(self, folder, *names):
        self.authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names, HOST, "localhost").configure_cert(self.server)
        self.bundle = str(folder / "authority.pem")
        self.authority.cert_pem.write_to_path(self.bundle)


@contextlib.contextmanager
def raw_server(serve, *, connections=1, backlog=16):
    """A server whose behaviour is a function of the accepted socket; yields its port."""
    listener = socket.create_server((HOST, 0), backlog=backlog)
    threads, sockets = [], []

    def accept():
        for _ in range(connections):
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sockets.append(sock)
            thread = threading.Thread(target=_quietly, args=(serve, sock), daemon=True)
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        for sock in sockets:
            sock.close()


def _quietly(serve, sock):
    with contextlib.suppress(OSError):
        serve(sock)


def read_request(sock):
    """Read the head and body of one request."""
    data = b""
    missing = 1
    while missing > 0:
        part = sock.recv(65536)
        if not part:
            return data
        data += part
        head, end, body = data.partition(b"\r\n\r\n")
        if end:
            length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
            missing = (int(length[1]) if length else 0) - len(body)
    return data


def relay(one, two):
    """Pass bytes both ways until one side ends."""

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=pump, args=(two, one), daemon=True)
    thread.start()
    pump(one, two)
    thread.join(5)


def descriptors():
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
