"""Decoding whole Responses answers."""

import pytest

from allm_actors.data import Usage
from allm_actors.errors import AdapterError
from allm_actors.providers.openai._responses_decode import decode_responses


def answer(*output, **members):
    return {
        "id": "resp_1",
        "model": "m",
        "status": "completed",
        "error": None,
        "output": list(output),
    } | members


def message(*texts):
    return {"type": "message", "content": [{"type": "output_text", "text": text} for text in texts]}


def test_a_plain_answer():  # P-68, P-69, P-6
    body = answer(
        message("Fo", "ur"),
        message("."),
        usage={"input_tokens": 9, "output_tokens": 2, "total_tokens": 11},
        service_tier="default",
        reasoning={"effort": "low"},
        output_text="not on the wire",
    )
    response = decode_responses(body)
    assert (response.id, response.model, response.output_text) == ("resp_1", "m", "Four.")
    assert response.message.content == "Four."
    assert (response.finish_reason, response.raw_finish_reason) == ("stop", "completed")
    assert response.usage == Usage(input_tokens=9, output_tokens=2, total_tokens=11)
    assert response.provider_data == {"openai": {"service_tier": "default", "reasoning_effort": "low"}}
    assert response.raw == body


def test_calls():  # P-68, P-45
    response = decode_responses(
        answer(
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
            {"type": "web_search_call", "id": "ws"},
            {"type": "function_call", "id": "fc_2", "name": "g", "arguments": ""},
            {"type": "function_call", "call_id": "c3", "arguments": "{}"},
        )
    )
    assert [(call.id, call.name, call.arguments) for call in response.tool_calls] == [
        ("c1", "f", {"a": 1}),
        ("fc_2", "g", {}),
    ]
    assert (response.finish_reason, response.raw_finish_reason) == ("tool_calls", "completed")


def test_a_refusal():  # P-68, P-62
    response = decode_responses(
        answer({"type": "message", "content": [{"type": "refusal", "refusal": "no"}]})
    )
    assert (response.refusal, response.output_text, response.finish_reason) == ("no", "", "content_filter")


@pytest.mark.parametrize(
    ("item", "reasoning"),
    [
        ({"content": [{"type": "reasoning_text", "text": "a"}, {"type": "reasoning_text", "text": "b"}], "summary": [{"text": "s"}]}, "ab"),
        ({"content": [], "summary": [{"type": "summary_text", "text": "s"}, {"type": "summary_text", "text": "t"}]}, "s\n\nt"),
        ({"summary": []}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_reasoning(item, reasoning):  # P-68, P-39
    assert decode_responses(answer({"type": "reasoning"} | item, message("x"))).reasoning == reasoning


def test_effort_is_told_only_if_there_is_one():  # P-68
    assert decode_responses(answer(reasoning={"effort": None})).provider_data == {}


@pytest.mark.parametrize(
    ("members", "ours", "raw"),
    [
        ({"status": "completed"}, "stop", "completed"),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "length",
            "max_output_tokens",
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
            "content_filter",
        ),
        ({"status": "incomplete", "incomplete_details": {"reason": "x"}}, "other", "x"),
        ({"status": "incomplete"}, "other", "incomplete"),
        ({"status": "strange"}, "other", "strange"),
        ({"status": None}, "stop", None),
    ],
)
def test_statuses(members, ours, raw):  # P-69
    response = decode_responses(answer(message("x"), **members))
    assert (response.finish_reason, response.raw_finish_reason) == (ours, raw)


def test_incomplete_details_are_kept():  # P-69
    body = answer(status="incomplete", incomplete_details={"reason": "content_filter"})
    assert decode_responses(body).provider_data == {
        "openai": {"incomplete_details": {"reason": "content_filter"}}
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (answer(status="failed", error={"code": "rate_limit_exceeded", "message": "slow"}), "rate_limited"),
        (answer(status="failed", error={"code": "insufficient_quota"}), "rate_limited"),
        (answer(status="failed", error={"code": "context_length_exceeded"}), "context_length_exceeded"),
        (answer(status="failed", error={"code": "bio_policy"}), "content_filter"),
        (answer(status="failed", error={"code": "image_content_policy_violation"}), "content_filter"),
        (answer(status="failed", error={"code": "invalid_prompt"}), "invalid_request"),
        (answer(status="failed", error={"code": "data_residency_mismatch"}), "invalid_request"),
        (answer(status="failed", error={"code": "invalid_image_format"}), "invalid_request"),
        (answer(status="failed", error={"code": "empty_image_file"}), "invalid_request"),
        (answer(status="failed", error={"code": "server_error"}), "provider_unavailable"),
        (answer(status="failed", error={"code": "vector_store_timeout"}), "provider_unavailable"),
        (answer(status="failed", error={"code": "new_thing"}), "provider_unavailable"),
        (answer(status="failed", error=None), "provider_unavailable"),
        (answer(status="cancelled"), "unknown"),
        (answer(status="queued"), "malformed_response"),
        (answer(status="in_progress"), "malformed_response"),
        ({"id": "x"}, "malformed_response"),
        ({"output": "x"}, "malformed_response"),
        ({"status": "", "id": "x"}, "malformed_response"),
        ({"error": {"message": "bad", "type": "invalid_request_error"}}, "invalid_request"),
        (answer(error={"code": "server_error"}), "provider_unavailable"),
    ],
)
def test_failures(body, reason):  # P-69, P-104, P-15
    with pytest.raises(AdapterError) as caught:
        decode_responses(body)
    assert (caught.value.reason, caught.value.provider) == (reason, "openai")
    assert caught.value.status is None


def test_a_spent_quota_is_not_asked_again():  # P-104, P-107
    with pytest.raises(AdapterError) as caught:
        decode_responses(answer(status="failed", error={"code": "insufficient_quota", "message": "pay"}))
    assert caught.value.metadata == {"provider_code": "insufficient_quota", "no_retry": True}
    assert caught.value.message == "pay"
