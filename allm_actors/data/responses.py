"""What a provider answered, and what it cost."""

from typing import Annotated, Literal

from pydantic import Field

from allm_actors.data.base import Float, JsonData, JsonObject, Model
from allm_actors.data.messages import Message, ToolCall
from allm_actors.errors import AllmError, ResponseError

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error", "other"]
Count = Annotated[int, Field(ge=0)]


class Usage(Model):
    """Token counts and costs: `None` is "not reported", `0` is "reported zero".

    Attributes:
        input_tokens: The whole prompt, cache reads and writes included.
    """

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cached_input_tokens: Count | None = None
    cache_write_input_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    total_tokens: Count | None = None
    input_cost: Float | None = None
    output_cost: Float | None = None
    total_cost: Float | None = None
    tool_usage: JsonObject = Field(default_factory=dict)
    extra: JsonObject = Field(default_factory=dict)

    def total(self) -> int | None:
        """Return `total_tokens`, else input plus output when both are known, else `None`."""
        if self.total_tokens is not None:
            return self.total_tokens
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


class Response(Model):
    """A model's answer, whole, partial or failed.

    Attributes:
        id: The provider's id of the answer.
        request_id: The library's id of the run.
        output_text: The raw text, perhaps partial; reading it never raises.
        raw_finish_reason: The provider's own word.
        reasoning: Readable reasoning.
        error: Why there is no (whole) answer.
        raw: The provider's decoded body, where there was one.
    """

    id: str | None = None
    request_id: str | None = None
    model: str | None = None
    message: Message | None = None
    output_text: str | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    usage: Usage = Field(default_factory=Usage)
    error: AllmError | None = None
    raw: JsonData = None
    provider_data: JsonObject = Field(default_factory=dict)
    metadata: JsonObject = Field(default_factory=dict)

    @property
    def text(self) -> str | None:
        """The answer's text: `output_text`, else string content of `message`, else `None`.

        Raises:
            AllmError: An equal copy of `error`, if there is one.
        """
        if self.error is not None:
            raise self.error.replace()
        if isinstance(self.output_text, str):
            return self.output_text
        if self.message is not None and isinstance(self.message.content, str):
            return self.message.content
        return None

    def require_text(self) -> str:
        """Return the text of an answer that ended well, possibly `""`.

        Raises:
            AllmError: An equal copy of `error`, if there is one.
            ResponseError: `non_stop_finish` (with the finish reason in `metadata`), `structured_content` or
                `empty_response`.
        """
        if self.error is not None:
            raise self.error.replace()
        if self.finish_reason != "stop":
            raise ResponseError(
                "non_stop_finish",
                f"the answer ended with finish reason {self.finish_reason!r}, not 'stop'",
                metadata={"finish_reason": self.finish_reason},
            )
        if self.message is not None and isinstance(self.message.content, list):
            raise ResponseError("structured_content")
        text = self.text
        if text is None:
            raise ResponseError("empty_response")
        return text
