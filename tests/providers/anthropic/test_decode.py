"""Decoding whole Messages answers, their usage and their errors."""

import json

import pytest

from allm_actors.data import Request, Usage, json_schema, user
from allm_actors.errors import AdapterError
from allm_actors.providers._redact import Redactor
from allm_actors.providers.anthropic._decode import decode_messages
from allm_actors.providers.anthropic._usage import read_usage
from allm_actors.providers.anthropic._wire import AnthropicWire
from tests.providers.anthropic.decoding import LIFTED
from tests.providers.openai.decoding import fold, short

REQUEST = Request(messages=[user("hi")], model="claude")
ASKED = REQUEST.model_copy(update={"response_format": json_schema("answer", {"type": "object"})})


def answer(*blocks, reason="end_turn", **members):
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": list(blocks),
        "stop_reason": reason,
        "stop_sequence": None,
    } | members


def said(text):
    return {"type": "text", "text": text}


def called(wire_id, name, given):
    return {"type": "tool_use", "id": wire_id, "name": name, "input": given}


def failed(body, **options):
    with pytest.raises(AdapterError) as caught:
        decode_messages(body, **options)
    return caught.value


def test_a_plain_answer():  # P-83, P-6
    body = answer(said("Fo"), said("ur."), usage={"input_tokens": 9, "output_tokens": 2})
    response = decode_messages(body)
    assert (response.id, response.model, response.output_text, response.text) == (
        "msg_1",
        "m",
        "Four.",
        "Four.",
    )
    assert (response.finish_reason, response.raw_finish_reason) == ("stop", "end_turn")
    assert (response.message.role, response.message.content) == ("assistant", "Four.")
    assert response.usage == Usage(
        input_tokens=9, output_tokens=2, total_tokens=11, extra={"uncached_input_tokens": 9}
    )
    assert (response.provider_data, response.message.provider_data) == ({}, {})
    assert (response.reasoning, response.refusal, response.error) == (None, None, None)
    assert response.raw == body


def test_no_usage_is_an_empty_usage():  # P-111
    assert decode_messages(answer()).usage == decode_messages(answer(usage=[1])).usage == Usage()


def test_calls():  # P-83, P-46
    response = decode_messages(
        answer(
            said("so"),
            called("c1", "f", {"ä": 1, "b": [2]}),
            called("c2", "g", {}),
            called("c3", "h", [1]),
            called("c4", "i", "{broken"),
            called("c5", "j", None),
            {"type": "tool_use", "id": "c6", "name": "k"},
            called("c7", "l", '{"a":1}'),
            called("c8", "", {}),
            reason="tool_use",
        )
    )
    assert [
        (call.id, call.name, call.arguments, call.raw_arguments, call.invalid_arguments)
        for call in response.tool_calls
    ] == [
        ("c1", "f", {"ä": 1, "b": [2]}, '{"ä":1,"b":[2]}', False),
        ("c2", "g", {}, "{}", False),
        ("c3", "h", {}, "[1]", True),
        ("c4", "i", {}, "{broken", True),
        ("c5", "j", {}, "{}", False),
        ("c6", "k", {}, "{}", False),
        ("c7", "l", {"a": 1}, '{"a":1}', False),
    ]
    assert response.finish_reason == "tool_calls"
    assert response.message.tool_calls == response.tool_calls


def test_ids_are_made_where_they_are_missing_or_taken():  # P-47
    made = decode_messages(
        answer(called("c", "f", {}), called("c", "f", {}), called(None, "f", {}))
    ).tool_calls
    assert made[0].id == "c"
    assert len({call.id for call in made}) == 3
    assert [call.provider_data for call in made[1:]] == [{"anthropic": {"generated_id": True}}] * 2


def test_reasoning():  # P-84
    kept = [
        {"type": "thinking", "thinking": "a", "signature": "s1", "more": {"x": 1}},
        {"type": "redacted_thinking", "data": "d", "thinking": "not readable"},
        {"type": "thinking", "thinking": "b", "signature": "s2"},
    ]
    response = decode_messages(answer(kept[0], kept[1], said("x"), kept[2]))
    assert response.message.provider_data == {"anthropic": {"thinking_blocks": kept}}
    assert response.reasoning == "ab"
    assert response.output_text == "x"
    silent = decode_messages(answer({"type": "thinking", "thinking": "", "signature": "s"}))
    assert silent.reasoning is None
    assert silent.message.provider_data["anthropic"]["thinking_blocks"][0]["signature"] == "s"


def test_reasoning_survives_json_and_goes_back():  # P-84, P-39
    kept = [{"type": "thinking", "thinking": "ä", "signature": "s"}]
    message = decode_messages(answer(*kept, called("c", "f", {}))).message
    stored = type(message).model_validate_json(message.model_dump_json())
    again = Request(messages=[user("hi"), stored], model="claude")
    turns = AnthropicWire().build(again, {}, stream=False).body["messages"]
    assert turns[1]["content"][0] == kept[0]


def test_other_blocks_are_ignored():  # P-83
    odd = [
        {"type": "server_tool_use", "id": "x", "name": "f", "input": {}},
        {"type": None},
        "text",
        None,
        {},
        5,
    ]
    response = decode_messages(answer(*odd, said("x"), {"type": "text", "text": 5}))
    assert response.output_text == "x"
    assert response.tool_calls == []


@pytest.mark.parametrize("content", [None, "text", {}, 5])
def test_a_content_that_is_no_list(content):  # P-83
    error = failed(answer() | {"content": content})
    assert (error.reason, error.provider) == ("malformed_response", "anthropic")
    assert "Anthropic" in error.message


def test_a_body_of_something_else():  # P-83, P-15
    assert failed({}).reason == "malformed_response"


def test_stop_facts():  # P-85
    response = decode_messages(answer(reason="stop_sequence", stop_sequence="END"))
    assert response.provider_data == {"anthropic": {"stop_sequence": "END"}}
    details = {"type": "refusal", "category": "cyber"}
    response = decode_messages(answer(reason="refusal", stop_details=details))
    assert (response.finish_reason, response.raw_finish_reason) == ("content_filter", "refusal")
    assert response.provider_data == {"anthropic": {"stop_details": details}}
    assert decode_messages(answer(reason=None)).finish_reason == "other"


def test_an_answer_is_told_as_a_stream():  # P-14
    body = answer(
        said("a"), said("b"), called("c", "f", {"x": 1}), reason="tool_use", usage={"output_tokens": 1}
    )
    events = AnthropicWire().replay(body, REQUEST)
    assert short(events) == [
        ("message_started",),
        ("text_delta", "ab"),
        ("tool_call_started", "c", "f"),
        ("text_completed", "ab"),
        ("tool_call_completed", "c", "f", {"x": 1}, '{"x":1}'),
        ("usage", {"output_tokens": 1}),
        ("message_completed", "tool_calls", "tool_use"),
    ]
    assert fold(events) == decode_messages(body).model_copy(update={"raw": None})


# --- structured answers ---------------------------------------------------------------------------------


def test_the_answers_call_is_lifted():  # P-88
    given = {"b": "ä\u2028", "a": [1, 2.5, None]}
    body = answer(
        said("Sure, "), said("here:"), called("c", LIFTED, given), called("d", LIFTED, {}), reason="tool_use"
    )
    response = AnthropicWire().decode(body, ASKED)
    assert response.output_text == response.message.content == '{"b":"ä\u2028","a":[1,2.5,null]}'
    assert response.tool_calls == response.message.tool_calls == []
    assert (response.finish_reason, response.raw_finish_reason) == ("stop", "tool_use")
    assert response.provider_data == {
        "anthropic": {"structured_output_tool": True, "preamble": "Sure, here:"}
    }
    assert json.loads(response.output_text) == given


def test_other_calls_remain():  # P-88
    response = AnthropicWire().decode(
        answer(called("c", LIFTED, {}), called("d", "f", {}), reason="tool_use"), ASKED
    )
    assert (response.output_text, response.finish_reason) == ("{}", "tool_calls")
    assert [call.name for call in response.tool_calls] == ["f"]


def test_a_refusal_instead_of_the_call():  # P-88
    response = AnthropicWire().decode(answer(said("I "), said("won't."), reason="refusal"), ASKED)
    assert (response.output_text, response.finish_reason, response.provider_data) == (
        "I won't.",
        "content_filter",
        {},
    )


def test_in_native_mode_nothing_is_lifted():  # P-88
    response = AnthropicWire(structured_output="native").decode(
        answer(said("x"), called("c", LIFTED, {})), ASKED
    )
    assert (response.output_text, len(response.tool_calls)) == ("x", 1)
    plain = AnthropicWire().decode(answer(said("x"), called("c", LIFTED, {})), REQUEST)
    assert (plain.output_text, len(plain.tool_calls)) == ("x", 1)


# --- usage ----------------------------------------------------------------------------------------------


def test_input_counts_what_the_cache_did():  # P-110, P-111
    usage = read_usage(
        {
            "input_tokens": 10,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 1000,
            "cache_creation": {"ephemeral_5m_input_tokens": 1000},
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 3},
            "service_tier": "standard",
        }
    )
    assert usage == Usage(
        input_tokens=1110,
        output_tokens=7,
        total_tokens=1117,
        cached_input_tokens=100,
        cache_write_input_tokens=1000,
        reasoning_tokens=3,
        extra={
            "cache_creation": {"ephemeral_5m_input_tokens": 1000},
            "service_tier": "standard",
            "uncached_input_tokens": 10,
        },
    )


def test_counters_that_were_not_sent():  # P-110
    assert read_usage({"input_tokens": 1, "output_tokens": 2}) == Usage(
        input_tokens=1, output_tokens=2, total_tokens=3, extra={"uncached_input_tokens": 1}
    )
    assert read_usage({"cache_read_input_tokens": 5, "output_tokens": 2}) == Usage(
        cached_input_tokens=5, output_tokens=2
    )
    assert read_usage({"input_tokens": 0}) == Usage(input_tokens=0, extra={"uncached_input_tokens": 0})


@pytest.mark.parametrize("value", [True, -1, "7", 1.5, None, []])
def test_counters_that_are_none(value):  # P-110, P-111
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert (
        read_usage(dict.fromkeys(names, value) | {"output_tokens_details": {"thinking_tokens": value}})
        == Usage()
    )


def test_details_keep_what_is_not_lifted():  # P-111
    usage = read_usage({"output_tokens_details": {"thinking_tokens": 3, "x": 1}})
    assert (usage.reasoning_tokens, usage.extra) == (3, {"output_tokens_details": {"x": 1}})


# --- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("overloaded_error", "provider_unavailable"),
        ("api_error", "provider_unavailable"),
        ("timeout_error", "provider_unavailable"),
        ("rate_limit_error", "rate_limited"),
        ("authentication_error", "authentication_failed"),
        ("permission_error", "authentication_failed"),
        ("invalid_request_error", "invalid_request"),
        ("not_found_error", "invalid_request"),
        ("request_too_large", "invalid_request"),
        ("conflict_error", "invalid_request"),
        ("billing_error", "unknown"),
        ("brand_new_error", "provider_unavailable"),
        (None, "provider_unavailable"),
        (5, "provider_unavailable"),
    ],
)
def test_error_types(kind, reason):  # P-102, P-15
    body = {"type": "error", "error": {"type": kind, "message": "said"}, "request_id": "req_1"}
    error = failed(body)
    assert (error.reason, error.message, error.request_id, error.status) == (reason, "said", "req_1", None)
    assert error.metadata == ({"provider_type": kind} if isinstance(kind, str) else {})
    assert failed({key: value for key, value in body.items() if key != "type"}).reason == reason


@pytest.mark.parametrize("kind", ["invalid_request_error", "request_too_large"])
def test_a_context_that_was_too_long(kind):  # P-102, P-105
    error = {"type": kind, "message": "Prompt is too long: 250000 tokens > 200000 maximum"}
    assert failed({"type": "error", "error": error}).reason == "context_length_exceeded"
    limited = {"type": kind, "message": "max_tokens: 9 > 8"}
    assert failed({"type": "error", "error": limited}).reason == "invalid_request"


def test_an_error_that_says_nothing():  # P-102, P-106
    for body in ({"type": "error"}, {"error": True}, {"error": []}, {"type": "error", "error": None}):
        error = failed(body)
        assert (error.reason, error.message) == ("provider_unavailable", "Anthropic reported an error")
    assert failed({"error": "out of order"}).message == "out of order"


def test_keys_are_taken_out_of_errors():  # P-140
    echo = {
        "type": "error",
        "error": {"type": "api_error", "message": "bad: the-key-itself sk-ant-0123456789"},
    }
    error = failed(echo, redactor=Redactor("the-key-itself"))
    assert error.message == "bad: [REDACTED] [REDACTED]"


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, "invalid_request_error", "invalid_request"),
        (401, "authentication_error", "authentication_failed"),
        (402, "billing_error", "unknown"),
        (403, "permission_error", "authentication_failed"),
        (404, "not_found_error", "invalid_request"),
        (413, "request_too_large", "invalid_request"),
        (429, "rate_limit_error", "rate_limited"),
        (500, "api_error", "provider_unavailable"),
        (504, "timeout_error", "provider_unavailable"),
        (529, "overloaded_error", "provider_unavailable"),
        (429, "overloaded_error", "rate_limited"),
    ],
)
def test_of_http_errors_the_status_decides(status, kind, reason):  # P-101, P-102, P-107
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "said"}, "request_id": "req_body"})
    headers = {"request-id": "req_head", "retry-after": "2"}
    error = AnthropicWire().http_error(status, headers, body.encode())
    assert (error.reason, error.status, error.message) == (reason, status, "said")
    assert (error.request_id, error.retry_after, error.provider) == ("req_head", 2.0, "anthropic")
    assert error.metadata == {"provider_type": kind}


def test_http_errors_without_words():  # P-106, P-101
    error = AnthropicWire().http_error(503, {"x-should-retry": "false"}, b"<html>")
    assert (error.reason, error.message) == ("provider_unavailable", "Anthropic HTTP 503")
    assert error.metadata == {"no_retry": True}
