"""The pools that connections live in, and the adapter to mount.

Promises:
    - A pool never makes a caller wait, and closes what it has no room for without a word.
    - A connection that was cut is closed and never pooled.
    - One TLS context serves all connections with the same trust.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import ssl
import threading
from typing import Any

import requests.adapters
import requests.utils
import urllib3
from urllib3.util import create_urllib3_context

from allm_actors.providers._http_socket import PlainConnection, TlsConnection

_IDLE_PER_HOST = 128


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls: Any = PlainConnection

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
    ConnectionCls: Any = TlsConnection

    def _validate_conn(self, conn: Any) -> None:
        # Without the warning about `verify=False`: that was somebody's explicit choice.
        if conn.is_closed:
            conn.connect()


_POOLS = {"http": _Pool, "https": _TlsPool}


@functools.cache
def _socks_pools() -> dict[str, Any]:
    # Not at the top: it needs a package that only users of such proxies have.
    from allm_actors.providers._http_socks import PlainSocksConnection, TlsSocksConnection

    class Plain(_Pool):
        ConnectionCls: Any = PlainSocksConnection

    class Tls(_TlsPool):
        ConnectionCls: Any = TlsSocksConnection

    return {"http": Plain, "https": Tls}


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
        """Make, or find, the manager of the pools behind one proxy."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        socks = proxy.lower().startswith("socks")
        manager.pool_classes_by_scheme = _socks_pools() if socks else _POOLS
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

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ARG002
        """Do nothing: the context has it all. Only a TLS proxy of plain URLs has not been given one."""
        if isinstance(conn, _TlsPool):
            conn.conn_kw.setdefault("ssl_context", self._context(verify))

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
