"""What pykka's own entrances to a process do: `tell`, `ask` and `stop` of an actor ref, and envelopes."""

from __future__ import annotations

import contextlib
import math
import queue
from typing import TYPE_CHECKING, Any

import pykka
from pykka.messages import _ActorStop

from allm_actors.beam._calls import Answer, Sender, call, checkpoint_of, open_call
from allm_actors.beam._current import current_process
from allm_actors.beam._signals import order_stop, send, watch
from allm_actors.beam._signals import stop as stop_and_wait
from allm_actors.beam.pid import CallTimeout, Exit, NoProcess, ProcessExit, is_word

if TYPE_CHECKING:
    from pykka._envelope import Envelope

    from allm_actors.beam.pid import Pid
    from allm_actors.beam.process import Process


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
        with contextlib.suppress(queue.Full):  # somebody else has set it
            if error is None:
                self._future.set(item.value)
            else:
                error = _as_pykka(error)
                self._future.set_exception((type(error), error, None))


def _as_pykka(error: BaseException) -> BaseException:
    if not isinstance(error, ProcessExit):
        return error
    dead = pykka.ActorDeadError(str(error))
    dead.__cause__ = error
    return dead


def ask(pid: Pid, message: Any, *, block: bool, timeout: float | None) -> Any:
    """Call a process, the outcome in a pykka future; the outcome itself with `block`."""
    if block:
        try:
            return call(pid, message, math.inf if timeout is None else timeout)
        except CallTimeout as error:
            raise pykka.Timeout(str(error)) from error
        except ProcessExit as error:
            raise _as_pykka(error) from error
    future: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()
    waiter = _FutureWaiter(future)
    caller = current_process()
    checkpoint_of(caller)
    try:
        open_call(pid._cell, waiter, message, caller)
    except ProcessExit as error:
        waiter.put(Answer(error=error))
    return future


def receive(process: Process, envelope: Envelope[Any]) -> None:
    """Handle what somebody put into the mailbox as pykka does, in an envelope.

    Raises:
        Exit: It was pykka's order to stop.
    """
    message, reply_to = envelope.message, envelope.reply_to
    if isinstance(message, _ActorStop):
        if reply_to is not None:
            reply_to.set(None)
        raise Exit("normal")
    if reply_to is None:
        process._obey(process.handle_info(message))
        return
    cell = process._cell
    sender = Sender(cell, _FutureWaiter(reply_to), None)
    cell.calls[sender.number] = sender
    process._answer_call(message, sender)


def stop(pid: Pid, *, block: bool, timeout: float | None) -> Any:
    """Stop a process: whether it was alive; in a pykka future with `block=False`."""
    if block:
        try:
            stop_and_wait(pid, "normal", math.inf if timeout is None else timeout)
        except NoProcess:
            return False
        except CallTimeout as error:
            raise pykka.Timeout(str(error)) from error
        return True
    checkpoint_of(current_process())
    future: pykka.ThreadingFuture[bool] = pykka.ThreadingFuture()
    watch(pid._cell, None, lambda down: future.set(not is_word(down.reason, "noproc")), None)
    order_stop(pid._cell, "normal")
    return future
