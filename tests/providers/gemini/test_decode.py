"""Reading whole generateContent answers, and their usage."""

import pytest

from allm_actors.errors import AdapterError
from allm_actors.providers._redact import Redactor
from allm_actors.providers.gemini._decode import decode_generate
from allm_actors.providers.gemini._usage import read_usage
from tests.providers.gemini.decoding import answer, call, whole


def failed(body, **options):
    with pytest.raises(AdapterError) as caught:
        decode_generate(body, **options)
    assert caught.value.provider == "gemini"
    return caught.value


def test_a_whole_answer():  # P-97, P-98
    body = answer(
        {"text": "hm", "thought": True},
        "Let me ",
        {"executableCode": {"code": "1"}},
        {"text": "see", "thoughtSignature": "t"},
        call("f", id="c", args={"a": [1, {"ä": None}]}, signature="s"),
        call("g"),
        finish="STOP",
        usage={"promptTokenCount": 9, "candidatesTokenCount": 2, "thoughtsTokenCount": 5, "totalTokenCount": 16},
    )  # fmt: skip
    response = decode_generate(body)
    f, g = response.tool_calls
    assert (response.id, response.model, response.output_text) == ("r1", "m", "Let me see")
    assert (response.reasoning, response.refusal) == ("hm", None)
    assert (response.finish_reason, response.raw_finish_reason) == ("tool_calls", "STOP")
    assert (f.id, f.name, f.arguments) == ("c", "f", {"a": [1, {"ä": None}]})
    assert f.raw_arguments == '{"a":[1,{"ä":null}]}'
    assert f.provider_data == {"gemini": {"thought_signature": "s"}}
    assert (g.name, g.arguments, g.raw_arguments) == ("g", {}, "{}")
    assert g.provider_data == {"gemini": {"generated_id": True}}
    assert response.message.provider_data == {"gemini": {"thought_signature": "t"}}
    assert response.message.tool_calls == response.tool_calls
    assert (response.usage.input_tokens, response.usage.output_tokens) == (9, 7)
    assert response.raw == body


def test_streamed_arguments_in_a_whole_body_leave_the_body_alone():  # P-100, P-97
    piece = {"jsonPath": "$.a.c", "stringValue": "x"}
    first = call("f", args={"a": {"b": 1}}, willContinue=True)
    body = answer(first, call(None, partialArgs=[piece]), finish="STOP")
    before = decode_generate(answer("x", finish="STOP", extra=body)).raw["extra"]
    response = decode_generate(body)
    assert response.tool_calls[0].arguments == {"a": {"b": 1, "c": "x"}}
    assert response.raw == before


def test_a_call_that_never_ends_keeps_what_it_got():  # P-100
    pieces = call(None, partialArgs=[{"jsonPath": "$.a", "stringValue": "x"}], willContinue=True)
    assert whole(call("f", willContinue=True), pieces).tool_calls[0].arguments == {"a": "x"}


def test_the_candidate_with_index_0_counts():  # P-97
    bodies = [answer("b", index=1), answer("a", index=0, finish="STOP")]
    both = {"candidates": [each["candidates"][0] for each in bodies]}
    assert decode_generate(both).output_text == "a"
    assert whole("c", index=None).output_text == "c"


def test_images():  # P-97
    response = whole("a", {"inlineData": {"mimeType": "image/png", "data": "AAAA"}})
    assert [part.type for part in response.message.content] == ["text", "image"]
    assert response.output_text == "a"


@pytest.mark.parametrize("reason", ["SAFETY", "PROHIBITED_CONTENT"])
def test_a_blocked_prompt(reason):  # P-99
    response = decode_generate(
        {
            "promptFeedback": {"blockReason": reason},
            "usageMetadata": {"promptTokenCount": 3},
            "responseId": "r",
        }
    )
    assert (response.finish_reason, response.raw_finish_reason) == ("content_filter", reason)
    assert response.provider_data == {"gemini": {"block_reason": reason}}
    assert (response.id, response.output_text, response.usage.input_tokens) == ("r", "", 3)


def test_a_filtered_answer_has_no_content():  # P-98
    response = decode_generate(
        {"candidates": [{"finishReason": "SAFETY", "index": 0, "finishMessage": "no"}]}
    )
    assert (response.finish_reason, response.output_text) == ("content_filter", "")
    assert response.provider_data == {"gemini": {"finish_message": "no"}}


def test_an_answer_without_a_finish_reason():  # P-43, P-97
    assert (whole("x", finish=None).finish_reason, whole("x", finish=None).raw_finish_reason) == (
        "other",
        None,
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"candidates": []},
        {"candidates": [5]},
        {"candidates": "x"},
        {"promptFeedback": {}, "usageMetadata": {}},
        {"candidates": [{"index": 1}]},
    ],
)
def test_no_answer_at_all(body):  # P-99
    assert failed(body).reason == "malformed_response"


def test_unusable_answers():  # P-98
    error = failed(answer("x", finish="MALFORMED_FUNCTION_CALL"))
    assert (error.reason, error.metadata) == (
        "malformed_response",
        {"provider_code": "MALFORMED_FUNCTION_CALL"},
    )


def test_an_error_in_a_whole_body():  # P-15, P-103, P-140
    key = "key-of-the-call"
    body = {"error": {"code": 503, "message": f"busy, {key}"}, **answer("x", finish="STOP")}
    error = failed(body, redactor=Redactor(key))
    assert (error.reason, error.status) == ("provider_unavailable", 503)
    assert error.message == "busy, [REDACTED]"
    assert decode_generate(body | {"error": None}).output_text == "x"


# --- usage ----------------------------------------------------------------------------------------------


def usage(**raw):
    counted = read_usage(raw)
    assert counted is not None
    return {name: value for name, value in counted.model_dump().items() if value not in (None, {})}


def test_usage():  # P-110, P-111
    details = [{"modality": "TEXT", "tokenCount": 9}]
    assert usage(
        promptTokenCount=9,
        candidatesTokenCount=2,
        thoughtsTokenCount=5,
        totalTokenCount=16,
        cachedContentTokenCount=4,
        promptTokensDetails=details,
        toolUsePromptTokenCount=0,
    ) == {
        "input_tokens": 9,
        "output_tokens": 7,
        "total_tokens": 16,
        "cached_input_tokens": 4,
        "reasoning_tokens": 5,
        "extra": {
            "candidatesTokenCount": 2,
            "promptTokensDetails": details,
            "toolUsePromptTokenCount": 0,
        },
    }


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"candidatesTokenCount": 2}, {"output_tokens": 2}),
        ({"responseTokenCount": 2}, {"output_tokens": 2}),
        ({"responseTokenCount": 2, "candidatesTokenCount": 3}, {"output_tokens": 3, "extra": {"responseTokenCount": 2}}),
        ({"responseTokenCount": 2, "candidatesTokenCount": "3"}, {"output_tokens": 2}),
        ({"thoughtsTokenCount": 5}, {"output_tokens": 5, "reasoning_tokens": 5}),
        ({"thoughtsTokenCount": 0, "candidatesTokenCount": 0}, {"output_tokens": 0, "reasoning_tokens": 0, "extra": {"candidatesTokenCount": 0}}),
        ({}, {}),
        ({"promptTokenCount": True, "totalTokenCount": -1, "candidatesTokenCount": 1.5, "thoughtsTokenCount": None, "cachedContentTokenCount": "1"}, {}),
        ({"trafficType": "ON_DEMAND", "x": None}, {"extra": {"trafficType": "ON_DEMAND", "x": None}}),
    ],
)  # fmt: skip
def test_parts_of_a_usage(raw, expected):  # P-110, P-111
    assert usage(**raw) == expected


@pytest.mark.parametrize("raw", [None, 5, "x", [], True])
def test_what_is_no_usage(raw):  # P-111
    assert read_usage(raw) is None
