"""The 16 events a stream is made of: a closed set, told apart by `type`.

An adapter emits the first nine classes only, in this order:

    MessageStarted
    ( TextDelta | ToolCallStarted | ToolCallDelta | ToolCallCompleted | RawChunk )*
    then either   TextCompleted?  ToolCallCompleted*  RawChunk*  MessageCompleted
    or            RawChunk*  ErrorEvent

or a lone `ErrorEvent`. The step layer adds its events after these, and ends each step with `StepCompleted`;
a chat ends with `ChatCompleted`.

Events check their fields when they are built, so a bad one fails in the code that built it.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field, GetCoreSchemaHandler, GetPydanticSchema, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from allm_actors.data.base import JsonObject, Model, Opaque
from allm_actors.data.messages import Message, ToolCall
from allm_actors.data.responses import FinishReason, Response, Usage
from allm_actors.data.results import ChatResult, Mode
from allm_actors.data.threads import Thread
from allm_actors.errors import AllmError, ToolError
from allm_actors.errors._json import check_json


def _payload(value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
    """A usage report carries a `Usage`; every other kind carries JSON."""
    if info.data.get("kind") == "usage":
        return handler(value)
    return check_json(value)


def _payload_schema(_source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    as_it_is = core_schema.plain_serializer_function_ser_schema(lambda value: value)
    return core_schema.with_info_wrap_validator_function(
        _payload, handler.generate_schema(Usage), serialization=as_it_is
    )


_Payload = Annotated[Any, GetPydanticSchema(_payload_schema)]


class MessageStarted(Model):
    """The provider has begun to answer: the first event of an adapter stream."""

    type: Literal["message_started"] = "message_started"
    message: Message


class TextDelta(Model):
    """A piece of text, never empty."""

    type: Literal["text_delta"] = "text_delta"
    id: str | None
    delta: str


class TextCompleted(Model):
    """The whole text, once, if there was any."""

    type: Literal["text_completed"] = "text_completed"
    id: str | None
    text: str


class ToolCallStarted(Model):
    """The model calls a tool: its id and name are known."""

    type: Literal["tool_call_started"] = "tool_call_started"
    id: str
    name: str


class ToolCallDelta(Model):
    """A piece of a call's argument text."""

    type: Literal["tool_call_delta"] = "tool_call_delta"
    id: str
    arguments_delta: str


class ToolCallCompleted(Model):
    """A whole tool call, once per call. `arguments` is `{}` when `raw_arguments` is no JSON object."""

    type: Literal["tool_call_completed"] = "tool_call_completed"
    id: str
    name: str
    arguments: JsonObject
    raw_arguments: str
    provider_data: JsonObject = Field(default_factory=dict)


class MessageCompleted(Model):
    """The answer is whole: the last event of a good adapter stream."""

    type: Literal["message_completed"] = "message_completed"
    message: Message
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    response_id: str | None = None
    model: str | None = None
    usage: Usage | None = None
    reasoning: str | None = None
    refusal: str | None = None
    provider_data: JsonObject = Field(default_factory=dict)


class RawChunk(Model):
    """Something of the provider's own: of kind `usage` the payload is a `Usage`, of any other kind JSON."""

    type: Literal["raw_chunk"] = "raw_chunk"
    kind: str = "provider"
    payload: _Payload


class ErrorEvent(Model):
    """The stream failed: the last event of a failed adapter stream."""

    type: Literal["error"] = "error"
    error: AllmError


class ToolExecutionStarted(Model):
    """A tool's handler is about to run."""

    type: Literal["tool_execution_started"] = "tool_execution_started"
    id: str
    name: str
    arguments: JsonObject


class ToolExecutionCompleted(Model):
    """A tool's handler has ended; `result` is what it produced, or the `ToolError` it ended in."""

    type: Literal["tool_execution_completed"] = "tool_execution_completed"
    id: str
    name: str
    result: Opaque


class ToolResultEncoded(Model):
    """The content of the tool message that answers a call."""

    type: Literal["tool_result_encoded"] = "tool_result_encoded"
    id: str
    content: str


class AskUserRequested(Model):
    """A tool asks the user."""

    type: Literal["ask_user_requested"] = "ask_user_requested"
    tool_call_id: str
    tool_name: str
    question: str
    options: JsonObject = Field(default_factory=dict)


class ToolHalt(Model):
    """A tool, or its error, ends the run. `content` answers the call; `error` is set for `tool_error`."""

    type: Literal["tool_halt"] = "tool_halt"
    tool_call_id: str
    reason: str
    result: Opaque
    content: str | None = None
    error: ToolError | None = None


class StepCompleted(Model):
    """A turn is over, once per step."""

    type: Literal["step_completed"] = "step_completed"
    response: Response
    thread: Thread
    mode: Mode = "auto"
    manual_tool_calls: list[ToolCall] = Field(default_factory=list)


class ChatCompleted(Model):
    """The run is over: the last event of a chat stream."""

    type: Literal["chat_completed"] = "chat_completed"
    result: ChatResult


Event: TypeAlias = Annotated[
    MessageStarted
    | TextDelta
    | TextCompleted
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallCompleted
    | MessageCompleted
    | RawChunk
    | ErrorEvent
    | ToolExecutionStarted
    | ToolExecutionCompleted
    | ToolResultEncoded
    | AskUserRequested
    | ToolHalt
    | StepCompleted
    | ChatCompleted,
    Field(discriminator="type"),
]
"""Any event."""

_CLASSES: tuple[type[Model], ...] = get_args(get_args(Event)[0])
_EXACT = frozenset(_CLASSES)

EVENT_TYPES: tuple[str, ...] = tuple(kind.model_fields["type"].default for kind in _CLASSES)
"""The `type` of every event."""


def is_event(value: object) -> bool:
    """Return whether `value` is an instance of one of the 16 event classes."""
    return type(value) in _EXACT or isinstance(value, _CLASSES)
