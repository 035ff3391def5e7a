"""What the Responses endpoint means by its error codes."""

from typing import Any

from allm_actors.errors import AdapterError
from allm_actors.providers._errors import adapter_error
from allm_actors.providers._redact import Redactor
from allm_actors.providers._report import Report
from allm_actors.providers.openai._chat_decode import DISPLAY, PROVIDER

__all__ = ["failure"]

_REASONS = {
    "rate_limit_exceeded": "rate_limited",
    "insufficient_quota": "rate_limited",
    "context_length_exceeded": "context_length_exceeded",
    "bio_policy": "content_filter",
    "image_content_policy_violation": "content_filter",
    "invalid_prompt": "invalid_request",
    "data_residency_mismatch": "invalid_request",
    "server_error": "provider_unavailable",
    "vector_store_timeout": "provider_unavailable",
}


def failure(error: Any, redactor: Redactor, *, status: str | None = None) -> AdapterError:
    """Return the error for a failed answer.

    Args:
        error: The error object, with `code` and `message`; anything else says nothing.
        redactor: Cleans what the provider wrote.
        status: The status of the answer, for the message where the provider gives none.
    """
    report = Report.of({"error": error})
    code = report.code if isinstance(report.code, str) else ""
    reason = _REASONS.get(code.lower())
    if reason is None:
        reason = "invalid_request" if "image" in code.lower() else "provider_unavailable"
    return adapter_error(
        "unknown" if status == "cancelled" else reason,
        report,
        provider=PROVIDER,
        fallback=f"{DISPLAY}: the answer ended with status {status or 'failed'!r}",
        no_retry=code.lower() == "insufficient_quota",
        redactor=redactor,
    )
