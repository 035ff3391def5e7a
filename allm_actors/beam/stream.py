"""Streams: one process that pulls from a source and pushes into a queue its consumer owns.

```python
with beam.StreamReader(lambda events: start_stream(lines(path), events)) as lines:
    for line in lines:
        print(line)
```

Guarantees:
    - The source is iterated and closed in the stream's own process, and closed exactly once: before the
      consumer hears of the end.
    - The queue gets exactly one terminal item, however the stream ended: `End`, `Failed` when the source
      raised, else `Down` with the reason.
    - Whoever stalls stalls only this process.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from allm_actors.beam._check import seconds
from allm_actors.beam._event_queue import END, HALTED, SKIP, End, EventQueue, Failed, Skip
from allm_actors.beam._lane import Lane, Latch
from allm_actors.beam._log import log
from allm_actors.beam._signals import demonitor, monitor
from allm_actors.beam._stream_reader import StreamReader
from allm_actors.beam.pid import Crash, Exit, Shutdown, describe
from allm_actors.beam.process import Process, Stop
from allm_actors.beam.supervisor import ChildSpec, start_child
from allm_actors.beam.timer import cancel_timer, send_after, service

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from allm_actors.beam._cell import Cell, MonitorRef
    from allm_actors.beam.pid import Down, Pid
    from allm_actors.beam.timer import TimerRef

__all__ = [
    "END",
    "HALTED",
    "LENDER_DOWN",
    "SKIP",
    "End",
    "EventQueue",
    "Failed",
    "Lane",
    "Latch",
    "Skip",
    "StreamActor",
    "StreamReader",
    "start_stream",
]

LENDER_DOWN = Shutdown("lender_down")
"""The reason of a stream whose source lost the process it borrowed from."""


class StreamActor(Process):
    """The process of one live stream: temporary, never linked to its consumer."""

    acknowledged = False  # whoever starts it does not wait for `init`
    deaf = True  # it pulls and pushes, and reads no message
    child_type = "worker"

    def init(
        self,
        source: Iterable[Any],
        events: EventQueue,
        *,
        interrupt: Callable[[], None] | None = None,
        lender: Pid | None = None,
        consumer: Pid | None = None,
        stall_timeout: float = math.inf,
    ) -> None:
        """Take over a source.

        Args:
            source: Iterated in this process; its `close()`, if it has one, is called here, once.
            events: Where its items go.
            interrupt: Wakes a thread that is blocked in the source; any thread may call it, at most once
                per stream, and only while the source is being asked for its next item.
            lender: A process that the source borrows from: when it ends, for whatever reason, so does the
                stream.
            consumer: The process that reads, if it is one: when it ends as the reader, the stream is halted.
            stall_timeout: Seconds after which a consumer that takes nothing, although events wait, has the
                stream halted.
        """
        self._source, self._events, self._interrupt = source, events, interrupt
        self._outcome: End | Crash | None = None
        self._settled = False
        self._stepping = False
        self._ties: list[MonitorRef] = []
        self._stall: _StallWatch | None = None
        self.on_exit(self._settle)
        self.on_exit(self._untie)
        if lender is not None:
            self._ties.append(monitor(lender, to=self._on_lender_down))
        if consumer is not None:
            self._ties.append(monitor(consumer, to=_ConsumerTie(consumer, events)))
        if stall_timeout != math.inf:
            self._stall = _StallWatch(events, stall_timeout)
        self.continue_with(None)

    def handle_continue(self, token: Any) -> Stop:  # noqa: ARG002
        """Push every item, until the source ends or something ends the stream."""
        cell = self._cell
        interrupter = cell.add_interrupter(self._on_exit_signal) if self._interrupt is not None else 0
        try:
            self._pump(cell)
        except Exit:
            raise
        except BaseException as error:
            # An interrupted source may fail, or seem to end: the order to exit is looked at first.
            if cell.must_exit:
                cell.obey()
            raise self._failed(error) from None
        finally:
            cell.remove_interrupter(interrupter)  # before the source is closed, which it must not meet
        if cell.must_exit:
            cell.obey()
        self._outcome = END
        return Stop("normal")

    def _pump(self, cell: Cell) -> None:
        step = iter(self._source).__next__
        push = self._events.push
        while True:
            # An exit marks this process, then looks whether the source is being asked; we say that it is,
            # then look for the mark. Whatever the order, one of the two sees the other.
            self._stepping = True
            if cell.must_exit:
                cell.obey()
            try:
                event = step()
            except StopIteration:
                return
            finally:
                self._stepping = False
            push(event)

    def _failed(self, error: BaseException) -> Exit:
        self._outcome = Crash.of(error)
        return Exit(self._outcome)

    def _on_exit_signal(self) -> None:
        if self._stepping and self._interrupt is not None:
            self._interrupt()

    def _on_lender_down(self, down: Down) -> None:  # noqa: ARG002
        self._cell.tell_exit(LENDER_DOWN)

    # --- the end --------------------------------------------------------------------------------------

    def terminate(self, reason: Any) -> None:  # noqa: ARG002
        """Close the source, then say how it ended."""
        if self._outcome is not END:
            return
        try:
            self._close_source()
        except BaseException as error:
            raise self._failed(error) from None

    def _run_closers(self) -> None:
        if self._arguments is not None and self._arguments[0] and not self._closers:
            # Told to exit before `init`: the source is closed all the same.
            self._source, self._events, *_ = self._arguments[0]
            self._outcome, self._settled = None, False
            self._closers.append(self._settle)
        super()._run_closers()

    def _settle(self) -> None:
        """Close the source, unless that is done, and send the terminal item that is due."""
        try:
            self._close_source()
        except BaseException as error:
            log.error("closer.failed", pid=self.pid.number, error=describe(error))
        if self._outcome is END:
            self._events.end()
        elif isinstance(self._outcome, Crash):
            self._events.fail(self._outcome.exception, self._outcome.report)

    def _close_source(self) -> None:
        if self._settled:
            return
        self._settled = True
        close = getattr(self._source, "close", None)
        if callable(close):
            close()

    def _untie(self) -> None:
        for ref in self._ties:
            demonitor(ref)
        if self._stall is not None:
            self._stall.end()


def start_stream(
    source: Iterable[Any],
    events: EventQueue,
    *,
    supervisor: Pid | Hashable | None = None,
    id: Hashable = "stream",  # noqa: A002  the field's name
    **options: Any,
) -> Pid:
    """Start the process of a stream; costs one thread start and waits for nothing.

    Args:
        source: Where the items come from.
        events: Where they go; gets the terminal item whatever happens.
        supervisor: A `DynamicSupervisor` to start it under; without one it is nobody's child.
        id: What the supervisor calls it.
        **options: `interrupt`, `lender`, `consumer` and `stall_timeout`, see `StreamActor.init`.

    Raises:
        NoProcess: The supervisor has ended.
        StartError: The system refused a thread.
    """
    limit = options.get("stall_timeout", math.inf)
    if limit != math.inf:
        seconds("stall_timeout", limit)
    if supervisor is None:
        pid = StreamActor.start_nowait(source, events, **options)
    else:
        spec = ChildSpec(
            id, StreamActor, args=(source, events), kwargs=options, restart="temporary", shutdown=0.5
        )
        started = start_child(supervisor, spec)
        assert started is not None
        pid = started
    events.on_halt = _HaltActor(pid._cell)
    if events.halted:
        events.on_halt()
    monitor(pid, to=events)
    return pid


class _HaltActor:
    """Tells the process of a halted stream to end; fit for a finalizer: takes no lock, runs no user code."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def __call__(self) -> None:
        cell = self._cell
        if not cell.dead:
            cell.tell_exit(HALTED, interrupt=False)
            if cell.interrupters:
                service.run(cell.interrupt)


class _ConsumerTie:
    """Halts a stream when the process that reads it has ended."""

    __slots__ = ("_consumer", "_events")

    def __init__(self, consumer: Pid, events: EventQueue) -> None:
        self._consumer, self._events = consumer, events

    def __call__(self, _down: Down) -> None:
        owner = self._events.lane.owner
        if owner is None or owner is self._consumer._cell.thread:  # else it was passed on
            self._events.halt()


class _StallWatch:
    """Halts a stream whose consumer takes nothing for too long, although events wait."""

    def __init__(self, events: EventQueue, limit: float) -> None:
        self._events, self._limit = events, limit
        self._taken, self._since = -1, time.monotonic()
        self._over = False
        self._timer: TimerRef = send_after(limit / 4, self._look, None)

    def _look(self, _: Any) -> None:
        events, now = self._events, time.monotonic()
        if self._over or events.finished:
            return
        if events.in_flight == 0 or events.taken != self._taken:
            self._taken, self._since = events.taken, now
        elif now - self._since >= self._limit:
            log.warning("stream.stalled", in_flight=events.in_flight, seconds=self._limit)
            events.halt()
            return
        self._timer = send_after(self._limit / 4, self._look, None)

    def end(self) -> None:
        self._over = True
        cancel_timer(self._timer)
