"""Letting another terminal watch this program's processes.

`publish()` starts a process that answers on a Unix domain socket with snapshots of the process tree:
structure and numbers only, never the content of a message. The socket lies in a directory that only its
user may enter. `allm-actors top` reads from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import socket
import tempfile
from pathlib import Path
from typing import Any

from allm_actors.beam._cell import Cell, table
from allm_actors.beam._names import whereis
from allm_actors.beam._observe import children_of, describe_cell
from allm_actors.beam._signals import checkpoint, exit, monitor
from allm_actors.beam.interrupt import interruptible
from allm_actors.beam.mailbox import Inbox
from allm_actors.beam.pid import NameTaken, Pid, StartError
from allm_actors.beam.process import Process

_NAME = ("beam", "publisher")
_BACKLOG = 8
_SEND_SECONDS = 2.0


def publish(path: str | os.PathLike[str] | None = None) -> Path:
    """Answer on a Unix domain socket with snapshots of this program's processes. Idempotent.

    Args:
        path: Where the socket shall be; by default `<directory>/<process id>.sock` in `socket_directory()`.

    Returns:
        The path of the socket. It is removed when the publisher ends, at the latest with the program.

    Raises:
        OSError: The socket cannot be made there.
    """
    place = Path(path) if path is not None else socket_directory() / f"{os.getpid()}.sock"
    while True:
        if holder := whereis(_NAME):
            actor = holder._actor_weakref()
            if actor is not None and isinstance(actor, Publisher):
                return actor.place
        listener = _listen(place)
        try:
            Publisher.start(listener, place, name=_NAME)
        except StartError as error:
            listener.close()
            if isinstance(error.reason, NameTaken):
                continue
            raise
        return place


def unpublish(timeout: float = 1.0) -> None:
    """End what `publish` started, and remove its socket. Nothing happens if nothing was published.

    Args:
        timeout: Seconds to wait for its end.
    """
    if holder := whereis(_NAME):
        ended = Inbox()
        monitor(holder, to=ended)
        exit(holder, "shutdown")
        with contextlib.suppress(queue.Empty):
            ended.receive(timeout)


def socket_directory() -> Path:
    """The directory of the sockets: only this user may enter it.

    Raises:
        PermissionError: The directory exists and belongs to somebody else, or others may enter it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(base) / f"allm-actors-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise PermissionError(f"{folder} must belong to this user, with mode 700")
    return folder


def _listen(place: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            place.unlink()
        listener.bind(str(place))
        place.chmod(0o600)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class Publisher(Process):
    """Answers each connection with one snapshot, as one line of JSON, and closes it."""

    def init(self, listener: socket.socket, place: Path) -> None:
        """Take the listening socket over; it is closed, and its file removed, when this process ends."""
        self.place = place
        self._listener = listener
        self._wake_read, self._wake_write = os.pipe()
        self.on_exit(self._close)
        self.continue_with(None)

    def handle_continue(self, token: Any) -> None:  # noqa: ARG002
        """Serve until told to exit."""
        while True:
            with interruptible(self._wake):
                ready, _, _ = select.select([self._listener.fileno(), self._wake_read], [], [])
            checkpoint()
            if self._listener.fileno() in ready:
                self._serve()

    def _wake(self) -> None:
        os.write(self._wake_write, b"!")

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            peer, _ = self._listener.accept()
            with peer:
                peer.settimeout(_SEND_SECONDS)
                peer.sendall(json.dumps(snapshot()).encode() + b"\n")

    def _close(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.place.unlink()
        self._listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)


def snapshot() -> dict[str, Any]:
    """The process tree as JSON values.

    Returns:
        `program` (the operating system's process id), `processes` (how many live), `zombies` (how many), and
        `tree`: a list of roots, each with `pid`, `class`, `name`, `state`, `mailbox_len`, `restarts`,
        `uptime` and `busy_for` (seconds), `doing`, `waits_for` (`None`, or text), `handled`, `links`,
        `children`.
    """
    with table.lock:
        living = sorted(table.cells.values(), key=lambda cell: cell.number)
        zombies = [cell for cell in table.zombies.values() if cell.thread and cell.thread.is_alive()]
    roots, below = children_of([*living, *zombies])
    return {
        "program": os.getpid(),
        "processes": len(living),
        "zombies": len(zombies),
        "tree": [_node(cell, below) for cell in roots],
    }


def _node(cell: Cell, below: dict[Cell, list[Cell]]) -> dict[str, Any]:
    facts = describe_cell(cell)
    return {
        "pid": cell.number,
        "class": facts["class"],
        "name": None if facts["name"] is None else str(facts["name"]),
        "state": facts["state"],
        "mailbox_len": facts["mailbox_len"],
        "restarts": cell.restarts,
        "uptime": facts["uptime"],
        "busy_for": facts["busy_for"],
        "doing": facts["doing"],
        "waits_for": _text(facts["waits_for"]),
        "handled": facts["handled"],
        "links": [_text(pid) for pid in facts["links"]],
        "children": [_node(child, below) for child in below.get(cell, [])],
    }


def _text(pid: Pid | None) -> str | None:
    return None if pid is None else str(pid)
