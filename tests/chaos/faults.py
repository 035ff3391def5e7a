"""What goes wrong, how often, and what may come of it; the same in every process that knows the seed.

A stream has a number. Each of its attempts is answered by a plan that is drawn from the seed, the number and
the ordinal of the attempt, so both sides of the wire know it without having to speak about it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

from allm_actors.engine import Retry
from allm_actors.testing import Reply

Framing = Literal["chunked", "length", "close"]

# --- what a stream may take ---------------------------------------------------------------------------

LIMITS = {"connect_timeout": 2.0, "stream_timeout": 0.8, "content_timeout": 1.2, "deadline": 5.0}
"""The times of every call, in seconds."""
HURRY = 0.3
"""Seconds that some calls may take altogether, so that the deadline is what ends them."""
RETRY = Retry(max_attempts=3, base_delay=0.05, max_delay=0.2, jitter=0.05, max_retry_after=1.0)

# --- what happens to it -------------------------------------------------------------------------------

KINDS = {
    "fine": 38,  # an answer
    "slow": 8,  # an answer, with a pause before each piece
    "huge": 2,  # an answer of megabytes
    "late": 4,  # an answer that takes its time to begin
    "stall": 6,  # silence, somewhere
    "quiet": 4,  # keep-alives and nothing else, from somewhere on
    "drop": 7,  # the connection is reset
    "truncate": 7,  # the connection is closed within a chunk
    "end": 6,  # the body ends early, as if all was well
    "malformed": 6,  # a frame that is not JSON
    "limited": 6,  # 429 with Retry-After
    "broken": 6,  # 5xx
}
"""How often each is drawn, relative to the others."""

ENDINGS: dict[str, set[str]] = {
    "fine": set(),
    "slow": set(),
    "huge": set(),
    "late": set(),
    "stall": {"timeout"},
    "quiet": {"timeout"},
    "drop": {"network_error"},
    "truncate": {"network_error"},
    "end": {"network_error"},
    "malformed": {"malformed_response", "malformed_event"},
    "limited": {"rate_limited"},
    "broken": {"provider_unavailable"},
}
"""The reasons of the error that a last attempt of this kind may end in."""

LIMIT_OF = {"stall": "stream_timeout", "quiet": "content_timeout"}
"""The limit that ends a last attempt of this kind."""
_HEARTBEAT = 0.1
LASTS = {"stall": 0.5, "quiet": _HEARTBEAT}
"""Seconds of what uses up other limits in an attempt of this kind."""

_RETRY_AFTER = ("0", "0.1", "0.4", "1", "30")
_PADDING = "x" * 40_000


@dataclass(frozen=True)
class Plan:
    """What the provider does about one attempt."""

    number: int
    attempt: int
    """From 1."""
    kind: str
    words: int
    after: int
    """After how many frames the fault comes."""
    pause: float
    """Seconds: between pieces, or before the answer."""
    status: int
    retry_after: str
    framing: Framing

    def word(self, index: int) -> str:
        """One piece of the text; no other attempt of any stream has the same."""
        mark = f"<{self.number}.{self.attempt}.{index}>"
        return mark + _PADDING if self.kind == "huge" else mark


def plan(seed: str, number: int, attempt: int) -> Plan:
    """Draw what becomes of an attempt."""
    rng = random.Random(f"{seed}/fault/{number}/{attempt}")
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    words = rng.randint(10, 60) if kind == "huge" else rng.randint(1, 40)
    pause = {"slow": rng.uniform(0.001, 0.02), "late": rng.uniform(0.05, 0.4)}.get(kind, 0.0)
    framings: tuple[Framing, ...] = ("chunked", "chunked", "length", "close")
    before_headers = kind in ("stall", "drop") and rng.random() < 0.2
    return Plan(
        number=number,
        attempt=attempt,
        kind=kind,
        words=words,
        after=-1 if before_headers else rng.randint(0, words + 4),
        pause=pause,
        status=rng.choice((500, 502, 503, 529)),
        retry_after=rng.choice(_RETRY_AFTER),
        framing=rng.choice(framings),
    )


def reply(drawn: Plan) -> Reply:
    """The same, as the loopback provider is told it."""
    text = [drawn.word(index) for index in range(drawn.words)]
    match drawn.kind:
        case "limited":
            return Reply("slow down", status=429, headers={"retry-after": drawn.retry_after})
        case "broken":
            return Reply("out of order", status=drawn.status)
        case "slow" | "late" | "fine" | "huge":
            pauses = {"slow": "chunk_delay", "late": "delay"}
            pause: dict[str, Any] = {pauses[drawn.kind]: drawn.pause} if drawn.kind in pauses else {}
            return Reply(chunks=text, framing=drawn.framing, **pause)
        case "quiet":
            return Reply(chunks=text, fault="stall", after=max(0, drawn.after), heartbeat=_HEARTBEAT)
        case _:
            fault: Any = drawn.kind
            return Reply(chunks=text, fault=fault, after=drawn.after, framing=_told(drawn))


def _told(drawn: Plan) -> Framing:
    """How the client learns where the body ends, such that it can see the fault.

    A body that just stops is only known to be cut where its length was told; and one that is there, in the
    length that was told, is over for the client, even if the server falls silent after it.
    """
    return "chunked" if drawn.framing == "close" or drawn.kind == "stall" else drawn.framing
