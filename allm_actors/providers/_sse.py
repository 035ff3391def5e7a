"""Server-sent events: from the bytes of a response body to events.

A decoder is a pure object without I/O. It promises that chunk borders never matter: any way of cutting a
body into pieces gives the same events, also inside a UTF-8 character or between CR and LF. Lines end with
LF, CR or CRLF and with nothing else. One event holds at most 16 MiB of data.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic_core import from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""The most data, in bytes of UTF-8, that one event may hold."""

_MAX_BARE: Final = 64 * 1024  # of an object outside any field; as much as is read of the body of an error
_MAX_LINE: Final = MAX_EVENT_BYTES + len(b"data: ")
_TOO_LARGE: Final = "an event of more than 16 MiB"
_NOT_UTF8: Final = "bytes that are not UTF-8"
_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 10
_KNOWN: Final = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


class SSEEvent(NamedTuple):
    """One dispatched event.

    `data` is the data lines joined with LF. `fields` holds the fields the format does not know, by name.
    A bare JSON object with an `error` member, in place of the events or after them, is an event whose
    `fields["error"]` is the text of that object, as is the value of a field named `error`.
    """

    event: str | None
    data: str
    id: str | None = None
    retry: int | None = None
    fields: Mapping[str, str] = _NO_FIELDS


class SSEDecoder:
    r"""Turns the chunks of one response body into events.

    A body that cannot be decoded (bytes that are not UTF-8 inside an event, an event that is too large) sets
    `failure`: the events before it are returned, and nothing is returned any more.

    >>> decoder = SSEDecoder()
    >>> [event.data for event in decoder.feed(b"data: 1\n\ndata: 2")]
    ['1']
    >>> [event.data for event in decoder.close()]
    ['2']
    """

    __slots__ = (
        "_bare", "_data", "_event", "_fields", "_head", "_id", "_more", "_retry", "_size",
        "_skip_lf", "_tail", "_tail_size", "failure",
    )  # fmt: skip

    def __init__(self) -> None:
        self.failure: str | None = None
        """What cannot be decoded, or `None`."""
        self._head: bytes | None = b""  # the first bytes, while they may still be a byte-order mark
        self._tail: list[bytes] = []  # the line that has not ended yet
        self._tail_size = 0
        self._skip_lf = False  # the last chunk ended with CR: an LF that comes next belongs to it
        self._bare: bytearray | None = None  # the lines of what may be a bare JSON object
        self._data: bytes | None = None
        self._more: bytearray | None = None  # all data lines, if there are several
        self._event: bytes | None = None
        self._id: bytes | None = None
        self._retry: int | None = None
        self._fields: dict[bytes, bytes] | None = None
        self._size = 0  # of what comes on top of the first data line

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Take the next bytes of the body; return the events they complete."""
        if self._head is not None:
            chunk = self._head + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._head = chunk
                return []
            self._head = None
            chunk = chunk.removeprefix(_BOM)
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._skip_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[SSEEvent] = []
        if self.failure is None and chunk:
            self._take(chunk, events)
        return events

    def close(self) -> list[SSEEvent]:
        """Take the end of the body for the end of its last line and event; return what that completes.

        A last event that ends in the middle of a character was cut off: it is dropped, and no failure.
        """
        failure = self.failure
        start, self._head = self._head or b"", None
        events = self.feed(start + b"\n") + self.feed(b"\n")
        if self._bare is not None and self.failure is None:
            self._end_bare()
            self._dispatch(events)
        if self.failure == _NOT_UTF8:
            self.failure = failure
        return events

    def _take(self, chunk: bytes, events: list[SSEEvent]) -> None:  # noqa: C901  (a branch for each kind of line)
        """Split at line ends. Parts of one line are joined once, when it ends, however many there are."""
        if self._tail:
            if b"\n" not in chunk:
                self._keep(chunk)
                return
            self._tail.append(chunk)
            chunk = b"".join(self._tail)
            self._tail.clear()
            self._tail_size = 0
        lines = chunk.split(b"\n")
        tail = lines.pop()
        # Nearly every line is empty, or the one data line of its event, or its name: these stay in the loop.
        for line in lines:
            if not line:
                if self._bare is not None:
                    self._bare_line(line)
                if self._more is None and self._fields is None and self._data is not None:
                    self._dispatch_plain(self._data, events)
                else:
                    self._dispatch(events)
            elif line.startswith(b"data: ") and self._data is None and len(line) <= _MAX_LINE:
                self._data = line[6:]
                self._bare = None
            elif line.startswith(b"event: ") and len(line) <= _MAX_LINE:
                self._event = line[7:]
                self._bare = None
            else:
                self._line(line)
            if self.failure is not None:
                return
        if tail:
            self._keep(tail)

    def _keep(self, part: bytes) -> None:
        """Remember the beginning of a line, but not that of an endless one."""
        if self._tail and self._tail[0].startswith(b":"):
            return  # the rest of a comment
        self._tail.append(part)
        self._tail_size += len(part)
        if self._tail_size > _MAX_LINE and not self._tail[0].startswith(b":"):
            self.failure = _TOO_LARGE

    def _line(self, line: bytes) -> None:
        if line.startswith(b":"):
            return  # a comment
        if len(line) > _MAX_LINE:
            self.failure = _TOO_LARGE
        elif line.startswith(b"{") or (self._bare is not None and not line.startswith(_KNOWN)):
            self._bare_line(line)
        else:
            self._bare = None
            name, _, value = line.partition(b":")
            self._field(name, value.removeprefix(b" "))

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            if self._data is None:
                self._data = value
            else:
                if self._more is None:
                    self._more = bytearray(self._data)
                self._more += b"\n"
                self._more += value
                self._size += len(value) + 1
        elif name == b"event":
            self._event = value
        elif name == b"id":
            self._id = value
        elif name == b"retry":
            if value.isdigit() and len(value) < 20:  # noqa: PLR2004  more digits are no time any more
                self._retry = int(value)
        else:
            self._keep_field(name, value)
        if self._data is not None and len(self._data) + self._size > MAX_EVENT_BYTES:
            self.failure = _TOO_LARGE

    def _keep_field(self, name: bytes, value: bytes) -> None:
        """Keep a field of another name; fields alone are no event, and too many of them are forgotten."""
        self._size += len(name) + len(value)
        if self._data is None and self._size > MAX_EVENT_BYTES:
            self._fields, self._size = None, 0
            return
        if self._fields is None:
            self._fields = {}
        self._fields[name] = value

    def _bare_line(self, line: bytes) -> None:
        """Collect an object that stands outside any field; it ends with a line that makes it complete."""
        first = self._bare is None
        if self._bare is None:
            self._bare = bytearray()
        self._bare += line
        self._bare += b"\n"
        if len(self._bare) > _MAX_BARE:
            self._bare = None
        elif first or line.startswith(b"}"):
            self._end_bare()

    def _end_bare(self) -> None:
        text = bytes(self._bare or b"").strip()
        try:
            found = from_json(text)
        except ValueError:
            return  # not all of it yet
        self._bare = None
        if isinstance(found, dict) and found.get("error") is not None:
            self._fields = {**(self._fields or {}), b"error": text}

    def _dispatch_plain(self, data: bytes, events: list[SSEEvent]) -> None:
        """Dispatch an event of one data line and at most the known fields."""
        self._data = None
        try:
            if self._event is None and self._retry is None and self._id is None:
                events.append(SSEEvent(None, data.decode()))
            else:
                name, number = self._event, self._id
                self._event = self._id = None
                events.append(
                    SSEEvent(
                        None if name is None else name.decode(),
                        data.decode(),
                        None if number is None else number.decode(),
                        self._retry,
                    )
                )
                self._retry = None
        except UnicodeDecodeError:
            self.failure = _NOT_UTF8

    def _dispatch(self, events: list[SSEEvent]) -> None:
        """Dispatch what there is, if it is an event, and start afresh."""
        data, fields = self._data, self._fields or {}
        error = fields.get(b"error", b"").lstrip()
        if data is not None or error.startswith(b"{"):
            try:
                events.append(
                    SSEEvent(
                        None if self._event is None else self._event.decode(),
                        (self._more or data or b"").decode(),
                        None if self._id is None else self._id.decode(),
                        self._retry,
                        {name.decode(): value.decode() for name, value in fields.items()} or _NO_FIELDS,
                    )
                )
            except UnicodeDecodeError:
                self.failure = _NOT_UTF8
        self._reset()

    def _reset(self) -> None:
        self._data = self._more = self._event = self._id = self._retry = self._fields = None
        self._size = 0
