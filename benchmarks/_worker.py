"""A process with one client in it, that measures what it is told to, one task at a time.

Each client has a process of its own, so that none pays for what another imported or left running; asked in
turns, all of them meet the same machine.
"""

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import traceback

from benchmarks import _load, _tasks
from benchmarks._clients import CLIENTS
from benchmarks._pacer import raise_limits

LIMIT = 60.0
"""Seconds that a task may take if nothing else is said."""
LATE = object()


def work(pipe, name):
    """Do tasks until there are no more."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask a server at its import
    faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)
    raise_limits()
    client = CLIENTS[name]()
    try:
        while task := pipe.recv():
            function, arguments = task
            try:
                found = getattr(_tasks, function, None) or getattr(_load, function)
                pipe.send((found(client, **arguments), None))
            except Exception:  # noqa: BLE001  told to the owner
                pipe.send((None, traceback.format_exc()))
    except EOFError:
        pass
    os._exit(0)  # threads that nobody can wake would keep it


class Worker:
    """The process, as its owner sees it."""

    def __init__(self, name):
        self.name = name
        self._start()

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self.name), daemon=True)
        self._process.start()
        theirs.close()  # or its end would go unseen

    def begin(self, task, **arguments):
        """Have it begin a task of `_tasks` or `_load`."""
        self._task = task
        self._pipe.send((task, arguments))

    def result(self, within=LIMIT):
        """What came of it.

        Raises:
            TimeoutError: Nothing, in that many seconds, or the process died; a new one has taken its place.
            RuntimeError: It failed.
        """
        try:
            value, trouble = self._pipe.recv() if self._pipe.poll(within) else (None, LATE)
        except (EOFError, ConnectionError):
            value, trouble = None, LATE
        if trouble is LATE:
            self._replace()
            raise TimeoutError(f"{self.name}: no result of {self._task}")
        if trouble is not None:
            raise RuntimeError(f"{self.name}: {trouble}")
        return value

    def _replace(self):
        """Start again, and show where each thread of the one that gave no answer is."""
        print(f"{self.name}: no result of {self._task}", flush=True)
        if self._process.is_alive():
            os.kill(self._process.pid, signal.SIGUSR1)
            time.sleep(0.2)
        self.close()
        self._start()

    def do(self, task, *, within=LIMIT, **arguments):
        """Begin it, and wait for what comes of it."""
        self.begin(task, **arguments)
        return self.result(within)

    def close(self):
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()
