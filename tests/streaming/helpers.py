"""Scripted adapter streams, adapters that a test can hold still, and waits with a deadline."""

import contextlib
import threading
import time

from allm_actors.data import (
    ErrorEvent,
    MessageCompleted,
    MessageStarted,
    TextCompleted,
    TextDelta,
    assistant,
)
from allm_actors.engine import AdapterStream
from allm_actors.errors import AdapterError

START = MessageStarted(message=assistant(""))
SOON = 5.0  # seconds within which everything here has to happen


def delta(text):
    return TextDelta(id=None, delta=text)


def closing(text):
    done = MessageCompleted(message=assistant(text), finish_reason="stop")
    return [TextCompleted(id=None, text=text), done] if text else [done]


def good(text="hi"):
    return [START, delta(text), *closing(text)]


def failing(reason="timeout", **fields):
    return ErrorEvent(error=AdapterError(reason, **fields))


class Scripted:
    """A stream that yields what it is told, raises what it is told, and counts its releases."""

    def __init__(self, *items):
        self.items = items
        self.released = 0
        self.asked = 0
        self.stream = AdapterStream(self._events(), self._release)

    def _release(self):
        self.released += 1

    def _events(self):
        for item in self.items:
            self.asked += 1
            if isinstance(item, BaseException):
                raise item
            yield item() if callable(item) else item


class Silent:
    """A stream that says `before` and then waits until it is closed, or `go` is set."""

    def __init__(self, *before, after=()):
        self.before, self.after = before, after
        self.go = threading.Event()
        self.waiting = threading.Event()
        self.released = 0
        self.cleaned = threading.Event()
        self.stream = AdapterStream(self._events(), self._release)

    def _release(self):
        self.released += 1
        self.go.set()

    def _events(self):
        try:
            yield from self.before
            self.waiting.set()
            assert self.go.wait(SOON), "nobody closed the stream"
            yield from self.after
        finally:
            self.cleaned.set()


def until(condition, deadline=SOON):
    limit = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < limit, "it never came true"
        time.sleep(0.001)


PATIENCE = 4  # a machine with more to do than this takes its time; what hangs takes for ever


@contextlib.contextmanager
def within(seconds):
    """Fail what takes much longer than the seconds that are promised on a machine with time to spare."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < PATIENCE * seconds, f"took {took:.3f} s"


def in_thread(work, *args):
    """Run `work` in a thread; a function that joins it and gives or raises what came of it."""
    outcome = {}

    def run():
        try:
            outcome["value"] = work(*args)
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(SOON)
        assert not thread.is_alive(), "it still waits"
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    result.thread = thread
    return result
