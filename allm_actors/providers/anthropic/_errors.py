"""What Anthropic means by the types of its errors, in an answer that began well."""

from typing import Any

from allm_actors.errors import AdapterError
from allm_actors.providers._errors import adapter_error, classify_status
from allm_actors.providers._redact import Redactor
from allm_actors.providers._report import Report

__all__ = ["DISPLAY", "PROVIDER", "failure"]

PROVIDER = "anthropic"
DISPLAY = "Anthropic"

_REASONS = {
    "overloaded_error": "provider_unavailable",
    "api_error": "provider_unavailable",
    "timeout_error": "provider_unavailable",
    "rate_limit_error": "rate_limited",
    "authentication_error": "authentication_failed",
    "permission_error": "authentication_failed",
    "invalid_request_error": "invalid_request",
    "not_found_error": "invalid_request",
    "request_too_large": "invalid_request",
    "conflict_error": "invalid_request",
    "billing_error": "unknown",
}

_TOO_LARGE = 413
"""The status that means a bad request, unless the report says that the context was too long."""


def failure(payload: dict[str, Any], redactor: Redactor) -> AdapterError:
    """Return the error that an `error` event, or a body with an `error` member, stands for."""
    report = Report.of(payload)
    reason = _REASONS.get(report.type or "", "provider_unavailable")
    if reason == "invalid_request":
        reason = classify_status(_TOO_LARGE, report)
    return adapter_error(
        reason,
        report,
        provider=PROVIDER,
        fallback=f"{DISPLAY} reported an error",
        redactor=redactor,
    )
