"""Pids, exit reasons and the exceptions of the process layer.

A `Pid` is the handle of one process, for ever: it never comes to mean another process, and it does not keep
the process's object alive. Reasons say why a process ended. The exceptions divide in three:

    Exit (BaseException)          ends the process that raises it
    ProcessExit (Exception)       in the caller of `call`, `await_`, `stop`: the other side is gone
    ├── NoProcess                 it was gone before the question was asked
    ├── CallTimeout               it is still there, but did not answer in time
    └── CallingSelf               a process asked itself
    BeamError (Exception)         a request that was refused
    ├── StartError, NameTaken, UnknownName, NotAProcess, MailboxFull, MailboxClosed
    ├── SpecError (also a ValueError)
    └── SupervisorError           AlreadyStarted, AlreadyPresent, ChildRunning, ChildRestarting,
                                  UnknownChild, MaxChildren
    Ignore (Exception)            raised in `init`: start no process, and that is fine

`Exit` is a `BaseException` so that `except Exception` in user code does not eat an order to end.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Never

import pykka

if TYPE_CHECKING:
    from collections.abc import Hashable

    from allm_actors.beam._cell import Cell, MonitorRef
    from allm_actors.beam.mailbox import Mailbox


# --- reasons ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shutdown:
    """A clean reason that carries a detail: ended on purpose, and this is the purpose."""

    detail: Any = None


@dataclass(frozen=True, slots=True)
class Crash:
    """An exception left a callback.

    Attributes:
        exception: The exception, its traceback (and those of all it is chained to) cleared, so that the
            reason keeps no frame and no local variable of the dead process alive.
        report: The formatted traceback.
    """

    exception: BaseException
    report: str = field(default="", compare=False, repr=False)

    @classmethod
    def of(cls, exception: BaseException) -> Crash:
        """Make the reason out of a live exception; its traceback is turned into text and cleared.

        Never raises, whatever the exception is like: a process that could not say why it ended would not end.
        """
        try:
            report = "".join(traceback.format_exception(exception))
        except BaseException:  # formatting asks the exception, and what it finds need not make sense
            report = f"{_in_words(exception)} (its traceback cannot be shown)\n"
        drop_frames(exception)
        return cls(exception, report)

    def __str__(self) -> str:
        return f"Crash({_in_words(self.exception)})"


def drop_frames(exception: BaseException) -> None:
    """Clear the traceback of an exception and of everything chained to it."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [exception]
    while todo:
        exc = todo.pop()
        if exc is None or id(exc) in seen:
            continue
        seen.add(id(exc))
        BaseException.with_traceback(exc, None)  # no assignment: a frozen class would refuse it
        todo += [exc.__cause__, exc.__context__]
        if isinstance(exc, BaseExceptionGroup):
            todo += exc.exceptions


def is_clean(reason: object) -> bool:
    """Whether an end for this reason is no failure: no crash report, no restart of a transient child."""
    return isinstance(reason, Shutdown) or (isinstance(reason, str) and reason in ("normal", "shutdown"))


def is_word(reason: object, word: str) -> bool:
    """Whether a reason is one of the strings that mean something. Calls no code of the reason's own."""
    return isinstance(reason, str) and str.__eq__(reason, word)


# --- what processes hear of each other ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Down:
    """A monitored process has ended.

    Attributes:
        ref: The monitor.
        pid: The process; `None` when the monitor was set on a name that nobody had.
        reason: Why it ended; `"noproc"` if it was dead already.
        name: The name the monitor was set on, if it was one.
    """

    ref: MonitorRef
    pid: Pid | None
    reason: Any
    name: Hashable | None = None


@dataclass(frozen=True, slots=True)
class ExitMessage:
    """An exit signal, as a trapping process receives it.

    Attributes:
        pid: The process it came from; `None` when it came from a thread that is none.
        reason: The reason of the signal.
    """

    pid: Pid | None
    reason: Any


# --- what ends a process, or tells of an end ----------------------------------------------------------


def _rebuild(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """Make a copy of an exception without asking its `__init__`, whose parameters are not its `args`."""
    copied = cls.__new__(cls, *args)
    copied.args = args
    copied.__dict__.update(state)
    return copied


class _Copyable:
    """Lets an exception survive `copy`, and `pickle` where what it holds does."""

    def __reduce__(self: Any) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class Exit(_Copyable, BaseException):
    """Ends the process that raises it, with `reason`.

    Raised by the layer at every checkpoint of a process that was told to exit, and by user code that wants
    to end its own process.

    Raises:
        ValueError: `reason` is `None`: a reason must be given.
    """

    def __init__(self, reason: Any) -> None:
        if reason is None:
            raise ValueError("an end needs a reason; None is none")
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return f"exit: {describe(self.reason)}"


class ProcessExit(_Copyable, Exception):
    """The process that was asked ended before it answered; `reason` is why it ended.

    After a crash, `__cause__` is the exception that crashed it.
    """

    def __init__(self, reason: Any, pid: Pid | None = None, message: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pid = pid
        self.message = message or f"{pid or 'process'} ended before it answered: {describe(reason)}"
        if isinstance(reason, Crash):
            self.__cause__ = reason.exception

    def __str__(self) -> str:
        return self.message


class NoProcess(ProcessExit):
    """There is no such process (reason `"noproc"`)."""

    def __init__(self, dest: object = None, message: str | None = None) -> None:
        pid = dest if isinstance(dest, Pid) else None
        super().__init__("noproc", pid, message or f"no process: {dest if pid else shown(dest)}")


class CallTimeout(ProcessExit):
    """No answer in time (reason `"timeout"`). The receiver lives and may still do the work.

    Attributes:
        cycle: Where the wait was a deadlock, the processes that wait for each other, in order; else empty.
    """

    def __init__(
        self, pid: Pid | None, timeout: float, *, what: str = "call", cycle: tuple[Pid, ...] = ()
    ) -> None:
        self.cycle = cycle
        text = f"{what}: no answer from {pid or 'the process'} within {timeout:g} s"
        if cycle:
            ring = " -> ".join(str(p) for p in (*cycle, cycle[0]))
            text += f"; the processes wait for each other: {ring}"
        super().__init__("timeout", pid, text)


class CallingSelf(ProcessExit):
    """A process called itself: it could never answer (reason `"calling_self"`)."""

    def __init__(self, pid: Pid) -> None:
        super().__init__("calling_self", pid, f"{pid} called itself; it cannot answer while it waits")


class Ignore(Exception):
    """Raised in `init`: there is nothing to start; `start` returns `None`."""


class BeamError(_Copyable, Exception):
    """A request that the process layer refused."""


class StartError(BeamError):
    """A process could not be started.

    Attributes:
        reason: `Crash(...)`, the reason `init` exited with, `"timeout"`, `"system_limit"`,
            `"system_shutdown"`, `"in_finalizer"`, a `NameTaken`, or a supervisor's `ChildStartFailed`.
    """

    def __init__(self, reason: Any) -> None:
        self.reason = reason
        super().__init__(reason)
        if isinstance(reason, Crash):
            self.__cause__ = reason.exception
        elif isinstance(reason, BaseException):
            self.__cause__ = reason

    def __str__(self) -> str:
        return f"the process did not start: {describe(self.reason)}"


class NameTaken(BeamError):
    """The name is registered to another process, `pid`."""

    def __init__(self, name: Hashable, pid: Pid) -> None:
        self.name, self.pid = name, pid
        super().__init__(name, pid)

    def __str__(self) -> str:
        return f"the name {shown(self.name)} is taken by {self.pid}"


class UnknownName(BeamError):
    """No process has this name."""

    def __init__(self, name: Hashable) -> None:
        self.name = name
        super().__init__(name)

    def __str__(self) -> str:
        return f"no process is registered under the name {shown(self.name)}"


class NotAProcess(BeamError):
    """The operation needs a process, and this thread is none."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} works only inside a process; this thread is none")


class MailboxFull(BeamError):
    """A bounded mailbox has no room; nothing was sent."""

    def __init__(self, pid: Pid, bound: int) -> None:
        self.pid, self.bound = pid, bound
        super().__init__(f"the mailbox of {pid} is full ({bound} messages wait)")


class MailboxClosed(BeamError):
    """The mailbox is closed, and empty."""


class SpecError(BeamError, ValueError):
    """A child spec or a supervisor's options make no sense; nothing was started."""


class SupervisorError(BeamError):
    """A supervisor refused a request."""


class AlreadyStarted(SupervisorError):
    """A child with this id runs, as `pid`."""

    def __init__(self, child_id: Hashable, pid: Pid) -> None:
        self.child_id, self.pid = child_id, pid
        super().__init__(f"child {child_id!r} is already started: {pid}")


class _ChildError(SupervisorError):
    text = "child {!r}"

    def __init__(self, child_id: Hashable) -> None:
        self.child_id = child_id
        super().__init__(self.text.format(child_id))


class AlreadyPresent(_ChildError):
    """The supervisor has a spec of this id whose process does not run."""

    text = "the supervisor already has a child spec {!r}, without a running process"


class ChildRunning(_ChildError):
    """The child runs; terminate it first."""

    text = "child {!r} is running"


class ChildRestarting(_ChildError):
    """The child is being restarted."""

    text = "child {!r} is being restarted"


class UnknownChild(_ChildError):
    """The supervisor has no child of this id."""

    text = "the supervisor has no child {!r}"


class MaxChildren(SupervisorError):
    """The supervisor already has as many children as it may have; nothing was started."""

    def __init__(self, maximum: float) -> None:
        super().__init__(f"the supervisor already has {maximum} children, its maximum")


class InWords:
    """A reason that says of itself what happened."""

    __slots__ = ()

    def in_words(self) -> str:
        """What follows "the process did not start: "."""
        raise NotImplementedError


def describe(reason: object) -> str:
    """A reason in words, for messages and logs."""
    if isinstance(reason, InWords):
        return reason.in_words()
    if isinstance(reason, Crash):
        return f"crashed with {_in_words(reason.exception)}"
    if isinstance(reason, BaseException):
        return _in_words(reason)
    return shown(reason)


_LONGEST = 1000


def shown(value: object) -> str:
    """The `repr` of anything, cut where it is long.

    Never raises: it is asked for in the middle of deaths that others wait for.
    """
    try:
        text = repr(value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    except BaseException:
        return f"<{type(value).__name__} without a repr>"


def _in_words(exception: BaseException) -> str:
    try:
        return f"{type(exception).__name__}: {exception}"
    except BaseException:
        return f"{type(exception).__name__} without a text"


# --- pids ---------------------------------------------------------------------------------------------


class Pid(pykka.ActorRef[Any]):
    """The handle of one process: compare it, hash it, send to it, keep it for ever.

    A pykka `ActorRef` with more. `tell` is `send` (and raises `pykka.ActorDeadError` when the process is
    dead), `ask` is a `call` whose outcome arrives in the pykka future, `stop` ends the process with reason
    `"normal"`. There is no `proxy()`: proxies bypass the callbacks.
    """

    def __init__(self, actor: Any, cell: Cell) -> None:
        super().__init__(actor)
        self._cell = cell

    @property
    def number(self) -> int:
        """The process's number, unique in this interpreter."""
        return self._cell.number

    @property
    def name(self) -> Hashable | None:
        """The first name the process is registered under, `None` without one or once dead."""
        names = self._cell.names
        return names[0] if names else None

    @property
    def alive(self) -> bool:
        """Whether the process has not died yet. Cleanup is part of living."""
        return not self._cell.dead

    @property
    def exit_reason(self) -> Any:
        """Why the process ended, for debugging; `None` while it lives."""
        return self._cell.exit_reason

    def is_alive(self) -> bool:
        """The same as `alive`, under pykka's name."""
        return not self._cell.dead

    def __str__(self) -> str:
        cell = self._cell
        name = f" {shown(self.name)}" if cell.names else ""
        return f"<{cell.class_name} {cell.number}{name}>"

    __repr__ = __str__

    def __copy__(self) -> Pid:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Pid:
        return self

    def __reduce__(self) -> Never:
        raise TypeError(f"cannot pickle {self}: a pid means a process of this interpreter only")

    def tell(self, message: Any) -> None:
        """Send a message; raises `pykka.ActorDeadError` if the process is dead."""
        from allm_actors.beam._pykka import tell

        tell(self, message)

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Call the process; the reply, or a pykka future of it with `block=False`.

        Raises:
            pykka.Timeout: No reply within `timeout` seconds (`None`: no limit).
            pykka.ActorDeadError: The process is dead, or ended before it replied; caused by the
                `ProcessExit` that says why.
        """
        from allm_actors.beam._pykka import ask

        return ask(self, message, block=block, timeout=timeout)

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Stop the process with reason `"normal"`; `False` if it was dead already."""
        from allm_actors.beam._pykka import stop

        return stop(self, block=block, timeout=timeout)

    def proxy(self) -> Never:
        """Not available.

        Raises:
            TypeError: Always; use `beam.call` and `beam.cast`.
        """
        raise TypeError("a process has no proxy: use beam.call and beam.cast, which run its callbacks")


def mailbox_of(pid: Pid) -> Mailbox:
    """The mailbox behind a pid."""
    return pid._cell.mailbox
