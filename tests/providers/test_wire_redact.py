"""Secrets do not get through."""

import pytest
from pydantic import SecretStr

from allm_actors.providers._redact import SHAPES_ONLY, Redactor

KEY = "canary-0123456789"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abcdef", "sk-proj-a_b-c1", "rk-abcdef", "org-abcdef", "sk-ant-abcdef", "AIzaabcdef", "ya29.abc.def_1",
        "pa-abcdef", "sk_abcdef", "apikey_abcdef",
    ],
)  # fmt: skip
def test_shapes_of_keys(secret):  # P-140, K-17
    assert SHAPES_ONLY.text(f"({secret}) and '{secret}'") == "([REDACTED]) and '[REDACTED]'"


@pytest.mark.parametrize(
    "text", ["risk-averse people", "task-forces", "sk-abc", "AIzaabc", "the org-chart", "disk_images"]
)
def test_what_is_no_key(text):  # P-140
    assert SHAPES_ONLY.text(text) == text


@pytest.mark.parametrize("given", [KEY, SecretStr(KEY), f"  {KEY}\n"])
def test_the_key_of_the_call(given):  # P-140
    redactor = Redactor(given)
    assert redactor.text(f"x{KEY}y") == "x[REDACTED]y"
    assert redactor.literal(f"sk-abcdef {KEY}") == "sk-abcdef [REDACTED]"
    assert KEY not in repr(redactor)


def test_a_short_key_would_garble_the_text():  # P-140
    assert Redactor("abcdefg").text("abcdefg") == "abcdefg"
    assert Redactor("abcdefgh").text("abcdefgh") == "[REDACTED]"
    assert Redactor("").text("abc") == Redactor(None).text("abc") == "abc"


def test_json_values():  # P-140
    value = {"a": [KEY, {KEY: 1}], "n": None, "b": True}
    assert Redactor(KEY).json(value) == {"a": ["[REDACTED]", {"[REDACTED]": 1}], "n": None, "b": True}
