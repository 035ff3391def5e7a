"""Engines are values."""

import copy
import pickle
from dataclasses import dataclass
from typing import ClassVar

import pydantic
import pytest

from allm_actors.data import ModelRef, Tool
from allm_actors.engine import CallContext, Engine, Retry, ToolExecutor, ToolResultEncoder, set_catalog
from allm_actors.providers.fake import Fake


class Stored(Fake):
    provider: ClassVar[str] = (
        "stored"  # its own, for what is read back from JSON is the last class with a tag
    )


class Executor(ToolExecutor):
    def execute(self, tool, arguments, ctx):
        return None


class Encoder(ToolResultEncoder):
    def encode(self, value):
        return "x"


def tool(name, description=""):
    return Tool(name=name, description=description, schema={})


def test_everything_has_a_default():  # C-34
    engine = Engine()
    assert (engine.adapter, engine.model, engine.tools) == (None, None, [])
    assert (engine.tool_executor, engine.tool_result_encoder) == (None, None)
    assert (engine.params, engine.context, engine.metadata) == ({}, {}, {})
    assert engine.retry == Retry()
    assert Engine(retry=None).retry is None


def test_equal_arguments_make_equal_engines():  # C-34
    assert Engine(adapter=Fake(script=[("text", "a")]), model="m") == Engine(
        adapter=Fake(script=[("text", "a")]), model="m"
    )
    assert Engine(model="m") != Engine(model="n")
    with pytest.raises(pydantic.ValidationError):
        Engine().model = "m"


def test_a_class_stands_for_its_value_without_arguments():  # C-34
    assert Engine(adapter=Fake).adapter == Fake()
    adapter = Fake()
    assert Engine(adapter=adapter).adapter is adapter


@pytest.mark.parametrize("field", ["tool_executor", "tool_result_encoder"])
def test_executor_and_encoder_are_a_class_or_an_instance(field):  # C-34
    kind = {"tool_executor": Executor, "tool_result_encoder": Encoder}[field]
    instance = kind()
    assert getattr(Engine(**{field: kind}), field) is kind
    assert getattr(Engine(**{field: instance}), field) is instance
    for wrong in (Fake, Fake(), "x", len):
        with pytest.raises(pydantic.ValidationError):
            Engine(**{field: wrong})


@pytest.mark.parametrize(
    "fields",
    [
        {"adapter": "fake"},
        {"adapter": int},
        {"model": 3},
        {"tools": (1,)},
        {"params": {"x": {1}}},
        {"unknown": 1},
    ],
)
def test_wrong_types_fail_construction(fields):  # C-1, C-34
    with pytest.raises(pydantic.ValidationError):
        Engine(**fields)


def test_a_wrong_model_leads_to_the_field():  # C-2, C-34
    with pytest.raises(pydantic.ValidationError) as caught:
        Engine(model=3)
    assert [line["loc"] for line in caught.value.errors()] == [("model",)]


def test_json_and_pickle_give_an_equal_engine():  # C-84, C-87, C-88
    @dataclass
    class Row:
        n: int

    engine = Engine(
        adapter=Stored(
            scripts=[[("text", "a"), ("usage", {"input_tokens": 1})], [("error", "timeout")]], fail_first=1
        ),
        model=ModelRef(provider="p", id="m"),
        tools=[tool("t", "d")],
        params={"temperature": 0.5, "nested": {"a": [1, None]}},
        context={"plain": {"a": 1}},
        retry=Retry(max_attempts=7, retry_on=[503, "timeout"]),
        metadata={"k": "v"},
    )
    assert Engine.model_validate_json(engine.model_dump_json()) == engine
    assert pickle.loads(pickle.dumps(engine)) == engine
    assert copy.deepcopy(engine) == engine
    assert Engine.model_validate_json(Engine(retry=None).model_dump_json()).retry is None

    unwritable = Engine(
        tool_executor=Executor, tool_result_encoder=Encoder(), context={"row": Row(2), "f": len}
    )
    back = Engine.model_validate_json(unwritable.model_dump_json())
    assert (back.tool_executor, back.tool_result_encoder) == (None, None)
    assert back.context == {"row": {"n": 2}, "f": repr(len)}


def test_deriving_gives_new_engines_that_hold_the_same_adapter_value():  # C-37
    adapter = Fake()
    engine = Engine(adapter=adapter, tools=[tool("a")], params={"x": 1}, context={"c": 1})
    derived = [
        engine.put_tool(tool("a", "again")),
        engine.put_tools([tool("b"), tool("c")]),
        engine.put_param("y", 2),
        engine.put_context("d", 2),
        engine.with_model("m"),
        engine.merge(model="n", tools=[tool("a", "new"), tool("z")], params={"x": 9}, context={"e": 3}),
    ]
    assert all(each.adapter is adapter for each in derived)
    assert [each.name for each in derived[0].tools] == ["a", "a"], "names are not looked at"
    assert [each.name for each in derived[1].tools] == ["a", "b", "c"]
    assert (derived[2].params, derived[3].context, derived[4].model) == (
        {"x": 1, "y": 2},
        {"c": 1, "d": 2},
        "m",
    )
    merged = derived[5]
    assert (merged.model, merged.params, merged.context) == ("n", {"x": 9}, {"c": 1, "e": 3})
    assert [(each.name, each.description) for each in merged.tools] == [("a", "new"), ("z", "")]
    assert engine == Engine(adapter=adapter, tools=[tool("a")], params={"x": 1}, context={"c": 1})
    assert engine.merge() == engine


def test_derived_engines_are_checked():  # C-37
    with pytest.raises(pydantic.ValidationError):
        Engine().put_param("x", object())
    with pytest.raises(pydantic.ValidationError):
        Engine().put_tool("no tool")
    with pytest.raises(pydantic.ValidationError):
        Engine().with_model(3)


def test_the_model_is_the_argument_else_the_engines():  # C-38
    ref = ModelRef(provider="p", id="m")
    assert Engine().resolve_model() is None
    assert Engine(model="a").resolve_model() == "a"
    assert Engine(model="a").resolve_model("b") == "b"
    assert Engine(model="a").resolve_model(ref) is ref


def test_with_a_catalog_the_model_is_looked_up():  # C-38
    ref = ModelRef(provider="p", id="known")

    class Catalog:
        def lookup(self, model):
            return ref if model == "known" else None

    set_catalog(Catalog())
    try:
        assert Engine(model="known").resolve_model() is ref
        assert Engine(model="known").resolve_model("other") == "other"
    finally:
        set_catalog(None)


def test_tools_are_replaced_in_place_and_new_ones_come_last():  # C-39
    engine = Engine(tools=[tool("a"), tool("b"), tool("c")])
    given = [tool("new"), tool("b", "given"), tool("newer")]
    assert [(each.name, each.description) for each in engine.resolve_tools(given)] == [
        ("a", ""),
        ("b", "given"),
        ("c", ""),
        ("new", ""),
        ("newer", ""),
    ]
    assert engine.resolve_tools() == engine.resolve_tools([]) == engine.tools


@pytest.mark.parametrize("model", [Engine, Fake, Retry, CallContext])
def test_values_describe_their_json(model):  # C-84
    schema = model.model_json_schema()
    assert schema["type"] == "object"
    assert (
        not {"tool_executor", "tool_result_encoder", "on_request", "on_cleanup"} & schema["properties"].keys()
    )
