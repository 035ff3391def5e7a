"""What is measured of one client: each task runs in the process of that client, and returns plain numbers."""

import asyncio
import contextlib
import gc
import queue
import threading
import time
from pathlib import Path

PAGE = 4096


def resident():
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def read(client, base, **options):
    """How many texts come."""
    return sum(1 for _ in client.open(base, **options).texts)


def warm(client, base):
    """Import, connect, and have every cache filled."""
    for _ in range(3):
        read(client, base)


def chunk_cost(client, base, chunks):
    """CPU seconds for each of so many chunks, all threads of the process together."""
    gc.collect()
    began = time.process_time()
    count = read(client, base)
    took = time.process_time() - began
    assert count == chunks, f"{count} texts of {chunks}"
    return took / chunks


def first_event(client, base, rounds):
    """Seconds from the call to its first text, each time."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        texts = iter(client.open(base).texts)
        next(texts)
        times.append(time.perf_counter() - began)
        for _ in texts:
            pass
    return times


def reading(client, base, count):
    """A stream that a thread reads, which has read `count` texts and goes on; and how it is stopped."""
    ready = queue.SimpleQueue()

    def run():
        with contextlib.suppress(Exception):  # however it ends, it was stopped
            opened = client.open(base)
            for n, _ in enumerate(opened.texts, 1):
                if n == count:
                    ready.put(opened.stop)

    threading.Thread(target=run, daemon=True).start()
    return ready.get(timeout=30)


def stop_elsewhere(client, base, count=5):
    """Stop a stream from another thread than the one that waits in it; when that was."""
    stop = reading(client, base, count)
    time.sleep(0.01)  # the reader waits by now

    def run():
        with contextlib.suppress(Exception):
            stop()

    began = time.monotonic()
    threading.Thread(target=run, daemon=True).start()  # it may never return
    return began


def stop_after(client, base, count=5):
    """Stop a stream that goes on, in the thread that reads it, after so many texts; when that was."""
    opened = client.open(base)
    texts = iter(opened.texts)
    for _ in range(count):
        next(texts)
    began = time.monotonic()
    with contextlib.suppress(Exception):
        opened.stop()
    return began


def walk_away(client, base, count=5):
    """Leave the loop over a stream, and with it the only reference; when that was."""
    for n, _ in enumerate(client.open(base).texts, 1):
        if n == count:
            break
    return time.monotonic()


def drop(client, base, count=5):
    """Lose the last reference to a stream between two reads; when that was."""
    opened = client.open(base)
    texts = iter(opened.texts)
    for _ in range(count):
        next(texts)
    began = time.monotonic()
    del opened, texts
    return began


def outcome(client, base):
    """What a user makes of a stream: the name of the error it ends with, or `complete`."""
    try:
        read(client, base)
    except Exception as error:  # noqa: BLE001  whatever it is
        return type(error).__name__
    return "complete"


def time_out(client, base, *, within, asynchronous=False, **options):
    """Seconds until a stream fails; `None` if it has not after `within` seconds."""
    over = queue.SimpleQueue()

    async def aread():
        async for _ in client.aopen(base, **options):
            pass

    def run():
        began = time.monotonic()
        try:
            asyncio.run(aread()) if asynchronous else read(client, base, **options)
        except Exception:  # noqa: BLE001  whatever it is
            over.put(time.monotonic() - began)

    threading.Thread(target=run, daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return over.get(timeout=within)
    return None


def asleep(client, base, seconds):
    """Bytes by which the process grows while the reader of a big stream sleeps."""
    gc.collect()
    opened = client.open(base)
    texts = iter(opened.texts)
    for _ in range(10):
        next(texts)
    before = resident()
    time.sleep(seconds)
    grown = resident() - before
    with contextlib.suppress(Exception):
        opened.stop()
    return grown
