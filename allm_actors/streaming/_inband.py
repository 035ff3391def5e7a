"""What travels between the events of a stream and is none: for whoever reads the stream, not for its user.

A source that must not run ahead yields a `Gate`. It lies in the queue behind everything said before it, so
the reader meets it exactly when all of that was taken and more is asked for; opening it lets the source go
on.
"""

from __future__ import annotations

import math
import queue

from allm_actors.beam.mailbox import wait_for

__all__ = ["Gate", "Raised"]


class Gate:
    """Holds a source until its reader wants more than was said so far."""

    __slots__ = ("_opened",)

    def __init__(self) -> None:
        self._opened: queue.SimpleQueue[None] = queue.SimpleQueue()

    def open(self) -> None:
        """Let the source go on. The reader calls this when it takes the gate out of the queue."""
        self._opened.put(None)

    def wait(self) -> None:
        """Wait until it is open; in the source's process, once.

        Raises:
            Exit: The process was told to exit: the reader wants no more.
        """
        wait_for(self._opened, math.inf)


class Raised:
    """The end of a source by an exception that is the reader's: raised where the stream is read.

    Attributes:
        error: The exception itself.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
