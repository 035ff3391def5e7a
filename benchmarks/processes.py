"""What the process layer costs: each operation against its budget, and beside its floors in the same run.

The floors are raw threads and queues, and plain pykka, doing the same job without links, monitors or limits.

Run with `python benchmarks/processes.py`; `--quick` for a rough look. Exits with 1 if a median is over its
budget. Two cores are assumed.
"""

import argparse
import gc
import queue
import statistics
import sys
import threading
import time
from pathlib import Path

import pykka

from allm_actors import beam

US, MS = 1e-6, 1e-3


class Idle(beam.Process):
    """Does nothing; answers calls with what it was asked."""

    def handle_call(self, request, sender):
        """Answer with the question."""
        return request

    def handle_cast(self, message):
        """Note that all casts before have arrived."""
        if message is not None:
            message.put(None)


class Echo(pykka.ThreadingActor):
    """The floor in plain pykka: answers with what it was asked."""

    use_daemon_thread = True

    def on_receive(self, message):
        """Answer with the message."""
        return message


class Bench:
    """Measures and prints: each operation, and in turn with it the same job without this layer.

    Args:
        scale: What the usual number of repetitions is multiplied with.
    """

    def __init__(self, scale):
        self.scale = scale
        self.over = []
        self.rows = []

    def times(self, usual):
        """How often to do what is usually done so often."""
        return max(5, int(usual * self.scale))

    def report(self, name, samples, budget, unit, floors=None):
        """Print one line; note what is over its budget."""
        median = statistics.median(samples)
        ninth = sorted(samples)[int(len(samples) * 0.9)]
        sign = {US: "us", MS: "ms", 1.0: "s", 1024: "KB"}[unit]
        ratios = {what: statistics.median(times) for what, times in (floors or {}).items()}
        self.rows.append((name, median / unit, ninth / unit, budget / unit, sign, ratios, median, unit))
        beside = "".join(
            f"  {median / floor:5.2f} x {what} ({floor / unit:.2f})" for what, floor in ratios.items()
        )
        mark = "" if median <= budget else "  OVER"
        if mark:
            self.over.append(name)
        print(
            f"{name:40} {median / unit:9.2f} {sign:2}  p90 {ninth / unit:9.2f}"
            f"  budget {budget / unit:7.1f}{mark}{beside}",
            flush=True,
        )

    def each(self, name, budget, unit, usual, work, **floors):
        """Time `work()`, in turn with each floor; they may return the seconds to count."""
        samples = {what: [] for what in ("", *floors)}
        for _ in range(self.times(usual)):
            for what, job in (("", work), *floors.items()):
                begin = time.perf_counter()
                took = job()
                samples[what].append(time.perf_counter() - begin if took is None else took)
        self.report(name, samples.pop(""), budget, unit, samples)

    def markdown(self):
        """The results as a table."""
        lines = ["| operation | median | p90 | must stay under | floors |", "|---|---|---|---|---|"]
        for name, median, ninth, budget, sign, ratios, raw, unit in self.rows:
            beside = ", ".join(
                f"{raw / floor:.2f} x {what} ({floor / unit:.2f} {sign})" for what, floor in ratios.items()
            )
            lines.append(f"| {name} | {median:.2f} {sign} | {ninth:.2f} | {budget:g} {sign} | {beside} |")
        return "\n".join(lines) + "\n"


def until(condition):
    while not condition():
        time.sleep(0)


def processes(bench):
    def life():
        box = beam.Inbox()
        pid = Idle.start()
        beam.monitor(pid, to=box)
        beam.stop(pid)
        box.receive(5)

    def thread_life():
        box = queue.SimpleQueue()
        orders = queue.SimpleQueue()

        def run():
            box.put("born")
            orders.get()
            box.put("gone")

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        box.get()
        orders.put("end")
        box.get()
        thread.join()

    def pykka_life():
        ref = Echo.start()
        ref.ask("are you there?")
        ref.stop()

    bench.each("start, acknowledge, end, DOWN", 1 * MS, US, 300, life, threads=thread_life, pykka=pykka_life)

    pid = Idle.start()
    ref = Echo.start()
    there, back = queue.SimpleQueue(), queue.SimpleQueue()
    threading.Thread(target=lambda: [back.put(x) for x in iter(there.get, None)], daemon=True).start()

    def round_trip():
        there.put(1)
        back.get()

    bench.each(
        "call round trip",
        60 * US,
        US,
        3000,
        lambda: beam.call(pid, 1) and None,
        threads=round_trip,
        pykka=lambda: ref.ask(1) and None,
    )
    there.put(None)

    def casts(count=1000):
        done = queue.SimpleQueue()
        begin = time.perf_counter()
        for _ in range(count):
            beam.cast(pid, None)
        took = (time.perf_counter() - begin) / count
        beam.cast(pid, done)
        done.get(timeout=10)
        return took

    def puts(count=1000):
        sink = queue.SimpleQueue()
        begin = time.perf_counter()
        for _ in range(count):
            sink.put(None)
        return (time.perf_counter() - begin) / count

    def tells(count=1000):
        begin = time.perf_counter()
        for _ in range(count):
            ref.tell(1)
        took = (time.perf_counter() - begin) / count
        ref.ask(1)
        return took

    bench.each("cast, one way", 3 * US, US, 30, casts, queue=puts, pykka=tells)

    def kill():
        victim = Idle.start()
        box = beam.Inbox()
        beam.monitor(victim, to=box)
        begin = time.perf_counter()
        beam.exit(victim, "kill")
        box.receive(5)
        return time.perf_counter() - begin

    bench.each("kill to DOWN", 0.2 * MS, US, 300, kill)
    beam.stop(pid)
    ref.stop()


def numbers():
    n = 0
    while True:
        yield n
        n += 1


def reader(source, **options):
    return beam.StreamReader(lambda events: beam.start_stream(source, events, **options))


def streams(bench):
    def through_the_queue(rounds=50, window=64):
        events = beam.EventQueue(window)
        push, pop = events.push, events.pop
        begin = time.perf_counter()
        for _ in range(rounds):
            for n in range(window):
                push(n)
            for _ in range(window):
                pop()
        return (time.perf_counter() - begin) / (rounds * window)

    def through_a_queue(rounds=50, window=64):
        events = queue.Queue(window)
        put, get = events.put, events.get
        begin = time.perf_counter()
        for _ in range(rounds):
            for n in range(window):
                put(n)
            for _ in range(window):
                get()
        return (time.perf_counter() - begin) / (rounds * window)

    bench.each(
        "bounded queue, per event, one thread", 3 * US, US, 30, through_the_queue, queue=through_a_queue
    )

    def between_threads(count=5000):
        events = beam.EventQueue(64)

        def produce():
            for n in range(count):
                events.push(n)
            events.end()

        thread = threading.Thread(target=produce)
        begin = time.perf_counter()
        thread.start()
        for _ in range(count + 1):
            events.pop()
        took = (time.perf_counter() - begin) / count
        thread.join()
        return took

    def by_thread(count, events):
        def produce():
            for n in range(count):
                events.put(n)
            events.put(None)

        thread = threading.Thread(target=produce)
        thread.start()
        for _ in iter(events.get, None):
            pass
        thread.join()

    def between_threads_plain(count=5000):
        begin = time.perf_counter()
        by_thread(count, queue.Queue(64))
        return (time.perf_counter() - begin) / count

    bench.each(
        "bounded queue, per event, two threads",
        3 * US,
        US,
        20,
        between_threads,
        queue=between_threads_plain,
    )

    def whole(**options):
        for _ in reader(iter(range(200)), **options):
            pass

    def plain():
        by_thread(200, queue.Queue(64))

    bench.each("whole stream of 200 events", 2 * MS, US, 200, whole, threads=plain)
    sup = beam.DynamicSupervisor.start()
    bench.each("whole stream of 200 events, supervised", 2 * MS, US, 200, lambda: whole(supervisor=sup))
    beam.stop(sup)

    def first():
        stream = reader(iter([1]))
        begin = time.perf_counter()
        next(stream)
        took = time.perf_counter() - begin
        stream.close()
        return took

    def first_of_thread():
        events = queue.SimpleQueue()
        thread = threading.Thread(target=events.put, args=(1,))
        begin = time.perf_counter()
        thread.start()
        events.get()
        took = time.perf_counter() - begin
        thread.join()
        return took

    bench.each("first event of a stream", 1 * MS, US, 200, first, threads=first_of_thread)

    def close():
        stream = reader(numbers())
        next(stream)
        until(lambda: stream.events.in_flight >= 63)
        begin = time.perf_counter()
        stream.close()
        return time.perf_counter() - begin

    bench.each("close() with blocked producer to DOWN", 5 * MS, US, 200, close)


class Reborn(beam.Process):
    """Says when it is there."""

    def init(self, born):
        """Say so."""
        born.put(self.pid)


def supervisors(bench):
    born = queue.SimpleQueue()
    spec = beam.ChildSpec("a", Reborn, args=(born,))
    sup = beam.Supervisor.start([spec], max_restarts=10**9)

    def restart():
        child = born.get(timeout=5)
        until(lambda: beam.which_children(sup)[0][1] == child)
        begin = time.perf_counter()
        beam.exit(child, "kill")
        reborn = born.get(timeout=5)
        took = time.perf_counter() - begin
        born.put(reborn)
        return took

    bench.each("supervisor, child killed to new child up", 2 * MS, US, 200, restart)
    beam.stop(sup)

    def all_of_ten():
        born = queue.SimpleQueue()
        specs = [beam.ChildSpec(n, Reborn, args=(born,)) for n in range(10)]
        sup = beam.Supervisor.start(specs, strategy="one_for_all")
        children = [born.get(timeout=5) for _ in range(10)]
        begin = time.perf_counter()
        beam.exit(children[5], "kill")
        for _ in range(10):
            born.get(timeout=5)
        took = time.perf_counter() - begin
        beam.stop(sup)
        return took

    bench.each("one_for_all, 10 children", 40 * MS, MS, 20, all_of_ten)

    def thousand():
        sup = beam.DynamicSupervisor.start()
        for _ in range(1000):
            beam.start_child(sup, beam.ChildSpec("idle", Idle))
        begin = time.perf_counter()
        beam.stop(sup)
        return time.perf_counter() - begin

    bench.each("shutdown of 1000 dynamic children", 2.0, MS, 3, thousand)


def resident():
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def memory(bench):
    if not Path("/proc/self/statm").exists():
        print("memory per idle process: not measured, there is no /proc here")
        return
    count = bench.times(500)

    def grown(start):
        gc.collect()
        before = resident()
        keep = [start() for _ in range(count)]
        return (resident() - before) / count, keep

    def idle_thread():
        orders = queue.SimpleQueue()
        threading.Thread(target=orders.get, daemon=True).start()
        return orders

    own, pids = grown(Idle.start)
    plain, orders = grown(idle_thread)
    actor, refs = grown(Echo.start)
    bench.report("memory per idle process", [own], 40 * 1024, 1024, {"threads": [plain], "pykka": [actor]})
    for pid in pids:
        beam.stop(pid)
    for order in orders:
        order.put(None)
    for ref in refs:
        ref.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions")
    parser.add_argument("--markdown", type=Path, help="also write the table into this file")
    options = parser.parse_args()
    bench = Bench(0.1 if options.quick else 1.0)
    for part in (memory, processes, streams, supervisors):
        part(bench)
    zombies = beam.shutdown(timeout=60)
    print(f"zombies: {zombies}")
    if options.markdown:
        options.markdown.write_text(bench.markdown(), encoding="utf-8")
    if bench.over or zombies:
        print("over budget: " + ", ".join(bench.over))
        sys.exit(1)


if __name__ == "__main__":
    import logging

    logging.disable(logging.ERROR)  # kills are crash reports
    main()
