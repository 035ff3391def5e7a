"""How late the machine itself was: what no program could have kept must not be held against this one."""

from __future__ import annotations

import threading
import time
from typing import Self

_EVERY = 0.02
_NOTABLE = 0.02


class Lateness:
    """A thread that wants to wake every 20 ms, and writes down when it did not.

    Attributes:
        samples: When it woke (`time.monotonic`) and how late that was, in seconds; the notable ones.
    """

    def __init__(self, samples: list[tuple[float, float]] | None = None) -> None:
        self.samples: list[tuple[float, float]] = samples if samples is not None else []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lateness", daemon=True)

    @property
    def worst(self) -> float:
        """The latest it ever was."""
        return max((late for _, late in self.samples), default=0.0)

    def during(self, began: float, ended: float) -> float:
        """How late it was in all between two moments."""
        return sum(late for at, late in self.samples if at >= began and at - late <= ended)

    def _watch(self) -> None:
        while True:
            due = time.monotonic() + _EVERY
            if self._over.wait(_EVERY):
                return
            now = time.monotonic()
            if now - due > _NOTABLE:
                self.samples.append((now, now - due))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join(5)
