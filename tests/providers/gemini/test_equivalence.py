"""A stream folded and a whole answer decoded are the same response."""

from hypothesis import given, settings
from hypothesis import strategies as st

from allm_actors.providers.gemini._decode import decode_generate
from allm_actors.providers.gemini._stream import GenerateDecoder
from allm_actors.providers.gemini._wire import GeminiWire
from tests.providers.gemini.decoding import answer, call, fold, play, stream_body

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
texts = st.builds(lambda text: {"text": text}, words)
thoughts = st.builds(lambda text: {"text": text, "thought": True}, words)
signed = st.builds(lambda text: {"text": text, "thoughtSignature": "t"}, words)
images = st.just({"inlineData": {"mimeType": "image/webp", "data": "AAAA"}})
code = st.just({"executableCode": {"code": "1"}})
calls = st.builds(
    lambda number, name, args, signature: call(name, id=f"c{number}", args=args, signature=signature),
    st.integers(0, 10**9),
    st.sampled_from(["f", "g"]),
    st.dictionaries(words, values, max_size=3) | values,
    st.none() | st.just("s"),
)
parts = st.lists(
    texts | texts | thoughts | signed | images | code | calls,
    max_size=6,
    unique_by=lambda part: part.get("functionCall", {}).get("id", object()),
)
count = st.none() | st.integers(0, 1000) | st.sampled_from([True, -1, "7", 1.5])
usage = st.none() | st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        [
            "promptTokenCount",
            "candidatesTokenCount",
            "responseTokenCount",
            "thoughtsTokenCount",
            "totalTokenCount",
            "x",
        ],
        count,
    ),
)
finish = st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY", "NO_IMAGE", "NEW"])
sizes = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(parts=parts, reason=finish, message=st.none() | words, counted=usage, size=st.integers(1, 5), sizes=sizes)  # fmt: skip
def test_streamed_and_whole(  # noqa: PLR0917 -- all by name
    parts, reason, message, counted, size, sizes
):  # P-6, P-97, P-116
    whole = answer(*parts, finish=reason, usage=counted)
    last = answer(finish=reason, usage=counted)
    if message is not None:
        for each in (whole, last):
            each["candidates"][0]["finishMessage"] = message
    objects = []
    for part in parts:
        text = part.get("text")
        if text is None:
            objects.append(answer(part))
        else:
            pieces = [text[at : at + size] for at in range(0, len(text), size)] or [""]
            objects += [answer(part | {"text": piece}) for piece in pieces]

    streamed = fold(play(stream_body(*objects, last), GenerateDecoder(), sizes=sizes))

    assert streamed == decode_generate(whole).model_copy(update={"raw": None})


@settings(max_examples=60, deadline=None)
@given(parts=parts, reason=finish, counted=usage)
def test_a_whole_body_in_place_of_a_stream(parts, reason, counted):  # P-14, P-6
    whole = answer(*parts, finish=reason, usage=counted)
    decoded = decode_generate(whole).model_copy(update={"raw": None})

    assert fold(GeminiWire().replay(whole, None)) == decoded
