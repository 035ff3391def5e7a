"""The live view of processes."""

import io
import re

import pytest

pytest.importorskip("rich")

from rich.console import Console

from allm_actors import beam
from allm_actors.cli import _top


def shown(snapshot):
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(_top.render(snapshot))
    return console.file.getvalue()


def node(**facts):
    return {
        "pid": 7, "class": "Worker", "name": "main", "state": "waiting", "mailbox_len": 0, "restarts": 0,
        "uptime": 3.0, "busy_for": None, "doing": "", "waits_for": None, "handled": 4, "links": [],
        "children": [], **facts,
    }  # fmt: skip


def whole(*nodes):
    return {"program": 1, "processes": len(nodes), "zombies": 0, "tree": list(nodes)}


def troubles(snapshot):
    """The lines of the box that a person looks at first."""
    return [line for line in shown(snapshot).splitlines() if line.startswith("│")]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"restarts": 2}, r"restarts +Worker 7 main +2 times"),
        ({"state": "running", "busy_for": 4.2, "doing": "dict"}, r"stuck +Worker 7 main +in dict for 4.2 s"),
        (
            {"state": "running", "busy_for": 4.2, "doing": "continue", "mailbox_len": 1},
            r"stuck +Worker 7 main +in continue for 4.2 s",
        ),
        ({"waits_for": "<Server 9>"}, r"waits +Worker 7 main +for <Server 9>"),
        ({"mailbox_len": 40}, r"mailbox +Worker 7 main +40 messages wait"),
        ({"state": "zombie"}, r"zombie +Worker 7 main +killed"),
    ],
)
def test_trouble_is_shown_first(facts, said):
    assert any(re.search(said, line) for line in troubles(whole(node(), node(**facts))))


def test_quiet_processes_are_no_trouble():
    busy_a_moment = node(state="running", busy_for=0.2, doing="int")
    drives_a_stream = node(state="running", busy_for=60.0, doing="continue")
    assert "nothing restarts" in troubles(whole(node(), busy_a_moment, drives_a_stream))[0]


def test_a_name_cannot_control_the_terminal():
    assert "\x1b" not in shown(whole(node(name="\x1b[2Jgone")))


def test_a_live_program_is_read(tmp_path):
    path = beam.publish(tmp_path / "top.sock")
    try:
        console = Console(file=io.StringIO(), width=120)
        _top.watch(path, interval=1, once=True, console=console)
        assert "Publisher" in console.file.getvalue()
    finally:
        beam.unpublish()


def test_no_program_to_watch_is_said_in_words(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(_top.NothingToWatchError, match="publish"):
        _top.find(None)
    with pytest.raises(_top.NothingToWatchError, match="4711"):
        _top.find("4711")
    with pytest.raises(_top.NothingToWatchError, match="does not answer"):
        _top.fetch(tmp_path / "nothing.sock")


def test_the_end_of_the_program_ends_the_view_in_words(tmp_path, monkeypatch):
    path = beam.publish(tmp_path / "top.sock")
    monkeypatch.setattr(_top.time, "sleep", lambda _: beam.unpublish())
    console = Console(file=io.StringIO(), width=120)

    _top.watch(path, interval=1, once=False, console=console)

    assert re.search(r"program \d+ has ended\n$", console.file.getvalue())
