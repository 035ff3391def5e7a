"""Where an engine lives: what its processes and its callers share.

The processes come and go; a `Home` stays through their restarts. It knows which connection is
current and whose process it is, so callers get at it without asking a process, and wait here while
there is none.

Guarantees:
    - What is handed out together belongs together: an engine's value, its connection, and the
      processes behind them.
    - Whoever waits for a restart is woken when it is over, when it is given up, and when its own
      process is told to exit.
    - A connection that was replaced is closed when the last lease on it is gone, not before.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from allm_actors import beam
from allm_actors.beam.pid import mailbox_of
from allm_actors.errors import AdapterError, EngineError, StreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from allm_actors.beam import Pid
    from allm_actors.engine.adapter import Adapter, Connection
    from allm_actors.engine.engine import Engine


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Tenancy:
    """One connection and the processes it lives and dies with.

    Leases hold it, and so does the home while it is current. When nobody does any more, a
    connection that was replaced is closed.
    """

    adapter: Adapter | None
    connection: Connection | None
    adapter_pid: Pid
    stream_supervisor: Pid
    last_pid: Pid
    """The process that was started last; with it the set was whole."""
    number: int = field(default_factory=count(1).__next__)

    @property
    def alive(self) -> bool:
        """Whether all of its processes are."""
        return self.adapter_pid.alive and self.stream_supervisor.alive and self.last_pid.alive


class Standing(NamedTuple):
    """What holds now: the engine's value (`None` behind a plain engine), and where it lives."""

    engine: Engine | None
    tenancy: Tenancy


@dataclass(frozen=True, slots=True)
class Retired:
    """To an adapter process: nobody uses the connection of this number any more."""

    number: int


class Lease:
    """A connection, lent for one call.

    Attributes:
        connection: What to call `stream` and `generate` on, in any thread.
        adapter_pid: The process that owns it. When it ends, so does whatever uses the connection.
        stream_supervisor: Under it the call's own process is started.
        engine: The value the call is made with. Holding it keeps a plain engine's processes.
        name: What the engine runs under, if it has a name.
    """

    __slots__ = ("_tenancy", "adapter_pid", "connection", "engine", "name", "stream_supervisor")

    def __init__(self, tenancy: Tenancy, connection: Connection, engine: Engine, name: str | None) -> None:
        self._tenancy: Tenancy | None = tenancy
        self.connection = connection
        self.adapter_pid = tenancy.adapter_pid
        self.stream_supervisor = tenancy.stream_supervisor
        self.engine = engine
        self.name = name

    def release(self) -> None:
        """Give the connection back. Idempotent, does no I/O, and may be called by a finalizer.

        Dropping the lease does the same.
        """
        self._tenancy = None


class Home:
    """What outlives the processes of one engine.

    Args:
        name: What the engine runs under.
        engine: The value of a started engine; `None` behind a plain one.
        adapter: What a plain engine's processes connect: a twin of the value, never the value.
    """

    def __init__(
        self, *, name: str | None = None, engine: Engine | None = None, adapter: Adapter | None = None
    ) -> None:
        self.name = name
        self.engine = engine
        self.supervisor: Pid | None = None
        self.root: Pid | None = None
        self.standing: Standing | None = None
        self.gone_at: float | None = None
        self.gone_because: Any = None
        self.when_gone: Callable[[], object] | None = None
        self._adapter = adapter
        self._changed = threading.Condition(threading.Lock())
        self._coming: dict[str, Any] = {}

    @property
    def adapter(self) -> Adapter | None:
        """What a process of this home connects when it starts."""
        return self.engine.adapter if self.engine is not None else self._adapter

    # What the processes say, each in its own thread, as it starts and as it ends.

    def adapter_is_up(self, pid: Pid, adapter: Adapter | None, connection: Connection | None) -> None:
        """A new life begins: nothing of the one before it is current any more."""
        with self._changed:
            self.standing = None
            self._coming = {"adapter_pid": pid, "adapter": adapter, "connection": connection}

    def streams_are_up(self, pid: Pid) -> None:
        """The streams can be supervised; behind a plain engine this is the last to come."""
        with self._changed:
            self._coming["stream_supervisor"] = pid
            if self.engine is None:
                self._stand(pid)

    def engine_is_up(self, pid: Pid) -> None:
        """The engine's process is there, last of all."""
        with self._changed:
            self._stand(pid)

    def _stand(self, last: Pid) -> None:
        self.standing = Standing(self.engine, Tenancy(**self._coming, last_pid=last))
        self._coming = {}
        self._changed.notify_all()

    def ends(self, pid: Pid) -> None:
        """One of the processes is ending: whoever comes now waits for the next life."""
        with self._changed:
            standing = self.standing
            if standing is not None and pid in (
                standing.tenancy.adapter_pid,
                standing.tenancy.stream_supervisor,
                standing.tenancy.last_pid,
            ):
                self.standing = None

    def supervisor_is_down(self, down: beam.Down) -> None:
        """There will be no next life."""
        self.has_gone(down.reason)

    def has_gone(self, reason: Any) -> None:
        """Wake whoever waits for a life that will not come."""
        with self._changed:
            if self.gone_at is not None:
                return
            self.standing = None
            self.gone_at = time.monotonic()
            self.gone_because = reason
            self._changed.notify_all()
        if self.when_gone is not None:
            self.when_gone()

    # What callers ask.

    @property
    def gone(self) -> bool:
        """Whether the processes are gone for good."""
        return self.gone_at is not None or (self.supervisor is not None and not self.supervisor.alive)

    @property
    def gave_up(self) -> bool:
        """Whether they are gone because they crashed too often, not because somebody ended them."""
        return self.gone_because == "shutdown" and self.root is not None and self.root.alive

    def current(self) -> Standing | None:
        """Give what holds now, `None` during a restart and after the end. Waits for nothing."""
        standing = self.standing
        return standing if standing is not None and standing.tenancy.alive else None

    def wait(
        self, deadline: float = math.inf, *, wanted: Callable[[], bool] | None = None
    ) -> Standing | None:
        """Give what holds now or after the restart in progress; `None` if it was given up.

        Args:
            deadline: On the clock of `time.monotonic()`.
            wanted: Looked at while a restart is waited for; `False` ends the waiting within a tenth of a
                second.

        Raises:
            AdapterError: `timeout`, the deadline came first.
            StreamError: `cancelled`, it is not wanted any more.
            beam.Exit: The waiting process was told to exit.
        """
        standing = self.current()
        if standing is not None:
            return standing
        with beam.interruptible(self._wake):
            while True:
                beam.checkpoint()
                with self._changed:
                    standing = self.current()
                    if standing is not None or self.gone:
                        return standing
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise AdapterError("timeout", "deadline is over", metadata={"limit": "deadline"})
                    if wanted is not None and not wanted():
                        raise StreamError("cancelled")
                    # Woken by the set that is whole again, by the supervisor's end, by an exit of
                    # this process. The limit is for a process that was killed in the midst of
                    # saying so.
                    self._changed.wait(min(left, _LOOK_AGAIN if wanted is None else _LOOK_SOON))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def replace(
        self, number: int, engine: Engine, adapter: Adapter | None, connection: Connection | None
    ) -> Tenancy | None:
        """Make another connection of the same process current, and with it an engine's new value.

        Returns:
            What was current until now; `None`, and nothing changed, if that is not of this number.
        """
        with self._changed:
            before = self.standing.tenancy if self.standing is not None else None
            if before is None or before.number != number:
                return None
            self.engine = engine
            fresh = Tenancy(
                adapter, connection, before.adapter_pid, before.stream_supervisor, before.last_pid
            )
            self.standing = Standing(engine, fresh)
            return before

    def set_engine(self, engine: Engine) -> None:
        """Make an engine's new value current; the connection stays."""
        with self._changed:
            self.engine = engine
            if self.standing is not None:
                self.standing = Standing(engine, self.standing.tenancy)


_LOOK_AGAIN = 0.5
_LOOK_SOON = 0.1


def when_unused(tenancy: Tenancy, message: Retired) -> None:
    """Have `message` put into the adapter process's mailbox once nobody holds the tenancy.

    The garbage collector may do that in the midst of anything, so it takes no lock.
    """
    watch = weakref.finalize(tenancy, _put, mailbox_of(tenancy.adapter_pid).put, message)
    watch.atexit = False


def _put(put: Callable[[Any], object], message: Any) -> None:
    put(message)


def down(name: str | None) -> EngineError:
    """Make the error for an engine that does not run."""
    which = f"the engine {name!r}" if name is not None else "the engine"
    return EngineError(
        "engine_down",
        f"{which} is down: it was stopped, or restarted too often and gave up (the log has the crashes)",
    )
