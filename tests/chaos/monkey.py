"""What kills processes, and what puts back what nobody supervises.

Engines are started in the service's own name; whoever supervises an engine restarts it when its own
supervisor is gone. The monkey kills adapters, streams, engines and their supervisors: mostly as seldom as the
engines' intensity allows, now and then on purpose more often, to see them give up.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import allm_actors as allm
from allm_actors import beam
from allm_actors.providers import OpenAI
from allm_actors.providers.anthropic import Anthropic
from allm_actors.providers.gemini import Gemini

from .faults import RETRY

if TYPE_CHECKING:
    from allm_actors.engine import Engine

MAX_RESTARTS, MAX_SECONDS = 3, 5.0
DEEDS = ("adapter", "adapter", "streams", "engine", "supervisor", "too often", *["stream"] * 9)
"""What is done, shuffled anew each time all of it was done: so even a short run sees all of it."""
_PACE = 2.0  # seconds between two kills of one engine's processes: three in five seconds at most
_PATIENCE = 20.0


class Kill(NamedTuple):
    """Something was killed."""

    at: float
    engine: str
    what: str
    """`stream`, `adapter`, `streams` (their supervisor), `engine`, `supervisor`."""


class Restart(NamedTuple):
    """A process was killed, and came back or its supervisor ended."""

    killed_at: float
    over_at: float
    engine: str
    what: str


class Birth(NamedTuple):
    """A process of an adapter began a life."""

    at: float
    engine: str
    supervisor: int


class Engines:
    """Four engines, one for each wire format, and who starts them again."""

    def __init__(self, base_url: str) -> None:
        self.births: list[Birth] = []
        self.gave_up = 0
        self.names = tuple(f"chaos-{wire}" for wire in ("chat", "responses", "anthropic", "gemini"))
        adapters: list[Any] = [
            self._witnessed(OpenAI, "chat")(base_url=base_url, auth=False, api="chat"),
            self._witnessed(OpenAI, "responses")(base_url=base_url, auth=False, api="responses"),
            self._witnessed(Anthropic, "anthropic")(base_url=base_url, auth=False),
            self._witnessed(Gemini, "gemini")(base_url=base_url, auth=False),
        ]
        self._values = {
            name: allm.Engine(adapter=adapter, model="any", retry=RETRY)
            for name, adapter in zip(self.names, adapters, strict=True)
        }
        self._ends = beam.Inbox()
        self._closing = False
        self._refs = {name: self._start(name, value) for name, value in self._values.items()}
        self._keeper = threading.Thread(target=self._keep, name="chaos-keeper", daemon=True)
        self._keeper.start()

    def supervisor(self, name: str) -> beam.Pid:
        """The one that holds an engine's processes together, for now."""
        pid: beam.Pid = self._refs[name]._home.supervisor
        return pid

    def close(self) -> None:
        """Stop all."""
        self._closing = True
        self._ends.put(None)
        self._keeper.join(10)
        for ref in self._refs.values():
            ref.stop()

    def _witnessed(self, kind: type[Any], wire: str) -> type[Any]:
        """An adapter whose births are written down."""
        births = self.births

        def connect(adapter: Any) -> Any:
            (supervisor, *_) = beam.info(beam.current())["ancestors"]
            births.append(Birth(time.monotonic(), f"chaos-{wire}", supervisor.number))
            return kind.connect(adapter)

        # With a tag of its own it stands in for nobody else in this program.
        return type(f"Witnessed{kind.__name__}", (kind,), {"provider": f"chaos-{wire}", "connect": connect})

    def _start(self, name: str, value: Engine) -> Any:
        ref = allm.start_engine(value, name=name, max_restarts=MAX_RESTARTS, max_seconds=MAX_SECONDS)
        beam.monitor(ref._home.supervisor, to=lambda down: self._ends.put((name, down.reason)))
        return ref

    def _keep(self) -> None:
        while (end := self._ends.receive(timeout=3600)) is not None:
            name, reason = end
            self.gave_up += reason == "shutdown"
            if not self._closing:
                self._refs[name] = self._start_again(name)

    def _start_again(self, name: str) -> Any:
        """Start an engine whose supervisor is gone.

        What a killed supervisor leaves behind ends a moment after it, and has the name until then.
        """
        limit = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._start(name, self._values[name])
            except ValueError:
                if time.monotonic() > limit:
                    raise
                time.sleep(0.002)


class Monkey(threading.Thread):
    """Kills processes at random from the start, until it is closed.

    Attributes:
        kills: What it killed, and when.
        restarts: How long what it killed was away.
        problems: What did not come back, or did not give up.
    """

    def __init__(self, engines: Engines, seed: str) -> None:
        super().__init__(name="chaos-monkey", daemon=True)
        self.kills: list[Kill] = []
        self.restarts: list[Restart] = []
        self.problems: list[str] = []
        self._engines = engines
        self._rng = random.Random(f"{seed}/monkey")
        self._over = threading.Event()
        self._next = dict.fromkeys(engines.names, 0.0)
        self._deck: list[str] = []
        self.start()

    def close(self) -> None:
        """Kill no more."""
        self._over.set()
        self.join(30)

    def run(self) -> None:
        try:
            while not self._over.wait(self._rng.uniform(0.02, 0.2)):
                self._strike()
        except Exception as error:
            self.problems.append(f"the monkey itself: {error!r}")
            raise

    def _strike(self) -> None:
        self._deck = self._deck or self._rng.sample(DEEDS, len(DEEDS))
        before = len(self.kills)
        self._do(self._deck[-1])
        if len(self.kills) > before:  # else there was nothing to kill, for now
            self._deck.pop()

    def _do(self, what: str) -> None:
        if what == "stream":
            self._kill_stream()
            return
        if not (due := [name for name in self._engines.names if self._next[name] <= time.monotonic()]):
            return
        engine = self._rng.choice(due)
        self._next[engine] = time.monotonic() + _PACE
        if what == "supervisor":
            self._note(engine, what)
            beam.exit(self._engines.supervisor(engine), "kill")
        elif what == "too often":
            self._kill_too_often(engine)
        else:
            self._kill_child(engine, what)

    def _kill_stream(self) -> None:
        for pid in self._rng.sample(pids := beam.processes(), min(len(pids), 12)):
            info = beam.info(pid)
            if info["class"] == "StreamActor" and len(info["ancestors"]) > 1:
                supervisor = info["ancestors"][1]
                for name in self._engines.names:
                    if self._engines.supervisor(name) == supervisor:
                        self._note(name, "stream")
                        beam.exit(pid, "kill")
                return

    def _kill_child(self, engine: str, what: str) -> beam.Pid:
        """Kill one of an engine's processes, and see that it comes back or its supervisor ends."""
        supervisor = self._engines.supervisor(engine)
        try:
            child = {name: pid for name, pid, _ in beam.which_children(supervisor)}[what]
        except beam.ProcessExit:
            return supervisor
        before = self._births(supervisor)
        assert isinstance(child, beam.Pid)
        self._note(engine, what)
        beam.exit(child, "kill")
        killed_at = time.monotonic()
        while supervisor.alive and self._births(supervisor) == before:
            if time.monotonic() > killed_at + _PATIENCE:
                self.problems.append(f"{what} of {engine} was killed and has not come back in {_PATIENCE} s")
                break
            time.sleep(0.002)
        self.restarts.append(Restart(killed_at, time.monotonic(), engine, what))
        return supervisor

    def _kill_too_often(self, engine: str) -> None:
        """Kill until the supervisor gives up, which it does after `MAX_RESTARTS` restarts at the latest."""
        began = time.monotonic()
        for _ in range(MAX_RESTARTS + 1):
            if not self._kill_child(engine, "adapter").alive:
                return
        if time.monotonic() - began < MAX_SECONDS:  # else the first of them counts no more
            self.problems.append(f"{engine} was restarted more than {MAX_RESTARTS} times in a row")

    def _births(self, supervisor: beam.Pid) -> int:
        return sum(birth.supervisor == supervisor.number for birth in self._engines.births)

    def _note(self, engine: str, what: str) -> None:
        self.kills.append(Kill(time.monotonic(), engine, what))
