"""Decoding generateContent streams."""

import json
import re

import pytest

from allm_actors.errors import AdapterError, StreamError
from allm_actors.providers._redact import Redactor
from allm_actors.providers._sse import SSEEvent
from allm_actors.providers.gemini._stream import GenerateDecoder
from tests.providers.gemini.decoding import answer, call, fold, play, stream, stream_body
from tests.providers.openai.decoding import short

USAGE = {"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 11}
EXAMPLE = [
    answer("Four.", usage={"promptTokenCount": 9}),
    {
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP"}],
        "usageMetadata": USAGE,
    },
]  # fmt: skip
FOUR = [
    ("message_started",),
    ("text_delta", "Four."),
    ("text_completed", "Four."),
    ("usage", {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}),
    ("message_completed", "stop", "STOP"),
]
GENERATED = re.compile(r"call_[0-9a-f]{24}")


@pytest.mark.parametrize("sizes", [(1 << 20,), (1,), (3, 17, 2)], ids=["whole", "bytes", "pieces"])
def test_an_answer_is_told_in_order_and_closed_once(sizes):  # P-40, P-42, P-43, P-100
    assert short(stream(*EXAMPLE, sizes=sizes)) == FOUR


def test_the_completed_message_carries_everything():  # P-43, P-97
    *_, last = stream(*EXAMPLE)
    assert last.message.content == "Four."
    assert (last.response_id, last.model) == ("r1", "m")
    assert (last.usage.input_tokens, last.usage.extra) == (9, {})
    assert (last.reasoning, last.refusal) == (None, None)
    assert last.provider_data == last.message.provider_data == {}


def test_a_stream_without_usage_reports_none():  # P-42, P-111
    *_, last = events = stream(answer("x", finish="STOP"))
    assert not [event for event in events if event.type == "raw_chunk"]
    assert last.usage is None


def test_the_last_usage_wins():  # P-100
    events = stream(
        answer("a", usage={"promptTokenCount": 1, "candidatesTokenCount": 1}),
        answer(finish="STOP", usage={"promptTokenCount": 1, "candidatesTokenCount": 7}),
        {"usageMetadata": {"promptTokenCount": 2}},
        {"usageMetadata": None},
        {"usageMetadata": "odd"},
    )
    assert [event for event in short(events) if event[0] == "usage"] == [("usage", {"input_tokens": 2})]


@pytest.mark.parametrize(
    "silent",
    [
        {"candidates": []},
        {"candidates": None},
        {"usageMetadata": USAGE},
        {"promptFeedback": {"safetyRatings": []}},
        {"error": None},
        answer(),
        answer(""),
        {"candidates": [{"index": 0}]},
        {"candidates": [{"content": {"role": "model"}}]},
    ],
)
def test_an_object_that_says_nothing_opens_the_message(silent):  # P-40, P-41
    decoder = GenerateDecoder()
    frame = SSEEvent(None, json.dumps(silent))
    assert short(decoder.feed(frame)) == [("message_started",)]
    assert decoder.feed(frame) == []
    assert not decoder.finished


def test_an_object_of_an_unknown_shape_is_passed_on():  # P-48, P-100
    odd = {"object": "ping", "n": 1}
    events = short(stream(odd, *EXAMPLE))
    assert events[:2] == [
        ("message_started",),
        ("unknown_event", {"provider": "gemini", "event": None, "data": odd}),
    ]
    assert events[2:] == FOUR[1:]


def test_only_the_first_candidate_counts():  # P-97
    other = answer("no", finish="MAX_TOKENS", index=1)
    events = stream(other, answer("yes", finish="STOP", index=None), other, answer("!", finish="STOP"))
    assert (fold(events).output_text, fold(events).finish_reason) == ("yes!", "stop")
    both = {"candidates": [*other["candidates"], *answer("b", finish="STOP")["candidates"]]}
    assert fold(stream(both)).output_text == "b"


def test_text_may_come_in_several_parts():  # P-97, P-41
    assert short(stream(answer("a", "", "b", finish="STOP")))[1:4] == [
        ("text_delta", "a"),
        ("text_delta", "b"),
        ("text_completed", "ab"),
    ]


def test_thoughts_are_no_text():  # P-97
    events = stream(
        answer({"text": "hm", "thought": True}, {"text": "", "thought": True}),
        answer({"text": "m", "thought": True}, "yes", {"text": "!", "thought": False}, finish="STOP"),
    )
    assert short(events)[1:4] == [
        ("thinking_delta", {"index": 0, "delta": "hm"}),
        ("thinking_delta", {"index": 0, "delta": "m"}),
        ("text_delta", "yes"),
    ]
    assert (fold(events).reasoning, fold(events).output_text) == ("hmm", "yes!")


def test_unknown_parts_are_passed_on_one_by_one():  # P-97, P-48
    code = {"executableCode": {"language": "PYTHON", "code": "1"}}
    result = {"codeExecutionResult": {"outcome": "OUTCOME_OK"}, "thoughtSignature": "s"}
    events = stream(answer("a", code, result, "b", finish="STOP"))
    assert short(events)[1:5] == [
        ("text_delta", "a"),
        ("unknown_event", {"provider": "gemini", "event": None, "data": code}),
        ("unknown_event", {"provider": "gemini", "event": None, "data": result}),
        ("text_delta", "b"),
    ]
    assert fold(events).message.provider_data == {}


@pytest.mark.parametrize("part", [{}, {"text": None}, {"text": 5}, {"functionCall": 5}, {"inlineData": []}])
def test_parts_that_say_nothing(part):  # P-41, P-97
    assert short(stream(answer(part, finish="STOP"))) == [
        ("message_started",),
        ("message_completed", "stop", "STOP"),
    ]


# --- calls ----------------------------------------------------------------------------------------------


def test_a_call_arrives_whole():  # P-97, P-45, P-42
    events = stream(
        answer(call("f", id="c1", args={"ä": 1.0, "b": [None]})),
        answer("", finish="STOP"),
    )
    assert short(events) == [
        ("message_started",),
        ("tool_call_started", "c1", "f"),
        ("tool_call_completed", "c1", "f", {"ä": 1.0, "b": [None]}, '{"ä":1.0,"b":[null]}'),
        ("message_completed", "tool_calls", "STOP"),
    ]
    assert type(events[-2].arguments["ä"]) is float


@pytest.mark.parametrize("given", [{}, {"args": None}, {"args": {}}])
def test_a_call_without_arguments(given):  # P-97, P-46
    events = stream(answer(call("f", id="c", **given), finish="STOP"))
    assert ("tool_call_completed", "c", "f", {}, "{}") in short(events)
    assert not fold(events).tool_calls[0].invalid_arguments


@pytest.mark.parametrize(
    ("given", "raw"), [([1, 2], "[1,2]"), ("a b", '"a b"'), (5, "5"), (False, "false"), ("", '""')]
)
def test_arguments_that_are_no_object(given, raw):  # P-97, P-46
    events = stream(answer(call("f", id="c", args=given), finish="STOP"))
    assert ("tool_call_completed", "c", "f", {}, raw) in short(events)
    assert fold(events).tool_calls[0].invalid_arguments


@pytest.mark.parametrize(
    ("reason", "ours"), [("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("OTHER", "other")]
)
def test_other_reasons_stand_beside_calls(reason, ours):  # P-45
    assert fold(stream(answer(call("f"), finish=reason))).finish_reason == ours


def test_missing_ids_are_made_up():  # P-94, P-47
    parallel = answer(call("f", args={"a": 1}), call("f", args={"a": 1}), call("f", id=""), call("f", id=5))
    response = fold(stream(parallel, answer(finish="STOP")))
    ids = [made.id for made in response.tool_calls]
    assert len(set(ids)) == 4
    assert all(GENERATED.fullmatch(each) for each in ids)
    facts = {"gemini": {"generated_id": True}}
    assert [made.provider_data for made in response.tool_calls] == [facts] * 4
    assert [made.provider_data for made in response.message.tool_calls] == [facts] * 4


def test_ids_are_unique():  # P-47
    first, second = fold(stream(answer(call("f", id="c"), call("g", id="c"), finish="STOP"))).tool_calls
    assert (first.id, first.name, first.provider_data) == ("c", "f", {})
    assert GENERATED.fullmatch(second.id)
    assert (second.name, second.provider_data) == ("g", {"gemini": {"generated_id": True}})


@pytest.mark.parametrize("nameless", [{}, {"name": ""}, {"name": None}, {"name": 5}])
def test_a_call_without_a_name_is_dropped(nameless):  # P-47
    odd = {"functionCall": {"id": "c", "args": {"a": 1}} | nameless}
    assert short(stream(answer(odd, "x", finish="STOP"))) == [
        ("message_started",),
        ("text_delta", "x"),
        ("text_completed", "x"),
        ("message_completed", "stop", "STOP"),
    ]


# --- streamed arguments ---------------------------------------------------------------------------------


def pieces(*given, more=True, **members):
    """A part that goes on with a call: strings at `$.a`, or whole pieces."""
    wire = [{"jsonPath": "$.a", "stringValue": each} if isinstance(each, str) else each for each in given]
    return call(None, partialArgs=wire, **({"willContinue": True} if more else {}), **members)


@pytest.mark.parametrize("sizes", [(1 << 20,), (1,)], ids=["whole", "bytes"])
def test_streamed_arguments(sizes):  # P-100, P-97
    events = stream(
        answer(call("f", willContinue=True, signature="sig")),
        answer(pieces({"jsonPath": "$.a", "stringValue": "Bos", "willContinue": True})),
        answer(pieces({"jsonPath": "$.a", "stringValue": "ton"})),
        answer(pieces({"jsonPath": "$.b[0].c", "numberValue": 3}, {"jsonPath": "$.d", "boolValue": False})),
        answer(call()),
        answer(call("g", willContinue=True)),
        answer(pieces({"jsonPath": "$.e", "nullValue": "NULL_VALUE"}, more=False)),
        answer("", finish="STOP"),
        sizes=sizes,
    )
    f, g = fold(events).tool_calls
    assert (f.name, f.arguments) == ("f", {"a": "Boston", "b": [{"c": 3}], "d": False})
    assert f.raw_arguments == '{"a":"Boston","b":[{"c":3}],"d":false}'
    assert f.provider_data == {"gemini": {"generated_id": True, "thought_signature": "sig"}}
    assert (g.name, g.arguments) == ("g", {"e": None})
    assert [event.type for event in events] == [
        "message_started",
        "tool_call_started",
        "tool_call_started",
        "tool_call_completed",
        "tool_call_completed",
        "message_completed",
    ]


def test_the_first_part_may_have_arguments_too():  # P-100
    first = call("f", args={"x": {"y": 1}}, partialArgs=[{"jsonPath": "$.x.z", "numberValue": 2}], willContinue=True)  # fmt: skip
    events = stream(answer(first), answer(call(None, args={"w": 0})), answer(finish="STOP"))
    assert fold(events).tool_calls[0].arguments == {"x": {"y": 1, "z": 2}, "w": 0}


def test_all_arguments_may_come_in_one_part():  # P-100
    one = call("f", id="c", partialArgs=[{"jsonPath": "$.a", "stringValue": "x"}])
    events = stream(answer(one, call("g", id="d", args={}), finish="STOP"))
    assert [made.arguments for made in fold(events).tool_calls] == [{"a": "x"}, {}]


def test_a_call_that_never_ends_keeps_what_it_got():  # P-100
    events = stream(answer(call("f", willContinue=True)), answer(pieces("x"), finish="STOP"))
    assert fold(events).tool_calls[0].arguments == {"a": "x"}


@pytest.mark.parametrize("more", [False, None, 1, "true"])
def test_only_true_says_that_more_will_follow(more):  # P-100
    last = pieces("x", more=False, willContinue=more)
    events = stream(answer(call("f", willContinue=True), last, pieces("y")), answer(finish="STOP"))
    assert [made.arguments for made in fold(events).tool_calls] == [{"a": "x"}]


def test_ids_tell_open_calls_apart():  # P-100, P-47
    events = stream(
        answer(call("f", id="c1", willContinue=True), call("g", id="c2", willContinue=True)),
        answer(pieces("1", id="c1"), pieces("2"), call("f", id="c1", partialArgs=[{"jsonPath": "$.b", "numberValue": 1}])),
        answer(call(None, id="c2"), finish="STOP"),
    )  # fmt: skip
    assert [(made.id, made.arguments) for made in fold(events).tool_calls] == [
        ("c1", {"a": "1", "b": 1}),
        ("c2", {"a": "2"}),
    ]


def test_a_part_after_the_last_belongs_to_nothing():  # P-100, P-47
    events = stream(
        answer(call("f", willContinue=True), pieces("x", more=False), pieces("y"), finish="STOP"),
    )
    assert [made.arguments for made in fold(events).tool_calls] == [{"a": "x"}]


def test_pieces_that_belong_nowhere_spoil_the_call():  # P-46, P-100
    events = stream(
        answer(call("f", willContinue=True)),
        answer(pieces("x", {"jsonPath": "$..b", "stringValue": "?"}, more=False), finish="STOP"),
    )
    (made,) = fold(events).tool_calls
    assert (made.arguments, made.invalid_arguments) == ({}, True)
    assert json.loads(made.raw_arguments) == [{"jsonPath": "$..b", "stringValue": "?"}]


# --- signatures and images ------------------------------------------------------------------------------


def test_signatures_are_kept_where_they_stood():  # P-95, P-39
    events = stream(
        answer({"text": "a", "thoughtSignature": "early"}, call("f", id="c1", signature="one")),
        answer(call("g", id="c2"), {"text": "", "thoughtSignature": "late"}, finish="STOP"),
    )
    response = fold(events)
    assert [made.provider_data for made in response.tool_calls] == [
        {"gemini": {"thought_signature": "one"}},
        {},
    ]
    assert response.message.provider_data == {"gemini": {"thought_signature": "late"}}
    assert response.provider_data == {}


def test_an_empty_text_may_be_left_out_beside_its_signature():  # P-95
    response = fold(stream(answer("a", {"thoughtSignature": "s"}, finish="STOP")))
    assert response.message.provider_data == {"gemini": {"thought_signature": "s"}}


@pytest.mark.parametrize(
    "part",
    [
        {"text": "x", "thoughtSignature": 5},
        {"text": "x", "thoughtSignature": ""},
        {"text": "x", "thought": True, "thoughtSignature": "s"},
        {"thought": True, "thoughtSignature": "s"},
    ],
)
def test_what_is_no_signature_of_the_text(part):  # P-95
    assert fold(stream(answer(part, finish="STOP"))).message.provider_data == {}


def test_images_stand_between_the_texts():  # P-97
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    sound = {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}
    events = stream(answer("a", "b"), answer(picture, sound, "c"), answer(picture, finish="STOP"))
    assert ("image", {"mime_type": "image/png", "data": "AAAA"}) in short(events)
    response = fold(events)
    parts = response.message.content
    assert [part.type for part in parts] == ["text", "image", "text", "image"]
    assert (parts[0].text, parts[2].text, response.output_text) == ("ab", "c", "abc")
    assert parts[1].image.mime_type == "image/png"
    assert (parts[1].image.source.type, parts[1].image.source.value) == ("base64", "AAAA")
    assert ("text_completed", "abc") in short(events)
    assert len([event for event in short(events) if event[0] == "unknown_event"]) == 0


@pytest.mark.parametrize("data", [{"data": "AAAA"}, {"mimeType": "image/png"}, {"mimeType": 5, "data": 5}])
def test_images_without_all_of_it(data):  # P-97
    assert fold(stream(answer("a", {"inlineData": data}, finish="STOP"))).message.content == "a"


# --- the end --------------------------------------------------------------------------------------------

FINISH = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        [
            "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
        ],
        "content_filter",
    ),
    **dict.fromkeys(["OTHER", "NO_IMAGE", "IMAGE_OTHER", "FINISH_REASON_UNSPECIFIED", "NEW_ONE", "stop"], "other"),
}  # fmt: skip
UNUSABLE = [
    "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
]  # fmt: skip


@pytest.mark.parametrize(("raw", "ours"), FINISH.items())
def test_finish_reasons(raw, ours):  # P-98
    assert short(stream(answer("x", finish=raw)))[-1] == ("message_completed", ours, raw)


def test_the_last_finish_reason_wins():  # P-100
    for late, ours in (("RECITATION", "content_filter"), ("SAFETY", "content_filter"), ("STOP", "stop")):
        events = stream(answer("a", finish="STOP"), answer("b", finish="STOP"), answer("c", finish=late))
        assert short(events)[-1] == ("message_completed", ours, late)
        assert fold(events).output_text == "abc"


@pytest.mark.parametrize("none", [None, "", 5, {}])
def test_no_finish_reason_is_no_end(none):  # P-49, P-98
    events = stream(answer("a", finish="STOP") | {"candidates": [{"finishReason": none}]})
    assert short(events)[-1] == ("error", "AdapterError", "network_error")
    assert events[-1].error.metadata == {"premature_close": True}


@pytest.mark.parametrize("raw", UNUSABLE)
def test_unusable_answers_fail(raw):  # P-98, P-44
    first = stream(answer(finish=raw))
    assert short(first) == [("error", "AdapterError", "malformed_response")]
    failed = answer(finish=raw)
    failed["candidates"][0]["finishMessage"] = "Malformed call: print(1) with AIzaSyA0123456789"
    events = stream(answer("a", finish="STOP"), failed, answer("b"))
    assert short(events)[1:] == [("text_delta", "a"), ("error", "AdapterError", "malformed_response")]
    error = events[-1].error
    assert (error.provider, error.status, error.metadata) == ("gemini", None, {"provider_code": raw})
    assert error.message == "Malformed call: print(1) with [REDACTED]"
    assert raw in first[-1].error.message


def test_the_finish_message_is_kept():  # P-98
    told = answer("x", finish="SAFETY")
    told["candidates"][0]["finishMessage"] = "Because of AIzaSyA0123456789."
    *_, last = stream(told)
    assert last.provider_data == {"gemini": {"finish_message": "Because of [REDACTED]."}}
    assert fold(stream(told)).provider_data == last.provider_data


def test_a_finish_message_may_come_alone():  # P-98
    told = {"candidates": [{"finishMessage": "late"}]}
    assert fold(stream(answer("x", finish="STOP"), told)).provider_data == {
        "gemini": {"finish_message": "late"}
    }


def test_a_blocked_prompt_is_an_orderly_end():  # P-99, P-49
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    events = stream(blocked | {"modelVersion": "m"})
    assert short(events) == [
        ("message_started",),
        ("usage", {"input_tokens": 3}),
        ("message_completed", "content_filter", "SAFETY"),
    ]
    assert events[-1].provider_data == {"gemini": {"block_reason": "SAFETY"}}
    assert events[-1].model == "m"


@pytest.mark.parametrize("feedback", [None, {}, {"blockReason": ""}, {"blockReason": 5}, "SAFETY", []])
def test_feedback_that_blocks_nothing(feedback):  # P-99
    events = stream({"promptFeedback": feedback}, *EXAMPLE)
    assert short(events) == FOUR


def test_the_body_is_read_on_after_the_finish():  # P-49, P-100
    decoder = GenerateDecoder()
    decoder.feed(SSEEvent(None, json.dumps(EXAMPLE[0])))
    assert (decoder.finished, decoder.done) == (False, False)
    decoder.feed(SSEEvent(None, json.dumps(EXAMPLE[1])))
    assert (decoder.finished, decoder.done) == (True, False)
    assert short(stream(*EXAMPLE, {"usageMetadata": {"promptTokenCount": 8}}))[-2] == (
        "usage",
        {"input_tokens": 8},
    )


def test_a_done_marker_ends_the_body():  # P-100, P-121
    assert short(stream(*EXAMPLE, " [DONE]\t", answer("late"))) == FOUR
    events = stream(EXAMPLE[0], "[DONE]", *EXAMPLE)
    assert short(events)[-1] == ("error", "AdapterError", "network_error")
    assert (events[-1].error.provider, events[-1].error.metadata) == ("gemini", {"premature_close": True})


def test_a_done_marker_in_a_text_means_nothing():  # P-121
    assert fold(stream(answer("[DONE]", finish="STOP"))).output_text == "[DONE]"


# --- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason", "status"),
    [
        ({"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}, "rate_limited", 429),
        ({"code": 503, "message": "m", "status": "UNAVAILABLE"}, "provider_unavailable", 503),
        ({"code": 400, "message": "The input token count exceeds", "status": "INVALID_ARGUMENT"}, "context_length_exceeded", 400),
        ({"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}, "authentication_failed", 400),
        ({"status": "RESOURCE_EXHAUSTED"}, "rate_limited", None),
        ({"status": "UNAUTHENTICATED"}, "authentication_failed", None),
        ({"status": "PERMISSION_DENIED"}, "authentication_failed", None),
        ({"status": "FAILED_PRECONDITION"}, "invalid_request", None),
        ({"status": "NOT_FOUND"}, "invalid_request", None),
        ({"status": "DEADLINE_EXCEEDED"}, "provider_unavailable", None),
        ({"code": 13, "status": "INTERNAL"}, "provider_unavailable", None),
        ("overloaded", "provider_unavailable", None),
    ],
)  # fmt: skip
def test_errors_in_the_stream(error, reason, status):  # P-103, P-40, P-44, P-107
    (alone,) = stream({"error": error})
    assert short([alone]) == [("error", "AdapterError", reason)]
    assert (alone.error.status, alone.error.provider) == (status, "gemini")
    if isinstance(error, dict) and "status" in error:
        assert alone.error.metadata["provider_type"] == error["status"]
    later = stream(EXAMPLE[0], {"error": error}, *EXAMPLE)
    assert short(later) == [*FOUR[:2], ("error", "AdapterError", reason)]


def test_a_bare_error_after_the_finish():  # P-100, P-119
    bare = b'{\n  "error": {"code": 499, "message": "cancelled", "status": "CANCELLED"}\n}\n'
    events = play(stream_body(*EXAMPLE) + bare, GenerateDecoder())
    assert short(events)[-1] == ("error", "AdapterError", "unknown")
    assert (events[-1].error.message, events[-1].error.status) == ("cancelled", 499)


def test_the_error_says_when_to_come_back_and_keeps_secrets():  # P-108, P-140
    key = "key-of-the-call"
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
    error = {"code": 429, "message": f"not for {key}", "details": [retry]}
    (event,) = play(stream_body({"error": error}), GenerateDecoder(Redactor(key)))
    assert (event.error.retry_after, event.error.message) == (34.0, "not for [REDACTED]")


@pytest.mark.parametrize("data", ["[1]", "null", "5", '"x"', "{", "nonsense"])
def test_what_is_no_object(data):  # P-109
    events = stream(EXAMPLE[0], data, *EXAMPLE)
    assert short(events) == [*FOUR[:2], ("error", "StreamError", "malformed_event")]
    assert events[-1].error.event_index == 1
    assert short(stream(data, *EXAMPLE)) == [("error", "StreamError", "malformed_event")]


def test_a_stream_that_is_cut_off():  # P-49, P-120
    body = stream_body(*EXAMPLE)
    for end in range(len(body) - 4):
        events = play(body[:end], GenerateDecoder())
        finished = events[-1].type == "message_completed"
        assert finished is (b'"STOP"' in body[:end] and body[:end].rstrip().endswith(b"}}"))
        if not finished:
            assert short(events)[-1] == ("error", "AdapterError", "network_error")


def test_errors_are_raised_by_feed():  # P-40
    decoder = GenerateDecoder()
    with pytest.raises(AdapterError):
        decoder.feed(SSEEvent(None, '{"error":{"code":500}}'))
    with pytest.raises(StreamError):
        GenerateDecoder().feed(SSEEvent(None, "nope"))
    assert not decoder.started


def test_the_text_of_a_failing_frame_comes_before_its_error():
    """P-44, P-98: the model's last words are not lost with the answer."""
    from allm_actors.providers._sse import SSEEvent
    from allm_actors.providers.gemini._stream import GenerateDecoder

    decoder = GenerateDecoder()
    part = {"candidates": [{"content": {"parts": [{"text": "half"}]}, "finishReason": "MALFORMED_RESPONSE"}]}

    events = decoder.feed(SSEEvent(None, json.dumps(part)))

    assert [event.type for event in events] == ["message_started", "text_delta"]
    assert decoder.done
    assert decoder.failure.reason == "malformed_response"
