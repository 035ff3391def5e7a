"""A stream folded and a whole answer decoded are the same response."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from allm_actors.providers.openai._chat_decode import decode_chat
from allm_actors.providers.openai._chat_stream import ChatDecoder
from allm_actors.providers.openai._responses_decode import decode_responses
from allm_actors.providers.openai._responses_stream import ResponsesDecoder
from tests.providers.openai.decoding import chat_body, fold, play, responses_body

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
count = st.none() | st.integers(0, 1000) | st.sampled_from([True, -1, "7", 1.5])
calls = st.lists(
    st.tuples(
        st.sampled_from(["f", "g", ""]),
        st.sampled_from(['{"a":1}', "", "{", "[]", '{"ü":"\u2028"}', '{"a":NaN}']),
    ),
    max_size=3,
)
sizes = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def pieces(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


@settings(max_examples=60, deadline=None)
@given(
    text=words, thought=words, refusal=words | st.none(), made=calls, sizes=sizes, size=st.integers(1, 5),
    finish=st.sampled_from(["stop", "length", "tool_calls", "content_filter", "eos"]),
    usage=st.none() | st.fixed_dictionaries({"prompt_tokens": count, "prompt_tokens_details": st.none() | st.fixed_dictionaries({"cached_tokens": count, "x": count})}),
)  # fmt: skip
def test_chat(  # noqa: PLR0917 -- all by name
    text, thought, refusal, made, sizes, size, finish, usage
):  # P-6, P-116
    entries = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": raw}}
        for n, (name, raw) in enumerate(made)
    ]
    message = {"content": text, "reasoning_content": thought, "refusal": refusal, "tool_calls": entries}
    whole = {"id": "x", "model": "m", "service_tier": "t", "usage": usage}
    whole["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]

    deltas = [{"reasoning_content": piece} for piece in pieces(thought, size)]
    deltas += [{"content": piece} for piece in pieces(text, size)]
    deltas += [{"refusal": piece} for piece in pieces(refusal or "", size)]
    for n, entry in enumerate(entries):
        first = entry | {"index": n, "function": {"name": entry["function"]["name"], "arguments": ""}}
        deltas.append({"tool_calls": [first]})
        raw = pieces(entry["function"]["arguments"], size)
        deltas += [{"tool_calls": [{"index": n, "function": {"arguments": piece}}]} for piece in raw]
    base = {"id": "x", "model": "m", "service_tier": "t"}
    chunks = [base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks += [base | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}]
    chunks += [base | {"choices": [], "usage": usage}]
    body = chat_body(*[json.dumps(chunk, ensure_ascii=False) for chunk in chunks])

    streamed = fold(play(body, ChatDecoder(), sizes=sizes))

    assert streamed == decode_chat(whole).model_copy(update={"raw": None})


@settings(max_examples=60, deadline=None)
@given(
    text=words, thoughts=st.lists(words.filter(bool), max_size=3), refusal=words, made=calls, sizes=sizes, size=st.integers(1, 5),
    end=st.sampled_from(["completed", "incomplete"]), told=st.booleans(), usage=st.none() | st.fixed_dictionaries({"input_tokens": count}),
)  # fmt: skip
def test_responses(  # noqa: PLR0917 -- all by name
    text, thoughts, refusal, made, sizes, size, end, told, usage
):  # P-6, P-116
    summary = [{"type": "summary_text", "text": thought} for thought in thoughts]
    content = [{"type": "output_text", "text": text}, {"type": "refusal", "refusal": refusal}]
    items = [
        {"type": "reasoning", "id": "rs", "summary": summary},
        {"type": "message", "id": "m", "content": content},
    ]
    items += [
        {"type": "function_call", "id": f"fc{n}", "call_id": f"c{n}", "name": name, "arguments": raw}
        for n, (name, raw) in enumerate(made)
    ]
    whole = {
        "id": "x",
        "model": "m",
        "status": end,
        "usage": usage,
        "output": items,
        "reasoning": {"effort": "low"},
    }

    events = [{"type": "response.created", "response": {"id": "x", "model": "m"}}]
    for n, thought in enumerate(thoughts):
        events.append(
            {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": n}
        )
        kind = "response.reasoning_summary_text.delta"
        events += [
            {"type": kind, "output_index": 0, "summary_index": n, "delta": piece}
            for piece in pieces(thought, size)
        ]
    events += [{"type": "response.output_text.delta", "delta": piece} for piece in pieces(text, size)]
    events += [{"type": "response.refusal.delta", "delta": piece} for piece in pieces(refusal, size)]
    for n, item in enumerate(items[2:], 2):
        if told:
            events.append(
                {"type": "response.output_item.added", "output_index": n, "item": item | {"arguments": ""}}
            )
        kind = "response.function_call_arguments.delta"
        events += [
            {"type": kind, "item_id": item["id"], "output_index": n, "delta": piece}
            for piece in pieces(item["arguments"], size)
        ]
        events.append({"type": "response.output_item.done", "output_index": n, "item": item})
    events.append({"type": f"response.{end}", "response": whole})

    streamed = fold(play(responses_body(*events), ResponsesDecoder(), sizes=sizes))

    assert streamed == decode_responses(whole).model_copy(update={"raw": None})
