"""The body of a Chat Completions call."""

import base64
import enum
import itertools

import pytest

from allm_actors.data import (
    Image,
    ImagePart,
    Message,
    PromptCache,
    Request,
    TextPart,
    Tool,
    ToolCall,
    json_schema,
    tool_result,
)
from allm_actors.errors import ValidationError
from allm_actors.providers.openai._wire import OpenAIWire

PNG = b"\x89PNG\r\n\x1a\n"
PIXEL = base64.b64encode(PNG).decode()
TOOL = Tool(
    name="f", description="does f", schema={"type": "object", "properties": {"x": {"type": "integer"}}}
)


def ask(*messages, **fields):
    """A request to a model of the chat endpoint."""
    given = [Message(role="user", content=text) if isinstance(text, str) else text for text in messages]
    return Request(**({"messages": given, "model": "gpt-4o-mini"} | fields))


def body(request, options=None, *, stream=False, **config):
    built = OpenAIWire(**({"api": "chat"} | config)).build(request, options or {}, stream=stream)
    assert built.path == "/chat/completions"
    return built.body


def wire(*messages, **fields):
    return body(ask(*messages, **fields))["messages"]


def test_the_smallest_body():  # P-51, P-26
    assert body(ask("hi")) == {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


def test_everything_typed():  # P-51, P-52, P-55, P-57, P-59, P-20
    request = ask(
        "hi",
        temperature=0.5,
        max_tokens=7,
        tools=[TOOL],
        tool_choice="f",
        response_format=json_schema("answer", {"type": "object"}),
        prompt_cache=PromptCache(key="k", retention="long"),
        options={"seed": 1},
    )
    assert list(body(request, {"top_p": 0.9}, stream=True).items()) == [
        ("model", "gpt-4o-mini"),
        ("messages", [{"role": "user", "content": "hi"}]),
        ("temperature", 0.5),
        ("max_completion_tokens", 7),
        (
            "tools",
            [
                {
                    "type": "function",
                    "function": {"name": "f", "description": "does f", "parameters": TOOL.schema},
                }
            ],
        ),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        (
            "response_format",
            {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
            },
        ),
        ("prompt_cache_key", "k"),
        ("prompt_cache_retention", "24h"),
        ("seed", 1),
        ("top_p", 0.9),
        ("stream", True),
        ("stream_options", {"include_usage": True}),
    ]


def test_a_whole_conversation():  # P-53, P-24
    calls = [
        ToolCall(id="c1", name="f", arguments={"ä": 1}),
        ToolCall(id="c2", name="g", arguments={"x": 1}, raw_arguments='{ "x": 1 }'),
        ToolCall(id="c3", name="h", arguments={}, raw_arguments=""),
    ]
    assert wire(
        Message(role="system", content="be brief"),
        Message(role="user", content="hi"),
        Message(role="assistant", content="", tool_calls=calls),
        tool_result("c1", {"a": 1}),
        tool_result("c2", "done"),
        Message(role="assistant", content="ok"),
        Message(role="system", content="still"),
    ) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"ä":1}'}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": '{ "x": 1 }'}},
                {"id": "c3", "type": "function", "function": {"name": "h", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"a":1}'},
        {"role": "tool", "tool_call_id": "c2", "content": "done"},
        {"role": "assistant", "content": "ok"},
        {"role": "system", "content": "still"},
    ]


def test_what_never_reaches_the_wire():  # P-26
    tool = Tool(
        name="f",
        description="d",
        schema={},
        handler=print,
        manual=True,
        compact=True,
        summary="s",
        metadata={"a": 1},
    )
    request = ask(
        Message(role="user", content="hi", name="eve", ask_user_for="c", metadata={"a": 1}),
        Message(role="assistant", content="x", provider_data={"anthropic": {"thinking_blocks": [1]}}),
        tools=[tool],
        structured_finalize=True,
        metadata={"a": 1},
    )
    assert body(request) == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}],
    }


def test_texts_are_flattened():  # P-22
    parts = [TextPart(text="a"), TextPart(text=""), TextPart(text="b")]
    for role in ("user", "assistant", "system"):
        assert wire("x", Message(role=role, content=parts))[1]["content"] == "a\n\nb"
    assert wire(Message(role="user", content=[]))[0]["content"] == ""


def test_empty_turns():  # P-23
    assert wire("", Message(role="assistant", content=""), Message(role="assistant", content=[]), "x") == [
        {"role": "user", "content": ""},
        {"role": "user", "content": "x"},
    ]


def test_images_become_blocks(tmp_path):  # P-22, P-54
    file = tmp_path / "dot.PNG"
    file.write_bytes(PNG)
    content = [
        TextPart(text="look"),
        ImagePart(image=Image.from_url("https://example.com/a b.png"), detail="low"),
        ImagePart(image=Image.from_binary(PNG, "image/png")),
        ImagePart(image=Image.from_base64(PIXEL, "image/gif")),
        ImagePart(image=Image.from_file(file), detail="high"),
        ImagePart(image=Image.from_url(f"data:image/png;base64,{PIXEL}")),
        TextPart(text=""),
    ]

    def image(url, detail="auto"):
        return {"type": "image_url", "image_url": {"url": url, "detail": detail}}

    assert wire(Message(role="user", content=content))[0]["content"] == [
        {"type": "text", "text": "look"},
        image("https://example.com/a b.png", "low"),
        image(f"data:image/png;base64,{PIXEL}"),
        image(f"data:image/gif;base64,{PIXEL}"),
        image(f"data:image/png;base64,{PIXEL}", "high"),
        image(f"data:image/png;base64,{PIXEL}"),
        {"type": "text", "text": ""},
    ]


def test_images_elsewhere_say_nothing(caplog):  # P-22
    picture = ImagePart(image=Image.from_binary(PNG, "image/png"))
    caplog.set_level("DEBUG", "allm_actors.providers")
    messages = wire(
        "x",
        Message(role="assistant", content=[TextPart(text="a"), picture, TextPart(text="b")]),
        Message(role="tool", tool_call_id="c", content=[picture]),
    )
    assert [message["content"] for message in messages] == ["x", "a\n\nb", ""]
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("f", {"type": "function", "function": {"name": "f"}}),
        ({"type": "allowed_tools", "x": 1}, {"type": "allowed_tools", "x": 1}),
    ],
)
def test_tool_choice(choice, sent):  # P-55, P-30
    assert body(ask("hi", tools=[TOOL], tool_choice=choice))["tool_choice"] == sent


def test_no_tool_choice_without_need():  # P-30
    assert "tool_choice" not in body(ask("hi", tools=[TOOL]))
    for choice in (None, "auto", "none"):
        assert "tool_choice" not in body(ask("hi", tool_choice=choice))


def test_strict_tools():  # P-56
    strict = TOOL.model_copy(update={"strict": True})
    assert body(ask("hi", tools=[strict]))["tools"][0]["function"]["strict"] is True
    assert "strict" not in body(ask("hi", tools=[TOOL]))["tools"][0]["function"]


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
        ),
        ({"type": "grammar", "x": 1}, {"type": "grammar", "x": 1}),
        (
            json_schema("a", {"b": 1}, strict=False),
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"b": 1}, "strict": False}},
        ),
    ],
)
def test_response_formats(wanted, sent):  # P-59
    assert body(ask("hi", response_format=wanted))["response_format"] == sent


@pytest.mark.parametrize("wanted", [None, "text"])
def test_text_is_no_response_format(wanted):  # P-59
    assert "response_format" not in body(ask("hi", response_format=wanted))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "max_completion_tokens"),
        ("gpt-4o-mini-2024-07-18", "max_completion_tokens"),
        ("gpt-4.1-nano", "max_completion_tokens"),
        ("GPT-5", "max_completion_tokens"),
        ("gpt-6.2", "max_completion_tokens"),
        ("gpt-10-mini", "max_completion_tokens"),
        ("o1", "max_completion_tokens"),
        ("o9-pro", "max_completion_tokens"),
        ("ft:gpt-4o-mini:acme::x", "max_completion_tokens"),
        ("ft:o3:acme", "max_completion_tokens"),
        ("gpt-4", "max_tokens"),
        ("gpt-4-turbo", "max_tokens"),
        ("gpt-3.5-turbo", "max_tokens"),
        ("gpt-oss-20b", "max_tokens"),
        ("o", "max_tokens"),
        ("omni", "max_tokens"),
        ("my-gpt-5", "max_tokens"),
    ],
)
def test_the_name_of_the_token_limit(model, name):  # P-52
    assert [key for key in body(ask("hi", model=model, max_tokens=7)) if key.startswith("max_")] == [name]
    custom = body(ask("hi", model=model, max_tokens=7), custom_host=True)
    assert custom["max_tokens"] == 7
    assert "max_completion_tokens" not in custom


@pytest.mark.parametrize("custom_host", [True, False])
@pytest.mark.parametrize("model", ["gpt-5", "gpt-4"])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_name_of_the_token_limit_can_be_set(model, name, custom_host):  # P-52
    request = ask("hi", model=model, max_tokens=7)
    sent = body(request, max_tokens_param=name, custom_host=custom_host)
    assert [key for key in sent if key.startswith("max_")] == [name]


@pytest.mark.parametrize(
    ("cache", "sent"),
    [
        (None, {}),
        (PromptCache(), {}),
        (PromptCache(key="k"), {"prompt_cache_key": "k"}),
        (PromptCache(retention="long"), {"prompt_cache_retention": "24h"}),
    ],
)
def test_prompt_cache(cache, sent):  # P-57, K-122
    plain = body(ask("hi"))
    assert body(ask("hi", prompt_cache=cache)) == plain | sent


def test_options_overwrite_and_none_removes():  # P-20, P-31, K-122
    request = ask(
        "hi",
        temperature=0.5,
        tools=[TOOL],
        prompt_cache=PromptCache(key="k"),
        options={"temperature": 0.9, "tools": None, "seed": 1, "custom": {"a": [1]}},
    )
    assert body(request, {"seed": 2, "prompt_cache_key": "mine", "parallel_tool_calls": False}) == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.9,
        "prompt_cache_key": "mine",
        "seed": 2,
        "custom": {"a": [1]},
        "parallel_tool_calls": False,
    }


def test_option_names_are_the_wires_own():  # P-31
    options = {
        "top_p": 0.1, "top_k": 3, "stop": "x", "seed": 1, "presence_penalty": 0.1, "frequency_penalty": 0.2,
        "parallel_tool_calls": True,
    }  # fmt: skip
    assert options.items() <= body(ask("hi"), options).items()
    assert body(ask("hi"), {"stop": ["a", "b"]})["stop"] == ["a", "b"]


def test_usage_on_streams_can_be_left_out():  # P-51
    assert body(ask("hi"), stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in body(ask("hi"), {"stream_options": None}, stream=True)
    mine = {"include_usage": False}
    assert body(ask("hi", options={"stream_options": mine}), stream=True)["stream_options"] == mine
    assert not {"stream", "stream_options"} & body(ask("hi")).keys()


@pytest.mark.parametrize(("model", "custom", "sent"), [("gpt-5", False, True), ("o3", False, True), ("llama", True, True), ("gpt-4o", False, False)])  # fmt: skip
def test_reasoning_options(model, custom, sent, caplog):  # P-58, P-20
    caplog.set_level("DEBUG", "allm_actors.providers")
    options = {"reasoning_effort": "low", "reasoning_summary": "auto", "verbosity": "high"}
    found = body(ask("hi", model=model), options, custom_host=custom)
    assert {key: found[key] for key in options if key in found} == (
        {"reasoning_effort": "low", "verbosity": "high"} if sent else {}
    )
    assert len(caplog.records) == (1 if sent else 3)


def test_a_reasoning_option_of_none_is_absent():  # P-58
    found = body(
        ask("hi", model="gpt-5", options={"verbosity": "low"}), {"verbosity": None, "reasoning_effort": None}
    )
    assert not {"verbosity", "reasoning_effort"} & found.keys()


def test_models_are_not_second_guessed():  # P-32
    assert (
        body(ask("hi", model="o3", temperature=2.0), {"top_p": 0.5}).items()
        >= {"temperature": 2.0, "top_p": 0.5}.items()
    )


def test_schemas_go_as_they_are():  # P-55, C-16
    class Color(enum.Enum):
        RED = "red"

    tool = Tool(name="f", description="", schema={"enum": [Color.RED], "$defs": {"ä": {}}})
    assert body(ask("hi", tools=[tool]))["tools"][0]["function"]["parameters"] == {
        "enum": ["red"],
        "$defs": {"ä": {}},
    }


def test_a_growing_conversation_keeps_its_prefix():  # K-125
    turns = [
        Message(role="system", content="s"),
        Message(role="user", content="u"),
        Message(role="assistant", content="", tool_calls=[ToolCall(id="c", name="f", arguments={})]),
        tool_result("c", "r"),
        Message(role="assistant", content=""),
        Message(role="user", content="v"),
    ]
    bodies = [body(ask(*turns[:n], tools=[TOOL])) for n in range(1, len(turns) + 1)]
    for before, after in itertools.pairwise(bodies):
        assert after["messages"][: len(before["messages"])] == before["messages"]
        assert {**before, "messages": 0} == {**after, "messages": 0}


def test_the_request_is_not_touched():  # C-4
    request = ask("hi", tools=[TOOL], response_format={"type": "x"}, options={"a": {"b": 1}})
    before = request.model_dump_json()
    body(request, stream=True)
    assert request.model_dump_json() == before


def test_the_checks_come_first():  # P-4
    with pytest.raises(ValidationError):
        body(ask(Message(role="tool", content="x")))
