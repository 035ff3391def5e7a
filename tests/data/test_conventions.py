"""Models: strict, frozen, JSON all through, comparable, picklable."""

import copy
import json
import math
import pickle
import subprocess
import sys
from datetime import date

import pydantic
import pytest
from pydantic import TypeAdapter

from allm_actors import data
from allm_actors.data import (
    Image,
    ImagePart,
    Message,
    ModelRef,
    OtherHalt,
    PromptCache,
    Request,
    Response,
    StepResult,
    TextPart,
    Thread,
    Tool,
    ToolCall,
    Usage,
    user,
)
from allm_actors.data.base import Model, Seconds
from allm_actors.errors import AdapterError, ValidationError

SECTION_2 = [
    data.Message,
    data.TextPart,
    data.ImagePart,
    data.Image,
    data.BinarySource,
    data.Base64Source,
    data.UrlSource,
    data.FileSource,
    data.ToolCall,
    data.Tool,
    data.Request,
    data.Response,
    data.Thread,
    data.StepResult,
    data.ChatResult,
    data.OtherHalt,
]


def where(error: pytest.ExceptionInfo[pydantic.ValidationError]) -> list[tuple]:
    return [line["loc"] for line in error.value.errors()]


@pytest.mark.parametrize(
    ("build", "loc"),
    [
        (lambda: Request(messages=[], max_tokens="1"), ("max_tokens",)),
        (lambda: Request(messages=[], max_tokens=True), ("max_tokens",)),
        (lambda: Request(messages=[], max_tokens=1.0), ("max_tokens",)),
        (lambda: Request(messages=[], temperature=True), ("temperature",)),
        (lambda: Request(messages=[], temperature="0.5"), ("temperature",)),
        (lambda: Request(messages=()), ("messages",)),
        (lambda: Request(messages=[], structured_finalize=1), ("structured_finalize",)),
        (lambda: Request(messages=[], nonsense=1), ("nonsense",)),
        (lambda: Request(messages=[], model=5), ("model",)),
        (lambda: Request(messages=[], tool_choice=["x"]), ("tool_choice",)),
        (lambda: Request(messages=[{"role": "user"}]), ("messages", 0, "content")),
        (lambda: Request(messages=[{"role": "boss", "content": ""}]), ("messages", 0, "role")),
        (lambda: Message(role="user", content=b"x"), ("content",)),
        (lambda: Message(role="user", content=["x"]), ("content", 0)),
        (lambda: Message(role="user", content=[{"type": "text", "text": 1}]), ("content", 0, "text")),
        (lambda: Message(role="user", content=[{"type": "sound"}]), ("content", 0)),
        (lambda: Request(messages=[], model={"provider": "x", "id": 1}), ("model", "id")),
        (lambda: Usage(input_tokens=-1), ("input_tokens",)),
        (lambda: Usage(input_cost=math.nan), ("input_cost",)),
        (
            lambda: ImagePart(image={"source": {"type": "binary", "value": "text"}}),
            ("image", "source", "value"),
        ),
    ],
)
def test_models_are_strict_and_say_where(build, loc):
    """C-1, C-2: nothing is converted silently, and the path of the error leads to the value."""
    with pytest.raises(pydantic.ValidationError) as caught:
        build()

    assert where(caught) == [loc]
    assert isinstance(caught.value, ValueError)
    assert not isinstance(caught.value, ValidationError)


def test_an_int_where_a_float_is_declared_becomes_one():
    """C-1: the one conversion there is."""
    request = Request(messages=[], temperature=1)

    assert type(request.temperature) is float
    assert request.temperature == 1.0


def test_a_dict_of_its_fields_stands_for_a_model():
    """C-1: nested models can be written as dicts."""
    request = Request(
        messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        model={"provider": "openai", "id": "gpt-5"},
        prompt_cache={"key": "k"},
    )

    assert request.messages == [Message(role="user", content=[TextPart(text="hi")])]
    assert request.model == ModelRef(provider="openai", id="gpt-5")
    assert request.prompt_cache == PromptCache(key="k", retention="short")


@pytest.mark.parametrize(
    "build",
    [
        lambda: Request(messages=[], temperature=99.0, max_tokens=-1, response_format="nonsense"),
        lambda: Request(messages=[], temperature=math.inf),
        lambda: Request(messages=[], temperature=math.nan),
        lambda: Request(messages=[], structured_finalize=True, options={"api_key": "x"}),
        lambda: Message(role="tool", content=""),
        lambda: Tool(name="", description="", schema={}),
        lambda: Tool(name="no spaces allowed", description="", schema={"type": "nonsense"}),
    ],
)
def test_construction_does_not_judge_meaning(build):
    """C-3: what `validate` judges can always be built."""
    build()


def test_attributes_cannot_be_reassigned():
    """C-4: models are frozen."""
    with pytest.raises(pydantic.ValidationError):
        user("hi").content = "ho"


def test_containers_are_copied_at_construction():
    """C-4: what the caller does to its own lists and dicts afterwards does not reach the model."""
    messages, options, tools, metadata = [user("a")], {"seed": 1}, [], {"k": "v"}
    request = Request(messages=messages, options=options, tools=tools, metadata=metadata)

    messages.clear()
    options["seed"] = 2
    tools.append(None)
    metadata.clear()

    assert request.messages == [user("a")]
    assert request.options == {"seed": 1}
    assert request.tools == []
    assert request.metadata == {"k": "v"}


def test_default_containers_are_not_shared():
    """C-4: two models never hold the same default list or dict."""
    first, second = user("a"), user("a")

    assert first.metadata is not second.metadata
    assert first.tool_calls is not second.tool_calls


EXAMPLES = [
    user("hi"),
    Message(
        role="user",
        content=[TextPart(text="a"), ImagePart(image=Image.from_binary(b"\x00\xff", "image/png"))],
    ),
    ToolCall(id="1", name="f", arguments={"a": [1, None, {"b": 2.5}]}, raw_arguments="{}"),
    Tool(name="f", description="d", schema={"type": "object"}, handler=len, strict=True),
    Usage(input_tokens=1, input_cost=math.inf, extra={"x": 1}),
    Request(messages=[user("hi")], temperature=0.5, model="m", tool_choice={"type": "any"}),
    Response(error=AdapterError("timeout", provider="x"), usage=Usage(total_tokens=3), raw=[1]),
    Thread(messages=[user("a")], metadata={"id": 1}),
    StepResult(
        halt_result={1, 2},
        error=AdapterError("unknown"),
        other_halts=[OtherHalt(tool_call_id="1", halted_reason="x")],
    ),
]


@pytest.mark.parametrize("model", EXAMPLES, ids=lambda model: type(model).__name__)
def test_models_compare_by_value_pickle_and_copy(model):
    """C-5: whatever way a model is copied, it comes out equal."""
    again = type(model)(**dict(model))

    assert again == model
    assert pickle.loads(pickle.dumps(model)) == model
    assert copy.copy(model) == model
    assert copy.deepcopy(model) == model
    assert model != user("something else")


def test_importing_emits_no_warning_and_stays_light():
    """C-5: also with warnings as errors; and data brings neither HTTP nor actors with it."""
    code = (
        "import sys, allm_actors, allm_actors.events, allm_actors.validate, allm_actors.errors, allm_actors.data\n"
        "from allm_actors.data import Tool; assert 'schema' in Tool.model_fields\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")

    code = "import sys, allm_actors.data; print(*(sys.modules.keys() & {'requests', 'pykka', 'urllib3', 'structlog'}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout.strip() == ""


@pytest.mark.parametrize(
    ("value", "loc"),
    [
        ({"a": (1, 2)}, ("a",)),
        ({"a": [0, b"x"]}, ("a", 1)),
        ({"a": {"b": date(2026, 1, 1)}}, ("a", "b")),
        ({"a": object()}, ("a",)),
        ({"a": math.nan}, ("a",)),
        ({"a": [math.inf]}, ("a", 0)),
        ({1: "x"}, (1,)),
        ({"a": "\ud800"}, ("a",)),
        ({"a": 10**5000}, ("a",)),
        ({"a": {1, 2}}, ("a",)),
        ({"a": user("hi")}, ("a",)),
    ],
    ids=lambda value: type(next(iter(value.values()))).__name__ if isinstance(value, dict) else "-",
)
@pytest.mark.parametrize("field", ["metadata", "options", "arguments", "provider_data", "schema"])
def test_json_fields_take_json_only_and_say_where_it_is_not(field, value, loc):
    """C-6: what could not be stored and read back fails where it was put in."""
    build = {
        "metadata": lambda: Message(role="user", content="", metadata=value),
        "options": lambda: Request(messages=[], options=value),
        "arguments": lambda: ToolCall(id="1", name="f", arguments=value),
        "provider_data": lambda: Response(provider_data=value),
        "schema": lambda: Tool(name="f", description="", schema=value),
    }[field]
    with pytest.raises(pydantic.ValidationError) as caught:
        build()

    assert where(caught) == [(field, *loc)]


def test_all_offending_json_values_are_listed():
    """C-6: one look at the error shows every place."""
    with pytest.raises(pydantic.ValidationError) as caught:
        Request(messages=[], options={"a": {1}, "b": [1, b""], "c": 1}, metadata={"d": math.nan})

    assert where(caught) == [("options", "a"), ("options", "b", 1), ("metadata", "d")]


@pytest.mark.parametrize("value", [[], "x", None, 1, user("x")])
def test_a_json_field_is_a_dict(value):
    """C-6."""
    with pytest.raises(pydantic.ValidationError) as caught:
        Request(messages=[], options=value)

    assert where(caught) == [("options",)]


def test_endless_nesting_is_refused_not_crashed_on():
    """C-6: a value that contains itself cannot be stored."""
    loop: dict = {}
    loop["again"] = loop

    with pytest.raises(pydantic.ValidationError):
        Request(messages=[], options=loop)


def test_metadata_is_on_every_model_but_usage():
    """C-6: and `provider_data` on those an adapter writes to."""
    assert [kind.__name__ for kind in SECTION_2 if "metadata" not in kind.model_fields] == []
    assert "metadata" not in Usage.model_fields
    holders = [data.Message, data.ToolCall, data.Response, data.ToolCallCompleted, data.MessageCompleted]
    assert [kind.__name__ for kind in holders if "provider_data" not in kind.model_fields] == []
    assert all(
        kind.model_fields["metadata"].get_default(call_default_factory=True) == {} for kind in SECTION_2
    )


class Limit(Model):
    seconds: Seconds = 1.0


def test_times_are_seconds():
    """C-7: a positive number, or infinity."""
    assert Limit(seconds=2).seconds == 2.0
    assert Limit(seconds=math.inf).seconds == math.inf
    assert Limit.model_validate_json(Limit(seconds=math.inf).model_dump_json()) == Limit(seconds=math.inf)

    for bad in (0, -1, True, "1", math.nan, None):
        with pytest.raises(pydantic.ValidationError):
            Limit(seconds=bad)


def test_json_parsers_cannot_smuggle_in_what_construction_refuses():
    """C-6, C-84: the JSON of this library is JSON."""
    for token in ("NaN", "Infinity", "-Infinity"):
        text = f'{{"messages": [], "options": {{"a": [{token}]}}}}'
        assert json.loads(text)  # a lenient parser takes it

        with pytest.raises(pydantic.ValidationError) as caught:
            Request.model_validate_json(text)

        assert where(caught) == [("options", "a", 0)]


@pytest.mark.parametrize("kind", [*SECTION_2, Usage, ModelRef, PromptCache], ids=lambda kind: kind.__name__)
def test_every_model_has_a_json_schema(kind):
    """C-84: what stores or serves these models can describe them."""
    schema = kind.model_json_schema()

    assert schema["type"] == "object"
    assert "handler" not in schema["properties"]
    for mode in ("validation", "serialization"):
        assert TypeAdapter(data.Event).json_schema(mode=mode)["discriminator"]["propertyName"] == "type"
