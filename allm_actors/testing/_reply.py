"""What a `FakeServer` is told to answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from allm_actors.data import ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping

Fault = Literal["stall", "drop", "end", "truncate", "malformed"]
"""What goes wrong with a body:

- `stall`: silence, until the client goes away, the server closes or `resume()` is called
- `drop`: the connection is reset
- `end`: the body ends early, as if nothing was wrong
- `truncate`: the connection is closed in the middle of a chunk
- `malformed`: one frame that is not JSON, and then the rest
"""

Framing = Literal["chunked", "length", "close"]

_FAULTS: Final = get_args(Fault)
_FRAMINGS: Final = get_args(Framing)


@dataclass(frozen=True)
class Reply:
    """One scripted answer: what is said, how it is sent and what goes wrong on the way.

    Without `frames`, `json` or `body` the answer is written in the wire format of the endpoint that was
    asked: as server-sent events if the request asked to stream, else as one JSON object.

    ```python
    Reply("Hello there")                                  # streamed word by word
    Reply(chunks=["Hel", "lo"], chunk_delay=0.1)          # slowly
    Reply("Hello there", fault="drop", after=2)           # the connection is reset after two frames
    Reply(status=429, headers={"retry-after": "2"})       # an error answer
    Reply(frames=[{"choices": []}, "[DONE]"])             # exactly these events
    ```

    Raises:
        TypeError: A text, call, status or time of the wrong type.
        ValueError: A fault or framing there is not, an impossible status or time.
    """

    text: str = ""
    """The text of the answer; a stream sends it word by word."""
    _: KW_ONLY
    chunks: Sequence[str] | None = None
    """The text, in the pieces in which a stream sends it."""
    tool_calls: Sequence[ToolCall] = ()
    """The calls of the answer. `raw_arguments` is sent as it stands, where given."""
    argument_pieces: int = 2
    """In how many pieces a stream sends the arguments of a call."""
    reasoning: str = ""
    """Readable reasoning, before the text."""
    finish_reason: str | None = None
    """`stop`, `length`, `tool_calls`, `content_filter`, or the provider's own word; default: what fits."""
    usage: Mapping[str, int] | None = field(default_factory=lambda: {"input_tokens": 9, "output_tokens": 2})
    """`input_tokens` and `output_tokens`; `None` reports no usage."""
    model: str | None = None
    """The model that answers; default: the one that was asked for."""
    id: str = "reply-1"
    """The provider's id of the answer."""

    frames: Sequence[Mapping[str, Any] | str | bytes] | None = None
    """Exactly these server-sent events: a mapping or a string is the data of one, bytes go as they are."""
    json: Any = None
    """Exactly this JSON body."""
    body: bytes | str | None = None
    """Exactly these bytes."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers on top of those that are needed; they win."""
    framing: Framing = "chunked"
    """How the client learns where the body ends; `close` also closes the connection."""
    keep_alive: bool = True
    """Whether the connection may serve another request; if not, `Connection: close` is sent."""
    gzip: bool = False
    """Whether the body is compressed, asked or not."""

    delay: float = 0
    """Seconds before the headers."""
    chunk_delay: float = 0
    """Seconds before each piece of the body but the first."""
    piece: int | None = None
    """Cut the body into pieces of so many bytes, wherever that may be; default: one frame a piece."""
    split_at: Sequence[int] = ()
    """Cut the body at these offsets, too."""
    heartbeat: float | None = None
    """While there is nothing to send, send a comment every so many seconds."""

    fault: Fault | None = None
    after: int = 0
    """After how many pieces of the body the fault comes; -1: before the headers (stall and drop)."""

    def __post_init__(self) -> None:
        # A misspelt fault that never comes would make a test pass that tests nothing.
        if not isinstance(self.text, str):
            raise TypeError(f"text must be str, not {type(self.text).__name__}")
        _check_list("chunks", self.chunks if self.chunks is not None else (), str)
        _check_list("tool_calls", self.tool_calls, ToolCall)
        if self.fault is not None and self.fault not in _FAULTS:
            raise ValueError(f"fault must be one of {', '.join(_FAULTS)}; not {self.fault!r}")
        if self.framing not in _FRAMINGS:
            raise ValueError(f"framing must be one of {', '.join(_FRAMINGS)}; not {self.framing!r}")
        if isinstance(self.status, bool) or not isinstance(self.status, int):
            raise TypeError(f"status must be a whole number, not {type(self.status).__name__}")
        if not 100 <= self.status <= 999:  # noqa: PLR2004
            raise ValueError(f"status must have three digits, not {self.status}")
        for name in ("delay", "chunk_delay", "heartbeat"):
            seconds = getattr(self, name)
            if seconds is None and name == "heartbeat":
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
            if not seconds >= 0:
                raise ValueError(f"{name} must not be below zero, got {seconds!r}")

    def text_pieces(self) -> list[str]:
        """The text as a stream sends it."""
        if self.chunks is not None:
            return list(self.chunks)
        words = self.text.split(" ")
        return [word for word in [words[0], *(f" {word}" for word in words[1:])] if word]

    def whole_text(self) -> str:
        """The text as a whole answer has it."""
        return "".join(self.chunks) if self.chunks is not None else self.text


def _check_list(name: str, items: Any, kind: type) -> None:
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise TypeError(f"{name} must be a list of {kind.__name__}, not {type(items).__name__}")
    for index, item in enumerate(items):
        if not isinstance(item, kind):
            raise TypeError(f"{name}[{index}] must be a {kind.__name__}, not {type(item).__name__}")


def arguments_of(call: ToolCall) -> str:
    """The JSON text of a call's arguments, as a provider would send it."""
    if call.raw_arguments is not None:
        return call.raw_arguments
    return json.dumps(call.arguments, separators=(",", ":"), ensure_ascii=False)
