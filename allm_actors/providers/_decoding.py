"""What every stream decoder does with a frame before it looks inside."""

from abc import abstractmethod
from typing import Any

from pydantic_core import from_json

from allm_actors.data import Event
from allm_actors.errors import AllmError
from allm_actors.providers._assembly import Assembly
from allm_actors.providers._errors import malformed_event, unchained
from allm_actors.providers._json import parse
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers._sse import SSEEvent
from allm_actors.providers._wire import StreamDecoder

__all__ = ["JsonDecoder"]

_DONE = "[DONE]"
_SPACE = " \t\r\n\f\v"


class JsonDecoder(StreamDecoder):
    """A decoder of frames whose data is one JSON object each.

    It reads the object, recognises `[DONE]`, frames without data, and errors that arrive outside any frame;
    subclasses say what an object means.
    """

    def __init__(self, provider: str, redactor: Redactor = SHAPES_ONLY) -> None:
        self.provider, self.redactor = provider, redactor
        self.assembly = Assembly(provider, redactor=redactor)
        self._index = 0

    @property
    def started(self) -> bool:
        """Whether a well-formed frame was decoded, and `MessageStarted` returned."""
        return self.assembly.started

    def feed(self, frame: SSEEvent) -> list[Event]:
        """Return the events that `frame` gives."""
        if self.done:
            return []
        if frame.fields and "error" in frame.fields:
            self._error_field(frame.fields["error"])
        try:
            payload = from_json(frame.data, allow_inf_nan=False)
        except ValueError:
            payload = self._second_look(frame.data)
            if payload is None:
                return []
        if type(payload) is not dict:
            raise self._malformed(frame.data)
        self._index += 1
        try:
            self.take(payload, frame.event)
        except AllmError as error:
            said = self.assembly.drain()
            if all(event.type == "message_started" for event in said):
                raise
            self.failure, self.done = unchained(error), True
            return said
        return self.assembly.drain()

    def close(self) -> list[Event]:
        """Return the closing sequence."""
        return self.assembly.close()

    @abstractmethod
    def take(self, payload: dict[str, Any], name: str | None) -> None:
        """Tell the assembly what `payload` says. `name` is the frame's own.

        Raises:
            AllmError: The stream has failed.
        """

    @abstractmethod
    def error(self, payload: dict[str, Any]) -> AllmError:
        """Return the error for an object with an `error` member."""

    def end_marker(self) -> None:
        """`[DONE]` has arrived. Unless a subclass knows better, it means nothing."""

    def _second_look(self, data: str) -> Any:
        """Read what the fast parser would not; `None` if the frame says nothing."""
        stripped = data.strip(_SPACE)
        if stripped == _DONE:
            self.end_marker()
        if stripped in ("", _DONE):
            return None
        try:
            payload = parse(data)
        except ValueError:
            payload = None
        if payload is None:
            raise self._malformed(data)
        return payload

    def _error_field(self, text: str) -> None:
        """Some gateways fail in mid-stream with a line that is no frame at all."""
        try:
            found = parse(text)
        except ValueError:
            return
        if isinstance(found, dict):
            raise self.error(found if found.get("error") is not None else {"error": found})

    def _malformed(self, data: str) -> AllmError:
        return malformed_event(data, self._index, provider=self.provider, redactor=self.redactor)
