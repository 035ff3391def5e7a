"""What is asked of a model, and the ways to say it."""

from typing import Annotated, Any, Literal, TypeAlias

import pydantic
from pydantic import Field

from allm_actors.data._arguments import compact_json
from allm_actors.data._schema import normalize_schema
from allm_actors.data.base import JsonObject, JudgedFloat, Model, OneOf, relocated
from allm_actors.data.messages import Message
from allm_actors.data.threads import Thread
from allm_actors.data.tools import Tool
from allm_actors.errors._json import check_json


class ModelRef(Model):
    """A model that a catalog knows; accepted wherever a model's name is.

    Attributes:
        capabilities: What it can do; a missing key says nothing.
        limits: Its limits.
        pricing: `input` and `output`, per million tokens.
    """

    provider: str
    id: str
    capabilities: JsonObject = Field(default_factory=dict)
    limits: JsonObject = Field(default_factory=dict)
    pricing: JsonObject = Field(default_factory=dict)
    metadata: JsonObject = Field(default_factory=dict)


class PromptCache(Model):
    """Asks the provider to keep the prompt's beginning for later requests.

    Attributes:
        key: Requests with equal keys share their cache.
        retention: How long it is worth keeping.
    """

    key: str | None = None
    retention: Literal["short", "long"] = "short"
    metadata: JsonObject = Field(default_factory=dict)


class Request(Model):
    """One request to a model.

    Attributes:
        tool_choice: `auto`, `none`, `required`, a tool's name, or a provider's dict.
        response_format: `"text"`, `{"type": "json_object"}`, a `json_schema(...)` dict, or any provider dict.
        options: Goes to the provider as it is.
    """

    messages: list[Message]
    model: Annotated[str | ModelRef, OneOf("a string or a ModelRef", str_=str, model_ref=ModelRef)] | None = (
        None
    )
    tools: list[Tool] = Field(default_factory=list)
    tool_choice: (
        Annotated[str | dict[str, Any], OneOf("a string or a dict", str_=str, dict_=JsonObject)] | None
    ) = None
    temperature: JudgedFloat | None = None
    max_tokens: int | None = None
    response_format: (
        Annotated[str | dict[str, Any], OneOf("a string or a dict", str_=str, dict_=JsonObject)] | None
    ) = None
    structured_finalize: bool = False
    prompt_cache: PromptCache | None = None
    options: JsonObject = Field(default_factory=dict)
    metadata: JsonObject = Field(default_factory=dict)


Input: TypeAlias = (
    str
    | Message
    | list[Message]  # lists are invariant: each that a program may have in a variable is named
    | list[str]
    | list[dict[str, Any]]
    | list[str | Message]
    | list[str | Message | dict[str, Any]]
    | Thread
    | Request
)
"""What a single request can be made from."""


def system(text: str) -> Message:
    """Return a system message."""
    return Message(role="system", content=text)


def user(text: str) -> Message:
    """Return a user message."""
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    """Return an assistant message."""
    return Message(role="assistant", content=text)


def tool_result(id: str, content: Any) -> Message:  # noqa: A002 - the name of the field it fills
    """Return the tool message that answers a call: the string, or the compact JSON of a dict or list.

    Raises:
        TypeError: The content is neither.
        pydantic.ValidationError: The dict or list holds something that is not JSON.
    """
    if not isinstance(content, str | dict | list):
        raise TypeError(f"content must be a string, a dict or a list, got {type(content).__name__}")
    text = content if isinstance(content, str) else compact_json(check_json(content, title="content"))
    return Message(role="tool", content=text, tool_call_id=id)


def json_schema(name: str, schema: dict[str, Any], *, strict: bool = True) -> dict[str, Any]:
    """Return the response format that asks for JSON of this schema.

    Enum members in the schema become their values.
    """
    return {"type": "json_schema", "name": name, "schema": normalize_schema(schema), "strict": strict}


def request(input: Input, **fields: Any) -> Request:  # noqa: A002 - what every function of the library calls it
    """Return a request made from any input a single request takes.

    Args:
        input: A string, a message, a list of strings, messages and message dicts, a thread, or a request.
        fields: Fields of the request; over those of a request given as input.

    Raises:
        TypeError: The input, or an entry of the list, is something else.
        pydantic.ValidationError: A field is unknown or ill-typed, or a message dict is.
    """
    if isinstance(input, Request):
        return Request(**{**dict(input), **fields}) if fields else input
    return Request(messages=to_messages(input), **fields)


def to_messages(input: Any) -> list[Message]:  # noqa: A002
    """Return the messages of a string, a message, a list of strings, messages and message dicts, or a thread.

    Raises:
        TypeError: The input, or an entry of the list, is something else; a `Request`, too.
        pydantic.ValidationError: A message dict is no message.
    """
    if isinstance(input, str):
        return [user(input)]
    if isinstance(input, Message):
        return [input]
    if isinstance(input, Thread):
        return list(input.messages)
    if isinstance(input, list):
        return [_to_message(entry, index) for index, entry in enumerate(input)]
    hint = ""
    if isinstance(input, dict):
        hint = "; put a message dict into a list"
    elif isinstance(input, Request):
        hint = "; only generate and streams of one request take that"
    raise TypeError(
        f"input must be a str, a Message, a list of strings, messages and message dicts, or a Thread; "
        f"got {type(input).__name__}{hint}"
    )


def to_thread(input: Any) -> Thread:  # noqa: A002
    """Return a thread of the same inputs; a thread comes back as it is.

    Raises:
        TypeError: As `to_messages`.
        pydantic.ValidationError: As `to_messages`.
    """
    return input if isinstance(input, Thread) else Thread(messages=to_messages(input))


def _to_message(entry: Any, index: int) -> Message:
    if isinstance(entry, str):
        return user(entry)
    if isinstance(entry, Message):
        return entry
    if isinstance(entry, dict):
        try:
            return Message.model_validate(entry)
        except pydantic.ValidationError as error:
            raise relocated(error, "input", (index,)) from None
    raise TypeError(f"input[{index}] must be a str, a Message or a message dict, got {type(entry).__name__}")
