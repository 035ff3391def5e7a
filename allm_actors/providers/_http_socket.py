"""Connections that can be cut from another thread.

A connection makes its socket itself and keeps a duplicate of the descriptor from before it connects. While it
serves a request the duplicate is attached to the `Scope` of that request, and only then: shutting it down
wakes whoever is blocked in connecting, in the TLS handshake, in sending or in reading, and cannot reach the
next user of a pooled connection.

Promises:
    - The connect timeout bounds TCP, a proxy's tunnel and TLS together, however many addresses a host has and
      however slowly the bytes come.
    - Sending and waiting for the answer are bounded by the read timeout only.
    - What is read as an answer is the final one. An interim one (`103 Early Hints`, say) is never taken for
      it, or the final one would be left behind for the next request on the same connection.
    - Every duplicate is closed in the end.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import urllib3.connection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util import wait_for_write
from urllib3.util.connection import allowed_gai_family

from allm_actors.beam.interrupt import Scope

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

_LEAST_TIMEOUT = 0.001
_BUFFER = 64 * 1024
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)


class _Answer(http.client.HTTPResponse):
    """An answer without the interim ones before it, of which the library skips `100 Continue` only."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # not in the stubs
            if not 100 <= line[1] < 200 or line[1] == http.HTTPStatus.SWITCHING_PROTOCOLS:  # noqa: PLR2004
                return line
            http.client.parse_headers(self.fp)

    def begin(self) -> None:
        """Read status and headers. A peer that changes to another protocol is not spoken to again."""
        super().begin()
        if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.will_close = True


class _Roomy:
    """A socket whose answers are read into a buffer of more than the usual 8 KiB.

    A thread that asks the system for bytes lets others run, and comes back to cold caches.
    """

    __slots__ = ("_sock",)

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> Any:
        """Open what the answer is read from."""
        return self._sock.makefile(mode, _BUFFER)


class _Hurried(io.RawIOBase):
    """What a socket receives, while there is time left."""

    def __init__(self, sock: socket.socket, left: Callable[[], float | None]) -> None:
        self._sock, self._left = sock, left

    def makefile(self, _mode: str, _buffering: int) -> io.BufferedReader:
        """Stand in for the socket where an answer is read."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive what is there."""
        self._sock.settimeout(self._left())
        return self._sock.recv_into(buffer)


class Cuttable(urllib3.connection.HTTPConnection):
    """The part that plain and TLS connections share."""

    idle_timeout: float | None = None
    """How long the peer may stay silent, and how long sending may take; `None` is no limit."""
    body: http.client.HTTPResponse | None = None
    """The answer that is being read, before anything is decoded."""
    _tunnelling = False
    _duplicate: socket.socket | None = None
    _scope: Scope | None = None
    _deadline: float | None = None

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:  # type: ignore[override]
        """Make the object that reads an answer, and remember it."""
        if self._tunnelling:
            sock = _Hurried(sock, self._left)
        source: Any = _Roomy(sock)  # of a socket nothing but this is asked for
        self.body = _Answer(source, *args, **kwargs)
        return self.body

    # --- connecting -----------------------------------------------------------------------------------

    def connect(self) -> None:
        """Establish TCP and TLS within the connect timeout."""
        try:
            super().connect()
        except TimeoutError:
            timed_out = True
        else:
            timed_out = False
        if timed_out:
            raise ConnectTimeoutError(self, "connect timeout")
        self.sock.settimeout(self.idle_timeout)

    def _new_conn(self) -> socket.socket:
        scope = Scope.current()
        if scope is not None:
            scope.check()
        addresses = self._resolve()  # cannot be interrupted; what follows sees it if it was
        timeout: float | None = self.timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        error: OSError = OSError("the host name has no address")
        for index, (family, kind, protocol, _, address) in enumerate(addresses):
            sock = socket.socket(family, kind, protocol)
            try:
                self._reach(sock, address, self._share(len(addresses) - index), scope)
            except OSError as failure:
                error = failure
                sock.close()
                self._let_go(kept=False)
            except BaseException:
                sock.close()
                self._let_go(kept=False)
                raise
            else:
                sock.settimeout(self._share(1))
                return sock
        if isinstance(error, TimeoutError):
            raise error
        raise NewConnectionError(self, "cannot connect") from error

    def _resolve(self) -> list[Any]:
        host = self._dns_host.strip("[]")
        try:
            return socket.getaddrinfo(host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError:
            raise LocationParseError("the host name is not a legal one") from None

    def _share(self, attempts: int) -> float | None:
        """The time left for each of so many attempts."""
        if self._deadline is None:
            return None
        return max(_LEAST_TIMEOUT, (self._deadline - time.monotonic()) / attempts)

    def _reach(self, sock: socket.socket, address: Any, timeout: float | None, scope: Scope | None) -> None:
        for option in self.socket_options or ():
            sock.setsockopt(*option)
        if self.source_address:
            sock.bind(self.source_address)
        sock.setblocking(False)
        self._hold(sock, scope)
        if scope is None:
            code = sock.connect_ex(address)
        else:
            # The first step under the scope's lock: an interrupt either comes before it and is seen here, or
            # finds a socket that is connecting, which a shutdown ends.
            with scope.uncut():
                code = sock.connect_ex(address)
        if code not in _UNDER_WAY:
            raise OSError(code, os.strerror(code))  # no route, say: a socket that never began looks connected
        if not wait_for_write(sock, timeout=timeout):
            raise TimeoutError
        if scope is not None:
            scope.check()
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def _hold(self, sock: socket.socket, scope: Scope | None) -> None:
        """Keep a duplicate of a new connection's descriptor, attached to the scope.

        Raises:
            Interrupted: The scope was interrupted.
        """
        self._duplicate = sock.dup()
        if scope is not None:
            scope.attach(self._duplicate)
            self._scope = scope

    def _left(self) -> float | None:
        """The time left for connecting.

        Raises:
            TimeoutError: None.
        """
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise TimeoutError
        return self._share(1)

    def _tunnel(self) -> None:
        self._tunnelling = True
        try:
            super()._tunnel()
        finally:
            self._tunnelling = False
        self.sock.settimeout(self._left())  # for the TLS handshake that follows

    # --- serving a request ----------------------------------------------------------------------------

    def request(  # type: ignore[override]
        self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        """Send a request, attached to the current scope."""
        scope = Scope.current()
        if scope is not None and scope is not self._scope:
            if self._duplicate is not None:
                scope.attach(self._duplicate)
                self._scope = scope
            else:
                scope.check()
        if self.sock is not None:
            self.timeout = self.idle_timeout
        super().request(method, url, body, headers, **kwargs)

    def detach(self) -> bool:
        """Leave the scope, before going back to the pool. False if the connection was cut in it."""
        scope, self._scope = self._scope, None
        if scope is None or self._duplicate is None:
            return True
        return scope.detach(self._duplicate)

    def close(self) -> None:
        """Close the connection. An answer still being read goes on, and its scope can still cut it."""
        try:
            super().close()
        finally:
            self._let_go(kept=True)

    def _let_go(self, *, kept: bool) -> None:
        duplicate, self._duplicate = self._duplicate, None
        scope, self._scope = self._scope, None
        if duplicate is None:
            return
        if scope is not None and kept:
            scope.adopt(duplicate)
            return
        if scope is not None:
            scope.detach(duplicate)
        duplicate.close()


class PlainConnection(Cuttable):
    """A connection without TLS."""


class TlsConnection(  # pyright: ignore[reportIncompatibleVariableOverride]
    Cuttable, urllib3.connection.HTTPSConnection
):
    """A connection with TLS."""

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> ssl.SSLSocket:
        """Trust a proxy's certificate for the same reasons as that of the host behind it."""
        assert self.proxy_config is not None
        self.proxy_config = self.proxy_config._replace(ssl_context=self.ssl_context)
        return super()._connect_tls_proxy(hostname, sock)
