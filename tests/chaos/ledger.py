"""What the client's side knows of each stream, written down while it happens.

Entries go to a file: a ledger that grew in memory would look like a leak.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from allm_actors.events import ErrorEvent, MessageCompleted, TextCompleted, TextDelta

from . import faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Entry:
    """One stream, from its call to its end.

    Attributes:
        number: Its number.
        engine: The name of the engine.
        way: How it is read, see `consumers`.
        deadline: Seconds it may take altogether.
        began: When it was called.
        opened: When its call had returned.
        busy: For how long its consumer was busy with calling for others then, in seconds.
        halted_at: When somebody wanted no more of it, if so.
        ended: When its consumer was through with it.
        endings: How it ended: `completed`, `error`, `raised`, `halted`, `died`; one, if all is well.
        reason: Of an error.
        limit: The limit of which a timeout speaks.
        attempt: The attempt whose text was delivered.
        words: How many words were delivered.
        longest: The longest wait of the consumer for one event, in seconds.
        problems: What must not be.
    """

    seed: str
    number: int
    engine: str
    way: str
    deadline: float = faults.LIMITS["deadline"]
    began: float = field(default_factory=time.monotonic)
    opened: float = 0.0
    busy: float = 0.0
    halted_at: float | None = None
    ended: float | None = None
    endings: list[str] = field(default_factory=list)
    reason: str | None = None
    limit: str | None = None
    attempt: int = 0
    words: int = 0
    longest: float = 0.0
    problems: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def limits(self) -> dict[str, float]:
        """The times of its call, in seconds."""
        return {**faults.LIMITS, "deadline": self.deadline}

    def waited(self, since: float) -> None:
        """The consumer has waited for an event, or for the end."""
        self.longest = max(self.longest, time.monotonic() - since)

    def wanted_no_more(self) -> None:
        """Somebody is about to halt it."""
        with self.lock:
            if self.halted_at is None:
                self.halted_at = time.monotonic()

    def saw(self, event: Any) -> None:
        """An event was delivered."""
        if self.endings:
            self.problems.append(f"{event.type} after the end")
        match event:
            case TextDelta(delta=text):
                self._text(text)
            case TextCompleted():
                expected = sum(len(self._plan.word(index)) for index in range(self.words))
                if len(event.text) != expected:
                    self.problems.append(f"a whole text of {len(event.text)} characters, not {expected}")
            case MessageCompleted():
                self.end("completed")
            case ErrorEvent(error=error):
                self.end("error", error)

    def _text(self, text: str) -> None:
        if not self.words:
            _, attempt, _ = text[1 : text.index(">")].split(".")
            self.attempt = int(attempt)
            self._plan = faults.plan(self.seed, self.number, self.attempt)
        if text != self._plan.word(self.words):
            self.problems.append(f"{text[:40]!r} delivered as word {self.words} of attempt {self.attempt}")
        self.words += 1

    def end(self, ending: str, error: BaseException | None = None) -> None:
        """It has ended."""
        with self.lock:
            self.endings.append(ending)
            self.ended = time.monotonic()
        if error is not None:
            self.reason = getattr(error, "reason", None) or type(error).__name__
            self.limit = (getattr(error, "metadata", None) or {}).get("limit")

    def out(self) -> None:
        """Its consumer is through with it; unless it said how it ended, somebody has to have halted it."""
        if self.endings:
            return
        if self.halted_at is None:
            self.problems.append("it just stopped: no terminal event, no exception, and nobody halted it")
        self.end("halted")


class Ledger:
    """The entries of all streams, in a file. Any thread may write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO = path.open("w")
        self._lock = threading.Lock()
        self.count = 0

    def add(self, entry: Entry) -> None:
        """Write down an entry to which nothing is added any more."""
        entry.out()
        row = {name: value for name, value in vars(entry).items() if name in _COLUMNS}
        with self._lock:
            self._file.write(json.dumps(row) + "\n")
            self.count += 1

    def close(self) -> None:
        """Nothing more is written."""
        self._file.close()

    def entries(self) -> Iterator[Entry]:
        """All of them, read back."""
        self.close()
        with self._path.open() as lines:
            for line in lines:
                yield Entry(**json.loads(line))


_COLUMNS = frozenset(Entry.__dataclass_fields__) - {"lock"}
