"""The 16 events, and JSON both ways."""

import dataclasses
import json
import math
import pickle
import typing

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, TypeAdapter

from allm_actors import events
from allm_actors.data import (
    EVENT_TYPES,
    AskUserRequested,
    ChatCompleted,
    ChatResult,
    ErrorEvent,
    Event,
    MessageCompleted,
    MessageStarted,
    RawChunk,
    Request,
    Response,
    StepCompleted,
    StepResult,
    TextCompleted,
    TextDelta,
    Thread,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionCompleted,
    ToolExecutionStarted,
    ToolHalt,
    ToolResultEncoded,
    Usage,
    assistant,
    is_event,
    user,
)
from allm_actors.data.base import Model, Opaque
from allm_actors.errors import AdapterError, ToolError
from tests.data import strategies as make

ANY_EVENT = TypeAdapter(Event)
EXAMPLES = {
    "message_started": MessageStarted(message=assistant("")),
    "text_delta": TextDelta(id=None, delta="a"),
    "text_completed": TextCompleted(id="t", text="ab"),
    "tool_call_started": ToolCallStarted(id="1", name="f"),
    "tool_call_delta": ToolCallDelta(id="1", arguments_delta="{"),
    "tool_call_completed": ToolCallCompleted(id="1", name="f", arguments={}, raw_arguments="{}"),
    "message_completed": MessageCompleted(message=assistant("ab")),
    "raw_chunk": RawChunk(payload={"a": 1}),
    "error": ErrorEvent(error=AdapterError("timeout")),
    "tool_execution_started": ToolExecutionStarted(id="1", name="f", arguments={}),
    "tool_execution_completed": ToolExecutionCompleted(id="1", name="f", result=None),
    "tool_result_encoded": ToolResultEncoded(id="1", content="r"),
    "ask_user_requested": AskUserRequested(tool_call_id="1", tool_name="f", question="?"),
    "tool_halt": ToolHalt(tool_call_id="1", reason="mine", result=None),
    "step_completed": StepCompleted(response=Response(), thread=Thread()),
    "chat_completed": ChatCompleted(result=ChatResult()),
}


def test_the_set_is_closed():
    """C-25: sixteen types, each of one class, all in the module of events."""
    assert len(EVENT_TYPES) == 16
    assert list(EVENT_TYPES) == list(EXAMPLES)
    classes = typing.get_args(typing.get_args(Event)[0])
    assert [type(event) for event in EXAMPLES.values()] == list(classes)
    assert all(getattr(events, kind.__name__) is kind for kind in classes)
    assert set(events.__all__) == {kind.__name__ for kind in classes} | {"EVENT_TYPES", "Event", "is_event"}


@pytest.mark.parametrize("tag", EXAMPLES)
def test_each_event_is_a_frozen_model_with_its_type(tag):
    """C-25."""
    event = EXAMPLES[tag]

    assert event.type == tag
    assert is_event(event)
    with pytest.raises(pydantic.ValidationError):
        event.type = "other"
    with pytest.raises(pydantic.ValidationError):
        type(event)(**{**dict(event), "type": "other"})
    with pytest.raises(pydantic.ValidationError):
        type(event)(**{**dict(event), "more": 1})


def test_events_without_containers_hash():
    """C-5: equal events are one member of a set."""
    assert (
        len({TextDelta(id=None, delta="a"), TextDelta(id=None, delta="a"), TextDelta(id="1", delta="a")}) == 2
    )


def test_other_things_are_no_events():
    """C-25: not the class, not a look-alike, not the JSON form."""

    class Fake(Model):
        type: typing.Literal["text_delta"] = "text_delta"
        id: None = None
        delta: str = "a"

    for thing in (
        None,
        "text_delta",
        TextDelta,
        Fake(),
        EXAMPLES["text_delta"].model_dump(),
        assistant("a"),
        Usage(),
        object(),
    ):
        assert not is_event(thing)


def test_events_are_told_apart_by_type():
    """C-25: the union reads any of them."""
    for event in EXAMPLES.values():
        assert ANY_EVENT.validate_json(ANY_EVENT.dump_json(event)) == event
        assert type(ANY_EVENT.validate_python(event.model_dump())) is type(event)
    for bad in ({"type": "nonsense"}, {"delta": "a"}, {"type": "text_delta", "delta": "a"}, []):
        with pytest.raises(pydantic.ValidationError):
            ANY_EVENT.validate_python(bad)


@pytest.mark.parametrize(
    "build",
    [
        lambda: TextDelta(delta="a"),
        lambda: TextDelta(id=None, delta=None),
        lambda: TextDelta(id=1, delta="a"),
        lambda: TextCompleted(id=None, text=b""),
        lambda: ToolCallStarted(id="1", name=None),
        lambda: ToolCallDelta(id="1", arguments_delta={}),
        lambda: ToolCallCompleted(id="1", name="f", arguments="{}", raw_arguments="{}"),
        lambda: ToolCallCompleted(id="1", name="f", arguments={}),
        lambda: MessageCompleted(message="text"),
        lambda: MessageCompleted(message=assistant(""), finish_reason="done"),
        MessageCompleted,
        lambda: ErrorEvent(error=ValueError("x")),
        lambda: StepCompleted(response=None, thread=Thread()),
        lambda: ChatCompleted(result=StepResult()),
        lambda: ToolHalt(tool_call_id="1", reason="x", result=None, error=AdapterError("timeout")),
    ],
)
def test_a_bad_event_fails_where_it_is_built(build):
    """C-25."""
    with pytest.raises(pydantic.ValidationError):
        build()


def test_optional_fields_of_events():
    """C-25: as in its table."""
    completed = EXAMPLES["message_completed"]
    assert {name: value for name, value in dict(completed).items() if name not in {"type", "message"}} == {
        "finish_reason": None,
        "raw_finish_reason": None,
        "response_id": None,
        "model": None,
        "usage": None,
        "reasoning": None,
        "refusal": None,
        "provider_data": {},
    }
    assert EXAMPLES["raw_chunk"].kind == "provider"
    assert EXAMPLES["ask_user_requested"].options == {}
    assert (EXAMPLES["tool_halt"].content, EXAMPLES["tool_halt"].error) == (None, None)
    assert (EXAMPLES["step_completed"].mode, EXAMPLES["step_completed"].manual_tool_calls) == ("auto", [])


def test_a_usage_chunk_carries_a_usage_and_others_json():
    """C-25: and come back from JSON as they were."""
    chunk = RawChunk(kind="usage", payload=Usage(input_tokens=1, input_cost=math.inf))
    assert RawChunk.model_validate_json(chunk.model_dump_json()) == chunk
    assert RawChunk(kind="usage", payload={"input_tokens": 1}).payload == Usage(input_tokens=1)

    for kind, payload in [
        ("usage", {"tokens": 1}),
        ("usage", "x"),
        ("usage", None),
        ("provider", Usage()),
        ("provider", object()),
        ("x", {"a": math.nan}),
        ("x", (1,)),
    ]:
        with pytest.raises(pydantic.ValidationError) as caught:
            RawChunk(kind=kind, payload=payload)
        assert caught.value.errors()[0]["loc"][0] == "payload"


@given(make.events)
@settings(max_examples=100, deadline=None)
def test_every_event_comes_back_from_json_equal(event):
    """C-84."""
    text = event.model_dump_json()

    assert type(event).model_validate_json(text) == event
    assert ANY_EVENT.validate_json(text) == event
    assert pickle.loads(pickle.dumps(event)) == event


@given(
    st.one_of(
        make.requests,
        make.responses,
        make.threads,
        make.step_results,
        make.chat_results,
        make.images,
        make.usages,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_model_comes_back_from_json_equal(model):
    """C-84, C-86: and the text is strict JSON."""
    text = model.model_dump_json()

    assert type(model).model_validate_json(text) == model
    json.loads(text, parse_constant=lambda token: pytest.fail(f"{token} is not JSON"))
    assert pickle.loads(pickle.dumps(model)) == model


@given(st.lists(make.events, max_size=3))
@settings(max_examples=30, deadline=None)
def test_lists_of_events_come_back_from_json_equal(stream):
    """C-84: pydantic's own adapters work for lists and unions."""
    adapter = TypeAdapter(list[Event])

    assert adapter.validate_json(adapter.dump_json(stream)) == stream


@pytest.mark.parametrize(
    ("kind", "text", "locs"),
    [
        (Request, "{}", [("messages",)]),
        (
            Request,
            '{"messages": [], "max_tokens": "1", "more": 1, "temperature": NaN}',
            [("temperature",), ("max_tokens",), ("more",)],
        ),
        (
            Request,
            '{"messages": [{"role": "user", "content": 1}, {"content": ""}]}',
            [("messages", 0, "content"), ("messages", 1, "role")],
        ),
        (Request, '{"messages": {}}', [("messages",)]),
        (
            Usage,
            '{"input_tokens": 1.0, "input_cost": NaN, "extra": {"a": Infinity}}',
            [("input_tokens",), ("input_cost",), ("extra", "a")],
        ),
        (
            Response,
            '{"raw": NaN, "error": {"kind": "adapter", "reason": "x"}}',
            [("error", "reason"), ("raw",)],
        ),
        (StepResult, '{"error": {"kind": "x"}, "done": 1}', [("done",), ("error", "kind")]),
        (TextDelta, '{"delta": 1}', [("id",), ("delta",)]),
    ],
)
def test_decoding_is_as_strict_as_construction(kind, text, locs):
    """C-84: all problems at once, each with its path."""
    with pytest.raises(pydantic.ValidationError) as caught:
        kind.model_validate_json(text)

    assert [line["loc"] for line in caught.value.errors()] == locs


def test_infinity_in_a_float_field():
    """C-86: written as a string, read back as infinity; no other string is a number."""
    for value in (math.inf, -math.inf):
        usage = Usage(total_cost=value)
        assert json.loads(usage.model_dump_json())["total_cost"] == ("Infinity" if value > 0 else "-Infinity")
        assert Usage.model_validate_json(usage.model_dump_json()) == usage
    for bad in ("1", "NaN", "inf", "Infinity "):
        with pytest.raises(pydantic.ValidationError):
            Usage.model_validate_json(json.dumps({"total_cost": bad}))
    with pytest.raises(pydantic.ValidationError):
        Usage(total_cost="Infinity")


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


class Holder(Model):
    value: Opaque = None
    values: dict[str, Opaque] = {}


class Grumpy:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Surrogate:
    def __repr__(self) -> str:
        return "\ud800"


class Broken(Model):
    @pydantic.model_serializer
    def written(self):
        raise RuntimeError("no")


LOOP: list = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None),
        ({"a": [1, 2.5, "é", True]}, {"a": [1, 2.5, "é", True]}),
        ((1, (2,)), [1, [2]]),
        (user("hi"), json.loads(user("hi").model_dump_json())),
        ([Usage(input_tokens=1)], [json.loads(Usage(input_tokens=1).model_dump_json())]),
        (Point(1, [user("x")]), {"x": 1, "y": [json.loads(user("x").model_dump_json())]}),
        (ToolError("timeout"), ToolError("timeout").to_dict()),
        ({"error": AdapterError("timeout")}, {"error": AdapterError("timeout").to_dict()}),
    ],
)
def test_any_object_is_written_as_json_if_all_of_it_can_be(value, written):
    """C-88: and comes back as that JSON."""
    for event in (
        ToolExecutionCompleted(id="1", name="f", result=value),
        ToolHalt(tool_call_id="1", reason="x", result=value),
    ):
        text = event.model_dump_json()
        assert json.loads(text)["result"] == written
        assert type(event).model_validate_json(text).result == written
        assert event.result is value
    for result in (StepResult(halt_result=value), ChatResult(halt_result=value)):
        assert type(result).model_validate_json(result.model_dump_json()).halt_result == written


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        {1: 2},
        math.nan,
        [1, math.inf],
        [user("hi"), object()],
        Point(1, object()),
        Point,
        SecretStr("canary"),
        LOOP,
        ValueError("x"),
        "\ud800",
        Broken(),
        lambda: None,
    ],
    ids=repr,
)
def test_other_objects_are_written_as_their_repr(value):
    """C-88: the whole of it, for half an object would pass for the object. Writing never fails."""
    event = ToolExecutionCompleted(id="1", name="f", result=value)

    assert json.loads(event.model_dump_json())["result"] == repr(value)
    assert "canary" not in event.model_dump_json()


@pytest.mark.parametrize(
    "value", [Grumpy(), Surrogate(), [Grumpy()], 10**5000], ids=["raises", "surrogate", "inner", "huge"]
)
def test_writing_never_fails(value):
    """C-88: not even for what has no usable `repr`."""
    event = ToolHalt(tool_call_id="1", reason="x", result=value)

    assert isinstance(json.loads(event.model_dump_json())["result"], str)


def test_objects_are_written_per_key():
    """C-88: one that cannot be written does not spoil its neighbours."""
    holder = Holder(values={"a": 1, "b": {1}})

    assert json.loads(holder.model_dump_json())["values"] == {"a": 1, "b": "{1}"}
    assert holder.model_dump()["values"] == {"a": 1, "b": {1}}


def test_no_key_is_in_the_output():
    """C-33, C-90: what holds a key is a `SecretStr`, and no field takes one for text."""
    key = SecretStr("sk-canary-0123456789abcdefghij")

    for build in (
        lambda: Request(messages=[], options={"x": key}),
        lambda: Response(metadata={"x": key}),
        lambda: ToolCall(id=key, name="f", arguments={}),
        lambda: TextDelta(id=None, delta=key),
        lambda: RawChunk(payload=key),
    ):
        with pytest.raises(pydantic.ValidationError) as caught:
            build()
        assert "canary" not in str(caught.value)
        assert "canary" not in repr(caught.value.errors())
