"""The body of a Messages call."""

import base64

import pytest

from allm_actors.data import (
    Image,
    ImagePart,
    Message,
    ModelRef,
    PromptCache,
    Request,
    TextPart,
    Tool,
    ToolCall,
    json_schema,
    tool_result,
)
from allm_actors.errors import EngineError, ValidationError
from allm_actors.providers.anthropic import _messages, _structured
from allm_actors.providers.anthropic._wire import AnthropicWire

PNG = b"\x89PNG\r\n\x1a\n"
PIXEL = base64.b64encode(PNG).decode()
TOOL = Tool(
    name="f", description="does f", schema={"type": "object", "properties": {"x": {"type": "integer"}}}
)
WIRE_TOOL = {"name": "f", "description": "does f", "input_schema": TOOL.schema}
SCHEMA = json_schema("answer", {"type": "object", "properties": {"ä": {"type": "string"}}})
LIFTED = "respond_with_json_answer"
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s", "more": [1]}
HIDDEN = {"type": "redacted_thinking", "data": "xyz"}


def ask(*messages, **fields):
    given = [Message(role="user", content=text) if isinstance(text, str) else text for text in messages]
    return Request(**({"messages": given, "model": "claude"} | fields))


def body(request, options=None, *, stream=False, **config):
    built = AnthropicWire(**config).build(request, options or {}, stream=stream)
    assert built.path == "/messages"
    return built.body


def wire(*messages, **fields):
    return body(ask(*messages, **fields))["messages"]


def refused(request, options=None, reason="invalid_request", **config):
    with pytest.raises(ValidationError) as caught:
        body(request, options, **config)
    assert caught.value.reason == reason
    return [(error.path, error.reason) for error in caught.value.errors]


def assistant(content="", blocks=None, **fields):
    kept = {} if blocks is None else {"provider_data": {"anthropic": {"thinking_blocks": blocks}}}
    return Message(role="assistant", content=content, **kept, **fields)


def test_the_smallest_body():  # P-75, P-26
    assert body(ask("hi")) == {
        "model": "claude",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_everything():  # P-75, P-20
    request = ask(
        Message(role="system", content="be brief"),
        "hi",
        temperature=0.5,
        max_tokens=7,
        tools=[TOOL],
        tool_choice="f",
        prompt_cache=PromptCache(key="k", retention="long"),
        options={"top_k": 1, "thinking": {"type": "enabled", "budget_tokens": 2000}},
    )
    assert list(body(request, {"top_p": 0.9}, stream=True).items()) == [
        ("model", "claude"),
        ("max_tokens", 7),
        ("messages", [{"role": "user", "content": "hi"}]),
        ("system", "be brief"),
        ("temperature", 0.5),
        ("tools", [WIRE_TOOL]),
        ("tool_choice", {"type": "tool", "name": "f"}),
        ("cache_control", {"type": "ephemeral", "ttl": "1h"}),
        ("top_k", 1),
        ("thinking", {"type": "enabled", "budget_tokens": 2000}),
        ("top_p", 0.9),
        ("stream", True),
    ]


def test_the_model_may_be_a_reference():  # P-33
    assert body(ask("hi", model=ModelRef(provider="anthropic", id="claude-x")))["model"] == "claude-x"
    for missing in (None, ""):
        with pytest.raises(EngineError) as caught:
            body(ask("hi", model=missing))
        assert caught.value.reason == "missing_model"


def test_system_messages_become_one_prompt_wherever_they_stand():  # P-76, P-22
    built = body(
        ask(
            Message(role="system", content="a"),
            "hi",
            Message(role="system", content=[TextPart(text="b"), TextPart(text="c")]),
            assistant("ok"),
        )
    )
    assert built["system"] == "a\n\nb\nc"
    assert built["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ok"},
    ]


def test_only_system_messages_are_no_question():  # P-76
    assert refused(ask(Message(role="system", content="a"))) == [(("messages",), "empty")]
    assert refused(ask()) == [(("messages",), "empty")]
    assert refused(ask(Message(role="system", content="a"), assistant())) == [(("messages",), "empty")]


def test_a_whole_conversation():  # P-77, P-24, P-22
    calls = [
        ToolCall(id="c1", name="f", arguments={"ä": 1}, raw_arguments='{ "ä": 1 }'),
        ToolCall(id="c2", name="g", arguments={}, raw_arguments="{broken"),
    ]
    assert wire(
        Message(role="user", content=[TextPart(text="a"), TextPart(text="b")]),
        assistant("let me see", tool_calls=calls),
        tool_result("c1", {"a": 1}),
        tool_result("c2", "done"),
        assistant([TextPart(text="it"), TextPart(text="is")]),
        "thanks",
    ) == [
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "let me see"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"ä": 1}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": '{"a":1}'},
                {"type": "tool_result", "tool_use_id": "c2", "content": "done"},
            ],
        },
        {"role": "assistant", "content": "it\nis"},
        {"role": "user", "content": "thanks"},
    ]


def test_calls_without_text_have_no_text_block():  # P-77
    (_, turn) = wire("hi", assistant(tool_calls=[ToolCall(id="c", name="f", arguments={})]))
    assert turn["content"] == [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]


def test_only_adjacent_results_share_a_turn():  # P-78
    call = ToolCall(id="c", name="f", arguments={})
    turns = wire(
        "hi",
        assistant(tool_calls=[call]),
        tool_result("a", "1"),
        Message(role="system", content="not a turn"),
        tool_result("b", "2"),
        "and",
        tool_result("c", "3"),
        assistant("ok"),
        tool_result("d", "4"),
    )
    shape = [
        [block["tool_use_id"] for block in turn["content"]]
        if isinstance(turn["content"], list) and turn["role"] == "user"
        else turn["role"]
        for turn in turns
    ]
    assert shape == ["user", "assistant", ["a", "b"], "user", ["c"], "assistant", ["d"]]


def test_an_assistant_who_said_nothing_is_left_out():  # P-23
    assert [turn["role"] for turn in wire("a", assistant(), "b", assistant([]))] == ["user", "user"]
    assert wire("")[0] == {"role": "user", "content": ""}


def test_white_space_is_nothing_said():  # P-23, P-77
    """Other models write line breaks before a call; sent as a text of its own the API refuses the request."""
    call = ToolCall(id="c", name="f", arguments={})
    turns = wire("a", assistant("\n\n", tool_calls=[call]), tool_result("c", "1"), assistant(" \n"), "b")
    assert turns[1]["content"] == [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "user"]
    assert wire("a", assistant(" x\n"))[1]["content"] == " x\n"


def test_reasoning_blocks_go_back_unchanged_and_first():  # P-84, P-77
    call = ToolCall(id="c", name="f", arguments={})
    turns = wire(
        "hi",
        assistant("so", [THOUGHT, HIDDEN], tool_calls=[call]),
        tool_result("c", "1"),
        assistant("", [HIDDEN]),
        assistant("text", [THOUGHT]),
    )
    assert turns[1]["content"] == [
        THOUGHT,
        HIDDEN,
        {"type": "text", "text": "so"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
    ]
    assert turns[3]["content"] == [HIDDEN]  # nothing was said, but there is something to send back
    assert turns[4]["content"] == [THOUGHT, {"type": "text", "text": "text"}]


@pytest.mark.parametrize(
    "data",
    [
        {"openai": {"thinking_blocks": [THOUGHT]}},
        {"anthropic": None},
        {"anthropic": {"thinking_blocks": "x"}},
        {"anthropic": {"thinking_blocks": [None, "x"]}},
        {"anthropic": [THOUGHT]},
    ],
)
def test_what_is_no_reasoning_of_ours_is_not_sent(data):  # P-26, P-39
    message = Message(role="assistant", content="ok", provider_data=data)
    assert wire("hi", message)[1] == {"role": "assistant", "content": "ok"}


def test_the_blocks_of_a_message_stay_the_messages_own():  # P-84
    message = assistant("so", [THOUGHT])
    first, second = wire("hi", message), wire("hi", message)
    assert first == second
    assert message.provider_data["anthropic"]["thinking_blocks"] == [THOUGHT]


def test_fields_that_never_reach_the_wire():  # P-26
    request = ask(
        Message(role="user", content="hi", name="Ann", metadata={"m": 1}),
        assistant(
            "ok",
            tool_calls=[ToolCall(id="c", name="f", arguments={}, metadata={"m": 1}, provider_data={"x": 1})],
            ask_user_for="c",
            metadata={"m": 1},
        ),
        tools=[
            TOOL.model_copy(update={"metadata": {"m": 1}, "manual": True, "compact": True, "summary": "s"})
        ],
        structured_finalize=True,
        metadata={"m": 1},
    )
    sent = body(request)
    assert sent.keys() == {"model", "max_tokens", "messages", "tools"}
    assert sent["tools"] == [WIRE_TOOL]
    assert [set(turn) for turn in sent["messages"]] == [{"role", "content"}] * 2
    assert sent["messages"][1]["content"][1].keys() == {"type", "id", "name", "input"}


# --- images ---------------------------------------------------------------------------------------------


def test_images(tmp_path):  # P-77, P-79, P-28
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    sources = [
        Image.from_url("https://x.test/a.png"),
        Image.from_url(f"data:image/PNG;base64,{PIXEL}"),
        Image.from_binary(PNG, "image/gif"),
        Image.from_base64(PIXEL, "image/webp"),
        Image.from_file(str(file)),
    ]
    parts = [TextPart(text="see"), *(ImagePart(image=image) for image in sources)]
    (turn,) = wire(Message(role="user", content=parts))

    def encoded(mime):
        return {"type": "base64", "media_type": mime, "data": PIXEL}

    assert turn["content"][0] == {"type": "text", "text": "see"}
    assert [block["type"] for block in turn["content"][1:]] == ["image"] * 5
    assert [block["source"] for block in turn["content"][1:]] == [
        {"type": "url", "url": "https://x.test/a.png"},
        encoded("image/png"),
        encoded("image/gif"),
        encoded("image/webp"),
        encoded("image/png"),
    ]


def test_images_that_cannot_be_sent():  # P-27, P-28
    heic = ImagePart(image=Image.from_binary(PNG, "image/heic"))
    gone = ImagePart(image=Image.from_file("/nowhere/a.png"))
    assert refused(ask(Message(role="user", content=[heic, gone])), reason="invalid_message") == [
        (("content", 0, 0), "unsupported_image_format"),
        (("content", 0, 1), "unresolvable_image"),
    ]
    seen = Message(role="system", content=[heic])
    assert refused(ask("hi", seen), reason="invalid_message") == [
        (("messages", 1, "content"), "image_in_system_message")
    ]


def test_images_of_others_than_the_user_say_nothing():  # P-22
    picture = ImagePart(image=Image.from_binary(PNG, "image/png"))
    turns = wire(
        "hi",
        assistant([TextPart(text="a"), picture]),
        Message(role="tool", content=[picture], tool_call_id="c"),
    )
    assert turns[1]["content"] == "a\n"
    assert turns[2]["content"] == [{"type": "tool_result", "tool_use_id": "c", "content": ""}]


def test_the_detail_of_an_image_is_dropped_and_told_once(monkeypatch):  # P-29
    told = []
    monkeypatch.setattr(_messages, "debug", lambda *args, **kwargs: told.append((args, kwargs)))
    _messages._tell_of_detail.cache_clear()
    picture = Image.from_binary(PNG, "image/png")

    def send(detail):
        (turn,) = wire(Message(role="user", content=[ImagePart(image=picture, detail=detail)] * 2))
        assert all(block.keys() == {"type", "source"} for block in turn["content"])

    send("auto")
    assert told == []
    send("high")
    send("low")
    assert len(told) == 1


# --- tools ----------------------------------------------------------------------------------------------


def test_strict_is_sent_when_asked_for():  # P-80
    (tool,) = body(ask("hi", tools=[TOOL.model_copy(update={"strict": True})]))["tools"]
    assert tool == WIRE_TOOL | {"strict": True}


def test_ids_of_other_providers_are_made_fit():  # P-80
    made = "call.ä/1:2-_Z9"
    _, said, result = wire(
        "hi", assistant(tool_calls=[ToolCall(id=made, name="f", arguments={})]), tool_result(made, "1")
    )
    assert said["content"][0]["id"] == result["content"][0]["tool_use_id"] == "call___1_2-_Z9"


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, None),
        ("auto", None),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("f", {"type": "tool", "name": "f"}),
        ({"type": "x", "y": 1}, {"type": "x", "y": 1}),
    ],
)
def test_tool_choice(choice, sent):  # P-81, P-30
    assert body(ask("hi", tools=[TOOL], tool_choice=choice)).get("tool_choice") == sent


def test_tool_choice_without_tools():  # P-30
    for nothing in (None, "auto", "none"):
        assert "tool_choice" not in body(ask("hi", tool_choice=nothing))
    for forced in ("required", "f", {"type": "any"}):
        assert refused(ask("hi", tool_choice=forced)) == [(("tool_choice",), "requires_tools")]
    assert refused(ask("hi", tools=[TOOL], tool_choice="g")) == [(("tool_choice",), "unknown_tool")]


def test_one_call_at_a_time():  # P-81
    single = {"disable_parallel_tool_use": True}

    def choice(options, **fields):
        sent = body(ask("hi", **fields), options)
        assert "parallel_tool_calls" not in sent
        return sent.get("tool_choice")

    off = {"parallel_tool_calls": False}
    assert choice(off, tools=[TOOL]) == {"type": "auto"} | single
    assert choice(off, tools=[TOOL], tool_choice="required") == {"type": "any"} | single
    assert choice(off, tools=[TOOL], tool_choice="f") == {"type": "tool", "name": "f"} | single
    assert choice(off, tools=[TOOL], tool_choice="none") == {"type": "none"}  # which takes no such member
    assert choice(off | {"tool_choice": {"type": "any"}}, tools=[TOOL]) == {"type": "any"} | single
    assert choice(off) is None
    for allowed in (True, None):
        assert choice({"parallel_tool_calls": allowed}, tools=[TOOL]) is None


def test_tool_results_name_their_call():  # P-25
    assert refused(
        ask("hi", Message(role="tool", content="x"), Message(role="tool", content="x", tool_call_id=""))
    ) == [
        (("messages", 1, "tool_call_id"), "required"),
        (("messages", 2, "tool_call_id"), "required"),
    ]


# --- options --------------------------------------------------------------------------------------------


def test_prompt_cache():  # P-82
    assert "cache_control" not in body(ask("hi"))
    short = ask("hi", prompt_cache=PromptCache(key="secret-key"))
    assert body(short)["cache_control"] == {"type": "ephemeral"}
    assert "secret-key" not in str(body(short))
    assert body(short, {"cache_control": {"type": "x"}})["cache_control"] == {"type": "x"}
    assert "cache_control" not in body(short, {"cache_control": None})


def test_options_go_verbatim_and_over_what_is_typed():  # P-20, P-31
    sent = body(
        ask("hi", temperature=0.1, options={"top_k": 3, "seed": 1, "presence_penalty": 0.5}),
        {"max_tokens": 9, "temperature": None, "metadata": {"user_id": "u"}, "seed": None},
    )
    assert sent["max_tokens"] == 9
    assert (sent["top_k"], sent["presence_penalty"], sent["metadata"]) == (3, 0.5, {"user_id": "u"})
    assert not {"temperature", "seed"} & sent.keys()


def test_stop_is_a_list_of_sequences():  # P-31
    assert body(ask("hi"), {"stop": "END"})["stop_sequences"] == ["END"]
    assert body(ask("hi"), {"stop": ["a", "b"]})["stop_sequences"] == ["a", "b"]
    assert "stop" not in body(ask("hi"), {"stop": "END"})
    assert "stop_sequences" not in body(ask("hi", options={"stop_sequences": ["x"]}), {"stop": None})
    assert body(ask("hi", options={"stop": "x"}), {"stop_sequences": ["y"]})["stop_sequences"] == ["y"]


def test_reserved_options():  # P-21
    for name in ("model", "messages", "input", "contents", "stream", "api_key"):
        assert refused(ask("hi"), {name: 1}) == [(("options", name), "reserved_key")]


def test_reasoning_options_are_checked_and_ignored():  # P-58, P-20
    options = {"reasoning_effort": "high", "reasoning_summary": "auto", "verbosity": "low"}
    assert body(ask("hi"), options) == body(ask("hi"))
    assert refused(ask("hi"), {"verbosity": "loud"}) == [(("options", "verbosity"), "unknown_value")]


# --- structured output ----------------------------------------------------------------------------------


def test_a_schema_becomes_a_forced_tool():  # P-88
    sent = body(ask("hi", tools=[TOOL], tool_choice="f", response_format=SCHEMA))
    assert sent["tools"][0] == WIRE_TOOL
    lifted = sent["tools"][1]
    assert lifted.keys() == {"name", "description", "input_schema"}
    assert (lifted["name"], lifted["input_schema"]) == (LIFTED, SCHEMA["schema"])
    assert "final answer" in lifted["description"]
    assert sent["tool_choice"] == {"type": "tool", "name": LIFTED}
    assert "output_config" not in sent


def test_what_structures_the_answer_has_the_last_word():  # P-20, P-88, P-81
    options = {
        "tools": [{"type": "web_search"}],
        "tool_choice": {"type": "any"},
        "parallel_tool_calls": False,
    }
    sent = body(ask("hi", response_format=SCHEMA), options)
    assert [tool.get("name") for tool in sent["tools"]] == [None, LIFTED]
    assert sent["tool_choice"] == {"type": "tool", "name": LIFTED, "disable_parallel_tool_use": True}


def test_a_schema_the_api_knows_itself():  # P-88
    sent = body(ask("hi", tools=[TOOL], tool_choice="f", response_format=SCHEMA), structured_output="native")
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA["schema"]}}
    assert sent["tools"] == [WIRE_TOOL]
    assert sent["tool_choice"] == {"type": "tool", "name": "f"}
    beside = body(
        ask("hi", response_format=SCHEMA), {"output_config": {"effort": "low"}}, structured_output="native"
    )
    assert beside["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": SCHEMA["schema"]},
    }


@pytest.mark.parametrize("mode", ["tool", "native"])
@pytest.mark.parametrize("wanted", [{"type": "json_object"}, {"type": "grammar"}, "json_object"])
def test_other_formats_are_dropped_with_a_line(monkeypatch, mode, wanted):  # P-88
    told = []
    monkeypatch.setattr(_structured, "debug", lambda *args, **kwargs: told.append((args, kwargs)))
    assert body(ask("hi", response_format=wanted), structured_output=mode) == body(ask("hi"))
    assert len(told) == 1


def test_plain_text_needs_no_line(monkeypatch):  # P-88
    monkeypatch.setattr(_structured, "debug", lambda *_, **__: pytest.fail("told"))
    assert body(ask("hi", response_format="text")) == body(ask("hi"))


def test_a_schema_in_an_envelope():  # P-88
    envelope = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA["schema"]}}
    assert body(ask("hi", response_format=envelope)) == body(ask("hi", response_format=SCHEMA))
    bare = body(ask("hi", response_format={"type": "json_schema"}))
    assert bare["tools"][0]["input_schema"] == {"type": "object"}
    assert bare["tool_choice"]["name"] == bare["tools"][0]["name"] == "respond_with_json_"
