"""A run whose engine restarts between two turns: it waits, and whoever closes it ends the waiting."""

import threading

import pytest

import allm_actors as allm
from allm_actors import Session, beam, start_engine
from allm_actors.providers import Fake

from .helpers import SOON, call, calls, in_thread, says, tool, types, until, within

pytestmark = pytest.mark.logs_errors("the adapter's process is killed on purpose")


class Restarting:
    """An engine whose adapter is killed by the first tool, and comes back when it is let."""

    def __init__(self):
        self.again, self.let = threading.Event(), threading.Event()
        rig = self

        class Slow(Fake):
            def connect(self):
                if rig.begun:
                    rig.again.set()
                    assert rig.let.wait(SOON)
                rig.begun = True
                return super().connect()

        self.begun = False
        adapter = Slow(scripts=[calls(call("1", "kill")), says("x")])
        self.ref = start_engine(allm.Engine(adapter=adapter, model="m", tools=[tool("kill", self.kill)]))

    def kill(self, arguments):
        (pid,) = (p for p in beam.processes() if "AdapterProcess" in str(p))
        beam.exit(pid, "kill")
        assert self.again.wait(SOON)
        return "killed"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.let.set()
        self.ref.stop()


OPENERS = [
    lambda ref: allm.stream(ref, "hi"),
    lambda ref: Session.stream_start(ref, "hi"),
]


@pytest.mark.parametrize("open_", OPENERS, ids=["stream", "session"])
def test_a_run_waits_for_its_engine(open_):
    """O-37, C-60: a restart between two turns is waited for."""
    with Restarting() as rig, open_(rig.ref) as events:
        while next(events).type != "step_completed":
            pass
        reading = in_thread(lambda: list(events))

        rig.let.set()

        assert types(reading())[-1] == "chat_completed"


@pytest.mark.parametrize("open_", OPENERS, ids=["stream", "session"])
def test_closing_wakes_a_reader_whose_run_waits_for_its_engine(open_, monkeypatch):
    """O-55, O-56: `close()` returns at once, the blocked `next()` ends, and no event follows."""
    waiting = threading.Event()
    borrow = allm.engine.processes.Site.borrow

    def noted(site, **options):
        if rig.again.is_set():
            waiting.set()
        return borrow(site, **options)

    monkeypatch.setattr("allm_actors.engine.processes.Site.borrow", noted)
    with Restarting() as rig:
        events = open_(rig.ref)
        while next(events).type != "step_completed":
            pass
        reading = in_thread(lambda: list(events))
        assert waiting.wait(SOON)

        with within(0.5):
            events.close()
        with within(1):
            rest = reading()

        assert rest == []
        with pytest.raises(StopIteration):
            next(events)


def test_a_session_that_was_closed_there_goes_on():
    """O-121: the turn that was completed counts; the operation that follows meets the restarted engine."""
    with Restarting() as rig:
        events = Session.stream_start(rig.ref, "hi")
        fold = events.reducer()
        for event in events:
            fold.apply(event)
            if event.type == "step_completed":
                break
        reading = in_thread(lambda: list(events))
        until(rig.again.is_set)
        events.close()
        assert reading() == []
        session, result = fold.finalize()
        rig.let.set()

        assert (session.status, result.halted_reason) == ("idle", "cancelled")
        assert Session.continue_(rig.ref, session)[1].text == "x"
