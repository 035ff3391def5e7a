"""The SSE decoder: framing rules, and that chunk borders never matter."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allm_actors.providers._sse import MAX_EVENT_BYTES, SSEDecoder, SSEEvent

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"


def decode(*chunks: bytes) -> tuple[list[SSEEvent], str | None]:
    decoder = SSEDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    events += decoder.close()
    return events, decoder.failure


def data(*chunks: bytes) -> list[str]:
    return [event.data for event in decode(*chunks)[0]]


def test_one_frame_is_one_event():
    assert decode(b"data: {}\n\n") == ([SSEEvent(None, "{}")], None)


def test_an_event_is_returned_as_soon_as_its_blank_line_is_there():
    """P-12: nothing waits for the next event, nor for more bytes."""
    decoder = SSEDecoder()

    assert decoder.feed(b"data: 1\n") == []
    assert decoder.feed(b"\n") == [SSEEvent(None, "1")]
    assert decoder.feed(b"data: 2\r\n\r") == [SSEEvent(None, "2")]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_all_three_line_ends(end):
    """P-115."""
    assert data(b"data: 1" + end + b"data: 2" + end + end + b"data: 3" + end + end) == ["1\n2", "3"]


def test_mixed_line_ends():
    """P-115."""
    assert data(b"data: 1\r\ndata: 2\rdata: 3\n\r\n") == ["1\n2\n3"]


def test_a_crlf_cut_in_two_is_one_line_end():
    """P-115: an LF that opens a chunk belongs to the CR that ended the one before."""
    assert data(b"data: 1\r", b"\ndata: 2\r", b"\n\r", b"\n") == ["1\n2"]
    assert data(b"data: 1\r", b"", b"\ndata: 2\n\n") == ["1\n2"]


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c"])
def test_other_line_separators_are_ordinary_characters(char):
    """P-117."""
    assert data(f'data: {{"a":"x{char}y"}}\n\n'.encode()) == [f'{{"a":"x{char}y"}}']


def test_comments_and_the_one_leading_space():
    """P-118."""
    assert data(b": hi\ndata:  two\n:\ndata:none\n\n") == [" two\nnone"]


def test_field_and_value_are_split_at_the_first_colon():
    """P-118."""
    assert data(b"data: a: b:c\n\n") == ["a: b:c"]


def test_a_line_without_colon_is_a_field_with_an_empty_value():
    """P-118."""
    assert data(b"data\ndata\n\n") == ["\n"]
    assert data(b"data\n\n") == [""]


def test_one_byte_order_mark_at_the_very_start_is_dropped():
    """P-118."""
    bom = b"\xef\xbb\xbf"

    assert data(bom + b"data: 1\n\n") == ["1"]
    assert data(b"\xef", b"\xbb", b"\xbfdata: 1\n\n") == ["1"]
    assert data(bom + bom + b"data: 1\n\n") == []
    assert data(b"data: " + bom + b"1\n\n") == ["\ufeff1"]
    assert data(b"\xef\xbb") == []


def test_an_event_without_data_vanishes():
    """P-119."""
    assert decode(b"event: ping\n\ndata: 1\n\n")[0] == [SSEEvent(None, "1")]


def test_fields_take_their_last_value_and_an_empty_line_resets_them():
    """P-119."""
    body = b"event: a\nevent: b\nid: 1\nid: 2\nretry: 5\ndata: x\n\ndata: y\n\n"

    assert decode(body)[0] == [SSEEvent("b", "x", "2", 5), SSEEvent(None, "y")]


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"1 ", b"abc", "٣".encode()])
def test_retry_accepts_digits_only(value):
    """P-119."""
    assert decode(b"retry: 7\nretry: " + value + b"\ndata: x\n\n")[0][0].retry == 7


def test_unknown_fields_are_kept_aside():
    """P-119: they change nothing about the event, and alone are none."""
    assert decode(b"foo: 1\ndata: x\n\nfoo: 2\n\n")[0] == [SSEEvent(None, "x", fields={"foo": "1"})]


def test_an_error_field_is_an_event_of_its_own():
    """P-64, P-119: some servers send `error:` in place of a data line."""
    assert decode(b'error: {"code":500}\n\n')[0] == [SSEEvent(None, "", fields={"error": '{"code":500}'})]
    assert decode(b"error: oops\n\n")[0] == []


@pytest.mark.parametrize(
    "bare",
    [b'{"error": {"message": "no"}}', b'{\n  "error": {\n    "message": "no"\n  }\n}', b'{"error":\n"no"}'],
)
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
@pytest.mark.parametrize("before", [b"", b"data: 1\n\n"])
def test_a_bare_object_with_an_error_is_that_error(bare, end, before):
    """P-119: as the whole body or the rest of it."""
    events, failure = decode(before + bare + end)

    assert [event.fields for event in events if event.fields] == [{"error": bare.decode()}]
    assert len(events) == (2 if before else 1)
    assert failure is None


def test_a_bare_line_in_mid_stream_is_no_field():
    """P-119: what begins with a brace and is no error is dropped, and the events go on."""
    assert decode(b'{"data": 1}\n\n{\n"a": "b\n\ndata: 1\n\n')[0] == [SSEEvent(None, "1")]


def test_a_bare_error_is_told_at_its_end_of_line_and_blank_line():
    """P-119: the error does not wait for the end of the body."""
    decoder = SSEDecoder()

    assert decoder.feed(b'{"error": {"message": "no"}}\n') == []
    assert [event.fields for event in decoder.feed(b"\n")] == [{"error": '{"error": {"message": "no"}}'}]


def test_the_end_of_the_body_ends_the_last_event():
    """P-120."""
    assert data(b"data: 1\n\ndata: 2") == ["1", "2"]
    assert data(b"data: 1\n\ndata: 2\n") == ["1", "2"]
    assert data(b"data: 1\n\ndata: 2\r") == ["1", "2"]


def test_an_event_cut_off_inside_a_character_is_no_failure():
    """P-120: the end of the body decides about it, not its last bytes."""
    assert decode(b'data: 1\n\ndata: {"a": "\xe2\x82') == ([SSEEvent(None, "1")], None)


def test_close_after_close_gives_nothing():
    decoder = SSEDecoder()
    decoder.feed(b"data: 1")

    assert len(decoder.close()) == 1
    assert decoder.close() == []


@pytest.mark.parametrize("name", [b"data: ", b"data:", b"event: ", b"id: "])
def test_bytes_that_are_not_utf8_end_the_stream(name):
    """P-13: what came before is returned, nothing after."""
    events, failure = decode(b"data: 1\n\n" + name + b"\xff\ndata: x\n\ndata: 2\n\n")

    assert [event.data for event in events] == ["1"]
    assert failure is not None
    assert "UTF-8" in failure


def test_a_comment_may_hold_any_bytes():
    assert data(b": \xff\ndata: 1\n\n") == ["1"]


@pytest.mark.parametrize("space", [b"", b" "])
def test_an_event_of_16_mib_passes_and_one_byte_more_does_not(space):
    """P-122."""
    largest = b"x" * MAX_EVENT_BYTES

    assert decode(b"event: e\ndata:" + space + largest + b"\n\n")[1] is None
    assert decode(b"data:" + space + largest + b"x\n\n") == ([], "an event of more than 16 MiB")


def test_many_data_lines_count_together():
    """P-122."""
    half = b"data: " + b"x" * (MAX_EVENT_BYTES // 2) + b"\n"

    events, failure = decode(b"data: 1\n\n", half, half, b"\n", b"data: 2\n\n")

    assert [event.data for event in events] == ["1"]
    assert failure is not None


def test_a_line_without_end_is_refused_before_it_ends():
    """P-122: a server cannot fill the memory."""
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    for _ in range(17):
        decoder.feed(b"x" * 1024 * 1024)

    assert decoder.failure is not None


def test_an_endless_comment_is_dropped():
    """P-123: a keep-alive is never visible, however long."""
    assert data(b": ", *[b"x" * 1024 * 1024] * 17, b"\ndata: 1\n\n") == ["1"]


LINES = st.sampled_from(
    [
        b"data: {}", b"data: \xe2\x82\xac", b"data:x", b"data", b"event: e", b"id: 1", b"retry: 5", b"", b"", b"",
        b": c", b"foo: bar", b'{"error": 1}', b"{", b'"error": 2', b"}", b"error: {}", b"\xff", b"data: \xff",
    ]
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
BODIES = st.lists(st.tuples(LINES, ENDS), max_size=25).map(lambda pairs: b"".join(a + b for a, b in pairs))
STARTS = st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb"])


def cut(body: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(borders)]


@given(STARTS, BODIES | st.binary(max_size=80), st.lists(st.integers(0, 10_000), max_size=8))
@settings(max_examples=400, deadline=None)
def test_any_chunking_gives_the_same_events(start, body, places):
    """P-116."""
    whole = decode(start + body)

    assert decode(*cut(start + body, places)) == whole
    assert decode(*[bytes([byte]) for byte in start + body]) == whole


@given(st.lists(st.tuples(st.none() | st.text("ab", min_size=1), st.text()), max_size=8), ENDS)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(messages, end):
    """P-119: data lines are joined with LF."""
    body = b""
    for name, text in messages:
        if name:
            body += b"event: " + name.encode() + end
        for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            body += b"data: " + line.encode() + end
        body += end

    expected = [SSEEvent(name, text.replace("\r\n", "\n").replace("\r", "\n")) for name, text in messages]
    assert decode(body) == (expected, None)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of recorded streams is not there")
def test_recorded_streams_byte_by_byte():
    """P-116, on what providers really send."""
    for path in sorted(CORPUS.glob("*/*.sse"))[::9]:
        body = path.read_bytes()[:30_000]

        whole = decode(body)

        assert whole[0], path
        assert whole[1] is None, path
        assert decode(*[body[i : i + 1] for i in range(len(body))]) == whole, path


def test_many_small_parts_of_one_line_cost_linear_time():
    """A large event that drips in does not take the processor for itself."""
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    began = time.process_time()
    for _ in range(200_000):
        decoder.feed(b"xxxxxxxx")

    assert decoder.feed(b"\n\n") == [SSEEvent(None, "xxxxxxxx" * 200_000)]
    assert time.process_time() - began < 2
