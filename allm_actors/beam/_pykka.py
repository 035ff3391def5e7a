"""What pykka's own entrances to a process do: `tell`, `ask` and `stop` of an actor ref."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pykka

from allm_actors.beam._calls import Answer, open_call
from allm_actors.beam._current import current_process
from allm_actors.beam._signals import StopOrder, send, watch
from allm_actors.beam.pid import Down, ProcessExit

if TYPE_CHECKING:
    from allm_actors.beam.pid import Pid


def tell(pid: Pid, message: Any) -> None:
    """Send a message as pykka does: a dead receiver raises."""
    if not send(pid, message):
        raise pykka.ActorDeadError(f"{pid} is dead")


class _FutureWaiter:
    """Puts an answer into a pykka future."""

    def __init__(self, future: pykka.Future[Any]) -> None:
        self._future = future

    def put(self, item: Answer, /) -> None:
        error = item.error
        if error is None:
            self._future.set(item.value)
            return
        if isinstance(error, ProcessExit):
            dead = pykka.ActorDeadError(str(error))
            dead.__cause__ = error
            error = dead
        self._future.set_exception((type(error), error, None))


def ask(pid: Pid, message: Any, *, block: bool, timeout: float | None) -> Any:
    """Call a process, the outcome in a pykka future."""
    future: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()
    waiter = _FutureWaiter(future)
    try:
        open_call(pid._cell, waiter, message, current_process())
    except ProcessExit as error:
        waiter.put(Answer(error=error))
    return future.get(timeout=timeout) if block else future


def stop(pid: Pid, *, block: bool, timeout: float | None) -> Any:
    """Stop a process; whether it was alive, in a pykka future."""
    future: pykka.ThreadingFuture[bool] = pykka.ThreadingFuture()
    cell = pid._cell
    was_alive = not cell.dead

    def ended(down: Down) -> None:
        future.set(was_alive and down.reason != "noproc")

    watch(cell, None, ended, None)
    cell.mailbox.put(StopOrder("normal"))
    if not block:
        return future
    return future.get(timeout=None if timeout in (None, math.inf) else timeout)
