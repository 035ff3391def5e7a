"""From the frames of a streamed Responses answer to events."""

from collections.abc import Callable
from typing import Any

from allm_actors.errors import AllmError
from allm_actors.providers._decoding import JsonDecoder
from allm_actors.providers._partial_call import PartialCall
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers.openai._chat_decode import (
    PROVIDER,
    argument_text,
    error_of,
    read_names,
    read_service,
)
from allm_actors.providers.openai._responses_decode import (
    message_refusal,
    message_text,
    output_items,
    read_end,
    read_status,
    reasoning_of,
)
from allm_actors.providers.openai._responses_errors import failure
from allm_actors.providers.openai._thoughts import Thoughts

__all__ = ["ResponsesDecoder"]

_Payload = dict[str, Any]

_SILENT = frozenset(
    {
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.annotation.added",
        "response.output_text.done",
        "response.reasoning_summary_part.done",
        "response.reasoning_summary_text.done",
        "response.reasoning_text.done",
        "response.refusal.done",
    }
)


class ResponsesDecoder(JsonDecoder):
    """Decodes one streamed answer."""

    def __init__(self, redactor: Redactor = SHAPES_ONLY) -> None:
        super().__init__(PROVIDER, redactor)
        self._by_item: dict[str, PartialCall] = {}
        self._by_output: dict[int, PartialCall] = {}
        self._with_item: set[PartialCall] = set()
        self._thoughts = Thoughts()

    def take(self, payload: _Payload, name: str | None) -> None:
        """Read one event. Its kind is the `type` of `payload`, or where that is missing `name`."""
        kind = payload.get("type")
        assembly = self.assembly
        if kind == "response.output_text.delta":
            assembly.open()
            delta = payload.get("delta")
            if type(delta) is str:
                assembly.text(delta)
            return
        if not isinstance(kind, str) or not kind:
            if payload.get("error") is not None and name != "error":
                raise self.error(payload)
            kind = name
        if kind == "keepalive":
            return
        if kind == "error":
            raise self._failed(payload)
        if kind == "response.failed":
            raise failure(_embedded(payload).get("error") or payload.get("error"), self.redactor)
        assembly.open()
        effect = _EFFECTS.get(kind or "")
        if effect is not None:
            effect(self, payload)
        elif kind not in _SILENT:
            assembly.unknown(kind, payload)

    def error(self, payload: _Payload) -> AllmError:
        """Return the error for an object with an `error` member."""
        return error_of(payload, self.redactor)

    # -- one method for each kind of event -------------------------------------------------------------

    def _named(self, payload: _Payload) -> None:
        body = _embedded(payload)
        read_names(self.assembly, body)
        read_service(self.assembly, body)

    def _refused(self, payload: _Payload) -> None:
        self.assembly.refused(_delta(payload))

    def _item_added(self, payload: _Payload) -> None:
        item = payload.get("item")
        if isinstance(item, dict) and item.get("type") == "function_call":
            self._register(item, payload)

    def _item_done(self, payload: _Payload) -> None:
        item = payload.get("item")
        if isinstance(item, dict) and item.get("type") == "function_call":
            self._complete(self._register(item, payload), item)

    def _arguments(self, payload: _Payload) -> None:
        self.assembly.arguments(self._find(payload), argument_text(payload.get("delta")))

    def _arguments_done(self, payload: _Payload) -> None:
        self._complete(self._find(payload), payload)

    def _summary_part(self, payload: _Payload) -> None:
        self._thoughts.next_summary(_output(payload), payload.get("summary_index"))

    def _summarised(self, payload: _Payload) -> None:
        delta, output = _delta(payload), _output(payload)
        self._thoughts.summarise(output, payload.get("summary_index"), delta)
        self.assembly.thought(delta, output)

    def _thought(self, payload: _Payload) -> None:
        delta, output = _delta(payload), _output(payload)
        self._thoughts.think(output, delta)
        self.assembly.thought(delta, output)

    def _ended(self, payload: _Payload) -> None:
        """The answer is complete: take from it what the stream has not told."""
        assembly, body = self.assembly, _embedded(payload)
        if body.get("status") in (None, "queued", "in_progress"):
            kind = payload.get("type")
            body = {**body, "status": "incomplete" if kind == "response.incomplete" else "completed"}
        read_status(assembly, body)
        read_end(assembly, body)
        items = output_items(body)
        messages = [item for item in items if item.get("type") == "message"]
        if not assembly.texts:
            assembly.text("".join(map(message_text, messages)))
        if not assembly.refusal:
            assembly.refused("".join(map(message_refusal, messages)))
        self._take_missing_calls(body)
        told = "".join(reasoning_of(item) for item in items if item.get("type") == "reasoning")
        assembly.reasoning = [told or self._thoughts.text]
        self.finished = self.done = True

    # -- how it is done --------------------------------------------------------------------------------

    def _failed(self, payload: _Payload) -> AllmError:
        nested = payload.get("error")
        flat = {name: value for name, value in payload.items() if name != "type"}
        return failure(flat if nested is None else nested, self.redactor)

    def _find(self, payload: _Payload) -> PartialCall:
        """Return the call that `item_id`, else `output_index`, points to, known by name or not yet."""
        item_id, output = payload.get("item_id"), payload.get("output_index")
        call = self._by_item.get(item_id) if isinstance(item_id, str) else None
        if call is None and type(output) is int:
            call = self._by_output.get(output)
        if call is None:
            call = self.assembly.new_call()
            self._note(call, item_id, output)
        return call

    def _register(self, item: _Payload, payload: _Payload) -> PartialCall:
        """Return the call an item announces.

        An item with an id of its own is another call than the one in its place, unless they agree on what the
        call is called: some gateways give an item a new id in every event.
        """
        item_id, output = item.get("id"), payload.get("output_index")
        wire_id = item.get("call_id") or item_id
        call = self._by_item.get(item_id) if isinstance(item_id, str) and item_id else None
        if call is None and type(output) is int:
            there = self._by_output.get(output)
            if there is not None and (
                not item_id or there not in self._with_item or there.wire_id == wire_id
            ):
                call = there
        if call is None:
            call = self.assembly.new_call()
        self._note(call, item_id, output)
        self.assembly.identify(call, wire_id, item.get("name"))
        return call

    def _note(self, call: PartialCall, item_id: Any, output: Any) -> None:
        if isinstance(item_id, str) and item_id:
            self._by_item[item_id] = call
            self._with_item.add(call)
        if type(output) is int:
            self._by_output[output] = call

    def _complete(self, call: PartialCall, source: _Payload) -> None:
        """Deliver what is missing of the arguments; where the texts disagree, what was delivered stands."""
        whole, sent = argument_text(source.get("arguments")), call.sent
        if len(whole) > len(sent) and whole.startswith(sent):
            self.assembly.arguments(call, whole[len(sent) :])

    def _take_missing_calls(self, body: _Payload) -> None:
        """Announce the calls of the whole answer that no event has announced, and complete those it knows."""
        known = set(self.assembly.calls)
        output = body.get("output")
        for position, item in enumerate(output if isinstance(output, list) else []):
            if not isinstance(item, dict) or item.get("type") != "function_call":
                continue
            wire_id = item.get("call_id") or item.get("id")
            item_id = item.get("id")
            there = self._by_item.get(item_id) if isinstance(item_id, str) else None
            if there is None and position in self._by_output:
                there = self._by_output[position]
            if there not in known:
                there = next((call for call in known if call.wire_id == wire_id), None)
            if there is None:
                there = self.assembly.new_call()
            known.discard(there)
            if not there.announced:
                self.assembly.identify(there, wire_id, item.get("name"))
            if there.wire_id == wire_id:
                self._complete(there, item)


def _embedded(payload: _Payload) -> _Payload:
    body = payload.get("response")
    return body if isinstance(body, dict) else {}


def _delta(payload: _Payload) -> str:
    delta = payload.get("delta")
    return delta if isinstance(delta, str) else ""


def _output(payload: _Payload) -> int:
    output = payload.get("output_index")
    return output if type(output) is int else 0


_EFFECTS: dict[str, Callable[[ResponsesDecoder, _Payload], None]] = {
    "response.created": ResponsesDecoder._named,  # noqa: SLF001 -- the table belongs to the class
    "response.queued": ResponsesDecoder._named,  # noqa: SLF001
    "response.in_progress": ResponsesDecoder._named,  # noqa: SLF001
    "response.output_item.added": ResponsesDecoder._item_added,  # noqa: SLF001
    "response.output_item.done": ResponsesDecoder._item_done,  # noqa: SLF001
    "response.refusal.delta": ResponsesDecoder._refused,  # noqa: SLF001
    "response.function_call_arguments.delta": ResponsesDecoder._arguments,  # noqa: SLF001
    "response.function_call_arguments.done": ResponsesDecoder._arguments_done,  # noqa: SLF001
    "response.reasoning_summary_part.added": ResponsesDecoder._summary_part,  # noqa: SLF001
    "response.reasoning_summary_text.delta": ResponsesDecoder._summarised,  # noqa: SLF001
    "response.reasoning_text.delta": ResponsesDecoder._thought,  # noqa: SLF001
    "response.completed": ResponsesDecoder._ended,  # noqa: SLF001
    "response.incomplete": ResponsesDecoder._ended,  # noqa: SLF001
}
