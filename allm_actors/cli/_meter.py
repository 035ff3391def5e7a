"""How fast an answer arrived: time to the first token, and tokens per second after it."""

import time
from collections.abc import Callable

from allm_actors.data import Usage


class Meter:
    """Counts the pieces of one answer. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()
        self._first: float | None = None
        self._last = 0.0
        self._pieces = 0

    def elapsed(self) -> float:
        """Return the seconds since the meter was made."""
        return self._clock() - self._began

    def piece(self) -> None:
        """Note that a piece of the answer has arrived."""
        self._last = self._clock()
        if self._first is None:
            self._first = self._last
        self._pieces += 1

    def report(self, usage: Usage | None = None) -> str:
        """Return one line. Tokens are the provider's count, else the pieces that arrived (marked `~`)."""
        if self._first is None:
            return f"no text after {self.elapsed():.2f} s"
        counted = usage.output_tokens if usage is not None else None
        tokens = counted if counted is not None else self._pieces
        about = "" if counted is not None else "~"
        parts = [
            f"first token after {self._first - self._began:.2f} s",
            f"{about}{tokens} token{'' if tokens == 1 else 's'}",
        ]
        seconds = self._last - self._first
        if tokens > 1 and seconds > 0:
            parts.append(f"{about}{(tokens - 1) / seconds:.1f} tokens/s")
        return " · ".join(parts)
