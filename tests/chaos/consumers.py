"""The ways in which streams are read, and stop being read.

Each takes a `Service` and the entry of one stream (`mailbox` and `awaits`: of several), reads, and returns
when the stream has ended. None of them knows what the provider does.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import time
from typing import TYPE_CHECKING, Any

import allm_actors as allm
from allm_actors import beam
from allm_actors.errors import AllmError

from .faults import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .ledger import Entry
    from .service import Service

WAYS = {
    "reads": 38,  # to its end
    "halted": 20,  # closed by another thread
    "leaves": 8,  # leaves the `with` block early
    "drops": 8,  # just forgets the stream
    "raises": 6,  # its callback raises
    "dies": 4,  # the thread ends in the midst of it
    "killed": 6,  # the consumer is a process, and is killed
    "mailbox": 6,  # several at once, each halted or not by another thread
    "awaits": 4,  # several at once, in an event loop, some cancelled
}
"""How often each is drawn, relative to the others."""
AT_ONCE = {"mailbox": 4, "awaits": 4}
"""How many streams one consumer reads, if it is not one."""

_PATIENCE = 3 * LIMITS["deadline"]


class CallbackFailed(Exception):
    """What a callback raises here."""


class ConsumerDied(BaseException):
    """What ends a thread here; nothing catches it."""


def draw(seed: str, number: int) -> tuple[str, random.Random]:
    """The way in which a stream is read, and the chance that is used up in doing it."""
    rng = random.Random(f"{seed}/way/{number}")
    return rng.choices(list(WAYS), list(WAYS.values()))[0], rng


def _soon(rng: random.Random) -> float:
    """Seconds after which something happens to a stream; most often while it lives."""
    return min(rng.expovariate(1 / 0.1), 1.5)


def _open(entry: Entry, **options: Any) -> Any:
    """Call. A call that is refused is the end of its stream."""
    try:
        return allm.stream_generate(entry.engine, f"stream {entry.number}", **entry.limits, **options)
    except AllmError as error:
        entry.end("raised", error)
        return None
    finally:
        entry.opened = time.monotonic()


def _note_busy(entries: list[Entry]) -> None:
    """Who reads several calls for all of them first, and a call waits for a restart of its engine."""
    last = max(entry.opened for entry in entries)
    for entry in entries:
        entry.busy = last - entry.opened


def _read(entry: Entry, stream: Any) -> Iterator[Any]:
    """The events of a stream, each written down before it is given on; until it is exhausted."""
    while True:
        asked = time.monotonic()
        try:
            event = next(stream)
        except StopIteration:
            entry.waited(asked)
            return
        entry.waited(asked)
        entry.saw(event)
        yield event


def reads(_service: Service, entry: Entry, _rng: random.Random) -> None:
    if (stream := _open(entry)) is None:
        return
    with stream:
        for _ in _read(entry, stream):
            pass


def halted(service: Service, entry: Entry, rng: random.Random) -> None:
    if (stream := _open(entry)) is None:
        return

    def halt() -> None:
        entry.wanted_no_more()
        stream.close()

    service.later(_soon(rng), halt)
    for _ in _read(entry, stream):
        pass


def leaves(_service: Service, entry: Entry, rng: random.Random) -> None:
    if (stream := _open(entry)) is None:
        return
    enough = rng.randint(1, 20)
    with stream:
        for count, _ in enumerate(_read(entry, stream), 1):
            if count == enough:
                entry.wanted_no_more()
                break


def drops(_service: Service, entry: Entry, rng: random.Random) -> None:
    if (stream := _open(entry)) is None:
        return
    enough = rng.randint(1, 20)
    for count, _ in enumerate(_read(entry, stream), 1):
        if count == enough:
            entry.wanted_no_more()
            return


def raises(_service: Service, entry: Entry, rng: random.Random) -> None:
    enough = rng.randint(1, 20)

    def on_event(_event: Any) -> None:
        nonlocal enough
        enough -= 1
        if enough == 0:
            entry.wanted_no_more()
            raise CallbackFailed

    if (stream := _open(entry, on_event=on_event)) is None:
        return
    try:
        for _ in _read(entry, stream):
            pass
    except CallbackFailed as error:
        entry.end("raised", error)


def dies(_service: Service, entry: Entry, rng: random.Random) -> None:
    if (stream := _open(entry)) is None:
        return
    enough = rng.randint(1, 20)
    for count, _ in enumerate(_read(entry, stream), 1):
        if count == enough and not entry.endings:
            entry.wanted_no_more()
            entry.end("died")
            raise ConsumerDied


class _Reader(beam.Process):
    """A consumer that is a process."""

    def init(self, entry: Entry) -> None:
        self.entry = entry
        self.continue_with(None)

    def handle_continue(self, token: Any) -> beam.Stop:
        if (stream := _open(self.entry)) is not None:
            for _ in _read(self.entry, stream):
                pass
        return beam.Stop("normal")


def killed(service: Service, entry: Entry, rng: random.Random) -> None:
    reader = _Reader.start(entry)
    assert reader is not None
    ends = beam.Inbox()
    beam.monitor(reader, to=ends)

    def kill() -> None:
        entry.wanted_no_more()
        beam.exit(reader, "kill")

    service.later(_soon(rng), kill)
    try:
        down = ends.receive(timeout=_PATIENCE)
    except queue.Empty:
        entry.problems.append("its consumer neither ended nor could be killed")
        return
    thread = reader._cell.thread
    assert thread is not None
    thread.join(_PATIENCE)  # dead for all others it may still write down what it has read
    reason = reader.exit_reason if down.reason == "noproc" else down.reason
    if reason not in ("normal", "killed"):
        entry.problems.append(f"its consumer ended with {reason!r}")
    elif thread.is_alive():
        entry.problems.append("the thread of its consumer lives on")
    elif reason == "killed" and not entry.endings:
        entry.end("died")


def mailbox(service: Service, entries: list[Entry], rng: random.Random) -> None:
    by_id: dict[str, Entry] = {}
    since: dict[str, float] = {}
    with allm.Mailbox() as box:
        for entry in entries:
            try:
                handle = allm.open_stream(entry.engine, f"stream {entry.number}", into=box, **entry.limits)
            except AllmError as error:
                entry.end("raised", error)
                continue
            finally:
                entry.opened = time.monotonic()
            by_id[handle.request_id] = entry
            since[handle.request_id] = time.monotonic()
            if rng.random() < 0.4:
                service.later(_soon(rng), _halting(entry, handle))
        _note_busy(entries)
        closes_after = rng.randint(5, 100) if rng.random() < 0.3 else None
        for count, envelope in enumerate(box, 1):
            key = envelope.stream.request_id
            by_id[key].waited(since[key])
            since[key] = time.monotonic()
            by_id[key].saw(envelope.event)
            if count == closes_after:
                break
        for entry in by_id.values():
            if not entry.endings:
                if closes_after is not None:
                    entry.wanted_no_more()
                else:
                    entry.out()


def _halting(entry: Entry, handle: Any) -> Any:
    def halt() -> None:
        entry.wanted_no_more()
        handle.halt()

    return halt


def awaits(_service: Service, entries: list[Entry], rng: random.Random) -> None:
    patience = [_soon(rng) if rng.random() < 0.5 else None for _ in entries]

    async def all_of_them() -> None:
        await asyncio.gather(*(_await(entry, limit) for entry, limit in zip(entries, patience, strict=True)))

    try:
        asyncio.run(all_of_them())
    finally:
        _note_busy(entries)


async def _await(entry: Entry, limit: float | None) -> None:
    if (stream := _open(entry)) is None:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit), stream:
            asked = time.monotonic()
            try:
                async for event in stream:
                    entry.waited(asked)
                    entry.saw(event)
                    asked = time.monotonic()
                entry.waited(asked)
            except asyncio.CancelledError:
                entry.wanted_no_more()
                raise
    entry.out()  # the others of this loop may take longer


CONSUMERS = {name: globals()[name] for name in WAYS}
