"""Everything goes wrong at once, for a long time; nothing is lost, nothing hangs, nothing is left.

`ALLM_CHAOS_STREAMS` says how long (10,000 streams in `make chaos`), `ALLM_CHAOS_SEED` which faults (a number, or
`random`, as in `make chaos`), and `ALLM_CHAOS_SWITCH` how often threads are switched (seconds, see
`sys.setswitchinterval`). The seed is printed.

In the suite the seeds are fixed: a change is judged by the faults that the change before it met, and what goes red
is met again by running it again. New faults are for the long run, whose failure is nobody else's obstacle.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from contextlib import closing

import pytest

import allm_actors as allm
from allm_actors import beam
from allm_actors.providers import Fake

from .baseline import Baseline
from .consumers import ConsumerDied
from .invariants import Judge, absent, growth, too_often
from .lateness import Lateness
from .ledger import Ledger
from .monkey import Engines, Monkey
from .provider import Provider
from .service import Service

STREAMS = int(os.environ.get("ALLM_CHAOS_STREAMS", "800"))
_SEED = os.environ.get("ALLM_CHAOS_SEED")
SEEDS = ["83", "271828"] if not _SEED else [str(random.randrange(10**6)) if _SEED == "random" else _SEED]
SWITCH = float(os.environ.get("ALLM_CHAOS_SWITCH", "0"))

_SECONDS_A_STREAM = 0.1
_MAX_GROWTH = 5_000_000
_WARM = 10_000  # by half of them the pools are as large as they get
_ALL = 800  # from so many on a run has something of everything
_EXPECTED = ("killed", "shutdown", "supervisor.max_restarts")


class _Crashes:
    """Collects the records of errors that no kill explains."""

    def __init__(self):
        self.records = []

    def look(self, record):
        if record.levelno >= logging.ERROR:
            text = record.getMessage()
            if "traceback=" in text or not any(word in text for word in _EXPECTED):
                self.records.append(text)
        return False


@pytest.fixture
def crashes():
    """Error records, and the ends of threads that nobody meant to end.

    Records go nowhere else: what keeps them would grow with every stream.
    """
    handler = _Crashes()
    # A filter of the root's handlers alone would not do: pytest keeps what it captures, and adds its own to
    # loggers that do not propagate. So records are refused where they are handed on.
    loggers = [
        logging.getLogger(f"allm_actors.{part}") for part in ("beam", "engine", "streaming", "providers")
    ]
    for logger in loggers:
        logger.addFilter(handler.look)
    before, threading.excepthook = threading.excepthook, lambda args: _report_thread(args, handler.records)
    yield handler.records
    threading.excepthook = before
    for logger in loggers:
        logger.removeFilter(handler.look)


def _report_thread(args, records):
    if args.exc_type is not ConsumerDied:
        records.append(f"{args.thread.name} ended with {args.exc_value!r}")


@pytest.fixture
def switching():
    """Threads switch as often as was asked for."""
    before = sys.getswitchinterval()
    if SWITCH:
        sys.setswitchinterval(SWITCH)
    yield
    sys.setswitchinterval(before)


@pytest.mark.slow
@pytest.mark.timeout(240 + STREAMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_service_survives_what_services_meet(seed, tmp_path, crashes, switching, capsys):
    """Every stream ends once, in time and for a reason; and when all is over nothing is left of it."""
    _warm_up()
    base = Baseline()
    began = time.monotonic()
    with closing(Provider(seed)) as provider, closing(Ledger(tmp_path / "ledger.jsonl")) as ledger:
        with Lateness() as late, closing(Engines(provider.base_url)) as engines:
            service = Service(engines, ledger, seed=seed, streams=STREAMS)
            with closing(Monkey(engines, seed)) as monkey:
                service.run(timeout=60 + STREAMS * _SECONDS_A_STREAM)
        took = time.monotonic() - began
        answered, provider_late, standing = provider.ledger()

    judge = Judge(answered, monkey.kills, [late, provider_late])
    count = sum(1 for _ in map(judge.judge, ledger.entries()))
    judge.rest()
    judge.restarts(monkey.restarts)
    problems = judge.report.problems + monkey.problems + too_often(engines.births, monkey.kills) + crashes
    with capsys.disabled():
        print(f"\nchaos: seed {seed}, {STREAMS} streams, {len(answered)} requests in {took:.1f} s", end="")
        print(_summary(judge.report, service, engines, monkey, [late, provider_late]))
    missing = absent(judge.report, monkey.kills, engines.gave_up) if STREAMS >= _ALL else []
    grown = growth(service.memory, STREAMS)
    # What this run holds itself is nothing that was left behind.
    del judge, answered, service, monkey, engines, late, provider_late, ledger, provider

    assert not problems, f"seed {seed}: {len(problems)} problems\n" + "\n".join(problems[:40])
    assert count == STREAMS
    assert not missing, f"seed {seed}: " + "; ".join(missing)
    assert standing == 0, f"{standing} connections stand, as the provider sees it"
    left = base.surplus(timeout=5)
    assert not left, f"seed {seed}: left behind: " + "; ".join(left)
    if STREAMS >= _WARM:  # in a short run it is the objects above that tell a leak
        assert grown < _MAX_GROWTH


def _warm_up():
    """Start what is started once and stays."""
    engine = allm.Engine(adapter=Fake(script=[("text", "hello")]), model="any")
    with allm.stream_generate(engine, "hello") as stream:
        list(stream)
    beam.Task.async_(int).await_(5)
    asyncio.run(asyncio.sleep(0))


def _summary(report, service, engines, monkey, lates):
    """What happened, for whoever reads along."""
    killed = Counter(kill.what for kill in monkey.kills)
    halts = sorted(report.halts) or [0.0]
    memory = [size for _, size in service.memory]
    here, there = (late.worst for late in lates)
    return (
        f"\n  read       {dict(report.ways.most_common())}"
        f"\n  ended      {dict(report.endings.most_common())}"
        f"\n  limits     {dict(report.limits.most_common())}"
        f"\n  met        {dict(report.kinds.most_common())}"
        f"\n  halts      {len(report.halts)} seen by the provider after {halts[len(halts) // 2] * 1000:.1f} ms"
        f" (median), {halts[len(halts) * 99 // 100] * 1000:.1f} ms (p99), {halts[-1] * 1000:.1f} ms (slowest)"
        f"\n  killed     {dict(killed.most_common())}; {len(engines.births)} adapters were started,"
        f" {engines.gave_up} engines gave up, {service.deaths} threads died and were replaced"
        f"\n  waits      {report.slowest:.2f} s for one event at most;"
        f" the machine was late by {here:.3f} s here, by {there:.3f} s at the provider"
        f"\n  memory     {memory[0] / 1e6:.1f} MB, at most {max(memory) / 1e6:.1f} MB,"
        f" {growth(service.memory, STREAMS) / 1e6:+.1f} MB over the second half\n"
    )
