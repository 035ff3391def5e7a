"""A stream folded and a whole answer decoded are the same response."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from allm_actors.providers.anthropic._decode import decode_messages
from allm_actors.providers.anthropic._stream import MessagesDecoder
from tests.providers.anthropic.decoding import LIFTED, messages_body
from tests.providers.openai.decoding import fold, play

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
count = st.none() | st.integers(0, 1000) | st.sampled_from([True, -1, "7", 1.5])
inputs = st.dictionaries(words, st.none() | st.integers() | words | st.lists(words, max_size=2), max_size=3)
usages = st.fixed_dictionaries(
    {},
    optional={
        "input_tokens": count,
        "output_tokens": count,
        "cache_read_input_tokens": count,
        "cache_creation_input_tokens": count,
        "output_tokens_details": st.none() | st.fixed_dictionaries({"thinking_tokens": count, "x": count}),
        "service_tier": st.just("standard"),
    },
)
blocks = st.one_of(
    words.map(lambda text: {"type": "text", "text": text}),
    st.tuples(words, words).map(lambda pair: {"type": "thinking", "thinking": pair[0], "signature": pair[1]}),
    words.map(lambda data: {"type": "redacted_thinking", "data": data}),
    st.tuples(st.sampled_from(["f", "g", "", LIFTED]), inputs).map(
        lambda pair: {"type": "tool_use", "name": pair[0], "input": pair[1]}
    ),
)


def streamed_block(index, block, size):
    """The events that make up a block, in pieces of a size."""

    def pieces(kind, member, text):
        return [
            {
                "type": "content_block_delta",
                "index": index,
                "delta": {"type": kind, member: text[at : at + size]},
            }
            for at in range(0, len(text), size)
        ]

    empty, deltas = block, []
    match block["type"]:
        case "text":
            empty, deltas = block | {"text": ""}, pieces("text_delta", "text", block["text"])
        case "thinking":
            empty = block | {"thinking": "", "signature": ""}
            deltas = pieces("thinking_delta", "thinking", block["thinking"])
            deltas += pieces("signature_delta", "signature", block["signature"])
        case "tool_use":
            sent = json.dumps(block["input"], separators=(",", ":"), ensure_ascii=False)
            empty, deltas = block | {"input": {}}, pieces("input_json_delta", "partial_json", sent)
    begun = {"type": "content_block_start", "index": index, "content_block": empty}
    return [begun, *deltas, {"type": "content_block_stop", "index": index}]


@settings(max_examples=150, deadline=None)
@given(
    content=st.lists(blocks, max_size=5),
    reason=st.sampled_from(["end_turn", "tool_use", "max_tokens", "stop_sequence", "refusal", "odd"]),
    usage=st.none() | usages,
    lifted=st.sampled_from([None, LIFTED]),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    size=st.integers(1, 5),
)
def test_messages(content, reason, usage, lifted, sizes, size):  # noqa: PLR0917 -- P-6, P-88, P-116; all by name
    content = [
        block | {"id": f"c{number}"} if block["type"] == "tool_use" else block
        for number, block in enumerate(content)
    ]
    end = {"stop_reason": reason, "stop_sequence": "END" if reason == "stop_sequence" else None}
    whole = {"id": "x", "model": "m", "content": content, "usage": usage} | end
    begun, changed = usage, None
    if usage is not None:  # the output is counted at the end
        begun = {key: value for key, value in usage.items() if key != "output_tokens"} | {"output_tokens": 1}
        changed = (
            {"output_tokens": usage["output_tokens"]} if usage.get("output_tokens") is not None else None
        )
        if changed is None:
            begun = usage
    message = {"id": "x", "model": "m", "content": [], "usage": begun}
    events = [{"type": "message_start", "message": message}]
    for index, block in enumerate(content):
        events += streamed_block(index, block, size)
    events += [{"type": "message_delta", "delta": end, "usage": changed}, {"type": "message_stop"}]

    streamed = fold(play(messages_body(*events), MessagesDecoder(lifted), sizes=sizes))

    assert streamed == decode_messages(whole, lifted=lifted).model_copy(update={"raw": None})
