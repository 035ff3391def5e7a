"""Every error of the library: what went wrong, and whose move it is.

    AllmError                 the base: `except AllmError` catches all of them
    ├── EngineError           your move: the engine lacks something, or is down
    ├── AdapterError          the provider's move: it refused, failed, or could not be reached
    ├── StreamError           a stream was cancelled, or broke its own grammar
    ├── ToolError             a tool's move: its handler failed, or was misused by the model
    ├── SessionError          your move: the session's status does not allow the operation
    ├── ResponseError         the model's move: there is no plain text answer to return
    ├── ValidationError       your move: the data means nothing sensible; `errors` lists where
    └── CatalogError          your move: no model catalog, or no model in it that fits

    ImageSourceError          a `ValueError`: an image's bytes cannot be had

Guarantees:
    - A reason comes from a closed set (`legal_reasons()`), and `str(error)` is never empty.
    - Errors are values: equal when class and fields are equal, hashable, picklable, copyable, and pydantic
      reads and writes them, so a model's field can hold one.
    - An error holds plain data only: no live exception as `cause`, no request, no credential.
"""

from allm_actors.errors._base import AllmError, FieldError
from allm_actors.errors._kinds import (
    AdapterError,
    AdapterReason,
    CatalogError,
    CatalogReason,
    EngineError,
    EngineReason,
    ImageSourceError,
    ImageSourceReason,
    ResponseError,
    ResponseReason,
    SessionError,
    SessionReason,
    StreamError,
    StreamReason,
    ToolError,
    ToolReason,
    ValidationError,
    ValidationReason,
)

__all__ = [
    "AdapterError",
    "AdapterReason",
    "AllmError",
    "CatalogError",
    "CatalogReason",
    "EngineError",
    "EngineReason",
    "FieldError",
    "ImageSourceError",
    "ImageSourceReason",
    "ResponseError",
    "ResponseReason",
    "SessionError",
    "SessionReason",
    "StreamError",
    "StreamReason",
    "ToolError",
    "ToolReason",
    "ValidationError",
    "ValidationReason",
]
