"""The workers of `examples/13_queue_workers.py`: whatever ends one, no job is lost."""

import importlib.util
import pathlib
import threading

import pytest

import allm_actors as allm
from allm_actors import beam
from allm_actors.providers import Fake

from .helpers import SOON, says, until

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "13_queue_workers.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("queue_workers", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.logs_errors("a worker is ended in the midst of its job on purpose")
@pytest.mark.parametrize("way", ["kill", "shutdown", "crash"])
def test_a_job_whose_worker_ends_goes_back(example, way):
    """Issue 6: a worker that dies with a job in hand puts it back, and the next worker answers it."""
    desk, asked = example.Desk(), threading.Event()
    first = [("crash", "a bug")] if way == "crash" else [("delay", SOON)]
    if way == "crash":
        asked.set()
    adapter = Fake(scripts=[[("text", "x"), *first], says("done")], on_request=lambda *_: asked.set())
    with allm.start_engine(allm.Engine(adapter=adapter, model="m", retry=None), "desk"):
        ended = beam.Inbox()
        worker = example.Worker.start(desk)
        beam.monitor(worker, to=ended)
        desk.jobs.put(7)
        assert asked.wait(SOON)
        if way != "crash":
            # Until it waits for the rest of its answer its script is perhaps not taken: the next would get it.
            until(lambda: beam.info(worker)["state"] == "waiting")
            beam.exit(worker, way)

        assert ended.receive(timeout=SOON).reason != "normal"

        again = example.Worker.start(desk)
        beam.monitor(again, to=ended)
        assert desk.answers.get(timeout=SOON) == (7, "done")
        desk.closing.set()
        assert ended.receive(timeout=SOON).reason == "normal"
    assert desk.jobs.empty()
    assert desk.answers.empty()


def test_closing_takes_no_further_job(example):
    """Issue 6: a graceful end leaves what was not begun in the queue."""
    desk = example.Desk()
    for job in range(5):
        desk.jobs.put(job)
    inside, go = threading.Event(), threading.Event()

    def wait(*_):
        inside.set()
        assert go.wait(SOON)

    adapter = Fake(scripts=[says("done")] * 5, on_request=wait)
    with allm.start_engine(allm.Engine(adapter=adapter, model="m"), "desk"):
        ended = beam.Inbox()
        beam.monitor(example.Worker.start(desk), to=ended)
        assert inside.wait(SOON)
        desk.closing.set()
        go.set()

        assert ended.receive(timeout=SOON).reason == "normal"

    assert desk.answers.get_nowait() == (0, "done")
    assert [desk.jobs.get_nowait() for _ in range(desk.jobs.qsize())] == [1, 2, 3, 4]
