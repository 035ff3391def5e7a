"""What a program holds: threads, descriptors, sockets, processes, names, live objects.

Objects are counted, not bytes: that tells a leak of one object in the shortest of runs, where the size of a
program tells nothing.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from pathlib import Path

from allm_actors import beam

_DESCRIPTORS = Path("/proc/self/fd")
_OURS = (
    "allm_actors.",
    "urllib3.",
    "requests.",
    "http.client",
    "threading",
    "_thread",
    "socket",
    "_queue",
    "asyncio.",
)


class Baseline:
    """What was held when this was made."""

    def __init__(self) -> None:
        self._held = _held()

    def surplus(self, timeout: float) -> list[str]:
        """What is held on top of that, once it has not gone in `timeout` seconds; empty if all has."""
        limit = time.monotonic() + timeout
        while True:
            gc.collect()
            held = _held()
            more = {kind: held[kind] - before for kind, before in self._held.items()}
            del held
            if not any(more.values()) or time.monotonic() > limit:
                return [f"{kind}: {dict(surplus)}" for kind, surplus in more.items() if surplus]
            time.sleep(0.01)


def _held() -> dict[str, Counter[str]]:
    return {
        "threads": Counter(thread.name for thread in threading.enumerate()),
        "descriptors": Counter(_descriptors()),
        "processes": Counter(str(pid) for pid in beam.processes()),
        "zombies": Counter(str(each["pid"]) for each in beam.info()["zombies"]),
        "names": Counter(repr(name) for name in beam.registered()),
        "objects": Counter(kind for kind in map(_kind, gc.get_objects()) if kind.startswith(_OURS)),
    }


def _kind(each: object) -> str:
    kind = type(each)
    return f"{kind.__module__}.{kind.__qualname__}"


def _descriptors() -> list[str]:
    """Their kinds; empty where they cannot be listed."""
    found = []
    for each in _DESCRIPTORS.iterdir() if _DESCRIPTORS.exists() else ():
        try:
            found.append(str(each.readlink()).partition(":")[0])
        except OSError:
            continue  # the one that lists them
    return found
