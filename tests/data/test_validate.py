"""Validation of meaning: exact reasons, exact paths, exact order."""

import copy
import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allm_actors import validate
from allm_actors.data import (
    Image,
    ImagePart,
    Message,
    Request,
    TextPart,
    Thread,
    Tool,
    ToolCall,
    json_schema,
    tool_result,
    user,
)
from allm_actors.errors import AdapterError, ValidationError
from tests.data import strategies as make


def problems(check, value):
    """The reason and the problems a check finds, `None` if it finds none."""
    found = None
    try:
        check(value)
    except ValidationError as error:
        found = error
    return found and (found.reason, [(problem.path, problem.reason) for problem in found.errors])


def request(**fields):
    return Request(**{"messages": [user("hi")], **fields})


def a_tool(**fields):
    return Tool(**{"name": "f", "description": "d", "schema": {}, **fields})


NO_ID = Message(role="tool", content="x")
BAD_PART = Message.model_construct(role="user", content=[TextPart(text="a"), 5, "x"])


def test_good_data_passes():
    """C-81: each function returns `None`."""
    image = ImagePart(image=Image.from_url("u"))
    good = request(
        tools=[a_tool(name="A_b-9" * 4), a_tool(name="x" * 64)],
        temperature=2.0,
        max_tokens=1,
        response_format=json_schema("n", {}),
        structured_finalize=True,
        options={"seed": 1, "nested": {"api_key": "x"}},
    )
    assert validate.request(good) is None
    assert validate.message(Message(role="user", content=[TextPart(text=""), image])) is None
    assert validate.message(tool_result("1", "")) is None
    assert validate.tool(a_tool()) is None
    assert validate.thread(Thread()) is None
    assert validate.session(SimpleNamespace(status="idle", thread=Thread())) is None
    for temperature in (0, 0.0, 1, None):
        assert validate.request(request(temperature=temperature)) is None
    for response_format in (None, "text", {}, {"type": "anything"}):
        assert validate.request(request(response_format=response_format)) is None


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"messages": []}, (("messages",), "empty")),
        ({"messages": [user("a"), NO_ID]}, (("messages", 1, "tool_call_id"), "required")),
        ({"tools": [a_tool(), a_tool(name="")]}, (("tools", 1, "name"), "empty")),
        (
            {"tools": [a_tool(), a_tool(), a_tool(), a_tool(name="g"), a_tool(name="g")]},
            (("tools",), "duplicate_name"),
        ),
        ({"temperature": 2.1}, (("temperature",), "out_of_range")),
        ({"temperature": -0.1}, (("temperature",), "out_of_range")),
        ({"temperature": math.inf}, (("temperature",), "out_of_range")),
        ({"temperature": math.nan}, (("temperature",), "out_of_range")),
        ({"max_tokens": 0}, (("max_tokens",), "must_be_positive")),
        ({"max_tokens": -1}, (("max_tokens",), "must_be_positive")),
        ({"response_format": "json"}, (("response_format",), "invalid_shape")),
        ({"response_format": ""}, (("response_format",), "invalid_shape")),
        ({"structured_finalize": True}, (("structured_finalize",), "requires_json_schema")),
        (
            {"structured_finalize": True, "response_format": {"type": "json_object"}},
            (("structured_finalize",), "requires_json_schema"),
        ),
        (
            {"structured_finalize": True, "response_format": "text"},
            (("structured_finalize",), "requires_json_schema"),
        ),
        ({"options": {"api_key": "x"}}, (("options", "api_key"), "reserved_key")),
    ],
)
def test_one_problem_of_a_request(fields, found):
    """C-81."""
    assert problems(validate.request, request(**fields)) == ("invalid_request", [found])


def test_all_problems_of_a_request_in_order():
    """C-81: messages, tools, then the fields in the order of the rule."""
    bad = request(
        messages=[NO_ID, user("x"), NO_ID],
        tools=[a_tool(name="no good"), a_tool(name="auto"), a_tool(name="auto")],
        temperature=3,
        max_tokens=0,
        response_format="json",
        structured_finalize=True,
        options={"api_key": "x"},
    )

    assert problems(validate.request, bad) == (
        "invalid_request",
        [
            (("messages", 0, "tool_call_id"), "required"),
            (("messages", 2, "tool_call_id"), "required"),
            (("tools", 0, "name"), "invalid_format"),
            (("tools", 1, "name"), "reserved_tool_name"),
            (("tools", 2, "name"), "reserved_tool_name"),
            (("tools",), "duplicate_name"),
            (("temperature",), "out_of_range"),
            (("max_tokens",), "must_be_positive"),
            (("response_format",), "invalid_shape"),
            (("structured_finalize",), "requires_json_schema"),
            (("options", "api_key"), "reserved_key"),
        ],
    )


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"role": "boss"}, [(("role",), "unknown")]),
        ({"role": None}, [(("role",), "unknown")]),
        ({"role": ["user"]}, [(("role",), "unknown")]),
        ({"content": 5}, [(("content",), "invalid_type")]),
        ({"content": None}, [(("content",), "invalid_type")]),
        ({"content": ("a",)}, [(("content",), "invalid_type")]),
        ({"content": ["a"]}, [(("content",), "invalid_part_type")]),
        ({"role": "tool"}, [(("tool_call_id",), "required")]),
        ({"role": "tool", "tool_call_id": ""}, [(("tool_call_id",), "required")]),
        (
            {"role": "x", "content": 5},
            [(("role",), "unknown"), (("content",), "invalid_type")],
        ),
    ],
)
def test_problems_of_a_message(fields, found):
    """C-81."""
    bad = Message(role="user", content="").model_copy(update=fields)

    assert problems(validate.message, bad) == ("invalid_message", found)


def test_an_invalid_part_says_what_was_found():
    """C-83: in metadata and in words; the first offender counts."""
    for check, value in [
        (validate.message, BAD_PART),
        (validate.thread, Thread.model_construct(messages=[user("a"), BAD_PART])),
        (validate.request, Request.model_construct(messages=[BAD_PART])),
    ]:
        with pytest.raises(ValidationError) as caught:
            check(value)
        assert caught.value.metadata == {
            "invalid_part_type": {"expected": ["TextPart", "ImagePart"], "got": "int"}
        }
        assert all(word in str(caught.value) for word in ("TextPart", "ImagePart", "int"))
    with pytest.raises(ValidationError) as caught:
        validate.message(NO_ID)
    assert caught.value.metadata == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("auto", "reserved_tool_name"),
        ("none", "reserved_tool_name"),
        ("required", "reserved_tool_name"),
        ("a b", "invalid_format"),
        ("a\n", "invalid_format"),
        ("\n", "invalid_format"),
        ("é", "invalid_format"),
        ("a.b", "invalid_format"),
        ("x" * 65, "invalid_format"),
        (5, "invalid_format"),
        (None, "invalid_format"),
        (["auto"], "invalid_format"),
    ],
)
def test_tool_names(name, reason):
    """C-81, C-82: the whole name must match."""
    bad = a_tool().model_copy(update={"name": name})

    assert problems(validate.tool, bad) == ("invalid_tool", [(("name",), reason)])


def test_all_problems_of_a_tool_in_order():
    """C-81."""
    bad = Tool.model_construct(name="", description=None, schema=[], summary=5)

    assert problems(validate.tool, bad) == (
        "invalid_tool",
        [
            (("name",), "empty"),
            (("description",), "not_a_string"),
            (("schema",), "not_a_map"),
            (("summary",), "not_a_string"),
        ],
    )


def test_threads():
    """C-81: messages with their place; an empty thread is fine."""
    bad = Thread(messages=[NO_ID, user("a"), NO_ID])

    assert problems(validate.thread, bad) == (
        "invalid_thread",
        [(("messages", 0, "tool_call_id"), "required"), (("messages", 2, "tool_call_id"), "required")],
    )


def session(**fields):
    empty = {
        "status": "idle",
        "thread": Thread(),
        "pending_question": None,
        "pending_tool_calls": [],
        "error": None,
    }
    return SimpleNamespace(**{**empty, **fields})


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"status": "busy"}, [(("status",), "unknown")]),
        ({"status": None}, [(("status",), "unknown")]),
        ({"status": ["idle"]}, [(("status",), "unknown")]),
        ({"status": "awaiting_user"}, [(("pending_question",), "required_for_status")]),
        (
            {"status": "awaiting_user", "pending_question": ""},
            [(("pending_question",), "required_for_status")],
        ),
        ({"status": "awaiting_tools"}, [(("pending_tool_calls",), "required_for_status")]),
        ({"status": "error"}, [(("error",), "required_for_status")]),
        (
            {"status": "error", "thread": Thread(messages=[user("a"), NO_ID])},
            [(("error",), "required_for_status"), (("thread", "messages", 1, "tool_call_id"), "required")],
        ),
        ({"thread": None}, [(("thread",), "invalid_type")]),
    ],
)
def test_problems_of_a_session(fields, found):
    """C-81: by attributes, whatever the class."""
    assert problems(validate.session, session(**fields)) == ("invalid_session", found)


def test_good_sessions():
    """C-81."""
    for fields in (
        {"status": "completed"},
        {"status": "awaiting_user", "pending_question": "?"},
        {"status": "awaiting_tools", "pending_tool_calls": [ToolCall(id="1", name="f", arguments={})]},
        {"status": "error", "error": AdapterError("timeout")},
    ):
        assert validate.session(session(**fields)) is None


def test_booleans_are_not_numbers():
    """C-82."""
    bad = request().model_copy(update={"temperature": True, "max_tokens": True})

    assert problems(validate.request, bad) == (
        "invalid_request",
        [(("temperature",), "out_of_range"), (("max_tokens",), "must_be_positive")],
    )


def test_what_is_not_judged():
    """C-82: a tool's schema, unknown formats, the text of parts."""
    assert validate.tool(a_tool(schema={"type": 5, "nonsense": [1]})) is None
    assert validate.request(request(response_format={"type": 7, "x": []})) is None
    assert validate.message(Message(role="user", content=[TextPart(text="")])) is None


@pytest.mark.parametrize(
    ("update", "found"),
    [
        ({"messages": "hi"}, [(("messages",), "invalid_type")]),
        ({"messages": [5]}, [(("messages", 0), "invalid_type")]),
        ({"messages": ()}, [(("messages",), "invalid_type")]),
        ({"messages": None}, [(("messages",), "invalid_type")]),
        ({"tools": None}, [(("tools",), "invalid_type")]),
        ({"tools": [{}]}, [(("tools", 0), "invalid_type")]),
        ({"tools": [5, a_tool(), 5]}, [(("tools", 0), "invalid_type"), (("tools", 2), "invalid_type")]),
        ({"temperature": "hot"}, [(("temperature",), "out_of_range")]),
        ({"max_tokens": 1.5}, [(("max_tokens",), "must_be_positive")]),
        ({"response_format": 5}, [(("response_format",), "invalid_shape")]),
        ({"response_format": {"a": {1}}}, [(("response_format", "a"), "invalid_type")]),
        ({"structured_finalize": "yes"}, [(("structured_finalize",), "invalid_type")]),
        ({"options": [1]}, [(("options",), "invalid_type")]),
        ({"options": {"a": [object()]}}, [(("options", "a", 0), "invalid_type")]),
        ({"model": 5, "tool_choice": 6}, [(("model",), "invalid_type"), (("tool_choice",), "invalid_type")]),
        ({"prompt_cache": True}, [(("prompt_cache",), "invalid_type")]),
        ({"metadata": {"a": math.nan}}, [(("metadata", "a"), "invalid_type")]),
    ],
)
def test_type_checks_are_repeated(update, found):
    """C-3: what `model_copy` let through is reported where it stands."""
    assert problems(validate.request, request().model_copy(update=update)) == ("invalid_request", found)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (user("a").model_copy(update={"name": 5}), [(("name",), "invalid_type")]),
        (
            Message.model_construct(role="tool", content="", tool_call_id=5),
            [(("tool_call_id",), "invalid_type")],
        ),
        (
            user("a").model_copy(update={"tool_calls": [5, ToolCall.model_construct(id=1)]}),
            [
                (("tool_calls", 0), "invalid_type"),
                (("tool_calls", 1, "id"), "invalid_type"),
                (("tool_calls", 1, "name"), "required"),
                (("tool_calls", 1, "arguments"), "required"),
            ],
        ),
        (
            Message.model_construct(role="user", content=[TextPart.model_construct(text=5)]),
            [(("content", 0, "text"), "invalid_type")],
        ),
        (
            Message.model_construct(
                role="user", content=[ImagePart.model_construct(image=Image.model_construct(source=5))]
            ),
            [(("content", 0, "image", "source"), "invalid_type")],
        ),
        (Message.model_construct(), [(("role",), "unknown"), (("content",), "invalid_type")]),
    ],
)
def test_ill_typed_messages_are_reported_at_any_depth(message, found):
    """C-3."""
    assert problems(validate.message, message) == ("invalid_message", found)


@pytest.mark.parametrize("check", [validate.request, validate.message, validate.tool, validate.thread])
def test_another_class_is_a_type_error(check):
    """C-8: that is a mistake of the code, not of the data."""
    for value in (5, None, {}, object()):
        with pytest.raises(TypeError):
            check(value)


def test_validation_changes_nothing():
    """C-81: the functions are pure."""
    bad = request(messages=[NO_ID], tools=[a_tool(), a_tool()], options={"api_key": "x"})
    before = copy.deepcopy(bad)

    first, second = problems(validate.request, bad), problems(validate.request, bad)

    assert bad == before
    assert first == second


anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.integers(), max_size=2)
    | st.just(object())
    | st.dictionaries(st.integers(), st.integers(), max_size=1)
)


@given(make.requests, st.dictionaries(st.sampled_from(sorted(Request.model_fields)), anything))
@settings(max_examples=80, deadline=None)
def test_validation_never_crashes_on_requests(model, update):
    """C-3: whatever stands in whatever field."""
    problems(validate.request, model.model_copy(update=update))
    problems(validate.request, Request.model_construct(**update))


@given(
    make.messages,
    make.tools,
    st.dictionaries(st.sampled_from(sorted(set(Message.model_fields) | set(Tool.model_fields))), anything),
)
@settings(max_examples=80, deadline=None)
def test_validation_never_crashes_on_messages_and_tools(message, tool, update):
    """C-3."""
    problems(validate.message, message.model_copy(update=update))
    problems(validate.tool, tool.model_copy(update=update))
    problems(validate.tool, Tool.model_construct(**update))
    problems(validate.thread, Thread.model_construct(messages=[message.model_copy(update=update)]))
    problems(validate.session, SimpleNamespace(**update))


def test_the_text_says_where_and_what():
    """Whoever reads only the message learns which field to mend."""  # C-81
    bad = Request(
        messages=[Message(role="user", content="hi"), Message(role="tool", content="4")], max_tokens=0
    )

    with pytest.raises(ValidationError) as refused:
        validate.request(bad)

    assert "messages[1].tool_call_id required, max_tokens must_be_positive" in str(refused.value)
