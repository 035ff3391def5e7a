"""The bookkeeping half of a process, and the one table of all of them.

A `Cell` is what everybody else sees of a process: whether it lives, who is linked to it, who watches it, who
waits for its answer, what it was told. It outlives the process's object (a `Pid` holds it), so it keeps
nothing that the process owned.

Promises:
    - Death is one moment, for everybody: `Cell.die` happens once, whoever gets there first, and whoever hears
      of it finds the names free and the links gone.
    - A call is answered or failed, whatever dies when. The caller enters its call in the receiver's `calls`
      before it sends, and then looks whether the receiver is dead; death marks first, and then fails
      everything in the table. Whoever takes an entry out of the table answers it, once.
    - The table's lock is never held while user code runs or anything is waited for. Nothing that a finalizer
      may do takes it.
    - A link that was removed carries nothing, not even what was on its way.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from itertools import count
from typing import TYPE_CHECKING, Any

import pykka

from allm_actors.beam._current import current_process, set_current
from allm_actors.beam._log import log
from allm_actors.beam.mailbox import Delivery, Inbox, Mailbox, Wake
from allm_actors.beam.pid import Crash, Down, Exit, ExitMessage, Pid, describe, is_clean, is_word

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable, Hashable

    from allm_actors.beam._calls import Sender


class Table:
    """Everything the layer knows of its processes: one lock, one set of dictionaries."""

    def __init__(self) -> None:
        # Reentrant only for the garbage collector, which may run a finalizer inside of a section: what that
        # does against the rules must not deadlock, and can be told.
        self.lock = threading.RLock()
        self.cells: dict[int, Cell] = {}
        self.names: dict[Hashable, Cell] = {}
        self.zombies: dict[int, Cell] = {}
        self.closing = False

    def forget(self) -> None:
        """Start over with nothing, as after a fork."""
        self.__init__()  # type: ignore[misc]


table = Table()
_numbers = count(1)


class MonitorRef:
    """One monitor: compare it with `Down.ref`, give it to `demonitor`."""

    __slots__ = ("active", "name", "owner", "target", "to")

    def __init__(self, target: Cell | None, owner: Cell | None, to: Any, name: Hashable | None) -> None:
        self.target, self.owner, self.to, self.name = target, owner, to, name
        self.active = True

    def __repr__(self) -> str:
        return f"<MonitorRef of {self.target.pid if self.target else self.name!r}>"


class OnItsWay:
    """Says of an `ExitMessage` that waits in a mailbox whether its link still stands."""

    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active = True


class Interrupter:
    """Ends a blocking call from another thread: run at most once, and never after it was taken back."""

    __slots__ = ("_running", "_todo")

    def __init__(self, callback: Callable[[], None]) -> None:
        self._todo = [callback]
        self._running = threading.RLock()

    def run(self, cell: Cell) -> None:
        """Run the callback, unless somebody else did, does, or took it back."""
        if not self._running.acquire(blocking=False):
            return
        try:
            callback = self._todo.pop()
        except IndexError:
            return
        else:
            _guarded(callback, cell, "interrupter.failed")
        finally:
            self._running.release()

    def take_back(self) -> None:
        """Have it never run; if it is running, wait until it is through, which is soon."""
        try:
            self._todo.pop()
        except IndexError:
            if self._running.acquire(timeout=INTERRUPT_SECONDS):
                self._running.release()


INTERRUPT_SECONDS = 1.0
"""How long a process waits for an interrupter that is running and is not as quick as it has to be."""

IGNORED = object()
"""What the starter of a process is told that had nothing to do."""


class Cell:
    """The state of one process that others may look at and change."""

    __slots__ = (
        "__weakref__",
        "ancestors",
        "busy_since",
        "calls",
        "class_name",
        "dead",
        "deaf",
        "death_origin",
        "elders",
        "exit_reason",
        "exits",
        "expected",
        "grave",
        "handled",
        "ignored",
        "interrupters",
        "killed",
        "last_message_type",
        "last_names",
        "links",
        "mailbox",
        "must_exit",
        "names",
        "number",
        "parent",
        "parked",
        "phase",
        "pid",
        "restarts",
        "started_at",
        "starter",
        "state",
        "thread",
        "timers",
        "told",
        "trap_exit",
        "waiting_for",
        "warned",
        "watchers",
        "watching",
    )

    def __init__(self, class_name: str, bound: int | None, parent: Cell | None, starter: Cell | None) -> None:
        self.number = next(_numbers)
        self.class_name = class_name
        self.mailbox = Mailbox(bound)
        self.pid: Pid
        self.thread: threading.Thread | None = None
        self.parent = parent
        above = parent or starter
        self.ancestors: tuple[Pid, ...] = (above.pid, *above.ancestors[:9]) if above is not None else ()
        self.elders: tuple[weakref.ref[Pid], ...] = ()  # the ancestors, once dead
        self.trap_exit = False
        self.deaf = False
        # what the process was told
        self.told: dict[str, tuple[Any, Pid | None]] = {}
        self.must_exit = False
        self.phase = "run"  # then "terminate", then "closers"
        self.dead = False
        self.killed = False
        self.exit_reason: Any = None
        self.death_origin: Pid | None = None
        self.expected = False
        self.ignored = False
        self.starter: queue.SimpleQueue[Any] | None = None  # waits for `init`
        self.grave: int | None = None  # the timer that looks whether a killed process is still there
        # who is tied to it
        self.links: dict[Cell, None] = {}
        self.exits: dict[Cell, OnItsWay] = {}
        self.watchers: dict[MonitorRef, None] = {}
        self.watching: dict[MonitorRef, None] = {}
        self.names: tuple[Hashable, ...] = ()
        self.last_names: tuple[Hashable, ...] = ()
        self.calls: dict[int, Sender] = {}
        self.timers: dict[int, None] = {}
        # what it does just now
        self.interrupters: dict[int, Interrupter] = {}
        self.parked: queue.SimpleQueue[Any] | None = None
        self.waiting_for: Cell | None = None
        self.state = "starting"
        self.started_at = time.monotonic()
        self.busy_since: float | None = None
        self.handled = 0
        self.restarts = 0
        self.last_message_type = ""
        self.warned = False

    # --- orders to end --------------------------------------------------------------------------------

    def obey(self) -> None:
        """Raise the `Exit` this process was told, unless it is cleaning up."""
        if self.phase == "closers" or (self.phase == "terminate" and not self.killed):
            return
        raise Exit(self.orders())

    def orders(self) -> Any:
        """The reason this process was told to exit with."""
        if self.killed:
            return "killed"
        return self.told.get("reason", ("killed", None))[0]

    def tell_exit(self, reason: Any, origin: Pid | None = None, *, interrupt: bool = True) -> None:
        """Order the process to end; the first order counts. Takes no lock.

        Args:
            reason: What its end shall be called.
            origin: The process whose death this follows.
            interrupt: Whether to run the interrupters here; a finalizer must not.
        """
        if not self.dead:
            self.mark(reason, origin)
            self.rouse(interrupt=interrupt)

    def mark(self, reason: Any, origin: Pid | None) -> None:
        """Have every checkpoint of the process raise from now on. Waits for nothing, runs nobody's code."""
        self.told.setdefault("reason", (reason, origin))
        self.must_exit = True

    def rouse(self, *, interrupt: bool = True) -> None:
        """Make a process that was marked notice."""
        self.wake()
        if interrupt and self.phase == "run":
            self.interrupt()

    def wake(self) -> None:
        """Make the process look up from whatever it waits for, once marked."""
        # 1. We mark, then look where it waits; it says where it waits, then looks for the mark.
        # 2. So either we find it here, or it finds the mark before it waits, there or anywhere else.
        parked = self.parked
        if parked is not None:
            parked.put(Wake(self))
        else:
            self.mailbox.wake(self)

    def interrupt(self) -> None:
        """Run every interrupter, each at most once, in this thread."""
        for interrupter in list(self.interrupters.values()):
            interrupter.run(self)

    def add_interrupter(self, callback: Callable[[], None]) -> int:
        """Have `callback` run once when the process is told to exit; at once if it was told already."""
        token = next(_numbers)
        interrupter = self.interrupters[token] = Interrupter(callback)
        if self.killed if self.phase != "run" else self.must_exit:
            interrupter.run(self)
        return token

    def remove_interrupter(self, token: int) -> None:
        """Take an interrupter back: it does not run afterwards; one that is just running is waited for."""
        interrupter = self.interrupters.pop(token, None)
        if interrupter is not None:
            interrupter.take_back()

    # --- the end --------------------------------------------------------------------------------------

    def acknowledge(self) -> None:
        """Tell the starter that `init` has returned; unless the process died first, and death tells it."""
        with table.lock:
            starter, self.starter = self.starter, None
        if starter is not None:
            starter.put(self.pid)

    def die(self, reason: Any, *, killed: bool = False, expected: bool = False) -> bool:
        """Be dead, for everybody, from now on; `False` if that was so already.

        In order: marked dead, names gone, links and monitors taken off, registry left, mailbox closed;
        pending calls fail; links get the exit signal, watchers their `Down`; last a starter that still waits
        is answered.

        Args:
            reason: Why.
            killed: Whether its thread may still be running.
            expected: Whether this is how it was meant to end, so that no crash report is due.
        """
        with table.lock:
            if self.dead:
                return False
            self.exit_reason = reason
            self.killed = killed
            self.must_exit = True
            self.dead = True
            table.cells.pop(self.number, None)
            for name in self.names:
                table.names.pop(name, None)
            self.last_names, self.names = self.names, ()
            links, self.links = list(self.links), {}
            watchers, self.watchers = list(self.watchers), {}
            for ref in list(self.watching):
                ref.active = False
                if ref.target is not None:
                    ref.target.watchers.pop(ref, None)
            self.watching = {}
            self.exits = {}
            starter, self.starter = self.starter, None
            self.expected = expected or starter is not None
            if killed:
                table.zombies[self.number] = self
        pykka.ActorRegistry.unregister(self.pid)
        self.pid.actor_stopped.set()
        self.mailbox.close()
        self._cancel_timers()
        self.fail_calls(reason)
        _report_exit(self, reason, links)
        for peer in links:
            self._signal(peer, reason)
        for ref in watchers:
            deliver_down(ref, Down(ref, self.pid, reason, ref.name))
        self.parent = None
        if starter is not None:
            starter.put(IGNORED if self.ignored and not killed else reason)
        return True

    def fail_calls(self, reason: Any) -> None:
        """Fail every open call with the reason of this process's end."""
        while self.calls:
            try:
                _, sender = self.calls.popitem()
            except KeyError:
                return
            sender.fail_with_exit(reason)

    def _cancel_timers(self) -> None:
        if not self.timers:
            return
        from allm_actors.beam.timer import service

        for number in list(self.timers):
            service.cancel(number)
        self.timers.clear()

    def _signal(self, peer: Cell, reason: Any) -> None:
        """Send the exit signal of a link, unless the link was removed meanwhile."""
        on_its_way: OnItsWay | None = None
        with table.lock:
            # Under the lock, so that an `unlink` either comes first, and nothing is sent, or finds the order
            # given, or the message on its way and takes it back.
            if peer.links.pop(self, 0) == 0 or peer.dead:
                return
            parental = peer.parent is self
            if peer.trap_exit and not parental:
                on_its_way = peer.exits[self] = OnItsWay()
            elif peer.trap_exit or not is_word(reason, "normal"):
                peer.mark(reason, self.pid)
            else:
                return
        if on_its_way is not None:
            peer.mailbox.put(Delivery(ExitMessage(self.pid, reason), on_its_way))
        else:
            peer.rouse()

    def release(self) -> None:
        """Let go of what only a thread that still runs needs; for its end, or where there never was one.

        Pids are kept for as long as anybody likes: one must not keep all its ancestors.
        """
        self.mailbox.empty_out()
        self.elders = tuple(weakref.ref(pid) for pid in self.ancestors)
        self.ancestors = ()
        self.told = {}
        self.death_origin = None
        self.interrupters.clear()

    def __repr__(self) -> str:
        return f"<Cell of {self.pid}>"


def exit_signal(receiver: Cell, sender: Cell | None, reason: Any) -> None:
    """Deliver an exit signal that is neither a kill nor that of a link: an order, a message, or nothing."""
    if receiver.dead:
        return
    parental = sender is not None and receiver.parent is sender
    if receiver.trap_exit and not parental:
        receiver.mailbox.put(ExitMessage(sender.pid if sender is not None else None, reason))
    elif not is_word(reason, "normal") or sender is receiver or (parental and receiver.trap_exit):
        receiver.tell_exit(reason)


def kill(cell: Cell, *, expected: bool = False) -> bool:
    """Kill a process: dead for everybody else when this returns; `False` if it was dead.

    Args:
        cell: The process.
        expected: Whether this is how it was meant to end, so that no crash report is due.
    """
    if not cell.die("killed", killed=True, expected=expected):
        return False
    cell.wake()
    cell.interrupt()
    thread = cell.thread
    if thread is None or (thread.ident is not None and not thread.is_alive()):
        buried(cell)
        return True
    from allm_actors.beam.timer import service

    with contextlib.suppress(RuntimeError):  # no thread can be started: then nobody can be warned either
        cell.grave = service.after(ZOMBIE_SECONDS, lambda _: _warn_of_zombie(cell), None)
    if cell.number not in table.zombies:  # buried while we did that
        _level(cell)
    return True


ZOMBIE_SECONDS = 1.0
"""How long a killed process may take to end before a warning says that it does not."""


def _warn_of_zombie(cell: Cell) -> None:
    if cell.number not in table.zombies:
        return
    from allm_actors.beam._observe import stack_of

    cell.warned = True
    log.warning("process.zombie", **facts(cell), stack=stack_of(cell))


def buried(cell: Cell) -> None:
    """Note that the thread of a killed process has ended."""
    stood = table.zombies.pop(cell.number, None) is not None
    _level(cell)
    if stood and cell.warned:
        log.warning("process.zombie_ended", **facts(cell))


def _level(cell: Cell) -> None:
    from allm_actors.beam.timer import service

    number, cell.grave = cell.grave, None
    if number is not None:
        service.cancel(number)


# --- links and monitors -------------------------------------------------------------------------------


def deliver_down(ref: MonitorRef, down: Any) -> None:
    """Hand one `Down` to the monitor's target, if the monitor still stands. Takes no lock."""
    if not ref.active:
        return
    if ref.owner is not None:
        ref.owner.watching.pop(ref, None)
    to = ref.to
    if to is None:
        assert ref.owner is not None
        ref.owner.mailbox.put(Delivery(down, ref))
    elif isinstance(to, Inbox):
        to.put(Delivery(down, ref))
    elif callable(to):
        _guarded(lambda: to(down), None, "monitor.failed")
    else:
        _guarded(lambda: to.on_down(down), None, "monitor.failed")


def _guarded(callback: Callable[[], Any], cell: Cell | None, event: str) -> None:
    """Run a callback that must not raise; what it raises is logged."""
    # The thread that ends a process may be another process's, which may have been told to exit itself: a
    # checkpoint in the callback must not find that.
    here = current_process()
    if here is not None:
        set_current(None)
    try:
        callback()
    except BaseException as exc:
        log.error(event, error=describe(exc), **(facts(cell) if cell else {}))
    finally:
        if here is not None:
            set_current(here)


def facts(cell: Cell) -> dict[str, Any]:
    """The fields of a log record about a process; no content of any message."""
    names = cell.names or cell.last_names
    return {
        "pid": cell.number,
        "class": cell.class_name,
        "name": names[0] if names else None,
        "lifetime": round(time.monotonic() - cell.started_at, 6),
    }


def _report_exit(cell: Cell, reason: Any, links: list[Cell]) -> None:
    """Write the record of an end: a crash report where there was a crash, once."""
    crashed = isinstance(reason, Crash)
    followed = cell.death_origin is not None
    quiet = is_clean(reason) or followed or (cell.expected and not crashed)
    if quiet and not log.wants_debug():
        return
    fields = facts(cell) | {
        "reason": describe(reason),
        "ancestors": [str(pid) for pid in cell.ancestors],
        "links": [str(peer.pid) for peer in links],
        "mailbox_len": cell.mailbox.dropped,
        "last_message_type": cell.last_message_type,
    }
    if quiet:
        if followed:
            fields["origin"] = str(cell.death_origin)
        log.debug("process.exited", **fields)
        return
    if crashed:
        fields["traceback"] = reason.report
    log.error("process.exited", **fields)
