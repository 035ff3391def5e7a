"""The provider, in a process of its own: what it sees of the client, it sees from outside.

Run as a program it serves until its input ends; asked for `ledger` it prints what it knows, as one line of
JSON. Times are those of `time.monotonic`, which all processes of a machine share.
"""

from __future__ import annotations

import collections
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from allm_actors.testing import FakeServer
from allm_actors.testing._render import render

from . import faults
from .lateness import Lateness

_NUMBER = re.compile(rb"stream (\d+)")
_ROOT = Path(__file__).parents[2]
_PATIENCE = 60


class Answered(NamedTuple):
    """One request, as the provider remembers it."""

    number: int
    attempt: int
    connection: int
    received_at: float
    answered_at: float | None
    disconnected_at: float | None
    words: int
    """How many words of the text were sent."""


class Provider:
    """The other process, as seen from the test."""

    def __init__(self, seed: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.provider", seed],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.base_url: str = self._line()

    def ledger(self) -> tuple[list[Answered], Lateness, int]:
        """Every request so far, how late the machine was there, and how many connections stand."""
        assert self._process.stdin is not None
        self._process.stdin.write("ledger\n")
        self._process.stdin.flush()
        rows, late, standing = self._line()
        return [Answered(*row) for row in rows], Lateness([tuple(each) for each in late]), standing

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_PATIENCE)
        self._process.stdout.close()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def serve(seed: str) -> None:
    """The program."""
    lock = threading.Lock()
    attempts: collections.Counter[int] = collections.Counter()
    seen: list[tuple[Any, faults.Plan]] = []

    def answer(request: Any) -> Any:
        found = _NUMBER.search(request.body)
        assert found is not None
        number = int(found[1])
        with lock:
            attempts[number] += 1
            drawn = faults.plan(seed, number, attempts[number])
            seen.append((request, drawn))
        return faults.reply(drawn)

    with FakeServer(default=answer) as server, Lateness() as late:
        _say(server.base_url)
        for _ in sys.stdin:
            try:
                server.wait_for_connections(0, timeout=5)
            except TimeoutError:
                pass
            with lock:
                rows = [_row(request, drawn) for request, drawn in seen]
            _say((rows, late.samples, server.open_connections))


def _row(request: Any, drawn: faults.Plan) -> Answered:
    return Answered(
        number=drawn.number,
        attempt=drawn.attempt,
        connection=request.connection,
        received_at=request.received_at,
        answered_at=request.answered_at,
        disconnected_at=request.disconnected_at,
        words=_words(request, drawn),
    )


def _words(request: Any, drawn: faults.Plan) -> int:
    """How many words are in those bytes that were sent."""
    pieces, _ = render(request, faults.reply(drawn))
    sent = b"".join(pieces)[: request.sent]
    marks = re.findall(rb"<%d\.%d\.(\d+)>" % (drawn.number, drawn.attempt), sent)
    return max(map(int, marks), default=-1) + 1


def _say(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
