"""A process with one client in it, that measures what it is told to, one task at a time.

Each client has a process of its own, so that none pays for what another imported or left running; asked in
turns, all of them meet the same machine.
"""

import multiprocessing
import os
import traceback

from benchmarks import _load, _tasks
from benchmarks._clients import CLIENTS
from benchmarks._pacer import raise_limits


def work(pipe, name):
    """Do tasks until there are no more."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask a server at its import
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
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, name), daemon=True)
        self._process.start()

    def begin(self, task, **arguments):
        """Have it begin a task of `_tasks` or `_load`."""
        self._pipe.send((task, arguments))

    def result(self, within=600):
        """What came of it; `None` if it took longer than that many seconds.

        Raises:
            RuntimeError: It failed.
        """
        if not self._pipe.poll(within):
            return None
        value, trouble = self._pipe.recv()
        if trouble is not None:
            raise RuntimeError(f"{self.name}: {trouble}")
        return value

    def do(self, task, **arguments):
        """Begin it, and wait for what comes of it."""
        self.begin(task, **arguments)
        return self.result()

    def close(self):
        """End the process."""
        self._process.kill()
        self._process.join()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()
