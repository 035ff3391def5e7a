"""The processes behind an engine.

    EngineSupervisor        one_for_all
    ├── AdapterProcess      owns the connection; a restart is a fresh one
    ├── StreamSupervisor    one temporary process per live stream
    └── EngineProcess       answers messages; only a started engine has one

Guarantees:
    - No provider I/O happens in any of these: they lend the connection, callers use it.
    - When one of them crashes, all start afresh, from the values their `Home` holds.
    - A message to an engine is answered, by a value or by an exception, however its work ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allm_actors import beam
from allm_actors.beam._log import Logger
from allm_actors.beam.pid import mailbox_of
from allm_actors.beam.runtime import task_supervisor
from allm_actors.beam.supervisor import ChildSpec, DynamicSupervisor, Supervisor, start_child
from allm_actors.engine._home import Home, Retired, when_unused

if TYPE_CHECKING:
    from allm_actors.beam import Pid, Sender
    from allm_actors.engine.adapter import Connection
    from allm_actors.engine.engine import Engine

_log = Logger("allm_actors.engine")

_LOOK_FOR_CALLER = 0.5


@dataclass(frozen=True, slots=True)
class Reconnect:
    """To an adapter process: connect the adapter of an engine's new value, and make both current.

    The connection to replace goes by its number: a message that waits, or was just handled, must
    not keep it from being closed.
    """

    number: int
    engine: Engine


@dataclass(frozen=True, slots=True)
class Retire:
    """To the supervisor of a plain engine's processes: the adapter value is gone."""


class AdapterProcess(beam.Process):
    """Owns the connection of an adapter value, from `connect()` to `close()`."""

    def init(self, home: Home) -> None:
        """Connect, and say so."""
        self._home = home
        self._retired: dict[int, Connection] = {}
        self._connection: Connection | None = None
        self.on_exit(self._close_all)
        adapter = home.adapter
        if adapter is not None:
            self._connection = adapter.connect()
        home.adapter_is_up(self.pid, adapter, self._connection)

    def handle_call(self, request: Any, sender: Sender) -> Any:
        """Replace the connection; `False` if the one to replace is not current any more."""
        match request:
            case Reconnect(number, engine):
                try:
                    return self._replace(number, engine)
                except Exception as error:  # noqa: BLE001  (it is the caller's, whatever it is)
                    sender.fail(error)
                    return beam.NO_REPLY
            case _:
                return super().handle_call(request, sender)

    def _replace(self, number: int, engine: Engine) -> bool:
        adapter = engine.adapter
        connection = adapter.connect() if adapter is not None else None
        before = self._home.replace(number, engine, adapter, connection)
        if before is None:
            _close(connection)
            return False
        if self._connection is not None:
            self._retired[number] = self._connection
            when_unused(before, Retired(number))
        self._connection = connection
        return True

    def handle_info(self, message: Any) -> Any:
        """Close a connection whose last user is gone."""
        match message:
            case Retired(number):
                _close(self._retired.pop(number, None))
                return None
            case _:
                return super().handle_info(message)

    def terminate(self, reason: Any) -> None:  # noqa: ARG002
        """Have callers wait for the next life, before the connection of this one is closed."""
        self._home.ends(self.pid)

    def _close_all(self) -> None:
        self._home.ends(self.pid)
        connections = [*self._retired.values(), self._connection]
        self._retired, self._connection = {}, None
        for connection in connections:
            _close(connection)


def _close(connection: Connection | None) -> None:
    """Close a connection; its author's exception is logged, for nobody is there to catch it."""
    if connection is None:
        return
    try:
        connection.close()
    except Exception as error:  # noqa: BLE001
        _log.error(
            "connection.close_failed", connection=type(connection).__name__, error=type(error).__name__
        )


class StreamSupervisor(DynamicSupervisor):
    """Supervises the processes of live streams, and counts those that crash.

    More than `max_restarts` of them within `max_seconds` end it, and with it the connection they
    used: its supervisor starts all of them afresh.
    """

    def init(self, home: Home, *, max_restarts: int = 3, max_seconds: float = 5.0) -> None:  # type: ignore[override]
        """Start without streams."""
        super().init()
        self._home = home
        self._most, self._within = max_restarts, max_seconds
        self._crashes: deque[float] = deque()
        home.streams_are_up(self.pid)

    def child_ended(self, pid: Pid, reason: Any) -> None:
        """Count a crash. Failing, being halted, killed or ended from outside is none."""
        if not isinstance(reason, beam.Crash):
            return
        now = self.clock()
        self._crashes.append(now)
        while self._crashes and self._crashes[0] < now - self._within:
            self._crashes.popleft()
        if len(self._crashes) > self._most:
            _log.error(
                "streams.crashed_too_often", engine=self._home.name, last=str(pid), crashes=len(self._crashes)
            )
            raise beam.Exit(beam.Shutdown("streams crashed too often"))

    def terminate(self, reason: Any) -> None:
        """Have callers wait for the next life, then end every stream."""
        self._home.ends(self.pid)
        super().terminate(reason)


class EngineProcess(beam.Process):
    """Holds an engine's name, and answers the messages other processes send to it.

    What a message asks for is done in a process of its own, so this one is always free to take the
    next. All it knows of a message is that it has `run(engine)`.
    """

    def init(self, home: Home, ref: Any) -> None:
        """Be reachable under the reference as well as under the name."""
        self._home = home
        self._ref = ref
        beam.register(ref, self.pid)
        home.engine_is_up(self.pid)

    def handle_call(self, request: Any, sender: Sender) -> Any:
        """Have the work of a message done; the answer follows when it is."""
        if not callable(getattr(request, "run", None)):
            sender.fail(
                TypeError(f"an engine answers messages that have run(engine), not {type(request).__name__}")
            )
            return beam.NO_REPLY
        spec = ChildSpec(
            id=type(request).__name__, start=Answering, args=(request, self._ref, sender), restart="temporary"
        )
        try:
            start_child(task_supervisor(), spec)
        except beam.StartError as error:
            sender.fail(error)
        return beam.NO_REPLY

    def handle_cast(self, message: Any) -> None:
        """Drop it: there is nobody to answer."""
        _log.warning("engine.unexpected_cast", engine=self._home.name, message_type=type(message).__name__)

    def terminate(self, reason: Any) -> None:  # noqa: ARG002
        """Have callers wait for the next life."""
        self._home.ends(self.pid)


class Answering(beam.Process):
    """Does the work of one message, answers, and ends; ends early when its caller is gone."""

    def init(self, message: Any, ref: Any, sender: Sender) -> None:
        """Begin once the engine's process is free again."""
        pid = self.pid
        # Whatever becomes of this process, a kill included, the caller hears of it.
        beam.monitor(pid, to=lambda down: sender.fail(beam.ProcessExit(down.reason, pid)))
        self.continue_with((message, ref, sender))

    def handle_continue(self, token: Any) -> beam.Stop:
        """Run the message. What it raises is the caller's."""
        message, ref, sender = token
        self._watch_caller(sender)
        try:
            answer = message.run(ref)
        except Exception as error:  # noqa: BLE001  (it is the caller's, whatever it is)
            sender.fail(error)
        else:
            sender.reply(answer)
        return beam.Stop("normal")

    def _watch_caller(self, sender: Sender) -> None:
        pid = self.pid

        def give_up(_message: object = None) -> None:
            beam.exit(pid, beam.Shutdown("its caller is gone"))

        def look(_message: object) -> None:
            if sender.abandoned:
                give_up()

        if sender.caller is not None:
            watch = beam.monitor(sender.caller, to=give_up)
            self.on_exit(lambda: beam.demonitor(watch))
        timer = beam.send_interval(_LOOK_FOR_CALLER, look, None)
        self.on_exit(lambda: beam.cancel_timer(timer))


class EngineSupervisor(Supervisor):
    """Keeps the processes of one engine together: one crashes, all start afresh."""

    def init(self, home: Home, ref: Any = None, *, max_restarts: int = 3, max_seconds: float = 5.0) -> None:  # type: ignore[override]
        """Start the processes; with a reference the one that answers messages, too."""
        home.supervisor = self.pid
        beam.monitor(self.pid, to=home.supervisor_is_down)
        counted = {"max_restarts": max_restarts, "max_seconds": max_seconds}
        children = [
            ChildSpec(id="adapter", start=AdapterProcess, args=(home,)),
            ChildSpec(id="streams", start=StreamSupervisor, args=(home,), kwargs=counted),
        ]
        if ref is not None:
            children.append(ChildSpec(id="engine", start=EngineProcess, args=(home, ref), name=home.name))
        super().init(children, strategy="one_for_all", max_restarts=max_restarts, max_seconds=max_seconds)

    def handle_info(self, message: Any) -> Any:
        """End when the adapter value of a plain engine is gone."""
        if isinstance(message, Retire):
            raise beam.Exit("shutdown")
        return super().handle_info(message)


def start_processes(home: Home, ref: Any = None, *, max_restarts: int, max_seconds: float) -> None:
    """Start the processes of a home under the root.

    Raises:
        beam.StartError: One of them did not start; none is left behind.
    """
    home.root = beam.root()
    spec = ChildSpec(
        id=("engine", home.name),
        start=EngineSupervisor,
        args=(home, ref),
        kwargs={"max_restarts": max_restarts, "max_seconds": max_seconds},
        restart="temporary",
        type="supervisor",
    )
    try:
        start_child(home.root, spec)
    except BaseException:
        # The caller was told to exit, perhaps, while it waited: what it began would be nobody's.
        retire(home)
        raise


def retire(home: Home) -> None:
    """Have the processes of a home end. Waits for nothing and takes no lock."""
    if home.supervisor is not None:
        mailbox_of(home.supervisor).put(Retire())
