"""Streams leave nothing behind, however they end. What they cost is measured in `benchmarks/`."""

import gc
import os
import threading
from pathlib import Path

import pytest

from allm_actors import beam
from allm_actors.beam._cell import table
from allm_actors.beam.stream import StreamReader, start_stream
from allm_actors.beam.supervisor import DynamicSupervisor, count_children
from tests.beam._kids import until

STATM = Path("/proc/self/statm")


def reader(source, **options):
    return StreamReader(lambda events: start_stream(source, events, **options))


def forever():
    n = 0
    while True:
        yield n
        n += 1


def to_the_end(sup):
    assert sum(1 for _ in reader(iter(range(3)), supervisor=sup)) == 3


def closed_early(sup):
    with reader(forever(), supervisor=sup) as stream:
        next(stream)


def dropped(sup):
    next(reader(forever(), supervisor=sup))


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="needs /proc to look at its own memory")
@pytest.mark.parametrize("cycle", [to_the_end, closed_early, dropped])
def test_streams_leave_nothing_behind(cycle):
    """B-131: 5,000 cycles: threads, descriptors, registry and tables as before, memory within 1 MB."""
    sup = DynamicSupervisor.start()

    def settle():
        until(lambda: count_children(sup).specs == 0)
        until(lambda: threading.active_count() == threads)
        gc.collect()

    def resident():
        return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    threads = threading.active_count()
    for _ in range(300):
        cycle(sup)
    settle()
    fds, cells, memory = descriptors(), len(table.cells), resident()
    names, timers = len(table.names), beam.info()["timers"]
    for _ in range(5000):
        cycle(sup)
    settle()
    grown = resident() - memory
    assert (descriptors(), len(table.cells), len(table.names), beam.info(sup)["links"]) == (
        fds,
        cells,
        names,
        [],
    )
    assert beam.info()["timers"] == timers
    assert grown < 2**20
    beam.stop(sup)
