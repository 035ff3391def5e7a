"""Whatever a server sends, what comes out is ours."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allm_actors.data import Message, Request, user
from allm_actors.errors import AllmError
from allm_actors.providers._json import parse
from allm_actors.providers._preflight import encode
from allm_actors.providers.anthropic._decode import decode_messages
from allm_actors.providers.anthropic._stream import MessagesDecoder
from allm_actors.providers.anthropic._wire import AnthropicWire
from tests.providers.anthropic.decoding import LIFTED, closing, messages_body, opening, text, thinking, tool
from tests.providers.openai.decoding import fold, play

NAMES = [
    "content", "content_block", "data", "delta", "error", "id", "index", "input", "input_tokens", "message", "model",
    "name", "output_tokens", "output_tokens_details", "partial_json", "request_id", "signature", "stop_details",
    "stop_reason", "stop_sequence", "text", "thinking", "thinking_tokens", "type", "usage",
]  # fmt: skip
BLOCKS = ["text", "tool_use", "thinking", "redacted_thinking", "server_tool_use"]
DELTAS = [
    "text_delta",
    "input_json_delta",
    "thinking_delta",
    "signature_delta",
    "citations_delta",
    "odd_delta",
]
EVENTS = [
    "ping", "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "error",
]  # fmt: skip
WORDS = [*BLOCKS, *DELTAS, *EVENTS, "tool_use", "refusal", "stop_sequence", "c1", "f", "{}", LIFTED]

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 3), st.just(10**400), st.floats(), st.sampled_from(WORDS),
    st.text(max_size=4), st.just("\ud83d"),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(NAMES), anything, max_size=5)


def mostly(*usual):
    """One of the usual values, or anything at all."""
    return st.sampled_from(usual) | anything


block = st.fixed_dictionaries(
    {"type": mostly(*BLOCKS)},
    optional={"text": mostly("t"), "id": mostly("c1", "c2"), "name": mostly("f", LIFTED), "input": objects | anything, "thinking": mostly("h"), "signature": anything, "data": anything},
)  # fmt: skip
delta = st.fixed_dictionaries(
    {"type": mostly(*DELTAS)},
    optional={"text": mostly("t"), "partial_json": mostly('{"a"', "}"), "thinking": mostly("h"), "signature": mostly("s"), "stop_reason": mostly(None, "end_turn", "tool_use"), "stop_sequence": anything, "stop_details": anything},
)  # fmt: skip
event = st.fixed_dictionaries(
    {"type": mostly(*EVENTS)},
    optional={"index": mostly(0, 1), "content_block": block | anything, "delta": delta | anything, "message": objects | anything, "usage": objects | anything, "error": anything},
)  # fmt: skip
whole = st.fixed_dictionaries(
    {"content": st.lists(block | anything, max_size=5) | anything},
    optional={"usage": objects | anything, "stop_reason": mostly("end_turn", "refusal"), "stop_sequence": anything, "stop_details": anything, "id": anything, "model": anything, "error": anything, "type": anything},
)  # fmt: skip


def judged(body, lifted=None):
    """The events of a stream: one opening, one end, and a fold that does not fail."""
    events = play(body, MessagesDecoder(lifted))
    kinds = [event.type for event in events]
    assert kinds[-1] in ("message_completed", "error")
    assert kinds.count("message_started") <= 1
    assert kinds[0] in ("message_started", "error")
    assert not {"message_completed", "error"} & set(kinds[:-1])
    response = fold(events)
    assert response.error is None or isinstance(response.error, AllmError)
    for found in events:
        found.model_dump_json()
    return events


@pytest.mark.parametrize("lifted", [None, LIFTED])
@settings(max_examples=200, deadline=None)
@given(sent=st.lists(event | objects | anything, max_size=8))
def test_streams_never_fail_in_foreign_words(lifted, sent):  # C-45, P-109
    frames = "".join(f"data: {json.dumps(item)}\n\n" for item in [*sent, {"type": "message_stop"}])
    judged(frames.encode(), lifted)


RICH = messages_body(
    opening({"input_tokens": 3, "output_tokens": 1}),
    *thinking(0, "hm"),
    *text(1, "Grüße", " 🌍"),
    *tool(2, "c1", "f", '{"a"', ":1}"),
    *tool(3, "c2", LIFTED, '{"b"', ":2}"),
    *closing("tool_use", {"output_tokens": 4}),
)


@pytest.mark.parametrize("lifted", [None, LIFTED])
def test_a_stream_cut_off_anywhere(lifted):  # C-45, P-49, P-120
    """Up to the stop reason it is an early end, from then on the answer; there is nothing in between."""
    complete = judged(RICH, lifted)[-1]
    finished = RICH.index(b'{"type": "message_delta"')
    ends = [judged(RICH[:size], lifted)[-1] for size in range(len(RICH) + 1)]
    turn = next(size for size, end in enumerate(ends) if end.type == "message_completed")
    assert turn > finished
    assert all(end == complete for end in ends[turn:])
    for end in ends[:turn]:
        assert (end.error.reason, end.error.metadata) == ("network_error", {"premature_close": True})


@pytest.mark.parametrize("lifted", [None, LIFTED])
@settings(max_examples=150, deadline=None)
@given(body=whole | objects)
def test_bodies_never_fail_in_foreign_words(lifted, body):  # C-45, P-15
    with contextlib.suppress(AllmError):
        decode_messages(parse(json.dumps(body)), lifted=lifted).model_dump_json()


@settings(max_examples=80, deadline=None)
@given(body=whole)
def test_whatever_was_answered_can_be_sent_back(body):  # P-84, P-39
    """What is kept for the next turn is always something that can be sent."""
    try:
        message = decode_messages(parse(json.dumps(body))).message
    except AllmError:
        return
    again = Request(messages=[user("hi"), Message.model_validate_json(message.model_dump_json())], model="m")
    encode(AnthropicWire().build(again, {}, stream=True).body)


@pytest.mark.parametrize("depth", [100, 190, 250, 900, 5000, 100_000])
def test_deep_objects(depth):  # C-45
    deep = f"{'[' * depth}{']' * depth}"
    judged(f'data: {{"x":{deep}}}\n\n'.encode())
    for frame in (
        f'{{"type":"message_start","message":{{"usage":{{"x":{deep}}}}}}}',
        f'{{"type":"content_block_start","index":0,"content_block":{{"type":"thinking","x":{deep}}}}}',
        f'{{"type":"content_block_start","index":0,"content_block":{{"type":"tool_use","id":"c","name":"f","input":{{"x":{deep}}}}}}}',
        f'{{"type":"content_block_start","index":0,"content_block":{{"type":"tool_use","id":"c","name":"{LIFTED}","input":{{"x":{deep}}}}}}}',
        f'{{"type":"message_delta","delta":{{"stop_reason":"refusal","stop_details":{deep}}}}}',
    ):
        judged(f'data: {frame}\n\ndata: {{"type":"message_stop"}}\n\n'.encode(), LIFTED)


@settings(max_examples=80, deadline=None)
@given(body=st.binary(max_size=200))
def test_any_bytes(body):  # C-45
    judged(b"data: " + body + b"\n\n")
