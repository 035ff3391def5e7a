"""Putting an answer together, whatever the provider."""

from itertools import permutations

from allm_actors.data import Base64Source, ImagePart, StreamCollector, TextPart, Usage
from allm_actors.providers._assembly import Assembly
from allm_actors.providers._redact import Redactor
from allm_actors.providers._replay import response_events


def kinds(events):
    return [event.type if event.type != "raw_chunk" else event.kind for event in events]


def fold(events):
    return StreamCollector.collect(events).response()


def test_an_empty_answer():  # P-40, P-42, P-43
    events = Assembly("p").close()
    assert kinds(events) == ["message_started", "message_completed"]
    assert (events[-1].finish_reason, events[-1].message.content, events[-1].usage) == ("other", "", None)


def test_the_order_of_the_closing_sequence():  # P-42, C-26
    made = Assembly("p")
    made.open()
    made.open()
    made.arguments(late := made.new_call(), "{}")
    made.identify(made.new_call(), "c1", "f")
    made.text("")
    made.text("Hi")
    made.identify(late, None, "g")
    made.usage = Usage(input_tokens=1)
    made.finish_reason = "stop"
    assert kinds(made.drain()) == ["message_started", "tool_call_started", "text_delta"]
    assert made.drain() == []
    events = made.close()
    assert kinds(events) == [
        "tool_call_started", "tool_call_delta", "text_completed", "tool_call_completed", "tool_call_completed", "usage",
        "message_completed",
    ]  # fmt: skip
    assert [event.name for event in events if event.type == "tool_call_completed"] == ["g", "f"]
    assert events[-1].usage == events[-2].payload == Usage(input_tokens=1)


def test_the_parts_of_a_calls_identity_come_in_any_order():  # P-41
    for order in permutations(["id", "name", "arguments"]):
        made = Assembly("p")
        call = made.new_call()
        for part in order:
            match part:
                case "id":
                    made.identify(call, "c", None)
                case "name":
                    made.identify(call, None, "f")
                case "arguments":
                    made.arguments(call, "{}")
        events = made.drain()
        assert kinds(events) == ["tool_call_started", "tool_call_delta"], order
        assert (events[0].id, events[0].name, events[1].arguments_delta) == ("c", "f", "{}")


def test_the_first_id_and_name_count():  # P-63, P-47
    made = Assembly("p")
    call = made.new_call()
    made.identify(call, "a", None)
    made.identify(call, "b", "f")
    made.identify(call, "c", "g")
    (started,) = made.drain()
    assert (started.id, started.name, call.wire_id) == ("a", "f", "a")


def test_generated_ids_are_unique_and_marked():  # P-47, P-94
    made = Assembly("p")
    for _ in range(3):
        made.identify_by_name(made.new_call(), "f")
        made.identify(made.new_call(), "same", "f")
    calls = fold([*made.drain(), *made.close()]).tool_calls
    assert len({call.id for call in calls}) == 6
    assert [call.provider_data for call in calls] == [
        {} if call.id == "same" else {"p": {"generated_id": True}} for call in calls
    ]


def test_arguments_as_one_value():  # P-46
    made = Assembly("p")
    for whole in ({"ä": [1]}, {}, "text", None, 5):
        made.identify(made.new_call(whole=whole), f"c{whole}", "f")
    fragments = made.new_call(whole={"a": 1})
    made.identify(fragments, "x", "f")
    made.arguments(fragments, '{"b":2}')
    calls = fold([*made.drain(), *made.close()]).tool_calls
    assert [(call.arguments, call.raw_arguments) for call in calls] == [
        ({"ä": [1]}, '{"ä":[1]}'), ({}, "{}"), ({}, '"text"'), ({}, "null"), ({}, "5"), ({"b": 2}, '{"b":2}'),
    ]  # fmt: skip
    assert [call.invalid_arguments for call in calls] == [False, False, True, True, True, False]


def test_promotion():  # P-45, P-62
    for finish, refused, called, ours in [
        ("stop", False, False, "stop"), ("stop", False, True, "tool_calls"), ("stop", True, False, "content_filter"),
        ("length", True, True, "length"), ("content_filter", False, True, "content_filter"), ("other", False, True, "other"),
        (None, False, True, "tool_calls"), (None, False, False, "other"), ("tool_calls", False, False, "tool_calls"),
    ]:  # fmt: skip
        made = Assembly("p")
        made.finish_reason = finish
        made.refused("no" if refused else "")
        if called:
            made.identify(made.new_call(), "c", "f")
        assert made.close()[-1].finish_reason == ours, (finish, refused, called)


def test_facts_have_two_places():  # P-39
    made = Assembly("p")
    made.facts["tier"] = "x"
    made.message_facts["signature"] = "y"
    last = made.close()[-1]
    assert last.provider_data == {"p": {"tier": "x"}}
    assert last.message.provider_data == {"p": {"signature": "y"}}


def test_images_stand_between_the_texts():  # P-41, P-43
    made = Assembly("p")
    made.text("a")
    made.text("b")
    made.image("image/png", "AAAA")
    made.image("image/png", "BBBB")
    made.text("c")
    made.finish_reason = "stop"
    events = [*made.drain(), *made.close()]
    picture = [
        ImagePart(image={"source": Base64Source(value=data), "mime_type": "image/png"})
        for data in ("AAAA", "BBBB")
    ]
    assert events[-1].message.content == [TextPart(text="ab"), *picture, TextPart(text="c")]
    assert fold(events).output_text == "abc"
    assert kinds(events).count("image") == 2


def test_a_response_and_its_events_are_the_same_answer():  # P-6, P-14
    made = Assembly("p")
    made.text("Hi")
    made.thought("hm")
    made.identify(made.new_call(whole={"a": 1}), "c", "f")
    made.usage = Usage(output_tokens=1)
    made.finish_reason, made.raw_finish_reason = "stop", "STOP"
    made.response_id, made.model = "r", "m"
    made.facts["x"] = 1
    response = made.response({"n": float("nan")})
    assert response.raw == {"n": None}
    for events in (made.close(), response_events(response)):
        assert fold(events) == response.model_copy(update={"raw": None})


def test_names_may_look_like_keys_but_hold_none():  # P-140
    made = Assembly("p", redactor=Redactor("canary-0123"))
    made.model, made.response_id, made.raw_finish_reason = "sk-learn-model", "id-canary-0123", "canary-0123"
    made.text("sk-abcdef canary-0123")
    last = made.close()[-1]
    assert (last.model, last.response_id, last.raw_finish_reason) == (
        "sk-learn-model",
        "id-[REDACTED]",
        "[REDACTED]",
    )
    assert last.message.content == "sk-abcdef canary-0123"
