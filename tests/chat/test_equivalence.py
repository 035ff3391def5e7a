"""Streaming or not, on threads, in asyncio or in a mailbox, interrupted by JSON or not: the same results.

Random scripts of turns with tools that succeed, fail, halt, ask and are the caller's to answer.
"""

import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import allm_actors as allm
from allm_actors import AskUser, Halt, Session
from allm_actors.errors import AllmError

from .helpers import READERS, Rig, by_next, call, raw_call, tool, types

ROOT = pathlib.Path(__file__).parents[2]
quick = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def fails(arguments):
    raise LookupError("failed")


TOOLS = [
    tool("echo", lambda a: a.get("x")),
    tool("fails", fails),
    tool("opaque", lambda a: {1, 2}),
    tool("halts", lambda a: Halt("enough", {"n": 1})),
    tool("asks", lambda a: AskUser("Which?", choices=[1])),
    tool("pays", None, manual=True),
    tool("missing", None),
    tool("hangs", lambda a, ctx: ctx.cancelled.wait(5)),
    tool("compact", lambda a: "c", compact=True, schema={"type": "object", "required": ["y"]}),
]
NAMES = [t.name for t in TOOLS if t.name != "hangs"] + ["tool_help"]


@st.composite
def turns(draw, *, hangs=False):
    """The script of one turn; call ids are filled in by their place."""
    entries = draw(
        st.lists(st.sampled_from(["a ", "b", "é"]), max_size=2).map(
            lambda texts: [("text", t) for t in texts]
        )
    )
    names = draw(
        st.lists(st.sampled_from([*NAMES, "nobody"] if draw(st.integers(0, 9)) == 0 else NAMES), max_size=4)
    )
    if hangs and draw(st.booleans()):
        names.append("hangs")
    for name in names:
        if draw(st.integers(0, 5)) == 0:
            entries.append(raw_call("?", name, draw(st.sampled_from(["[", "{}", "", '{"x":1}']))))
        else:
            entries.append(call("?", name, x=draw(st.integers(0, 3))))
    ending = draw(st.integers(0, 12))
    if ending == 0:
        entries.append(("error", "network_error", {}))
    elif ending == 1:
        entries = [("preflight_error", "authentication_failed", {})]
    else:
        entries.append(("finish", "tool_calls" if names and ending > 2 else "stop"))
    return entries


def scripts(**options):
    def numbered(lists):
        return [
            [
                (tag, {**part[0], "id": f"{turn}.{place}"}) if tag == "tool_call" else (tag, *part)
                for place, (tag, *part) in enumerate(entries)
            ]
            for turn, entries in enumerate(lists)
        ]

    return st.lists(turns(**options), min_size=1, max_size=4).map(numbered)


runs = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["auto", "manual"]),
        "max_turns": st.integers(1, 4),
        "on_tool_error": st.sampled_from(["continue", "halt"]),
        "max_concurrency": st.integers(1, 4),
        "halt_when": st.sampled_from([lambda step: len(step.tool_results) > 2]),
        "emit_text_deltas": st.booleans(),
        "include_raw_chunks": st.booleans(),
    },
)


def outcome(work, *args, **options):
    """What a call gives: its result, or its error with the partial result."""
    try:
        return work(*args, **options)
    except AllmError as error:
        return error, error.partial


def well_formed(thread, pending):
    """O-10: every call is followed by exactly one tool message before any other; pending ones are the last's."""
    messages = thread.messages
    place = 0
    while place < len(messages):
        wanted = [c.id for c in messages[place].tool_calls]
        place += 1
        answered = []
        while place < len(messages) and messages[place].role == "tool":
            answered.append(messages[place].tool_call_id)
            place += 1
        missing = [call_id for call_id in wanted if call_id not in answered]
        assert len(answered) == len(set(answered))
        assert set(answered) <= set(wanted)
        assert missing == ([c.id for c in pending] if place == len(messages) else [])


@quick
@given(scripts(), runs)
def test_a_chat_is_the_fold_of_its_stream(script, options):
    """O-117, O-123, O-124: there are no exceptions to this; O-10 in every thread on the way."""
    rig = Rig(*script, tools=TOOLS)
    options["request_id"] = "r"
    plain = outcome(allm.chat, rig.engine, "hi", **options)
    for read in READERS:
        events = outcome(read, allm.stream, rig.rewound(), "hi", **options)
        if not isinstance(events, list):
            assert events == plain  # it could not be opened
            assert events[1] is None
            return
        folded = allm.StreamCollector.collect(events).chat_result()
        assert events[-1].result is folded
        assert types(events).count("chat_completed") == 1
        assert [s.thread for s in allm.StreamCollector.collect(events).steps] == [
            s.thread for s in folded.steps
        ]
        assert allm.StreamCollector.collect(events).steps == folded.steps
        assert (folded.error, folded) == plain if folded.halted_reason == "error" else folded == plain
        for step in folded.steps:
            well_formed(step.thread, step.manual_tool_calls)
        well_formed(folded.thread, folded.manual_tool_calls)


@quick
@given(scripts(), runs)
def test_a_step_is_the_fold_of_its_stream(script, options):
    """O-117, O-123."""
    rig = Rig(script[0], tools=TOOLS)
    options["request_id"] = "r"
    plain = outcome(allm.step, rig.engine, "hi", **options)
    for read in READERS:
        events = outcome(read, allm.stream_step, rig.rewound(), "hi", **options)
        if not isinstance(events, list):
            assert events == plain
            return
        (folded,) = allm.StreamCollector.collect(events).steps
        assert (folded.error, folded) == plain if folded.halted_reason == "error" else folded == plain


@settings(quick, max_examples=8)
@given(scripts(hangs=True), runs)
def test_timeouts_change_nothing(script, options):
    """O-123, O-79: with handlers that hang among the calls."""
    rig = Rig(*script, tools=TOOLS)
    options |= {"request_id": "r", "tool_timeout": 0.03}
    plain = outcome(allm.chat, rig.engine, "hi", **options)
    events = outcome(by_next, allm.stream, rig.rewound(), "hi", **options)
    if isinstance(events, list):
        folded = events[-1].result
        assert (folded.error, folded) == plain if folded.halted_reason == "error" else folded == plain


def go_on(session, engine, options):
    """One more operation on a session, whatever its status; the same choice every time."""
    match session.status:
        case "awaiting_tools":
            answers = {c.id: {"for": c.id} for c in session.pending_tool_calls}
            return Session.continue_(engine, Session.submit_tool_results(session, answers), **options)[0]
        case "error":
            return Session.reset_error(session)
        case "awaiting_user":
            return Session.reply(engine, session, "that one", **options)[0]
        case "idle":
            return Session.step(engine, session, **options)[0]
        case _:
            return Session.reply(engine, session, "more", **options)[0]


def lived(script, options, through):
    """The sessions of a conversation, each handed on by `through`."""
    rig = Rig(*script, tools=TOOLS)
    session, all_ = Session(id="s", thread=allm.Thread().add_user("hi")), []
    for _ in range(5):
        try:
            session = go_on(session, rig.engine, options)
        except AllmError as error:
            all_.append(repr(error))
            continue
        all_.append(session)
        session = through(session)
    return all_, rig.requests


def by_json(session):
    return Session.model_validate_json(session.model_dump_json())


@quick
@given(scripts(), runs)
def test_a_session_that_was_saved_goes_on_like_one_that_was_not(script, options):
    """O-114, O-115: same requests, same threads, same status, whichever operation it was saved after."""
    options["request_id"] = "r"

    stayed, sent = lived(script, options, lambda session: session)
    saved, sent_again = lived(script, options, by_json)

    assert saved == stayed
    assert [r.messages for r in sent_again] == [r.messages for r in sent]
    for session in stayed:
        if isinstance(session, Session):
            assert by_json(session) == session
            well_formed(session.thread, session.pending_tool_calls)


ELSEWHERE = """
import json, sys
from tests.chat.test_equivalence import one_operation
for line in sys.stdin:
    print("RESULT " + json.dumps(one_operation(*json.loads(line))), flush=True)
"""


def one_operation(script, session, options):
    """What one operation makes of a session: as JSON, or in words, and how many requests it made."""
    rig = Rig(*[[tuple(entry) for entry in turn] for turn in script], tools=TOOLS)
    try:
        after = go_on(Session.model_validate_json(session), rig.engine, options).model_dump_json()
    except AllmError as error:
        after = repr(error)
    return after, rig.sent


@pytest.fixture(scope="module")
def elsewhere():
    """`one_operation` in another process."""
    child = subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )

    def run(*job):
        child.stdin.write(json.dumps(job) + "\n")
        child.stdin.flush()
        while not (line := child.stdout.readline()).startswith("RESULT "):
            assert line, "the other process ended"
        return json.loads(line.removeprefix("RESULT "))

    yield run
    child.stdin.close()
    child.stdout.close()
    assert child.wait(20) == 0


json_runs = st.fixed_dictionaries(
    {"request_id": st.just("r")},
    optional={
        "mode": st.sampled_from(["auto", "manual"]),
        "max_turns": st.integers(1, 4),
        "on_tool_error": st.sampled_from(["continue", "halt"]),
    },
)


@quick
@given(scripts(), json_runs)
def test_a_session_that_changes_processes_goes_on_like_one_that_stays(elsewhere, script, options):
    """O-115: written as JSON after every operation, the next one made in another process."""
    rig = Rig(*script, tools=TOOLS)
    here = Session(id="s", thread=allm.Thread().add_user("hi"))
    there, left = here.model_dump_json(), script
    for _ in range(4):
        try:
            here = after_here = go_on(here, rig.engine, options)
        except AllmError as error:
            after_here = repr(error)
        after_there, made = elsewhere(left, there, options)
        left = left[made:]
        if isinstance(after_here, Session):
            there = after_there
            after_there = Session.model_validate_json(there)
        assert after_there == after_here


@quick
@given(scripts(), runs, st.integers(0, 60))
def test_any_prefix_of_a_sessions_stream_folds_to_a_sound_session(script, options, length):
    """O-101, O-119, O-120, O-121: however it was cut short, its fields agree and its thread is well formed."""
    rig = Rig(*script, tools=TOOLS)
    session = Session(thread=allm.Thread().add_user("hi"))
    try:
        events = Session.stream_start(rig.engine, session, **options)
    except AllmError:
        return
    fold = events.reducer()
    with events:
        for _, event in zip(range(length), events, strict=False):
            fold.apply(event)
    after, result = fold.finalize()

    well_formed(after.thread, after.pending_tool_calls)
    assert (after.status == "error") == (after.error is not None)
    assert (after.status == "awaiting_tools") == bool(after.pending_tool_calls)
    assert (after.status == "awaiting_user") == (after.pending_question is not None)
    assert result.halted_reason is not None
    if not result.steps:
        assert after is session or result.halted_reason == "error"


def test_results_do_not_depend_on_who_finishes_first():
    """O-124: completion order is turned around; the results are equal."""

    def run(order):
        turn = {n: threading.Event() for n in range(4)}
        turn[order[0]].set()

        def handler(arguments):
            n = arguments["n"]
            assert turn[n].wait(5)
            following = order.index(n) + 1
            if following < 4:
                turn[order[following]].set()
            return [n, Halt("enough", n), AskUser("?"), n][n]

        rig = Rig(
            [*(call(str(n), "t", n=n) for n in range(4)), ("finish", "tool_calls")],
            tools=[tool("t", handler)],
        )
        return allm.chat(rig.engine, "hi", request_id="r", max_concurrency=4)

    assert run([0, 1, 2, 3]) == run([3, 2, 1, 0]) == run([2, 0, 3, 1])
