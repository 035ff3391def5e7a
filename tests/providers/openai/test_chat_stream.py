"""Decoding Chat Completions streams."""

import json

import pytest

from allm_actors.errors import AdapterError, StreamError
from allm_actors.providers._sse import SSEEvent
from allm_actors.providers.openai._chat_stream import ChatDecoder
from tests.providers.openai.decoding import call_delta, chat, chat_body, delta, fold, play, short

EXAMPLE = [
    {
        "id": "cc-1",
        "model": "m",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
    },
    delta({"content": "Four."}),
    delta({}, "stop"),
    {
        "id": "cc-1",
        "model": "m",
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    },
]
FOUR = [
    ("message_started",),
    ("text_delta", "Four."),
    ("text_completed", "Four."),
    ("usage", {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}),
    ("message_completed", "stop", "stop"),
]


@pytest.mark.parametrize("sizes", [(1 << 20,), (1,), (3, 17, 2)], ids=["whole", "bytes", "pieces"])
def test_an_answer_is_told_in_order_and_closed_once(sizes):  # P-40, P-42, P-43, P-63
    assert short(chat(*EXAMPLE, sizes=sizes)) == FOUR


def test_the_completed_message_carries_everything():  # P-43, P-60
    *_, last = chat(*EXAMPLE)
    assert last.message.content == "Four."
    assert (last.response_id, last.model) == ("cc-1", "m")
    assert last.usage.input_tokens == 9
    assert (last.reasoning, last.refusal) == (None, None)
    assert last.provider_data == last.message.provider_data == {}


def test_facts_about_the_service_are_kept():  # P-60, P-39
    first = delta({"content": "x"}, service_tier="auto", system_fingerprint="fp_1")
    *_, last = chat(first, delta({}, "stop", service_tier="default"))
    assert last.provider_data == {"openai": {"service_tier": "default", "system_fingerprint": "fp_1"}}


def test_a_stream_without_usage_reports_none():  # P-42, P-111
    events = chat(delta({"content": "x"}, "stop"))
    assert not [event for event in events if event.type == "raw_chunk"]
    assert events[-1].usage is None


def test_the_last_usage_wins():  # P-63, P-64
    first = delta({"content": "a"}, usage={"prompt_tokens": 1, "completion_tokens": 1})
    events = chat(first, delta({"content": "b"}, "stop", usage={"prompt_tokens": 1, "completion_tokens": 2}))
    assert [event for event in short(events) if event[0] == "usage"] == [
        ("usage", {"input_tokens": 1, "output_tokens": 2})
    ]


def test_a_preamble_without_choices_opens_the_message_and_says_nothing():  # P-63, P-40
    decoder = ChatDecoder()
    preamble = json.dumps({"id": "", "model": "", "choices": [], "prompt_filter_results": []})
    assert short(decoder.feed(SSEEvent(None, preamble))) == [("message_started",)]
    assert decoder.feed(SSEEvent(None, preamble)) == []


def test_an_object_of_an_unknown_shape_is_passed_on():  # P-48, P-63
    odd = {"object": "ping", "n": 1}
    events = chat(odd, *EXAMPLE)
    assert short(events)[:2] == [
        ("message_started",),
        ("unknown_event", {"provider": "openai", "event": None, "data": odd}),
    ]
    assert short(events)[2:] == FOUR[1:]


def test_only_the_first_choice_counts():  # P-63
    other = {"id": "cc-1", "choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    unnumbered = {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]}
    assert fold(chat(other, unnumbered)).output_text == "yes"
    assert fold(chat(other, unnumbered)).finish_reason == "stop"


def test_content_may_be_a_list_of_parts():  # P-63, P-60
    parts = [
        {"type": "text", "text": "a"},
        {"type": "thinking", "thinking": []},
        {"type": "text", "text": "b"},
        7,
    ]
    assert ("text_delta", "ab") in short(chat(delta({"content": parts}, "stop")))


@pytest.mark.parametrize("content", ["", None, [], 5, {"a": 1}])
def test_nothing_said_is_no_delta(content):  # P-41, P-63
    assert [event.type for event in chat(delta({"content": content}, "stop"))] == [
        "message_started",
        "message_completed",
    ]


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"reasoning_content": "a"}, "a"),
        ({"reasoning": "b"}, "b"),
        ({"reasoning_content": "", "reasoning": "b"}, "b"),
        ({"reasoning_content": "a", "reasoning": "b"}, "a"),
    ],
)
def test_reasoning_has_two_names(members, told):  # P-63, P-39
    events = chat(delta(members), delta({"content": "x"}, "stop"))
    assert short(events)[1] == ("thinking_delta", {"index": 0, "delta": told})
    assert events[-1].reasoning == told
    assert events[-1].message.content == "x"


def test_a_refusal_is_no_text():  # P-62
    events = chat(delta({"refusal": "I "}), delta({"refusal": "won't."}), delta({}, "stop"))
    assert short(events) == [
        ("message_started",),
        ("refusal_delta", {"delta": "I "}),
        ("refusal_delta", {"delta": "won't."}),
        ("message_completed", "content_filter", "stop"),
    ]
    assert events[-1].refusal == "I won't."
    assert events[-1].message.content == ""


@pytest.mark.parametrize(
    ("wire", "ours"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("eos", "other"),
    ],
)
def test_finish_reasons(wire, ours):  # P-61, P-43
    assert short(chat(delta({"content": "x"}, wire)))[-1] == ("message_completed", ours, wire)


@pytest.mark.parametrize("nothing", [None, "", 0, 5, ["stop"]])
def test_no_finish_reason_is_not_the_end(nothing):  # P-61, P-49
    events = chat(delta({"content": "x"}, nothing), done=False)
    assert short(events)[-1] == ("error", "AdapterError", "network_error")
    assert events[-1].error.metadata["premature_close"] is True


def test_the_finish_reason_error_is_a_failure():  # P-61, P-44
    events = chat(delta({"content": "x"}), delta({}, "error"))
    assert short(events) == [
        ("message_started",),
        ("text_delta", "x"),
        ("error", "AdapterError", "provider_unavailable"),
    ]


# -- tool calls ----------------------------------------------------------------------------------------------


def test_a_call_in_fragments():  # P-41, P-42, P-63, C-26
    events = chat(
        call_delta(index=0, id="c1", type="function", function={"name": "f", "arguments": ""}),
        call_delta(index=0, function={"arguments": '{"a"'}),
        call_delta(index=0, function={"arguments": ":1}"}),
        delta({}, "tool_calls"),
    )
    assert short(events) == [
        ("message_started",),
        ("tool_call_started", "c1", "f"),
        ("tool_call_delta", "c1", '{"a"'),
        ("tool_call_delta", "c1", ":1}"),
        ("tool_call_completed", "c1", "f", {"a": 1}, '{"a":1}'),
        ("message_completed", "tool_calls", "tool_calls"),
    ]
    (call,) = events[-1].message.tool_calls
    assert (call.id, call.arguments, call.provider_data) == ("c1", {"a": 1}, {})


def test_parallel_calls_interleave():  # P-63, P-42
    events = chat(
        call_delta(index=1, id="b", function={"name": "g", "arguments": ""}),
        call_delta(index=0, id="a", function={"name": "f", "arguments": ""}),
        call_delta(index=1, function={"arguments": "{}"}),
        call_delta(index=0, function={"arguments": '{"x":2}'}),
        delta({}, "tool_calls"),
    )
    assert [(call.id, call.arguments) for call in fold(events).tool_calls] == [("b", {}), ("a", {"x": 2})]


def test_a_whole_call_in_one_delta_and_a_finish_of_stop():  # P-64, P-45
    whole = call_delta(index=0, id="c1", function={"name": "f", "arguments": '{"a":1}'})
    assert short(chat(whole, delta({}, "stop")))[-1] == ("message_completed", "tool_calls", "stop")


@pytest.mark.parametrize("finish", ["length", "content_filter", "weird"])
def test_only_a_stop_is_promoted(finish):  # P-45
    whole = call_delta(index=0, id="c1", function={"name": "f", "arguments": "{}"})
    ours = "other" if finish == "weird" else finish
    assert short(chat(whole, delta({}, finish)))[-1] == ("message_completed", ours, finish)


def test_fragments_wait_for_id_and_name():  # P-41
    events = chat(
        call_delta(index=0, function={"arguments": '{"a"'}),
        call_delta(index=0, id="c1", function={"arguments": ":"}),
        call_delta(index=0, function={"name": "f", "arguments": "1}"}),
        delta({}, "tool_calls"),
    )
    assert short(events)[1:4] == [
        ("tool_call_started", "c1", "f"),
        ("tool_call_delta", "c1", '{"a":'),
        ("tool_call_delta", "c1", "1}"),
    ]


def test_the_first_id_and_name_count():  # P-63
    events = chat(
        call_delta(index=0, id="c1", function={"name": "f", "arguments": ""}),
        call_delta(index=0, id="c1", function={"name": "again", "arguments": "{}"}),
        call_delta(index=0, id="", function={"name": "", "arguments": ""}),
        delta({}, "tool_calls"),
    )
    assert [(call.id, call.name) for call in fold(events).tool_calls] == [("c1", "f")]


def test_servers_that_number_every_call_0():  # P-63
    events = chat(
        call_delta(index=0, id="a", function={"name": "f", "arguments": ""}),
        call_delta(index=0, id="b", function={"name": "g", "arguments": '{"n":'}),
        call_delta(index=0, function={"arguments": "2}"}),
        call_delta(index=0, id="a", function={"arguments": '{"n":1}'}),
        delta({}, "tool_calls"),
    )
    assert [(c.id, c.name, c.raw_arguments) for c in fold(events).tool_calls] == [
        ("a", "f", '{"n":1}'),
        ("b", "g", '{"n":2}'),
    ]


def test_servers_that_number_every_call_0_and_name_none():  # P-64
    """A call that came whole is over: what follows under its number is another one."""
    events = chat(
        call_delta(index=0, function={"name": "f", "arguments": '{"n":1}'}),
        call_delta(index=0, function={"name": "f", "arguments": '{"n":2}'}),
        call_delta(index=0, function={"name": "g", "arguments": '{"n":'}),
        call_delta(index=0, function={"name": "g", "arguments": "3}"}),
        call_delta(index=0, function={"name": "g", "arguments": ""}),
        delta({}, "stop"),
    )
    calls = fold(events).tool_calls
    assert [(call.name, call.arguments) for call in calls] == [
        ("f", {"n": 1}),
        ("f", {"n": 2}),
        ("g", {"n": 3}),
    ]
    assert len({call.id for call in calls}) == 3


def test_a_whole_message_in_place_of_a_delta():  # P-64
    """A server that answers in one piece, asked for a stream or not, must not seem to have said nothing."""
    calls = [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": "Four.", "tool_calls": calls}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    response = fold(chat(whole))
    assert (response.output_text, [call.id for call in response.tool_calls]) == ("Four.", ["a"])


def test_a_summary_beside_or_behind_the_deltas_says_nothing_new():  # P-64
    """Some servers repeat with every chunk, or at the end, all that was said so far."""
    beside = delta({"content": "Four."})
    beside["choices"][0]["message"] = {"content": "Four."}
    behind = {"choices": [{"index": 0, "message": {"content": "Four."}, "finish_reason": "stop"}]}
    assert fold(chat(beside, behind)).output_text == "Four."


@pytest.mark.parametrize("place", ["choice", "x_groq"])
def test_usage_in_odd_places(place):  # P-63, P-64
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    last = delta({}, "stop")
    if place == "choice":
        last["choices"][0]["usage"] = usage
    else:
        last["x_groq"] = {"id": "r", "usage": usage}
    assert fold(chat(delta({"content": "x"}), last)).usage.input_tokens == 9
    told = fold(chat(delta({"content": "x"}), last, {"choices": [], "usage": {"prompt_tokens": 7}})).usage
    assert (told.input_tokens, told.output_tokens) == (7, None)


def test_calls_without_an_index():  # P-63, P-64
    events = chat(
        call_delta(id="a", function={"name": "f", "arguments": "{"}),
        call_delta(function={"arguments": "}"}),
        call_delta(id="b", function={"name": "g", "arguments": ""}),
        call_delta(id="a", function={"arguments": " "}),
        call_delta(id="b", function={"arguments": "{}"}),
        delta({}, "tool_calls"),
    )
    assert [(c.id, c.name, c.raw_arguments) for c in fold(events).tool_calls] == [
        ("a", "f", "{} "),
        ("b", "g", "{}"),
    ]


def test_a_name_without_index_or_id_opens_a_call():  # P-63
    events = chat(
        call_delta(function={"name": "f", "arguments": "{}"}),
        call_delta(function={"name": "g", "arguments": "{}"}),
        delta({}, "tool_calls"),
    )
    assert [call.name for call in fold(events).tool_calls] == ["f", "g"]


def test_a_call_without_an_id_gets_one_when_the_end_is_near():  # P-47, P-94
    events = chat(
        call_delta(index=0, function={"name": "f", "arguments": '{"a":1}'}),
        delta({"content": "x"}, "tool_calls"),
    )
    started, held = events[2], events[3]
    assert [event[0] for event in short(events)] == [
        "message_started", "text_delta", "tool_call_started", "tool_call_delta", "text_completed", "tool_call_completed", "message_completed",
    ]  # fmt: skip
    assert started.id.startswith("call_")
    assert len(started.id) == len("call_") + 24
    assert held.arguments_delta == '{"a":1}'
    (call,) = events[-1].message.tool_calls
    assert call.provider_data == {"openai": {"generated_id": True}}
    assert events[-2].provider_data == call.provider_data


def test_a_call_without_a_name_is_dropped():  # P-47, P-45
    events = chat(call_delta(index=0, id="c1", function={"arguments": "{}"}), delta({}, "stop"))
    assert [event.type for event in events] == ["message_started", "message_completed"]
    assert short(events)[-1] == ("message_completed", "stop", "stop")


def test_an_id_that_is_taken_is_replaced_and_still_understood():  # P-47
    events = chat(
        call_delta(index=0, id="c", function={"name": "f", "arguments": ""}),
        call_delta(index=1, id="c", function={"name": "g", "arguments": ""}),
        call_delta(index=1, id="c", function={"arguments": '{"n":2}'}),
        call_delta(index=0, id="c", function={"arguments": '{"n":1}'}),
        delta({}, "tool_calls"),
    )
    first, second = fold(events).tool_calls
    assert (first.id, first.raw_arguments, first.provider_data) == ("c", '{"n":1}', {})
    assert (second.name, second.raw_arguments) == ("g", '{"n":2}')
    assert second.id != "c"
    assert second.provider_data == {"openai": {"generated_id": True}}


@pytest.mark.parametrize(
    ("text", "arguments", "raw", "invalid"),
    [
        ("", {}, "{}", False),
        ('{"a":1,"a":2}', {"a": 2}, '{"a":1,"a":2}', False),
        ('{"a":', {}, '{"a":', True),
        ("[1]", {}, "[1]", True),
        ('{"a":NaN}', {}, '{"a":NaN}', True),
        ('{"a":Infinity}', {}, '{"a":Infinity}', True),
        ('{"a":1.0,"b":1}', {"a": 1.0, "b": 1}, '{"a":1.0,"b":1}', False),
    ],
)
def test_argument_texts(text, arguments, raw, invalid):  # P-46, C-27
    events = chat(
        call_delta(index=0, id="c", function={"name": "f", "arguments": text}), delta({}, "tool_calls")
    )
    (call,) = fold(events).tool_calls
    assert (call.arguments, call.raw_arguments, call.invalid_arguments) == (arguments, raw, invalid)
    assert [type(value) for value in call.arguments.values()] == [type(value) for value in arguments.values()]


def test_arguments_sent_as_an_object():  # P-46, P-64
    events = chat(
        call_delta(index=0, id="c", function={"name": "f", "arguments": {"ä": 1}}), delta({}, "stop")
    )
    assert fold(events).tool_calls[0].raw_arguments == '{"ä":1}'


def test_the_legacy_function_call():  # P-63, P-94
    events = chat(
        delta({"function_call": {"name": "f", "arguments": ""}}),
        delta({"function_call": {"arguments": '{"a":1}'}}),
        delta({}, "function_call"),
    )
    kinds = [event[0] for event in short(events)]
    assert kinds == [
        "message_started",
        "tool_call_started",
        "tool_call_delta",
        "tool_call_completed",
        "message_completed",
    ]
    (call,) = events[-1].message.tool_calls
    assert (call.name, call.arguments, call.provider_data) == (
        "f",
        {"a": 1},
        {"openai": {"generated_id": True}},
    )


# -- ends ----------------------------------------------------------------------------------------------------


def test_the_end_marker_closes_at_once():  # P-49
    decoder = ChatDecoder()
    decoder.feed(SSEEvent(None, json.dumps(EXAMPLE[1])))
    decoder.feed(SSEEvent(None, " [DONE]\n"))  # P-121
    assert decoder.done
    assert decoder.finished
    assert decoder.feed(SSEEvent(None, json.dumps(EXAMPLE[1]))) == []
    assert short(decoder.close()) == [("text_completed", "Four."), ("message_completed", "other", None)]


def test_an_end_marker_alone_is_an_answer_without_a_reason():  # P-49
    assert short(chat()) == [("message_started",), ("message_completed", "other", None)]
    whole = call_delta(index=0, id="c1", function={"name": "f", "arguments": "{}"})
    assert short(chat(whole))[-1] == ("message_completed", "tool_calls", None)


def test_the_end_marker_inside_a_string_means_nothing():  # P-121
    assert ("text_completed", "[DONE]") in short(chat(delta({"content": "[DONE]"}, "stop"), done=False))


def test_reading_goes_on_after_the_finish_reason():  # P-49, P-63
    decoder = ChatDecoder()
    for chunk in EXAMPLE[:3]:
        decoder.feed(SSEEvent(None, json.dumps(chunk)))
    assert decoder.finished
    assert not decoder.done
    assert short(chat(*EXAMPLE, done=False)) == FOUR


def test_an_unfinished_body_is_cut_off():  # P-49, C-28
    events = chat(EXAMPLE[1], done=False)
    assert short(events) == [
        ("message_started",),
        ("text_delta", "Four."),
        ("error", "AdapterError", "network_error"),
    ]


def test_a_last_frame_cut_in_two_is_dropped():  # P-120
    body = chat_body(*EXAMPLE[:3], done=False) + b'data: {"choices":[{"ind'
    assert short(play(body, ChatDecoder()))[-1] == ("message_completed", "stop", "stop")
    complete = chat_body(*EXAMPLE[:2], done=False) + b"data: " + json.dumps(delta({}, "stop")).encode()
    assert short(play(complete, ChatDecoder()))[-1] == ("message_completed", "stop", "stop")


@pytest.mark.parametrize("data", ["{oops", "[]", "7", '"x"', "null", "true", '{"a":1} x'])
def test_data_that_is_no_object_ends_the_stream(data):  # P-109, P-40
    events = chat(data)
    assert short(events) == [("error", "StreamError", "malformed_event")]
    assert events[0].error.event_index == 0
    later = chat(EXAMPLE[0], EXAMPLE[1], data)
    assert later[-1].error.event_index == 2
    assert later[-1].error.provider == "openai"
    assert short(later)[:2] == [("message_started",), ("text_delta", "Four.")]


def test_the_excerpt_is_short_and_clean():  # P-109, P-140
    (event,) = chat("oops sk-abcdef123456 " + "x" * 500)
    assert "[REDACTED]" in event.error.message
    assert "sk-abc" not in event.error.message
    assert event.error.message.count("x") < 200


def test_empty_frames_are_keep_alives():  # P-123, P-40
    decoder = ChatDecoder()
    assert decoder.feed(SSEEvent(None, "")) == []
    assert decoder.feed(SSEEvent("ping", " ")) == []
    assert not decoder.started


@pytest.mark.parametrize("name", ["error", "message", None, "anything"])
def test_the_frames_name_is_ignored(name):  # P-63
    decoder = ChatDecoder()
    assert short(decoder.feed(SSEEvent(name, json.dumps(EXAMPLE[1])))) == [
        ("message_started",),
        ("text_delta", "Four."),
    ]


# -- errors --------------------------------------------------------------------------------------------------


def test_an_error_in_first_position_is_the_only_event():  # P-40, P-63
    events = chat({"error": {"message": "busy", "code": 503}})
    assert short(events) == [("error", "AdapterError", "provider_unavailable")]
    assert (events[0].error.status, events[0].error.message) == (503, "busy")


def test_an_error_in_mid_stream_ends_it():  # P-44, P-63
    events = chat(
        EXAMPLE[1], {"error": {"message": "slow down", "type": "rate_limit_error"}, "choices": []}, *EXAMPLE
    )
    assert short(events) == [
        ("message_started",),
        ("text_delta", "Four."),
        ("error", "AdapterError", "rate_limited"),
    ]


def test_an_error_after_the_finish_reason_still_counts():  # P-64, P-119
    assert short(chat(*EXAMPLE[:3], {"error": "gone"}))[-1] == (
        "error",
        "AdapterError",
        "provider_unavailable",
    )


def test_an_absent_error_is_none():
    assert short(chat(*[chunk | {"error": None} for chunk in EXAMPLE])) == FOUR


@pytest.mark.parametrize(
    "line",
    [
        'error: {"message":"slow down","type":"rate_limit_error"}',
        'error: {"error":{"message":"slow down","type":"rate_limit_error"}}',
        '{"error":{"message":"slow down","type":"rate_limit_error"}}',
    ],
)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_an_error_outside_any_frame(line, before):  # P-64, P-119
    body = chat_body(*EXAMPLE[:before], done=False) + line.encode() + b"\n\n"
    events = play(body, ChatDecoder())
    assert short(events)[-1] == ("error", "AdapterError", "rate_limited")
    assert events[-1].error.message == "slow down"


def test_comments_are_heartbeats_and_extra_members_are_nothing():  # P-64
    chunks = [
        chunk | {"timings": {}, "obfuscation": "x", "x_groq": {"id": 1}, "provider": "P"} for chunk in EXAMPLE
    ]
    body = b": OPENROUTER PROCESSING\n\n" + chat_body(*chunks)
    assert short(play(body, ChatDecoder())) == FOUR


def test_half_a_surrogate_pair_and_a_nan_are_survived():  # P-109
    odd = '{"choices":[{"index":0,"delta":{"content":"\\ud83d"},"logprobs":NaN,"finish_reason":"stop"}]}'
    assert ("text_completed", "\ufffd") in short(chat(odd))


def test_an_unknown_event_is_passed_on_without_secrets():  # P-48, P-140
    events = chat({"note": "key sk-abcdef123456", "n": 1}, *EXAMPLE)
    assert events[1].payload["data"] == {"note": "key [REDACTED]", "n": 1}


def test_errors_are_raised_not_returned():
    with pytest.raises(AdapterError):
        ChatDecoder().feed(SSEEvent(None, '{"error":{}}'))
    with pytest.raises(StreamError):
        ChatDecoder().feed(SSEEvent(None, "nope"))
