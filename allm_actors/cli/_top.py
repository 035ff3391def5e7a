"""`allm-actors top`: a live view of a program's processes.

It shows first what a person looks for: what restarts, what is stuck, who waits for whom; then the tree.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from allm_actors import beam

if TYPE_CHECKING:
    from collections.abc import Iterator

STUCK_SECONDS = 1.0
"""A callback that takes longer than this is shown as stuck."""

FULL_MAILBOX = 10
"""A mailbox with more messages than this is shown."""

_TIMEOUT = 2.0
_STYLES = {
    "waiting": "green",
    "running": "cyan",
    "starting": "yellow",
    "exiting": "yellow",
    "zombie": "bold red",
    "dead": "red",
}


class NothingToWatchError(Exception):
    """No program publishes its processes, or the one asked for does not answer."""


def sources() -> list[Path]:
    """The sockets of this user's programs that publish their processes, dead ones removed."""
    alive = []
    for path in sorted(beam.socket_directory().glob("*.sock")):
        if path.stem.isdigit() and not Path(f"/proc/{path.stem}").exists() and Path("/proc/self").exists():
            path.unlink(missing_ok=True)
        else:
            alive.append(path)
    return alive


def find(target: str | None) -> Path:
    """The socket meant by a process id, a path, or nothing (if exactly one program publishes).

    Raises:
        NothingToWatchError: There is none, or more than one without a target.
    """
    if target is not None and not target.isdigit():
        return Path(target)
    found = sources()
    if target is not None:
        found = [path for path in found if path.stem == target]
        if not found:
            raise NothingToWatchError(
                f"process {target} does not publish: call allm_actors.beam.publish() in it first"
            )
    if not found:
        raise NothingToWatchError(
            "no program publishes its processes: call allm_actors.beam.publish() in the one you want to watch"
        )
    if len(found) > 1:
        names = ", ".join(path.stem for path in found)
        raise NothingToWatchError(f"several programs publish their processes ({names}): name one")
    return found[0]


def fetch(path: Path) -> dict[str, Any]:
    """One snapshot from a program.

    Raises:
        NothingToWatchError: It does not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(_TIMEOUT)
            peer.connect(str(path))
            data = b"".join(iter(lambda: peer.recv(65536), b""))
        snapshot = json.loads(data)
    except (OSError, ValueError) as error:
        raise NothingToWatchError(f"{path} does not answer: {type(error).__name__}: {error}") from None
    if not isinstance(snapshot, dict) or "tree" not in snapshot:
        raise NothingToWatchError(f"{path} answered with something that is no process tree")
    return snapshot


def watch(path: Path, *, interval: float, once: bool, console: Console) -> None:
    """Show snapshots until the program ends or Ctrl-C; with `once`, a single one.

    Args:
        path: The program's socket.
        interval: Seconds between two looks.
        once: Print one snapshot and return.
        console: Where to.

    Raises:
        NothingToWatchError: The program does not answer.
    """
    if once:
        console.print(render(fetch(path)))
        return
    first = fetch(path)
    with Live(render(first), console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(interval)
                live.update(render(fetch(path)), refresh=True)
        except KeyboardInterrupt:
            return
        except NothingToWatchError:
            if path.exists():  # it is there, and in no state to answer
                raise
    console.print(f"program {first['program']} has ended", highlight=False)


def render(snapshot: dict[str, Any]) -> Group:
    """A snapshot as something to look at."""
    snapshot = _plain(snapshot)
    nodes = list(_walk(snapshot["tree"]))
    head = Text.assemble(
        ("allm-actors top", "bold"),
        f"  program {snapshot['program']}  {snapshot['processes']} processes  ",
        (f"{snapshot['zombies']} zombies", "bold red" if snapshot["zombies"] else "dim"),
    )
    return Group(head, _troubles(nodes), _tree(snapshot))


def _walk(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        yield node
        yield from _walk(node["children"])


def _troubles(nodes: list[dict[str, Any]]) -> Panel:
    table = Table.grid(padding=(0, 2))
    for node in nodes:
        if node["restarts"]:
            table.add_row(Text("restarts", "yellow"), Text(_title(node)), _times(node["restarts"]))
        if node["state"] == "zombie":
            table.add_row(Text("zombie", "bold red"), Text(_title(node)), "killed, its thread runs on")
        elif _is_stuck(node):
            doing = f"in {node['doing']} for {node['busy_for']:.1f} s"
            table.add_row(Text("stuck", "red"), Text(_title(node)), Text(doing))
        if node["waits_for"]:
            table.add_row(Text("waits", "magenta"), Text(_title(node)), Text(f"for {node['waits_for']}"))
        if node["mailbox_len"] > FULL_MAILBOX:
            table.add_row(Text("mailbox", "red"), Text(_title(node)), f"{node['mailbox_len']} messages wait")
    if not table.row_count:
        table.add_row(Text("nothing restarts, nothing is stuck, nobody waits", "green"))
    return Panel(table, title="look here first", title_align="left")


def _is_stuck(node: dict[str, Any]) -> bool:
    """Whether one callback takes long; a process that drives a stream does nothing else, and is not stuck."""
    drives = node["doing"] == "continue" and not node["mailbox_len"]
    return node["state"] == "running" and not drives and (node["busy_for"] or 0) > STUCK_SECONDS


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _tree(snapshot: dict[str, Any]) -> Tree:
    top = Tree("processes", guide_style="dim")
    todo = [(top, node) for node in reversed(snapshot["tree"])]
    while todo:
        parent, node = todo.pop()
        branch = parent.add(_line(node))
        todo += [(branch, child) for child in reversed(node["children"])]
    return top


def _line(node: dict[str, Any]) -> Text:
    text = Text.assemble(_title(node), "  ", (node["state"], _STYLES.get(node["state"], "")))
    text.append(f"  up {node['uptime']:.0f} s  handled {node['handled']}", "dim")
    if node["mailbox_len"]:
        text.append(f"  mailbox {node['mailbox_len']}", "yellow")
    if node["restarts"]:
        text.append(f"  restarts {node['restarts']}", "yellow")
    if node["waits_for"]:
        text.append(f"  waits for {node['waits_for']}", "magenta")
    return text


def _title(node: dict[str, Any]) -> str:
    name = f" {node['name']}" if node["name"] else ""
    return f"{node['class']} {node['pid']}{name}"


def _plain(snapshot: dict[str, Any]) -> dict[str, Any]:
    """A copy whose texts hold nothing that a terminal would obey; a loop, for trees may be deep."""
    copy: dict[str, Any] = {}
    todo: list[tuple[dict[str, Any], dict[str, Any]]] = [(snapshot, copy)]
    while todo:
        given, made = todo.pop()
        for key, value in given.items():
            if isinstance(value, str):
                made[key] = "".join(char if char.isprintable() else "?" for char in value)
            elif key in {"tree", "children"}:
                made[key] = [{} for _ in value]
                todo += zip(value, made[key], strict=True)
            else:
                made[key] = value
    return copy
