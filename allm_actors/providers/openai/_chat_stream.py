"""From the frames of a streamed Chat Completions answer to events.

Compatible servers send whole calls in one piece, calls without an index, calls that are all number 0, usage
on every chunk, in none or in a place of their own, reasoning under two names, the whole message in place of
what is new in it, and no end marker; all of that is read here.
"""

from typing import Any

from allm_actors.data import Event
from allm_actors.errors import AllmError
from allm_actors.providers._decoding import JsonDecoder
from allm_actors.providers._json import parse
from allm_actors.providers._partial_call import PartialCall
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers._usage import read_usage
from allm_actors.providers.openai._chat_decode import (
    PROVIDER,
    argument_text,
    error_of,
    joined_text,
    read_finish,
    read_names,
    read_service,
    reasoning_text,
)
from allm_actors.providers.openai._usage import CHAT

__all__ = ["ChatDecoder"]


class ChatDecoder(JsonDecoder):
    """Decodes one streamed answer. Of several choices only the first counts."""

    def __init__(self, redactor: Redactor = SHAPES_ONLY) -> None:
        super().__init__(PROVIDER, redactor)
        self._usage: dict[str, Any] | None = None
        self._by_index: dict[int, PartialCall] = {}
        self._by_both: dict[tuple[int, str], PartialCall] = {}
        self._by_id: dict[str, PartialCall] = {}
        self._whole: set[PartialCall] = set()
        self._latest: PartialCall | None = None
        self._legacy: PartialCall | None = None

    def take(self, payload: dict[str, Any], name: str | None) -> None:
        """Read one chunk. The frame's name means nothing here."""
        if payload.get("error") is not None:
            raise self.error(payload)
        assembly = self.assembly
        choices = payload.get("choices")
        if not assembly.started:
            assembly.open()
        if choices is None and "choices" not in payload and "usage" not in payload and "error" not in payload:
            assembly.unknown(name, payload)
            return
        if assembly.model is None or assembly.response_id is None:
            read_names(assembly, payload)
        read_service(assembly, payload)
        usage = payload.get("usage")
        if usage is not None and isinstance(usage, dict):
            self._usage = usage
        if type(choices) is list:
            for choice in choices:
                if type(choice) is dict and (choice.get("index") or 0) == 0:
                    self._take_choice(choice)
        if self.finished and self._usage is None:
            self._usage = _usage_of_groq(payload)

    def error(self, payload: dict[str, Any]) -> AllmError:
        """Return the error for an object with an `error` member."""
        return error_of(payload, self.redactor)

    def end_marker(self) -> None:
        """`[DONE]`: the answer is complete, and nothing that follows counts."""
        self.finished = self.done = True

    def close(self) -> list[Event]:
        """Return the closing sequence, with the last usage that was sent."""
        self.assembly.usage = read_usage(self._usage, CHAT)
        return super().close()

    def _take_choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        if type(delta) is dict and delta:
            content = delta.get("content")
            if len(delta) == 1 and type(content) is str:  # nearly every chunk of nearly every server
                self.assembly.text(content)
            else:
                self._take_delta(delta)
        elif delta is None and not self.assembly.texts and not self.assembly.calls:
            message = choice.get("message")  # some servers answer in one piece although asked for a stream
            if isinstance(message, dict):
                self._take_delta(message)
        if choice.get("finish_reason") and read_finish(self.assembly, choice):
            self.finished = True
            usage = choice.get("usage")  # where one server puts it
            if isinstance(usage, dict) and self._usage is None:
                self._usage = usage

    def _take_delta(self, delta: dict[str, Any]) -> None:
        assembly = self.assembly
        assembly.thought(reasoning_text(delta))
        assembly.text(joined_text(delta.get("content")))
        refusal = delta.get("refusal")
        if isinstance(refusal, str):
            assembly.refused(refusal)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for entry in calls:
                if isinstance(entry, dict):
                    self._take_call(entry)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            if self._legacy is None:
                self._legacy = assembly.new_call()
            assembly.identify_by_name(self._legacy, legacy.get("name"))
            assembly.arguments(self._legacy, argument_text(legacy.get("arguments")))

    def _take_call(self, entry: dict[str, Any]) -> None:
        function = entry.get("function")
        function = function if isinstance(function, dict) else {}
        index, wire_id, name = entry.get("index"), entry.get("id"), function.get("name")
        index = index if type(index) is int else None
        wire_id = wire_id if isinstance(wire_id, str) else ""
        named = isinstance(name, str) and name != ""
        call = self._find(index, wire_id, named=named)
        text = argument_text(function.get("arguments"))
        if named and text and not wire_id:
            if call in self._whole:  # more would break it: there are servers without ids, too, that write 0
                call = self.assembly.new_call()
            if not (call.name or call.sent) and _is_whole(text):
                self._whole.add(call)
        self._latest = call
        if index is not None:
            self._by_index[index] = call
        if wire_id:
            self._by_id[wire_id] = call
            if index is not None:
                self._by_both[index, wire_id] = call
        self.assembly.identify(call, wire_id, name)
        self.assembly.arguments(call, text)

    def _find(self, index: int | None, wire_id: str, *, named: bool) -> PartialCall:
        """Return the call an entry belongs to.

        With an index: the call of that index, unless its id differs: some servers number every call 0, and
        there the ids tell them apart. Without: the call of that id; an entry with an id or a name nobody has
        seen begins a call; any other continues the latest.
        """
        known: PartialCall | None
        if index is None:
            known = self._by_id.get(wire_id) if wire_id else None if named else self._latest
        else:
            known = self._by_both.get((index, wire_id))
            current = self._by_index.get(index)
            if known is None and current is not None and not (wire_id and current.wire_id):
                known = current
        return known if known is not None else self.assembly.new_call()


def _is_whole(arguments: str) -> bool:
    """Return whether the text is a JSON object, to which nothing can be added."""
    try:
        return isinstance(parse(arguments), dict)
    except ValueError:
        return False


def _usage_of_groq(payload: dict[str, Any]) -> dict[str, Any] | None:
    own = payload.get("x_groq")
    usage = own.get("usage") if isinstance(own, dict) else None
    return usage if isinstance(usage, dict) else None
