"""What the command line lets through to a terminal, and how it measures."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allm_actors.cli._meter import Meter
from allm_actors.cli._terminal import one_line, printable, write
from allm_actors.data import Usage


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain, ümläut, 猫, 👩‍🚀\n\tindented", "plain, ümläut, 猫, 👩‍🚀\n\tindented"),
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("\x9b2J", "\ufffd2J"),
        ("a\rb\r\nc", "ab\nc"),
        ("back\x08space \x7f \x00", "back␈space ␡ ␀"),
        ("evil\u202etxt.exe", "evil\ufffdtxt.exe"),
        ("half \ud83d", "half \ufffd"),
    ],
)
def test_control_characters_are_shown_and_never_obeyed(raw, shown):
    """An answer cannot clear the screen, set the title, or hide what was written before."""
    assert printable(raw) == shown


@given(st.text())
def test_nothing_a_terminal_obeys_passes(text):
    shown = printable(text)

    assert not any(ord(char) < 0x20 and char not in "\n\t" for char in shown)
    assert not any(0x7F <= ord(char) < 0xA0 for char in shown)
    assert printable(shown) == shown


def test_an_error_is_one_line_of_bounded_length():
    text = one_line("first\nsecond\x1b[0m " + "x" * 5000)

    assert text.startswith("first second␛[0m xxx")
    assert "\n" not in text
    assert len(text) == 600


def test_text_the_output_cannot_encode_is_replaced(monkeypatch):
    """A pipe with an ASCII locale gets a question mark, not a traceback half way through the answer."""
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))

    write("naïve 猫\n")

    assert buffer.getvalue() == b"na?ve ?\n"


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_rate_is_measured_from_the_first_token():
    clock = Clock()
    meter = Meter(clock)
    clock.now += 0.5
    for _ in range(5):
        meter.piece()
        clock.now += 0.1
    assert meter.elapsed() == pytest.approx(1.0)

    assert meter.report() == "first token after 0.50 s · ~5 tokens · ~10.0 tokens/s"
    assert meter.report(Usage(output_tokens=9)) == "first token after 0.50 s · 9 tokens · 20.0 tokens/s"


def test_an_answer_without_text_or_with_one_token_has_no_rate():
    clock = Clock()
    meter = Meter(clock)
    clock.now += 2
    assert meter.report(Usage(output_tokens=1)) == "no text after 2.00 s"

    meter.piece()

    assert meter.report(Usage(output_tokens=1)) == "first token after 2.00 s · 1 token"
