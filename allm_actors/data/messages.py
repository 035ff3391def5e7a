"""Messages and what they are made of: parts, images, tool calls."""

from typing import Annotated, Literal

from pydantic import Field

from allm_actors.data._arguments import parse_arguments
from allm_actors.data.base import JsonObject, Model, OneOf, Text
from allm_actors.data.images import Image

Role = Literal["system", "user", "assistant", "tool"]
Detail = Literal["auto", "low", "high"]


class TextPart(Model):
    """A piece of text in a message's content."""

    type: Literal["text"] = "text"
    text: Text
    metadata: JsonObject = Field(default_factory=dict)


class ImagePart(Model):
    """An image in a message's content; `detail` says how closely the model shall look."""

    type: Literal["image"] = "image"
    image: Image
    detail: Detail = "auto"
    metadata: JsonObject = Field(default_factory=dict)


Part = Annotated[TextPart | ImagePart, OneOf("a text part or an image part", text=TextPart, image=ImagePart)]
Content = Annotated[str | list[Part], OneOf("a string or a list of parts", str_=Text, list_=list[Part])]


class ToolCall(Model):
    """A tool call the model made.

    Attributes:
        arguments: The parsed arguments; `{}` when the text is no JSON object.
        raw_arguments: The provider's JSON text, verbatim.
    """

    id: str
    name: str
    arguments: JsonObject
    raw_arguments: str | None = None
    provider_data: JsonObject = Field(default_factory=dict)
    metadata: JsonObject = Field(default_factory=dict)

    @property
    def invalid_arguments(self) -> bool:
        """Whether the model wrote something that is not a JSON object."""
        text = self.raw_arguments
        return bool(text and text.strip()) and parse_arguments(text or "") is None


class Message(Model):
    """A message of a conversation.

    Attributes:
        content: Text, or a list of parts; both may be empty. Text that cannot be written as UTF-8 (half of a
            surrogate pair) is refused.
        tool_call_id: Of a `tool` message: the call it answers.
        tool_calls: Of an `assistant` message: the calls it made.
        ask_user_for: Of a question put to the user: the id of the tool call that asks.
    """

    role: Role
    content: Content
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    ask_user_for: str | None = None
    provider_data: JsonObject = Field(default_factory=dict)
    metadata: JsonObject = Field(default_factory=dict)

    @staticmethod
    def normalize_content(content: str | list[TextPart | ImagePart]) -> list[TextPart | ImagePart]:
        """Return content as a list of parts: a string becomes one `TextPart`, a list comes back as it is."""
        return [TextPart(text=content)] if isinstance(content, str) else content
