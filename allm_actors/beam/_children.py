"""The children of a supervisor: one life of a child, how it begins and how it is ended.

A `Run` is one process of a child, watched from before its first line, so that its end is seen with its true
reason, and even if it removed its link. Ends are told to the supervisor by message; whoever waits for one in
particular waits on the run itself.
"""

from __future__ import annotations

import math
import queue
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from allm_actors.beam._cell import facts, table
from allm_actors.beam._child_spec import BRUTAL_KILL, ChildSpec
from allm_actors.beam._current import current_process
from allm_actors.beam._log import log
from allm_actors.beam._signals import exit as send_exit
from allm_actors.beam._signals import tie, watch
from allm_actors.beam.mailbox import wait_for
from allm_actors.beam.pid import Crash, Exit, Pid, SpecError, StartError, describe, is_clean, is_word
from allm_actors.beam.process import Process, launch
from allm_actors.beam.timer import TimerRef, cancel_timer, send_after

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from allm_actors.beam._admin import ChildInfo
    from allm_actors.beam._cell import Cell
    from allm_actors.beam.pid import Down


_LAYER = "allm_actors.beam."


class ChildEnded(NamedTuple):
    """A child's process has ended."""

    run: Run


class Child:
    """A child as its supervisor sees it, over all its lives.

    Attributes:
        spec: What it is.
        run: Its process, `None` without one.
        restarting: Whether it waits to be started again.
        restarts: How often it was started again.
        stuck: Processes of it that were killed and whose threads still ran when last looked at.
    """

    __slots__ = ("_attempt", "_ticket", "_timer", "restarting", "restarts", "run", "spec", "stuck")

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.run: Run | None = None
        self.restarting = False
        self.restarts = 0
        self.stuck: list[Run] = []
        self._ticket = 0
        self._attempt = 0
        self._timer: TimerRef | None = None

    @property
    def pid(self) -> Pid | None:
        """The process, `None` without one."""
        return self.run.pid if self.run is not None else None

    def info(self) -> ChildInfo:
        """What a listing says of it."""
        return self.spec.id, "restarting" if self.restarting else self.pid, self.spec.type or "worker"

    def finished(self, run: Run, lived: float) -> None:
        """Note that its process has ended after so many seconds, or did not start."""
        self.run = None
        if run.is_zombie:
            self.stuck.append(run)
        backoff = self.spec.backoff
        if backoff is not None and lived >= backoff.reset_after:
            self._attempt = 0

    def put_off(self, to: Pid, rng: random.Random) -> None:
        """Have the next try announced to the supervisor by a `TryAgain`: at once, or after the backoff."""
        self.restarting = True
        self._ticket += 1
        delay = 0.0
        if self.spec.backoff is not None:
            delay = self.spec.backoff.delay(self._attempt, rng)
            self._attempt += 1
        again = TryAgain(self, self._ticket)
        if delay > 0:
            self._timer = send_after(delay, to, again)
        else:
            to._cell.mailbox.put(again)

    def waits_for(self, ticket: int) -> bool:
        """Whether it still waits for this very try."""
        return self.restarting and self._ticket == ticket

    def settle(self) -> None:
        """Forget the try that was announced."""
        self.restarting = False
        self._ticket += 1
        if self._timer is not None:
            cancel_timer(self._timer)
            self._timer = None


class TryAgain(NamedTuple):
    """Time for the next try to start a child."""

    child: Child
    ticket: int


class Run:
    """One process of one child.

    Attributes:
        child: The child.
        spec: The child's spec.
        pid: The process; `None` before it was made.
        reason: Why it ended; `None` while it lives.
        ended: Holds an item once it has ended.
        started_at: When, on the supervisor's clock.
        on_end: Called in the thread that ends it: must take no lock and not block.
        heard: Whether its end was judged.
    """

    __slots__ = (
        "_abandoned",
        "_supervisor",
        "child",
        "ended",
        "heard",
        "on_end",
        "pid",
        "reason",
        "spec",
        "started_at",
    )

    def __init__(self, child: Child, supervisor: Cell, started_at: float) -> None:
        self.child = child
        self.spec = child.spec
        self.started_at = started_at
        self.heard = False
        self.on_end: Callable[[], Any] | None = None
        self._abandoned = False
        self._supervisor = supervisor
        self.pid: Pid | None = None
        self.reason: Any = None
        self.ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def attach(self, pid: Pid) -> None:
        """Watch the process of this run; before its thread starts, where that can be arranged."""
        self.pid = pid
        watch(pid._cell, None, self._on_down, None)

    def _on_down(self, down: Down) -> None:
        # In the thread that ends the process: takes no lock, calls nobody.
        assert self.pid is not None
        cell = self.pid._cell
        self.reason = down.reason
        if is_word(down.reason, "noproc") and cell.exit_reason is not None:
            self.reason = cell.exit_reason
        on_end, self.on_end = self.on_end, None  # it leads back here, and the spec to the child's arguments
        if on_end is not None:
            on_end()
        self.ended.put(None)
        if self._abandoned or not cell.expected:  # else a start that failed, of which the starter knows
            self._supervisor.mailbox.put(ChildEnded(self))

    def called_off(self, reason: Any) -> None:
        """Note that the start failed: there is nothing to wait for."""
        self.reason = reason
        self.ended.put(None)

    def abandon(self) -> None:
        """Leave a start to itself, as its starter has to end: the supervisor hears what comes of it."""
        self._abandoned = True
        if self.reason is not None:
            self._supervisor.mailbox.put(ChildEnded(self))

    def tell(self) -> None:
        """Begin the end of this run: told, or killed at once if its spec says so."""
        assert self.pid is not None
        send_exit(self.pid, "kill" if self.spec.shutdown == BRUTAL_KILL else "shutdown")

    def wait(self, deadline: float) -> None:
        """Wait for the end of a run that was told to; kill it at the deadline.

        Args:
            deadline: On the clock `time.monotonic`; `math.inf` for none.

        Raises:
            Exit: The supervisor itself was told to exit meanwhile.
        """
        assert self.pid is not None
        left = math.inf if deadline == math.inf else max(0.0, deadline - time.monotonic())
        try:
            wait_for(self.ended, left)
        except queue.Empty:
            send_exit(self.pid, "kill")
            wait_for(self.ended, math.inf)
        self.ended.put(None)  # an end stays an end, for whoever else waits
        self._report(left)

    def end(self) -> None:
        """Tell the process to end, and wait until it has."""
        self.tell()
        self.wait(time.monotonic() + self.spec.grace if self.spec.shutdown != BRUTAL_KILL else math.inf)

    def _report(self, allowed: float) -> None:
        """Log an end on demand that was not as asked for."""
        spec, reason = self.spec, self.reason
        if spec.shutdown == BRUTAL_KILL:
            asked = is_word(reason, "killed")
        else:
            asked = is_word(reason, "shutdown") or (spec.restart != "permanent" and is_clean(reason))
        if not asked:
            log.error(
                "supervisor.shutdown_error",
                **facts(self._supervisor),
                child_id=spec.id,
                child=str(self.pid),
                restart=spec.restart,
                reason=describe(reason),
                allowed=allowed,
            )

    @property
    def is_zombie(self) -> bool:
        """Whether it was killed and its thread still runs."""
        return self.pid is not None and self.pid.number in table.zombies

    def __repr__(self) -> str:
        return f"<Run of child {self.spec.id!r}: {self.pid}>"


class StartFailed(Exception):
    """A child did not start."""

    def __init__(self, reason: Any) -> None:
        self.reason = reason
        super().__init__(reason)


def start_run(run: Run, supervisor: Cell, attach: Callable[[Pid], None]) -> Pid | None:
    """Start the process of a run, as a child of the supervisor.

    Runs in the supervisor's process, or in a caller's; the context of the running thread is copied.

    Args:
        run: What to start.
        supervisor: Becomes the parent: linked before the first line of `init`.
        attach: Called with the pid: before the thread starts, where what it raises calls the start off; after
            the start, for a spec whose `start` is code of its own.

    Returns:
        The pid; `None` if the child has nothing to do.

    Raises:
        StartFailed: With the reason.
        Exit: The calling process was told to exit meanwhile. The run goes on, and has to be ended.
    """
    spec = run.spec
    cls = plain_class(spec)
    try:
        if cls is None:
            pid = _call_start(spec)
            if pid is not None:
                tie(supervisor, pid._cell)
                attach(pid)
            return pid
        return launch(
            cls,
            spec.args,
            dict(spec.kwargs),
            name=spec.name,
            parent=supervisor,
            wait=getattr(cls, "acknowledged", True),
            born=attach,
        )
    except StartError as error:
        raise StartFailed(error.reason) from None
    except (TypeError, SpecError) as error:
        raise StartFailed(Crash.of(error)) from None


def plain_class(spec: ChildSpec) -> type[Process] | None:
    """The process class that a spec starts, unless it is started by code of its own."""
    cls = spec.start
    if not isinstance(cls, type) or not issubclass(cls, Process):
        return None
    return cls if cls.start_link.__module__.startswith(_LAYER) else None  # else it has a start of its own


def _call_start(spec: ChildSpec) -> Pid | None:
    """Start a child by calling its spec's `start`; what it raises is the reason it did not start."""
    kwargs = dict(spec.kwargs)
    start = spec.start
    if isinstance(start, type) and issubclass(start, Process):
        start = start.start_link
    if spec.name is not None:
        kwargs["name"] = spec.name
    try:
        pid = start(*spec.args, **kwargs)
    except StartError:
        raise
    except Exit as order:
        cell = current_process()
        if cell is not None and cell.must_exit:
            raise
        raise StartFailed(order.reason) from None
    except BaseException as error:
        raise StartFailed(Crash.of(error)) from None
    if pid is not None and not isinstance(pid, Pid):
        raise StartFailed(Crash.of(TypeError(f"start returned {type(pid).__name__}, not a pid or None")))
    return pid
