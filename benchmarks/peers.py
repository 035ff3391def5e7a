"""This library beside what users would pick instead: cost, latency, stopping, and ends that are no ends.

    python -m benchmarks.peers [--quick] [--json FILE]

One run, one server on loopback in a process of its own, one process for each client, asked in turns. Times
are the least of the rounds, so that what else runs on the machine counts as little as may be; ratios are of
times from the same run. `make peers` prepares the environment and runs this.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks import _weight
from benchmarks._clients import CLIENTS, PEERS
from benchmarks._server import Server
from benchmarks._worker import Worker
from benchmarks.scale import best, one

FLOOR, OURS = "plain requests", "allm-actors"
EVERYONE = tuple(name for name in CLIENTS if "messages" not in name)
ENDS = ("drop", "reset", "truncated", "clean", "short", "eof")
BEGAN = time.monotonic()
LIMIT = 2.0
DEADLINE = 1.0
SLOW = 10.0
"""Seconds for a task that takes some milliseconds; after them it is lost, and its process replaced."""
STOPS, PEERS_STOPS = 100, 20
"""How many stops of each kind are asked of this library and of plain requests, and how many of the others."""
MISSES = 5
"""After so many stops in a row that the server never saw, a client is not asked any more."""


class Run:
    """One run: the server, a worker for each client, and how often everything is done."""

    def __init__(self, server, workers, scale):
        self.server, self.workers, self.scale = server, workers, scale
        self.rounds = 2 if scale >= 1 else 1

    def times(self, usual):
        """How often to do what is usually done so often."""
        return max(3, int(usual * self.scale))

    def all_do(self, task, *names, **arguments):
        """What all clients, or those named, made of one task, one after the other."""
        return {name: self.workers[name].do(task, **arguments) for name in names or self.workers}

    def all_at_once(self, task, *names, **arguments):
        """The same with all of them at it at the same time: where they mostly wait."""
        for name in names:
            self.workers[name].begin(task, **arguments)
        found = {}
        for name in names:
            found[name] = None
            with contextlib.suppress(TimeoutError):
                found[name] = self.workers[name].result()
        return found

    def chunk_cost(self, chunks, *names):
        """CPU seconds a chunk of a stream of so many chunks, the least of the rounds."""
        base = self.server.url(chunks=chunks)
        rounds = [self.all_do("chunk_cost", *names, base=base, chunks=chunks) for _ in range(self.rounds)]
        return {name: min(each[name] for each in rounds) for name in rounds[0]}

    def first_event(self):
        """Median seconds from the call to the first text, connected, the least of the rounds.

        Of an answer that goes on after it, as answers do: one that arrives whole in one packet is decoded as
        a whole, and its first text is no sooner there than its last.
        """
        base, count = self.server.url(chunks=2, gap=0.005), self.times(50)
        rounds = [self.all_do("first_event", base=base, rounds=count) for _ in range(self.rounds)]
        return {name: min(statistics.median(each[name]) for each in rounds) for name in rounds[0]}

    def stops(self, task, within=1.0, **play):
        """How a client's stops arrive at the server: seconds each, and how many never did.

        A stop that does not return counts as one that never arrived, whatever the server saw.
        """
        found = {}
        for name in EVERYONE:
            worker = self.workers[name]
            base = self.server.url(mark=f"{task}-{name.replace(' ', '')}", **play)
            mark = base.split("mark=")[1].split(",")[0]
            took, missed, row = [], 0, 0
            for _ in range(self.times(STOPS if name in (OURS, FLOOR) else PEERS_STOPS)):
                self.server.forget()  # one that came late is not the next one's
                try:
                    began = worker.do(task, within=SLOW, base=base)
                    seen = self.server.closes(mark, within=within)
                except TimeoutError:
                    began, seen = None, []
                    worker.do("warm", base=self.server.url(chunks=3))
                if seen:
                    took.append(max(0.0, seen[0] - began))
                missed, row = (missed, 0) if seen else (missed + 1, row + 1)
                if row == MISSES:
                    break
            found[name] = {"took": sorted(took), "missed": missed, "of": len(took) + missed}
        return found


def measure(run):
    """Everything of a run, by measurement and client."""
    url = run.server.url
    run.all_do("warm", base=url(chunks=3))
    found = {"chunk": run.chunk_cost(run.times(3000))}
    say("chunk", found)
    found["short"] = run.chunk_cost(run.times(1000), OURS, FLOOR)
    found["long"] = run.chunk_cost(run.times(60_000), OURS, FLOOR)
    found["first"] = run.first_event()
    say("first", found)
    found["silent_stop"] = run.stops("stop_elsewhere", end="silent")
    for what, task in (("stop", "stop_after"), ("walk_away", "walk_away"), ("drop", "drop")):
        found[what] = run.stops(task, gap=0.005, chunks=1000)
        say(what, found)
    say("silent_stop", found)
    found["ends"] = {end: run.all_do("outcome", *EVERYONE, base=url(chunks=5, end=end)) for end in ENDS}
    within = 2 * LIMIT
    found["timeouts"] = {
        "silent": run.all_at_once(
            "time_out", *EVERYONE, base=url(chunks=2, end="silent"), within=within, timeout=LIMIT
        ),
        "comments": run.all_at_once(
            "time_out",
            *EVERYONE,
            base=url(chunks=2, end="comments"),
            within=within,
            timeout=LIMIT,
            content_timeout=LIMIT,
        ),
        "silent, asyncio": run.all_at_once(
            "time_out",
            OURS,
            "openai",
            base=url(chunks=2, end="silent"),
            within=within,
            timeout=LIMIT,
            asynchronous=True,
        ),
        "comments, asyncio": run.all_at_once(
            "time_out",
            OURS,
            "openai",
            base=url(chunks=2, end="comments"),
            within=within,
            timeout=LIMIT,
            content_timeout=LIMIT,
            asynchronous=True,
        ),
    }
    retrying = [name for name in EVERYONE if name != FLOOR]
    found["deadline"] = run.all_at_once(
        "time_out", *retrying, base=url(status=503), within=5 * DEADLINE, deadline=DEADLINE
    )
    say("timeouts", found)
    found["asleep"] = run.all_at_once("asleep", *EVERYONE, base=url(chunks=47_000, size=1000), seconds=3.0)
    return found


def weights(rounds):
    """What the clients cost before they do anything."""
    names = (OURS, *PEERS)
    imports = {name: _weight.importing([CLIENTS[name].module]) for name in names}
    imports["core"] = _weight.importing(_weight.CORE)
    taken = {(kind, name): [] for kind in ("import", "use") for name in (*names, "core")}
    for _ in range(rounds):
        for name, statements in imports.items():
            taken["import", name].append(_weight.seconds_of(statements))
            if name != "core":
                taken["use", name].append(_weight.seconds_of(_weight.USE[name]))
    found = {kind: {name: min(taken[kind, name]) for name in names} for kind in ("import", "use")}
    found["import"]["core"] = min(taken["import", "core"])
    return found | {"weight": {name: _weight.weigh(CLIENTS[name].package) for name in names}}


def loads(scale):
    """Two loads beside plain requests, in rounds of turns."""
    few, many = (200, 1000) if scale >= 1 else (20, 50)
    ways = {
        FLOOR: (FLOOR, {}),
        "allm-actors, threads": (OURS, {}),
        "allm-actors, asyncio": (OURS, {"way": "asyncio"}),
        "allm-actors, one mailbox": (OURS, {"way": "mailbox"}),
    }
    found = {}
    for title, streams, gap, rounds in (("paced", few, 0.1, 2), ("offered", many, 0.02, 1)):
        taken = {label: [] for label in ways}
        for _ in range(rounds):
            for label, (name, how) in ways.items():
                with Server() as server:
                    taken[label].append(one(server, name, streams, gap=gap, chunks=50, **how))
        found[title] = {label: best(each) for label, each in taken.items()}
        say(title, found)
    return found


def say(what, found):
    """Show that something has been measured."""
    print(
        f"{time.monotonic() - BEGAN:4.0f} s",
        what,
        json.dumps(found.get(what), default=str)[:2000],
        flush=True,
    )


def main():
    """Measure, and write the numbers down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a rough look")
    parser.add_argument("--json", type=Path, help="write the numbers into this file")
    options = parser.parse_args()
    scale = 0.05 if options.quick else 1.0
    with Server() as server, contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name)) for name in CLIENTS}
        found = measure(Run(server, workers, scale))
    found |= weights(1 if options.quick else 2)
    found |= {"loads": loads(scale)}
    found["where"] = {
        "cores": os.cpu_count(),
        "day": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {name: version(CLIENTS[name].package) for name in (OURS, *PEERS, FLOOR)},
    }
    if options.json:
        options.json.parent.mkdir(exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
