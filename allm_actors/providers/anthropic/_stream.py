"""From the frames of a streamed Messages answer to events."""

from collections.abc import Callable
from typing import Any, Final

from allm_actors.data import Event, RawChunk
from allm_actors.errors import AllmError
from allm_actors.providers._decoding import JsonDecoder
from allm_actors.providers._partial_call import NOTHING, PartialCall
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers.anthropic._decode import given_input, read_names, read_stop
from allm_actors.providers.anthropic._errors import PROVIDER, failure
from allm_actors.providers.anthropic._lift import Lift
from allm_actors.providers.anthropic._thoughts import Thought, keep_thoughts
from allm_actors.providers.anthropic._usage import merge_usage, read_usage

__all__ = ["MessagesDecoder"]

_Payload = dict[str, Any]

# What a block is, where nothing is to be remembered of it.
_TEXT: Final = "text"
_LIFTED: Final = "lifted"
_REDACTED: Final = "redacted"
_IGNORED: Final = "ignored"

_Block = str | PartialCall | Thought


class MessagesDecoder(JsonDecoder):
    """Decodes one streamed answer. Blocks are told apart by their index and may interleave.

    Args:
        lifted: The tool whose call is the answer.
        redactor: Cleans what the provider wrote.
    """

    def __init__(self, lifted: str | None = None, redactor: Redactor = SHAPES_ONLY) -> None:
        super().__init__(PROVIDER, redactor)
        self._lift = Lift(self.assembly, lifted)
        self._text = self.assembly.text if lifted is None else self._lift.text
        self._blocks: dict[int, _Block] = {}
        self._thoughts: list[Thought] = []
        self._usage: dict[str, Any] | None = None

    def take(self, payload: _Payload, name: str | None) -> None:
        """Read one event. Its kind is the `type` of `payload`, or where that is missing `name`."""
        kind = payload.get("type")
        if kind == "content_block_delta" and self.assembly.started:  # nearly every event
            self._block_delta(payload)
            return
        if not isinstance(kind, str) or not kind:
            kind = "error" if payload.get("error") is not None else name
        if kind == "ping":
            return
        effect = _EFFECTS.get(kind or "")
        if kind == "error" or (effect is None and name == "error"):
            raise self.error(payload)
        self.assembly.open()
        if effect is not None:
            effect(self, payload)
        else:
            self.assembly.unknown(kind, payload)

    def error(self, payload: _Payload) -> AllmError:
        """Return the error for an object with an `error` member."""
        return failure(payload, self.redactor)

    def close(self) -> list[Event]:
        """Return the closing sequence, with the usage as it was counted last."""
        assembly = self.assembly
        assembly.usage = read_usage(self._usage)
        keep_thoughts(assembly, [thought.whole() for thought in self._thoughts])
        self._lift.close()
        return super().close()

    # -- one method for each kind of event -------------------------------------------------------------

    def _message_start(self, payload: _Payload) -> None:
        message = payload.get("message")
        if isinstance(message, dict):
            read_names(self.assembly, message)
            usage = message.get("usage")
            self._usage = usage if isinstance(usage, dict) else None

    def _block_start(self, payload: _Payload) -> None:
        index, block = _index(payload), payload.get("content_block")
        kind = block.get("type") if isinstance(block, dict) else None
        start = _STARTS.get(kind) if isinstance(kind, str) else None
        if start is None or not isinstance(block, dict):
            self._blocks[index] = _IGNORED
            self.assembly.unknown("content_block_start", payload)
        else:
            self._blocks[index] = start(self, index, block)

    def _block_delta(self, payload: _Payload) -> None:
        index, delta = payload.get("index"), payload.get("delta")
        block = self._blocks.get(index if type(index) is int else 0)
        if type(delta) is dict:
            kind = delta.get("type")
            if kind == "text_delta" and block is _TEXT:
                text = delta.get("text")
                if type(text) is str:
                    self._text(text)
                return
            if block is not None and type(kind) is str and self._fill(block, kind, delta, _index(payload)):
                return
        if block is not _IGNORED:
            self.assembly.unknown("content_block_delta", payload)

    def _block_stop(self, payload: _Payload) -> None:
        """The closing sequence reports every block."""

    def _message_delta(self, payload: _Payload) -> None:
        delta = payload.get("delta")
        if isinstance(delta, dict) and read_stop(self.assembly, delta):
            self.finished = True
        self._usage = merge_usage(self._usage, payload.get("usage"))

    def _message_stop(self, payload: _Payload) -> None:  # noqa: ARG002 -- one of the table's effects
        self.finished = self.done = True

    # -- one method for each kind of block: what is begun, and what it is from then on -------------------

    def _start_text(self, index: int, block: _Payload) -> _Block:  # noqa: ARG002
        self._text(_string(block, "text"))
        return _TEXT

    def _start_call(self, index: int, block: _Payload) -> _Block:  # noqa: ARG002
        name, given = block.get("name"), given_input(block)
        if not isinstance(given, dict) or not given:
            given = NOTHING  # the fragments will tell
        if self._lift.claims(name):
            return _LIFTED if self._lift.begin(given) else _IGNORED
        call = self.assembly.new_call(whole=given)
        self.assembly.identify(call, block.get("id"), name)
        return call

    def _start_thought(self, index: int, block: _Payload) -> _Block:
        self.assembly.part()
        thought = Thought(block)
        self._thoughts.append(thought)
        self.assembly.events.append(RawChunk(kind="thinking_start", payload={"index": index}))
        self.assembly.thought(_string(block, "thinking"), index)
        return thought

    def _start_redacted(self, index: int, block: _Payload) -> _Block:  # noqa: ARG002
        self.assembly.part()
        self._thoughts.append(Thought(block))
        return _REDACTED

    # -- how it is done --------------------------------------------------------------------------------

    def _fill(self, block: _Block, kind: str, delta: _Payload, index: int) -> bool:
        """Take a piece of a block other than text; return whether that is what the block is made of."""
        match kind:
            case "input_json_delta" if isinstance(block, PartialCall):
                self.assembly.arguments(block, _string(delta, "partial_json"))
            case "input_json_delta" if block is _LIFTED:
                self._lift.arguments(_string(delta, "partial_json"))
            case "thinking_delta" if isinstance(block, Thought):
                text = _string(delta, "thinking")
                block.think(text)
                self.assembly.thought(text, index)
            case "signature_delta" if isinstance(block, Thought):
                block.sign(_string(delta, "signature"))
            case "citations_delta":
                pass
            case _:
                return False
        return True


def _index(payload: _Payload) -> int:
    index = payload.get("index")
    return index if type(index) is int else 0


def _string(source: _Payload, member: str) -> str:
    value = source.get(member)
    return value if isinstance(value, str) else ""


_EFFECTS: dict[str, Callable[[MessagesDecoder, _Payload], None]] = {
    "message_start": MessagesDecoder._message_start,  # noqa: SLF001 -- the tables belong to the class
    "content_block_start": MessagesDecoder._block_start,  # noqa: SLF001
    "content_block_delta": MessagesDecoder._block_delta,  # noqa: SLF001
    "content_block_stop": MessagesDecoder._block_stop,  # noqa: SLF001
    "message_delta": MessagesDecoder._message_delta,  # noqa: SLF001
    "message_stop": MessagesDecoder._message_stop,  # noqa: SLF001
}

_STARTS: dict[str, Callable[[MessagesDecoder, int, _Payload], _Block]] = {
    "text": MessagesDecoder._start_text,  # noqa: SLF001
    "tool_use": MessagesDecoder._start_call,  # noqa: SLF001
    "thinking": MessagesDecoder._start_thought,  # noqa: SLF001
    "redacted_thinking": MessagesDecoder._start_redacted,  # noqa: SLF001
}
