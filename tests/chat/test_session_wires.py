"""Sessions over the real wire formats: what a provider has to be sent back survives the file.

A model that reasons signs its thoughts, and refuses a conversation that brings them back changed or not at all.
The loopback server tells what was sent, to the byte.
"""

import os
import pathlib
import subprocess
import sys

import pytest

import allm_actors as allm
from allm_actors import Session, ToolCall
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.testing import FakeServer, Reply

from .helpers import tool

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = [tool("pay", None, manual=True), tool("look", lambda _: {"seen": "é"})]
ADAPTERS = {
    "chat": lambda url: OpenAI(base_url=url),
    "responses": lambda url: OpenAI(base_url=url, api="responses"),
    "anthropic": lambda url: Anthropic(base_url=url),
    "gemini": lambda url: Gemini(base_url=url),
}


def engine_at(kind, url):
    return allm.Engine(adapter=ADAPTERS[kind](url), model="m", retry=None, tools=TOOLS)


def go_on(kind, url, session):
    """Answer what is pending, have the model go on, and say something more."""
    engine = engine_at(kind, url)
    answers = {call.id: {"paid": True} for call in session.pending_tool_calls}
    session = Session.submit_tool_results(session, answers)
    session, _ = Session.continue_(engine, session, api_key="k")
    session, _ = Session.reply(engine, session, "And?", api_key="k")
    return session


ELSEWHERE = """
import sys
from allm_actors import Session
from tests.chat.test_session_wires import go_on

kind, url, session = sys.stdin.read().split(maxsplit=2)
print("SESSION " + go_on(kind, url, Session.model_validate_json(session)).model_dump_json())
"""


def go_on_elsewhere(kind, url, session):
    """The same in another process."""
    run = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=f"{kind} {url} {session.model_dump_json()}",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("SESSION "))
    return Session.model_validate_json(line.removeprefix("SESSION "))


LOOKS_AND_PAYS = Reply(
    "I will look, then pay.",
    reasoning="First a look, then é.",
    tool_calls=[
        ToolCall(id="call-1", name="look", arguments={}),
        ToolCall(id="call-2", name="pay", arguments={"amount": 1.5, "to": "é"}),
    ],
)
SIGNED_CALLS = [
    {"functionCall": {"name": "look", "args": {}, "id": "call-1"}, "thoughtSignature": "c2lnbmVk"},
    {"functionCall": {"name": "pay", "args": {"amount": 1.5}, "id": "call-2"}},
]
FIRST = {
    "gemini": Reply(frames=[{"candidates": [{"content": {"parts": SIGNED_CALLS}, "finishReason": "STOP"}]}]),
}
SIGNED = {"anthropic", "gemini"}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_session_from_a_file_sends_the_same_bytes(kind):
    """O-114, O-115: same requests, same thread, same status, in another process."""
    lives = []
    for through in (go_on, go_on_elsewhere):
        with FakeServer() as server:
            server.add(FIRST.get(kind, LOOKS_AND_PAYS), Reply("Paid.", reasoning="Well."), "Bye.")
            session, _ = Session.start(engine_at(kind, server.base_url), "Pay Ada.", id="s", api_key="k")
            assert session.status == "awaiting_tools"
            after = through(kind, server.base_url, session)
            lives.append((after, [request.body for request in server.requests]))

    (stayed, sent), (moved, sent_again) = lives
    assert stayed.status == "completed"
    assert len(sent) == 3
    assert all((b"c2lnbmVk" in body) == (kind in SIGNED) for body in sent[1:])
    assert sent_again == sent
    assert moved == stayed
