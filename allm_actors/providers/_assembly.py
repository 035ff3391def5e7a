"""The one place where an answer is put together, whatever the provider.

A decoder tells an `Assembly` what the wire said: a piece of text, a piece of a call's arguments, a usage. The
assembly gives back our events in the order every consumer relies on, and at the end either the closing
sequence of a stream or the `Response` of a whole body, made from the same facts.

Guarantees:
    - `MessageStarted` comes first and once. No delta is empty.
    - A call is announced once, when its id and its name are both known; fragments that came earlier follow
      as one delta. Ids are unique within the message.
    - The closing sequence is: the whole text, if there was any; every call, in the order of first
      appearance; the usage, if the provider sent any; the completed message.
    - A call that never got a name is left out; one that never got an id is given one.
    - An answer of more than `MAX_CHARACTERS`, or of more than `MAX_PARTS` parts that are kept apart, ends in
      `AdapterError("malformed_response")`: no server can make its client hold more.
"""

from collections.abc import Callable
from typing import Any, Literal

from allm_actors.data import (
    Event,
    Image,
    ImagePart,
    Message,
    MessageCompleted,
    MessageStarted,
    RawChunk,
    Response,
    TextCompleted,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from allm_actors.errors import AllmError
from allm_actors.providers._errors import malformed_response
from allm_actors.providers._json import plain
from allm_actors.providers._partial_call import NOTHING, PartialCall, generated_id
from allm_actors.providers._redact import SHAPES_ONLY, Redactor

__all__ = ["Assembly", "Finish"]

MAX_CHARACTERS = 64 * 1024 * 1024
"""The most that one answer may say in text, reasoning, refusal, arguments and images together."""
MAX_PARTS = 1024
"""The most tool calls, images and reasoning blocks that one answer may have, together."""

# A stream is made of these. The class itself does the same by way of a Python frame, half as long again.
_text_delta: Callable[[dict[str, Any]], TextDelta] = TextDelta.__pydantic_validator__.validate_python

Finish = Literal["stop", "length", "tool_calls", "content_filter", "other"]


class Assembly:
    """One answer in the making. Serves one thread.

    Attributes:
        events: What has not been drained yet, in order.
        started: The message was opened.
        response_id: As the provider named it.
        model: As the provider named it.
        usage: What the provider reported, or `None`.
        finish_reason: Ours, before calls and refusals are weighed in; `None` if the provider gave none.
        raw_finish_reason: The provider's own word.
        facts: What goes into the `provider_data` of the response and of `MessageCompleted`.
        message_facts: What goes into that of the message, to be sent back with it.
        reasoning: Pieces of the readable reasoning.
        refusal: Pieces of the refusal.
        calls: The calls, in order of first appearance.
    """

    __slots__ = (
        "_content",
        "_ids",
        "_parts",
        "_room",
        "calls",
        "events",
        "facts",
        "finish_reason",
        "message_facts",
        "model",
        "provider",
        "raw_finish_reason",
        "reasoning",
        "redactor",
        "refusal",
        "response_id",
        "started",
        "texts",
        "usage",
    )

    def __init__(self, provider: str, *, redactor: Redactor = SHAPES_ONLY) -> None:
        self.provider, self.redactor = provider, redactor
        self.events: list[Event] = []
        self.started = False
        self.response_id: str | None = None
        self.model: str | None = None
        self.usage: Usage | None = None
        self.finish_reason: Finish | None = None
        self.raw_finish_reason: str | None = None
        self.facts: dict[str, Any] = {}
        self.message_facts: dict[str, Any] = {}
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: list[PartialCall] = []
        self._content: list[TextPart | ImagePart] = []  # filled only where there are images
        self._ids: set[str] = set()
        self._room = MAX_CHARACTERS
        self._parts = 0

    def drain(self) -> list[Event]:
        """Return the events since the last call."""
        events, self.events = self.events, []
        return events

    # -- what the wire says ----------------------------------------------------------------------------

    def open(self) -> None:
        """The first well-formed wire event is here."""
        if not self.started:
            self.started = True
            self.events.append(MessageStarted(message=Message(role="assistant", content="")))

    def text(self, delta: str) -> None:
        """A piece of the answer's text."""
        if delta:
            self.hold(delta)
            self.texts.append(delta)
            self.events.append(_text_delta({"id": None, "delta": delta}))

    def thought(self, delta: str, index: int = 0) -> None:
        """A piece of readable reasoning."""
        if delta:
            self.hold(delta)
            self.reasoning.append(delta)
            self.events.append(RawChunk(kind="thinking_delta", payload={"index": index, "delta": delta}))

    def refused(self, delta: str) -> None:
        """A piece of the words in which the model declines."""
        if delta:
            self.hold(delta)
            self.refusal.append(delta)
            self.events.append(RawChunk(kind="refusal_delta", payload={"delta": delta}))

    def image(self, mime_type: str, data: str) -> None:
        """An image the model drew, base64 as sent; it stands where it came between the texts."""
        self.hold(data)
        self.part()
        self._gather_text()
        self._content.append(ImagePart(image=Image.from_base64(data, mime_type)))
        self.events.append(RawChunk(kind="image", payload={"mime_type": mime_type, "data": data}))

    def unknown(self, name: str | None, data: Any) -> None:
        """A wire event nobody here knows: passed on as it is, secrets aside."""
        payload = {"provider": self.provider, "event": name, "data": plain(data)}
        self.events.append(RawChunk(kind="unknown_event", payload=self.redactor.json(payload)))

    def new_call(self, *, whole: Any = NOTHING) -> PartialCall:
        """A tool call appears."""
        self.part()
        call = PartialCall()
        call.whole = whole
        self.calls.append(call)
        return call

    def identify(self, call: PartialCall, wire_id: Any, name: Any) -> None:
        """Something of a call's identity: the first non-empty id and name count.

        Values that are no strings are ignored. Knowing both announces the call.
        """
        if not call.wire_id and isinstance(wire_id, str) and wire_id:
            call.wire_id = wire_id
        if not call.name and isinstance(name, str) and name:
            call.name = name
        if not call.announced and call.wire_id and call.name:
            self._announce(call)

    def identify_by_name(self, call: PartialCall, name: Any) -> None:
        """Name a call that will never have an id of its own: it is given one and announced."""
        if not call.name and isinstance(name, str):
            call.name = name
        if not call.announced and call.name:
            self._announce(call)

    def arguments(self, call: PartialCall, fragment: str) -> None:
        """A piece of a call's argument text; held back until the call can be announced."""
        if fragment:
            self.hold(fragment)
            call.add(fragment)
            if call.announced:
                self.events.append(ToolCallDelta(id=call.id, arguments_delta=fragment))

    # -- how much there may be -------------------------------------------------------------------------

    def hold(self, piece: str) -> None:
        """Count what is kept of the answer until it ends.

        Raises:
            AdapterError: `malformed_response`: no answer is that long.
        """
        self._room -= len(piece)
        if self._room < 0:
            raise self._too_much(f"the answer is longer than {MAX_CHARACTERS // 1024**2} Mi characters")

    def part(self) -> None:
        """Count a part that is kept apart from the others.

        Raises:
            AdapterError: `malformed_response`: no answer has that many.
        """
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise self._too_much(f"the answer has more than {MAX_PARTS} calls, images and reasoning blocks")

    # -- the end ---------------------------------------------------------------------------------------

    def close(self) -> list[Event]:
        """Return what is left and the closing sequence."""
        self.open()
        calls = self._complete_calls()
        text = "".join(self.texts)
        if text:
            self.events.append(TextCompleted(id=None, text=text))
        self.events.extend(
            ToolCallCompleted(
                id=call.id,
                name=call.name,
                arguments=call.arguments,
                raw_arguments=call.raw_arguments or "{}",
                provider_data=call.provider_data,
            )
            for call in calls
        )
        usage = self._usage()
        if usage is not None:
            self.events.append(RawChunk(kind="usage", payload=usage))
        self.events.append(
            MessageCompleted(
                message=self._message(text, calls),
                finish_reason=self._finish(calls),
                raw_finish_reason=self._named(self.raw_finish_reason),
                response_id=self._named(self.response_id),
                model=self._named(self.model),
                usage=usage,
                reasoning="".join(self.reasoning) or None,
                refusal="".join(self.refusal) or None,
                provider_data=self._tagged(self.redactor.literals(self.facts)),
            )
        )
        return self.drain()

    def response(self, raw: Any) -> Response:
        """Return the response of a whole body, which is `raw`."""
        calls = self._complete_calls()
        text = "".join(self.texts)
        return Response(
            id=self._named(self.response_id),
            model=self._named(self.model),
            message=self._message(text, calls),
            output_text=text,
            tool_calls=calls,
            finish_reason=self._finish(calls),
            raw_finish_reason=self._named(self.raw_finish_reason),
            reasoning="".join(self.reasoning) or None,
            refusal="".join(self.refusal) or None,
            usage=self._usage() or Usage(),
            raw=self.redactor.literals(plain(raw)),
            provider_data=self._tagged(self.redactor.literals(self.facts)),
        )

    # -- how it is done --------------------------------------------------------------------------------

    def _too_much(self, problem: str) -> AllmError:
        return malformed_response(self.provider, self.provider, problem)

    def _announce(self, call: PartialCall) -> None:
        if call.wire_id and call.wire_id not in self._ids:
            call.id = call.wire_id
        else:
            call.id = generated_id()
            call.facts["generated_id"] = True
        self._ids.add(call.id)
        held = call.release()
        self.events.append(ToolCallStarted(id=call.id, name=call.name))
        if held:
            self.events.append(ToolCallDelta(id=call.id, arguments_delta=held))

    def _complete_calls(self) -> list[ToolCall]:
        named = [call for call in self.calls if call.name]
        for call in named:
            if not call.announced:
                self._announce(call)
        return [call.complete(self.provider) for call in named]

    def _finish(self, calls: list[ToolCall]) -> Finish:
        finish = self.finish_reason
        if finish is None:
            return "tool_calls" if calls else "other"
        if finish == "stop" and self.refusal:
            return "content_filter"
        if finish == "stop" and calls:
            return "tool_calls"  # some providers say so only by sending calls
        return finish

    def _message(self, text: str, calls: list[ToolCall]) -> Message:
        content: str | list[TextPart | ImagePart] = text
        if self._content:
            self._gather_text()
            content = self._content
        return Message(
            role="assistant",
            content=content,
            tool_calls=calls,
            provider_data=self._tagged(self.message_facts),
        )

    def _gather_text(self) -> None:
        """Make one part of the text that came since the last image."""
        gathered = sum(len(part.text) for part in self._content if isinstance(part, TextPart))
        if text := "".join(self.texts)[gathered:]:
            self._content.append(TextPart(text=text))

    def _usage(self) -> Usage | None:
        usage = self.usage
        if usage is None or not usage.extra:
            return usage
        return usage.model_copy(update={"extra": self.redactor.literals(usage.extra)})

    def _tagged(self, facts: dict[str, Any]) -> dict[str, Any]:
        return {self.provider: plain(facts)} if facts else {}

    def _named(self, name: str | None) -> str | None:
        return None if name is None else self.redactor.literal(name)
