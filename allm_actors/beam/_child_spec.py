"""How a child of a supervisor is described: what to start, when it comes back, how it is stopped.

A spec is a frozen value. It is checked completely when it is made, so that a wrong one is refused before
anything starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from allm_actors.beam._names import check_name
from allm_actors.beam.pid import SpecError

if TYPE_CHECKING:
    import random

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
ChildType: TypeAlias = Literal["worker", "supervisor"]
Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown: TypeAlias = Literal["never", "any_significant", "all_significant"]

BRUTAL_KILL: Final = "brutal_kill"
WORKER_SHUTDOWN: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a restart is put off: `initial` seconds, then `factor` times longer each time.

    Attributes:
        initial: The first delay, in seconds.
        maximum: No delay is longer, jitter aside.
        factor: What a delay is multiplied with for the next one.
        jitter: Each delay is drawn evenly from `1 - jitter` to `1 + jitter` times its length.
        reset_after: After a life of so many seconds the delay falls back to `initial`.
    """

    initial: float = 0.1
    maximum: float = 5.0
    factor: float = 2.0
    jitter: float = 0.2
    reset_after: float = 30.0

    def __post_init__(self) -> None:
        for name in ("initial", "maximum", "reset_after"):
            _check_seconds(f"backoff: {name}", getattr(self, name))
        _check_number("backoff: factor", self.factor, least=1.0)
        _check_number("backoff: jitter", self.jitter, least=0.0)
        if self.jitter > 1:
            raise SpecError(f"backoff: jitter must be at most 1, not {self.jitter!r}")
        if math.inf in (self.initial, self.maximum):
            raise SpecError("backoff: initial and maximum must be finite")

    def delay(self, attempt: int, rng: random.Random) -> float:
        """Seconds to wait before restart number `attempt` (0 is the first) in a row."""
        try:
            plain = min(self.maximum, self.initial * self.factor**attempt)
        except OverflowError:
            plain = self.maximum
        return plain * rng.uniform(1 - self.jitter, 1 + self.jitter)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child of a supervisor.

    Attributes:
        id: What the supervisor calls the child; hashable, unique among its siblings.
        start: A `Process` subclass, started with `start_link`; or a callable that returns a pid linked to the
            process it is called in, or `None` for a child that has nothing to do.
        args: Positional arguments of the start.
        kwargs: Keyword arguments of the start.
        name: The name the process is registered under; only for a `Process` subclass.
        restart: `"permanent"`: always started again. `"transient"`: only after an abnormal end.
            `"temporary"`: never, and its spec is dropped.
        shutdown: How it is stopped: told, and killed after so many seconds (`math.inf`: never killed); or
            killed at once with `"brutal_kill"`. By default 5 seconds for a worker, `math.inf` for a
            supervisor.
        type: `"worker"` or `"supervisor"`; by default what `start` is.
        significant: Whether its end may end the supervisor, see `auto_shutdown`.
        backoff: Puts restarts off; `None`: they are made at once.
        max_zombies: How many killed processes of this child may be stuck in blocking code; with so many a
            restart counts as failed.

    Raises:
        SpecError: A value makes no sense.
    """

    id: Hashable
    start: Callable[..., Any]
    args: tuple[Any, ...] = field(default=(), repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    name: Hashable | None = None
    restart: Restart = "permanent"
    shutdown: float | Literal["brutal_kill"] | None = None
    type: ChildType | None = None
    significant: bool = False
    backoff: Backoff | None = None
    max_zombies: int = 8

    def __post_init__(self) -> None:
        what = f"child {self.id!r}"
        _check_hashable("a child's id", self.id)
        if not callable(self.start):
            raise SpecError(
                f"{what}: start must be a Process subclass or a callable, not {_kind(self.start)}"
            )
        if isinstance(self.args, str | bytes) or not isinstance(self.args, Iterable):
            raise SpecError(f"{what}: args must be a tuple, not {_kind(self.args)}")
        object.__setattr__(self, "args", tuple(self.args))
        if not isinstance(self.kwargs, Mapping) or not all(isinstance(key, str) for key in self.kwargs):
            raise SpecError(f"{what}: kwargs must map names to values; this {_kind(self.kwargs)} does not")
        object.__setattr__(self, "kwargs", dict(self.kwargs))
        if self.name is not None:
            self._check_name(what)
        check_choice(f"{what}: restart", self.restart, get_args(Restart))
        if self.type is None:
            inferred = getattr(self.start, "child_type", "worker")
            object.__setattr__(self, "type", inferred)
        check_choice(f"{what}: type", self.type, get_args(ChildType))
        self._check_shutdown(what)
        if not isinstance(self.significant, bool):
            raise SpecError(f"{what}: significant must be True or False, not {_kind(self.significant)}")
        if self.significant and self.restart == "permanent":
            raise SpecError(f"{what}: a permanent child cannot be significant: it always comes back")
        if self.backoff is not None and not isinstance(self.backoff, Backoff):
            raise SpecError(f"{what}: backoff must be a Backoff, not {_kind(self.backoff)}")
        if (
            isinstance(self.max_zombies, bool)
            or not isinstance(self.max_zombies, int)
            or self.max_zombies < 1
        ):
            raise SpecError(
                f"{what}: max_zombies must be a whole number, at least 1, not {self.max_zombies!r}"
            )

    def _check_name(self, what: str) -> None:
        try:
            check_name(self.name)
        except TypeError as exc:
            raise SpecError(f"{what}: {exc}") from None

    def _check_shutdown(self, what: str) -> None:
        if self.shutdown is None:
            default = math.inf if self.type == "supervisor" else WORKER_SHUTDOWN
            object.__setattr__(self, "shutdown", default)
        if self.shutdown != BRUTAL_KILL:
            _check_seconds(f"{what}: shutdown", self.shutdown, or_else=' or "brutal_kill"')

    @property
    def grace(self) -> float:
        """Seconds between being told to end and being killed; 0 for `"brutal_kill"`."""
        assert self.shutdown is not None
        return 0.0 if isinstance(self.shutdown, str) else self.shutdown


def check_choice(what: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is none of those allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise SpecError(f"{what} must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def check_intensity(max_restarts: object, max_seconds: object) -> None:
    """Refuse an intensity that makes no sense."""
    if isinstance(max_restarts, bool) or not isinstance(max_restarts, int) or max_restarts < 0:
        raise SpecError(f"max_restarts must be a whole number, 0 or more, not {max_restarts!r}")
    _check_seconds("max_seconds", max_seconds)
    if max_seconds == 0:
        raise SpecError("max_seconds must be more than 0")


def check_children(children: object, auto_shutdown: str) -> tuple[ChildSpec, ...]:
    """The specs of a supervisor's children, checked against each other."""
    if isinstance(children, str | bytes | Mapping) or not isinstance(children, Iterable):
        raise SpecError(f"children must be a list of child specs, not {_kind(children)}")
    specs = tuple(children)
    seen: set[Hashable] = set()
    for spec in specs:
        check_spec(spec, auto_shutdown)
        if spec.id in seen:
            raise SpecError(f"child {spec.id!r}: another child has the same id")
        seen.add(spec.id)
    return specs


def check_spec(spec: object, auto_shutdown: str = "never") -> ChildSpec:
    """A child spec, checked against the supervisor's option."""
    if not isinstance(spec, ChildSpec):
        hint = (
            f"; {spec.__name__}.child_spec(...) makes one"
            if isinstance(spec, type) and hasattr(spec, "child_spec")
            else ""
        )
        raise SpecError(f"a child is described by a ChildSpec, not {_kind(spec)}{hint}")
    if spec.significant and auto_shutdown == "never":
        raise SpecError(f'child {spec.id!r}: significant means nothing under auto_shutdown="never"')
    return spec


def _kind(value: object) -> str:
    """What a value is, for a message."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _check_hashable(what: str, value: object) -> None:
    try:
        hash(value)
    except TypeError:
        raise SpecError(f"{what} must be hashable; this {type(value).__name__} is not") from None


def _check_number(what: str, value: object, *, least: float, or_else: str = "") -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or math.isnan(value) or value < least:  # type: ignore[arg-type, operator]
        raise SpecError(f"{what} must be a number, {least:g} or more{or_else}, not {value!r}")


def _check_seconds(what: str, value: object, *, or_else: str = "") -> None:
    _check_number(what, value, least=0.0, or_else=or_else)
