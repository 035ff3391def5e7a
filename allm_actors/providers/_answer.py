"""Reading an answer: the frames of a stream, the ways it can end, whole bodies, and what went wrong.

A stream is complete when the provider has said so. From then on a clean end, a broken connection and silence
are all the same orderly end; before, each is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from allm_actors.errors import AdapterError, AllmError, StreamError
from allm_actors.providers._errors import (
    forbids_retry,
    malformed_response,
    one_line,
    request_id_of,
    unchained,
)
from allm_actors.providers._http import Reply, TransportError
from allm_actors.providers._json import parse
from allm_actors.providers._retry_after import retry_after
from allm_actors.providers._sse import SSEDecoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allm_actors.data import Event
    from allm_actors.engine import CallContext
    from allm_actors.providers._redact import Redactor
    from allm_actors.providers._wire import StreamDecoder, Wire

_ERROR_BODY: Final = 64 * 1024
_MIB: Final = 1024 * 1024
MAX_BODY: Final = 64 * _MIB
"""The most bytes, unpacked, that the body of a whole answer may have."""
MAX_STREAM: Final = 256 * _MIB
"""The most bytes, unpacked, that the body of a stream may have."""


def read_stream(wire: Wire, reply: Reply, decoder: StreamDecoder) -> Iterator[Event]:
    """Hand the frames of a body to the decoder, and judge its end."""
    sse = SSEDecoder()
    frames = size = 0
    ended: TransportError | None = None
    while True:
        try:
            part = reply.read()
        except TransportError as error:
            ended, part = error, b""
        if not part:
            break
        size += len(part)
        if size > MAX_STREAM:
            raise _too_large(wire, MAX_STREAM)
        for frame in sse.feed(part):
            frames += 1
            yield from decoder.feed(frame)
            if decoder.done:
                if decoder.failure is not None:
                    raise decoder.failure
                yield from decoder.close()
                reply.drain()
                return
        if sse.failure is not None:
            raise _undecodable(wire, sse, frames)
    yield from _end_stream(wire, sse, frames, decoder, ended)


def _end_stream(
    wire: Wire, sse: SSEDecoder, frames: int, decoder: StreamDecoder, ended: TransportError | None
) -> Iterator[Event]:
    """Close an answer that was complete although no final frame came; fail any other."""
    if ended is None or ended.kind != "timeout":
        for frame in sse.close():
            yield from _last(decoder, frame)
        if decoder.failure is not None:
            raise decoder.failure
        if sse.failure is not None:
            raise _undecodable(wire, sse, frames)
    if decoder.finished or decoder.done:
        yield from decoder.close()
    elif ended is not None:
        raise ended
    else:
        raise TransportError("network", "the stream ended before the answer was complete", reading=True)


def _last(decoder: StreamDecoder, frame: Any) -> list[Event]:
    """Decode a frame that the end of the body ended; one that was cut off says nothing."""
    try:
        return decoder.feed(frame)
    except StreamError as error:
        if error.reason != "malformed_event":
            raise
    return []


def succeeded(reply: Reply) -> bool:
    """Whether the status is 2xx."""
    return 200 <= reply.status <= 299  # noqa: PLR2004


def error_body(reply: Reply) -> bytes:
    """As much of the body of an error answer as there is, and as is worth reading."""
    parts: list[bytes] = []
    size = 0
    try:
        while size < _ERROR_BODY and (part := reply.read()):
            parts.append(part)
            size += len(part)
    except TransportError:
        pass  # the status tells enough
    return b"".join(parts)[:_ERROR_BODY]


def json_object(wire: Wire, reply: Reply) -> dict[str, Any]:
    """The object that a whole 2xx body is.

    Raises:
        AdapterError: `malformed_response`: it is none, or larger than any answer.
        TransportError: As `Reply.read` does.
        Interrupted: As `Reply.read` does.
    """
    body = reply.read_all(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise _too_large(wire, MAX_BODY)
    try:
        value = parse(body.decode("utf-8-sig"))
    except ValueError:  # also UnicodeDecodeError
        value = None
    if not isinstance(value, dict):
        raise malformed_response(wire.provider, wire.display, "the body is not a JSON object")
    return value


def named(error: AllmError, reply: Reply | None, redactor: Redactor) -> AllmError:
    """Return the error to hand out: cut off from what led to it, with what the answer's headers say of it.

    An answer may fail long after its headers came, in words that no longer say whose answer it was, nor
    whether and when to ask again.
    """
    if reply is not None and isinstance(error, AdapterError):
        changes: dict[str, Any] = {}
        request_id, wait = request_id_of(reply.headers), retry_after(reply.headers)
        if request_id is not None:
            changes["request_id"] = one_line(redactor.text(request_id))
        if wait is not None:
            changes["retry_after"] = wait
        if forbids_retry(reply.headers):
            changes["metadata"] = {**error.metadata, "no_retry": True}
        if changes:
            error = error.replace(**changes)
    return unchained(error)


def down(provider: str) -> AdapterError:
    """The error of a call whose connection was closed."""
    return AdapterError("adapter_down", f"the connection to {provider!r} was closed", provider=provider)


def transport_failure(
    wire: Wire, error: TransportError, call: CallContext, limit: str, *, address: str | None
) -> AdapterError:
    """The error for what the transport reports; `limit` is the time that silence used up."""
    if error.kind == "timeout":
        return expired(wire, call, "connect_timeout" if error.connecting else limit, address=address)
    return AdapterError(
        "network_error",
        f"{_at(wire, address)}: {error.text}",
        provider=wire.provider,
        metadata={"premature_close": True} if error.reading else {},
    )


def expired(wire: Wire, call: CallContext, limit: str, *, address: str | None) -> AdapterError:
    """The error of a call whose time `limit` is over."""
    what = {
        "connect_timeout": "no connection within",
        "request_timeout": "no complete answer within",
        "stream_timeout": "nothing arrived for",
    }[limit]
    return AdapterError(
        "timeout",
        f"{_at(wire, address)}: {what} {getattr(call, limit):g} s ({limit})",
        provider=wire.provider,
        metadata={"limit": limit},
    )


def _at(wire: Wire, address: str | None) -> str:
    return f"{wire.display} at {address}" if address else wire.display


def _too_large(wire: Wire, limit: int) -> AdapterError:
    return malformed_response(wire.provider, wire.display, f"the body is larger than {limit // _MIB} MiB")


def _undecodable(wire: Wire, sse: SSEDecoder, index: int) -> StreamError:
    return StreamError(
        "malformed_event",
        f"{wire.display}: the stream holds {sse.failure}",
        provider=wire.provider,
        event_index=index,
    )
