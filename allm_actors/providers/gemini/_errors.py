"""What goes wrong in an answer of Gemini that began well."""

from typing import Any

from allm_actors.errors import AdapterError
from allm_actors.providers._errors import adapter_error, object_error
from allm_actors.providers._redact import Redactor
from allm_actors.providers._report import Report

__all__ = ["DISPLAY", "PROVIDER", "cut_off", "error_of", "unusable"]

PROVIDER = "gemini"
DISPLAY = "Gemini"


def error_of(payload: dict[str, Any], redactor: Redactor) -> AdapterError:
    """Return the error that an object with an `error` member stands for."""
    return object_error(payload, provider=PROVIDER, display=DISPLAY, redactor=redactor)


def unusable(reason: str, message: str | None, redactor: Redactor) -> AdapterError:
    """Return the error for a finish reason that says that the model's output is of no use."""
    return adapter_error(
        "malformed_response",
        Report(message=message, code=reason),
        provider=PROVIDER,
        fallback=f"{DISPLAY}: the model's answer cannot be used ({reason})",
        redactor=redactor,
    )


def cut_off() -> AdapterError:
    """Return the error for a stream that says it is over before the answer is complete."""
    return AdapterError(
        "network_error",
        f"{DISPLAY}: the stream ended before the answer was complete",
        provider=PROVIDER,
        metadata={"premature_close": True},
    )
