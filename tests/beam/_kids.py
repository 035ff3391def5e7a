"""Children that announce what happens to them, for the tests of supervisors."""

import contextlib
import queue
import threading
import time

from allm_actors import beam
from allm_actors.beam.supervisor import ChildSpec


class Boom(Exception):
    """What the children crash with."""


class News:
    """What the children say, in the order they said it."""

    def __init__(self):
        self.queue = queue.SimpleQueue()
        self.lives = {}

    def __call__(self, *item):
        self.queue.put(item)

    def next(self, timeout=5):
        return self.queue.get(timeout=timeout)

    def take(self, count, timeout=5):
        return [self.next(timeout) for _ in range(count)]

    def nothing_more(self):
        with contextlib.suppress(queue.Empty):
            raise AssertionError(f"unexpected news: {self.queue.get_nowait()}")


class Kid(beam.Process):
    """Announces its start and its end; does what it is told.

    Args:
        label: What it is called in the news.
        news: Where it announces.
        at_birth: Called in `init` with the number of this life (0 is the first); what it raises is the
            failure of the start.
    """

    def init(self, label, news, at_birth=None):
        self.label, self.news = label, news
        life = news.lives.get(label, 0)
        news.lives[label] = life + 1
        if at_birth is not None:
            at_birth(life)
        news("start", label)

    def handle_info(self, message):
        match message:
            case "crash":
                raise Boom(self.label)
            case ("exit", reason):
                return beam.Stop(reason)
            case ("unlink", pid):
                beam.unlink(pid)
                self.news("unlinked", self.label)
            case _ if callable(message):
                message()

    def handle_call(self, request, sender):
        return request()

    def terminate(self, reason):
        word = "crash" if isinstance(reason, beam.Crash) else reason
        self.news("stop", self.label, word)


class Deaf(Kid):
    """Ignores being told to end: blocks where no checkpoint is, until `released` is set."""

    def init(self, label, news, released):
        super().init(label, news)
        self.released = released

    def terminate(self, reason):
        super().terminate(reason)
        self.released.wait(10)


def kid(label, news, at_birth=None, *, start=Kid, **overrides):
    return ChildSpec(label, start, args=(label, news, at_birth), **overrides)


def pid_of(sup, label):
    return next(pid for id_, pid, _ in beam.supervisor.which_children(sup) if id_ == label)


def wait_dead(pid, timeout=5):
    """The reason of a process's end, once it is dead."""
    box = beam.Inbox()
    beam.monitor(pid, to=box)
    box.receive(timeout)
    return pid.exit_reason


def until(condition, timeout=5.0):
    limit = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < limit, "it never came true"
        time.sleep(0.0005)


def in_process(work, timeout=10):
    """Run `work()` inside a process and hand back what it returns or raises."""
    out = queue.SimpleQueue()

    def run():
        try:
            out.put((work(), None))
        except BaseException as exc:
            out.put((None, exc))

    beam.spawn(run)
    value, error = out.get(timeout=timeout)
    if error is not None:
        raise error
    return value


def in_thread(work):
    """Run `work()` in a thread; a function that waits for it and hands back what came of it."""
    out = queue.SimpleQueue()

    def run():
        try:
            out.put((work(), None))
        except BaseException as exc:
            out.put((None, exc))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result(timeout=10):
        value, error = out.get(timeout=timeout)
        thread.join(timeout)
        if error is not None:
            raise error
        return value

    return result
