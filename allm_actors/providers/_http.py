"""HTTP: one POST, its answer as the bytes arrive, and failures in our own words.

Built on `requests` for what it knows (proxies, certificates, pools, TLS), and on none of its conveniences:
no redirect is followed, no netrc file read, no cookie kept, nothing tried twice.

Promises:
    - `Reply.read` returns what has arrived and waits for no more than that.
    - An answer read to its end gives its connection back, unless its server is known to leave then; any other
      is closed.
    - In a `Scope` that was interrupted everything raises `Interrupted`, and nothing read is handed out.
    - No exception of the HTTP library leaves this module, not as a cause or context either: they hold the
      request, and with it the credentials.
"""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import math
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final, Literal

import requests
import urllib3.exceptions

from allm_actors.beam.interrupt import Interrupted, Scope
from allm_actors.beam.timer import cancel_timer, send_after
from allm_actors.providers._http_pool import CuttableAdapter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PART: Final = 32 * 1024
_DRAIN_SECONDS: Final = 0.05
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
"""What is left of a chunked body once its last piece was read: the end of that, and the end of all."""
_LEAVING: Final = "llama.cpp"
"""A server that closes a connection after a chunked answer (a stream, that is) and says that it keeps it. The
next request would now and then be faster than the news of it, and end without an answer."""
_FOREVER: Final = (
    2_000_000  # seconds; a poll takes a little more, and what it does not take is no limit at all
)
_FOREIGN: Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    TypeError,  # `requests`, of a proxy URL without a host
)


class TransportError(Exception):
    """There is no answer, or not all of it.

    Attributes:
        kind: `timeout` or `network` (refused, reset, name resolution, TLS, broken body).
        text: What happened, in words that hold nothing secret.
        connecting: It was before the connection stood.
        reading: It was after the headers of the answer, so the body is not whole.
    """

    def __init__(
        self,
        kind: Literal["timeout", "network"],
        text: str,
        *,
        connecting: bool = False,
        reading: bool = False,
    ) -> None:
        super().__init__(text)
        self.kind, self.text, self.connecting, self.reading = kind, text, connecting, reading


class HttpTransport:
    """Sends requests over pooled connections, for many threads at once.

    Args:
        verify: Whether to verify certificates, or the path of the bundle of those to trust. With `True` the
            environment may name a bundle.
        environment: Whether proxies and bundles that the environment names are used.
    """

    def __init__(self, *, verify: bool | str = True, environment: bool = True) -> None:
        self._verify = verify
        self._session = requests.Session()
        self._session.trust_env = environment
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        adapter = CuttableAdapter()
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def send(
        self, request: requests.PreparedRequest, *, connect_timeout: float, idle_timeout: float
    ) -> Reply:
        """Send a request in the current scope; return once the headers of the answer are there.

        Args:
            request: What to send.
            connect_timeout: Seconds for TCP and TLS together; `math.inf` is no limit.
            idle_timeout: Seconds without a byte from the server, now and while the answer is read, and
                seconds that sending may take.

        Raises:
            TransportError: There is no answer.
            Interrupted: The scope was interrupted; if that was before, nothing has been sent.
            Exit: It was, because the process of this thread was told to exit.
        """
        scope = Scope.current()
        if scope is not None:
            scope.check()
        failure, response = None, None
        try:
            url = request.url or ""
            settings: Any = self._session.merge_environment_settings(url, {}, True, self._verify, None)
            # Past `Session.send`, which looks into redirects, cookies and hooks.
            timeout: Any = (_limit(connect_timeout), _limit(idle_timeout))
            response = self._session.get_adapter(url).send(request, timeout=timeout, **settings)
        except _FOREIGN as error:
            failure = _translate(error)
        except Interrupted:
            pass
        if scope is not None and scope.interrupted:
            if response is not None:
                response.raw.close()
            scope.check()
        if response is None:
            raise failure or TransportError("network", "no answer")
        return Reply(response, scope)

    def close(self) -> None:
        """Close the pooled connections; those in use are closed when their answers have been read."""
        self._session.close()


class Reply:
    """An answer whose headers are there and whose body is read in parts."""

    __slots__ = ("_body", "_connection", "_ended", "_raw", "_read", "_scope", "headers", "status")

    def __init__(self, response: requests.Response, scope: Scope | None) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._raw: Any = response.raw
        self._scope = scope
        self._ended = False
        self._connection: Any = self._raw.connection
        self._body: http.client.HTTPResponse | None = getattr(self._connection, "body", None)
        plain = self._body is not None and not self.headers.get("content-encoding")
        self._read = self._read_plain if plain else self._read_decoded

    def read(self) -> bytes:
        """Return the bytes that are there, waiting for the first; nothing at the end of the body.

        Raises:
            TransportError: Silence for the idle timeout, or a body that broke off.
            Interrupted: The scope was interrupted, whatever there may have been to read.
            Exit: It was, because the process of this thread was told to exit.
        """
        if self._ended:
            return b""
        failure, data = None, b""
        try:
            data = self._read()
        except _FOREIGN as error:
            failure = _translate(error)
        if self._scope is not None and self._scope.interrupted:
            self.abort()
            self._scope.check()
        if failure is not None:
            self.abort()
            failure.reading = True
            raise failure
        if not data:
            self._finish()
        return data

    def _read_plain(self) -> bytes:
        body = self._body
        assert body is not None
        data = body.read1(_PART)
        if not data and body.length:
            raise http.client.IncompleteRead(b"", body.length)
        return data

    def _read_decoded(self) -> bytes:
        data: bytes | None = self._raw.read1(_PART, decode_content=True)
        return data or b""

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def read_all(self, limit: float = math.inf) -> bytes:
        """Return the whole body, or as many bytes of it as `limit` says; raises as `read` does."""
        parts: list[bytes] = []
        size = 0
        while size < limit and (part := self.read()):
            parts.append(part)
            size += len(part)
        whole = b"".join(parts)
        return whole if size <= limit else whole[: int(limit)]

    def drain(self) -> None:
        """See the body to its end if that is next to arrive, else close the connection. Never raises."""
        sock = getattr(self._connection, "sock", None)
        if sock is not None and not self._ended:
            deadline = time.monotonic() + _DRAIN_SECONDS
            sock.settimeout(_DRAIN_SECONDS)
            if self._end_is_here():
                self._read_end()
            else:
                # The socket's timeout is for one wait; one read may wait for each byte of what ends a body.
                limit = send_after(max(0.0, deadline - time.monotonic()), lambda _: self._cut(sock), None)
                try:
                    self._read_end()
                finally:
                    cancel_timer(limit)
        self.abort()

    def _end_is_here(self) -> bool:
        """Whether all that is left of a body has arrived, so that reading it waits for nothing.

        Waits for the first byte of it if nothing is there.
        """
        body = self._body
        if body is None or body.chunk_left or self._read != self._read_plain:
            return False
        if not body.chunked:
            return body.length == 0
        try:
            return bool(body.fp.peek(1).startswith(_LAST_CHUNK))
        except _FOREIGN:
            return False

    def _read_end(self) -> None:
        try:
            while not self._ended:
                if not self._read():
                    self._finish()
        except _FOREIGN:
            pass

    def _cut(self, sock: socket.socket) -> None:
        """Wake the thread that reads, from another; the connection is not used again."""
        if self._scope is not None:
            self._scope.interrupt()
        else:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _finish(self) -> None:
        self._ended = True
        if self._body is not None:
            self._body.close()
        if self._deserted():
            self._raw.close()
        else:
            self._raw.release_conn()
        if self._scope is not None:
            self._scope.release()

    def _deserted(self) -> bool:
        headers = self.headers
        return headers.get("server", "").startswith(_LEAVING) and "transfer-encoding" in headers

    def abort(self) -> None:
        """Close the connection, unless the answer was read to its end. Idempotent."""
        if not self._ended:
            self._ended = True
            self._raw.close()
            if self._scope is not None:
                self._scope.release()


def _limit(seconds: float) -> float | None:
    return None if seconds > _FOREVER else seconds


def _translate(error: BaseException) -> TransportError:
    """Say what happened from the innermost exception that tells, quoting none that may hold the request."""
    chain = list(_inside(error))
    for inner in chain:
        if isinstance(inner, urllib3.exceptions.ConnectTimeoutError) and not isinstance(
            inner, urllib3.exceptions.NewConnectionError
        ):
            return TransportError("timeout", "no connection in time", connecting=True)
        if isinstance(inner, TimeoutError | urllib3.exceptions.ReadTimeoutError):
            return TransportError("timeout", "no answer in time")
    for inner in reversed(chain):
        text = _say(inner)
        if text:
            return TransportError("network", text)
    return TransportError("network", type(error).__name__)


def _inside(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        inner = waiting.pop(0)
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        yield inner
        links = [getattr(inner, "reason", None), *inner.args, inner.__cause__, inner.__context__]
        waiting += [link for link in links if isinstance(link, BaseException)]


def _say(error: BaseException) -> str | None:  # noqa: C901  (one branch for each kind)
    match error:
        case ssl.SSLCertVerificationError():
            text = f"the certificate was not accepted: {error.verify_message}"
        case ssl.SSLError():
            text = f"TLS failed: {(error.reason or 'connection closed').replace('_', ' ').lower()}"
        case socket.gaierror():
            text = f"the host name was not resolved: {error.strerror}"
        case http.client.IncompleteRead():
            text = "the connection broke off in the middle of the body"
        case http.client.RemoteDisconnected():
            text = "the server closed the connection without an answer"
        case http.client.HTTPException():
            text = f"not HTTP: {type(error).__name__}"
        case urllib3.exceptions.DecodeError():
            text = "the body is not compressed the way its headers say"
        case (
            urllib3.exceptions.LocationParseError()
            | requests.exceptions.InvalidURL()
            | requests.exceptions.InvalidSchema()
        ):
            text = "the host name, or the URL of a proxy for it, cannot be used"
        case OSError(strerror=str(reason)):
            text = reason.lower()
        case OSError() if str(error).startswith("Tunnel connection failed"):
            text = str(error).lower()
        case _:
            return None
    return text
