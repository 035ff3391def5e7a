"""Whatever a server sends, what comes out is ours."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allm_actors.errors import AllmError
from allm_actors.providers._json import parse
from allm_actors.providers.gemini._decode import decode_generate
from allm_actors.providers.gemini._partial_args import PartialArguments
from allm_actors.providers.gemini._stream import GenerateDecoder
from tests.providers.gemini.decoding import answer, call, fold, play, stream_body

NAMES = [
    "args", "blockReason", "candidates", "candidatesTokenCount", "code", "content", "data", "details", "error",
    "executableCode", "finishMessage", "finishReason", "functionCall", "id", "index", "inlineData", "jsonPath", "message",
    "mimeType", "modelVersion", "name", "partialArgs", "parts", "promptFeedback", "promptTokenCount", "reason",
    "responseId", "retryDelay", "status", "stringValue", "text", "thought", "thoughtSignature", "thoughtsTokenCount",
    "usageMetadata", "willContinue",
]  # fmt: skip
WORDS = [
    "STOP", "SAFETY", "MALFORMED_FUNCTION_CALL", "image/png", "f", "c1", "$.a", "$.a[0]", "$['b'].c", "$", "{}", "34s",
    "type.googleapis.com/google.rpc.RetryInfo",
]  # fmt: skip

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 3), st.just(10**400), st.floats(), st.sampled_from(WORDS), st.text(max_size=4),
    st.just("\ud83d"),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)


def shape(**members):
    """An object with any of these members, each of which may be of a wrong type."""
    return st.fixed_dictionaries(
        {}, optional={name: value | value | anything for name, value in members.items()}
    )


piece = shape(
    jsonPath=st.sampled_from(["$.a", "$.a[0]", "$.b.c", "$['b']", "$", "$.a[200]"]), stringValue=st.text(max_size=3),
    numberValue=st.floats() | st.integers(), boolValue=st.booleans(), nullValue=st.none(), willContinue=st.booleans(),
)  # fmt: skip
function_call = shape(
    name=st.sampled_from(["f", "g", ""]), id=st.sampled_from(["c1", "c2", ""]), args=shape(a=anything, b=anything),
    partialArgs=st.lists(piece, max_size=3), willContinue=st.booleans(),
)  # fmt: skip
part = shape(
    text=st.text(max_size=4), thought=st.booleans(), thoughtSignature=st.text(max_size=3), functionCall=function_call,
    inlineData=shape(mimeType=st.sampled_from(["image/png", "audio/wav"]), data=st.just("AAAA")), executableCode=anything,
)  # fmt: skip
candidate = shape(
    index=st.sampled_from([0, 0, 1, None]), content=shape(role=st.just("model"), parts=st.lists(part, max_size=4)),
    finishReason=st.sampled_from(["STOP", "SAFETY", "MAX_TOKENS", "NEW", "MALFORMED_RESPONSE"]), finishMessage=st.text(max_size=4),
)  # fmt: skip
payload = shape(
    candidates=st.lists(candidate, max_size=2), usageMetadata=shape(promptTokenCount=st.integers(0, 9), thoughtsTokenCount=st.integers(0, 9)),
    promptFeedback=shape(blockReason=st.sampled_from(["SAFETY", ""])), responseId=st.just("r"), modelVersion=st.just("m"),
)  # fmt: skip
failure = shape(
    error=shape(code=st.integers(100, 700), message=st.text(), status=st.text(), details=anything)
)


def judged(body, sizes=(1 << 20,)):
    """The events of a stream: one opening, one end, and a fold that does not fail."""
    events = play(body, GenerateDecoder(), sizes=sizes)
    kinds = [event.type for event in events]
    assert kinds[-1] in ("message_completed", "error")
    assert kinds.count("message_started") <= 1
    assert kinds[0] in ("message_started", "error")
    assert not {"message_completed", "error"} & set(kinds[:-1])
    response = fold(events)
    assert response.error is None or isinstance(response.error, AllmError)
    for found in events:
        found.model_dump_json()
    started = [event.id for event in events if event.type == "tool_call_started"]
    completed = [event.id for event in events if event.type == "tool_call_completed"]
    assert len(set(started)) == len(started)
    assert kinds[-1] == "error" or started == completed
    return events


@settings(max_examples=300, deadline=None)
@given(sent=st.lists(payload | payload | failure | anything, max_size=6), ended=st.booleans())
def test_streams_never_fail_in_foreign_words(sent, ended):  # C-45, P-109, P-40, P-42
    tail = [answer(finish="STOP")] if ended else []
    judged("".join(f"data: {json.dumps(item)}\n\n" for item in [*sent, *tail]).encode())


@settings(max_examples=300, deadline=None)
@given(body=payload | failure | st.dictionaries(st.sampled_from(NAMES), anything, max_size=5))
def test_bodies_never_fail_in_foreign_words(body):  # C-45, P-15
    with contextlib.suppress(AllmError):
        decode_generate(parse(json.dumps(body))).model_dump_json()  # as a body is read


@pytest.mark.parametrize("depth", [100, 190, 250, 900, 5000, 100_000])
def test_deep_objects(depth):  # C-45
    deep = "[" * depth + "]" * depth
    for data in (
        f'{{"x":{deep}}}',
        f'{{"usageMetadata":{{"x":{deep}}},"candidates":[{{"finishReason":"STOP"}}]}}',
        f'{{"candidates":[{{"content":{{"parts":[{{"functionCall":{{"name":"f","args":{deep}}}}}]}},"finishReason":"STOP"}}]}}',
        f'{{"candidates":[{{"content":{{"parts":[{{"x":{deep}}}]}},"finishReason":"STOP"}}]}}',
    ):
        judged(f"data: {data}\n\n".encode())


@pytest.mark.parametrize("depth", [100, 190, 900, 20_000])
@pytest.mark.parametrize("segment", [".a", "[0]"])
def test_deep_paths(depth, segment):  # C-45, P-100
    path = {"jsonPath": "$.a" + segment * depth, "numberValue": 1}
    judged(stream_body(answer(call("f", partialArgs=[path]), finish="STOP")))


@settings(max_examples=200, deadline=None)
@given(st.lists(piece | anything, max_size=6), anything)
def test_pieces_never_fail(pieces, start):  # C-45, P-100
    arguments = PartialArguments(start)
    for each in pieces:
        arguments.put(each)
    assert isinstance(arguments.whole(), dict | list)


@settings(max_examples=80, deadline=None)
@given(body=st.binary(max_size=200))
def test_any_bytes(body):  # C-45
    judged(b"data: " + body + b"\n\n")


OBJECTS = [
    answer({"text": "hm", "thought": True}, "Grüße \u2028!"),
    answer(call("f", willContinue=True, signature="s"), {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
    answer(call(None, partialArgs=[{"jsonPath": "$.a", "stringValue": "x"}])),
    answer("", finish="STOP", usage={"promptTokenCount": 1}),
]  # fmt: skip
BODY = stream_body(*OBJECTS, {"usageMetadata": {"promptTokenCount": 2}})


def test_a_body_may_end_anywhere():  # P-49, P-120
    """Before the finish reason that is a failure, after it the end; nothing else ever comes of it."""
    complete = len(stream_body(*OBJECTS).rstrip())
    for end in range(len(BODY) + 1):
        last = judged(BODY[:end])[-1]
        told = last.error.reason if last.type == "error" else last.finish_reason
        assert told == ("network_error" if end < complete else "tool_calls")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_a_body_may_be_cut_anywhere(sizes):  # P-116
    def told(events):
        return [
            (event.type, event.model_dump(exclude={"id"}) if "call" in event.type else None)
            for event in events
        ]

    assert told(judged(BODY, sizes)) == told(judged(BODY))
