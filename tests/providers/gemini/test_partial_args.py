"""Arguments that come in pieces."""

import pytest

from allm_actors.providers.gemini._partial_args import PartialArguments


def put(*pieces, start=None):
    arguments = PartialArguments(start)
    for piece in pieces:
        arguments.put(piece)
    return arguments.whole()


def text(path, value="x"):
    return {"jsonPath": path, "stringValue": value}


def number(path, value=1):
    return {"jsonPath": path, "numberValue": value}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.a", {"a": 1}),
        ("$.a.b.c", {"a": {"b": {"c": 1}}}),
        ("$.a[0]", {"a": [1]}),
        ("$.a[0][0].b", {"a": [[{"b": 1}]]}),
        ("$['a b']", {"a b": 1}),
        ('$["a.b"].c', {"a.b": {"c": 1}}),
        ("$['it\\'s \"x\"']", {'it\'s "x"': 1}),
        ('$["\\u00e4\\n"]', {"ä\n": 1}),
        ("$['']", {"": 1}),
        ("$.ä-b_1", {"ä-b_1": 1}),
        ("$.0", {"0": 1}),
    ],
)
def test_paths(path, expected):  # P-100
    assert put(number(path)) == expected


def test_values():  # P-100, P-46
    found = put(
        number("$.i", 3),
        number("$.f", 3.0),
        {"jsonPath": "$.t", "boolValue": True},
        {"jsonPath": "$.n", "nullValue": "NULL_VALUE"},
        {"jsonPath": "$.m", "nullValue": None},
        text("$.s", ""),
    )
    assert found == {"i": 3, "f": 3.0, "t": True, "n": None, "m": None, "s": ""}
    assert (type(found["i"]), type(found["f"])) == (int, float)


def test_pieces_of_strings_are_joined_wherever_they_come():  # P-100
    assert put(text("$.a", "one "), text("$.b", "1"), text("$['a']", "two"), text("$.b", "2")) == {
        "a": "one two",
        "b": "12",
    }


def test_of_other_values_the_last_counts():  # P-100
    assert put(number("$.a", 1), number("$.a", 2)) == {"a": 2}
    assert put(text("$.a"), number("$.a", 2)) == {"a": 2}
    assert put(number("$.a", 2), text("$.a", "x"), text("$.a", "y")) == {"a": "xy"}


def test_arrays_grow():  # P-100
    assert put(text("$.a[1]", "b"), text("$.a[0]", "a"), text("$.a[2]", "c")) == {"a": ["a", "b", "c"]}
    assert put(number("$.a[0].x"), number("$.a[0].y"), number("$.a[1].x")) == {"a": [{"x": 1, "y": 1}, {"x": 1}]}  # fmt: skip


def test_a_piece_without_a_value_announces_one():  # P-100
    assert put({"jsonPath": "$.a", "willContinue": True}, text("$.a")) == {"a": "x"}


def test_what_came_whole_is_kept_and_not_changed():  # P-100
    start = {"a": {"b": 1}, "c": [1]}
    assert put(number("$.a.d"), number("$.c[1]"), start=start) == {"a": {"b": 1, "d": 1}, "c": [1, 1]}
    assert start == {"a": {"b": 1}, "c": [1]}
    assert put(start=[1]) == {}


@pytest.mark.parametrize(
    "piece",
    [
        text("$"), text(""), text("a"), text(".a"), text("$a"), text("$..a"), text("$.a[*]"), text("$.a[-1]"),
        text("$.a["), text("$.a b"), text("$['a"), text("$['\\x']"), text('$["\\ud800"]'), text("$[0]"), text("$.a[1000000]"),
        text("$.a[99999999999999]"), text(None), text(5), {"stringValue": "x"}, None, 5, [],
        text("$.a", 5), number("$.a", "5"), number("$.a", True), number("$.a", float("inf")), {"jsonPath": "$.a", "boolValue": 1},
    ],
)  # fmt: skip
def test_a_piece_that_belongs_nowhere_breaks_the_whole(piece):  # P-46, P-100
    """No tool runs with half of its arguments."""
    found = put(number("$.fine"), piece)
    assert isinstance(found, list)
    assert len(found) == 1


@pytest.mark.parametrize(
    "second", [number("$.a.b"), number("$.a[0]"), number("$.l.x"), number("$.o[0]"), number("$.a[0].b")]
)
def test_a_place_inside_a_value_is_none(second):  # P-46, P-100
    assert isinstance(put(text("$.a"), number("$.l[0]"), number("$.o.x"), second), list)


def test_long_strings_stay_cheap():
    """Fifty thousand pieces of one string are joined once, not copied again with every piece."""
    arguments = PartialArguments()
    for _ in range(50_000):
        arguments.put(text("$.a", "x" * 20))
    assert arguments.whole() == {"a": "x" * 1_000_000}
