"""Many streams at once in one process: what they cost, how late their events are, what they leave."""

import asyncio
import contextlib
import gc
import statistics
import sys
import threading
import time
from pathlib import Path

from benchmarks._pacer import sent_at
from benchmarks._tasks import resident

RELEASE_WITHIN = 60.0


def descriptors():
    """How many files and sockets are open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Peak:
    """The most memory and threads that were seen, looked at now and then by a thread."""

    def __enter__(self):
        self.bytes, self.threads = resident(), 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self):
        while not self._over.wait(0.05):
            self.bytes = max(self.bytes, resident())
            self.threads = max(self.threads, threading.active_count())

    def __exit__(self, *exc_info):
        self._over.set()
        self._thread.join()


def note(text, late):
    """Write down how late a chunk is."""
    late.append(time.monotonic() - sent_at(text))


def on_threads(client, base, streams, late):
    """Read each stream in a thread of its own; the errors."""
    errors = []

    def run(mine):
        try:
            for text in client.open(base).texts:
                note(text, mine)
        except Exception as error:  # noqa: BLE001  a failure of the load
            errors.append(f"{type(error).__name__}: {error}"[:200])

    threads = [threading.Thread(target=run, args=(mine,)) for mine in late]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def in_asyncio(client, base, streams, late):
    """Read all streams in one event loop; the errors."""
    errors = []

    async def run(mine):
        try:
            async for text in client.aopen(base):
                note(text, mine)
        except Exception as error:  # noqa: BLE001  a failure of the load
            errors.append(f"{type(error).__name__}: {error}"[:200])

    async def run_all():
        await asyncio.gather(*(run(mine) for mine in late))

    asyncio.run(run_all())
    return errors


def by_mailbox(client, base, streams, late):
    """Read all streams in one thread, by a mailbox; the errors."""
    try:
        for number, text in client.into_mailbox(base, streams):
            note(text, late[number])
    except Exception as error:  # noqa: BLE001  a failure of the load
        return [f"{type(error).__name__}: {error}"[:200]]
    return []


WAYS = {"threads": on_threads, "asyncio": in_asyncio, "mailbox": by_mailbox}


def load(client, base, *, warm, streams, chunks, way="threads", switch_interval=0.005):  # noqa: PLR0913
    """Read so many streams at once, and say what came of it.

    Args:
        client: The client.
        base: The address of the load.
        warm: The address of one short stream.
        streams: How many.
        chunks: How many texts each of them has.
        way: How they are read, one of `WAYS`.
        switch_interval: The interpreter's.

    Returns:
        `failures`; `cpu` in seconds and `wall`, from the first call to the last event; `p50` and `p99` of the
        lateness, in seconds from the server's send to the consumer; `memory` in bytes for each stream at the
        peak; `threads` at the peak; `release` in seconds from the last event until all threads and
        descriptors of the load are gone, `None` if they stay.
    """
    sys.setswitchinterval(switch_interval)
    go = WAYS[way]
    go(client, warm, 1, [[]])
    if hasattr(client, "prepare"):
        client.prepare(base)
        time.sleep(0.1)
    gc.collect()
    threads, files, memory = threading.active_count(), descriptors(), resident()
    late = [[] for _ in range(streams)]
    with Peak() as peak:
        began, cpu = time.monotonic(), time.process_time()
        errors = go(client, base, streams, late)
        over, cpu = time.monotonic(), time.process_time() - cpu
    release = released(client, over, threads, files)
    all_late = sorted(seconds for mine in late for seconds in mine)
    incomplete = sum(len(mine) != chunks for mine in late)
    return {
        "failures": max(incomplete, len(errors)),
        "error": errors[0] if errors else None,
        "cpu": cpu,
        "wall": over - began,
        "events": len(all_late),
        "p50": statistics.median(all_late) if all_late else None,
        "p99": all_late[int(len(all_late) * 0.99)] if all_late else None,
        "memory": (peak.bytes - memory) / streams,
        "threads": peak.threads,
        "release": release,
    }


def released(client, since, threads, files):
    """Seconds from `since` until nothing of a load is left."""
    while time.monotonic() < since + RELEASE_WITHIN:
        with contextlib.suppress(OSError):
            if threading.active_count() <= threads and descriptors() <= files:
                return time.monotonic() - since
        time.sleep(0.002)
    return None
