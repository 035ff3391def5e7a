"""The body of a generateContent call: everything but its contents."""

import enum

import pytest

from allm_actors.data import Message, ModelRef, PromptCache, Request, Tool, json_schema
from allm_actors.errors import EngineError, ValidationError
from allm_actors.providers.gemini._wire import GeminiWire

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": False}
TOOL = Tool(name="f", description="does f", schema=SCHEMA)
HI = {"role": "user", "parts": [{"text": "hi"}]}
ONLY_HI = {"contents": [HI]}


def ask(*messages, **fields):
    given = [Message(role="user", content=text) if isinstance(text, str) else text for text in messages]
    return Request(**({"messages": given or [Message(role="user", content="hi")], "model": "g"} | fields))


def body(request, options=None, *, stream=False):
    return GeminiWire().build(request, options or {}, stream=stream).body


def config(call=None, **fields):
    built = body(ask(**fields), call)
    assert built.keys() <= {"contents", "generationConfig"}
    return built.get("generationConfig")


def refused(request, options=None):
    with pytest.raises((ValidationError, EngineError)) as caught:
        body(request, options)
    return caught.value.reason, [tuple(error) for error in getattr(caught.value, "errors", [])]


def test_the_smallest_body():  # P-90, P-91, P-26
    assert body(ask("hi")) == ONLY_HI


def test_everything_typed():  # P-90, P-91, P-96, P-20
    request = ask(
        Message(role="system", content="be brief"),
        "hi",
        temperature=0.5,
        max_tokens=7,
        tools=[TOOL],
        tool_choice="f",
        response_format=json_schema("answer", SCHEMA),
        prompt_cache=PromptCache(key="k", retention="long"),
        options={"seed": 1, "labels": {"a": "b"}},
    )
    expected = [
        ("contents", [HI]),
        ("systemInstruction", {"parts": [{"text": "be brief"}]}),
        (
            "generationConfig",
            {
                "maxOutputTokens": 7,
                "temperature": 0.5,
                "responseMimeType": "application/json",
                "responseJsonSchema": SCHEMA,
                "seed": 1,
                "topP": 0.9,
            },
        ),
        (
            "tools",
            [
                {
                    "functionDeclarations": [
                        {"name": "f", "description": "does f", "parametersJsonSchema": SCHEMA}
                    ]
                }
            ],
        ),
        ("toolConfig", {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}),
        ("labels", {"a": "b"}),
    ]
    assert list(body(request, {"top_p": 0.9}).items()) == expected
    assert list(body(request, {"top_p": 0.9}, stream=True).items()) == expected


@pytest.mark.parametrize(
    ("model", "segment"),
    [
        ("gemini-2.5-flash", "gemini-2.5-flash"),
        ("models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("models/models/x", "models/x"),
        ("tunedModels/a_b", "tunedModels/a_b"),
        ("a:b/c.d-e_f", "a:b/c.d-e_f"),
        ("a b?c#d%e&ü", "a%20b%3Fc%23d%25e%26%C3%BC"),
        (ModelRef(provider="gemini", id="models/x"), "x"),
    ],
)
def test_the_path_names_the_model_and_says_whether_to_stream(model, segment):  # P-7, P-33, P-90
    request = ask(model=model)
    assert GeminiWire().build(request, {}, stream=False).path == f"/models/{segment}:generateContent"
    streamed = GeminiWire().build(request, {}, stream=True)
    assert streamed.path == f"/models/{segment}:streamGenerateContent?alt=sse"
    assert streamed.body == ONLY_HI


@pytest.mark.parametrize("model", [None, "", ModelRef(provider="gemini", id="")])
def test_no_model(model):  # P-33
    assert refused(ask(model=model)) == ("missing_model", [])


def test_system_messages_are_joined_wherever_they_stand():  # P-90
    built = body(ask(Message(role="system", content="a"), "hi", Message(role="system", content="b")))
    assert built == {"contents": [HI], "systemInstruction": {"parts": [{"text": "a\n\nb"}]}}


@pytest.mark.parametrize(
    "messages",
    [
        [Message(role="system", content="a")],
        [Message(role="system", content="a"), Message(role="assistant", content="")],
    ],
)
def test_nothing_to_answer(messages):  # P-90, P-76
    assert refused(ask(*messages)) == ("invalid_request", [(("messages",), "empty")])


# --- generationConfig -----------------------------------------------------------------------------------


def test_formats():  # P-91
    assert config(response_format={"type": "json_object"}) == {"responseMimeType": "application/json"}
    assert config(response_format="json_object") == {"responseMimeType": "application/json"}
    schema = {"type": "object", "$defs": {"ü": {}}, "properties": {}}
    enveloped = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    for wanted in (json_schema("a", schema), enveloped):
        assert config(response_format=wanted) == {
            "responseMimeType": "application/json",
            "responseJsonSchema": schema,
        }
    for none in (None, "text", {"type": "text"}):
        assert config(response_format=none) is None


def test_an_unknown_format_is_dropped_with_a_word(caplog):  # P-91
    caplog.set_level("DEBUG", "allm_actors.providers")
    assert config(response_format={"type": "grammar"}) is None
    assert "grammar" in caplog.text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"top_p": 0.1, "top_k": 3, "seed": 4}, {"topP": 0.1, "topK": 3, "seed": 4}),
        (
            {"presence_penalty": 1, "frequency_penalty": 2},
            {"presencePenalty": 1, "frequencyPenalty": 2},
        ),
        ({"stop": "END"}, {"stopSequences": ["END"]}),
        ({"stop": ["a", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"stop": None}, None),
        ({"topP": 0.2, "thinkingConfig": {"includeThoughts": True}}, {"topP": 0.2, "thinkingConfig": {"includeThoughts": True}}),
        ({"reasoning_effort": "high", "reasoning_summary": "auto", "verbosity": "low"}, None),
        ({"reasoning_effort": None}, None),
    ],
)  # fmt: skip
def test_options_are_renamed(options, expected):  # P-31, P-58, P-91
    assert config(options) == expected
    assert config(options=options) == expected


def test_options_win_and_none_removes():  # P-20, P-2
    fields = {"temperature": 0.5, "max_tokens": 7, "options": {"temperature": 1, "top_k": 2}}
    assert config(**fields) == {"maxOutputTokens": 7, "temperature": 1, "topK": 2}
    assert config({"temperature": None, "top_k": None, "maxOutputTokens": 9}, **fields) == {
        "maxOutputTokens": 9
    }
    assert config({"temperature": None, "maxOutputTokens": None, "top_k": None}, **fields) is None


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("safety_settings", "safetySettings"),
        ("safetySettings", "safetySettings"),
        ("cached_content", "cachedContent"),
        ("cachedContent", "cachedContent"),
        ("tool_config", "toolConfig"),
        ("toolConfig", "toolConfig"),
        ("labels", "labels"),
    ],
)
def test_some_options_stand_at_the_top(name, wire):  # P-91, P-20
    assert body(ask("hi"), {name: {"a": 1}}) == ONLY_HI | {wire: {"a": 1}}
    forced = ask("hi", tools=[TOOL], tool_choice="required", options={name: {"a": 1}})
    assert body(forced)[wire] == {"a": 1}
    assert wire not in body(forced, {name: None, wire: None})


def test_parallel_tool_calls_is_dropped_with_a_word(caplog):  # P-31
    caplog.set_level("DEBUG", "allm_actors.providers")
    assert config({"parallel_tool_calls": False}) is None
    assert caplog.text.count("parallel_tool_calls") == 1


@pytest.mark.parametrize("name", ["model", "messages", "input", "contents", "stream", "api_key"])
def test_reserved_options(name):  # P-21
    expected = ("invalid_request", [(("options", name), "reserved_key")])
    assert refused(ask("hi"), {name: None}) == expected
    assert refused(ask("hi", options={name: "x"})) == expected


@pytest.mark.parametrize("name", ["reasoning_effort", "reasoning_summary", "verbosity"])
def test_reasoning_options_nobody_knows(name):  # P-58
    expected = ("invalid_request", [(("options", name), "unknown_value")])
    assert refused(ask("hi"), {name: "very"}) == expected


def test_the_prompt_cache_changes_nothing():  # P-90
    for retention in ("short", "long"):
        assert body(ask("hi", prompt_cache=PromptCache(key="k", retention=retention))) == ONLY_HI


# --- tools ----------------------------------------------------------------------------------------------


def declared(schema, **members):
    built = body(ask("hi", tools=[Tool(name="f", description="d", schema=schema, **members)]))
    assert built.keys() == {"contents", "tools"}
    (found,) = built["tools"][0]["functionDeclarations"]
    return found


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
    ],
)
def test_a_tool_without_parameters_has_no_schema(schema):  # P-96
    assert declared(schema) == {"name": "f", "description": "d"}


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        {"properties": {"x": {}}, "required": ["x"], "$schema": "s", "examples": [1]},
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"x": {}}}}},
        {"anyOf": [{"type": "object", "properties": {"x": {}}}]},
    ],
)
def test_a_schema_goes_as_it_is(schema):  # P-96
    wire = {"name": "f", "description": "d", "parametersJsonSchema": schema}
    assert declared(schema, strict=True, manual=True, compact=True, summary="s", metadata={"a": 1}) == wire


def test_enum_members_in_a_schema_are_their_values():  # P-96
    schema = declared({"properties": {"c": {"enum": list(Colour)}}})["parametersJsonSchema"]
    assert schema == {"properties": {"c": {"enum": ["red"]}}}


def test_tools_share_one_element():  # P-96
    other = Tool(name="g", description="", schema={})
    (element,) = body(ask("hi", tools=[TOOL, other]))["tools"]
    assert [each["name"] for each in element["functionDeclarations"]] == ["f", "g"]


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("f", {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ({"mode": "VALIDATED"}, {"mode": "VALIDATED"}),
    ],
)
def test_tool_choice(choice, wire):  # P-96, P-30
    built = body(ask("hi", tools=[TOOL], tool_choice=choice))
    assert built.get("toolConfig") == (None if wire is None else {"functionCallingConfig": wire})


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_choice_without_tools_says_nothing(choice):  # P-30
    assert body(ask("hi", tool_choice=choice)) == ONLY_HI


@pytest.mark.parametrize("choice", ["required", "f", {"mode": "ANY"}])
def test_nothing_to_force(choice):  # P-30
    expected = ("invalid_request", [(("tool_choice",), "requires_tools")])
    assert refused(ask("hi", tool_choice=choice)) == expected


def test_an_unknown_tool():  # P-30
    expected = ("invalid_request", [(("tool_choice",), "unknown_tool")])
    assert refused(ask("hi", tools=[TOOL], tool_choice="g")) == expected
