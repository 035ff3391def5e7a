"""Reading the JSON of the wires."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allm_actors.data import RawChunk
from allm_actors.providers._json import compact, parse, plain

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{} x",
        "nope",
        '{"a":}',
        "\ufeff{}",
        '{"a":"\x01"}',
        "[" * 100_000,
        '{"a":' + "1" * 5000 + "}",
    ],
)
def test_what_is_no_json(text):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert isinstance(caught.value, ValueError)


def test_what_only_a_patient_reader_reads():  # P-109
    assert parse('{"a":"\\ud83d","b":NaN,"a":"\\ud83d\\ude00"}') == {"a": "😀", "b": None}
    assert parse('"\\ude00x"') == "\ufffdx"


def test_numbers():  # P-46
    assert repr(parse('{"a":1,"b":1.0,"c":1e3,"d":-0.0}')) == "{'a': 1, 'b': 1.0, 'c': 1000.0, 'd': -0.0}"


@given(values)
def test_plain_values_can_be_held_and_written(value):  # C-6
    held = RawChunk(payload=plain(value))
    assert json.loads(compact(value)) == json.loads(held.model_dump_json())["payload"]


@pytest.mark.parametrize("depth", [10, 170, 199, 500])
def test_depth(depth):  # C-6
    value = "x"
    for _ in range(depth):
        value = [value]
    assert RawChunk(payload={"data": plain(value)})


def test_compact():  # P-46
    assert compact({"ä": [1, 2.0, None, True], "b": {}}) == '{"ä":[1,2.0,null,true],"b":{}}'
