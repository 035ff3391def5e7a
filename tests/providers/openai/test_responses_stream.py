"""Decoding Responses streams."""

import json

import pytest

from allm_actors.providers._sse import SSEEvent
from allm_actors.providers.openai._responses_decode import decode_responses
from allm_actors.providers.openai._responses_stream import ResponsesDecoder
from tests.providers.openai.decoding import fold, play, responses, responses_body, short

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "m", "status": "in_progress"}}
MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "Four."}]}
USAGE = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}
FOUR = [
    ("message_started",),
    ("text_delta", "Four."),
    ("text_completed", "Four."),
    ("usage", USAGE),
    ("message_completed", "stop", "completed"),
]


def text(delta):
    return {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": delta,
    }


def completed(*output, kind="completed", **members):
    body = {"id": "resp_1", "model": "m", "status": kind, "output": list(output), "usage": USAGE} | members
    return {"type": f"response.{kind}", "response": body}


def call_item(number=1, arguments="", **members):
    return {
        "type": "function_call",
        "id": f"fc_{number}",
        "call_id": f"call_{number}",
        "name": "f",
        "arguments": arguments,
    } | members


def added(item, output_index=0):
    return {"type": "response.output_item.added", "output_index": output_index, "item": item}


def item_done(item, output_index=0):
    return {"type": "response.output_item.done", "output_index": output_index, "item": item}


def arguments(delta, number=1, output_index=0):
    return {
        "type": "response.function_call_arguments.delta",
        "item_id": f"fc_{number}",
        "output_index": output_index,
        "delta": delta,
    }


def arguments_done(text, number=1, output_index=0):
    return {
        "type": "response.function_call_arguments.done",
        "item_id": f"fc_{number}",
        "output_index": output_index,
        "arguments": text,
    }


@pytest.mark.parametrize("sizes", [(1 << 20,), (1,), (5, 23, 2)], ids=["whole", "bytes", "pieces"])
def test_an_answer_is_told_in_order_and_closed_once(sizes):  # P-70, P-40, P-42
    assert short(responses(CREATED, text("Four."), completed(MESSAGE), sizes=sizes)) == FOUR


def test_the_completed_message_carries_everything():  # P-43, P-68
    end = completed(MESSAGE, service_tier="flex", reasoning={"effort": "low", "summary": None})
    *_, last = responses(CREATED, text("Four."), end)
    assert (last.response_id, last.model, last.message.content) == ("resp_1", "m", "Four.")
    assert last.provider_data == {"openai": {"service_tier": "flex", "reasoning_effort": "low"}}
    assert last.usage.total_tokens == 11


def test_nothing_counts_after_the_end():  # P-49, P-70
    decoder = ResponsesDecoder()
    decoder.feed(SSEEvent(None, json.dumps(completed(MESSAGE))))
    assert decoder.done
    assert decoder.finished
    assert decoder.feed(SSEEvent(None, json.dumps(text("late")))) == []
    assert short(decoder.close())[-1] == FOUR[-1]


def test_a_body_that_ends_early_is_cut_off():  # P-49, C-28
    events = responses(CREATED, text("Fo"))
    assert short(events) == [
        ("message_started",),
        ("text_delta", "Fo"),
        ("error", "AdapterError", "network_error"),
    ]
    assert events[-1].error.metadata["premature_close"] is True


def test_an_end_marker_is_ignored():  # P-70
    body = (
        b"data: [DONE]\n\n"
        + responses_body(CREATED, text("Four."))
        + b"data: [DONE]\n\n"
        + responses_body(completed(MESSAGE))
    )
    assert short(play(body, ResponsesDecoder())) == FOUR
    decoder = ResponsesDecoder()
    assert decoder.feed(SSEEvent(None, "[DONE]")) == []
    assert not decoder.started
    assert not decoder.done


def test_the_type_wins_over_the_frames_name():  # P-70
    decoder = ResponsesDecoder()
    assert short(decoder.feed(SSEEvent("response.failed", json.dumps(text("x"))))) == [
        ("message_started",),
        ("text_delta", "x"),
    ]
    bare = {name: value for name, value in text("y").items() if name != "type"}
    assert decoder.feed(SSEEvent("response.refusal.delta", json.dumps(bare)))[0].kind == "refusal_delta"


@pytest.mark.parametrize(
    "kind",
    [
        "response.queued", "response.in_progress", "response.content_part.added", "response.content_part.done",
        "response.output_text.done", "response.refusal.done", "response.output_text.annotation.added",
        "response.reasoning_summary_text.done", "response.reasoning_summary_part.done", "response.reasoning_text.done",
    ],
)  # fmt: skip
def test_events_that_say_nothing(kind):  # P-70
    decoder = ResponsesDecoder()
    event = {
        "type": kind,
        "delta": "no",
        "text": "no",
        "part": {"type": "output_text", "text": "no"},
        "output_index": 0,
    }
    assert short(decoder.feed(SSEEvent(kind, json.dumps(event)))) == [("message_started",)]


@pytest.mark.parametrize("kind", ["message", "reasoning", "web_search_call", "mcp_call", None])
def test_items_of_other_kinds_say_nothing(kind):  # P-70
    item = {"type": kind, "id": "x", "call_id": "c", "name": "f", "arguments": "{}"}
    assert short(responses(CREATED, added(item), item_done(item), text("Four."), completed(MESSAGE))) == FOUR


def test_a_keep_alive_opens_nothing():  # P-123, P-40
    decoder = ResponsesDecoder()
    assert decoder.feed(SSEEvent("keepalive", '{"type":"keepalive"}')) == []
    assert not decoder.started


def test_unknown_events_are_passed_on():  # P-48, P-70
    odd = {"type": "response.web_search_call.searching", "item_id": "ws_1"}
    events = short(responses(CREATED, odd, {"x": 1}, text("Four."), completed(MESSAGE)))
    assert events[1] == ("unknown_event", {"provider": "openai", "event": odd["type"], "data": odd})
    nameless = ResponsesDecoder().feed(SSEEvent(None, '{"x":1}'))
    assert short(nameless)[1] == ("unknown_event", {"provider": "openai", "event": None, "data": {"x": 1}})


# -- calls ---------------------------------------------------------------------------------------------------


def test_a_call_in_fragments():  # P-70, P-45
    events = responses(
        CREATED,
        added(call_item()),
        arguments('{"a"'),
        arguments(":1}"),
        arguments_done('{"a":1}'),
        item_done(call_item(arguments='{"a":1}')),
        completed(call_item(arguments='{"a":1}')),
    )
    assert short(events) == [
        ("message_started",),
        ("tool_call_started", "call_1", "f"),
        ("tool_call_delta", "call_1", '{"a"'),
        ("tool_call_delta", "call_1", ":1}"),
        ("tool_call_completed", "call_1", "f", {"a": 1}, '{"a":1}'),
        ("usage", USAGE),
        ("message_completed", "tool_calls", "completed"),
    ]


def test_parallel_calls_interleave():  # P-70
    events = responses(
        CREATED,
        added(call_item(1), 0),
        added(call_item(2), 1),
        arguments('{"n":2}', 2, 1),
        arguments('{"n":1}', 1, 0),
        completed(call_item(1), call_item(2)),
    )
    assert [(call.id, call.arguments["n"]) for call in fold(events).tool_calls] == [
        ("call_1", 1),
        ("call_2", 2),
    ]


def test_a_delta_without_item_id_goes_by_output_index():  # P-70
    bare = {"type": "response.function_call_arguments.delta", "output_index": 3, "delta": "{}"}
    events = responses(CREATED, added(call_item(), 3), bare, completed())
    assert ("tool_call_delta", "call_1", "{}") in short(events)


@pytest.mark.parametrize(
    ("delivered", "whole", "rest"),
    [("", '{"a":1}', '{"a":1}'), ('{"a"', '{"a":1}', ":1}"), ('{"a":1}', '{"a":1}', None), ('{"b"', '{"a":1}', None), ('{"a":1}', '{"a"', None)],
)  # fmt: skip
@pytest.mark.parametrize("by", ["arguments.done", "item.done"])
def test_the_final_arguments_complete_what_was_delivered(delivered, whole, rest, by):  # P-70, P-46
    done = arguments_done(whole) if by == "arguments.done" else item_done(call_item(arguments=whole))
    events = responses(
        CREATED, added(call_item()), *([arguments(delivered)] if delivered else []), done, completed()
    )
    deltas = [event.arguments_delta for event in events if event.type == "tool_call_delta"]
    assert deltas == [text for text in (delivered, rest) if text]
    assert fold(events).tool_calls[0].raw_arguments == "".join(deltas)


def test_a_call_announced_only_when_done():  # P-70
    events = responses(CREATED, item_done(call_item(arguments='{"a":1}')), completed())
    assert short(events)[1:4] == [
        ("tool_call_started", "call_1", "f"),
        ("tool_call_delta", "call_1", '{"a":1}'),
        ("tool_call_completed", "call_1", "f", {"a": 1}, '{"a":1}'),
    ]


def test_arguments_before_their_item_are_held_back():  # P-70, P-41
    events = responses(
        CREATED, arguments('{"a"'), arguments(":1"), added(call_item()), arguments("}"), completed()
    )
    assert short(events)[1:4] == [
        ("tool_call_started", "call_1", "f"),
        ("tool_call_delta", "call_1", '{"a":1'),
        ("tool_call_delta", "call_1", "}"),
    ]


def test_arguments_of_an_item_that_never_comes_are_dropped():  # P-47
    assert short(responses(CREATED, arguments("{}"), text("Four."), completed(MESSAGE))) == FOUR


def test_a_call_known_only_from_the_whole_answer():  # P-70
    events = responses(
        CREATED,
        added(call_item(1)),
        arguments("{}", 1),
        completed(call_item(1, "{}"), call_item(2, '{"n":2}')),
    )
    assert short(events)[3:5] == [
        ("tool_call_started", "call_2", "f"),
        ("tool_call_delta", "call_2", '{"n":2}'),
    ]
    assert [call.id for call in fold(events).tool_calls] == ["call_1", "call_2"]


@pytest.mark.parametrize(
    ("delivered", "whole", "raw"),
    [("", '{"a":1}', '{"a":1}'), ('{"a"', '{"a":1}', '{"a":1}'), ('{"b":2}', '{"a":1}', '{"b":2}')],
)
def test_arguments_known_only_from_the_whole_answer(delivered, whole, raw):  # P-70, P-6
    """Some gateways announce a call and tell the rest of it at the end: it must not run with nothing."""
    told = [arguments(delivered)] if delivered else []
    events = responses(CREATED, added(call_item()), *told, completed(call_item(arguments=whole)))
    assert [(call.id, call.raw_arguments) for call in fold(events).tool_calls] == [("call_1", raw)]
    assert "".join(event.arguments_delta for event in events if event.type == "tool_call_delta") == raw


def test_the_whole_answer_completes_no_other_call():  # P-70
    """What stands in the place of a call in the whole answer need not be that call."""
    item = call_item(id="x9", call_id="call_9", arguments='{"a":1}')
    events = responses(CREATED, added(call_item(1), 0), completed(item))
    assert fold(events).tool_calls[0].raw_arguments == "{}"


def test_the_call_id_is_the_items_own_where_there_is_none():  # P-68, P-70
    item = {name: value for name, value in call_item().items() if name != "call_id"}
    assert short(responses(CREATED, added(item), completed(item)))[1] == ("tool_call_started", "fc_1", "f")


def test_items_whose_id_changes_with_every_event_are_one_call():  # P-70
    events = responses(
        CREATED,
        added(call_item(id="x1"), 0),
        {"type": "response.function_call_arguments.delta", "item_id": "x2", "output_index": 0, "delta": "{}"},
        item_done(call_item(id="x3", arguments="{}"), 0),
        completed(call_item(id="x4", arguments="{}")),
    )
    assert [(call.id, call.raw_arguments) for call in fold(events).tool_calls] == [("call_1", "{}")]


def test_calls_that_all_stand_in_one_place_are_told_apart_by_their_ids():  # P-70
    events = responses(
        CREATED,
        added(call_item(1)),
        added(call_item(2)),
        arguments('{"n":1}', 1),
        arguments('{"n":2}', 2),
        completed(),
    )
    assert [call.arguments["n"] for call in fold(events).tool_calls] == [1, 2]


def test_an_id_that_is_taken_is_replaced():  # P-47
    events = responses(
        CREATED,
        added(call_item(1), 0),
        added(call_item(2, call_id="call_1"), 1),
        arguments('{"n":2}', 2, 1),
        completed(),
    )
    first, second = fold(events).tool_calls
    assert first.id == "call_1"
    assert second.id != "call_1"
    assert second.arguments == {"n": 2}
    assert second.provider_data == {"openai": {"generated_id": True}}


# -- what only the whole answer tells ------------------------------------------------------------------------


def test_text_known_only_from_the_whole_answer():  # P-70
    assert short(responses(CREATED, completed(MESSAGE))) == FOUR


def test_text_that_was_delivered_stands():  # P-70
    assert fold(responses(CREATED, text("5"), completed(MESSAGE))).output_text == "5"


def test_a_refusal():  # P-62, P-68, P-70
    delta = {"type": "response.refusal.delta", "delta": "no"}
    item = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    for events in (responses(CREATED, delta, completed(item)), responses(CREATED, completed(item))):
        assert short(events)[1] == ("refusal_delta", {"delta": "no"})
        assert short(events)[-1] == ("message_completed", "content_filter", "completed")
        assert events[-1].refusal == "no"


def summary(delta, index=0, output=0):
    return {
        "type": "response.reasoning_summary_text.delta",
        "output_index": output,
        "summary_index": index,
        "delta": delta,
    }


def summary_part(index, output=0):
    return {
        "type": "response.reasoning_summary_part.added",
        "output_index": output,
        "summary_index": index,
        "part": {},
    }


def test_reasoning_summaries():  # P-70, P-39
    events = responses(
        CREATED,
        summary_part(0),
        summary("a"),
        summary("b"),
        summary_part(1),
        summary("c", 1),
        summary("d", 1),
        text("x"),
        completed(),
    )
    assert short(events)[1:5] == [("thinking_delta", {"index": 0, "delta": part}) for part in "abcd"]
    assert events[-1].reasoning == "ab\n\ncd"


def test_parts_of_a_summary_that_are_not_announced():  # P-70, P-6
    assert responses(CREATED, summary("a"), summary("b", 1), completed())[-1].reasoning == "a\n\nb"


def test_reasoning_texts_win_over_their_summary():  # P-68, P-6
    own = {"type": "response.reasoning_text.delta", "output_index": 2, "delta": "why"}
    events = responses(CREATED, summary("short", output=2), own, completed())
    assert short(events)[2] == ("thinking_delta", {"index": 2, "delta": "why"})
    assert events[-1].reasoning == "why"


def test_reasoning_equals_that_of_the_whole_answer():  # P-6, P-68
    item = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
    }
    end = completed(item, MESSAGE)
    told = responses(
        CREATED, summary_part(0), summary("a"), summary_part(1), summary("b", 1), text("Four."), end
    )
    assert told[-1].reasoning == decode_responses(end["response"]).reasoning == "a\n\nb"
    assert responses(CREATED, end)[-1].reasoning == "a\n\nb"


# -- statuses and failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "ours", "raw"),
    [
        ({"reason": "max_output_tokens"}, "length", "max_output_tokens"),
        ({"reason": "content_filter"}, "content_filter", "content_filter"),
        ({"reason": "tired"}, "other", "tired"),
        (None, "other", "incomplete"),
    ],
)
def test_incomplete_answers(details, ours, raw):  # P-69, P-70
    events = responses(CREATED, text("Fo"), completed(MESSAGE, kind="incomplete", incomplete_details=details))
    assert short(events)[-1] == ("message_completed", ours, raw)
    assert events[-1].provider_data["openai"]["incomplete_details"] == {
        "reason": details and details["reason"]
    }
    assert events[-1].message.content == "Fo"


def test_the_end_counts_even_without_a_status():  # P-49, P-69
    events = responses(CREATED, text("Fo"), {"type": "response.completed"})
    assert short(events)[-1] == ("message_completed", "stop", "completed")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "rate_limit_exceeded", "message": "slow"}, "rate_limited"),
        ({"code": "server_error", "message": "oops"}, "provider_unavailable"),
        (None, "provider_unavailable"),
    ],
)
def test_a_failed_answer(error, reason):  # P-70, P-104, P-44
    failed = {"type": "response.failed", "response": {"status": "failed", "error": error}}
    assert short(responses(CREATED, text("x"), failed)) == [
        ("message_started",),
        ("text_delta", "x"),
        ("error", "AdapterError", reason),
    ]
    assert short(responses(failed)) == [("error", "AdapterError", reason)]


@pytest.mark.parametrize(
    "event",
    [
        {
            "type": "error",
            "code": "rate_limit_exceeded",
            "message": "slow down",
            "param": None,
            "sequence_number": 1,
        },
        {
            "type": "error",
            "error": {"type": "requests", "code": "rate_limit_exceeded", "message": "slow down"},
        },
        {
            "type": "error",
            "error": {"type": "requests", "code": "rate_limit_exceeded", "message": "slow down"},
            "code": None,
        },
    ],
)
def test_the_error_event(event):  # P-70, P-104, P-107
    (only,) = responses(event)
    assert (only.error.reason, only.error.message) == ("rate_limited", "slow down")
    assert only.error.metadata["provider_code"] == "rate_limit_exceeded"


def test_an_error_named_by_its_frame():  # P-70
    body = b'event: error\ndata: {"code":"server_error","message":"oops"}\n\n'
    assert short(play(body, ResponsesDecoder())) == [("error", "AdapterError", "provider_unavailable")]


def test_an_error_object_without_a_type():  # P-103
    (only,) = responses({"error": {"message": "bad", "type": "invalid_request_error"}})
    assert only.error.reason == "invalid_request"


def test_an_error_outside_any_frame():  # P-64
    body = responses_body(CREATED) + b'{"error":{"message":"slow","type":"rate_limit_error"}}\n'
    assert short(play(body, ResponsesDecoder()))[-1] == ("error", "AdapterError", "rate_limited")


def test_data_that_is_no_object_ends_the_stream():  # P-109
    events = play(responses_body(CREATED) + b"data: nope\n\n", ResponsesDecoder())
    assert short(events) == [("message_started",), ("error", "StreamError", "malformed_event")]
    assert events[-1].error.event_index == 1
