"""Messages, requests, responses, threads, results, and the helpers that build them."""

import json
import math

import pydantic
import pytest

from allm_actors.data import (
    ChatResult,
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
    ToolCall,
    Usage,
    assistant,
    complete_arguments,
    json_schema,
    parse_arguments,
    request,
    system,
    to_messages,
    to_thread,
    tool_result,
    user,
)
from allm_actors.errors import AdapterError, ResponseError


def test_message_fields():
    """C-11: defaults, and empty contents."""
    message = Message(role="user", content="")
    assert (message.name, message.tool_call_id, message.tool_calls, message.ask_user_for) == (
        None,
        None,
        [],
        None,
    )
    assert Message(role="user", content=[]).content == []
    for role in ("system", "user", "assistant", "tool"):
        assert Message(role=role, content="x").role == role


def test_normalize_content():
    """C-11: a string becomes one part, a list comes back as it is."""
    parts = [TextPart(text="a")]
    assert Message.normalize_content("hi") == [TextPart(text="hi")]
    assert Message.normalize_content(parts) is parts
    assert Message.normalize_content("") == [TextPart(text="")]


def test_parts_are_told_apart_by_type():
    """C-12."""
    image = ImagePart(image=Image.from_url("https://x/y.png"))
    assert (TextPart(text="a").type, image.type, image.detail) == ("text", "image", "auto")
    assert [image.image.width, image.image.height, image.image.prompt, image.image.revised_prompt] == [
        None
    ] * 4
    content = [
        {"type": "text", "text": "a"},
        {"type": "image", "image": {"source": {"type": "url", "value": "u"}}},
    ]
    assert [type(part) for part in Message(role="user", content=content).content] == [TextPart, ImagePart]
    with pytest.raises(pydantic.ValidationError):
        ImagePart(image=Image.from_url("u"), detail="medium")


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"a": 1}', {"a": 1}),
        (' {"a": 1.0, "a": 2} ', {"a": 2}),
        ("{}", {}),
        ("[1]", None),
        ("null", None),
        ("{", None),
        ('{"a": NaN}', None),
        ('{"a": Infinity}', None),
        ('{"a": 1e999}', None),
        ('{"a": "\\ud800"}', None),
        ('{"a": 1} x', None),
        ("nonsense", None),
        ("[" * 5000, None),
    ],
)
def test_invalid_arguments(text, arguments):
    """C-15, C-27: text that is no JSON object makes `arguments` `{}` and is kept."""
    assert parse_arguments(text) == arguments
    assert complete_arguments(text) == (arguments or {}, text)
    call = ToolCall(id="1", name="f", arguments=arguments or {}, raw_arguments=text)
    assert call.invalid_arguments is (arguments is None)


@pytest.mark.parametrize("text", [None, "", "  \n"])
def test_no_argument_text_is_not_invalid(text):
    """C-15, C-27: a call without arguments."""
    assert not ToolCall(id="1", name="f", arguments={}, raw_arguments=text).invalid_arguments


def test_no_text_at_all_is_a_call_without_arguments():
    """C-27."""
    assert complete_arguments("") == ({}, "{}")


def test_numbers_in_arguments_stay_what_python_makes_of_them():
    """C-27: ints of any size, floats as floats."""
    big = 10**40
    arguments = parse_arguments(f'{{"int": {big}, "float": 1.0, "exp": 1e3}}')
    assert arguments == {"int": big, "float": 1.0, "exp": 1000.0}
    assert [type(value) for value in arguments.values()] == [int, float, float]


def test_usage():
    """C-18: `None` is not zero."""
    assert Usage() == Usage(input_tokens=None)
    assert Usage(input_tokens=0) != Usage()
    assert Usage().total() is None
    assert Usage(input_tokens=1).total() is None
    assert Usage(output_tokens=1).total() is None
    assert Usage(input_tokens=0, output_tokens=0).total() == 0
    assert Usage(input_tokens=2, output_tokens=3).total() == 5
    assert Usage(input_tokens=2, output_tokens=3, total_tokens=9).total() == 9
    assert Usage(total_tokens=0, input_tokens=1, output_tokens=1).total() == 0
    assert (Usage().tool_usage, Usage().extra) == ({}, {})
    for bad in (-1, True, 1.0):
        with pytest.raises(pydantic.ValidationError):
            Usage(reasoning_tokens=bad)


def test_request_defaults():
    """C-19."""
    bare = Request(messages=[])
    assert dict(bare) == {
        "messages": [],
        "model": None,
        "tools": [],
        "tool_choice": None,
        "temperature": None,
        "max_tokens": None,
        "response_format": None,
        "structured_finalize": False,
        "prompt_cache": None,
        "options": {},
        "metadata": {},
    }
    with pytest.raises(pydantic.ValidationError):
        Request()


def test_prompt_cache_and_model_ref():
    """K-120, K-128: frozen models with these defaults."""
    assert PromptCache() == PromptCache(key=None, retention="short")
    with pytest.raises(pydantic.ValidationError):
        PromptCache(retention="forever")
    ref = ModelRef(provider="openai", id="gpt-5")
    assert (ref.capabilities, ref.limits, ref.pricing) == ({}, {}, {})
    assert Request(messages=[], model=ref).model is not None


def test_response_defaults():
    """C-20."""
    response = Response()
    assert response.usage == Usage()
    assert (response.message, response.output_text, response.tool_calls, response.finish_reason) == (
        None,
        None,
        [],
        None,
    )
    assert (response.error, response.raw, response.reasoning, response.refusal) == (None, None, None, None)
    with pytest.raises(pydantic.ValidationError):
        Response(finish_reason="halted")


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (Response(output_text="a", message=assistant("b")), "a"),
        (Response(output_text="", message=assistant("b")), ""),
        (Response(message=assistant("b")), "b"),
        (Response(message=Message(role="assistant", content=[TextPart(text="b")])), None),
        (Response(), None),
    ],
)
def test_text(response, text):
    """C-21."""
    assert response.text == text


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Response(finish_reason=None, output_text="a"), "non_stop_finish"),
        (Response(finish_reason="length", output_text="a"), "non_stop_finish"),
        (
            Response(finish_reason="stop", output_text="a", message=Message(role="assistant", content=[])),
            "structured_content",
        ),
        (
            Response(finish_reason="length", message=Message(role="assistant", content=[])),
            "non_stop_finish",
        ),
        (Response(finish_reason="stop"), "empty_response"),
    ],
)
def test_require_text_refuses(response, reason):
    """C-21: an answer or an exception, in this order."""
    with pytest.raises(ResponseError) as caught:
        response.require_text()

    assert caught.value.reason == reason
    if reason == "non_stop_finish":
        assert caught.value.metadata["finish_reason"] == response.finish_reason


def test_require_text_gives_text():
    """C-21: possibly the empty one."""
    assert Response(finish_reason="stop", output_text="").require_text() == ""
    assert Response(finish_reason="stop", message=assistant("b")).require_text() == "b"


def test_an_error_comes_before_everything():
    """C-21: partial text is for `output_text` to read, which never raises."""
    response = Response(finish_reason="error", output_text="half", error=AdapterError("timeout"))

    assert response.output_text == "half"
    with pytest.raises(AdapterError):
        response.require_text()
    with pytest.raises(AdapterError):
        _ = response.text


def test_thread():
    """C-22: adding returns a new thread, metadata included."""
    empty = Thread(metadata={"id": 1})
    full = empty.add_system("s").add_user("u").add_assistant("a").add_message(tool_result("1", "r"))
    more = full.add_messages([user("x"), user("y")])

    assert empty.messages == []
    assert empty.last_message() is None
    assert [message.role for message in more.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "user",
        "user",
    ]
    assert more.last_message() == user("y")
    assert len(full.messages) == 4
    assert more.metadata == {"id": 1}
    assert Thread.from_messages([user("x")]) == Thread(messages=[user("x")])
    with pytest.raises(pydantic.ValidationError):
        empty.add_message("text")


def test_results():
    """C-23: everything empty when there is nothing to say."""
    step, chat = StepResult(), ChatResult()
    common = {
        "thread": None,
        "halted_reason": None,
        "error": None,
        "pending_question": None,
        "pending_tool_call_id": None,
        "ask_user_options": {},
        "manual_tool_calls": [],
        "skipped_tool_calls": [],
        "halt_tool_call_id": None,
        "halt_result": None,
        "other_halts": [],
        "metadata": {},
    }
    assert dict(step) == {**common, "response": None, "tool_results": [], "done": False, "mode": "auto"}
    assert dict(chat) == {**common, "final_response": None, "steps": [], "pass_1_halted_reason": None}
    halt = OtherHalt(tool_call_id="1", halted_reason="x")
    assert ChatResult(other_halts=[{"tool_call_id": "1", "halted_reason": "x"}]).other_halts == [halt]


@pytest.mark.parametrize(
    ("reason", "halted"),
    [
        ("completed", False),
        (None, False),
        ("max_turns", True),
        ("error", True),
        ("cancelled", True),
        ("mine", True),
    ],
)
def test_halted(reason, halted):
    """C-23."""
    assert ChatResult(halted_reason=reason).halted() is halted


def test_text_of_results():
    """C-23: that of their response, by C-21."""
    assert StepResult().text is None
    assert ChatResult().text is None
    assert StepResult(response=Response(output_text="a")).text == "a"
    assert ChatResult(final_response=Response(output_text="a")).text == "a"
    for result in (
        StepResult(response=Response(error=AdapterError("timeout"))),
        ChatResult(final_response=Response(error=AdapterError("timeout"))),
    ):
        with pytest.raises(AdapterError):
            _ = result.text


def test_helpers():
    """C-24."""
    assert system("a") == Message(role="system", content="a")
    assert user("a") == Message(role="user", content="a")
    assert assistant("a") == Message(role="assistant", content="a")
    assert tool_result("1", "a") == Message(role="tool", content="a", tool_call_id="1")
    assert tool_result("1", {"a": [1, "ü"]}).content == '{"a":[1,"ü"]}'
    assert tool_result("1", [1, None]).content == "[1,null]"
    assert json_schema("n", {"type": "object"}) == {
        "type": "json_schema",
        "name": "n",
        "schema": {"type": "object"},
        "strict": True,
    }
    assert json_schema("", {}, strict=False)["strict"] is False


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (1, TypeError),
        (None, TypeError),
        ((1,), TypeError),
        ({"a": {1}}, ValueError),
        ([math.nan], ValueError),
    ],
)
def test_tool_result_takes_text_dicts_and_lists(content, error):
    """C-24."""
    with pytest.raises(error):
        tool_result("1", content)


@pytest.mark.parametrize(
    ("input_", "messages"),
    [
        ("hi", [user("hi")]),
        ("", [user("")]),
        (assistant("a"), [assistant("a")]),
        (["a", system("b"), {"role": "assistant", "content": "c"}], [user("a"), system("b"), assistant("c")]),
        ([], []),
        (Thread(messages=[user("a")]), [user("a")]),
    ],
)
def test_input(input_, messages):
    """C-10, C-24: everything a request, or a conversation, can be made from."""
    assert to_messages(input_) == messages
    assert request(input_, max_tokens=5) == Request(messages=messages, max_tokens=5)
    assert to_thread(input_).messages == messages


def test_a_request_is_an_input_of_single_requests_only():
    """C-10: its fields can be changed on the way."""
    given = Request(messages=[user("a")], temperature=0.5)

    assert request(given) == given
    assert request(given, max_tokens=1) == Request(messages=[user("a")], temperature=0.5, max_tokens=1)
    with pytest.raises(pydantic.ValidationError):
        request(given, max_tokens="1")
    for convert in (to_messages, to_thread):
        with pytest.raises(TypeError, match="Request"):
            convert(given)


def test_a_thread_stays_itself():
    """C-10: its metadata is not lost."""
    thread = Thread(messages=[user("a")], metadata={"k": 1})

    assert to_thread(thread) is thread


@pytest.mark.parametrize(
    ("input_", "named"),
    [
        (5, "int"),
        (None, "NoneType"),
        (b"x", "bytes"),
        (("a",), "tuple"),
        ({"role": "user"}, "dict"),
        ([5], "int"),
        (["a", None], "NoneType"),
    ],
)
def test_other_inputs_are_a_type_error_naming_the_type(input_, named):
    """C-10."""
    for convert in (request, to_messages, to_thread):
        with pytest.raises(TypeError, match=rf"\b{named}\b"):
            convert(input_)


def test_a_bad_message_dict_says_what_is_wrong_with_it():
    """C-2, C-10: and which one it is."""
    with pytest.raises(pydantic.ValidationError) as caught:
        request(["hello", {"role": "user"}])

    assert caught.value.errors()[0]["loc"] == (1, "content")


@pytest.mark.parametrize(
    ("given", "hint"), [({"role": "user", "content": "x"}, "put a message dict into a list")]
)
def test_an_input_that_is_nearly_right_is_told_how(given, hint):  # C-10
    with pytest.raises(TypeError, match=f"got dict; {hint}"):
        request(given)


@pytest.mark.parametrize(
    ("build", "loc"),
    [
        (lambda text: Message(role="user", content=text), ("content",)),
        (lambda text: Message(role="user", content=[{"type": "text", "text": text}]), ("content", 0, "text")),
        (lambda text: Message(role="user", content=[TextPart(text=text)]), ("text",)),
    ],
)
def test_text_that_no_json_can_hold_is_refused_where_it_comes_in(build, loc):
    """C-84: what was taken can be written; half of a surrogate pair cannot."""
    with pytest.raises(pydantic.ValidationError, match="surrogate pair at index 2") as caught:
        build("ab\ud800")

    assert caught.value.errors()[0]["loc"] == loc
    whole = build("ab\U0001f600 é")
    assert type(whole).model_validate_json(whole.model_dump_json()) == whole


def test_compact_json_is_plain_json():
    """C-24: what any other parser reads."""
    value = {"a": [1, 2.5, "é", None, True], "b": {}}
    assert json.loads(tool_result("1", value).content) == value
