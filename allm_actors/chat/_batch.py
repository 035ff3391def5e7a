"""The consumer's end of a batch of tool calls.

Guarantees:
    - Events that belong together come together: a completion and what follows from it.
    - If the batch's process is ended from outside, every call without an outcome gets one here.
    - Halting waits for nothing and takes no lock; closing waits for the batch's process, not for handlers.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from allm_actors import beam
from allm_actors.beam._cell import kill
from allm_actors.beam.runtime import task_supervisor
from allm_actors.beam.supervisor import ChildSpec, start_child
from allm_actors.chat._batch_process import GONE, BatchProcess
from allm_actors.chat._calls import settle_without_policy, tool_error
from allm_actors.chat._jobs import skipped_plainly, started
from allm_actors.data import AskUserRequested, ToolHalt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allm_actors import telemetry
    from allm_actors.beam import Pid
    from allm_actors.chat._calls import Toolbox
    from allm_actors.data import Event, ToolCall

__all__ = ["Batch", "unexecuted"]

_CLOSED: Final = beam.Shutdown("closed")
_CLOSE_TIMEOUT: Final = 0.5


class Batch:
    """A batch that runs, seen by the run that started it. One thread at a time takes; any may halt.

    Args:
        box: What the calls share.
        calls: Those to execute, in call order.
        manual: Those to answer as skipped if one of the others halts.
        parent: The span of the step.
    """

    def __init__(
        self,
        box: Toolbox,
        calls: Sequence[ToolCall],
        manual: Sequence[ToolCall] = (),
        parent: telemetry.Span | None = None,
    ) -> None:
        self._calls, self._manual = calls, manual
        self._outbox = beam.Inbox()
        self._gone = threading.Event()
        self._taken: list[Event] = []
        self._begun: set[int] = set()
        self._settled: set[int] = set()
        self._halted = self._skipped = self._over = self._closed = False
        self._pid: Pid | None = None
        spec = ChildSpec(
            id="batch",
            start=BatchProcess,
            args=(box, calls, manual, self._outbox, parent),
            restart="temporary",
            shutdown=0.5,
        )
        try:
            pid = self._pid = start_child(task_supervisor(), spec)
        except GONE:
            self._outbox.put(None)
            self._gone.set()
        else:
            assert pid is not None
            gone = self._gone
            beam.monitor(pid, to=self._outbox)
            beam.monitor(pid, to=lambda _down: gone.set())

    def take(self) -> list[Event] | None:
        """Events that belong together, waiting for them; `None` at the end and after a halt.

        After an end from outside each call without an outcome halts with `handler_exit`.
        """
        if self._over:
            return None
        item = self._outbox.receive()
        if self._closed or not isinstance(item, tuple):
            self._over = True
            return None if self._closed else self._rest() or None
        index, events = item
        self._taken += events
        if index is None:
            self._skipped = True
        elif index in self._begun or len(events) > 1:
            self._settled.add(index)
            self._halted = self._halted or isinstance(events[-1], ToolHalt | AskUserRequested)
        else:
            self._begun.add(index)
        return events  # type: ignore[no-any-return]

    def rest(self, heard: int) -> list[Event]:
        """What is left to say if nobody takes any more, to someone who heard of so many events."""
        self._over = True
        return self._taken[heard:] + self._rest()

    def _rest(self) -> list[Event]:
        """What there is to say for the calls that the batch did not get to."""
        events: list[Event] = []
        for index, call in enumerate(self._calls):
            if index not in self._settled:
                events += _ended(call, said_begun=index in self._begun)
        if self._manual and not self._skipped and (events or self._halted):
            events += skipped_plainly(self._manual)
        self._settled.update(range(len(self._calls)))
        self._skipped = True
        self._taken += events
        return events

    def halt(self) -> None:
        """Want no more: handlers are given up, nothing waits. From any thread and from a finalizer."""
        self._closed = True
        if self._pid is not None:
            self._pid._cell.tell_exit(_CLOSED, interrupt=False)  # noqa: SLF001
        self._outbox.put(None)

    def close(self) -> None:
        """Halt, and wait half a second at most for the batch's process to end; not for handlers."""
        self.halt()
        if not self._gone.wait(_CLOSE_TIMEOUT) and self._pid is not None:
            kill(self._pid._cell, expected=True)  # noqa: SLF001


def unexecuted(calls: Sequence[ToolCall]) -> list[Event]:
    """What there is to say for the calls of a batch that was ended before it began."""
    return [event for call in calls for event in _ended(call, said_begun=False)]


def _ended(call: ToolCall, *, said_begun: bool) -> list[Event]:
    error = tool_error(call, "handler_exit", f"the batch of {call.name} was ended")
    return [*([] if said_begun else [started(call)]), *settle_without_policy(call, error)]
