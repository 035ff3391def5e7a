"""Tools, `@tool`, and what a handler must look like."""

from __future__ import annotations

import copy
import enum
import functools
import pickle
from datetime import date
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic
import pytest
from pydantic import BaseModel, Field

from allm_actors.data import Tool, json_schema, tool, wants_context
from allm_actors.engine import ToolContext as RealContext  # noqa: TC001 - a hint that is evaluated
from allm_actors.errors import ToolError
from tests.data import _pickled

if TYPE_CHECKING:
    from allm_actors.engine import ToolContext


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


class Place(BaseModel):
    name: str
    where: tuple[float, float] | None = None


SCHEMA = {"type": "object", "properties": {"unit": {"enum": ["celsius"], "default": None}}, "required": []}


def test_tool_fields():
    """C-16."""
    bare = Tool(name="f", description="d", schema={})
    assert (bare.handler, bare.manual, bare.compact, bare.summary, bare.strict) == (
        None,
        False,
        False,
        None,
        False,
    )


def test_enum_members_in_schemas_become_their_values():
    """C-16: as keys and as values, at every depth, of a tool and of `json_schema`."""
    messy = {"type": "object", "properties": {Unit.C: {"enum": [Unit.C, [Unit.F, {"x": Unit.F}]]}}}
    plain = {
        "type": "object",
        "properties": {"celsius": {"enum": ["celsius", ["fahrenheit", {"x": "fahrenheit"}]]}},
    }

    assert Tool(name="f", description="", schema=messy).schema == plain
    assert json_schema("n", messy)["schema"] == plain
    assert messy["properties"].keys() == {Unit.C}  # the caller's own dict is as it was


def test_a_plain_schema_is_stored_equal():
    """C-16: including what JSON schema knows nothing of."""
    assert Tool(name="f", description="", schema=SCHEMA).schema == SCHEMA
    assert json_schema("n", {"nonsense": [1, {}]})["schema"] == {"nonsense": [1, {}]}


def test_a_tool_from_a_function():
    """C-17: name, docstring and schema come from the function."""

    @tool
    def forecast(city: str, days: Annotated[int, Field(le=7)] = 3, unit: Unit = Unit.C) -> str:
        """The weather.

        A line:
            Indented more.
        """
        return f"{city} {days} {unit.name}"

    assert isinstance(forecast, Tool)
    assert forecast.name == "forecast"
    assert forecast.description == "The weather.\n\nA line:\n    Indented more."
    schema = forecast.schema
    assert schema["type"] == "object"
    assert list(schema["properties"]) == ["city", "days", "unit"]
    assert schema["properties"]["city"] == {"type": "string"}
    assert schema["properties"]["days"] == {"type": "integer", "maximum": 7, "default": 3}
    assert schema["required"] == ["city"]
    assert schema["properties"]["unit"]["default"] == "celsius"
    assert forecast.handler({"city": "Kyoto", "days": "5", "unit": "fahrenheit"}) == "Kyoto 5 F"
    assert forecast.handler({"city": "Kyoto"}) == "Kyoto 3 C"


def test_options_of_the_decorator():
    """C-17: bare, or with options."""

    @tool(name="n", description="d", manual=True, compact=True, summary="s", strict=True)
    def function(x: int) -> int:
        "ignored"
        return x

    @tool()
    def undocumented():
        return 1

    assert (function.name, function.description, function.manual) == ("n", "d", True)
    assert (function.compact, function.summary, function.strict) == (True, "s", True)
    assert undocumented.description == ""
    assert undocumented.schema["properties"] == {}
    assert undocumented.handler({}) == 1


def test_calling_the_tool_calls_the_function():
    """C-17: as it stands, nothing validated."""

    @tool
    def add(a: int, b: int = 1, *, ctx=None):
        return a, b, ctx

    assert add("x") == ("x", 1, None)
    assert add(1, b=2, ctx="c") == (1, 2, "c")
    assert Tool(name="f", description="", schema={}, handler=lambda arguments: arguments)({"a": 1}) == {
        "a": 1
    }
    with pytest.raises(TypeError, match="'f'"):
        Tool(name="f", description="", schema={})()


def test_arguments_arrive_as_the_hinted_types():
    """C-17: pydantic's usual conversions; by keyword."""
    seen = {}

    @tool
    def book(
        place: Place,
        day: date,
        kinds: set[Literal["a", "b"]],
        counts: dict[str, float],
        note: str | None = None,
    ):
        seen.update(place=place, day=day, kinds=kinds, counts=counts, note=note)

    arguments = {
        "place": {"name": "x", "where": [1, 2]},
        "day": "2026-01-02",
        "kinds": ["a", "a"],
        "counts": {"n": "1"},
    }
    before = copy.deepcopy(arguments)
    book.handler(arguments)

    assert seen == {
        "place": Place(name="x", where=(1.0, 2.0)),
        "day": date(2026, 1, 2),
        "kinds": {"a"},
        "counts": {"n": 1.0},
        "note": None,
    }
    assert arguments == before


def test_invalid_arguments_are_for_the_model_to_read():
    """C-17, O-68: the tool's name, each dotted path with its problem, no URL; the cause is pydantic's error."""

    @tool
    def forecast(days: Annotated[int, Field(le=7)], city: str, place: Place | None = None):
        raise AssertionError("must not run")

    with pytest.raises(ToolError) as caught:
        forecast.handler({"days": 9, "place": {"name": 1}, "more": 1})

    error = caught.value
    assert error.reason == "invalid_arguments"
    assert error.tool_name == "forecast"
    assert str(error) == (
        "invalid arguments for forecast: days: Input should be less than or equal to 7; city: Field required; "
        "place.name: Input should be a valid string; more: Extra inputs are not permitted"
    )
    assert isinstance(error.__cause__, pydantic.ValidationError)


def test_what_the_body_raises_is_its_own():
    """C-17, O-68: a pydantic error of the body is not taken for one of the arguments."""

    @tool
    def parse(text: str):
        return Place.model_validate_json(text)

    with pytest.raises(pydantic.ValidationError):
        parse.handler({"text": "{}"})


def test_context_parameters_are_no_arguments():
    """C-17: by name, by annotation, by an annotation only type checkers can resolve."""

    @tool
    def by_name(x: int, ctx, context=None):
        return x, ctx, context

    @tool
    def by_annotation(where: RealContext, x: int):
        return where, x

    @tool
    def by_forward_reference(x: int, where: ToolContext | None = None):
        return where, x

    for made in (by_name, by_annotation, by_forward_reference):
        assert list(made.schema["properties"]) == ["x"]
        assert wants_context(made.handler)
    assert by_name.handler({"x": 1}, "C") == (1, "C", "C")
    assert by_annotation.handler({"x": 1}, "C") == ("C", 1)
    assert by_forward_reference.handler({"x": 1}, "C") == ("C", 1)
    with pytest.raises(ToolError):
        by_name.handler({"x": 1, "ctx": "mine"}, "C")


def test_a_context_class_of_ones_own_is_an_ordinary_type():
    """C-17: only the library's class is the tool context."""

    class Local(BaseModel):
        x: int

    Local.__name__ = "ToolContext"

    @tool
    def function(where: Local):
        return where.x

    assert function.handler({"where": {"x": 1}}) == 1


@pytest.mark.parametrize(
    "name", ["schema", "model_config", "_private", "self", "copy", "json", "p0", "arguments", "name"]
)
def test_a_parameter_may_have_any_name(name):
    """C-17: names that pydantic reserves are as good as others."""
    space: dict = {}
    exec(f"def function(other: int, {name}: int = 2): return other, {name}", space)
    made = tool(space["function"])

    assert list(made.schema["properties"]) == ["other", name]
    assert made.handler({"other": "1", name: "3"}) == (1, 3)
    assert made.handler({"other": 1}) == (1, 2)


def test_defaults_given_as_fields_and_defaults_json_cannot_hold():
    """C-17: neither breaks the schema, nor what the function receives."""
    marker = object()

    @tool
    def function(a: int = Field(3, ge=1, description="how many"), b: object = marker, c: list[int] = []):  # noqa: B006
        return a, b is marker, c

    assert function.schema["properties"]["a"] == {
        "type": "integer",
        "minimum": 1,
        "description": "how many",
        "default": 3,
    }
    assert function.handler({}) == (3, True, [])
    function.handler({})[2].append(1)
    assert function.handler({})[2] == []


def test_hints_of_names_that_are_local_where_the_tool_is_made():
    """C-17: with postponed annotations, too; and a function may refer to itself."""

    class Local(BaseModel):
        x: int

    @tool
    def again(local: Local, depth: int = 0):
        return again(local, 1) if depth == 0 else local.x

    assert again.handler({"local": {"x": 5}}) == 5


@pytest.mark.parametrize(
    "source",
    [
        "def f(*args): ...",
        "def f(**kwargs): ...",
        "def f(a, /): ...",
        "async def f(a): ...",
        "def f(a, *, b, **c): ...",
    ],
)
def test_functions_without_plain_named_parameters_are_refused(source):
    """C-17: at decoration."""
    space: dict = {}
    exec(source, space)

    with pytest.raises(ValueError):
        tool(space["f"])
    with pytest.raises(ValueError):
        tool(name="x")(space["f"])


def test_only_functions_make_tools():
    """C-17."""
    for bad in (5, "f", Place):
        with pytest.raises(TypeError):
            tool(bad)


def test_methods_and_partials_make_tools():
    """C-17: whatever has names for its parameters."""

    class Shop:
        def order(self, item: str, count: int = 1):
            """Order."""
            return item, count

    made = tool(Shop().order)
    assert (made.name, list(made.schema["properties"])) == ("order", ["item", "count"])
    assert made.handler({"item": "x", "count": "2"}) == ("x", 2)
    partial = tool(name="p")(functools.partial(Shop().order, count=3))
    assert partial.handler({"item": "x"}) == ("x", 3)


def test_tools_of_a_module_pickle_and_all_tools_copy():
    """C-5: although under the function's name the module holds the tool."""

    @tool
    def local(x: int):
        return x

    for made in (_pickled.shout, _pickled.named):
        assert pickle.loads(pickle.dumps(made)) == made
        assert pickle.loads(pickle.dumps(made)).handler({"text": "a"}) == "A"
    for made in (_pickled.shout, local):
        assert copy.copy(made) == made
        assert copy.deepcopy(made) == made
    assert local != _pickled.shout
    assert local.handler != _pickled.shout.handler


def test_handlers_are_not_serialised():
    """C-87: they come back `None` and are attached again."""

    @tool
    def made(x: int):
        return x

    again = Tool.model_validate_json(made.model_dump_json())
    assert again.handler is None
    assert again == made.model_copy(update={"handler": None})
    assert again.model_copy(update={"handler": made.handler}) == made


class Callable_:
    def __call__(self, arguments, ctx): ...


class AsyncCallable:
    async def __call__(self, arguments): ...


async def coroutine(arguments): ...


@pytest.mark.parametrize(
    ("handler", "wants"),
    [
        (lambda a: a, False),
        (lambda a, b: a, True),
        (lambda a, ctx=None: a, True),
        (lambda a, context=None: a, True),
        (lambda a, limit=3: a, False),
        (lambda a, limit=3, *rest: a, False),
        (lambda a, *rest: a, True),
        (lambda *rest: rest, True),
        (lambda a, b, c=1: a, True),
        (Callable_(), True),
        (Callable_().__call__, True),
        (functools.partial(lambda x, a, ctx: a, 1), True),
        (functools.partial(lambda a, ctx: a, ctx=1), False),
        (functools.partial(lambda a, limit: a, limit=1), False),
        (len, False),
        (int, False),
        (print, True),
    ],
)
def test_what_a_handler_takes(handler, wants):
    """O-64: judged by its effective signature."""
    made = Tool(name="f", description="", schema={}, handler=handler)

    assert made.handler is handler
    if handler is not int:
        assert wants_context(handler) is wants


def test_a_callable_that_cannot_be_inspected_gets_one_argument():
    """O-64."""

    class Opaque:
        __signature__ = "nonsense"

        def __call__(self, arguments): ...

    assert Tool(name="f", description="", schema={}, handler=Opaque()).handler
    assert wants_context(Opaque()) is False


@pytest.mark.parametrize(
    "handler",
    [
        5,
        "f",
        lambda: None,
        lambda a, b, c: None,
        lambda *, a: None,
        lambda a, *, b: None,
        coroutine,
        AsyncCallable(),
        functools.partial(coroutine),
    ],
)
def test_impossible_handlers_are_refused_when_the_tool_is_built(handler):
    """O-64."""
    with pytest.raises(pydantic.ValidationError) as caught:
        Tool(name="f", description="", schema={}, handler=handler)

    assert caught.value.errors()[0]["loc"] == ("handler",)


def test_a_parameter_that_json_cannot_say_is_named():
    """C-17."""

    class Handle:
        pass

    def send(handle: Handle, text: str):
        """Send."""

    with pytest.raises(ValueError, match=r"no JSON schema .* of send \(handle: Handle, text: str\)"):
        tool(send)
