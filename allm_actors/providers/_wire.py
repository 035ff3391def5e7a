"""What one provider's wire format has to say: a handful of pure translations.

A `Wire` turns our request into a path and a JSON body, and the provider's bytes back into our events and
responses. It opens no socket, reads no clock and no environment, and holds no key, so that all of it can be
tested with plain values. The connection that sends the request, frames the stream and keeps the timeouts is
written once, for every wire.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allm_actors.data import Event, Request, Response
from allm_actors.errors import AdapterError, AllmError
from allm_actors.providers._errors import http_error
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers._replay import response_events
from allm_actors.providers._sse import SSEEvent

__all__ = ["StreamDecoder", "Wire", "WireRequest"]


@dataclass(frozen=True, slots=True)
class WireRequest:
    """Where a request goes, relative to the base URL, and the JSON object it carries."""

    path: str
    body: dict[str, Any]


class StreamDecoder(ABC):
    """Turns the frames of one streamed answer into events.

    One decoder serves one answer and one thread. Which events come when is the same for every provider:
    `MessageStarted` with the first well-formed frame, the body in wire order, and the closing sequence when
    `close` is called.

    Attributes:
        finished: The provider said that the answer is complete, so the end of the body, a broken
            connection or silence is now a normal end: call `close`.
        done: The final frame was seen: call `close` at once, later bytes mean nothing.
        failure: The answer has failed in a frame that said something first: once the events of that frame are
            delivered, the stream ends with this error. `done` is then true as well; `close` is not called.
    """

    finished: bool = False
    done: bool = False
    failure: AllmError | None = None

    @property
    @abstractmethod
    def started(self) -> bool:
        """Whether a well-formed frame was decoded, and `MessageStarted` returned."""

    @abstractmethod
    def feed(self, frame: SSEEvent) -> list[Event]:
        """Return the events that `frame` gives, often one, perhaps none.

        Raises:
            AllmError: The stream has failed, and this is the error to end it with. Data that is not a JSON
                object is `StreamError("malformed_event")`; where the frame is the unterminated last one of a
                body, the caller drops that error, for the frame was cut off.
        """

    @abstractmethod
    def close(self) -> list[Event]:
        """Return the closing sequence. Called at most once, when the answer has come to an orderly end."""


class Wire(ABC):
    """One provider's wire format.

    Attributes:
        provider: The tag in errors, key lookup and `provider_data`.
        display: The provider's name as people write it.
        default_base_url: Where requests go unless the adapter says otherwise.
    """

    provider: ClassVar[str]
    display: ClassVar[str]
    default_base_url: ClassVar[str]

    @abstractmethod
    def build(self, request: Request, options: Mapping[str, Any], *, stream: bool) -> WireRequest:
        """Check `request` and translate it. `options` are the call's own and win over the request's.

        Image files are read; nothing else is touched.

        Raises:
            AllmError: Anything that is wrong with the request, the key aside.
        """

    @abstractmethod
    def credential(self, key: str) -> dict[str, str]:
        """Return the header that carries `key`."""

    @abstractmethod
    def decode(self, body: dict[str, Any], request: Request, *, redactor: Redactor = SHAPES_ONLY) -> Response:
        """Read a whole 2xx body, parsed by `_json.parse`.

        Raises:
            AdapterError: The body reports a failure or is not what the endpoint sends.
        """

    @abstractmethod
    def decoder(self, request: Request, *, redactor: Redactor = SHAPES_ONLY) -> StreamDecoder:
        """Return a decoder for one streamed answer to `request`."""

    def replay(
        self, body: dict[str, Any], request: Request, *, redactor: Redactor = SHAPES_ONLY
    ) -> list[Event]:
        """Return the events of a whole body, for a server that answered a streaming call with one.

        Raises:
            AdapterError: As `decode` does.
        """
        return response_events(self.decode(body, request, redactor=redactor))

    def http_error(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        redactor: Redactor = SHAPES_ONLY,
    ) -> AdapterError:
        """Return the error that an answer with a status other than 2xx stands for."""
        return http_error(
            status, headers, body, provider=self.provider, display=self.display, redactor=redactor
        )
