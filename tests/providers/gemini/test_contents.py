"""The turns of a generateContent call."""

import base64
import itertools

import pytest

from allm_actors.data import Image, ImagePart, Message, Request, TextPart, ToolCall, tool_result
from allm_actors.errors import AdapterError, ValidationError
from allm_actors.providers.gemini import _contents
from allm_actors.providers.gemini._wire import GeminiWire

PNG = b"\x89PNG\r\n\x1a\n"
PIXEL = base64.b64encode(PNG).decode()
STAND_IN = "skip_thought_signature_validator"


def contents(*messages, model="gemini-2.5-flash"):
    given = [Message(role="user", content=text) if isinstance(text, str) else text for text in messages]
    return GeminiWire().build(Request(messages=given, model=model), {}, stream=False).body["contents"]


def made(*calls, text="", **members):
    return Message(role="assistant", content=text, tool_calls=list(calls), **members)


def tool_call(call_id="c1", name="f", arguments=None, **facts):
    data = {"gemini": facts} if facts else {}
    return ToolCall(id=call_id, name=name, arguments=arguments or {}, provider_data=data)


def user(*parts):
    return {"role": "user", "parts": list(parts)}


def model(*parts):
    return {"role": "model", "parts": list(parts)}


def response(name, output, call_id=None):
    wire = {"name": name, "response": {"output": output}}
    return {"functionResponse": wire | ({} if call_id is None else {"id": call_id})}


def test_a_whole_conversation():  # P-92, P-24
    call = ToolCall(id="c1", name="f", arguments={"ä": 1}, raw_arguments='{ "ä": 1 }')
    assert contents(
        Message(role="system", content="be brief"),
        "hi",
        made(call, text="let me see"),
        tool_result("c1", {"a": 1}),
        Message(role="assistant", content="ok"),
        "",
    ) == [
        user({"text": "hi"}),
        model({"text": "let me see"}, {"functionCall": {"name": "f", "args": {"ä": 1}, "id": "c1"}}),
        user(response("f", '{"a":1}', "c1")),
        model({"text": "ok"}),
        user({"text": ""}),
    ]


def test_what_never_reaches_the_wire():  # P-26, P-39
    foreign = {"anthropic": {"thinking_blocks": [1]}, "openai": {"thought_signature": "no"}}
    assert contents(
        Message(role="user", content="hi", name="eve", ask_user_for="c", metadata={"a": 1}),
        Message(role="assistant", content="x", name="bob", provider_data=foreign, metadata={"a": 1}),
        made(ToolCall(id="c", name="f", arguments={}, provider_data=foreign, metadata={"a": 1})),
        Message(role="tool", content="y", tool_call_id="c", metadata={"a": 1}),
    ) == [
        user({"text": "hi"}),
        model({"text": "x"}),
        model({"functionCall": {"name": "f", "args": {}, "id": "c"}}),
        user(response("f", "y", "c")),
    ]


def test_texts_are_flattened():  # P-22
    parts = [TextPart(text="a"), TextPart(text=""), TextPart(text="b")]
    assert contents(Message(role="user", content=parts)) == [user({"text": "a\n\nb"})]
    assert contents("x", Message(role="assistant", content=parts))[1] == model({"text": "a\n\nb"})
    assert contents(Message(role="user", content=[])) == [user({"text": ""})]


@pytest.mark.parametrize("facts", [{}, {"gemini": {"thought_signature": "s"}}])
def test_empty_turns_are_left_out(facts):  # P-23
    for empty in ("", [], [TextPart(text="")]):
        message = Message(role="assistant", content=empty, provider_data=facts)
        assert contents("a", message, "b") == [user({"text": "a"}), user({"text": "b"})]


def test_adjacent_results_share_a_turn():  # P-92
    calls = made(tool_call("c1"), tool_call("c2", "g"))
    assert contents(
        "hi",
        calls,
        tool_result("c1", "1"),
        Message(role="system", content="s"),
        tool_result("c2", "2"),
        "more",
        made(tool_call("c3", "h")),
        tool_result("c3", "3"),
    )[2:] == [
        user(response("f", "1", "c1"), response("g", "2", "c2")),
        user({"text": "more"}),
        model({"functionCall": {"name": "h", "args": {}, "id": "c3"}}),
        user(response("h", "3", "c3")),
    ]


def test_results_that_are_not_adjacent_stand_apart():  # P-92
    calls = made(tool_call("c1"), tool_call("c2", "g"))
    assert contents(calls, tool_result("c1", "1"), "wait", tool_result("c2", "2"))[1:] == [
        user(response("f", "1", "c1")),
        user({"text": "wait"}),
        user(response("g", "2", "c2")),
    ]


# --- names and ids --------------------------------------------------------------------------------------


def test_a_result_may_name_its_function():  # P-93
    named = Message(role="tool", content="1", tool_call_id="c9", name="other")
    assert contents("hi", named)[1] == user(response("other", "1", "c9"))
    assert contents("hi", made(tool_call("c9")), named)[2] == user(response("other", "1", "c9"))


def test_the_latest_call_of_that_id_gives_the_name():  # P-93
    turns = contents(
        made(tool_call("c", "old")), tool_result("c", "1"), made(tool_call("c", "new")), tool_result("c", "2")
    )
    assert (turns[1], turns[3]) == (user(response("old", "1", "c")), user(response("new", "2", "c")))


def test_results_of_unknown_calls():  # P-93
    with pytest.raises(ValidationError) as caught:
        contents(
            "hi",
            tool_result("c1", "before the call"),
            made(tool_call("c1")),
            tool_result("c1", "fine"),
            tool_result("c2", "never made"),
        )
    assert caught.value.reason == "invalid_message"
    assert [tuple(error) for error in caught.value.errors] == [
        (("messages", 1, "name"), "unknown_tool_call"),
        (("messages", 4, "name"), "unknown_tool_call"),
    ]


@pytest.mark.parametrize("call_id", [None, ""])
def test_results_without_a_call(call_id):  # P-25
    with pytest.raises(ValidationError) as caught:
        contents("hi", Message(role="tool", content="x", name="f", tool_call_id=call_id))
    assert caught.value.reason == "invalid_request"
    assert [tuple(error) for error in caught.value.errors] == [(("messages", 1, "tool_call_id"), "required")]


def test_generated_ids_are_not_sent():  # P-94
    ours = tool_call("call_0", "f", generated_id=True)
    theirs = ToolCall(id="call_1", name="g", arguments={}, provider_data={"openai": {"generated_id": True}})
    turns = contents(made(ours, theirs), tool_result("call_0", "0"), tool_result("call_1", "1"))
    assert turns == [
        model(
            {"functionCall": {"name": "f", "args": {}}},
            {"functionCall": {"name": "g", "args": {}, "id": "call_1"}},
        ),
        user(response("f", "0"), response("g", "1", "call_1")),
    ]


# --- signatures -----------------------------------------------------------------------------------------


def signatures(*calls, **fields):
    (turn,) = contents(made(*calls), **fields)
    return [part.get("thoughtSignature") for part in turn["parts"]]


def test_signatures_go_back_where_they_stood():  # P-95
    message = made(
        tool_call("c1", thought_signature="one"),
        tool_call("c2"),
        text="hm",
        provider_data={"gemini": {"thought_signature": "text"}},
    )
    for name in ("gemini-2.5-flash", "gemini-3-pro-preview"):
        assert contents(message, model=name) == [
            model(
                {"text": "hm", "thoughtSignature": "text"},
                {"functionCall": {"name": "f", "args": {}, "id": "c1"}, "thoughtSignature": "one"},
                {"functionCall": {"name": "f", "args": {}, "id": "c2"}},
            )
        ]


@pytest.mark.parametrize(
    "name",
    ["gemini-3-pro-preview", "models/gemini-3.1-flash", "Gemini-4", "gemini-12-x", "publishers/google/gemini-3"],
)  # fmt: skip
def test_a_foreign_call_gets_the_stand_in_where_one_is_demanded(name):  # P-95
    assert signatures(tool_call("a"), tool_call("b"), model=name) == [STAND_IN, None]
    assert signatures(tool_call("a"), tool_call("b", thought_signature="s"), model=name) == [STAND_IN, "s"]
    assert signatures(tool_call("a", thought_signature="s"), tool_call("b"), model=name) == ["s", None]


def test_every_turn_gets_one():  # P-95
    turns = contents(
        made(tool_call("a")), tool_result("a", "1"), made(tool_call("b")), tool_result("b", "2"), model="gemini-3"
    )  # fmt: skip
    assert [part.get("thoughtSignature") for turn in turns for part in turn["parts"]] == [
        STAND_IN, None, STAND_IN, None
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["gemini-2.5-pro", "gemini-1.5", "gemma-3", "gemini-pro", "my-gemini-3", "x"]
)
def test_older_models_get_none(name):  # P-95
    assert signatures(tool_call("a"), tool_call("b"), model=name) == [None, None]


@pytest.mark.parametrize("kept", [None, 7, "", ["s"]])
def test_a_stored_signature_that_is_none(kept):  # P-95, P-39
    call = ToolCall(id="a", name="f", arguments={}, provider_data={"gemini": {"thought_signature": kept}})
    assert signatures(call) == [None]
    odd = ToolCall(id="a", name="f", arguments={}, provider_data={"gemini": "?"})
    assert signatures(odd, model="gemini-3") == [STAND_IN]


# --- images ---------------------------------------------------------------------------------------------


def image(data=PIXEL, mime="image/png"):
    return {"inlineData": {"mimeType": mime, "data": data}}


def test_images_become_parts(tmp_path):  # P-92, P-22, P-28
    file = tmp_path / "dot.PNG"
    file.write_bytes(PNG)
    content = [
        TextPart(text="look"),
        ImagePart(image=Image.from_binary(PNG, "image/png")),
        ImagePart(image=Image.from_base64(PIXEL, "image/HEIC")),
        ImagePart(image=Image.from_file(file)),
        ImagePart(image=Image.from_url(f"data:image/webp;base64,{PIXEL}")),
        TextPart(text=""),
    ]
    assert contents(Message(role="user", content=content)) == [
        user(
            {"text": "look"},
            image(),
            image(mime="image/heic"),
            image(),
            image(mime="image/webp"),
            {"text": ""},
        )
    ]


@pytest.mark.parametrize("url", ["https://example.com/a.png", "http://example.com/a"])
def test_remote_images_are_refused(url):  # P-92
    with pytest.raises(AdapterError) as caught:
        contents(Message(role="user", content=[ImagePart(image=Image.from_url(url))]))
    assert (caught.value.reason, caught.value.provider) == ("unsupported_feature", "gemini")
    assert (caught.value.status, url in str(caught.value)) == (None, False)


@pytest.mark.parametrize(
    ("picture", "code"),
    [
        (Image.from_binary(PNG, "image/gif"), "unsupported_image_format"),
        (Image.from_file("picture.unknown"), "missing_mime_type"),
        (Image.from_file("/nowhere/picture.png"), "unresolvable_image"),
        (Image.from_base64("A" * (28 * 1024 * 1024), "image/png"), "image_too_large"),
    ],
)
def test_bad_images(picture, code):  # P-28
    with pytest.raises(ValidationError) as caught:
        contents("x", Message(role="user", content=[TextPart(text="a"), ImagePart(image=picture)]))
    assert caught.value.reason == "invalid_message"
    assert [tuple(error) for error in caught.value.errors] == [(("content", 1, 1), code)]


def test_images_in_system_messages():  # P-27
    picture = ImagePart(image=Image.from_binary(PNG, "image/png"))
    with pytest.raises(ValidationError) as caught:
        contents("x", Message(role="system", content=[picture]))
    assert [tuple(error) for error in caught.value.errors] == [
        (("messages", 1, "content"), "image_in_system_message")
    ]


def test_images_elsewhere_say_nothing(caplog):  # P-22
    picture = ImagePart(image=Image.from_binary(PNG, "image/png"))
    caplog.set_level("DEBUG", "allm_actors.providers")
    turns = contents(
        Message(role="assistant", content=[TextPart(text="a"), picture, TextPart(text="b")]),
        made(tool_call("c")),
        Message(role="tool", tool_call_id="c", content=[picture]),
    )
    assert turns[0] == model({"text": "a\n\nb"})
    assert turns[2] == user(response("f", "", "c"))
    assert caplog.text.count("is not sent") == 2


def test_detail_is_dropped_with_one_word(caplog):  # P-29
    _contents._tell_of_detail.cache_clear()
    caplog.set_level("DEBUG", "allm_actors.providers")
    sharp = ImagePart(image=Image.from_binary(PNG, "image/png"), detail="high")
    assert contents(Message(role="user", content=[sharp, sharp])) == [user(image(), image())]
    assert caplog.text.count("`detail`") == 1


def test_the_first_problem_found_is_told():  # P-4
    """Structural checks, the images, then what building the body finds out."""
    no_call = Message(role="tool", content="x")
    bad = Message(role="user", content=[ImagePart(image=Image.from_binary(PNG, "image/gif"))])
    remote = Message(role="user", content=[ImagePart(image=Image.from_url("https://example.com/a"))])
    unknown = tool_result("c1", "x")
    told = []
    for messages in itertools.accumulate(([unknown], [remote], [bad], [no_call]), lambda a, b: b + a):
        with pytest.raises((AdapterError, ValidationError)) as caught:
            contents(*messages)
        told.append(getattr(caught.value, "errors", None) or caught.value.reason)
    kinds = [each if isinstance(each, str) else each[0].reason for each in told]
    assert kinds == ["unknown_tool_call", "unsupported_feature", "unsupported_image_format", "required"]
