"""Writes what `peers` and `scale` measured as the tables and the plot of `docs/performance.md`.

python -m benchmarks.performance build/peers.json build/scale.json docs/generated README.md

The last one gets a short table between its marks.
"""

import json
import math
import statistics
import sys
from pathlib import Path

from benchmarks._plot import bars

FLOOR, OURS = "plain requests", "allm-actors"
BEST, GOOD, MISSED = "stretch", "must", "**missed**"
MS = 1e3
STARTS, ENDS = "<!-- measured -->", "<!-- end of measured -->"


def verdict(values, must, stretch=None):
    """Which of the limits all values keep."""
    for limits, name in ((stretch, BEST), (must, GOOD)):
        if limits is not None and all(
            value is not None and value <= limit for value, limit in zip(values, limits, strict=True)
        ):
            return name
    return MISSED


def table(head, rows):
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"


def per_chunk(peers):
    chunk = peers["chunk"]
    mine = chunk[OURS] / chunk[FLOOR]
    share = chunk[OURS] / chunk["openai"]
    yield (
        "CPU per chunk, socket to event to consumer",
        "2.5 x plain requests; 1/5 of `openai`",
        "2 x",
        f"{mine:.2f} x; 1/{1 / share:.1f}",
        verdict((mine, share), (2.5, 0.2), (2.0, 0.2)),
    )
    ratio = peers["long"][OURS] / peers["short"][OURS]
    yield (
        "cost per chunk, 60,000 chunks against 1,000",
        "1.2 x",
        "1.05 x",
        f"{ratio:.2f} x",
        verdict((ratio,), (1.2,), (1.05,)),
    )
    first = peers["first"]
    ratio = first[OURS] / first[FLOOR]
    yield (
        "first event on a warm connection, against plain requests",
        "2 x",
        "1.3 x",
        f"{ratio:.2f} x ({first[OURS] * MS:.2f} ms)",
        verdict((ratio,), (2.0,), (1.3,)),
    )


def loads(peers):
    paced, offered = peers["loads"]["paced"], peers["loads"]["offered"]
    for label in ("threads", "asyncio", "one mailbox"):
        run, floor = paced[f"{OURS}, {label}"], paced[FLOOR]
        if run is None or floor is None:
            values, measured = (None,) * 4, "not done in time"
        else:
            ratio = run["cpu"] / floor["cpu"]
            values = (run["failures"], run["p50"] * MS, run["p99"] * MS, ratio)
            measured = f"{run['failures']}; {values[1]:.2f} / {values[2]:.2f} ms; {ratio:.2f} x"
        yield (
            f"200 streams, 2,000 events/s, {label}: failures; lateness p50 / p99; CPU against plain requests",
            "0; 1.5 / 8 ms; 2.1 x",
            "1 / 4 ms; 1.6 x",
            measured,
            verdict(values, (0, 1.5, 8, 2.1), (0, 1, 4, 1.6)),
        )
    for label in ("threads", "asyncio", "one mailbox"):
        run, floor = offered[f"{OURS}, {label}"], offered[FLOOR]
        if run is None or floor is None:
            values, measured = (None, None), "not done in time"
        else:
            values = (run["failures"], run["cpu"] / floor["cpu"])
            measured = f"{values[0]}; {values[1]:.2f} x"
        yield (
            f"1,000 streams, 50,000 events/s offered, {label}: failures; CPU against plain requests",
            "0; 1.7 x",
            "1.25 x",
            measured,
            verdict(values, (0, 1.7), (0, 1.25)),
        )


def stops(peers):
    def times(found):
        took = [seconds * MS for seconds in found[OURS]["took"]] or [math.inf]
        return statistics.median(took), max(took)

    p50, most = times(peers["stop"])
    yield (
        "stop after 5 events, seen by the server, p50 / max",
        "1 / 10 ms",
        "0.3 / 3 ms",
        f"{p50:.2f} / {most:.2f} ms",
        verdict((peers["stop"][OURS]["missed"], p50, most), (0, 1, 10), (0, 0.3, 3)),
    )
    (p50, most), missed = times(peers["silent_stop"]), peers["silent_stop"][OURS]["missed"]
    yield (
        "stop from another thread while the server is silent, p50 / max, missed",
        "5 / 25 ms, 0",
        "2 / 10 ms",
        f"{p50:.2f} / {most:.2f} ms, {missed} of {peers['silent_stop'][OURS]['of']}",
        verdict((missed, p50, most), (0, 5, 25), (0, 2, 10)),
    )
    left = [peers[how][OURS] for how in ("walk_away", "drop")]
    soon, asked = sum(map(in_time, left)), sum(found["of"] for found in left)
    yield (
        "bare `break` or lost reference",
        "all closed within 50 ms",
        "",
        f"{soon} of {asked}",
        verdict((asked - soon,), (0,)),
    )


def in_time(found):
    """How many of the stops the server saw within 50 ms."""
    return sum(seconds <= 0.05 for seconds in found["took"])


def ends(peers):
    wrong = [end for end, by in peers["ends"].items() if by[OURS] == "complete"]
    yield (
        f"body ends early, {len(peers['ends'])} forms",
        "error in all",
        "",
        "error in all" if not wrong else f"accepted: {', '.join(wrong)}",
        verdict((len(wrong),), (0,)),
    )
    late = [by[OURS] for by in peers["timeouts"].values()]
    shown = ", ".join("never" if seconds is None else f"{seconds:.2f} s" for seconds in late)
    kept = all(seconds is not None and 2.0 <= seconds <= 2.2 for seconds in late)
    yield (
        "`stream_timeout` / `content_timeout` 2 s: " + ", ".join(peers["timeouts"]),
        "2.0 to 2.2 s",
        "",
        shown,
        GOOD if kept else MISSED,
    )
    over = peers["deadline"][OURS] or math.inf
    yield (
        "`deadline` 1 s with retries",
        "+ 0.1 s",
        "",
        f"{over:.3f} s",
        verdict((over,), (1.1,)),
    )
    grown = (math.inf if peers["asleep"][OURS] is None else peers["asleep"][OURS]) / 2**20
    yield (
        "consumer asleep 3 s on a 60 MB stream",
        "2 MB",
        "0",
        f"{grown:.2f} MB",
        verdict((grown,), (2,), (0,)),
    )


def weight(peers):
    core = peers["import"]["core"]
    for what, key in (("`import allm_actors`", "import"), ("the same, and its names in use", "use")):
        seconds = peers[key][OURS]
        yield (
            f"{what}, against its core dependencies",
            "1.5 x",
            "1.2 x",
            f"{seconds / core:.2f} x ({seconds * MS:.0f} ms)",
            verdict((seconds / core,), (1.5,), (1.2,)),
        )
    mine = peers["weight"][OURS]
    megabytes = mine["bytes"] / 1e6
    yield (
        "installed size, dependencies included",
        "12 MB",
        "",
        f"{megabytes:.1f} MB",
        verdict((megabytes,), (12,)),
    )
    count = mine["dependencies"]
    yield (
        "dependencies: other packages that `pip install allm-actors` brings",
        "13",
        "",
        count,
        verdict((count,), (13,)),
    )


def compared(peers):
    """The table of all clients."""
    for name in ["plain requests", OURS, *(n for n in peers["weight"] if n != OURS)]:
        floor = "plain requests (messages)" if name == "anthropic" else FLOOR
        stop, away = peers["silent_stop"][name], [peers[how][name] for how in ("walk_away", "drop")]
        took = stop["took"]
        silent = f"{statistics.median(took) * MS:.2f} ms" if took else "never"
        heavy = peers["weight"].get(name)
        accepted = [end for end, by in peers["ends"].items() if by[name] == "complete"]
        never = "never" if peers["timeouts"]["comments"][name] is None else "yes"
        yield (
            name,
            f"{peers['chunk'][name] * 1e6:.1f} us, {peers['chunk'][name] / peers['chunk'][floor]:.1f} x",
            f"{peers['first'][name] * MS:.2f} ms",
            f"{silent}, {stop['missed']} of {stop['of']} missed",
            f"{sum(map(in_time, away))} of {sum(found['of'] for found in away)}",
            ", ".join(accepted) or "none",
            never,
            f"{peers['use'][name] * MS:.0f} ms" if name in peers["use"] else "",
            f"{heavy['bytes'] / 1e6:.0f} MB, {heavy['dependencies']}" if heavy else "",
        )


def yes(flag):
    return "yes" if flag else "no"


def briefly(peers):
    """The table of the README: the few numbers that decide."""

    def floors(name):
        chunk = peers["chunk"]
        floor = chunk["plain requests (messages)" if name == "anthropic" else FLOOR]
        return f"{chunk[name] / floor:.1f} x"

    def median(name):
        took = peers["silent_stop"][name]["took"]
        return f"{statistics.median(took) * MS:.1f} ms" if took else "never"

    def missed(how, name):
        return f"{peers[how][name]['missed']} of {peers[how][name]['of']}"

    rows = {
        "CPU a chunk, in times of plain `requests` and `json`": floors,
        "halt from another thread while the server is silent: seen by the server after": median,
        "the same, missed": lambda name: missed("silent_stop", name),
        "bare `break` out of the loop, missed": lambda name: missed("walk_away", name),
        "clean end of the body, before the answer's end, is an error": lambda name: yes(
            peers["ends"]["clean"][name] != "complete"
        ),
        "a timeout of 2 s ends a stream that brings keep-alives only": lambda name: yes(
            peers["timeouts"]["comments"][name] is not None
        ),
        "import of what a program uses": lambda name: f"{peers['use'][name] * MS:.0f} ms",
        "dependencies": lambda name: peers["weight"][name]["dependencies"],
    }
    names = list(peers["weight"])
    head = ("", *("this library" if name == OURS else f"`{name}`" for name in names))
    return table(head, ((what, *map(of, names)) for what, of in rows.items()))


def into_readme(text, peers):
    """The README with the numbers of this run between its marks."""
    before, rest = text.split(STARTS, 1)
    after = rest.split(ENDS, 1)[1]
    where = peers["where"]
    said = (
        f"Measured on {where['cores']} cores with Python {where['python']} on {where['day']}, "
        "against a server on loopback, each client with its defaults and in a process of its own; "
        "who missed five in a row was not asked again. "
        "`make peers` repeats it. "
        "How it was done, and which of its own limits this library misses, "
        "is in [Performance](docs/performance.md).\n"
    )
    return f"{before}{STARTS}\n{briefly(peers)}\n{said.replace('. ', '.' + chr(10))}{ENDS}{after}"


def crowds(scale):
    """The table of many streams."""
    for streams, runs in scale.items():
        for label, run in runs.items():
            if run is None:
                yield (streams, label, *["not done in 40 s"], *[""] * 4)
                continue
            release = "stays" if run["release"] is None else f"{run['release'] * MS:.1f} ms"
            yield (
                streams,
                label,
                f"{run['cpu']:.2f} s in {run['wall']:.1f} s",
                f"{run['memory'] / 1024:.0f} KB",
                f"{run['p50'] * MS:.2f} / {run['p99'] * MS:.2f} ms" if run["p50"] is not None else "",
                release,
                run["failures"],
            )


def main():
    """Write the files."""
    peers, scale = (json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:3])
    folder = Path(sys.argv[3])
    parts = (per_chunk, loads, stops, ends, weight)
    rows = [row for part in parts for row in part(peers)]
    where = peers["where"]
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    text = f"One run on {where['cores']} cores on {where['day']}, Python {where['python']}: {versions}.\n\n"
    text += table(("what", "must", "stretch", "measured", "kept"), rows)
    (folder / "performance.md").write_text(text, encoding="utf-8")
    head = (
        "client", "CPU a chunk", "first event", "stop while silent", "left within 50 ms",
        "cut-off taken for complete", "notices silence behind comments", "import and use",
        "size, dependencies",
    )  # fmt: skip
    (folder / "performance-peers.md").write_text(table(head, compared(peers)), encoding="utf-8")
    head = ("streams", "client", "CPU", "memory a stream", "lateness p50 / p99", "release", "failures")
    (folder / "performance-scale.md").write_text(table(head, crowds(scale)), encoding="utf-8")
    names = [name for name in peers["chunk"] if "messages" not in name]
    plot = bars("CPU a chunk, microseconds", {name: peers["chunk"][name] * 1e6 for name in names}, mine=OURS)
    (folder / "performance.svg").write_text(plot, encoding="utf-8")
    for path in map(Path, sys.argv[4:]):
        path.write_text(into_readme(path.read_text(encoding="utf-8"), peers), encoding="utf-8")


if __name__ == "__main__":
    main()
