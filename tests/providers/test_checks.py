"""What is looked at before any body is built."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allm_actors.data import (
    FileSource,
    Image,
    ImagePart,
    Message,
    ModelRef,
    Request,
    TextPart,
    Tool,
)
from allm_actors.errors import EngineError, ValidationError
from allm_actors.providers._checks import check_request, wants_schema_and_tools
from allm_actors.providers._images import MAX_IMAGE_BYTES, resolve_images
from allm_actors.providers._options import write_options

ACCEPTED = frozenset({"image/png", "image/jpeg"})
PNG = b"\x89PNG\r\n\x1a\n"
TOOL = Tool(name="f", description="", schema={})


def check(*messages, options=None, **fields):
    request = Request(**({"messages": list(messages), "model": "m"} | fields))
    return check_request(request, options or {}, images=ACCEPTED)


def refused(*messages, **given):
    with pytest.raises(ValidationError) as caught:
        check(*messages, **given)
    return caught.value.reason, caught.value.errors


def pictures(*images):
    return Message(role="user", content=[ImagePart(image=image) for image in images])


def test_tool_results_name_their_call():  # P-25
    nameless = Message(role="tool", content="x")
    empty = Message(role="tool", content="x", tool_call_id="")
    fine = Message(role="tool", content="x", tool_call_id="c")
    assert refused(nameless, fine, empty) == (
        "invalid_request",
        [(("messages", 0, "tool_call_id"), "required"), (("messages", 2, "tool_call_id"), "required")],
    )
    check(fine)


def test_no_images_in_system_messages():  # P-27
    picture = ImagePart(image=Image.from_binary(PNG, "image/png"))
    bad = Message(role="system", content=[picture, TextPart(text="x"), picture])
    assert refused(Message(role="user", content="x"), bad, bad) == (
        "invalid_message",
        [
            (("messages", 1, "content"), "image_in_system_message"),
            (("messages", 2, "content"), "image_in_system_message"),
        ],
    )


def test_all_bad_images_are_told_at_once(tmp_path):  # P-28
    (tmp_path / "notes.txt").write_text("x")
    big = Image.from_binary(bytes(MAX_IMAGE_BYTES + 1), "image/png")
    reason, errors = refused(
        pictures(
            Image.from_file(tmp_path / "notes.txt"),
            Image.from_binary(PNG, "image/bmp"),
            big,
            Image.from_file(tmp_path / "absent.png"),
        ),
        Message(role="user", content="text"),
        pictures(
            Image.from_binary(PNG, "image/png"),
            Image.from_base64("not base64!", "image/png"),
            Image.from_url("ftp://example.com/a.png"),
        ),
    )
    assert reason == "invalid_message"
    assert errors == [
        (("content", 0, 0), "missing_mime_type"),
        (("content", 0, 1), "unsupported_image_format"),
        (("content", 0, 2), "image_too_large"),
        (("content", 0, 3), "unresolvable_image"),
        (("content", 2, 1), "unresolvable_image"),
        (("content", 2, 2), "unresolvable_image"),
    ]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/a", None),
        ("HTTP://example.com/a.bmp", None),
        ("data:image/png;base64,AAAA", None),
        ("data:image/PNG;charset=x;base64,AAAA", None),
        ("data:image/bmp;base64,AAAA", "unsupported_image_format"),
        ("data:image/png;base64,A*AA", "unresolvable_image"),
        ("data:image/png;base64,AAA", "unresolvable_image"),
        ("data:image/png,AAAA", "unresolvable_image"),
        ("data:;base64,AAAA", "unresolvable_image"),
        ("data:image/png;base64", "unresolvable_image"),
        ("file:///etc/passwd", "unresolvable_image"),
        ("javascript:x", "unresolvable_image"),
        ("no scheme", "unresolvable_image"),
        ("", "unresolvable_image"),
        ("http://[", "unresolvable_image"),
    ],
)
def test_image_urls(url, code):  # P-28
    if code is None:
        assert check(pictures(Image.from_url(url))).images[0, 0].href == url
    else:
        assert refused(pictures(Image.from_url(url))) == ("invalid_message", [(("content", 0, 0), code)])


def test_a_remote_image_may_state_a_type_that_fits():  # P-28
    image = Image.from_url("https://example.com/a")
    check(pictures(image.model_copy(update={"mime_type": "image/png"})))
    wrong = image.model_copy(update={"mime_type": "image/tiff"})
    assert refused(pictures(wrong))[1] == [(("content", 0, 0), "unsupported_image_format")]


def test_the_size_limit_is_exact(tmp_path):  # P-28
    limit = bytes(MAX_IMAGE_BYTES)
    file = tmp_path / "a.png"
    for size, fine in ((0, True), (1, False)):
        content = limit + bytes(size)
        file.write_bytes(content)
        text = base64.b64encode(content).decode()
        for image in (
            Image.from_binary(content, "image/png"),
            Image.from_base64(text, "image/png"),
            Image.from_url(f"data:image/png;base64,{text}"),
            Image.from_file(file),
        ):
            if fine:
                check(pictures(image))
            else:
                assert refused(pictures(image))[1] == [(("content", 0, 0), "image_too_large")]


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):  # P-28
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda _: pytest.fail("the file was read"))
    assert refused(pictures(Image.from_file(tmp_path / "a.png")))[1] == [
        (("content", 0, 0), "image_too_large")
    ]


@pytest.mark.parametrize("path", ["", "\x00", "/", "a\x00b.png"])
def test_odd_paths_are_unresolvable(path):  # P-28, C-45
    image = Image(source=FileSource(value=path), mime_type="image/png")
    assert refused(pictures(image))[1] == [(("content", 0, 0), "unresolvable_image")]


@given(st.text(max_size=40))
def test_any_url_is_judged_in_our_words(url):  # P-28, C-45
    with contextlib.suppress(ValidationError):
        resolve_images([pictures(Image.from_url(url))], ACCEPTED)


def test_images_are_checked_wherever_they_stand():  # P-28
    picture = ImagePart(image=Image.from_base64("*", "image/png"))
    assert refused(Message(role="assistant", content=[picture]))[1] == [
        (("content", 0, 0), "unresolvable_image")
    ]


@pytest.mark.parametrize("choice", ["required", "f", {"type": "any"}])
def test_forcing_a_tool_takes_tools(choice):  # P-30
    assert refused(tool_choice=choice) == ("invalid_request", [(("tool_choice",), "requires_tools")])


@pytest.mark.parametrize(
    ("choice", "tools", "sent"),
    [
        (None, [], None),
        ("auto", [], None),
        ("none", [], None),
        (None, [TOOL], None),
        ("auto", [TOOL], "auto"),
        ("f", [TOOL], "f"),
        ({"x": 1}, [TOOL], {"x": 1}),
    ],
)
def test_tool_choice(choice, tools, sent):  # P-30
    assert check(tool_choice=choice, tools=tools).tool_choice == sent


def test_an_unknown_tool_cannot_be_chosen():  # P-30
    assert refused(tool_choice="g", tools=[TOOL]) == ("invalid_request", [(("tool_choice",), "unknown_tool")])


@pytest.mark.parametrize("model", [None, "", ModelRef(provider="p", id="")])
def test_a_model_is_needed(model):  # P-33
    with pytest.raises(EngineError) as caught:
        check(model=model)
    assert caught.value.reason == "missing_model"


def test_a_model_reference_stands_for_its_id():  # P-33
    assert check(model=ModelRef(provider="p", id="gpt-x")).model == "gpt-x"


@pytest.mark.parametrize("name", ["model", "messages", "input", "contents", "stream", "api_key"])
def test_reserved_options(name):  # P-21
    error = [(("options", name), "reserved_key")]
    assert refused(options={name: None}) == ("invalid_request", error)
    request = Request(messages=[], model="m").model_copy(update={"options": {name: 1}})
    with pytest.raises(ValidationError) as caught:
        check_request(request, {}, images=ACCEPTED)
    assert caught.value.errors == error


def test_the_calls_options_win():  # P-2
    request = Request(messages=[], model="m", options={"a": 1, "b": 1})
    assert check_request(request, {"a": 2}, images=ACCEPTED).options == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "reasoning_effort",
            ["none", "minimal", "low", "medium", "high", "xhigh", "max"],
            ["", "LOW", 1, True, [], {}],
        ),
        ("reasoning_summary", ["auto", "concise", "detailed"], ["none", 0]),
        ("verbosity", ["low", "medium", "high"], ["max", 2.0]),
    ],
)
def test_reasoning_options(name, good, bad):  # P-58
    for value in good:
        assert check(options={name: value}).reasoning == {name: value}
    for value in bad:
        assert refused(options={name: value}) == ("invalid_request", [(("options", name), "unknown_value")])
    assert check(options={name: None}).reasoning == {}


def test_the_first_check_wins():  # P-4
    result = Message(role="tool", content="x")
    picture = Message(role="system", content=[ImagePart(image=Image.from_base64("*", "image/png"))])
    bad = pictures(Image.from_base64("*", "image/png"))
    wrong = {"tool_choice": "f", "model": None, "options": {"stream": 1}}
    assert refused(picture, bad, result, **wrong)[1][0].reason == "required"
    assert refused(picture, bad, **wrong)[1][0].reason == "image_in_system_message"
    assert refused(bad, **wrong)[1][0].reason == "unresolvable_image"
    assert refused(**wrong)[1][0].reason == "requires_tools"
    with pytest.raises(EngineError):
        check(model=None, options={"stream": 1})
    assert refused(options={"stream": 1, "verbosity": "x"})[1][0].reason == "reserved_key"


def test_writing_options():  # P-20
    body = {"a": 1, "b": 2, "verbosity": "kept"}
    write_options(body, {"a": None, "b": 3, "c": [1], "d": None, "verbosity": "x", "reasoning_effort": "y"})
    assert body == {"b": 3, "c": [1], "verbosity": "kept"}
    write_options(body, {"c": 1, "b": 4}, placed={"c"})
    assert body == {"b": 4, "c": [1], "verbosity": "kept"}


def test_wanting_a_schema_and_tools():  # P-112
    schema = {"type": "json_schema", "name": "a", "schema": {}}

    def wants(**fields):
        return wants_schema_and_tools(Request(messages=[], **fields))

    assert wants(tools=[TOOL], response_format=schema)
    assert not wants(response_format=schema)
    assert not wants(tools=[TOOL], response_format={"type": "json_object"})
    assert not wants(tools=[TOOL], response_format="text")
    assert not wants(tools=[TOOL])
