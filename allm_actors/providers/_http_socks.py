"""Connections through a SOCKS proxy, which `PySocks` makes if it is installed.

Promises:
    - Once the proxy has let a connection through, it can be cut like any other. Until then it ends by the
      connect timeout only.
    - The connect timeout bounds the TLS handshake together with what comes before it.
"""

from __future__ import annotations

import time
from typing import Any

from urllib3.contrib.socks import SOCKSConnection, SOCKSHTTPSConnection

from allm_actors.beam.interrupt import Scope
from allm_actors.providers._http_socket import Cuttable

__all__ = ["PlainSocksConnection", "TlsSocksConnection"]


class _Cuttable(Cuttable):
    def _new_conn(self) -> Any:
        scope = Scope.current()
        if scope is not None:
            scope.check()
        timeout: float | None = self.timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        plain: Any = SOCKSConnection
        sock = plain._new_conn(self)  # noqa: SLF001  its place in the line of bases is behind ours
        try:
            self._hold(sock, scope)
            sock.settimeout(self._left())
        except BaseException:
            sock.close()
            self._let_go(kept=False)
            raise
        return sock


class PlainSocksConnection(  # pyright: ignore[reportIncompatibleVariableOverride]
    _Cuttable, SOCKSConnection
):
    """A connection without TLS."""


class TlsSocksConnection(  # pyright: ignore[reportIncompatibleVariableOverride]
    _Cuttable, SOCKSHTTPSConnection
):
    """A connection with TLS."""
