"""Options and inputs of steps and chats: what is refused, when, and what reaches the adapter."""

import math

import pytest

import allm_actors as allm
from allm_actors import Session
from allm_actors.engine import start_engine
from allm_actors.errors import EngineError, ValidationError

from .helpers import ECHO, Rig, call, calls, echo, says, tool

RUNS = [allm.step, allm.chat, allm.stream_step, allm.stream]
RUN_IDS = ["step", "chat", "stream_step", "stream"]

every_run = pytest.mark.parametrize("run", RUNS, ids=RUN_IDS)

WRONG_TYPES = [
    ("mode", 1),
    ("max_turns", True),
    ("max_turns", "3"),
    ("max_turns", 2.0),
    ("halt_when", "yes"),
    ("on_tool_error", 3),
    ("tool_timeout", True),
    ("tool_timeout", "1"),
    ("max_concurrency", True),
    ("max_concurrency", 1.5),
    ("tool_executor", object()),
    ("tool_executor", str),
    ("tool_result_encoder", 1),
    ("context", [1]),
    ("session_id", 5),
    ("request_id", 5),
    ("structured_finalize", "yes"),
    ("structured_finalize_nudge", 5),
    ("tools", ECHO),
    ("tools", ["echo"]),
    ("on_event", 1),
    ("deadline", "soon"),
    ("retry", 3),
]
IMPOSSIBLE = [
    ("mode", "sometimes"),
    ("max_turns", 0),
    ("on_tool_error", "explode"),
    ("on_tool_error", lambda error: None),
    ("tool_timeout", 0),
    ("tool_timeout", math.nan),
    ("max_concurrency", 0),
    ("request_id", ""),
    ("deadline", -1),
]


@every_run
@pytest.mark.parametrize(("name", "value"), WRONG_TYPES, ids=lambda value: str(value)[:20])
def test_an_option_of_the_wrong_type_is_a_type_error_at_the_call(run, name, value):
    """O-3: before anything is contacted, and although this run would never have used it."""
    rig = Rig(says("hi"))

    with pytest.raises(TypeError, match=name):
        run(rig.engine, "hi", **{name: value})

    assert rig.sent == 0


@every_run
@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE, ids=lambda value: str(value)[:20])
def test_an_impossible_option_is_a_value_error_at_the_call(run, name, value):
    """O-3: naming the option and the value."""
    rig = Rig(says("hi"))

    with pytest.raises(ValueError, match=name):
        run(rig.engine, "hi", **{name: value})

    assert rig.sent == 0


@pytest.mark.parametrize("operation", ["start", "stream_start"])
@pytest.mark.parametrize(("name", "value"), [("max_turns", True), ("mode", 1)])
def test_sessions_check_the_same_options(operation, name, value):
    """O-3, O-112."""
    with pytest.raises(TypeError, match=name):
        getattr(Session, operation)(Rig(says("hi")).engine, "hi", **{name: value})


def test_none_is_not_given():
    """O-2: of every option."""
    names = {name for name, _ in WRONG_TYPES + IMPOSSIBLE}
    rig = Rig(says("hi"))

    assert allm.chat(rig.engine, "hi", **dict.fromkeys(names)).text == "hi"


def test_wrong_types_come_before_impossible_values():
    """O-4: whichever was written first."""
    engine = Rig(says("hi")).engine

    with pytest.raises(TypeError, match="max_turns"):
        allm.chat(engine, "hi", mode="sometimes", max_turns="3")
    with pytest.raises(TypeError, match="input"):
        allm.chat(engine, 5, mode="sometimes")
    with pytest.raises(TypeError, match="engine"):
        allm.chat(5, "hi", mode="sometimes")
    with pytest.raises(TypeError, match="into"):
        allm.stream(engine, "hi", mode="sometimes", into="mailbox")


def test_values_come_before_the_thread_and_the_thread_before_the_engine():
    """O-4: types, values, thread, engine, request."""
    hollow = allm.Thread(messages=[allm.Message(role="tool", content="x")])

    with pytest.raises(ValueError, match="mode"):
        allm.chat("nobody", hollow, mode="sometimes")
    with pytest.raises(ValidationError) as refused:
        allm.chat("nobody", hollow)
    assert refused.value.reason == "invalid_thread"
    with pytest.raises(EngineError) as down:
        allm.chat("nobody", [])
    assert down.value.reason == "engine_down"
    with pytest.raises(EngineError) as adapterless:
        allm.chat(allm.Engine(), [])
    assert adapterless.value.reason == "missing_adapter"
    with pytest.raises(ValidationError) as empty:
        allm.chat(Rig().engine, [])
    assert empty.value.reason == "invalid_request"
    assert empty.value.partial is None


def test_a_closed_mailbox_is_refused_before_anything_is_sent():
    """O-53, C-61."""
    rig, mailbox = Rig(says("hi")), allm.Mailbox()
    mailbox.close()

    for open_ in (allm.stream, allm.stream_step):
        with pytest.raises(ValueError, match="closed"):
            open_(rig.engine, "hi", into=mailbox)

    assert rig.sent == 0


@pytest.mark.parametrize("run", [allm.step, allm.chat], ids=["step", "chat"])
def test_only_streams_can_be_put_into_a_mailbox(run):
    """O-2."""
    with pytest.raises(TypeError, match="into"):
        run(Rig(says("hi")).engine, "hi", into=allm.Mailbox())


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_turns", "3"), ("tool_timeout", 0), ("max_concurrency", 0), ("structured_finalize_nudge", 1)],
)
def test_engine_parameters_are_checked_like_options_of_the_call(name, value):
    """O-2: they never fall through to the default; the call's own value wins."""
    rig = Rig(says("hi"), params={name: value})

    with pytest.raises((TypeError, ValueError), match=name):
        allm.chat(rig.engine, "hi")

    good = {"max_turns": 3, "tool_timeout": 1, "max_concurrency": 1, "structured_finalize_nudge": "now"}[name]
    assert allm.chat(rig.engine, "hi", **{name: good}).text == "hi"


def test_engine_parameters_count_and_the_call_wins():
    """O-2."""
    scripts = [calls(call(str(turn), "echo")) for turn in range(4)]
    rig = Rig(*scripts, tools=[ECHO], params={"max_turns": 2})

    assert len(allm.chat(rig.engine, "hi").steps) == 2
    assert len(allm.chat(rig.rewound(), "hi", max_turns=3).steps) == 3


@pytest.mark.parametrize("given", ["call", "engine"])
def test_orchestration_options_stay_here(given):
    """O-5: none reaches the adapter, wherever it came from; sampling parameters are on every turn's request."""
    scripts = [calls(call("1", "echo")), says("done")]
    shared = {"max_turns": 5, "tool_timeout": 9.0, "max_concurrency": 2, "temperature": 0.5, "top_k": 3}
    own = {
        "mode": "auto",
        "halt_when": lambda step: False,
        "on_tool_error": "halt",
        "context": {"a": 1},
        "session_id": "s",
        "request_id": "r",
        "structured_finalize": False,
        "structured_finalize_nudge": "now",
        "tools": [ECHO],
    }
    rig = Rig(*scripts, params=shared if given == "engine" else {})

    allm.chat(rig.engine, "hi", **own, **(shared if given == "call" else {}), max_tokens=7)

    assert [context.options for context in rig.contexts] == [{"top_k": 3}] * 2
    assert [request.options for request in rig.requests] == [{}] * 2
    assert [(request.temperature, request.max_tokens) for request in rig.requests] == [(0.5, 7)] * 2
    assert [request.tool_choice for request in rig.requests] == [None] * 2


@pytest.mark.parametrize(
    "given",
    ["hi", allm.user("hi"), ["hi"], [{"role": "user", "content": "hi"}], allm.Thread().add_user("hi")],
)
def test_every_form_of_input_is_the_same_conversation(given):
    """O-1."""
    result = allm.chat(Rig(says("hello")).engine, given)

    assert [(m.role, m.content) for m in result.thread.messages] == [("user", "hi"), ("assistant", "hello")]


def test_a_request_is_no_input():
    """O-1."""
    with pytest.raises(TypeError, match="Request"):
        allm.chat(Rig().engine, allm.request("hi"))


def test_an_engine_is_a_value_a_reference_or_a_name():
    """O-1; handlers see the reference where there is one (O-69)."""
    seen = []
    rig = Rig(
        calls(call("1", "look")), says("done"), tools=[tool("look", lambda _a, ctx: seen.append(ctx.engine))]
    )
    with start_engine(rig.engine, "chatty") as ref:
        for engine in (rig.engine, ref, "chatty"):
            allm.chat(engine, "hi")
            rig.rewound()

        assert seen == [rig.engine, ref, ref]


def test_an_engine_value_is_read_once():
    """O-1: reconfiguring a started engine changes later runs, not the one in progress."""
    rig = Rig(calls(call("1", "swap")), says("done"), says("again"))

    def swap(arguments, ctx):
        ctx.engine.update(lambda engine: engine.with_model("other"))

    with start_engine(rig.engine.put_tool(tool("swap", swap)), "swapped") as ref:
        allm.chat(ref, "hi")
        allm.chat(ref, "hi")

    assert [request.model for request in rig.requests] == ["m", "m", "other"]


def test_an_unanswered_call_in_the_thread_is_refused():
    """O-6: the error names the calls; once they are answered the thread is fine."""
    rig = Rig(calls(call("1", "pay"), call("2", "pay")), says("done"))
    pay = tool("pay", None, manual=True)
    asked = allm.chat(rig.engine, "hi", tools=[pay])

    with pytest.raises(ValidationError) as refused:
        allm.chat(rig.engine, asked.thread, tools=[pay])

    assert refused.value.reason == "invalid_thread"
    assert refused.value.metadata["tool_call_ids"] == ["1", "2"]
    assert "1, 2" in str(refused.value)
    assert refused.value.partial is None
    answered = asked.thread.add_messages([allm.tool_result(name, "ok") for name in ("1", "2")])
    assert allm.chat(rig.engine, answered, tools=[pay]).text == "done"


def test_metadata_of_the_thread_is_carried_through():
    """O-6, O-9."""
    thread = allm.Thread(messages=[allm.user("hi")], metadata={"mine": 1})

    result = allm.chat(Rig(says("hello")).engine, thread)

    assert result.thread.metadata == {"mine": 1}
    assert len(thread.messages) == 1


def test_effective_tools_are_the_same_on_every_turn():
    """O-7, C-39: the engine's, replaced in place by the call's, new ones appended."""
    other = tool("other", echo)
    replaced = tool("echo", lambda _: "replaced", description="new")
    third = tool("third", echo)
    rig = Rig(calls(call("1", "echo")), says("done"), tools=[ECHO, other])

    result = allm.chat(rig.engine, "hi", tools=[replaced, third])

    assert [request.tools for request in rig.requests] == [[replaced, other, third]] * 2
    assert contents_of_tools(result) == ["replaced"]


def contents_of_tools(result):
    return [message.content for step in result.steps for message in step.tool_results]


def test_one_request_id_for_the_whole_run():
    """O-8: on every turn's context, in every handler, on every response; generated or given."""
    seen = []
    rig = Rig(
        calls(call("1", "look")),
        says("done"),
        tools=[tool("look", lambda _a, ctx: seen.append(ctx.request_id))],
    )

    with allm.stream(rig.engine, "hi") as events:
        result = list(events)[-1].result

    ids = {context.request_id for context in rig.contexts} | set(seen)
    assert ids == {events.request_id}
    assert {step.response.request_id for step in result.steps} == ids
    assert len(events.request_id) == 22
    assert allm.stream(rig.rewound(), "hi", request_id="mine").request_id == "mine"


def test_a_session_id_is_the_key_of_a_cache_without_one():
    """O-113, K-121: it never switches caching on, and a key that is given stays."""
    for options, key in [
        ({"prompt_cache": True}, "s"),
        ({"prompt_cache": {"retention": "long"}}, "s"),
        ({"prompt_cache": allm.PromptCache(key="mine")}, "mine"),
        ({"prompt_cache": False}, None),
        ({}, None),
    ]:
        rig = Rig(says("hi"))
        allm.chat(rig.engine, "hi", session_id="s", **options)
        cache = rig.requests[0].prompt_cache
        assert (cache and cache.key) == key
