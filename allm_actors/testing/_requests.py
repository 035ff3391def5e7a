"""What a `FakeServer` has received."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class ReceivedRequest:
    """One request as it came in, and what became of its connection.

    Attributes:
        method: `POST`, usually.
        path: The path, with the query.
        headers: The headers, by lower-case name.
        body: The bytes of the body.
        received_at: When the last byte of it was there, in seconds of `time.monotonic`.
        connection: The number of the connection it came on, from 1.
        sent: How many bytes of the reply's body were written so far, each piece counted once it was written
            whole. The framing of chunks and what a fault adds do not count.
        answered_at: When the reply was written to its end, in seconds of `time.monotonic`; `None` if it was
            not, or not yet.
        disconnected_at: When the client or the script ended that connection, in seconds of
            `time.monotonic`; `None` while it stands, and if the server's `close()` ended it.
    """

    def __init__(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, connection: int
    ) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.connection = connection
        self.received_at = time.monotonic()
        self.sent = 0
        self.answered_at: float | None = None
        self.disconnected_at: float | None = None
        self._gone = threading.Event()
        self._wake: Callable[[], None] | None = None

    @property
    def json(self) -> Any:
        """The body, decoded; `None` if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def wait_disconnected(self, timeout: float = 5) -> bool:
        """Wait until the client has ended the connection; false if it has not in `timeout` seconds."""
        return self._gone.wait(timeout)

    def resume(self) -> None:
        """Let a reply that stalls go on with the rest of its body."""
        wake = self._wake
        if wake is not None:
            wake()

    def _disconnected(self) -> None:
        if not self._gone.is_set():
            self.disconnected_at = time.monotonic()
            self._gone.set()

    def __repr__(self) -> str:
        return f"<ReceivedRequest {self.method} {self.path} on connection {self.connection}>"
