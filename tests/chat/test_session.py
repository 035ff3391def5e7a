"""Sessions: every status with every operation, what each leads to, and that they survive anything."""

import asyncio
import json
import os
import pathlib
import pickle
import subprocess
import sys

import pytest

import allm_actors as allm
from allm_actors import AskUser, Halt, Session, StreamReducer
from allm_actors.data import ToolCall
from allm_actors.data import validation as validate
from allm_actors.errors import AdapterError, SessionError, ToolError, ValidationError

from .helpers import ECHO, SOON, Rig, call, calls, contents, roles, says, tool, types

ROOT = pathlib.Path(__file__).parents[2]
PAY = tool("pay", None, manual=True)
FAIL = tool("fail", lambda _: 1 / 0)
STOP = tool("stop", lambda _: Halt("enough", 1))
ASK = tool("ask", lambda _: AskUser("Which?", choices=["a"]))
TOOLS = [ECHO, PAY, FAIL, STOP, ASK]
STATUSES = ["idle", "completed", "awaiting_user", "awaiting_tools", "error"]


def rig(*scripts, **fields):
    return Rig(*scripts, tools=TOOLS, **fields)


def session_in(status):
    """A session that got into its status the way a session does."""
    match status:
        case "idle":
            return Session(id="s", thread=allm.Thread().add_user("hi"), context={"c": 1}, metadata={"m": 1})
        case "completed":
            return Session.start(rig(says("hello")).engine, session_in("idle"))[0]
        case "awaiting_user":
            return Session.start(rig(calls(call("1", "ask"))).engine, session_in("idle"))[0]
        case "awaiting_tools":
            return Session.start(rig(calls(call("1", "pay"), call("2", "pay"))).engine, session_in("idle"))[0]
        case "error":
            return Session.start(rig([("error", "network_error", {})]).engine, session_in("idle"))[0]


def check_row(session):
    """O-101: the fields that go with the status."""
    assert bool(session.pending_tool_calls) == (session.status == "awaiting_tools")
    assert (session.pending_question is not None) == (session.status == "awaiting_user")
    assert (session.pending_tool_call_id is not None) == (session.status == "awaiting_user")
    assert (session.error is not None) == (session.status == "error")
    if session.status != "awaiting_user":
        assert session.ask_user_options == {}
    validate.session(session)


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_its_fields(status):
    """O-101."""
    session = session_in(status)

    assert session.status == status
    check_row(session)
    assert (session.id, session.context, session.metadata) == ("s", {"c": 1}, {"m": 1})


# --- every cell of the table ------------------------------------------------------------------------------

RUNS, ISO, SES, SAME = "runs", "invalid_status_for_operation", "session_in_error_state", "same"
OPERATIONS = {
    "start": Session.start,
    "reply": lambda e, s: Session.reply(e, s, "more"),
    "continue_ with user messages": lambda e, s: Session.continue_(e, s, ["more", allm.user("and more")]),
    "continue_ with another role": lambda e, s: Session.continue_(
        e, s, [allm.user("more"), allm.system("x")]
    ),
    "continue_(None)": Session.continue_,
    "step": Session.step,
    "submit_tool_result": lambda e, s: Session.submit_tool_result(s, "1", "x"),
    "submit_tool_results([])": lambda e, s: Session.submit_tool_results(s, []),
    "submit_tool_results([...])": lambda e, s: Session.submit_tool_results(s, [("1", "x")]),
    "reset_error": lambda e, s: Session.reset_error(s),
}
STREAMS = {
    "start": Session.stream_start,
    "reply": lambda e, s, **o: Session.stream_reply(e, s, "more", **o),
    "continue_ with user messages": lambda e, s, **o: Session.stream_continue(
        e, s, ["more", allm.user("and more")], **o
    ),
    "continue_ with another role": lambda e, s, **o: Session.stream_continue(
        e, s, [allm.user("more"), allm.system("x")], **o
    ),
    "continue_(None)": Session.stream_continue,
    "step": Session.stream_step,
}
#                               idle  completed  awaiting_user  awaiting_tools  error
TABLE = {
    "start":                        [RUNS, RUNS, ISO, ISO, SES],
    "reply":                        [RUNS, RUNS, RUNS, ISO, SES],
    "continue_ with user messages": [RUNS, RUNS, RUNS, ISO, SES],
    "continue_ with another role":  [RUNS, RUNS, ISO, ISO, SES],
    "continue_(None)":              [RUNS, RUNS, ISO, ISO, SES],
    "step":                         [RUNS, RUNS, ISO, ISO, SES],
    "submit_tool_result":           [ISO, ISO, ISO, RUNS, SES],
    "submit_tool_results([])":      [SAME, SAME, SAME, SAME, SAME],
    "submit_tool_results([...])":   [ISO, ISO, ISO, RUNS, SES],
    "reset_error":                  [ISO, ISO, ISO, ISO, RUNS],
}  # fmt: skip
CELLS = [(op, status, cell) for op, row in TABLE.items() for status, cell in zip(STATUSES, row, strict=True)]


@pytest.mark.parametrize(("operation", "status", "cell"), CELLS, ids=lambda value: str(value)[:28])
def test_every_cell(operation, status, cell):
    """O-102, O-9: and the session that was passed in is as it was."""
    session, it = session_in(status), rig(says("answer"))
    before = session.model_copy(deep=True)

    if cell in (ISO, SES):
        with pytest.raises(SessionError) as refused:
            OPERATIONS[operation](it.engine, session)
        assert refused.value.reason == cell
        assert refused.value.metadata["status"] == status
        assert refused.value.metadata["operation"] == operation.split("(")[0].split()[0]
        assert any(name in str(refused.value) for name in ("reply", "submit_tool_result", "reset_error"))
        assert it.sent == 0
    elif cell is SAME:
        assert OPERATIONS[operation](it.engine, session) is session
    else:
        outcome = OPERATIONS[operation](it.engine, session)
        after = outcome[0] if isinstance(outcome, tuple) else outcome
        check_row(after)
        assert isinstance(outcome, tuple) == (it.sent == 1)
        if it.sent:
            assert after.status == "completed"
            assert after.thread == outcome[1].thread
            assert after.thread.messages[: len(session.thread.messages)] == session.thread.messages
            assert after.thread.messages[-1].content == "answer"
            added = [m.content for m in after.thread.messages[len(session.thread.messages) : -1]]
            wanted = {
                "reply": ["more"],
                "continue_ with user messages": ["more", "and more"],
                "continue_ with another role": ["more", "x"],
            }
            assert added == wanted.get(operation, [])
        elif operation == "reset_error":
            assert (after.status, after.error) == ("idle", None)
            assert after.thread == session.thread
        else:
            assert after.status == "awaiting_tools"
            assert [c.id for c in after.pending_tool_calls] == ["2"]
    assert session == before


@pytest.mark.parametrize(
    ("operation", "status", "cell"),
    [cell for cell in CELLS if cell[0] in STREAMS],
    ids=lambda value: str(value)[:28],
)
@pytest.mark.parametrize("mailbox", [False, True], ids=["stream", "mailbox"])
def test_every_cell_as_a_stream(operation, status, cell, mailbox):
    """O-102, O-53, O-122: what is refused is refused by the call; what runs folds to the same."""
    session, it = session_in(status), rig(says("answer"))
    into = allm.Mailbox() if mailbox else None

    if cell != RUNS:
        with pytest.raises(SessionError) as refused:
            STREAMS[operation](it.engine, session, into=into)
        assert refused.value.reason == cell
        assert it.sent == 0
        return
    if mailbox:
        with into:
            handle = STREAMS[operation](it.engine, session, into=into, request_id="r")
            fold = handle.reducer()
            assert handle.session is session
            for envelope in into:
                fold.apply(envelope.event)
        folded = fold.finalize()
    else:
        with STREAMS[operation](it.engine, session, request_id="r") as events:
            assert events.session is session
            folded = events.drain()
    it.rewound()
    plain = {"start": Session.start, "step": Session.step}.get(operation)
    if plain is not None:
        assert folded == plain(it.engine, session, request_id="r")
    else:
        check_row(folded[0])
        assert folded[0].thread.messages[-1].content == "answer"


def test_continuing_when_nothing_is_pending_any_more():
    """O-102: a session that says `awaiting_tools` and has nothing pending runs."""
    session = Session(status="awaiting_tools", thread=allm.Thread().add_user("hi"))

    assert Session.continue_(rig(says("x")).engine, session)[0].status == "completed"


# --- arguments --------------------------------------------------------------------------------------------


def test_the_engine_comes_first():
    """O-100: swapped they are a `TypeError`; so is anything that is no session."""
    engine, session = rig(says("x")).engine, Session()
    for operation in (Session.reply, Session.continue_, Session.stream_reply, Session.stream_continue):
        with pytest.raises(TypeError, match="engine"):
            operation(session, engine, "hi")
        with pytest.raises(TypeError, match="session"):
            operation(engine, "hi", "hi")
    for operation in (Session.step, Session.stream_step):
        with pytest.raises(TypeError):
            operation(session, engine)
    with pytest.raises(TypeError):
        Session.start(session, engine)
    for operation in (Session.reset_error, lambda s: Session.submit_tool_results(s, [])):
        with pytest.raises(TypeError, match="session"):
            operation(engine)


@pytest.mark.parametrize(
    "given", [allm.Thread(), 5, None, allm.request("x"), [5]], ids=lambda g: type(g).__name__
)
def test_what_a_reply_takes(given):
    """O-100: one of the inputs except a thread."""
    with pytest.raises(TypeError):
        Session.reply(rig().engine, session_in("idle"), given)
    if given is not None:
        with pytest.raises(TypeError):
            Session.continue_(rig().engine, session_in("idle"), given)


@pytest.mark.parametrize("given", [allm.system("x"), ["a", allm.assistant("b")], []])
def test_a_reply_is_of_the_user(given):
    """O-100."""
    with pytest.raises(ValueError, match="user"):
        Session.reply(rig().engine, session_in("idle"), given)


def test_ids():
    """O-100: a new session is named; an id never changes; it is not forwarded."""
    it = rig(says("x"), says("y"), says("z"))

    assert Session.start(it.engine, "hi", id="mine")[0].id == "mine"
    assert Session.start(it.engine, session_in("idle"), id="s")[0].id == "s"
    with pytest.raises(ValueError, match="other"):
        Session.start(it.engine, session_in("idle"), id="other")
    with pytest.raises(TypeError, match="id"):
        Session.start(it.engine, "hi", id=5)
    assert [context.options for context in it.contexts] == [{}, {}]


def test_the_order_of_the_checks():
    """O-103: argument types, then the session's state, then the rest; the session stays usable."""
    session = session_in("error")

    with pytest.raises(TypeError):
        Session.reply(rig().engine, session, "x", max_turns="3")
    with pytest.raises(TypeError):
        Session.reply(rig().engine, session, 5, mode="sometimes")
    with pytest.raises(SessionError):
        Session.reply("nobody", session, allm.system("x"), mode="sometimes")
    with pytest.raises(SessionError):
        Session.start("nobody", session, id="other")
    with pytest.raises(ValueError, match="mode"):
        Session.reply("nobody", session_in("idle"), "x", mode="sometimes")
    unanswered = session_in("awaiting_tools").model_copy(update={"status": "idle", "pending_tool_calls": []})
    with pytest.raises(ValidationError):
        Session.continue_("nobody", unanswered)


def test_preflight_failures_raise_and_later_ones_are_data():
    """O-104."""
    session = session_in("idle")
    with pytest.raises(AdapterError) as raised:
        Session.start(rig([("preflight_error", "authentication_failed", {})]).engine, session)
    assert raised.value.partial is None

    it = rig(calls(call("1", "echo", x="e")), [("preflight_error", "authentication_failed", {})])
    after, result = Session.start(it.engine, session)
    assert (after.status, after.error, after.halted_reason) == ("error", result.error, "error")
    assert after.error.reason == "authentication_failed"
    assert contents(after.thread) == ["e"]

    for script in ([("error", "network_error", {})], calls(call("1", "nobody"))):
        after, result = Session.start(rig(script).engine, session)
        assert after.status == "error"
        assert after.error == result.error
        stepped, step = Session.step(rig(script).engine, session)
        assert stepped.error == step.error == result.error


def test_callbacks_raise():
    """O-104: and bugs."""
    with pytest.raises(ZeroDivisionError):
        Session.start(rig(says("x")).engine, "hi", on_event=lambda e: 1 / 0)
    with pytest.raises(LookupError):
        Session.start(rig(calls(call("1", "echo"))).engine, "hi", halt_when=lambda s: {}["x"])


# --- results become status --------------------------------------------------------------------------------

LOOPS = [
    ([says("x")], {}, "completed", "completed"),
    ([calls(call("1", "echo"))], {"max_turns": 1}, "completed", "max_turns"),
    ([calls(call("1", "echo"))], {"halt_when": bool}, "completed", "halt_when"),
    ([calls(call("1", "stop"))], {}, "completed", "enough"),
    ([calls(call("1", "ask"))], {}, "awaiting_user", "ask_user"),
    ([calls(call("1", "pay"))], {}, "awaiting_tools", "manual_tool_calls"),
    ([calls(call("1", "echo"))], {"mode": "manual"}, "awaiting_tools", "manual_tool_calls"),
    ([calls(call("1", "fail"))], {"on_tool_error": "halt"}, "error", "tool_error"),
    ([[("error", "network_error", {})]], {}, "error", "error"),
    ([calls(call("1", "pay"), call("2", "ask"))], {}, "awaiting_user", "ask_user"),
]


@pytest.mark.parametrize(("scripts", "options", "status", "reason"), LOOPS)
def test_a_loops_result_becomes_a_status(scripts, options, status, reason):
    """O-105 first table, O-106, O-109, O-112: every option is passed on."""
    after, result = Session.start(rig(*scripts).engine, "hi", id="x", **options)

    assert (after.status, after.halted_reason) == (status, reason)
    assert after.thread == result.thread
    assert after.pending_tool_calls == result.manual_tool_calls
    assert after.error == result.error
    if status == "awaiting_user":
        assert (after.pending_question, after.pending_tool_call_id) == ("Which?", call_id(result))
        assert after.ask_user_options == {"choices": ["a"]}
        assert after.thread.messages[-1].ask_user_for == call_id(result)
    check_row(after)


def call_id(result):
    return result.pending_tool_call_id


STEPS = [
    (says("x"), {}, "completed", None),
    (calls(call("1", "echo")), {}, "idle", None),
    (calls(call("1", "ask")), {}, "awaiting_user", "ask_user"),
    (calls(call("1", "pay"), call("2", "echo")), {}, "awaiting_tools", None),
    (calls(call("1", "echo")), {"mode": "manual"}, "awaiting_tools", None),
    (calls(call("1", "stop")), {}, "completed", "enough"),
    (calls(call("1", "fail")), {"on_tool_error": "halt"}, "error", "tool_error"),
    ([("error", "network_error", {})], {}, "error", "error"),
]


@pytest.mark.parametrize(("script", "options", "status", "reason"), STEPS)
def test_a_steps_result_becomes_a_status(script, options, status, reason):
    """O-105 second table, O-106, O-111."""
    after, result = Session.step(rig(script).engine, session_in("idle"), **options)

    assert (after.status, after.halted_reason) == (status, reason)
    assert after.thread == result.thread
    check_row(after)
    if status == "awaiting_user":
        assert roles(after.thread)[-1] == "tool"
        replied, answer = Session.reply(rig(says("fine")).engine, after, "a")
        assert answer.text == "fine"
        assert replied.status == "completed"


# --- answering --------------------------------------------------------------------------------------------


def test_answering_one_by_one():
    """O-107: at the end of the thread, without a model call; `idle` when none is left."""
    session = session_in("awaiting_tools")

    half = Session.submit_tool_result(session, "2", {"ok": [1, "é"]})
    whole = Session.submit_tool_result(half, "1", "plain")

    assert (half.status, [c.id for c in half.pending_tool_calls]) == ("awaiting_tools", ["1"])
    assert (whole.status, whole.pending_tool_calls) == ("idle", [])
    assert [(m.tool_call_id, m.content) for m in whole.thread.messages[-2:]] == [
        ("2", '{"ok":[1,"é"]}'),
        ("1", "plain"),
    ]
    assert Session.continue_(rig(says("paid")).engine, whole)[1].text == "paid"
    assert Session.step(rig(says("paid")).engine, whole)[0].status == "completed"
    with Session.stream_continue(rig(says("paid")).engine, whole) as events:
        assert events.drain()[0].status == "completed"


@pytest.mark.parametrize("id", ["9", "2"])
def test_an_id_that_is_not_pending(id):
    """O-107: never was, or was submitted already."""
    session = Session.submit_tool_result(session_in("awaiting_tools"), "2", "x")

    with pytest.raises(SessionError) as refused:
        Session.submit_tool_result(session, id, "x")

    assert refused.value.reason == "unknown_tool_call_id"
    assert refused.value.metadata == {"tool_call_id": id}


def test_a_call_that_was_executed_is_not_pending():
    """O-107, O-109."""
    session, _ = Session.start(rig(calls(call("1", "pay"), call("2", "echo"))).engine, "hi")

    with pytest.raises(SessionError):
        Session.submit_tool_result(session, "2", "x")


@pytest.mark.parametrize(
    ("content", "stored"),
    [
        ("text", "text"),
        ("", ""),
        (None, "null"),
        (0, "0"),
        ([1, 2], "[1,2]"),
        ([], "[]"),
        ({"a": 1}, '{"a":1}'),
        ([allm.TextPart(text="t")],) * 2,
    ],
)
def test_contents(content, stored):
    """O-107."""
    session = Session.submit_tool_result(session_in("awaiting_tools"), "1", content)

    assert session.thread.messages[-1].content == stored


@pytest.mark.parametrize(
    "content", [object(), {1: 2}, float("nan"), b"x", [object()], [allm.TextPart(text="t"), "x"]], ids=repr
)
def test_contents_that_are_none(content):
    """O-107; types come before the status (O-103)."""
    for status in ("awaiting_tools", "idle", "error"):
        with pytest.raises(TypeError):
            Session.submit_tool_result(session_in(status), "1", content)
    with pytest.raises(TypeError):
        Session.submit_tool_result(session_in("awaiting_tools"), 1, "x")


@pytest.mark.parametrize(
    "results", [[("1", "a"), ("2", "b")], {"1": "a", "2": "b"}, (p for p in [("1", "a"), ["2", "b"]])]
)
def test_answering_all_at_once(results):
    """O-108: as one by one."""
    session = session_in("awaiting_tools")

    both = Session.submit_tool_results(session, results)

    assert both == Session.submit_tool_result(Session.submit_tool_result(session, "1", "a"), "2", "b")


@pytest.mark.parametrize(
    ("results", "offender"),
    [([("1", "a"), ("9", "b")], "9"), ([("1", "a"), ("1", "b")], "1"), ([("8", "a"), ("9", "b")], "8")],
)
def test_all_or_nothing(results, offender):
    """O-108: the first offender in order, even if the others before it were good."""
    with pytest.raises(SessionError) as refused:
        Session.submit_tool_results(session_in("awaiting_tools"), results)

    assert refused.value.metadata == {"tool_call_id": offender}


@pytest.mark.parametrize("results", ["12", 5, [("1",)], ["1"], [(1, "x")], None])
def test_results_of_the_wrong_type(results):
    """O-108, O-103."""
    for status in STATUSES:
        with pytest.raises(TypeError):
            Session.submit_tool_results(session_in(status), results)


def test_a_reply_answers_the_question():
    """O-110: after the question message; the placeholder stays; a new question may follow."""
    session = session_in("awaiting_user")

    after, result = Session.reply(rig(calls(call("2", "ask"))).engine, session, "a")

    assert [m.role for m in after.thread.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert contents(after.thread) == ["<awaiting user response>"] * 2
    assert (after.status, after.pending_tool_call_id) == ("awaiting_user", "2")
    assert result.halted_reason == "ask_user"


def test_the_status_of_submitting_leaves_the_reason_alone():
    """O-101: `halted_reason` is that of the last operation that ran a turn."""
    session = session_in("awaiting_tools")

    assert Session.submit_tool_results(session, {"1": "a", "2": "b"}).halted_reason == "manual_tool_calls"
    assert Session.reset_error(session_in("error")).halted_reason == "error"


def test_appending_checks_nothing():
    """Section 9: the thread only."""
    session = session_in("error")

    appended = Session.append_tool_result(
        Session.append_user(Session.append(session, allm.system("s")), "u"), "9", {"a": 1}
    )

    assert [m.content for m in appended.thread.messages[-3:]] == ["s", "u", '{"a":1}']
    assert appended.status == "error"


# --- options ----------------------------------------------------------------------------------------------


def test_defaults_from_the_session():
    """O-113, O-81: the session's id and non-empty context, unless the call has its own."""
    seen = []
    look = tool("look", lambda _a, ctx: seen.append((ctx.session_id, ctx.context)))

    def start(session, **options):
        engine = Rig(calls(call("1", "look")), says("x"), tools=[look], context={"engine": 1}).engine
        Session.start(engine, session, **options)

    start(session_in("idle"))
    start(session_in("idle"), session_id="mine", context={})
    start(Session(thread=allm.Thread().add_user("x")))

    assert seen == [("s", {"c": 1}), ("mine", {}), (None, {"engine": 1})]


def test_mode_is_not_remembered():
    """O-112, O-40."""
    it = rig(calls(call("1", "echo")), calls(call("2", "echo")), says("x"))
    session, _ = Session.start(it.engine, "hi", mode="manual")
    session = Session.submit_tool_result(session, "1", "x")

    assert Session.continue_(it.engine, session)[0].status == "completed"


def test_the_sessions_id_is_the_key_of_its_cache():
    """O-113."""
    for session, options, key in [
        (session_in("idle"), {"prompt_cache": True}, "s"),
        (session_in("idle"), {}, None),
        (Session(id="", thread=allm.Thread().add_user("x")), {"prompt_cache": True}, None),
    ]:
        it = rig(says("x"))
        Session.start(it.engine, session, **options)
        assert getattr(it.requests[0].prompt_cache, "key", None) == key


# --- persistence ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", STATUSES)
def test_a_session_survives_json_and_pickle(status):
    """O-114: calls, vision parts and errors included."""
    session = session_in(status)
    image = allm.Image.from_base64("AAAA", "image/png")
    session = Session.append(session, allm.Message(role="user", content=[allm.ImagePart(image=image)]))

    assert Session.model_validate_json(session.model_dump_json()) == session
    assert pickle.loads(pickle.dumps(session)) == session
    assert json.loads(session.model_dump_json())["status"] == status


def test_a_tool_error_survives():
    """O-114."""
    session, _ = Session.start(rig(calls(call("1", "fail"))).engine, "hi", on_tool_error="halt")

    assert isinstance(session.error, ToolError)
    assert Session.model_validate_json(session.model_dump_json()) == session
    assert pickle.loads(pickle.dumps(session)) == session


@pytest.mark.parametrize("field", ["context", "metadata", "ask_user_options"])
def test_live_objects_fail_when_the_session_is_built(field):
    """O-114, C-6."""
    with pytest.raises(ValueError, match=field):
        Session(**{field: {"db": object()}})


def test_a_session_is_frozen():
    """Section 9."""
    with pytest.raises(ValueError, match="frozen"):
        Session().status = "error"


def test_two_replies_to_one_session():
    """O-116: two independent sessions."""
    session = session_in("awaiting_user")

    first, second = (Session.reply(rig(says(text)).engine, session, text)[0] for text in "ab")

    assert first.thread.messages[:-2] == second.thread.messages[:-2] == session.thread.messages
    assert first != second


def go_on(session):
    """What an application does next with a session in any status."""
    engine = rig(calls(call("8", "echo", x="y")), says("bye")).engine
    if session.status == "awaiting_tools":
        session = Session.submit_tool_results(session, {c.id: "done" for c in session.pending_tool_calls})
        return Session.continue_(engine, session, request_id="r")[0]
    if session.status == "error":
        return Session.continue_(engine, Session.reset_error(session), request_id="r")[0]
    return Session.reply(engine, session, "go on", request_id="r")[0]


ELSEWHERE = """
import sys
from allm_actors import Session
from tests.chat.test_session import go_on

for line in sys.stdin:
    print(go_on(Session.model_validate_json(line)).model_dump_json())
"""


def test_a_session_goes_on_in_another_process():
    """O-115: as if it had never left memory, from any status."""
    sessions = [session_in(status) for status in STATUSES]

    run = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input="\n".join(session.model_dump_json() for session in sessions),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    assert [Session.model_validate_json(line) for line in lines] == [go_on(session) for session in sessions]


# --- folds ------------------------------------------------------------------------------------------------


def events_of(engine, session, mode="chat", **options):
    open_ = Session.stream_step if mode == "step" else Session.stream_start
    with open_(engine, session, request_id="r", **options) as events:
        return list(events)


def test_a_reducer_takes_a_session_and_a_mode():
    """O-119."""
    with pytest.raises(ValueError, match="mode"):
        StreamReducer(Session(), mode="other")
    with pytest.raises(TypeError, match="session"):
        StreamReducer("session")


def test_a_reducer_may_be_read_at_any_time():
    """O-119: repeatedly, and never raises for an event; the session it was built with is never touched."""
    session = session_in("idle")
    before = session.model_copy(deep=True)
    it = rig(calls(call("1", "echo")), says("x"))
    fold = StreamReducer(session)

    for event in [None, "x", object(), *events_of(it.engine, session)]:
        fold.apply(event)
        assert fold.finalize() == fold.finalize()

    assert fold.finalize() == Session.start(it.rewound(), session, request_id="r")
    assert session == before


@pytest.mark.parametrize("mode", ["chat", "step"])
def test_a_turn_cancelled_before_it_achieved_anything_never_happened(mode):
    """O-120, O-121: exactly the session it was built with; the same operation can be repeated."""
    session = session_in("idle")
    events = events_of(rig(calls("some text", call("1", "echo"))).engine, session, mode)
    cut = next(n for n, event in enumerate(events) if event.type == "step_completed")

    for length in range(cut):
        fold = StreamReducer(session, mode)
        for event in events[:length]:
            fold.apply(event)
        after, result = fold.finalize()
        assert after is session
        assert result.halted_reason == "cancelled"
        assert result.thread == session.thread


def test_an_error_in_a_turn_that_did_not_complete_is_like_a_cancellation():
    """O-120, O-121: only a completed step or chat can put a session into `error`."""
    for mode in ("chat", "step"):
        session = session_in("idle")
        events = events_of(rig([("text", "so"), ("error", "network_error", {})]).engine, session, mode)
        cut = types(events).index("step_completed")
        fold = StreamReducer(session, mode)
        for event in events[:cut]:
            fold.apply(event)

        after, result = fold.finalize()

        assert after is session
        assert (result.halted_reason, result.error.reason) == ("error", "network_error")


@pytest.mark.parametrize(
    ("name", "status"),
    [("echo", "idle"), ("ask", "awaiting_user"), ("pay", "awaiting_tools"), ("stop", "completed")],
)
def test_completed_turns_are_kept(name, status):
    """O-120, O-121: as if the last completed step had been a `step` operation; never `completed` as result."""
    session = session_in("idle")
    events = events_of(rig(calls(call("1", name)), says("x")).engine, session)
    cut = types(events).index("step_completed") + 1
    fold = StreamReducer(session)
    for event in events[:cut]:
        fold.apply(event)

    after, result = fold.finalize()

    assert after.status == status
    assert result.halted_reason == "cancelled"
    assert len(result.steps) == 1
    assert after.thread == result.thread == result.steps[0].thread
    assert result.final_response == result.steps[0].response
    check_row(after)


def test_a_cancelled_session_picks_up_from_there():
    """O-121."""
    it = rig(calls(call("1", "echo", x="e")), says("done"))
    with Session.stream_start(it.engine, "hi") as events:
        fold = events.reducer()
        for event in events:
            fold.apply(event)
            if event.type == "step_completed":
                break
    session, _ = fold.finalize()

    assert session.status == "idle"
    assert Session.continue_(it.engine, session)[1].text == "done"


def test_a_stream_knows_its_operation():
    """O-122: the session it was called with, or the one made from its input; `drain` after a few events."""
    it = rig(calls(call("1", "echo")), says("x"))
    with Session.stream_start(it.engine, "hi", id="new", request_id="r") as events:
        assert events.session == Session(id="new", thread=allm.Thread().add_user("hi"))
        next(events), next(events)
        drained = events.drain()
        assert events.drain() == drained

    assert drained == Session.start(it.rewound(), "hi", id="new", request_id="r")
    stepping = Session.stream_step(it.rewound(), session_in("idle"))
    with stepping:
        assert isinstance(stepping.drain()[1], allm.StepResult)


def test_a_sessions_stream_in_asyncio():
    """O-50, O-122: draining after reading in a coroutine gives what was read."""
    it = rig(calls(call("1", "echo")), says("x"))

    async def read():
        async with Session.stream_start(it.engine, "hi", request_id="r") as events:
            async for _ in events:
                pass
            return events.drain()

    assert asyncio.run(asyncio.wait_for(read(), SOON)) == Session.start(it.rewound(), "hi", request_id="r")


def test_collecting_twice_runs_nothing_twice():
    """O-11."""
    ran = []
    it = Rig(calls(call("1", "note")), says("x"), tools=[tool("note", lambda a: ran.append(1))])
    events = events_of(it.engine, Session(thread=allm.Thread().add_user("hi")))

    for _ in range(2):
        allm.StreamCollector.collect(events).chat_result()

    assert ran == [1]


def test_a_stored_result_is_the_answer():
    """O-118: nothing computed overrides `ChatCompleted.result`."""
    events = events_of(rig(says("x")).engine, session_in("idle"))

    assert allm.StreamCollector.collect(events).chat_result() is events[-1].result


def test_pending_calls_are_tool_calls():
    """Section 9."""
    assert all(isinstance(c, ToolCall) for c in session_in("awaiting_tools").pending_tool_calls)
