"""From what a provider says went wrong to our error."""

import json
import pickle
import time
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allm_actors.errors import AdapterError
from allm_actors.providers._errors import http_error, malformed_event, object_error
from allm_actors.providers._redact import Redactor
from allm_actors.providers._report import Report
from allm_actors.providers._retry_after import retry_after


def failed(status, body=None, headers=None, **given):
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return http_error(status, headers or {}, data, provider="openai", display="OpenAI", **given)


def reported(payload):
    return object_error(payload, provider="openai", display="OpenAI")


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (400, {"message": "This model's Maximum Context Length is 8192 tokens"}, "context_length_exceeded"),
        (413, {"message": "prompt is too long: 300000 tokens"}, "context_length_exceeded"),
        (422, {"code": "context_length_exceeded"}, "context_length_exceeded"),
        (400, {"type": "exceed_context_size_error"}, "context_length_exceeded"),
        (
            400,
            {"message": "The input token count (5) exceeds the maximum number of tokens allowed"},
            "context_length_exceeded",
        ),
        (400, {"message": "input length and `max_tokens` exceed context limit"}, "context_length_exceeded"),
        (400, {"message": "outside of the context window"}, "context_length_exceeded"),
        (400, {"message": "max_tokens must be positive"}, "invalid_request"),
        (404, {"code": "context_length_exceeded"}, "invalid_request"),
        (400, {"code": "content_filter"}, "content_filter"),
        (422, {"code": "content_policy_violation"}, "content_filter"),
        (400, {"innererror": {"code": "ResponsibleAIPolicyViolation"}}, "content_filter"),
        (413, {"code": "content_filter"}, "invalid_request"),
        (400, {"message": "API key not valid. Please pass a valid API key."}, "authentication_failed"),
        (400, {"message": "API key expired"}, "authentication_failed"),
        (400, {"details": [{"reason": "API_KEY_INVALID"}]}, "authentication_failed"),
        (422, {"message": "API key not valid"}, "invalid_request"),
        (401, {"code": "context_length_exceeded"}, "authentication_failed"),
        (403, {}, "authentication_failed"),
        *[(status, {}, "invalid_request") for status in (400, 404, 405, 409, 413, 415, 422)],
        (408, {}, "timeout"),
        (429, {}, "rate_limited"),
        *[(status, {}, "provider_unavailable") for status in (500, 502, 503, 504, 529, 599)],
        *[(status, {}, "unknown") for status in (402, 410, 418, 451, 300, 304, 308)],
    ],
)
def test_statuses(status, error, reason):  # P-101, P-105
    found = failed(status, {"error": error})
    assert (found.reason, found.status, found.provider) == (reason, status, "openai")
    assert "no_retry" not in found.metadata


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
@pytest.mark.parametrize("member", ["code", "type"])
def test_a_spent_quota_is_not_asked_again(code, member):  # P-101
    assert failed(429, {"error": {member: code}}).metadata["no_retry"] is True
    assert "no_retry" not in failed(500, {"error": {member: code}}).metadata
    assert "no_retry" not in failed(429, {"error": {member: "rate_limit_exceeded"}}).metadata


def test_the_server_can_forbid_retrying():  # P-101
    assert failed(503, headers={"X-Should-Retry": "false"}).metadata["no_retry"] is True
    assert "no_retry" not in failed(503, headers={"x-should-retry": "true"}).metadata


def test_a_redirect_was_refused():  # P-10
    error = failed(302, {"error": {"message": "moved"}})
    assert (error.reason, error.status) == ("unknown", 302)
    assert "redirect refused" in error.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "a"}, "message": "b"}, "a"),
        ({"error": "a", "message": "b"}, "a"),
        ({"error": {"message": 5}, "message": "b", "detail": "c"}, "b"),
        ({"error": {"message": ""}, "detail": "c"}, "c"),
        ({"detail": [{"loc": ["x"], "msg": "d"}, {"msg": "e"}]}, "d"),
        ([{"error": {"message": "f"}}, 7], "f"),
        ([], "OpenAI HTTP 418"),
        ({}, "OpenAI HTTP 418"),
        ({"detail": [7]}, "OpenAI HTTP 418"),
        ({"detail": {"msg": "no"}}, "OpenAI HTTP 418"),
        (None, "OpenAI HTTP 418"),
        (b"<html>teapot</html>", "OpenAI HTTP 418"),
        (b"\xff\xfe\x00", "OpenAI HTTP 418"),
        (b'\xef\xbb\xbf{"message":"bom"}', "bom"),
    ],
)
def test_finding_the_message(body, message):  # P-106
    assert failed(418, body).message == message


def test_a_long_message_is_cut():  # P-106
    message = failed(500, {"message": "x" * 5000}).message
    assert message == "x" * 2000 + "…"
    assert failed(500, {"message": "x" * 2000}).message == "x" * 2000


def test_fields():  # P-107
    body = {"error": {"message": "m", "code": "c", "type": "t"}, "request_id": "from body"}
    error = failed(500, body, {"X-Request-ID": "from header", "Retry-After": "3"})
    assert error.metadata == {"provider_code": "c", "provider_type": "t"}
    assert (error.request_id, error.retry_after, error.cause) == ("from header", 3.0, None)
    assert failed(500, body, {"request-id": "other"}).request_id == "other"
    assert failed(500, body).request_id == "from body"
    assert failed(500, {}).request_id is None
    assert failed(500, {}).metadata == {}


def test_googles_status_is_the_type():  # P-107
    error = failed(400, {"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}})
    assert error.metadata == {"provider_code": 400, "provider_type": "INVALID_ARGUMENT"}


def test_top_level_codes():  # P-107, P-106
    error = failed(400, {"object": "error", "message": "m", "type": "BadRequestError", "code": 40})
    assert error.metadata == {"provider_code": 40, "provider_type": "BadRequestError"}


@pytest.mark.parametrize(
    ("error", "reason", "status"),
    [
        ({"code": 429}, "rate_limited", 429),
        ({"code": "502"}, "provider_unavailable", 502),
        ({"code": 400, "message": "maximum context length"}, "context_length_exceeded", 400),
        ({"status": 503}, "provider_unavailable", 503),
        ({"code": "oops", "status": "401"}, "authentication_failed", 401),
        ({"code": 200}, "provider_unavailable", None),
        ({"code": 600}, "provider_unavailable", None),
        ({"code": True}, "provider_unavailable", None),
        ({"code": "rate_limit_exceeded"}, "rate_limited", None),
        ({"type": "Rate_Limit_Error"}, "rate_limited", None),
        ({"status": "RESOURCE_EXHAUSTED"}, "rate_limited", None),
        ({"code": "insufficient_quota"}, "rate_limited", None),
        ({"code": "model_context_length_exceeded"}, "context_length_exceeded", None),
        ({"type": "exceed_context_size_error"}, "context_length_exceeded", None),
        ({"code": "azure_content_filter_on"}, "content_filter", None),
        ({"code": "content_policy_violation"}, "content_filter", None),
        ({"code": "invalid_api_key"}, "authentication_failed", None),
        ({"type": "authentication_error"}, "authentication_failed", None),
        ({"type": "permission_denied_error"}, "authentication_failed", None),
        ({"status": "UNAUTHENTICATED"}, "authentication_failed", None),
        ({"status": "PERMISSION_DENIED"}, "authentication_failed", None),
        ({"type": "invalid_request_error"}, "invalid_request", None),
        ({"code": "invalid_prompt"}, "invalid_request", None),
        ({"status": "INVALID_ARGUMENT"}, "invalid_request", None),
        ({"status": "NOT_FOUND"}, "invalid_request", None),
        ({"status": "FAILED_PRECONDITION"}, "invalid_request", None),
        ({"type": "invalid_request_error", "message": "prompt is too long"}, "context_length_exceeded", None),
        ({"status": "INVALID_ARGUMENT", "message": "API key not valid"}, "authentication_failed", None),
        ({"status": "DEADLINE_EXCEEDED"}, "provider_unavailable", None),
        ({"code": "unheard_of", "type": "invalid_request_error"}, "invalid_request", None),
        ({"code": "rate_limit", "type": "invalid_request_error"}, "rate_limited", None),
        ({"message": "maximum context length"}, "provider_unavailable", None),
        ({}, "provider_unavailable", None),
        ("gone", "provider_unavailable", None),
        (7, "provider_unavailable", None),
    ],
)
def test_error_objects_in_a_good_answer(error, reason, status):  # P-103
    found = reported({"error": error})
    assert (found.reason, found.status) == (reason, status)


def test_messages_of_error_objects():  # P-103, P-106
    assert reported({"error": "gone"}).message == "gone"
    assert reported({"error": {"code": 502}}).message == "OpenAI HTTP 502"
    assert "OpenAI" in reported({"error": {}}).message


def test_quota_codes_count_here_too():  # P-103
    for code in ("insufficient_quota", "billing_hard_limit_reached"):
        assert reported({"error": {"type": code}}).metadata["no_retry"] is True
        assert reported({"error": {"code": 429, "type": code}}).metadata["no_retry"] is True


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "0.5", "retry-after": "9"}, 0.0005),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "-1", "retry-after": "2"}, 2.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        *[
            ({"retry-after": text}, None)
            for text in ("-2", "nan", "inf", "1e3", "", "soon", "9" * 400, "0x10", "1_0")
        ],
        ({}, None),
    ],
)
def test_retry_after(headers, seconds):  # P-108
    assert retry_after(headers, now=NOW) == seconds


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set here")
@pytest.mark.parametrize(
    "form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"]
)
def test_an_http_date_is_in_utc_wherever_we_are(form, monkeypatch):  # P-108
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert retry_after({"retry-after": time.strftime(form, time.gmtime(NOW + 30))}, now=NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("34s", 34.0), ("1.5s", 1.5), ("34", None), ("-1s", None), (34, None), (None, None), ("s", None)],
)
def test_googles_retry_info(delay, seconds):  # P-108
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    other = {"@type": "type.googleapis.com/google.rpc.Help", "retryDelay": "1s"}
    body = {"error": {"code": 429, "details": [7, other, detail]}}
    assert failed(429, body).retry_after == seconds
    assert reported(body).retry_after == seconds
    assert failed(429, body, {"Retry-After": "5"}).retry_after == 5.0


KEY = "canary-0123456789"


def test_errors_hold_no_secret():  # P-140, P-142, C-33
    text = f"bad key {KEY} or sk-proj-abcdef or AIzaSyABCDEF"
    body = {"error": {"message": text, "code": f"x-{KEY}", "type": f"{KEY}-t"}, "request_id": f"r-{KEY}"}
    for error in (
        failed(401, body, redactor=Redactor(KEY)),
        object_error(body, provider="p", display="P", redactor=Redactor(KEY)),
        malformed_event(text, 0, provider="p", redactor=Redactor(KEY)),
    ):
        shown = f"{error!r} {error} {vars(error)} {json.dumps(error.to_dict())} {pickle.dumps(error)!r}"
        assert not [secret for secret in (KEY, "sk-proj", "AIzaSy") if secret in shown]
        assert "[REDACTED]" in error.message


def test_no_cut_leaves_half_a_key():  # P-109, P-140, P-106
    message = "x" * 1995 + " " + KEY
    assert failed(500, {"message": message}, redactor=Redactor(KEY)).message == "x" * 1995 + " [RED…"
    excerpt = malformed_event("x" * 190 + " " + KEY, 0, provider="p", redactor=Redactor(KEY)).message
    assert "canary" not in excerpt


def test_errors_are_chained_to_nothing():  # P-141
    error = failed(500, b"not json")
    assert error.__cause__ is None
    assert error.__context__ is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "message",
                    "detail",
                    "msg",
                    "code",
                    "type",
                    "status",
                    "details",
                    "innererror",
                    "request_id",
                    "@type",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(
    body=anything,
    status=st.integers(300, 599),
    headers=st.dictionaries(st.sampled_from(["retry-after", "request-id"]), st.text(max_size=5)),
)
def test_any_body_gives_an_error_of_ours(body, status, headers):  # C-45
    error = failed(status, json.dumps(body).encode(), headers)
    assert isinstance(error, AdapterError)
    assert error.message
    assert reported({"error": body}).to_dict()
    Report.of(body)
