"""The body of a Responses call."""

import base64
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
from allm_actors.providers.openai._wire import OpenAIWire

PNG = b"\x89PNG\r\n\x1a\n"
PIXEL = base64.b64encode(PNG).decode()
TOOL = Tool(name="f", description="does f", schema={"type": "object"})


def ask(*messages, **fields):
    given = [Message(role="user", content=text) if isinstance(text, str) else text for text in messages]
    return Request(**({"messages": given, "model": "gpt-5"} | fields))


def body(request, options=None, *, stream=False):
    built = OpenAIWire().build(request, options or {}, stream=stream)
    assert built.path == "/responses"
    return built.body


def test_the_smallest_body():  # P-65, P-50
    assert body(ask("hi")) == {"model": "gpt-5", "input": [{"role": "user", "content": "hi"}]}


def test_everything_typed():  # P-65, P-67, P-57, P-20
    request = ask(
        "hi",
        temperature=0.5,
        max_tokens=7,
        tools=[TOOL, TOOL.model_copy(update={"name": "g", "strict": True})],
        tool_choice="f",
        response_format=json_schema("answer", {"type": "object"}),
        prompt_cache=PromptCache(key="k", retention="long"),
        options={"seed": 1, "reasoning_effort": "low", "reasoning_summary": "auto", "verbosity": "high"},
    )
    assert list(body(request, {"store": False}, stream=True).items()) == [
        ("model", "gpt-5"),
        ("input", [{"role": "user", "content": "hi"}]),
        ("temperature", 0.5),
        ("max_output_tokens", 7),
        (
            "tools",
            [
                {
                    "type": "function",
                    "name": "f",
                    "description": "does f",
                    "parameters": {"type": "object"},
                    "strict": False,
                },
                {
                    "type": "function",
                    "name": "g",
                    "description": "does f",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            ],
        ),
        ("tool_choice", {"type": "function", "name": "f"}),
        (
            "text",
            {
                "format": {
                    "type": "json_schema",
                    "name": "answer",
                    "schema": {"type": "object"},
                    "strict": True,
                },
                "verbosity": "high",
            },
        ),
        ("prompt_cache_key", "k"),
        ("prompt_cache_retention", "24h"),
        ("seed", 1),
        ("store", False),
        ("reasoning", {"effort": "low", "summary": "auto"}),
        ("stream", True),
    ]


def test_a_whole_conversation():  # P-66, P-23, P-24
    calls = [
        ToolCall(id="c1", name="f", arguments={"a": 1}, provider_data={"openai": {"generated_id": True}}),
        ToolCall(id="c2", name="g", arguments={}, raw_arguments="{broken"),
    ]
    request = ask(
        Message(role="system", content="be brief"),
        "hi",
        Message(role="assistant", content="let me see", tool_calls=calls),
        tool_result("c1", "one"),
        tool_result("c2", ["two"]),
        Message(role="assistant", content=""),
        Message(role="assistant", content="", tool_calls=calls[:1]),
        tool_result("c1", ""),
        Message(role="assistant", content="done"),
    )
    assert body(request)["input"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "let me see"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{broken"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": '["two"]'},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": ""},
        {"role": "assistant", "content": "done"},
    ]


def test_images():  # P-66, P-54
    content = [
        TextPart(text="look"),
        ImagePart(image=Image.from_url("https://example.com/a.png"), detail="low"),
        ImagePart(image=Image.from_binary(PNG, "image/png")),
    ]
    assert body(ask(Message(role="user", content=content)))["input"] == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (None, None),
        ("text", {"format": {"type": "text"}}),
        ({"type": "json_object"}, {"format": {"type": "json_object"}}),
        (
            json_schema("a", {}, strict=False),
            {"format": {"type": "json_schema", "name": "a", "schema": {}, "strict": False}},
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": True}},
            {"format": {"type": "json_schema", "name": "a", "schema": {}, "strict": True}},
        ),
        ({"type": "grammar"}, {"format": {"type": "grammar"}}),
    ],
)
def test_response_formats(wanted, sent):  # P-67
    assert body(ask("hi", response_format=wanted)).get("text") == sent


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("f", {"type": "function", "name": "f"}),
        ({"type": "web_search"}, {"type": "web_search"}),
    ],
)
def test_tool_choice(choice, sent):  # P-65
    assert body(ask("hi", tools=[TOOL], tool_choice=choice))["tool_choice"] == sent


def test_reasoning_options_join_what_the_options_put_there():  # P-67, P-20
    found = body(
        ask("hi", response_format={"type": "json_object"}),
        {
            "reasoning": {"encrypted": True, "effort": "high"},
            "text": {"format": {"type": "x"}},
            "reasoning_effort": "low",
            "verbosity": "low",
        },
    )
    assert found["reasoning"] == {"encrypted": True, "effort": "low"}
    assert found["text"] == {"format": {"type": "x"}, "verbosity": "low"}
    assert not {"reasoning_effort", "verbosity"} & found.keys()


def test_only_what_is_given_is_sent():  # P-67, P-58
    assert body(ask("hi"), {"reasoning_summary": "concise"})["reasoning"] == {"summary": "concise"}
    assert body(ask("hi"), {"verbosity": "low"})["text"] == {"verbosity": "low"}
    assert not {"reasoning", "text"} & body(ask("hi"), {"reasoning_effort": None, "verbosity": None}).keys()


def test_streaming_asks_for_no_usage():  # P-65
    assert body(ask("hi"), stream=True).keys() == {"model", "input", "stream"}


def test_a_growing_conversation_keeps_its_prefix():  # K-125
    turns = [
        "u",
        Message(role="assistant", content="", tool_calls=[ToolCall(id="c", name="f", arguments={})]),
        tool_result("c", "r"),
        "v",
    ]
    inputs = [body(ask(*turns[:n]))["input"] for n in range(1, len(turns) + 1)]
    for before, after in itertools.pairwise(inputs):
        assert after[: len(before)] == before
