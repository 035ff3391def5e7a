"""A small HTTP server on the loopback interface that plays a provider."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from allm_actors.testing._reply import Reply
from allm_actors.testing._session import Session

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from allm_actors.testing._requests import ReceivedRequest

_CLOSE_SECONDS = 1.0
_NO_REPLY_LEFT = Reply("the script has no reply left", status=404)

Scripted = Reply | str
"""A scripted answer; a string is the text of one."""


class FakeServer:
    """A provider to test against: real HTTP, scripted answers, faults on demand.

    Each request takes the next reply of the script, in the order in which requests arrive. Once the script is
    used up, `default` answers, or a 404 that says so. Requests are recorded.

    ```python
    with FakeServer(script=["Hello!", Reply(status=503), Reply("late", delay=2)]) as server:
        engine = Engine(adapter=OpenAI(base_url=server.base_url), model="any")
        assert generate(engine, "hi").text == "Hello!"
        assert server.requests[0].json["messages"] == [{"role": "user", "content": "hi"}]
    ```

    It speaks the wire format of the endpoint that is asked: Chat Completions, Responses, Messages or
    generateContent. Everything in it may be used from any thread.

    Args:
        script: The answers, each a `Reply`, a string, or a function that takes the `ReceivedRequest` and
            gives one of these.
        default: The answer to every request for which the script has none.
        tls: The context of a TLS server, with its certificate; plain HTTP without.

    Raises:
        TypeError: An answer that is none of these, or a script that is one string.
    """

    def __init__(
        self,
        script: Sequence[Scripted | Callable[[ReceivedRequest], Scripted]] = (),
        *,
        default: Scripted | Callable[[ReceivedRequest], Scripted] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if isinstance(script, str):
            raise TypeError("script must be a list of answers, not one string (one for all: default=)")
        self._script = [_scripted(answer) for answer in script]
        self._default = None if default is None else _scripted(default)
        self._tls = tls
        self._changed = threading.Condition()
        self._requests: list[ReceivedRequest] = []
        self._sessions: dict[Session, threading.Thread] = {}
        self._connections = 0
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name=f"fake-server-{self._port}", daemon=True)
        self._acceptor.start()

    # --- where it is ----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The root of the server, without a trailing slash."""
        return f"{'https' if self._tls is not None else 'http'}://127.0.0.1:{self._port}"

    @property
    def base_url(self) -> str:
        """What an adapter's `base_url` is set to."""
        return f"{self.url}/v1"

    # --- what it has seen -----------------------------------------------------------------------------

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests so far, in the order in which they arrived."""
        with self._changed:
            return list(self._requests)

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return self._connections

    @property
    def open_connections(self) -> int:
        """How many connections stand."""
        with self._changed:
            return len(self._sessions)

    def wait_for_requests(self, count: int = 1, timeout: float = 5) -> list[ReceivedRequest]:
        """Wait until `count` requests have arrived, and return all so far.

        Raises:
            TimeoutError: They have not in `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                raise TimeoutError(f"{len(self._requests)} of {count} requests in {timeout} s")
            return list(self._requests)

    def wait_for_connections(self, count: int = 0, timeout: float = 5) -> None:
        """Wait until at most `count` connections stand.

        Raises:
            TimeoutError: There are more after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._sessions) <= count, timeout):
                raise TimeoutError(f"{len(self._sessions)} connections stand after {timeout} s")

    # --- what it is told ------------------------------------------------------------------------------

    def add(self, *replies: Scripted | Callable[[ReceivedRequest], Scripted]) -> None:
        """Append answers to the script."""
        checked = [_scripted(reply) for reply in replies]
        with self._changed:
            self._script.extend(checked)

    def resume(self) -> None:
        """Let every reply that stalls go on."""
        for request in self.requests:
            request.resume()

    def close(self) -> None:
        """End all connections, threads and sockets, within a second. Idempotent."""
        with self._changed:
            closed, self._closed = self._closed, True
            sessions = dict(self._sessions)
        if closed:
            return
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for session in sessions:
            session.close()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for thread in [self._acceptor, *sessions.values()]:
            if thread is not threading.current_thread():
                thread.join(max(0, deadline - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FakeServer {self.url} {len(self._requests)} requests>"

    # --- its threads ----------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._closed:
                    sock.close()
                    return
                self._connections += 1
                session = Session(sock, self._connections, self._answer, self._tls)
                thread = threading.Thread(
                    target=self._serve,
                    args=(session,),
                    name=f"fake-server-{self._port}-{self._connections}",
                    daemon=True,
                )
                self._sessions[session] = thread
                thread.start()

    def _serve(self, session: Session) -> None:
        try:
            session.serve()
        finally:
            with self._changed:
                self._sessions.pop(session, None)
                self._changed.notify_all()

    def _answer(self, request: ReceivedRequest) -> Reply:
        with self._changed:
            self._requests.append(request)
            scripted = self._script.pop(0) if self._script else self._default
            self._changed.notify_all()
        if scripted is None:
            return _NO_REPLY_LEFT
        if callable(scripted):
            try:
                scripted = scripted(request)
            except Exception as error:  # noqa: BLE001  the client shall hear of it
                return Reply(f"the script raised {error!r}", status=500)
        if not isinstance(scripted, Reply | str):
            return Reply(f"the script gave {type(scripted).__name__}, not a Reply or a string", status=500)
        return Reply(scripted) if isinstance(scripted, str) else scripted


def _scripted(answer: Any) -> Any:
    """The answer, if it is one."""
    if isinstance(answer, Reply | str) or callable(answer):
        return answer
    raise TypeError(f"an answer must be a Reply, a string or a function, not {type(answer).__name__}")
