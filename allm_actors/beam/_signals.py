"""Messages, exit signals, links and monitors: what one process may do to another."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from allm_actors.beam._calls import checkpoint_of, fence, waits_in_a_cycle
from allm_actors.beam._cell import MonitorRef, deliver_down, exit_signal, kill, table
from allm_actors.beam._check import seconds
from allm_actors.beam._current import current_process
from allm_actors.beam._names import receiver
from allm_actors.beam.mailbox import Inbox, wait_for
from allm_actors.beam.pid import (
    CallingSelf,
    CallTimeout,
    Down,
    ExitMessage,
    NoProcess,
    NotAProcess,
    Pid,
    UnknownName,
    is_word,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from allm_actors.beam._cell import Cell


class Cast(NamedTuple):
    """A message for `handle_cast`."""

    message: Any


class StopOrder(NamedTuple):
    """A request to end, in the mailbox behind the messages sent before it."""

    reason: Any


def current() -> Pid | None:
    """The pid of the process that runs in this thread; `None` in a thread that is no process."""
    cell = current_process()
    return cell.pid if cell is not None else None


def checkpoint() -> None:
    """Raise `Exit` if this process was told to exit. Costs one attribute test; quiet during cleanup."""
    cell = current_process()
    if cell is not None and cell.must_exit:
        cell.obey()


def _caller() -> Cell | None:
    cell = current_process()
    if cell is not None and cell.must_exit:
        checkpoint_of(cell)
    return cell


def send(dest: Pid | Hashable | Inbox, message: Any) -> bool:
    """Send a message to a process's `handle_info`, or to an `Inbox`. Never blocks.

    Messages from one thread to one process arrive in the order sent. They are handed over, not copied: send
    immutable values.

    Returns:
        Whether there was somebody to send it to: `False` if the process is dead.

    Raises:
        UnknownName: Nobody has the name.
        MailboxFull: The receiver's mailbox is bounded and full.
        Exit: The calling process was told to exit.
    """
    caller = _caller()
    if isinstance(dest, Inbox):
        return dest.put(message)
    cell = receiver(dest)
    if cell is None:
        raise UnknownName(dest)
    return _put(cell, message, caller)


def cast(dest: Pid | Hashable, message: Any) -> None:
    """Send a message to a process's `handle_cast`. A missing receiver is no error.

    Raises:
        MailboxFull: The receiver's mailbox is bounded and full.
        Exit: The calling process was told to exit.
    """
    caller = _caller()
    cell = receiver(dest)
    if cell is not None:
        _put(cell, Cast(message), caller)


def _put(cell: Cell, item: Any, caller: Cell | None) -> bool:
    if cell.dead:
        return False
    if caller is cell:
        cell.mailbox.put(item)
    else:
        cell.mailbox.put_message(item, cell.pid)
    return True


def exit(dest: Pid | Hashable, reason: Any) -> None:
    """Send an exit signal.

    `"kill"` kills: the process is dead for everybody else when this returns. `"normal"` from another process
    has no effect on a process that does not trap exits. Any other reason ends a process that does not trap
    exits, at its next checkpoint, and is an `ExitMessage` for one that does. A process that sends itself an
    exit it does not trap ends here. To a dead process: nothing happens.

    Raises:
        UnknownName: Nobody has the name.
        ValueError: `reason` is `None`: a reason must be given.
    """
    if reason is None:
        raise ValueError("an exit needs a reason; None is none")
    caller = current_process()
    if caller is not None:
        fence(caller)
    cell = receiver(dest)
    if cell is None:
        raise UnknownName(dest)
    if is_word(reason, "kill"):
        kill(cell)
    else:
        exit_signal(cell, caller, reason)
    if caller is cell and cell.must_exit:
        cell.obey()


def stop(dest: Pid | Hashable, reason: Any = "normal", timeout: float = math.inf) -> None:
    """Ask a process to end, and wait until it has.

    The process, trapping or not, handles the messages sent before, runs `terminate(reason)` and ends.

    Args:
        dest: A pid, or a registered name.
        reason: What its end is called.
        timeout: Seconds to wait; the process is not killed when they are over.

    Raises:
        NoProcess: It was dead, or nobody has the name.
        CallTimeout: It has not ended in time.
        CallingSelf: A process asked itself; return `Stop(reason)` instead.
    """
    seconds("timeout", timeout, zero=True)
    if reason is None:
        raise ValueError("an end needs a reason; None is none")
    caller = _caller()
    cell = receiver(dest)
    if cell is None or cell.dead:
        raise NoProcess(dest)
    if cell is caller:
        raise CallingSelf(cell.pid)
    done: queue.SimpleQueue[Down] = queue.SimpleQueue()
    ref = watch(cell, None, done.put, None)
    order_stop(cell, reason)
    if caller is not None:
        caller.waiting_for = cell
    try:
        if is_word(wait_for(done, timeout).reason, "noproc"):
            raise NoProcess(dest)
    except queue.Empty:
        raise CallTimeout(cell.pid, timeout, what="stop", cycle=waits_in_a_cycle(caller, cell)) from None
    finally:
        if caller is not None:
            caller.waiting_for = None
        unwatch(ref)
    if not cell.killed:
        join_thread(cell, 0.5)  # it has nothing left to do; a stopped process leaves no thread


def order_stop(cell: Cell, reason: Any) -> None:
    """Tell a process to end behind the messages that wait; one that reads none, at its next checkpoint."""
    cell.mailbox.put(StopOrder(reason))
    if cell.deaf:
        cell.tell_exit(reason)


def join_thread(cell: Cell, timeout: float) -> None:
    """Wait for the end of a process and of its thread; from its own thread, not at all.

    A process that is just being born has no running thread yet: its death is waited for first.
    """
    if cell.thread is threading.current_thread():
        return
    deadline = time.monotonic() + timeout
    if cell.thread is not None:
        with contextlib.suppress(RuntimeError):  # made, and not started yet
            cell.thread.join(timeout)
            return
    cell.pid.actor_stopped.wait(timeout)
    if cell.thread is not None:
        with contextlib.suppress(RuntimeError):  # never started
            cell.thread.join(max(0.0, deadline - time.monotonic()))


# --- links --------------------------------------------------------------------------------------------


def _need(what: str) -> Cell:
    cell = _caller()
    if cell is None:
        raise NotAProcess(what)
    return cell


def link(pid: Pid) -> None:
    """Tie the calling process to another: the abnormal end of one reaches the other.

    At most one link stands between two processes; a process cannot link to itself (no effect).

    Raises:
        NoProcess: The other is dead and the caller does not trap exits; one that does gets an
            `ExitMessage(pid, "noproc")`.
        NotAProcess: The calling thread is no process.
    """
    cell = _need("link")
    other = receiver(pid)
    if other is cell:
        return
    if other is None or not tie(cell, other):
        checkpoint_of(cell)
        if not cell.trap_exit:
            raise NoProcess(pid)
        cell.mailbox.put(ExitMessage(pid if isinstance(pid, Pid) else None, "noproc"))


def tie(cell: Cell, other: Cell) -> bool:
    """Link two processes; `False` if one is dead."""
    with table.lock:
        if cell.dead or other.dead:
            return False
        cell.links[other] = None
        other.links[cell] = None
        return True


def unlink(pid: Pid) -> None:
    """Remove the link to a process, if there is one; nothing of it arrives afterwards.

    Raises:
        NotAProcess: The calling thread is no process.
    """
    cell = _need("unlink")
    other = receiver(pid)
    if other is not None:
        untie(cell, other)
        checkpoint_of(cell)  # an end that came first has been heard of


def untie(cell: Cell, other: Cell) -> None:
    """Remove the link between two processes, and what it has brought that was not read yet."""
    with table.lock:
        for one, peer in ((cell, other), (other, cell)):
            one.links.pop(peer, None)
            on_its_way = one.exits.pop(peer, None)
            if on_its_way is not None:
                on_its_way.active = False


# --- monitors -----------------------------------------------------------------------------------------


def monitor(dest: Pid | Hashable, to: Any = None) -> MonitorRef:
    """Be told of the end of a process: exactly one `Down`, whatever happens.

    Args:
        dest: A pid, or a registered name; dead or unknown gives a `Down` with `"noproc"` at once.
        to: Where the `Down` goes: `None` for the calling process's own mailbox (`handle_info`), an `Inbox`,
            an event queue, or a callable that takes the `Down`. The callable runs in the thread that ends the
            process (as nobody's: `current()` is `None` in it), must not block, and what it raises is logged.

    Raises:
        NotAProcess: `to` is `None` and the calling thread is no process.
        TypeError: `to` is none of these.
    """
    caller = _caller()
    if to is None and caller is None:
        raise NotAProcess("monitor without `to`")
    if to is not None and not (isinstance(to, Inbox) or callable(to) or hasattr(to, "on_down")):
        raise TypeError(f"to must be an Inbox, an event queue or a callable, not {type(to).__name__}")
    name = None if isinstance(dest, Pid) else dest
    return watch(receiver(dest), caller if to is None else None, to, name)


def watch(target: Cell | None, owner: Cell | None, to: Any, name: Hashable | None) -> MonitorRef:
    """Set a monitor."""
    ref = MonitorRef(target, owner, to, name)
    with table.lock:
        if owner is not None:
            fence(owner)
        stands = target is not None and not target.dead
        if stands:
            assert target is not None
            target.watchers[ref] = None
            if owner is not None:
                owner.watching[ref] = None
    if not stands:
        deliver_down(ref, Down(ref, target.pid if target is not None else None, "noproc", name))
    return ref


def demonitor(ref: MonitorRef, flush: bool = True) -> None:
    """Remove a monitor: no `Down` of it afterwards. Idempotent.

    A callable that another thread is just running with the `Down` is not waited for.

    Args:
        ref: The monitor.
        flush: Also take back a `Down` that already waits in a mailbox or an inbox.
    """
    unwatch(ref, flush=flush)


def unwatch(ref: MonitorRef, *, flush: bool = True) -> bool:
    """Remove a monitor; whether it still stood."""
    with table.lock:
        stood = ref.target is not None and ref.target.watchers.pop(ref, 0) is None
        if ref.owner is not None:
            ref.owner.watching.pop(ref, None)
        if stood or flush:
            ref.active = False
    return stood
