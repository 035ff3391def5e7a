"""Server-sent events: from the bytes of a response body to events.

A decoder is a pure object without I/O. It promises that chunk borders never matter: any way of cutting a
body into pieces gives the same events, also inside a UTF-8 character or between CR and LF. Lines end with
LF, CR or CRLF and with nothing else. One event holds at most 16 MiB.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic_core import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""The most data, in bytes of UTF-8, that one event may hold."""

_BOM: Final = b"\xef\xbb\xbf"
_FIELDS: Final = (b"data", b"event", b"id", b"retry", b"error", b":")
_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


class SSEEvent(NamedTuple):
    """One dispatched event.

    `data` is the data lines joined with LF. `fields` holds the fields the format does not know, by name:
    a body that turns into a bare JSON object with an `error` member gives an event whose
    `fields["error"]` is the JSON text of that member.
    """

    event: str | None
    data: str
    id: str | None = None
    retry: int | None = None
    fields: Mapping[str, str] = _NO_FIELDS


class SSEDecoder:
    """Turns the chunks of one response body into events.

    A body that cannot be decoded (bytes that are not UTF-8 inside an event, an event that is too large) sets
    `failure`; the events before it have been returned, and nothing is returned any more.

    >>> decoder = SSEDecoder()
    >>> [event.data for event in decoder.feed(b"data: 1\\n\\ndata: 2")]
    ['1']
    >>> [event.data for event in decoder.close()]
    ['2']
    """

    __slots__ = (
        "_bare", "_data", "_event", "_fields", "_head", "_id", "_parts", "_retry", "_size", "_skip_lf",
        "_tail_size", "failure",
    )  # fmt: skip

    def __init__(self) -> None:
        self.failure: str | None = None
        """Why the body cannot be decoded any further, or `None`."""
        self._head: bytes | None = b""  # the first bytes, while they may still be a byte-order mark
        self._parts: list[bytes] = []  # the line that has not ended yet
        self._tail_size = 0
        self._skip_lf = False  # the last chunk ended with CR: an LF that comes first belongs to it
        self._bare: list[bytes] | None = None  # lines of what may be a bare JSON object
        self._reset()

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Take the next bytes of the body and return the events they complete."""
        if self._head is not None:
            chunk = self._head + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._head = chunk
                return []
            self._head = None
            chunk = chunk.removeprefix(_BOM)
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[0] == 10:  # noqa: PLR2004  LF
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._skip_lf = chunk[-1] == 13  # noqa: PLR2004  CR
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not chunk or self.failure is not None:
            return []
        if self._parts:
            if b"\n" not in chunk:
                self._keep(chunk)
                return []
            self._parts.append(chunk)
            chunk = b"".join(self._parts)
            self._parts.clear()
            self._tail_size = 0
        lines = chunk.split(b"\n")
        tail = lines.pop()
        events: list[SSEEvent] = []
        self._take(lines, events)
        if tail and self.failure is None:
            self._keep(tail)
        return events

    def close(self) -> list[SSEEvent]:
        """Treat the end of the body as the end of its last line and event; return what that completes."""
        events = self.feed(b"\n\n") if not self._head else self.feed(b"") or self._close_head()
        if self._bare is not None and self.failure is None:
            self._end_bare(events, last=True)
        self._parts.clear()
        return events

    def _close_head(self) -> list[SSEEvent]:
        self._parts, self._head = [self._head or b""], None
        return self.feed(b"\n\n")

    def _keep(self, tail: bytes) -> None:
        """Remember the beginning of a line, without letting it grow for ever."""
        if self._parts and self._parts[0].startswith(b":"):
            return  # the rest of a comment
        self._parts.append(tail)
        self._tail_size += len(tail)
        if self._tail_size > MAX_EVENT_BYTES + len(b"data: ") and not self._parts[0].startswith(b":"):
            self._fail_size()

    def _take(self, lines: list[bytes], events: list[SSEEvent]) -> None:
        """Process complete lines. The first two cases are nearly all of a well-behaved body."""
        for line in lines:
            if not line:
                if self._data is not None or self._fields is not None:
                    self._dispatch(events)
                elif self._event is not None or self._size:
                    self._reset()
                if self._bare is not None:
                    self._bare.append(line)
            elif line.startswith(b"data: ") and self._data is None and len(line) <= MAX_EVENT_BYTES:
                self._data = line[6:]
                self._size += len(line) - 6
                self._bare = None
            elif self._bare is not None or line.startswith(b"{"):
                self._bare_line(line, events)
            else:
                self._field(line)
            if self.failure is not None:
                return

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if not name:
            return  # a comment
        value = value.removeprefix(b" ")
        self._size += len(value)
        if name == b"data":
            if self._data is None:
                self._data = value
            else:
                self._more_data(value)
        elif name == b"event":
            self._event = value
        elif name == b"id":
            self._id = value
        elif name == b"retry":
            if value.isdigit() and len(value) < 20:  # noqa: PLR2004  more is no time any more
                self._retry = int(value)
        else:
            self._unknown_field(name, value)
        if self._size > MAX_EVENT_BYTES:
            self._fail_size()
