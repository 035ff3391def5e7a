"""Calls: a question, and the one answer to it.

`Sender` is the server's half: it stands in the table of open calls of the receiver until it is answered.
Taking it out of there is what decides who answers, so the first answer counts and later ones do nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from allm_actors.beam._check import seconds
from allm_actors.beam._current import current_process
from allm_actors.beam._log import log
from allm_actors.beam.mailbox import wait_for
from allm_actors.beam.pid import CallingSelf, CallTimeout, Exit, NoProcess, ProcessExit

if TYPE_CHECKING:
    from collections.abc import Hashable

    from allm_actors.beam._cell import Cell
    from allm_actors.beam.pid import Pid

_ids = count(1)


class NoReply:
    """Returned by `handle_call`: the answer follows later, through the sender."""

    def __repr__(self) -> str:
        return "NO_REPLY"


NO_REPLY = NoReply()


class Answer(NamedTuple):
    """What comes back: a value, or the exception to raise in the caller."""

    value: Any = None
    error: BaseException | None = None

    def unwrap(self) -> Any:
        """The value; raises what there is to raise."""
        error = self.error
        if error is None:
            return self.value
        try:
            raise error
        finally:
            del self, error  # as in `call`


class Waiter(Protocol):
    """Where an answer is put: a queue, a future, an event loop."""

    def put(self, item: Any, /) -> None:
        """Take the answer. Must not block."""


class Sender:
    """The caller of one call, as the server sees it: answer it once, now or later, from any thread.

    Attributes:
        abandoned: Whether the caller gave up waiting.
        caller: The calling process, `None` if the caller was a plain thread.
    """

    __slots__ = ("_cell", "_waiter", "abandoned", "caller", "number")

    def __init__(self, cell: Cell, waiter: Waiter, caller: Pid | None) -> None:
        self.number = next(_ids)
        self.caller = caller
        self.abandoned = False
        self._cell = cell
        self._waiter = waiter

    def reply(self, value: Any) -> bool:
        """Answer the call; `False` if it was answered already, given up, or failed, or in a killed one."""
        return self._answer(Answer(value))

    def fail(self, exception: BaseException) -> bool:
        """Have `exception` raised in the caller, unchanged; the server lives on. `False` as in `reply`."""
        return self._answer(Answer(error=exception))

    def _answer(self, answer: Answer) -> bool:
        replier = current_process()
        if replier is not None and replier.killed:
            return False
        if self._cell.calls.pop(self.number, None) is None:
            return False
        self._waiter.put(answer)
        return True

    def fail_with_exit(self, reason: Any) -> None:
        """Tell the caller that the server has ended. For the one who took this out of the table."""
        self._waiter.put(Answer(error=ProcessExit(reason, self._cell.pid)))

    def withdraw(self) -> bool:
        """Give the call up; `False` if an answer is on its way, which then must be taken."""
        if self._cell.calls.pop(self.number, None) is None:
            return False
        self.abandoned = True
        return True

    def __repr__(self) -> str:
        return f"<Sender {self.caller or 'thread'} of call {self.number}>"


class Call(NamedTuple):
    """A question in a mailbox."""

    request: Any
    sender: Sender


def open_call(cell: Cell, waiter: Waiter, request: Any, caller: Cell | None) -> Sender:
    """Enter a call in the receiver's table and send it.

    Raises:
        NoProcess: The receiver is dead.
        MailboxFull: Its mailbox is bounded and full.
    """
    sender = Sender(cell, waiter, caller.pid if caller else None)
    cell.calls[sender.number] = sender
    # 1. Death marks the receiver dead, then fails everything in its table.
    # 2. So either we see the mark here, or death sees our entry there.
    if cell.dead:
        if sender.withdraw():
            raise NoProcess(cell.pid)
        return sender
    try:
        cell.mailbox.put_message(Call(request, sender), cell.pid)
    except BaseException:
        sender.withdraw()
        raise
    return sender


def call(dest: Pid | Hashable, request: Any, timeout: float = 5.0) -> Any:
    """Ask a process and wait for its reply.

    Works from any thread. Ctrl-C interrupts it in the main thread.

    Args:
        dest: A pid, or a registered name.
        request: Goes to the receiver's `handle_call`, uncopied: send immutable values.
        timeout: Seconds to wait; `math.inf` for ever.

    Returns:
        What `handle_call` returned, or what its sender was answered with.

    Raises:
        NoProcess: The receiver is dead, or nobody has the name.
        ProcessExit: The receiver ended before it replied, for whatever reason; after a crash the original
            exception is its `__cause__`.
        CallTimeout: No reply in time. The receiver lives; a late reply is dropped.
        CallingSelf: A process called itself.
        MailboxFull: The receiver's mailbox is bounded and full.
        Exit: The calling process was told to exit while it waited.
        TypeError: `timeout` is not a number.
        ValueError: `timeout` is negative or NaN.
    """
    from allm_actors.beam._names import receiver

    seconds("timeout", timeout, zero=True)
    caller = current_process()
    checkpoint_of(caller)
    cell = receiver(dest)
    if cell is None:
        raise NoProcess(dest)
    if caller is cell:
        raise CallingSelf(cell.pid)
    waiter: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    sender = open_call(cell, waiter, request, caller)
    try:
        if caller is not None:
            caller.waiting_for = cell
        answer: Answer = wait_for(waiter, timeout)
    except queue.Empty:
        if not sender.withdraw():
            return waiter.get().unwrap()  # it came at the last moment
        raise _timed_out(cell, caller, timeout) from None
    except BaseException:
        sender.withdraw()
        sender.abandoned = True
        raise
    finally:
        if caller is not None:
            caller.waiting_for = None
    error = answer.error
    if error is None:
        return answer.value
    try:
        raise error
    finally:
        del answer, error  # an exception whose traceback leads back to it would live until collected


def fence(caller: Cell) -> None:
    """Refuse what a killed process still tries to do to others."""
    if caller.killed:
        raise Exit("killed")


def _timed_out(cell: Cell, caller: Cell | None, timeout: float) -> CallTimeout:
    cycle = waits_in_a_cycle(caller, cell)
    if cycle:
        log.error("call.deadlock", processes=[str(pid) for pid in cycle])
    return CallTimeout(cell.pid, timeout, cycle=cycle)


def waits_in_a_cycle(caller: Cell | None, callee: Cell) -> tuple[Pid, ...]:
    """The chain of who waits for whom from `caller`, if it comes back to it; else empty."""
    if caller is None:
        return ()
    chain = [caller]
    at: Cell | None = callee
    while at is not None and at is not caller and at not in chain:
        chain.append(at)
        at = at.waiting_for
    return tuple(cell.pid for cell in chain) if at is caller else ()


class _LoopWaiter:
    """Hands an answer to a future of an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Answer]) -> None:
        self._loop, self._future = loop, future

    def put(self, item: Answer, /) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._set, item)

    def _set(self, item: Answer) -> None:
        if not self._future.done():
            self._future.set_result(item)


async def acall(dest: Pid | Hashable, request: Any, timeout: float = 5.0) -> Any:
    """`call` for a coroutine: the event loop goes on, and no thread waits.

    A cancelled `acall` abandons the call. Arguments, result and exceptions are those of `call`.
    """
    from allm_actors.beam._names import receiver

    seconds("timeout", timeout, zero=True)
    caller = current_process()
    checkpoint_of(caller)
    cell = receiver(dest)
    if cell is None:
        raise NoProcess(dest)
    if caller is cell:
        raise CallingSelf(cell.pid)
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Answer] = loop.create_future()
    waiter = _LoopWaiter(loop, future)
    sender = open_call(cell, waiter, request, caller)
    # A loop that runs inside a process is not one of the waits that an exit ends by itself.
    order = caller.add_interrupter(lambda: waiter.put(Answer(error=_Told()))) if caller is not None else 0
    try:
        async with asyncio.timeout(None if timeout == math.inf else timeout):
            answer = await asyncio.shield(future)
    except TimeoutError:
        if not sender.withdraw():
            return (await future).unwrap()
        raise CallTimeout(cell.pid, timeout) from None
    except asyncio.CancelledError:
        sender.withdraw()
        raise
    finally:
        if caller is not None:
            caller.remove_interrupter(order)
    if isinstance(answer.error, _Told):
        sender.withdraw()
        checkpoint_of(caller)
    try:
        return answer.unwrap()
    finally:
        del answer


class _Told(Exception):
    """The process in which an event loop waits was told to exit."""


def checkpoint_of(caller: Cell | None) -> None:
    """Raise what the calling process was told, and refuse what a killed one still tries to do to others."""
    if caller is not None and caller.must_exit:
        caller.obey()
        fence(caller)
