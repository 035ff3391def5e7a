"""Shutdown against whatever happens meanwhile, and the timer thread against finalizers."""

import queue
import threading

import pytest

from allm_actors import beam
from allm_actors.beam import runtime, timer
from allm_actors.beam._cell import table
from allm_actors.beam._signals import join_thread
from tests.beam._probe import SOON, Gate, Probe


@pytest.fixture
def bodiless(monkeypatch):
    """Holds a start when its thread was made and does not run yet: the gate, and where the outcome comes."""
    gate = Gate()
    begin = threading.Thread.start

    def held(thread):
        if thread.name.startswith("beam-Probe-"):
            gate()
        begin(thread)

    born = queue.SimpleQueue()

    def start():
        try:
            born.put(Probe.start(queue.SimpleQueue()))
        except beam.StartError as error:
            born.put(error)

    starter = threading.Thread(target=start, daemon=True)
    monkeypatch.setattr(threading.Thread, "start", held)
    starter.start()
    gate.wait()
    yield gate, born
    gate.open()
    starter.join(SOON)


def test_shutdown_ends_a_process_whose_thread_is_just_being_started(bodiless):
    """B-111: it waits for it like for any other, and does not fall over a thread that is none yet."""
    gate, born = bodiless
    heard = queue.SimpleQueue()
    stopper = threading.Thread(target=lambda: heard.put(beam.shutdown(SOON)), daemon=True)

    stopper.start()
    gate.open()

    assert heard.get(timeout=SOON) == 0
    outcome = born.get(timeout=SOON)
    assert isinstance(outcome, beam.StartError) or not outcome.alive
    assert beam.processes() == []


def test_shutdown_kills_at_its_deadline_a_process_that_was_never_born(bodiless):
    """B-111: what is left at the deadline is killed, be it without a thread."""
    gate, born = bodiless

    assert beam.shutdown(0.01) == 0

    assert beam.processes() == []
    gate.open()
    assert born.get(timeout=SOON).reason == "killed"


def test_a_thread_made_but_not_running_is_waited_for(lab):
    """B-110, B-111: `Thread.join` raises for a thread that was made and not started yet."""
    pid = lab.probe()
    cell = pid._cell
    real, cell.thread = cell.thread, threading.Thread(target=print, daemon=True)
    try:
        join_thread(cell, 0.01)  # it lives: the time is over, nothing is raised
        beam.exit(pid, "shutdown")
        join_thread(cell, SOON)
        assert not pid.alive
    finally:
        cell.thread = real
    real.join(SOON)


def test_shutdown_comes_to_an_end_though_every_kill_starts_another_process():
    """B-111: nothing may start while the rest is killed; afterwards everything may."""
    refused = queue.SimpleQueue()
    over = threading.Event()
    zombies = []

    def go_on(_down=None):
        try:
            pid = beam.spawn(over.wait, SOON)  # no checkpoint: it ends by a kill only
        except beam.StartError as error:
            refused.put(error.reason)
        else:
            zombies.append(pid)
            beam.monitor(pid, to=go_on)

    go_on()
    try:
        stopper = threading.Thread(target=beam.shutdown, args=(0.05,), daemon=True)
        stopper.start()

        assert refused.get(timeout=SOON) == "system_shutdown"
        stopper.join(SOON)
        assert not stopper.is_alive()
        assert beam.processes() == []
        pid = Probe.start(queue.SimpleQueue())
        beam.stop(pid, timeout=SOON)
    finally:
        over.set()
        for pid in zombies:
            join_thread(pid._cell, SOON)


def _never_ends():
    beam.sleep(60)


def test_after_the_last_shutdown_nothing_starts(monkeypatch):
    """B-111: from the deadline of the exit hook on, a start is refused for good."""
    pid = beam.spawn(_never_ends)
    monkeypatch.setattr(runtime, "_for_good", True)
    try:
        beam.shutdown(0.0)
        with pytest.raises(beam.StartError) as caught:
            Probe.start(queue.SimpleQueue())
    finally:
        table.closing = False

    assert caught.value.reason == "system_shutdown"
    assert not pid.alive


def test_a_finalizer_may_use_the_timers_while_their_thread_is_being_started(monkeypatch):
    """B-50, B-85: the garbage collector may run one inside of that very section, in the same thread."""
    service = timer.TimerService()
    inbox = beam.Inbox()
    make = threading.Thread

    class Collecting(make):
        def __init__(self, *args, **kwargs):
            # Making a thread allocates, so the collector may come by and run a finalizer here.
            service.after(0.0, inbox, "from the finalizer")
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(threading, "Thread", Collecting)
    setter = make(target=service.after, args=(0.0, inbox, "from the program"), daemon=True)
    setter.start()

    got = {inbox.receive(SOON), inbox.receive(SOON)}

    assert got == {"from the finalizer", "from the program"}
    setter.join(SOON)
    monkeypatch.undo()
    service.stop(SOON)
