"""What streams cost: nothing that stays, and little more than reading and parsing."""

import gc
import importlib.util
import pathlib
import threading

import pytest

import allm_actors as allm
from allm_actors import beam
from allm_actors.engine import Engine
from allm_actors.providers import Fake

from .helpers import until

HI = [("text", "hi"), ("text", "there"), ("finish", "stop")]
BENCHMARK = pathlib.Path(__file__).parents[2] / "benchmarks" / "streaming.py"


def read_all(engine):
    list(allm.stream_generate(engine, "hi"))


def close_early(engine):
    with allm.stream_generate(engine, "hi") as stream:
        next(stream)


def drop(engine):
    stream = allm.stream_generate(engine, "hi")
    next(stream)
    del stream


def never_read(engine):
    allm.stream_generate(engine, "hi")


def whole(engine):
    allm.generate(engine, "hi")


def mailed(engine):
    with allm.Mailbox() as mailbox:
        allm.open_stream(engine, "hi", into=mailbox)
        mailbox.get(timeout=5)


def descriptors():
    open_ones = pathlib.Path("/proc/self/fd")
    return len(list(open_ones.iterdir())) if open_ones.is_dir() else 0


@pytest.mark.parametrize("use", [read_all, close_early, drop, never_read, whole, mailed])
def test_hundreds_of_streams_leave_nothing(use):
    """B-131: threads, processes, descriptors and timers are back where they were."""
    engine = Engine(adapter=Fake(scripts=[HI] * 310))
    for _ in range(10):
        use(engine)
    gc.collect()
    until(lambda: not [pid for pid in beam.processes() if "StreamActor" in str(pid)])
    before = (beam.processes(), set(threading.enumerate()), descriptors(), beam.info()["timers"])

    for _ in range(300):
        use(engine)

    gc.collect()
    until(lambda: (beam.processes(), set(threading.enumerate())) == before[:2])
    assert (descriptors(), beam.info()["timers"]) == before[2:]


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("streaming_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_an_event_over_the_fake_stays_cheap_however_long_the_stream(benchmark):
    """The budget is 12 us an event; a stream ten times as long costs no more for each."""
    short, long = benchmark.fake(500, rounds=3), benchmark.fake(5000, rounds=3)

    assert long <= 2 * benchmark.MOST_FAKE  # twice, for a machine that does other things, too
    assert long <= 2 * short
