"""From a `Reply` to the bytes of its body, in the pieces in which they are sent."""

from __future__ import annotations

import http.client
import itertools
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from allm_actors.testing._wire import frame
from allm_actors.testing._wires import wire_for

if TYPE_CHECKING:
    from allm_actors.testing._reply import Reply
    from allm_actors.testing._requests import ReceivedRequest


def render(request: ReceivedRequest, reply: Reply) -> tuple[list[bytes], str]:
    """The pieces of a reply's body, and its content type."""
    path = urlsplit(request.path).path
    asked: Any = request.json
    asked = asked if isinstance(asked, dict) else {}
    if reply.body is not None:
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        return [body] if body else [], "application/json"
    if reply.frames is not None:
        return [
            each if isinstance(each, bytes) else frame(each) for each in reply.frames
        ], "text/event-stream"
    if reply.json is not None:
        return [json.dumps(reply.json, ensure_ascii=False).encode()], "application/json"
    wire = wire_for(path)
    if wire is None or not 200 <= reply.status < 300:  # noqa: PLR2004
        reason = http.client.responses.get(reply.status, "Unknown")
        error = {"message": reply.text or reason, "type": reason.lower().replace(" ", "_")}
        return [json.dumps({"error": error}).encode()], "application/json"
    if wire.streams(request.path, asked):
        return wire.stream(reply, asked), "text/event-stream"
    return [json.dumps(wire.whole(reply, asked), ensure_ascii=False).encode()], "application/json"


def recut(pieces: list[bytes], size: int | None, places: Any) -> list[bytes]:
    """The same bytes, cut elsewhere, too."""
    body = b"".join(pieces)
    cuts = {0, len(body), *(place for place in places if 0 < place < len(body))}
    if size is not None:
        cuts.update(range(0, len(body), size))
    else:
        end = 0
        for piece in pieces:
            end += len(piece)
            cuts.add(end)
    borders = sorted(cuts)
    return [body[a:b] for a, b in itertools.pairwise(borders)]
