"""The error classes, each with its closed set of reasons."""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, get_args

from allm_actors.errors._base import AllmError, FieldError

EngineReason = Literal[
    "missing_adapter", "missing_stream_adapter", "missing_model", "missing_key", "unknown_tool", "engine_down"
]
AdapterReason = Literal[
    "rate_limited",
    "provider_unavailable",
    "timeout",
    "network_error",
    "adapter_down",
    "authentication_failed",
    "invalid_request",
    "content_filter",
    "context_length_exceeded",
    "malformed_response",
    "unsupported_feature",
    "no_scripted_response",
    "unknown",
]
StreamReason = Literal["cancelled", "timeout", "malformed_event", "unknown"]
ToolReason = Literal[
    "handler_raised",
    "handler_exit",
    "timeout",
    "invalid_return",
    "invalid_arguments",
    "not_found",
    "encoding_failed",
]
SessionReason = Literal["session_in_error_state", "invalid_status_for_operation", "unknown_tool_call_id"]
ResponseReason = Literal["non_stop_finish", "structured_content", "empty_response"]
ValidationReason = Literal[
    "invalid_request",
    "invalid_message",
    "invalid_tool",
    "invalid_thread",
    "invalid_session",
    "unsupported_capability",
]
CatalogReason = Literal["catalog_not_loaded", "no_match"]
ImageSourceReason = Literal["remote_source", "missing_mime_type", "invalid_base64", "unreadable_file"]

_RETRYABLE = frozenset({"rate_limited", "provider_unavailable", "timeout", "network_error", "adapter_down"})

_IMAGE_SENTENCES: dict[str, str] = {
    "remote_source": "the image is behind a URL, and reading an image never touches the network",
    "missing_mime_type": "the image has no MIME type",
    "invalid_base64": "the image's text is not valid base64",
    "unreadable_file": "the image's file cannot be read",
}


class EngineError(AllmError):
    """The engine cannot serve the call: it lacks something, or is down."""

    kind = "engine"
    _reasons = get_args(EngineReason)
    _extra: ClassVar[dict[str, type]] = {"provider": str}

    provider: str | None

    def __init__(
        self,
        reason: str,
        message: str | None = None,
        *,
        provider: str | None = None,
        cause: Any = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(reason, message, cause=cause, metadata=metadata, provider=provider)


class AdapterError(AllmError):
    """A provider refused the call, or could not be reached.

    Attributes:
        provider: The adapter's tag.
        status: The HTTP status, if there was one.
        retry_after: Seconds the provider asks to wait, if it said so.
        request_id: The provider's own id of the request.
    """

    kind = "adapter"
    _reasons = get_args(AdapterReason)
    _extra: ClassVar[dict[str, type]] = {
        "provider": str,
        "status": int,
        "retry_after": float,
        "request_id": str,
    }
    _who = "provider"

    provider: str | None
    status: int | None
    retry_after: float | None
    request_id: str | None

    def __init__(  # noqa: PLR0913 - its fields, by name
        self,
        reason: str,
        message: str | None = None,
        *,
        provider: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        cause: Any = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            reason,
            message,
            cause=cause,
            metadata=metadata,
            provider=provider,
            status=status,
            retry_after=retry_after,
            request_id=request_id,
        )

    @property
    def retryable(self) -> bool:
        """Whether asking again may help: a hint to callers."""
        return self.reason in _RETRYABLE


class StreamError(AllmError):
    """A stream was cancelled, ran out of time, or broke its own grammar.

    Attributes:
        provider: The adapter's tag.
        event_index: The 0-based place of the event that was none.
    """

    kind = "stream"
    _reasons = get_args(StreamReason)
    _extra: ClassVar[dict[str, type]] = {"provider": str, "event_index": int}

    provider: str | None
    event_index: int | None

    def __init__(  # noqa: PLR0913 - its fields, by name
        self,
        reason: str,
        message: str | None = None,
        *,
        provider: str | None = None,
        event_index: int | None = None,
        cause: Any = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            reason, message, cause=cause, metadata=metadata, provider=provider, event_index=event_index
        )


class ToolError(AllmError):
    """A tool call failed; the message is written for the model to read."""

    kind = "tool"
    _reasons = get_args(ToolReason)
    _extra: ClassVar[dict[str, type]] = {"tool_name": str, "tool_call_id": str}
    _who = "tool_name"

    tool_name: str | None
    tool_call_id: str | None

    def __init__(  # noqa: PLR0913 - its fields, by name
        self,
        reason: str,
        message: str | None = None,
        *,
        tool_name: str | None = None,
        tool_call_id: str | None = None,
        cause: Any = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            reason, message, cause=cause, metadata=metadata, tool_name=tool_name, tool_call_id=tool_call_id
        )


class SessionError(AllmError):
    """The session's status does not allow the operation."""

    kind = "session"
    _reasons = get_args(SessionReason)


class ResponseError(AllmError):
    """There is no plain, finished text answer to return."""

    kind = "response"
    _reasons = get_args(ResponseReason)


class ValidationError(AllmError):
    """The data is well typed but means nothing sensible; not to be confused with `pydantic.ValidationError`.

    Attributes:
        errors: Every problem found, as `FieldError(path, reason)`.
    """

    kind = "validation"
    _reasons = get_args(ValidationReason)
    _extra: ClassVar[dict[str, type]] = {"errors": list}

    errors: list[FieldError]

    def __init__(
        self,
        reason: str,
        errors: Iterable[tuple[Any, str]],
        message: str | None = None,
        *,
        cause: Any = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(reason, message, cause=cause, metadata=metadata, errors=list(errors))

    def _default_message(self) -> str:
        return f"validation failed: {self.reason} ({len(self.errors)} error(s))"


class CatalogError(AllmError):
    """No model catalog is registered, or it knows no model that fits."""

    kind = "catalog"
    _reasons = get_args(CatalogReason)


class ImageSourceError(ValueError):
    """An image's bytes cannot be had from its source.

    Attributes:
        reason: `remote_source`, `missing_mime_type`, `invalid_base64` or `unreadable_file`.
    """

    def __init__(self, reason: ImageSourceReason, message: str | None = None) -> None:
        self.reason: ImageSourceReason = reason
        self.message = message or _IMAGE_SENTENCES[reason]
        super().__init__(reason, self.message)  # mirrors the signature: pickles unaided

    def __str__(self) -> str:
        return self.message
