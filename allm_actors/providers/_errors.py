"""From what a provider says went wrong to our `AdapterError`.

Two roads lead here: an answer with an error status, and an error object inside an answer that began well.
Both read the same report out of the body, and where a status is known, both classify by the same table.

Every string that the provider wrote passes the redactor; no error made here is chained to anything.
"""

import contextlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from allm_actors.errors import AdapterError, AllmError, StreamError
from allm_actors.providers._json import parse
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers._report import Report
from allm_actors.providers._retry_after import retry_after

__all__ = [
    "adapter_error",
    "classify_code",
    "classify_status",
    "forbids_retry",
    "http_error",
    "malformed_event",
    "malformed_response",
    "object_error",
    "one_line",
    "request_id_of",
    "unchained",
]

_MAX_MESSAGE = 2000
_MAX_EXCERPT = 200
_EXCERPT_WINDOW = 1 << 20  # redacted before it is cut, so that no cut leaves half a key, long ones neither

_CONTEXT_LENGTH = (
    "context_length_exceeded",
    "maximum context length",
    "context length",
    "context window",
    "prompt is too long",
    "exceed context limit",
    "exceed_context_size",
    "exceeds the maximum number of tokens",
    "input token count",
)
_CONTENT_FILTER = ("content_filter", "content_policy_violation", "responsibleaipolicyviolation")
_INVALID_KEY = ("api_key_invalid", "api key not valid", "api key expired")

_BY_CODE = (
    ("rate_limit*", "rate_limited"),
    ("insufficient_quota", "rate_limited"),
    ("resource_exhausted", "rate_limited"),
    ("*context_length*", "context_length_exceeded"),
    ("exceed_context_size_error", "context_length_exceeded"),
    ("*content_filter*", "content_filter"),
    ("content_policy_violation", "content_filter"),
    ("invalid_api_key", "authentication_failed"),
    ("authentication*", "authentication_failed"),
    ("permission*", "authentication_failed"),
    ("unauthenticated", "authentication_failed"),
    ("invalid_request*", "invalid_request"),
    ("invalid_prompt", "invalid_request"),
    ("invalid_argument", "invalid_request"),
    ("not_found", "invalid_request"),
    ("failed_precondition", "invalid_request"),
)


def http_error(  # noqa: PLR0913 -- an answer, and who gave it
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    provider: str,
    display: str,
    redactor: Redactor = SHAPES_ONLY,
) -> AdapterError:
    """Return the error for an answer whose status is not 2xx. JSON is tried whatever the headers say."""
    decoded = None
    with contextlib.suppress(ValueError):
        decoded = parse(body.decode("utf-8-sig", "replace"))
    report = Report.of(decoded)
    reason = classify_status(status, report)
    named = {name.lower(): value for name, value in headers.items()}
    fallback = f"{display} HTTP {status}"
    if 300 <= status <= 399:  # noqa: PLR2004
        fallback += ": redirect refused, for the key is never sent to another place; check the base URL"
        report = Report(code=report.code, type=report.type, request_id=report.request_id)
    return adapter_error(
        reason,
        report,
        provider=provider,
        fallback=fallback,
        status=status,
        no_retry=(status == 429 and report.over_quota) or forbids_retry(named),  # noqa: PLR2004
        headers=named,
        redactor=redactor,
    )


def object_error(
    payload: dict[str, Any], *, provider: str, display: str, redactor: Redactor = SHAPES_ONLY
) -> AdapterError:
    """Return the error for an object with an `error` member inside a stream or body that began well."""
    report = Report.of(payload)
    status = report.http_status
    reason = classify_status(status, report) if status is not None else classify_code(report)
    return adapter_error(
        reason,
        report,
        provider=provider,
        fallback=f"{display} HTTP {status}" if status is not None else f"{display} reported an error",
        status=status,
        no_retry=report.over_quota,
        redactor=redactor,
    )


def adapter_error(  # noqa: PLR0913 -- the facts of one failure
    reason: Any,
    report: Report,
    *,
    provider: str,
    fallback: str,
    status: int | None = None,
    no_retry: bool = False,
    headers: Mapping[str, str] | None = None,
    redactor: Redactor = SHAPES_ONLY,
) -> AdapterError:
    """Build the error from a classified report. The names of `headers` are in lower case."""
    headers = headers or {}
    metadata: dict[str, Any] = {}
    code = report.code
    kind = report.type or (report.status if isinstance(report.status, str) else None)
    if code is not None:
        metadata["provider_code"] = one_line(redactor.text(code)) if isinstance(code, str) else code
    if kind is not None:
        metadata["provider_type"] = one_line(redactor.text(kind))
    if no_retry:
        metadata["no_retry"] = True
    request_id = request_id_of(headers) or report.request_id
    return AdapterError(
        reason,
        _cut(redactor.text(report.message or fallback), _MAX_MESSAGE),
        provider=provider,
        status=status,
        retry_after=retry_after(headers, report.details),
        request_id=one_line(redactor.text(request_id)) if request_id else None,
        metadata=metadata,
    )


def classify_status(status: int, report: Report) -> Any:  # noqa: PLR0911
    """Return the reason for an HTTP status, with a look at what the body says."""
    if status in (400, 413, 422) and report.marks(_CONTEXT_LENGTH):
        return "context_length_exceeded"
    if status in (400, 422) and report.marks(_CONTENT_FILTER):
        return "content_filter"
    if status == 400 and report.marks(_INVALID_KEY):  # noqa: PLR2004
        return "authentication_failed"
    match status:
        case 401 | 403:
            return "authentication_failed"
        case 400 | 404 | 405 | 409 | 413 | 415 | 422:
            return "invalid_request"
        case 408:
            return "timeout"
        case 429:
            return "rate_limited"
    return "provider_unavailable" if 500 <= status <= 599 else "unknown"  # noqa: PLR2004


def classify_code(report: Report) -> Any:
    """Return the reason for an error object without a status, by its words."""
    for word in report.words:
        for pattern, reason in _BY_CODE:
            if fnmatchcase(word, pattern):
                return classify_status(400, report) if reason == "invalid_request" else reason
    return "provider_unavailable"


def malformed_event(data: str, index: int, *, provider: str, redactor: Redactor = SHAPES_ONLY) -> StreamError:
    """Return the error for stream data that is not a JSON object; `index` counts the frames before it."""
    excerpt = redactor.text(data[:_EXCERPT_WINDOW])[:_MAX_EXCERPT]
    return StreamError(
        "malformed_event",
        f"{provider}: the data of a stream event is not a JSON object: {excerpt!r}",
        provider=provider,
        event_index=index,
    )


def malformed_response(provider: str, display: str, problem: str) -> AdapterError:
    """Return the error for a 2xx body that is not what the endpoint sends. `problem` is our own words."""
    return AdapterError("malformed_response", f"{display}: {problem}", provider=provider)


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of a request, from the headers of its answer."""
    return headers.get("x-request-id") or headers.get("request-id") or None


def forbids_retry(headers: Mapping[str, str]) -> bool:
    """Whether an answer says that asking again is of no use. The names of `headers` are in lower case."""
    return headers.get("x-should-retry", "").strip().lower() == "false"


def one_line(text: str) -> str:
    """Return a word of a provider's with its unprintable characters escaped, for log lines and terminals."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def unchained(error: AllmError) -> AllmError:
    """Cut an error off from what led to it: other exceptions, and the frames it passed."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
