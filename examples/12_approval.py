"""A tool that a person has to approve, in another process, perhaps days later.

The conversation is a row in SQLite. The program that talks to the model stops at the call; the one that
approves knows nothing of models; a third goes on where the first stopped.

Prints:

    asked: awaiting_tools, pending: transfer {'to': 'Ada', 'amount': 250}
    approved by process ..., another one: True
    answered: completed: Ada has her 250.
"""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import allm_actors as allm
from allm_actors import Session
from allm_actors.providers import Fake

DATABASE = Path("approvals.sqlite")


@allm.tool(manual=True)
def transfer(to: str, amount: int) -> None:
    """Transfer money. Never runs here: a person does it, and says so."""


def engine(*script: tuple[object, ...]) -> allm.Engine:
    return allm.Engine(adapter=Fake(script=[*script]), model="scripted", tools=[transfer])


def save(session: Session) -> None:
    with closing(sqlite3.connect(DATABASE)) as rows, rows:
        rows.execute("create table if not exists session (id text primary key, body text)")
        rows.execute("insert or replace into session values (?, ?)", (session.id, session.model_dump_json()))


def load(name: str) -> Session:
    with closing(sqlite3.connect(DATABASE)) as rows:
        (body,) = rows.execute("select body from session where id = ?", (name,)).fetchone()
    return Session.model_validate_json(body)


def ask() -> None:
    wants = ("tool_call", {"id": "1", "name": "transfer", "arguments": {"to": "Ada", "amount": 250}})
    session, _ = Session.start(engine(wants, ("finish", "tool_calls")), "Pay Ada her 250.", id="ada")
    pending = session.pending_tool_calls[0]
    print(f"asked: {session.status}, pending: {pending.name} {pending.arguments}")
    save(session)


def approve() -> None:
    session = load("ada")
    for call in session.pending_tool_calls:
        session = Session.submit_tool_result(session, call.id, {"approved": True, "by": "Grace"})
    save(session)
    print(os.getpid())


def go_on() -> None:
    session, result = Session.continue_(engine(("text", "Ada has her 250."), ("finish", "stop")), load("ada"))
    print(f"answered: {session.status}: {result.text}")


if __name__ == "__main__":
    if sys.argv[1:] == ["approve"]:
        approve()
    else:
        ask()
        command = [sys.executable, __file__, "approve"]
        other = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
        print(f"approved by process {other}, another one: {int(other) != os.getpid()}")
        go_on()
        DATABASE.unlink()
