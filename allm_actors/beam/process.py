"""Processes: an actor with its own thread, a mailbox, and an end that others hear of.

Guarantees:
    - Callbacks run in the process's own thread, never two at once.
    - `start` and `start_link` return when `init` has returned, or raise what came of it.
    - Whatever leaves a callback ends this process, and only this one.
    - An end is one moment: first `terminate`, then the closers, last given first; only then do others hear of
      it, and by then the names are free.
    - `terminate` runs on every end but a kill; closers run on every end.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pykka
from pykka._envelope import Envelope

from allm_actors.beam._calls import NO_REPLY, Call, Sender, checkpoint_of, fence
from allm_actors.beam._cell import IGNORED, Cell, buried, facts, kill, table
from allm_actors.beam._check import seconds
from allm_actors.beam._current import current_process, set_current
from allm_actors.beam._log import log
from allm_actors.beam._names import check_name, claim
from allm_actors.beam._pykka import receive
from allm_actors.beam._signals import Cast, StopOrder, order_stop, tie, untie, watch
from allm_actors.beam.mailbox import Counted, Delivery, Wake, wait_for
from allm_actors.beam.pid import (
    Crash,
    Exit,
    ExitMessage,
    Ignore,
    NameTaken,
    Pid,
    ProcessExit,
    Shutdown,
    StartError,
    describe,
    drop_frames,
    is_clean,
    is_word,
)
from allm_actors.beam.timer import service

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from allm_actors.beam._cell import MonitorRef
    from allm_actors.beam.mailbox import Mailbox
    from allm_actors.beam.supervisor import ChildSpec

_stack_size: int | None = None
_stack_lock = threading.Lock()


class Stop:
    """Returned by a callback: end with `reason`; from `handle_call`, after answering with `reply`."""

    __slots__ = ("reason", "reply")

    def __init__(self, reason: Any = "normal", reply: Any = NO_REPLY) -> None:
        if reason is None:
            raise ValueError("an end needs a reason; None is none")
        self.reason, self.reply = reason, reply

    def __repr__(self) -> str:
        return f"Stop({self.reason!r})"


class Process(pykka.ThreadingActor):
    """Base class of processes. Override the callbacks; start it with `start` or `start_link`.

    Class attributes:
        trap_exit: Whether exit signals are messages (`ExitMessage`); may also be set in `init`. For processes
            that own others; cleanup does not need it.
        max_mailbox: How many messages may wait; more are refused with `MailboxFull`. `None`: any number.
        start_timeout: Seconds that `init` may take.
    """

    deaf: ClassVar[bool] = False
    """Whether it never looks at its mailbox while it works, so that a stop has to be a signal."""
    max_mailbox: int | None = None
    start_timeout: float = 30.0
    _trap_exit_default = False
    _cell: Cell
    _closers: list[Callable[[], Any]]
    _continue: tuple[Any] | None
    _arguments: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        maker = next(base for base in cls.__mro__ if "__init__" in base.__dict__)
        if maker is not Process and not getattr(maker, "_is_protocol", False):
            raise TypeError(
                f"{maker.__name__} defines __init__, which would run in the starter's thread; define init"
            )
        bound = cls.max_mailbox
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int) or bound < 1):
            raise TypeError(f"{cls.__name__}.max_mailbox must be None or an int of at least 1, not {bound!r}")
        default = cls.__dict__.get("trap_exit")
        if isinstance(default, bool):
            # A class attribute is the default; the property of the base class stays in charge.
            cls._trap_exit_default = default
            del cls.trap_exit
        elif "trap_exit" in cls.__dict__ and not isinstance(default, property):
            raise TypeError(f"{cls.__name__}.trap_exit must be a bool, not {type(default).__name__}")

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise TypeError(f"a process is started, not made: use {type(self).__name__}.start(...)")

    # --- for subclasses -------------------------------------------------------------------------------

    def init(self, *args: Any, **kwargs: Any) -> None:
        """Set the process up, in its own thread. The starter waits for it.

        Raise `Ignore` to start nothing, `Exit(reason)` to refuse.
        """
        if args or kwargs:
            raise TypeError(f"{type(self).__name__}.init takes no arguments")

    def handle_continue(self, token: Any, /) -> Any:
        """Go on after `init` called `continue_with(token)`: runs before any message."""
        raise NotImplementedError(f"{type(self).__name__}.handle_continue")

    def handle_call(self, request: Any, sender: Sender, /) -> Any:
        """Answer a call with what is returned: a value, `NO_REPLY`, or `Stop(reason, reply)`."""
        raise NotImplementedError(f"{type(self).__name__}.handle_call")

    def handle_cast(self, message: Any, /) -> Any:
        """Take a message sent with `cast`."""
        raise NotImplementedError(f"{type(self).__name__}.handle_cast")

    def handle_info(self, message: Any, /) -> Any:
        """Take any other message: plain sends, `Down`, `ExitMessage`, timers."""
        log.warning("process.unexpected_message", **facts(self._cell), message_type=type(message).__name__)

    def terminate(self, reason: Any, /) -> None:
        """Clean up, whatever the reason of the end; not run after a kill. Checkpoints are quiet here."""

    def continue_with(self, token: Any) -> None:
        """In `init`: have `handle_continue(token)` run right after the starter was answered."""
        self._continue = (token,)

    def on_exit(self, closer: Callable[[], Any]) -> None:
        """Have `closer()` run when the process ends, even by a kill; last given, first run.

        It runs in the process's thread, after `terminate` and before others hear of the end (after a kill:
        when the thread unwinds). What it raises is logged.
        """
        if not callable(closer):
            raise TypeError(f"closer must be callable, not {type(closer).__name__}")
        self._closers.append(closer)

    @property
    def pid(self) -> Pid:
        """This process's pid."""
        return self._cell.pid

    @property
    def actor_ref(self) -> Pid:
        """The pid, under pykka's name."""
        return self._cell.pid

    if TYPE_CHECKING:
        trap_exit: bool = False
    else:

        @property
        def trap_exit(self) -> bool:
            """Whether exit signals arrive as messages."""
            return self._cell.trap_exit

        @trap_exit.setter
        def trap_exit(self, value: bool) -> None:
            self._cell.trap_exit = value

    # --- starting -------------------------------------------------------------------------------------

    @classmethod
    def start(  # type: ignore[override]
        cls, *args: Any, name: Hashable | None = None, start_timeout: float | None = None, **kwargs: Any
    ) -> Pid | None:
        """Start a process and wait until its `init` has returned.

        Args:
            *args: For `init`.
            name: Registered before `init` runs.
            start_timeout: Seconds `init` may take (default: the class attribute); after that the process is
                killed.
            **kwargs: For `init`.

        Returns:
            The pid; `None` if `init` raised `Ignore`.

        Raises:
            StartError: `init` raised or exited, took too long, the name is taken, or the system refused a
                thread. Nothing is left behind.
            TypeError: `init` does not take these arguments; no thread was started.
        """
        return launch(cls, args, kwargs, name=name, timeout=start_timeout)

    @classmethod
    def start_link(
        cls, *args: Any, name: Hashable | None = None, start_timeout: float | None = None, **kwargs: Any
    ) -> Pid | None:
        """`start`, linked to the calling process from before the first line of `init`.

        The calling process becomes the parent. Called from a thread that is no process it is `start`.
        """
        parent = current_process()
        return launch(cls, args, kwargs, name=name, timeout=start_timeout, parent=parent)

    @classmethod
    def start_nowait(
        cls, *args: Any, supervisor: Pid | None = None, name: Hashable | None = None, **kwargs: Any
    ) -> Pid:
        """Start a process without waiting for its `init`.

        Args:
            *args: For `init`.
            supervisor: The process to link it to, as its parent.
            name: Registered before `init` runs.
            **kwargs: For `init`.

        Raises:
            StartError: As in `start`, but for what `init` does: that is heard of as any end is.
        """
        parent = supervisor._cell if supervisor is not None else None
        pid = launch(cls, args, kwargs, name=name, parent=parent, wait=False)
        assert pid is not None
        return pid

    @classmethod
    def child_spec(cls, *args: Any, **overrides: Any) -> ChildSpec:
        """The child spec of this class: `init` arguments by position, fields of the spec by keyword."""
        from allm_actors.beam.supervisor import ChildSpec

        return ChildSpec(**{"id": cls.__name__, "start": cls, "args": args, **overrides})

    # --- pykka ----------------------------------------------------------------------------------------

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        cell = _being_born.cell
        assert cell is not None
        return cell.mailbox

    def _start_actor_loop(self) -> None:
        cell = self._cell
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._main,), name=f"beam-{cell.class_name}-{cell.number}", daemon=True
        )
        cell.thread = thread
        if _stack_size is None:
            thread.start()
            return
        with _stack_lock:
            before = threading.stack_size(_stack_size)
            try:
                thread.start()
            finally:
                threading.stack_size(before)

    def stop(self) -> None:
        """End this process with `"normal"` once the messages that wait have been handled."""
        order_stop(self._cell, "normal")

    def on_receive(self, message: Any) -> Any:
        """Not used: messages go to the `handle_...` callbacks."""
        return self.handle_info(message)

    # --- the life of a process, in its own thread -----------------------------------------------------

    def _main(self) -> None:
        cell = self._cell
        set_current(cell)
        reason: Any = None
        begun = False
        try:
            if cell.must_exit:
                cell.obey()
            args, kwargs = self._arguments
            self._arguments = None
            cell.last_message_type, cell.busy_since = "init", time.monotonic()
            self.init(*args, **kwargs)
            del args, kwargs
            begun = True
            cell.acknowledge()
            self._loop()
        except BaseException as exc:
            reason = self._reason_of(exc, begun=begun)
            if begun and not cell.killed:
                reason = self._terminated(reason)
        self._run_closers()
        self._be_dead(reason)
        self._continue = None
        set_current(None)
        if cell.killed:
            buried(cell)
        cell.release()

    def _be_dead(self, reason: Any) -> None:
        cell = self._cell
        told, origin = cell.told.get("reason", (None, None))
        if origin is not None and told is reason:
            cell.death_origin = origin
        cell.die(reason)

    def _reason_of(self, exc: BaseException, *, begun: bool) -> Any:
        if isinstance(exc, ProcessExit):
            if is_clean(exc.reason) and not is_word(exc.reason, "normal"):
                drop_frames(exc)
                return Shutdown(exc)
            return Crash.of(exc)
        if isinstance(exc, Exit):
            return exc.reason
        if isinstance(exc, Ignore) and not begun:
            self._cell.ignored = True
            return "normal"
        return Crash.of(exc)

    def _terminated(self, reason: Any) -> Any:
        """Run `terminate`; the reason of the end after it."""
        self._cell.phase = "terminate"
        self._cell.state = "exiting"
        try:
            self._cell.busy_since = time.monotonic()
            self.terminate(reason)
        except BaseException as exc:
            return self._reason_of(exc, begun=True)
        return reason

    def _run_closers(self) -> None:
        cell = self._cell
        cell.phase = "closers"
        cell.state = "exiting"
        while self._closers:
            closer = self._closers.pop()
            try:
                closer()
            except BaseException as exc:
                log.error("closer.failed", **facts(cell), error=describe(exc))

    def _loop(self) -> None:
        """Handle messages until something ends the process; never returns."""
        cell = self._cell
        log.debug("process.started", **(facts(cell) if log.wants_debug() else {}))
        if self._continue is not None:
            token, self._continue = self._continue[0], None
            cell.state, cell.last_message_type, cell.busy_since = "running", "continue", time.monotonic()
            self._obey(self.handle_continue(token))
            del token
        get = cell.mailbox._queue.get
        clock = time.monotonic
        while True:
            if cell.must_exit:
                cell.obey()
            cell.state = "waiting"
            cell.busy_since = None
            item = get()
            if cell.must_exit:
                cell.mailbox.dropped += type(item) is not Wake
                cell.obey()
            if type(item) is Counted:
                item = cell.mailbox.uncount(item)
            if type(item) is Wake:
                continue
            cell.state = "running"
            cell.busy_since = clock()
            cell.handled += 1
            self._handle(item)
            del item  # an idle process keeps no message alive

    def _handle(self, item: Any) -> None:
        cell = self._cell
        kind = type(item)
        if kind is Call:
            request, sender = item
            if sender.abandoned:
                log.debug("mailbox.dropped", count=1, why="the caller gave up")
            else:
                self._answer_call(request, sender)
        elif kind is Cast:
            cell.last_message_type = type(item.message).__name__
            self._obey(self.handle_cast(item.message))
        elif kind is StopOrder:
            raise Exit(item.reason)
        elif kind is Delivery:
            if item.valid():
                message = item.message
                if type(message) is ExitMessage and message.pid is not None:
                    cell.exits.pop(message.pid._cell, None)
                cell.last_message_type = type(message).__name__
                self._obey(self.handle_info(message))
        elif kind is Envelope:
            cell.last_message_type = type(item.message).__name__
            receive(self, item)
        else:
            cell.last_message_type = kind.__name__
            self._obey(self.handle_info(item))

    def _answer_call(self, request: Any, sender: Sender) -> None:
        self._cell.last_message_type = type(request).__name__
        result = self.handle_call(request, sender)
        if result is NO_REPLY:
            return
        if isinstance(result, Stop):
            if result.reply is not NO_REPLY:
                sender.reply(result.reply)
            raise Exit(result.reason)
        sender.reply(result)

    @staticmethod
    def _obey(result: Any) -> None:
        if isinstance(result, Stop):
            raise Exit(result.reason)


class _Birth(threading.local):
    cell: Cell | None = None


_being_born = _Birth()


@functools.lru_cache(maxsize=512)
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


def launch(
    cls: type[Process],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    name: Hashable | None = None,
    timeout: float | None = None,
    parent: Cell | None = None,
    wait: bool = True,
    label: str | None = None,
    born: Callable[[Pid], None] | None = None,
) -> Pid | None:
    """Start a process of a class; what `start`, `start_link` and supervisors do.

    Args:
        cls: The class.
        args: For `init`, by position.
        kwargs: For `init`, by name.
        name: Registered before `init` runs.
        timeout: Seconds `init` may take; `None` for the class's own number.
        parent: The process to link to before `init` runs, and whose end ends this one.
        wait: Whether to wait for `init`.
        label: What to call it in names and logs, instead of the class.
        born: Called with the pid before its thread starts; what it raises calls the start off.
    """
    if table.lock._is_owned():  # type: ignore[attr-defined]
        # The garbage collector runs a finalizer in the middle of the table's own work.
        raise StartError("in_finalizer")
    limit = seconds("start_timeout", cls.start_timeout if timeout is None else timeout)
    starter = current_process()
    checkpoint_of(starter)
    _check_arguments(cls, args, kwargs)
    if name is not None:
        check_name(name)
    process, cell = _embody(cls, args, kwargs, parent, starter)
    cell.class_name = label or cell.class_name
    answer: queue.SimpleQueue[Any] | None = queue.SimpleQueue() if wait else None
    cell.starter = answer
    _enter(process, cell, name, starter, parent, born=born)
    del process
    if answer is None:
        return cell.pid
    try:
        return _await_birth(cell, answer, limit, starter)
    except queue.Empty:
        _call_off(cell, parent)
        raise StartError("timeout") from None
    except (Exit, StartError):
        raise  # told to exit: the process goes on; if it is tied to the starter it hears of the starter's end
    except BaseException:
        _call_off(cell, parent)  # nobody would ever know its pid
        raise


def _check_arguments(cls: type[Process], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if cls.init is Process.init and (args or kwargs):
        raise TypeError(f"{cls.__name__}.init takes no arguments")
    try:
        _signature(cls.init).bind(None, *args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{cls.__name__}.init: {error}") from None


def _embody(
    cls: type[Process],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    parent: Cell | None,
    starter: Cell | None,
) -> tuple[Process, Cell]:
    """Make the object and its cell; nothing knows of them yet."""
    cell = Cell(cls.__name__, cls.max_mailbox, parent, starter)
    cell.deaf = cls.deaf
    process = cls.__new__(cls)
    process._cell = cell
    process._closers = []
    process._continue = None
    process._arguments = (args, kwargs)
    outer, _being_born.cell = _being_born.cell, cell  # a finalizer may start one while we make one
    try:
        pykka.ThreadingActor.__init__(process)
    finally:
        _being_born.cell = outer
    cell.trap_exit = cls._trap_exit_default
    cell.pid = Pid(process, cell)
    return process, cell


def _enter(
    process: Process,
    cell: Cell,
    name: Hashable | None,
    starter: Cell | None,
    parent: Cell | None,
    *,
    born: Callable[[Pid], None] | None,
) -> None:
    """Enter a process everywhere and start its thread; leave nothing behind if that fails."""
    starting = False
    try:
        _tabulate(cell, name, starter, parent)
        pykka.ActorRegistry.register(cell.pid)
        if born is not None:
            born(cell.pid)
        starting = True
        prepare_runtime()
        process._start_actor_loop()
    except BaseException as error:
        if cell.thread is not None and cell.thread.ident is not None:
            _call_off(cell, parent)  # interrupted when the thread was there already
            raise
        refused = starting and isinstance(error, RuntimeError)
        reason = ("system_shutdown" if sys.is_finalizing() else "system_limit") if refused else "noproc"
        _unborn(cell, parent, reason)
        if refused:
            raise StartError(reason) from None
        if isinstance(error, NameTaken):
            raise StartError(error) from None
        raise


def _tabulate(cell: Cell, name: Hashable | None, starter: Cell | None, parent: Cell | None) -> None:
    """Enter a process in the tables."""
    with table.lock:
        if starter is not None:
            fence(starter)
        if table.closing:
            raise StartError("system_shutdown")
        if name is not None:
            claim(name, cell, starter)
        table.cells[cell.number] = cell
        if parent is not None and not tie(cell, parent):
            raise StartError("noproc")


def _unborn(cell: Cell, parent: Cell | None, reason: str) -> None:
    """Leave nothing of a process whose thread was not started."""
    if parent is not None:
        untie(cell, parent)
    cell.die(reason, expected=True)
    buried(cell)
    cell.release()


def _await_birth(
    cell: Cell, answer: queue.SimpleQueue[Any], limit: float, starter: Cell | None
) -> Pid | None:
    try:
        if starter is not None:
            starter.waiting_for = cell
        outcome = wait_for(answer, limit)
    finally:
        if starter is not None:
            starter.waiting_for = None
    started: bool = outcome is cell.pid
    if started:
        return cell.pid
    if cell.thread is not None and not cell.killed:
        cell.thread.join(0.5)  # it has nothing left to do; a failed start leaves no thread
    if outcome is IGNORED:
        return None
    raise StartError(outcome)


def _call_off(cell: Cell, parent: Cell | None) -> None:
    if parent is not None:
        untie(cell, parent)
    kill(cell, expected=True)


@functools.cache
def _prepare() -> None:
    from allm_actors.beam import runtime

    runtime.prepare()


def prepare_runtime() -> None:
    """Do once what the first process needs: the exit hook, the fork hook, the timer thread."""
    _prepare()
    service.ensure_thread()


class _Function(Process):
    """A process that is one function."""

    def init(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.continue_with((function, args, kwargs))

    def handle_continue(self, token: Any) -> Stop:
        function, args, kwargs = token
        function(*args, **kwargs)
        return Stop("normal")


def spawn(
    fn: Callable[..., Any],
    *args: Any,
    link: bool = False,
    monitor: bool = False,
    name: Hashable | None = None,
    **kwargs: Any,
) -> Any:
    """Start a process that runs `fn(*args, **kwargs)` and ends with it; does not wait.

    Args:
        fn: Runs in the process's own thread.
        *args: For `fn`.
        link: Link it to the calling process, which becomes its parent.
        monitor: Also monitor it, from before its first line.
        name: Registered before `fn` runs.
        **kwargs: For `fn`.

    Returns:
        The pid; with `monitor=True` the pair `(pid, ref)`.

    Raises:
        StartError: The name is taken, or the system refused a thread.
        NotAProcess: `link` or `monitor` is asked for and the calling thread is no process.
    """
    from allm_actors.beam.pid import NotAProcess

    caller = current_process()
    if caller is None and (link or monitor):
        raise NotAProcess("spawn with link or monitor")
    if not callable(fn):
        raise TypeError(f"fn must be callable, not {type(fn).__name__}")
    parent = caller if link else None
    label = getattr(fn, "__name__", "spawn")
    refs: list[MonitorRef] = []

    def born(pid: Pid) -> None:
        refs.append(watch(pid._cell, caller, None, None))

    pid = launch(
        _Function,
        (fn, args, kwargs),
        {},
        name=name,
        parent=parent,
        wait=False,
        label=label,
        born=born if monitor else None,
    )
    assert pid is not None
    return (pid, refs[0]) if monitor else pid
