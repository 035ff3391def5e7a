"""What a provider or a model wrote is shown on a terminal, and never obeyed by it."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import allm_actors as allm
from allm_actors.cli import _top
from allm_actors.data import ToolCall
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, Reply

ROOT = Path(__file__).parents[2]
EVIL = "x\x1b[2J\x1b]0;title\x07\x9b31m\u202eabc\u2066\x08\x00\x7f\rz\tq\nend"
OBEYED = {
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    "\u2028",
    "\u2029",
    *"\u202a\u202b\u202c\u202d\u202e",
}
OBEYED |= set("\u2066\u2067\u2068\u2069")
OBEYED -= {"\n", "\t"}

TOOLS = """
import allm_actors as allm

@allm.tool
def look(what: str) -> str:
    "Look."
    return what

@allm.tool
def which(what: str):
    "Ask the user."
    return allm.AskUser(what)
"""


def environment():
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return {**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def chat(server, *arguments):
    return [
        sys.executable, "-m", "allm_actors", "chat", "--base-url", server.base_url, "--model", "m", *arguments,
    ]  # fmt: skip


def piped(server, *arguments, stdin=""):
    """What a program that reads the output gets, on both channels."""
    ended = subprocess.run(
        chat(server, *arguments),
        check=False,
        env=environment(),
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
    )
    return ended.stdout, ended.stderr


def at_a_terminal(server, *arguments):
    """Every byte that reaches a terminal, the two channels together."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        chat(server, *arguments), env=environment(), stdin=subprocess.DEVNULL, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        data = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            data += part
        process.wait(30)
    os.close(master)
    return data.decode().replace("\r\n", "\n")  # the terminal's own driver makes these line ends


@pytest.fixture
def tools(tmp_path):
    path = tmp_path / "tools.py"
    path.write_text(TOOLS)
    return str(path)


def look(text):
    return Reply(tool_calls=[ToolCall(id=text, name="look", arguments={"what": text})])


def test_an_answer_cannot_drive_the_terminal():
    """Newline and tab pass, all else is made visible."""
    with FakeServer(script=[Reply(chunks=[EVIL, "\x1b", "[31m"])]) as server:
        seen = at_a_terminal(server, "hi")
    assert "\tq\nend␛[31m\n" in seen
    assert not set(seen) & OBEYED


@pytest.mark.parametrize("how", [(), ("--show-events",), ("--verbose",)], ids=["text", "events", "log"])
def test_nothing_that_reaches_the_terminal_is_obeyed(how, tools):
    """Calls, arguments, results, events, log records, errors and their codes."""
    error = Reply(
        status=400, json={"error": {"message": EVIL, "code": EVIL}}, headers={"x-request-id": "\x1b[2J"}
    )
    with FakeServer(script=[look(EVIL), Reply(EVIL, finish_reason="length"), error]) as server:
        seen = at_a_terminal(server, "--tools", tools, *how, "hi")
        failed = at_a_terminal(server, *how, "hi")
    assert "end" in seen
    assert not (set(seen) | set(failed)) & OBEYED
    assert "allm-actors: " in failed


def test_a_question_of_a_tool_cannot_drive_the_terminal(tools):
    call = Reply(tool_calls=[ToolCall(id="1", name="which", arguments={"what": EVIL})])
    with FakeServer(script=[call, "thanks"]) as server:
        out, err = piped(server, "--tools", tools, "--interactive", stdin="ask\nred\n")
    assert "thanks" in out
    assert "␛[2J" in err
    assert not (set(out) | set(err)) & OBEYED


def test_piped_output_is_as_harmless_as_the_terminals():
    """A file is shown by `cat` some day: it holds what a terminal would have been sent."""
    with FakeServer(script=[Reply(chunks=[EVIL])]) as server:
        out, err = piped(server, "hi")
    assert out == "x␛[2J␛]0;title␇\ufffd31m\ufffdabc\ufffd␈␀␡z\tq\nend\n"
    assert not set(err) & OBEYED


def test_a_program_gets_what_the_model_wrote():
    """The library itself changes nothing: what a program shows on a terminal is its own to clean."""
    with FakeServer(default=Reply(chunks=[EVIL])) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="m")
        assert allm.generate(engine, "hi").text == EVIL
        with allm.stream_generate(engine, "hi") as stream:
            assert "".join(event.delta for event in stream if event.type == "text_delta") == EVIL


def test_no_field_of_a_process_can_drive_the_view_of_processes():
    """Names of processes may come from session ids, and those from anywhere."""
    from rich.console import Console

    facts = dict.fromkeys(("class", "name", "doing", "waits_for", "state"), EVIL)
    child = {
        "pid": 7, "mailbox_len": 99, "restarts": 2, "uptime": 3.0, "busy_for": 9.0, "handled": 4, "links": [EVIL],
        "children": [], **facts,
    }  # fmt: skip
    parent = {**child, "state": "running", "children": [child], "mailbox_len": 99}
    console = Console(file=io.StringIO(), width=300, color_system=None)
    console.print(
        _top.render(
            {"program": EVIL, "processes": 2, "zombies": 0, "tree": [parent, {**child, "state": "zombie"}]}
        )
    )
    shown = console.file.getvalue()
    assert "waits" in shown
    assert "stuck" in shown
    assert "zombie" in shown
    assert not set(shown) & OBEYED
