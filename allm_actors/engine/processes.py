"""How an engine gets its processes, and a call its connection.

`start_engine` starts them under a name. A plain `Engine` gets them at its first call, one set per
adapter value, and they end with that value.

    site = locate(engine)        # an Engine, an EngineRef, or a name: the value the call is made with
    lease = site.borrow()        # the connection, and the processes it lives and dies with

Guarantees:
    - `locate` and `borrow` ask no process: between restarts they cost a few look-ups.
    - A call that comes during a restart waits until it is over, or given up.
    - Nothing here holds a plain engine or its adapter value: dropping the last engine ends its
      processes.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from allm_actors import beam
from allm_actors.beam.supervisor import ChildStartFailed
from allm_actors.engine._home import Home, Lease, Standing, down
from allm_actors.engine._processes import (
    AdapterProcess,
    EngineProcess,
    EngineSupervisor,
    Reconnect,
    StreamSupervisor,
    retire,
    start_processes,
)
from allm_actors.engine.engine import Engine
from allm_actors.errors import AdapterError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from allm_actors.engine.adapter import Adapter

__all__ = [
    "AdapterProcess",
    "EngineProcess",
    "EngineRef",
    "EngineSupervisor",
    "Lease",
    "Site",
    "StreamSupervisor",
    "borrow",
    "check_engine",
    "find",
    "locate",
    "start_engine",
]

PLAIN_MAX_RESTARTS: Final = 3
PLAIN_MAX_SECONDS: Final = 5.0


class _Plain:
    """The processes of one adapter value that nobody started by name."""

    __slots__ = ("home", "key", "lock", "value")

    def __init__(self, adapter: Adapter) -> None:
        self.key = id(adapter)
        self.value = weakref.ref(adapter)
        self.lock = threading.Lock()
        self.home: Home | None = None
        weakref.finalize(adapter, _forget, self).atexit = False


class _Directory:
    """What runs in this interpreter: started engines by name, plain ones by adapter value."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know nothing; in a forked child, where none of the processes exist."""
        self.lock = threading.Lock()
        self.names: dict[str, EngineRef] = {}
        self.plain: dict[int, _Plain] = {}


_directory = _Directory()
os.register_at_fork(after_in_child=_directory.forget)


def _forget(plain: _Plain) -> None:
    """The adapter value is gone: so are its processes soon. The collector calls this: no lock is taken."""
    if _directory.plain.get(plain.key) is plain:
        _directory.plain.pop(plain.key, None)
    if plain.home is not None:
        retire(plain.home)


class Site:
    """An engine's value, as one call sees it, and the way to its connection.

    Attributes:
        engine: The value. A later `update` changes later calls, not this one.
        name: What it runs under, `None` for a plain engine.
    """

    __slots__ = ("_home", "_standing", "engine", "name")

    def __init__(self, engine: Engine, home: Home | None = None, standing: Standing | None = None) -> None:
        self.engine = engine
        self.name = home.name if home is not None else None
        self._home = home
        self._standing = standing

    def using(self, engine: Engine) -> Site:
        """The same place, seen with other defaults; `engine` has to hold the same adapter value."""
        return Site(engine, self._home, self._standing)

    def borrow(self, *, deadline: float = math.inf, wanted: Callable[[], bool] | None = None) -> Lease:
        """Give the connection; for a plain engine's first call, start its processes.

        Args:
            deadline: How long a restart in progress is waited for, on the clock of
                `time.monotonic()`.
            wanted: Looked at while a restart is waited for, from whatever thread waits: `False` ends it.

        Raises:
            EngineError: `missing_adapter`; `engine_down` once restarting was given up.
            StreamError: `cancelled`: it is not wanted any more.
            AdapterError: `timeout` at the deadline; `adapter_down` if a restart came between and
                the engine has another adapter since.
            Exception: What `connect()` raised, unchanged.
        """
        engine = self.engine
        adapter = engine.adapter
        if adapter is None:
            raise EngineError("missing_adapter", "the engine has no adapter")
        standing = self._standing
        if standing is None or not standing.tenancy.alive:
            home = self._home if self._home is not None else _plain_home(adapter)
            standing = home.wait(deadline, wanted=wanted)
            if standing is None:
                raise down(self.name)
            if self._home is not None and standing.tenancy.adapter is not adapter:
                raise AdapterError(
                    "adapter_down", "the engine's adapter was replaced", provider=adapter.provider
                )
        connection = standing.tenancy.connection
        assert connection is not None
        return Lease(standing.tenancy, connection, engine, self.name)


class EngineRef:
    """A started engine. Use it wherever an engine is wanted; `with` stops it at the end.

    It is also what messages can be sent to: `beam.call(ref, Generate("hello"))`.
    """

    __slots__ = ("__weakref__", "_home", "_owner", "_updating")

    def __init__(self, home: Home) -> None:
        self._home = home
        self._updating = threading.Lock()
        self._owner: int | None = None

    @property
    def name(self) -> str | None:
        """What it was started under."""
        return self._home.name

    @property
    def engine(self) -> Engine:
        """The present value."""
        engine = self._home.engine
        assert engine is not None
        return engine

    def update(self, fn: Callable[[Engine], Engine]) -> Engine:
        """Replace the value by what `fn` makes of it, atomically against other updates.

        Later calls use it, streams in progress keep theirs. Another adapter value means a new
        connection; the old one is closed after its last stream.

        Args:
            fn: Takes the present engine and gives the new one; runs in this thread, once.

        Returns:
            The new value.

        Raises:
            EngineError: `engine_down`.
            TypeError: `fn` gave something else than an engine.
            Exception: What `fn` or the new adapter's `connect()` raised; nothing has changed then.
        """
        if self._home.gone:
            raise down(self.name)
        if self._owner == threading.get_ident():
            raise RuntimeError("update was called by the function that an update runs")
        while not self._updating.acquire(timeout=_LOOK_AGAIN):
            beam.checkpoint()
        self._owner = threading.get_ident()
        try:
            return self._update(fn)
        finally:
            self._owner = None
            self._updating.release()

    def _update(self, fn: Callable[[Engine], Engine]) -> Engine:
        before = self._standing().engine
        assert before is not None
        after = fn(before)
        if not isinstance(after, Engine):
            raise TypeError(f"an update gives an Engine, not {type(after).__name__}")
        if after.adapter is before.adapter:
            self._home.set_engine(after)
            return after
        while True:
            tenancy = self._standing().tenancy
            try:
                done = beam.call(tenancy.adapter_pid, Reconnect(tenancy.number, after), timeout=math.inf)
            except beam.CallingSelf:
                raise
            except beam.ProcessExit:
                done = False  # it crashed meanwhile; its next life is asked again
            if done:
                return after

    def _standing(self) -> Standing:
        standing = self._home.wait()
        if standing is None:
            raise down(self.name)
        return standing

    def stop(self) -> None:
        """End everything: its streams, its processes, its name. Does nothing the second time."""
        supervisor = self._home.supervisor
        if supervisor is not None and supervisor.alive:
            with suppress(beam.NoProcess):
                beam.stop(supervisor, "shutdown")
        _take_off(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "down" if self._home.gone else "up"
        return f"<EngineRef {self.name!r} {state}>"


_LOOK_AGAIN = 0.1


def start_engine(
    engine: Engine, name: str | None = None, *, max_restarts: int = 3, max_seconds: float = 5.0
) -> EngineRef:
    """Start the processes of an engine, supervised, under a name any thread can use it by.

    Args:
        engine: Its value.
        name: What it runs under.
        max_restarts: More restarts than this within `max_seconds`, and the engine is down; more
            crashed streams than this within that time are one crash of the engine.
        max_seconds: In seconds.

    Raises:
        ValueError: The name is in use, or a number is impossible.
        TypeError: An argument of the wrong type.
        Exception: What the adapter's `connect()` raised, unchanged.
    """
    _check_start(engine, name, max_restarts, max_seconds)
    home = Home(name=name, engine=engine)
    ref = EngineRef(home)
    if name is not None:
        with _directory.lock:
            holder = _directory.names.get(name)
            if holder is not None and not holder._home.gone:  # noqa: SLF001
                raise ValueError(f"the name {name!r} is in use by a started engine")
            _directory.names[name] = ref
    home.when_gone = lambda: _take_off(ref)
    failed = _start(home, ref, max_restarts=max_restarts, max_seconds=max_seconds)
    if failed is not None:
        home.has_gone(failed)
        raise failed
    return ref


def _start(
    home: Home, ref: EngineRef | None, *, max_restarts: int, max_seconds: float
) -> BaseException | None:
    """Start a home's processes; give what is to be raised if they do not start.

    Given, not raised, so that a `connect()` that failed shows its own exception and nothing else.
    """
    try:
        start_processes(home, ref, max_restarts=max_restarts, max_seconds=max_seconds)
    except beam.StartError as error:
        return _origin(error)
    except BaseException as error:  # noqa: BLE001  (raised by the caller)
        return error
    return None


def _check_start(engine: object, name: object, max_restarts: object, max_seconds: object) -> None:
    if not isinstance(engine, Engine):
        raise TypeError(f"engine must be an Engine, not {type(engine).__name__}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if name == "":
        raise ValueError("name must not be empty")
    if isinstance(max_restarts, bool) or not isinstance(max_restarts, int):
        raise TypeError(f"max_restarts must be an int, not {type(max_restarts).__name__}")
    if max_restarts < 0:
        raise ValueError(f"max_restarts must not be negative, not {max_restarts!r}")
    if isinstance(max_seconds, bool) or not isinstance(max_seconds, int | float):
        raise TypeError(f"max_seconds must be a number, not {type(max_seconds).__name__}")
    if not max_seconds > 0:
        raise ValueError(f"max_seconds must be above zero, not {max_seconds!r}")


def check_engine(engine: object) -> None:
    """Raise `TypeError` for anything that cannot stand for an engine. Looks nothing up."""
    if not isinstance(engine, Engine | EngineRef | str):
        raise TypeError(f"engine must be an Engine, an EngineRef or a name, not {type(engine).__name__}")


def find(engine: Engine | EngineRef | str) -> Engine | EngineRef:
    """Give the started engine of a name; an engine or a reference comes back as it is.

    Raises:
        TypeError: It is something else.
        EngineError: `engine_down`: nothing runs under the name.
    """
    check_engine(engine)
    if not isinstance(engine, str):
        return engine
    ref = _directory.names.get(engine)
    if ref is None:
        raise EngineError(
            "engine_down",
            f"no engine runs under the name {engine!r}: start one, start_engine(engine, name={engine!r})",
        )
    return ref


def locate(engine: Engine | EngineRef | str, *, deadline: float = math.inf) -> Site:
    """Find the value a call is made with. Starts nothing; waits out a restart of a started engine.

    Args:
        engine: An engine, a started one, or the name one was started under.
        deadline: How long a restart in progress is waited for, on the clock of `time.monotonic()`.

    Raises:
        TypeError: It is something else.
        EngineError: `engine_down`: nothing runs there, or not any more.
        AdapterError: `timeout`: the deadline came first.
    """
    if isinstance(engine, Engine):
        return Site(engine)
    ref = find(engine)
    assert isinstance(ref, EngineRef)
    home = ref._home  # noqa: SLF001
    standing = home.wait(deadline)
    if standing is None or standing.engine is None:
        raise down(home.name)
    return Site(standing.engine, home, standing)


def borrow(engine: Engine | EngineRef | str, *, deadline: float = math.inf) -> Lease:
    """Give a connection of an engine: `locate(engine).borrow()`."""
    return locate(engine, deadline=deadline).borrow(deadline=deadline)


def _plain_home(adapter: Adapter) -> Home:
    """Give the home of an adapter value's processes, started if they do not run."""
    plain = _directory.plain.get(id(adapter))
    if plain is None or plain.value() is not adapter:
        plain = _plain(adapter)
    home = plain.home
    if home is not None and not home.gone:
        return home
    with plain.lock:
        home = plain.home
        if home is not None:
            if not home.gone:
                return home
            if home.gave_up and time.monotonic() < (home.gone_at or 0.0) + PLAIN_MAX_SECONDS:
                raise down(None)
        home = Home(adapter=adapter.twin())
        failed = _start(home, None, max_restarts=PLAIN_MAX_RESTARTS, max_seconds=PLAIN_MAX_SECONDS)
        if failed is not None:
            raise failed
        plain.home = home
        return home


def _plain(adapter: Adapter) -> _Plain:
    with _directory.lock:
        plain = _directory.plain.get(id(adapter))
        if plain is None or plain.value() is not adapter:
            plain = _directory.plain[id(adapter)] = _Plain(adapter)
        return plain


def _take_off(ref: EngineRef) -> None:
    """Free a name, if it is still this engine's."""
    name = ref.name
    if name is None:
        return
    with _directory.lock:
        if _directory.names.get(name) is ref:
            del _directory.names[name]


def _origin(error: beam.StartError) -> BaseException:
    """Find what kept a process from starting, as its author raised it."""
    reason: Any = error.reason
    while isinstance(reason, ChildStartFailed | beam.StartError):
        reason = reason.reason
    match reason:
        case beam.Crash():
            return reason.exception
        case beam.NameTaken():
            return ValueError(f"the name {reason.name!r} is in use by {reason.pid}")
        case _:
            return error
