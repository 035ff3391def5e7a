"""Connections that can be cut from another thread, the pools they live in, and the adapter to mount.

A connection makes its socket itself and keeps a duplicate of the descriptor from before it connects. While it
serves a request the duplicate is attached to the `Scope` of that request, and only then: shutting it down
wakes whoever is blocked in connecting, in the TLS handshake, in sending or in reading, and cannot reach the
next user of a pooled connection.

Promises:
    - The connect timeout bounds TCP and TLS together, however many addresses a host has.
    - Sending and waiting for the answer are bounded by the read timeout only.
    - A pool never makes a caller wait, and closes what it has no room for without a word.
    - A connection that was cut is closed and never pooled. Every duplicate is closed in the end.
    - One TLS context serves all connections with the same trust.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import requests.adapters
import requests.utils
import urllib3
import urllib3.connection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util import create_urllib3_context, wait_for_write
from urllib3.util.connection import allowed_gai_family

from allm_actors.beam.interrupt import Scope

if TYPE_CHECKING:
    from collections.abc import Mapping

_IDLE_PER_HOST = 128
_LEAST_TIMEOUT = 0.001


class _Cuttable(urllib3.connection.HTTPConnection):
    """The part that plain and TLS connections share."""

    idle_timeout: float | None = None
    """How long the peer may stay silent, and how long sending may take; `None` is no limit."""
    body: http.client.HTTPResponse | None = None
    """The answer that is being read, before anything is decoded."""
    _duplicate: socket.socket | None = None
    _scope: Scope | None = None
    _deadline: float | None = None

    def response_class(self, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:  # type: ignore[override]
        """Make the object that reads an answer, and remember it."""
        self.body = http.client.HTTPResponse(*args, **kwargs)
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
        self._duplicate = sock.dup()
        sock.setblocking(False)
        if scope is None:
            sock.connect_ex(address)
        else:
            scope.attach(self._duplicate)
            self._scope = scope
            # The first step under the scope's lock: an interrupt either comes before it and is seen here, or
            # finds a socket that is connecting, which a shutdown ends.
            with scope.uncut():
                sock.connect_ex(address)
        if not wait_for_write(sock, timeout=timeout):
            raise TimeoutError
        if scope is not None:
            scope.check()
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def _tunnel(self) -> None:
        super()._tunnel()
        self.sock.settimeout(self._share(1))  # for the TLS handshake that follows

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


class _PlainConnection(_Cuttable):
    pass


class _TlsConnection(  # pyright: ignore[reportIncompatibleVariableOverride]
    _Cuttable, urllib3.connection.HTTPSConnection
):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls: Any = _PlainConnection

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:
        conn.idle_timeout = kwargs["timeout"].read_timeout
        return super()._make_request(conn, *args, **kwargs)

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and not conn.detach():
            conn.close()
        pool = self.pool
        if pool is None:
            if conn is not None:
                conn.close()
            return
        try:
            pool.put(conn, block=False)
        except queue.Full:
            if conn is not None:
                conn.close()
        if self.pool is None:  # closed meanwhile: nobody will look into it again
            with contextlib.suppress(queue.Empty):
                while True:
                    left = pool.get(block=False)
                    if left is not None:
                        left.close()


class _TlsPool(_Pool, urllib3.HTTPSConnectionPool):
    ConnectionCls: Any = _TlsConnection

    def _validate_conn(self, conn: Any) -> None:
        # Without the warning about `verify=False`: that was somebody's explicit choice.
        if conn.is_closed:
            conn.connect()


_POOLS = {"http": _Pool, "https": _TlsPool}


class CuttableAdapter(requests.adapters.HTTPAdapter):
    """A `requests` transport adapter whose requests end when their `Scope` is interrupted."""

    def __init__(self) -> None:
        self._contexts: dict[bool | str, ssl.SSLContext] = {}
        self._contexts_lock = threading.Lock()
        super().__init__(pool_maxsize=_IDLE_PER_HOST, max_retries=0, pool_block=False)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools' manager."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Make, or find, the manager of the pools behind one proxy. A SOCKS proxy keeps its own pools."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def close(self) -> None:
        """Close every pool and the idle connections in it; the library leaves that to the collector."""
        managers: list[Any] = [self.poolmanager, *self.proxy_manager.values()]
        for manager in managers:
            for key in manager.pools.keys():  # noqa: SIM118  no plain dict: it refuses to be iterated
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """Put the shared TLS context in the place of certificates that each connection loads anew."""
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        context: dict[str, Any] = {}
        if host["scheme"] == "https":
            context = {"ssl_context": self._context(verify), "cert_reqs": tls["cert_reqs"]}
        return host, context

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Do nothing: the context has it all."""

    def _context(self, verify: Any) -> ssl.SSLContext:
        with self._contexts_lock:
            context = self._contexts.get(verify)
            if context is None:
                required = verify is not False
                context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if required else ssl.CERT_NONE)
                if required:
                    where = verify if isinstance(verify, str) else _default_bundle()
                    kind = "capath" if os.path.isdir(where) else "cafile"  # noqa: PTH112
                    context.load_verify_locations(**{kind: where})
                self._contexts[verify] = context
            return context


def _default_bundle() -> str:
    utils: Any = requests.utils
    return str(utils.extract_zipped_paths(utils.DEFAULT_CA_BUNDLE_PATH))
