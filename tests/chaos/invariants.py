"""What has to hold of every stream and of the whole run, whatever happened: both ledgers are compared here."""

from __future__ import annotations

import bisect
import collections
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import faults
from .consumers import WAYS
from .faults import LIMITS, RETRY
from .monkey import DEEDS, MAX_RESTARTS, MAX_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .lateness import Lateness
    from .ledger import Entry
    from .monkey import Birth, Kill, Restart
    from .provider import Answered

HALT = 0.5
"""Seconds within which the provider sees the end of what nobody wants any more."""
SLACK = 0.5
"""Seconds by which a limit may be missed, on top of what the machine itself was late."""
_CLOCK = 0.02
RESTART = 2.0
"""Seconds within which what was killed is back, or its supervisor gone."""


@dataclass
class Report:
    """What was found."""

    problems: list[str] = field(default_factory=list)
    endings: collections.Counter[str] = field(default_factory=collections.Counter)
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    limits: collections.Counter[str] = field(default_factory=collections.Counter)
    ways: collections.Counter[str] = field(default_factory=collections.Counter)
    halts: list[float] = field(default_factory=list)
    """For each stream that was halted in the midst of an answer: seconds until the provider saw it."""
    slowest: float = 0.0
    """The longest wait for one event, in seconds."""


class Judge:
    """Compares the two ledgers.

    Args:
        answered: The provider's.
        kills: What was killed meanwhile.
        late: How late the machine was: in this process, and in the provider's.
    """

    def __init__(self, answered: Iterable[Answered], kills: Sequence[Kill], late: Sequence[Lateness]) -> None:
        self.report = Report()
        self._requests: dict[int, list[Answered]] = collections.defaultdict(list)
        self._last_on: dict[int, float] = {}
        for request in answered:
            self._requests[request.number].append(request)
            self._last_on[request.connection] = max(
                request.received_at, self._last_on.get(request.connection, 0.0)
            )
        self._kills = collections.defaultdict(list)
        for kill in kills:
            self._kills[kill.engine].append(kill)
        self._here, self._there = late

    def judge(self, entry: Entry) -> None:
        """Look at one stream."""
        requests = sorted(self._requests.pop(entry.number, []), key=lambda each: each.attempt)
        plans = [faults.plan(entry.seed, entry.number, each.attempt) for each in requests]
        report = self.report
        report.kinds.update(plan.kind for plan in plans)
        report.ways[entry.way] += 1
        if entry.limit is not None:
            report.limits[entry.limit] += 1
        found = list(entry.problems)
        if len(entry.endings) == 1 and entry.ended is not None:
            (ending,) = entry.endings
            report.endings[ending if entry.reason is None else f"{ending}: {entry.reason}"] += 1
            found += self._delivered(entry, ending, requests, plans)
            found += self._waited(entry, ending, plans)
            found += self._justified(entry, ending, plans)
            found += self._released(entry, ending, requests)
        else:
            found.append(f"it ended {len(entry.endings)} times: {entry.endings}")
        found += self._repeated(requests, plans)
        seen = " ".join(f"{plan.kind}@{plan.after}/{plan.words}" for plan in plans)
        where = f"stream {entry.number} ({entry.way}, {entry.engine}; {seen or 'never asked'})"
        report.problems += [f"{where}: {each}" for each in found]

    def rest(self) -> None:
        """Look at what the provider saw and no entry speaks of."""
        self.report.problems += [f"stream {number} has no entry" for number in self._requests]

    # --- one stream -----------------------------------------------------------------------------------

    def _delivered(
        self, entry: Entry, ending: str, requests: list[Answered], plans: list[faults.Plan]
    ) -> list[str]:
        """What was delivered is the beginning of what one attempt sent; all of it, if it was completed."""
        found = []
        sent = {each.attempt: each.words for each in requests}
        if entry.words > sent.get(entry.attempt, 0):
            found.append(f"{entry.words} words delivered of {sent.get(entry.attempt, 0)} sent")
        if entry.words and entry.attempt != max(sent, default=0):
            found.append(f"attempt {entry.attempt} was delivered, and repeated")
        if ending == "completed" and (not plans or entry.words != plans[-1].words):
            found.append(f"completed with {entry.words} words")
        return found

    def _waited(self, entry: Entry, ending: str, plans: list[faults.Plan]) -> list[str]:
        """Neither the whole nor one wait took longer than the limits of the call allow."""
        assert entry.ended is not None
        found = []
        slack = SLACK + entry.busy + self._lateness(entry.began, entry.ended)
        deadline = entry.deadline
        # A box goes on for its other streams, and does not say when it has dropped one.
        dropped = entry.way == "mailbox" and ending == "halted"
        took = (entry.halted_at if dropped and entry.halted_at is not None else entry.ended) - entry.began
        if took > deadline + slack:
            found.append(f"took {took:.2f} s of {deadline:g} s, and {ending}")
        allowed = sum(_silent_for(plan) + _repeats_after(plan) for plan in plans)
        if entry.longest > min(deadline, allowed) + slack:
            found.append(f"waited {entry.longest:.2f} s for one event")
        self.report.slowest = max(self.report.slowest, entry.longest)
        if entry.limit in entry.limits and entry.ended - entry.began < entry.limits[entry.limit] - _CLOCK:
            found.append(f"{entry.limit} was over after {entry.ended - entry.began:.3f} s")
        return found

    def _justified(self, entry: Entry, ending: str, plans: list[faults.Plan]) -> list[str]:
        """No stream fails without a cause, and the error says which it was."""
        assert entry.ended is not None
        if entry.reason is None or entry.reason == "CallbackFailed":
            return []
        kind = plans[-1].kind if plans else ""
        if entry.reason in faults.ENDINGS.get(kind, ()) and entry.limit == faults.LIMIT_OF.get(kind):
            return []
        since = entry.began - 1  # the end of one process takes a moment to become that of the others
        since -= self._lateness(since, entry.ended)
        kills = self._kills[entry.engine]
        if entry.limit in entry.limits:
            # Without a fault only what lasts by itself, and a late machine, use up a limit.
            if entry.limit == "deadline":
                lasts = sum(_silent_for(plan) + _repeats_after(plan) for plan in plans)
                lasts += RESTART * any(since <= k.at <= entry.ended for k in kills)
            else:
                lasts = max(plans[-1].pause, faults.LASTS.get(kind, 0.0)) if plans else 0.0
            if entry.limits[entry.limit] <= lasts + SLACK + self._lateness(entry.began, entry.ended):
                return []
        if entry.reason == "adapter_down" and any(since <= k.at <= entry.ended for k in kills):
            return []
        if entry.reason == "engine_down" and any(
            k.what in ("supervisor", "adapter") and since <= k.at <= entry.ended for k in kills
        ):
            return []
        return [f"{ending} with {entry.reason} (limit {entry.limit}) for no reason"]

    def _released(self, entry: Entry, ending: str, requests: list[Answered]) -> list[str]:
        """What nobody wants any more, and what has failed, is closed soon, as the provider sees it."""
        assert entry.ended is not None
        wanted_until = entry.ended if entry.halted_at is None else min(entry.halted_at, entry.ended)
        found = []
        for request in requests:
            if request.answered_at is not None and (
                self._last_on[request.connection] > request.received_at  # it has served another since
                or request.answered_at
                <= wanted_until + _CLOCK + self._lateness(wanted_until, request.answered_at)
            ):
                continue  # it was over; its connection may stand
            if request.disconnected_at is None:
                if request.answered_at is not None and request.answered_at - wanted_until <= HALT + (
                    self._lateness(wanted_until, request.answered_at)
                ):
                    continue  # its last bytes were on their way: it was over soon, and nothing was cut
                found.append(f"attempt {request.attempt} was never closed")
                continue
            after = request.disconnected_at - wanted_until
            if ending in ("halted", "died", "raised"):
                self.report.halts.append(max(after, 0.0))
            if after > HALT + self._lateness(wanted_until, request.disconnected_at):
                found.append(f"attempt {request.attempt} was closed {after * 1000:.0f} ms after it {ending}")
            if found:
                found.append(_story(entry, request))
        return found

    def _repeated(self, requests: list[Answered], plans: list[faults.Plan]) -> list[str]:
        """No more attempts than the policy has, and none before the provider wants to be asked again."""
        found = []
        if len(requests) > RETRY.max_attempts:
            found.append(f"{len(requests)} attempts")
        for before, plan, after in zip(requests, plans, requests[1:], strict=False):
            if plan.kind != "limited":
                continue
            asked = float(plan.retry_after)
            if asked > RETRY.max_retry_after:
                found.append(f"asked again, though told to wait for {asked:g} s")
                continue
            # The provider notes that it has answered once it has; a late one does so when the client has
            # long been waiting. It cannot have answered before it was asked.
            answered_at = after.received_at if before.answered_at is None else before.answered_at
            early = asked - _CLOCK - (after.received_at - answered_at)
            if early > self._there.during(before.received_at, answered_at):
                found.append(f"asked again {early:.3f} s too early, told to wait for {asked:g} s")
        return found

    def restarts(self, restarts: Iterable[Restart]) -> None:
        """What was killed came back soon."""
        for killed_at, over_at, engine, what in restarts:
            if over_at - killed_at > RESTART + self._lateness(killed_at, over_at):
                self.report.problems.append(
                    f"{what} of {engine} was killed and away for {over_at - killed_at:.2f} s"
                )

    def _lateness(self, began: float, ended: float) -> float:
        """How late a chain of two threads here and one of the provider's may have been.

        Whatever is judged here takes that many: who halts hands on to who cuts, whose end the provider sees.
        On a machine that is not late it is nothing.
        """
        return 2 * self._here.during(began, ended) + self._there.during(began, ended)


def absent(report: Report, kills: Iterable[Kill], gave_up: int) -> list[str]:
    """What a run of some length cannot have been without; it has proven nothing about that."""
    met = {
        "fault": (faults.KINDS, report.kinds),
        "way to read": (WAYS, report.ways),
        "kill of": (DEEDS, [*(kill.what for kill in kills), *["too often"] * bool(gave_up)]),
        "end": (("completed", "halted", "died", "raised: CallbackFailed"), report.endings),
        "end by": (("stream_timeout", "content_timeout", "deadline"), report.limits),
        "halt": (("in the midst of an answer",), ["in the midst of an answer"] * bool(report.halts)),
    }
    return [
        f"the run had no {what}: {name}"
        for what, (expected, seen) in met.items()
        for name in dict.fromkeys(expected)
        if name not in seen
    ]


def _story(entry: Entry, request: Answered) -> str:
    """When what happened, in seconds since the call."""
    times = {
        "received": request.received_at,
        "answered": request.answered_at,
        "halted": entry.halted_at,
        "ended": entry.ended,
        "disconnected": request.disconnected_at,
    }
    return ", ".join(f"{what} {at - entry.began:.3f}" for what, at in times.items() if at is not None)


def _silent_for(plan: faults.Plan) -> float:
    """How long one attempt may leave its consumer without an event."""
    return LIMITS[faults.LIMIT_OF.get(plan.kind, "stream_timeout")]


def _repeats_after(plan: faults.Plan) -> float:
    """The longest wait before another attempt, after one of this plan."""
    computed = RETRY.max_delay + RETRY.jitter
    asked = float(plan.retry_after) + RETRY.jitter if plan.kind == "limited" else 0.0
    return max(computed, asked if asked <= RETRY.max_retry_after + RETRY.jitter else 0.0)


def too_often(births: Iterable[Birth], kills: Iterable[Kill]) -> list[str]:
    """No supervisor restarts more often than its intensity allows.

    When it counted a restart nobody else knows, only that it was after the kill and before the birth. So one
    restart too many is proven where even the first kill and the last birth are not far enough apart.
    """
    found = []
    causes = collections.defaultdict(list)
    for kill in kills:
        if kill.what != "stream":
            causes[kill.engine].append(kill.at)
    lives = collections.defaultdict(list)
    for birth in births:
        lives[birth.engine, birth.supervisor].append(birth.at)
    for (engine, supervisor), times in lives.items():
        again = times[1:]  # the first is no restart
        for first, last in zip(again, again[MAX_RESTARTS:], strict=False):
            before = bisect.bisect_left(causes[engine], first)
            if not before:
                found.append(f"supervisor {supervisor} of {engine} restarted, and nothing was killed")
            elif (within := last - causes[engine][before - 1]) < MAX_SECONDS:
                found.append(
                    f"supervisor {supervisor} of {engine} restarted {MAX_RESTARTS + 1} times in {within:.3f} s"
                )
    return found


def growth(memory: Sequence[tuple[int, int]], streams: int) -> int:
    """How many bytes the resident memory grew over the second half of the run.

    The lower quartile of the samples of its first fifth is compared with that of its last: what is in flight
    at one moment is no leak.
    """
    half = streams / 2
    first = sorted(size for done, size in memory if half <= done < half * 1.2)
    last = sorted(size for done, size in memory if done >= half * 1.8)
    if not first or not last:
        return 0
    return last[len(last) // 4] - first[len(first) // 4]
