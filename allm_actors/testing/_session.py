"""One connection of a `FakeServer`: reads requests, writes replies, notices when the client goes.

Whenever there is nothing to write it waits for three things at once: time, the end of the connection, and
being woken by `resume()` or by the server's end.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from allm_actors.testing._render import recut, render
from allm_actors.testing._requests import ReceivedRequest
from allm_actors.testing._wire import frame

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from allm_actors.testing._reply import Reply

_GONE: Final = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)
_PEEK_EVERY = 0.005
_COMMENT = b": keep-alive\n\n"
_RESET = struct.pack("ii", 1, 0)


class ClientGone(Exception):
    """The client has ended the connection."""


class ServerClosing(Exception):
    """The server is being closed."""


class _Broken(Exception):
    """The script says that this connection ends here."""


class Session:
    """Serves one connection in a thread of its own.

    Args:
        sock: The accepted socket, owned from here on.
        number: Its number, from 1.
        answer: Gives the reply to a request; it has recorded the request when it returns.
        tls: The context of a TLS server.
    """

    def __init__(
        self,
        sock: socket.socket,
        number: int,
        answer: Callable[[ReceivedRequest], Reply],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._raw = sock
        self._sock: socket.socket = sock
        self._number = number
        self._answer = answer
        self._tls = tls
        self._buffer = b""
        self._closing = False
        self._received: list[ReceivedRequest] = []
        self._waker, self._wakened = socket.socketpair()

    def close(self) -> None:
        """End the connection, from any thread; the serving thread ends at once."""
        self._closing = True
        self._wake()
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Serve requests until the connection ends."""
        watch = self._raw.dup()  # to look at while TLS owns the socket, and to end it by
        self._raw, sock = watch, self._raw
        self._sock = sock
        try:
            if self._tls is not None:
                self._sock = self._tls.wrap_socket(sock, server_side=True)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := self._next_request()) is not None:
                self._received.append(request)
                request._wake = self._wake  # noqa: SLF001
                if not self._reply(request, self._answer(request)):
                    self._linger()
                    break
        except (ClientGone, ServerClosing, _Broken, OSError, ValueError):
            pass
        finally:
            for request in self._received:
                request._wake = None  # noqa: SLF001
                if not self._closing:
                    request._disconnected()  # noqa: SLF001
            for each in (self._sock, sock, watch, self._waker, self._wakened):
                each.close()

    # --- reading --------------------------------------------------------------------------------------

    def _next_request(self) -> ReceivedRequest | None:
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            if not self._fill():
                return None
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return ReceivedRequest(method, target, headers, body, self._number)

    def _fill(self) -> bool:
        part = self._sock.recv(65536)
        self._buffer += part
        return bool(part)

    # --- writing --------------------------------------------------------------------------------------

    def _reply(self, request: ReceivedRequest, reply: Reply) -> bool:
        """Write one reply; false if the connection ends with it."""
        self._pause(reply.delay)
        if reply.fault is not None and reply.after < 0:
            self._fail(reply, b"", b"")
        pieces, kind = render(request, reply)
        body = b"".join(pieces)
        headers = {"content-type": kind, **{name.lower(): value for name, value in reply.headers.items()}}
        keep = reply.keep_alive and reply.framing != "close"
        if not keep:
            headers.setdefault("connection", "close")
        if reply.gzip:
            headers["content-encoding"] = "gzip"
            body = gzip.compress(body)
            pieces = [body]
        if reply.framing == "chunked":
            headers.setdefault("transfer-encoding", "chunked")
        elif reply.framing == "length":
            headers.setdefault("content-length", str(len(body)))
        reason = http.client.responses.get(reply.status, "Unknown")
        lines = [
            f"HTTP/1.1 {reply.status} {reason}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self._send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        self._send_body(request, reply, recut(pieces, reply.piece, reply.split_at))
        request.answered_at = time.monotonic()
        return keep

    def _send_body(self, request: ReceivedRequest, reply: Reply, pieces: list[bytes]) -> None:
        chunked = reply.framing == "chunked"
        ends_early = False
        for index, piece in enumerate(pieces):
            if index == reply.after and reply.fault is not None:
                ends_early = self._fail(reply, piece, frame('{"broken": '))
                if ends_early:
                    break
            if index and reply.chunk_delay:
                self._idle(reply.chunk_delay, reply)
            self._send(_chunk(piece) if chunked else piece)
            request.sent += len(piece)
        if reply.fault is not None and reply.after >= len(pieces) and not ends_early:
            self._fail(reply, b"", frame('{"broken": '))
        if chunked:
            self._send(b"0\r\n\r\n")
        elif ends_early and reply.framing == "length":
            raise _Broken

    def _fail(self, reply: Reply, piece: bytes, malformed: bytes) -> bool:
        """Do what the fault says; true if the body ends here."""
        if reply.fault == "stall":
            self._idle(None, reply)
        elif reply.fault == "drop":
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            raise _Broken
        elif reply.fault == "end":
            return True
        elif reply.fault == "truncate":
            part = _chunk(piece or b"data: cut off\n\n") if reply.framing == "chunked" else piece
            self._send(part[: len(part) // 2])
            raise _Broken
        elif reply.fault == "malformed":
            self._send(_chunk(malformed) if reply.framing == "chunked" else malformed)
        return False

    def _send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise ClientGone from error

    # --- waiting --------------------------------------------------------------------------------------

    def _idle(self, seconds: float | None, reply: Reply) -> None:
        """Wait in the middle of a body, with a comment now and then if the reply says so."""
        if reply.heartbeat is None:
            self._pause(seconds)
            return
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            left = reply.heartbeat if deadline is None else min(reply.heartbeat, deadline - time.monotonic())
            if self._pause(max(0, left)):
                return
            self._send(_chunk(_COMMENT) if reply.framing == "chunked" else _COMMENT)

    def _pause(self, seconds: float | None) -> bool:
        """Wait; true if woken by `resume`.

        Raises:
            ClientGone: The client ended the connection meanwhile.
            ServerClosing: The server is being closed.
        """
        if seconds == 0:
            return False
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            gone, woken = self._look(left)
            if self._closing:
                raise ServerClosing
            if woken:
                self._wakened.recv(64)
                return True
            if gone:
                raise ClientGone

    def _look(self, timeout: float | None) -> tuple[bool, bool]:
        """Whether the client has gone, and whether this connection was woken."""
        if getattr(select, "POLLRDHUP", 0):
            poll = select.poll()
            poll.register(self._raw, _GONE)
            poll.register(self._wakened, select.POLLIN)
            ready = dict(poll.poll(None if timeout is None else max(1, int(timeout * 1000))))
            return self._raw.fileno() in ready, self._wakened.fileno() in ready
        readable, _, _ = select.select([self._wakened], [], [], min(_PEEK_EVERY, timeout or _PEEK_EVERY))
        return self._peek_end(), bool(readable)

    def _peek_end(self) -> bool:
        readable, _, _ = select.select([self._raw], [], [], 0)
        if not readable:
            return False
        try:
            return not self._raw.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _linger(self) -> None:
        """Say that nothing more comes, and see the client go, so that its end is not mistaken for ours."""
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_WR)
        self._pause(1)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"!")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
