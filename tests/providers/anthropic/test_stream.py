"""Decoding streamed Messages answers."""

import json

import pytest

from allm_actors.errors import StreamError
from allm_actors.providers._redact import Redactor
from allm_actors.providers._sse import SSEEvent
from allm_actors.providers.anthropic._stream import MessagesDecoder
from tests.providers.anthropic.decoding import (
    LIFTED,
    closing,
    delta,
    messages,
    messages_body,
    opening,
    start,
    stop,
    text,
    thinking,
    tool,
)
from tests.providers.openai.decoding import fold, play, short

SPOKEN = b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_1","model":"m","role":"assistant","content":[],"usage":{"input_tokens":9,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Four."}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}}

event: message_stop
data: {"type":"message_stop"}

"""
GOLDEN = [
    ("message_started",),
    ("text_delta", "Four."),
    ("text_completed", "Four."),
    (
        "usage",
        {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, "extra": {"uncached_input_tokens": 9}},
    ),
    ("message_completed", "stop", "end_turn"),
]
RICH = [
    opening({"input_tokens": 5, "output_tokens": 1}),
    {"type": "ping"},
    *thinking(0, "Let me ", "see."),
    start(1, "redacted_thinking", data="x"),
    stop(1),
    *text(2, "Grüße, ", "\u2028Welt 🌍"),
    *tool(3, "toolu_1", "add", '{"a"', ":1,", '"b":[2]}'),
    *tool(4, "toolu_2", "now", ""),
    *closing("tool_use", {"output_tokens": 40}),
]


def unknown(events):
    return [event.payload for event in events if event.type == "raw_chunk" and event.kind == "unknown_event"]


def one(events):
    """The only event of a stream that failed at once."""
    (event,) = events
    assert event.type == "error"
    return event.error


# --- the whole of it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1 << 20,), (1,), (7, 1, 64, 3)])
def test_the_published_example(sizes):  # P-86, P-87, P-40..P-43, P-116
    assert short(play(SPOKEN, MessagesDecoder(), sizes=sizes)) == GOLDEN
    assert short(play(SPOKEN.replace(b"\n", b"\r\n"), MessagesDecoder(), sizes=sizes)) == GOLDEN


@pytest.mark.parametrize("sizes", [(1 << 20,), (1,), (5, 2), (100, 1)])
def test_everything_at_once(sizes):  # P-86, P-84, P-41, P-42, P-116
    events = messages(*RICH, sizes=sizes)
    assert short(events) == [
        ("message_started",),
        ("thinking_start", {"index": 0}),
        ("thinking_delta", {"index": 0, "delta": "Let me "}),
        ("thinking_delta", {"index": 0, "delta": "see."}),
        ("text_delta", "Grüße, "),
        ("text_delta", "\u2028Welt 🌍"),
        ("tool_call_started", "toolu_1", "add"),
        ("tool_call_delta", "toolu_1", '{"a"'),
        ("tool_call_delta", "toolu_1", ":1,"),
        ("tool_call_delta", "toolu_1", '"b":[2]}'),
        ("tool_call_started", "toolu_2", "now"),
        ("text_completed", "Grüße, \u2028Welt 🌍"),
        ("tool_call_completed", "toolu_1", "add", {"a": 1, "b": [2]}, '{"a":1,"b":[2]}'),
        ("tool_call_completed", "toolu_2", "now", {}, "{}"),
        (
            "usage",
            {
                "input_tokens": 5,
                "output_tokens": 40,
                "total_tokens": 45,
                "extra": {"uncached_input_tokens": 5},
            },
        ),
        ("message_completed", "tool_calls", "tool_use"),
    ]
    last = events[-1]
    assert (last.response_id, last.model, last.reasoning, last.refusal) == ("msg_1", "m", "Let me see.", None)
    assert last.usage.total_tokens == 45
    assert last.provider_data == {}
    assert last.message.content == "Grüße, \u2028Welt 🌍"
    assert [call.id for call in last.message.tool_calls] == ["toolu_1", "toolu_2"]
    assert last.message.provider_data == {
        "anthropic": {
            "thinking_blocks": [
                {"type": "thinking", "thinking": "Let me see.", "signature": "sig"},
                {"type": "redacted_thinking", "data": "x"},
            ]
        }
    }


def test_an_answer_without_content():  # P-42, P-43
    events = messages(opening(), *closing("end_turn"))
    assert short(events) == [("message_started",), ("message_completed", "stop", "end_turn")]
    assert (events[-1].usage, events[-1].reasoning, events[-1].message.content) == (None, None, "")


def test_the_kind_may_stand_in_the_frame_alone():  # P-86
    frames = [
        (event["type"], {key: value for key, value in event.items() if key != "type"}) for event in RICH
    ]
    body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in frames).encode()
    assert play(body, MessagesDecoder()) == messages(*RICH)


def test_the_payload_says_more_than_the_frame():  # P-86
    body = messages_body(*RICH).replace(b"event: ", b"event: not_")
    assert play(body, MessagesDecoder()) == messages(*RICH)


def test_done_is_ignored():  # P-86, P-121
    assert (
        short(messages("[DONE]", *RICH))
        == short(messages(*RICH[:3], " [DONE] ", *RICH[3:]))
        == short(messages(*RICH))
    )


# --- opening and ending ---------------------------------------------------------------------------------


def test_a_ping_opens_nothing():  # P-40, P-123
    decoder = MessagesDecoder()
    assert decoder.feed(SSEEvent(event="ping", data='{"type":"ping"}')) == []
    assert decoder.feed(SSEEvent(event="ping", data="{}")) == []
    assert not decoder.started


def test_message_stop_ends_it_and_later_bytes_mean_nothing():  # P-49
    decoder = MessagesDecoder()
    for event in RICH:
        assert not decoder.done
        decoder.feed(SSEEvent(event=None, data=json.dumps(event)))
    assert decoder.finished
    assert decoder.done
    assert decoder.feed(SSEEvent(event=None, data="no JSON")) == []
    assert short(messages(*RICH, *text(9, "late"), "no JSON")) == short(messages(*RICH))


def test_a_stop_reason_is_an_end_too():  # P-49
    assert short(messages(*RICH[:-1])) == short(messages(*RICH))


@pytest.mark.parametrize("reason", [None, ""])
def test_without_a_stop_reason_a_clean_end_is_premature(reason):  # P-49
    change = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 1}}
    events = messages(opening(), *text(0, "half"), change)
    assert events[-1].error.metadata["premature_close"] is True
    assert [event.type for event in events] == ["message_started", "text_delta", "error"]


def test_message_stop_without_a_stop_reason():  # P-49, P-43
    decoder = MessagesDecoder()
    decoder.feed(SSEEvent(event="message_stop", data="{}"))
    assert (decoder.finished, decoder.done) == (True, True)
    assert short(messages(opening(), *text(0, "x"), {"type": "message_stop"}))[-1] == (
        "message_completed",
        "other",
        None,
    )
    calls = messages(opening(), *tool(0, "c", "f"), {"type": "message_stop"})
    assert short(calls)[-1] == ("message_completed", "tool_calls", None)


def test_data_that_is_no_object():  # P-109
    for data in ("[1]", "no JSON", '"text"', "1", "null"):
        events = messages(opening(), data, *closing())
        assert [event.type for event in events] == ["message_started", "error"]
        error = events[-1].error
        assert isinstance(error, StreamError)
        assert (error.reason, error.event_index, error.provider) == ("malformed_event", 1, "anthropic")
        assert data in error.message


# --- stop reasons ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "other"),
        ("brand_new", "other"),
    ],
)
def test_stop_reasons(raw, finish):  # P-85
    assert short(messages(opening(), *closing(raw)))[-1] == ("message_completed", finish, raw)


def test_calls_make_tool_calls_of_stop_alone():  # P-45
    finishes = {
        raw: short(messages(opening(), *tool(0, "c", "f"), *closing(raw)))[-1][1]
        for raw in ("end_turn", "stop_sequence", "max_tokens", "refusal", "pause_turn")
    }
    assert finishes == {
        "end_turn": "tool_calls",
        "stop_sequence": "tool_calls",
        "max_tokens": "length",
        "refusal": "content_filter",
        "pause_turn": "other",
    }


def test_what_belongs_to_a_stop_reason_is_kept():  # P-85
    matched = messages(opening(), *closing("stop_sequence", stop_sequence="END"))[-1]
    assert matched.provider_data == {"anthropic": {"stop_sequence": "END"}}
    details = {"type": "refusal", "category": "x", "explanation": None}
    declined = messages(opening(), *closing("refusal", stop_details=details))
    assert declined[-1].provider_data == {"anthropic": {"stop_details": details}}
    assert fold(declined).provider_data == {"anthropic": {"stop_details": details}}
    assert messages(opening(), *closing("end_turn", stop_sequence="END"))[-1].provider_data == {}
    assert messages(opening(), *closing("refusal", stop_details=None))[-1].provider_data == {}
    assert (
        messages(opening(), *closing("end_turn", stop_details=None, stop_sequence=None))[-1].provider_data
        == {}
    )


# --- text -----------------------------------------------------------------------------------------------


def test_a_block_may_begin_with_its_text():  # P-86
    events = messages(opening(), start(0, "text", text="Hel"), delta(0, "text_delta", text="lo"), *closing())
    assert short(events)[1:4] == [("text_delta", "Hel"), ("text_delta", "lo"), ("text_completed", "Hello")]


def test_several_blocks_are_one_text():  # P-42, P-83
    events = messages(opening(), *text(0, "a"), *text(1, "b"), *closing())
    assert short(events)[1:4] == [("text_delta", "a"), ("text_delta", "b"), ("text_completed", "ab")]


def test_empty_pieces_are_no_events():  # P-41
    events = messages(
        opening(), *text(0, "", "a", ""), *tool(1, "c", "f", "", "{}", ""), *thinking(2, "", "b"), *closing()
    )
    assert [
        entry for entry in short(events) if "" in entry or entry[1:] == ({"index": 2, "delta": ""},)
    ] == []
    assert [event.type for event in events].count("text_delta") == 1
    assert [event.type for event in events].count("tool_call_delta") == 1


def test_citations_are_silent():  # P-86
    cited = [start(0, "text", text="", citations=[]), delta(0, "citations_delta", citation={"type": "x"})]
    events = messages(opening(), *cited, delta(0, "text_delta", text="x"), *closing())
    assert unknown(events) == []
    assert fold(events).output_text == "x"


# --- reasoning ------------------------------------------------------------------------------------------


def blocks(events):
    return events[-1].message.provider_data["anthropic"]["thinking_blocks"]


def test_reasoning_that_is_not_shown_is_kept():  # P-84
    events = messages(
        opening(), *thinking(0, signature="s1"), start(1, "redacted_thinking", data="d"), *closing()
    )
    assert blocks(events) == [
        {"type": "thinking", "thinking": "", "signature": "s1"},
        {"type": "redacted_thinking", "data": "d"},
    ]
    assert events[-1].reasoning is None
    assert short(events)[1:-1] == [("thinking_start", {"index": 0})]


def test_blocks_are_kept_as_they_came():  # P-84
    begun = start(0, "thinking", thinking="a", signature="old", extra={"x": [1]})
    events = messages(opening(), begun, delta(0, "thinking_delta", thinking="b"), *closing())
    assert blocks(events) == [{"type": "thinking", "thinking": "ab", "signature": "old", "extra": {"x": [1]}}]
    assert ("thinking_delta", {"index": 0, "delta": "a"}) in short(events)
    signed = [delta(0, "signature_delta", signature="n"), delta(0, "signature_delta", signature="ew")]
    assert blocks(messages(opening(), begun, *signed, *closing()))[0]["signature"] == "new"


def test_blocks_that_interleave_are_told_apart():  # P-86
    """Order is that of first appearance, for calls and for reasoning."""
    events = messages(
        opening(),
        start(7, "thinking", thinking="", signature=""),
        start(3, "thinking", thinking="", signature=""),
        start(5, "tool_use", id="c5", name="f", input={}),
        start(2, "tool_use", id="c2", name="g", input={}),
        start(4, "text", text=""),
        delta(3, "thinking_delta", thinking="third"),
        delta(2, "input_json_delta", partial_json='{"b":'),
        delta(4, "text_delta", text="te"),
        delta(7, "thinking_delta", thinking="seventh "),
        delta(5, "input_json_delta", partial_json='{"a":1}'),
        delta(4, "text_delta", text="xt"),
        delta(2, "input_json_delta", partial_json="2}"),
        delta(7, "signature_delta", signature="s7"),
        delta(3, "signature_delta", signature="s3"),
        *closing("tool_use"),
    )
    assert [(call.id, call.arguments) for call in fold(events).tool_calls] == [
        ("c5", {"a": 1}),
        ("c2", {"b": 2}),
    ]
    assert [(block["thinking"], block["signature"]) for block in blocks(events)] == [
        ("seventh ", "s7"),
        ("third", "s3"),
    ]
    assert fold(events).output_text == "text"
    assert fold(events).reasoning == "seventh third"
    assert ("thinking_delta", {"index": 3, "delta": "third"}) in short(events)


# --- tool calls -----------------------------------------------------------------------------------------


def calls(events):
    return [
        (event.name, event.arguments, event.raw_arguments)
        for event in events
        if event.type == "tool_call_completed"
    ]


def test_arguments_may_come_with_the_block():  # P-86, P-46
    given = start(0, "tool_use", id="c", name="f", input={"ä": 1, "b": [2, None]})
    alone = messages(opening(), given, stop(0), *closing())
    assert calls(alone) == [("f", {"ä": 1, "b": [2, None]}, '{"ä":1,"b":[2,null]}')]
    assert not [event for event in alone if event.type == "tool_call_delta"]
    both = messages(opening(), given, delta(0, "input_json_delta", partial_json='{"x":1}'), *closing())
    assert calls(both) == [("f", {"x": 1}, '{"x":1}')]


@pytest.mark.parametrize("raw", ["{broken", "[1]", '"x"', "1", "null", '{"a":NaN}'])
def test_arguments_that_are_no_object(raw):  # P-46
    events = messages(opening(), *tool(0, "c", "f", raw), *closing("tool_use"))
    assert calls(events) == [("f", {}, raw)]
    assert fold(events).tool_calls[0].invalid_arguments


def test_a_call_without_a_name_is_dropped():  # P-47
    events = messages(opening(), *tool(0, "c", "", "{}"), *tool(1, "d", None, "{}"), *closing("end_turn"))
    assert short(events) == [("message_started",), ("message_completed", "stop", "end_turn")]


def test_a_call_without_an_id_is_given_one_at_the_end():  # P-47
    events = messages(opening(), *tool(0, None, "f", '{"a"', ":1}"), *text(1, "x"), *closing())
    kinds = [event.type for event in events]
    begun = kinds.index("tool_call_started")
    assert kinds[begun : begun + 3] == ["tool_call_started", "tool_call_delta", "text_completed"]
    assert events[begun + 1].arguments_delta == '{"a":1}'
    assert events[begun].id.startswith("call_")
    assert fold(events).tool_calls[0].provider_data == {"anthropic": {"generated_id": True}}


def test_ids_are_unique_within_a_message():  # P-47
    first, second = tool(0, "c", "f", '{"a":', "1}"), tool(1, "c", "f", '{"a":', "2}")
    mixed = [event for pair in zip(first, second, strict=True) for event in pair]
    made = fold(messages(opening(), *mixed, *closing())).tool_calls
    assert [call.arguments for call in made] == [{"a": 1}, {"a": 2}]
    assert made[0].id == "c" != made[1].id


# --- unknown --------------------------------------------------------------------------------------------


def told(event):
    events = messages(opening(), event, *text(1, "x"), *closing())
    assert [entry.type for entry in events][-2:] == ["text_completed", "message_completed"]
    return unknown(events)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "brand_new", "x": [1]},
        start(0, "server_tool_use", id="s", name="web_search", input={}),
        start(0, None),
        {"type": "content_block_start", "index": 0, "content_block": None},
        {"type": "content_block_start", "index": 0, "content_block": {"type": ["text"]}},
        delta(0, "text_delta", text="of no block"),
        delta(0, "citations_delta"),
        {"type": "content_block_delta", "index": 0, "delta": None},
    ],
)
def test_what_nobody_knows_is_passed_on(event):  # P-48, P-86
    assert told(event) == [{"provider": "anthropic", "event": event["type"], "data": event}]


def test_an_object_without_any_name():  # P-48
    events = messages(opening(), '{"x": 1}', *closing())
    assert unknown(events) == [{"provider": "anthropic", "event": None, "data": {"x": 1}}]


def test_an_unknown_event_opens_the_message():  # P-40
    assert [event.type for event in messages('{"type": "brand_new"}', *closing())][:2] == [
        "message_started",
        "raw_chunk",
    ]


@pytest.mark.parametrize(
    "kind", ["brand_new_delta", "input_json_delta", "thinking_delta", "signature_delta", None, 5, []]
)
def test_a_delta_that_does_not_belong_to_its_block(kind):  # P-48, P-86
    odd = delta(0, kind, text="x", partial_json="x", thinking="x", signature="x")
    events = messages(opening(), start(0, "text", text=""), odd, *closing())
    assert unknown(events) == [{"provider": "anthropic", "event": "content_block_delta", "data": odd}]
    assert fold(events).output_text == ""


def test_the_deltas_of_an_unknown_block_are_ignored():  # P-86
    deltas = [
        delta(0, kind, text="x", partial_json="x", thinking="x")
        for kind in ("text_delta", "input_json_delta", "thinking_delta", "brand_new", "citations_delta")
    ]
    begun = start(0, "server_tool_use", id="s", name="web_search", input={})
    events = messages(opening(), begun, *deltas, stop(0), *closing())
    assert [chunk["data"] for chunk in unknown(events)] == [begun]
    assert fold(events).output_text == ""
    assert fold(events).tool_calls == []


def test_secrets_in_what_nobody_knows_are_taken_out():  # P-140
    decoder = MessagesDecoder(None, Redactor("the-key-itself"))
    event = {"type": "brand_new", "x": "the-key-itself", "y": ["sk-ant-0123456789"]}
    (payload,) = unknown(play(messages_body(opening(), event, *closing()), decoder))
    assert payload["data"] == {"type": "brand_new", "x": "[REDACTED]", "y": ["[REDACTED]"]}


def test_unknown_fields_mean_nothing():  # P-48
    wide = [json.loads(json.dumps(event)) | {"padding": {"x": [1]}, "error": None} for event in RICH]
    assert messages(*wide) == messages(*RICH)


# --- usage ----------------------------------------------------------------------------------------------


def usage_of(begun, *later):
    changes = [{"type": "message_delta", "delta": {}, "usage": usage} for usage in later]
    events = messages(opening(begun), *changes, *closing())
    reported = [event.payload for event in events if event.type == "raw_chunk" and event.kind == "usage"]
    assert reported == ([] if events[-1].usage is None else [events[-1].usage])  # one a stream
    return events[-1].usage


def test_usage_is_overlaid_never_added():  # P-87
    usage = usage_of(
        {"input_tokens": 10, "cache_read_input_tokens": 3, "output_tokens": 1, "service_tier": "standard"},
        {"output_tokens": 5, "input_tokens": None, "server_tool_use": {"web_search_requests": 1}},
        {"output_tokens": 9, "cache_read_input_tokens": 4, "server_tool_use": {"web_search_requests": 2}},
    )
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.total_tokens) == (
        14,
        4,
        9,
        23,
    )
    assert usage.extra == {
        "service_tier": "standard",
        "server_tool_use": {"web_search_requests": 2},
        "uncached_input_tokens": 10,
    }


def test_usage_from_either_end_alone():  # P-87, P-111
    assert usage_of({"input_tokens": 1, "output_tokens": 2}).total_tokens == 3
    assert usage_of(None, {"output_tokens": 2}).output_tokens == 2
    assert usage_of({"input_tokens": 1}, "none", None, 5).input_tokens == 1
    assert usage_of("none") is None
    assert usage_of(None) is None


# --- errors ---------------------------------------------------------------------------------------------


def test_an_error_in_first_position_is_the_only_event():  # P-102, P-40, P-107
    failed = {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"},
        "request_id": "req_1",
    }
    error = one(messages({"type": "ping"}, failed))
    assert (error.reason, error.message, error.provider) == (
        "provider_unavailable",
        "Overloaded",
        "anthropic",
    )
    assert (error.status, error.request_id, error.retry_after) == (None, "req_1", None)
    assert error.metadata == {"provider_type": "overloaded_error"}


def test_an_error_in_mid_stream_ends_it():  # P-44, P-102
    failed = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    events = messages(opening(), *text(0, "half"), failed, *closing())
    assert short(events) == [
        ("message_started",),
        ("text_delta", "half"),
        ("error", "AdapterError", "rate_limited"),
    ]


@pytest.mark.parametrize(
    "frame",
    [
        b'event: error\ndata: {"error":{"type":"rate_limit_error","message":"m"}}\n\n',
        b'event: error\ndata: {"type":"rate_limit_error","message":"m"}\n\n',
        b'data: {"error":{"type":"rate_limit_error","message":"m"}}\n\n',
        b'error: {"type":"rate_limit_error","message":"m"}\n\n',
        b'{"type":"error","error":{"type":"rate_limit_error","message":"m"}}\n',
    ],
)
def test_errors_in_other_clothes(frame):  # P-102, P-119, P-64
    error = one(play(frame, MessagesDecoder()))
    assert (error.reason, error.message) == ("rate_limited", "m")


# --- structured answers ---------------------------------------------------------------------------------


def facts(events):
    return events[-1].provider_data.get("anthropic")


def test_the_answers_call_is_lifted():  # P-88
    events = messages(
        opening(),
        *text(0, "Sure, ", "here:"),
        *tool(1, "c", LIFTED, '{"a"', ':"ä"}'),
        *closing("tool_use"),
        lifted=LIFTED,
    )
    assert short(events) == [
        ("message_started",),
        ("text_delta", '{"a"'),
        ("text_delta", ':"ä"}'),
        ("text_completed", '{"a":"ä"}'),
        ("message_completed", "stop", "tool_use"),
    ]
    assert facts(events) == {"structured_output_tool": True, "preamble": "Sure, here:"}
    response = fold(events)
    assert (response.output_text, response.message.content) == ('{"a":"ä"}', '{"a":"ä"}')
    assert response.tool_calls == response.message.tool_calls == []


def test_without_a_preamble_there_is_none():  # P-88
    events = messages(opening(), *tool(0, "c", LIFTED, "{}"), *closing("tool_use"), lifted=LIFTED)
    assert facts(events) == {"structured_output_tool": True}


@pytest.mark.parametrize("broken", ['{"a":', "", "[]"])
def test_nobody_checks_that_it_parses(broken):  # P-88
    events = messages(opening(), *tool(0, "c", LIFTED, broken), *closing("max_tokens"), lifted=LIFTED)
    assert fold(events).output_text == (broken or "{}")
    assert short(events)[-1] == ("message_completed", "length", "max_tokens")


@pytest.mark.parametrize(
    ("raw", "alone", "with_others"),
    [
        ("tool_use", "stop", "tool_calls"),
        ("end_turn", "stop", "tool_calls"),
        ("max_tokens", "length", "length"),
        ("refusal", "content_filter", "content_filter"),
        ("pause_turn", "other", "other"),
    ],
)
def test_how_a_lifted_answer_finishes(raw, alone, with_others):  # P-88
    def finish(*more):
        events = messages(opening(), *tool(0, "c", LIFTED, "{}"), *more, *closing(raw), lifted=LIFTED)
        return short(events)[-1]

    assert finish() == ("message_completed", alone, raw)
    assert finish(*tool(1, "d", "f", "{}")) == ("message_completed", with_others, raw)


def test_other_calls_stay_calls():  # P-88
    events = messages(
        opening(), *tool(0, "d", "f", '{"x":1}'), *tool(1, "c", LIFTED, "{}"), *closing(), lifted=LIFTED
    )
    assert calls(events) == [("f", {"x": 1}, '{"x":1}')]
    assert fold(events).output_text == "{}"


def test_a_second_lifted_call_is_ignored():  # P-88
    events = messages(
        opening(),
        *tool(0, "c", LIFTED, '{"a":1}'),
        *tool(1, "d", LIFTED, '{"a":2}'),
        *closing(),
        lifted=LIFTED,
    )
    assert fold(events).output_text == '{"a":1}'
    assert not unknown(events)
    assert calls(events) == []


def test_an_answer_that_was_not_given_by_call_is_ordinary():  # P-88
    events = messages(opening(), *text(0, "I ", "won't."), *closing("refusal"), lifted=LIFTED)
    assert short(events) == [
        ("message_started",),
        ("text_delta", "I won't."),
        ("text_completed", "I won't."),
        ("message_completed", "content_filter", "refusal"),
    ]
    assert facts(events) is None


def test_the_lifted_call_may_come_with_its_block():  # P-88, P-86
    whole = start(0, "tool_use", id="c", name=LIFTED, input={"b": "ä", "a": 1})
    assert fold(messages(opening(), whole, *closing(), lifted=LIFTED)).output_text == '{"b":"ä","a":1}'


def test_reasoning_of_a_lifted_answer_is_kept():  # P-84, P-88
    events = messages(opening(), *thinking(0, "hm"), *tool(1, "c", LIFTED, "{}"), *closing(), lifted=LIFTED)
    assert blocks(events) == [{"type": "thinking", "thinking": "hm", "signature": "sig"}]
    assert fold(events).reasoning == "hm"


def test_nothing_is_lifted_that_was_not_asked_for():  # P-88
    events = messages(opening(), *text(0, "x"), *tool(1, "c", LIFTED, "{}"), *closing("tool_use"))
    assert calls(events) == [(LIFTED, {}, "{}")]
    assert short(events)[1] == ("text_delta", "x")
