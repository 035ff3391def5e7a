"""Processes that do what a test tells them, and ways to wait for what comes of it."""

import contextlib
import queue
import threading
import time

from allm_actors import beam
from allm_actors.beam._cell import kill

SOON = 5.0  # seconds after which what should have happened has not


class Boom(Exception):
    """What the probes crash with."""


class Probe(beam.Process):
    """Runs the functions it is called or cast with, as `fn(self)`; keeps every other message in `heard`.

    Args:
        heard: Where messages and the end (`("terminate", reason)`) are put.
        trap: Whether to trap exits.
        at_birth: Run in `init`.
        at_end: Run in `terminate`.
    """

    def init(self, heard, trap=False, at_birth=None, at_end=None):
        self.heard = heard
        self.trap_exit = trap
        self.at_end = at_end
        if at_birth is not None:
            at_birth(self)

    def handle_continue(self, token):
        return token(self)

    def handle_call(self, request, sender):
        self.sender = sender
        return request(self)

    def handle_cast(self, message):
        return message(self)

    def handle_info(self, message):
        self.heard.put(message)

    def terminate(self, reason):
        self.heard.put(("terminate", reason))
        if self.at_end is not None:
            self.at_end(self)


class Lab:
    """Starts probes, and leaves none behind."""

    def __init__(self):
        self.pids = []

    def probe(self, cls=Probe, *, name=None, **options):
        heard = queue.SimpleQueue()
        pid = cls.start(heard, name=name, **options)
        pid.heard = heard
        self.pids.append(pid)
        return pid

    def keep(self, pid):
        self.pids.append(pid)
        return pid

    def close(self):
        for pid in self.pids:
            kill(pid._cell, expected=True)
            thread = pid._cell.thread
            if thread is not None:
                thread.join(SOON)


def run_in(pid, fn, timeout=SOON):
    """Run `fn(process)` in a probe; what it returns."""
    return beam.call(pid, fn, timeout)


def outcome_in(pid, fn, timeout=SOON):
    """Run `fn(process)` in a probe that survives it; what it returned, or raised."""

    def guarded(process):
        try:
            return fn(process)
        except BaseException as error:
            return error

    return beam.call(pid, guarded, timeout)


def end_of(pid, act):
    """The `Down` that comes of `act()`."""
    inbox = beam.Inbox()
    beam.monitor(pid, to=inbox)
    act()
    return inbox.receive(SOON)


def reason_of(pid, act):
    """The reason that a process ends with because of `act()`."""
    return end_of(pid, act).reason


def crash(pid, error=None):
    """Have a probe crash."""
    error = error or Boom("boom")

    def fail(process):
        raise error

    beam.cast(pid, fail)


def leave(pid, reason):
    """Have a probe exit itself with `reason`."""

    def fail(process):
        raise beam.Exit(reason)

    beam.cast(pid, fail)


def sync(pid):
    """Wait until a probe has handled what was sent to it before; it lives."""
    assert beam.call(pid, lambda process: "here", SOON) == "here"


class Gate:
    """Holds a probe in a callback: `pid` is inside once `entered`, and goes on at `open`."""

    def __init__(self):
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, process=None):
        self.entered.set()
        assert self.opened.wait(SOON), "the gate was never opened"

    def wait(self):
        assert self.entered.wait(SOON), "nobody came to the gate"

    def open(self):
        self.opened.set()


@contextlib.contextmanager
def held(pid):
    """A probe that is busy, in code without a checkpoint, for the length of the block."""
    gate = Gate()
    beam.cast(pid, gate)
    gate.wait()
    try:
        yield gate
    finally:
        gate.open()


def until(predicate, what="it"):
    """Wait for a state that announces itself to nobody."""
    deadline = time.monotonic() + SOON
    while not predicate():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.0005)


def waits(pid):
    """Wait until a process is waiting, in its mailbox or in a call."""
    until(lambda: beam.info(pid)["state"] == "waiting", f"{pid} waiting")


def empty(heard):
    """Whether nothing was heard."""
    return heard.qsize() == 0


class InThread:
    """A function in a thread of its own: its result, or what it raised."""

    def __init__(self, fn, *args):
        self._box = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(fn, *args), daemon=True)
        self._thread.start()

    def _run(self, fn, *args):
        try:
            self._box.put((fn(*args), None))
        except BaseException as error:
            self._box.put((None, error))

    def result(self):
        value, error = self._box.get(timeout=SOON)
        self._thread.join(SOON)
        if error is not None:
            raise error
        return value

    def error(self):
        with contextlib.suppress(queue.Empty):
            _, error = self._box.get(timeout=SOON)
            self._thread.join(SOON)
            assert error is not None, "nothing was raised"
            return error
        raise AssertionError("it hangs")
