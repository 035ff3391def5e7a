"""Many streams at once in one process, beside the same load with `openai` and plain `requests`.

    python -m benchmarks.scale [--quick] [--json FILE]

Each stream has 50 chunks, 20 ms apart, played by a server in a process of its own that begins once all of
them are there. Every load runs in a fresh process, the clients in turns; CPU is that of the client's process.
`make peers` prepares the environment and runs this.
"""

import argparse
import json
from pathlib import Path

from benchmarks._server import Server
from benchmarks._worker import Worker

CHUNKS = 50
GAP = 0.02
WITHIN = 40.0
SIZES = {200: 2, 1000: 1, 5000: 1}
"""How many rounds for so many streams."""
RUNS = {
    "plain requests, threads": ("plain requests", {}),
    "allm-actors, threads": ("allm-actors", {}),
    "allm-actors, asyncio": ("allm-actors", {"way": "asyncio"}),
    "allm-actors, one mailbox": ("allm-actors", {"way": "mailbox"}),
    "openai, threads": ("openai", {}),
    "openai, asyncio": ("openai", {"way": "asyncio"}),
    "plain requests, threads, switch interval 50 ms": ("plain requests", {"switch_interval": 0.05}),
    "allm-actors, threads, switch interval 50 ms": ("allm-actors", {"switch_interval": 0.05}),
}


def one(server, name, streams, *, gap=GAP, chunks=CHUNKS, **how):
    """One load in a fresh process; `None` if it was not done in time."""
    base = server.url(pace=gap, chunks=chunks, together=streams)
    with Worker(name) as worker:
        worker.begin(
            "load", base=base, warm=server.url(pace=gap, chunks=1), streams=streams, chunks=chunks, **how
        )
        try:
            return worker.result(WITHIN)
        except TimeoutError:
            return None


def best(rounds):
    """Of several rounds: the least of each time, all failures, the most memory."""
    done = [found for found in rounds if found is not None]
    if not done:
        return None
    found = dict(done[0])
    for key in ("cpu", "wall", "p50", "p99"):
        found[key] = min((each[key] for each in done if each[key] is not None), default=None)
    found["failures"] = sum(each["failures"] for each in done)
    found["memory"] = max(each["memory"] for each in done)
    releases = [each["release"] for each in done]
    found["release"] = None if None in releases else max(releases)
    return found


def measure(sizes):
    """All loads: by number of streams, by run."""
    found = {}
    for streams, rounds in sizes.items():
        taken = {label: [] for label in RUNS}
        for _ in range(rounds):
            for label, (name, how) in RUNS.items():
                if None in taken[label]:
                    continue
                with Server() as server:  # a load that was given up must not be in the way of the next
                    taken[label].append(one(server, name, streams, **how))
        found[streams] = {label: best(each) for label, each in taken.items()}
        show(streams, found[streams])
    return found


def show(streams, runs):
    """Print what came of one size."""
    print(f"{streams} streams, {streams / GAP:,.0f} events/s offered")
    for label, run in runs.items():
        if run is None:
            print(f"  {label:48} not done in {WITHIN:.0f} s", flush=True)
            continue
        release = "stays" if run["release"] is None else f"{run['release'] * 1e3:.1f} ms"
        print(
            f"  {label:48} {run['cpu']:7.2f} s CPU {run['wall']:6.1f} s  {run['memory'] / 1024:6.1f} KB each"
            f"  late {run['p50'] * 1e3:8.2f} / {run['p99'] * 1e3:8.2f} ms  release {release}"
            f"  failures {run['failures']} {run['error'] or ''}",
            flush=True,
        )


def main():
    """Measure and print; and write down, if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small loads, once")
    parser.add_argument("--json", type=Path, help="also write the numbers into this file")
    options = parser.parse_args()
    found = measure({20: 1, 100: 1} if options.quick else SIZES)
    if options.json:
        options.json.parent.mkdir(exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
