"""What holds for every test: nothing is left behind.

A test that passes and yet leaves a thread or a process of the runtime behind, or during which an `ERROR` was
logged that it did not announce, fails. A crash is otherwise invisible: it goes to the log, and the test goes on.
"""

import gc
import importlib
import logging
import threading
import time

import hypothesis
import pytest
import structlog

GRACE = 2.0  # seconds that what has been asked to end is given to do so
SHARED_THREADS = ("beam-timer", "beam-runtime", "pytest_timeout", "asyncio_", "ThreadPoolExecutor")
SHARED_PROCESSES = ("beam.root", "beam.tasks")

_failed = pytest.StashKey[bool]()


# A machine under load may take its time for one example: no test fails by the clock alone.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "leaves_behind(reason): threads or processes of this test outlive it, for the reason given"
    )
    config.addinivalue_line(
        "markers", "logs_errors(reason): records of level ERROR are part of this test, for the reason given"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.when != "teardown" and report.failed:
        item.stash[_failed] = True
    return report


class _Errors(logging.Handler):
    def __init__(self):
        super().__init__(logging.ERROR)
        self.records = []

    def emit(self, record):
        self.records.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def nothing_left_behind(request):
    """Fail the test that leaves a thread or process behind, or logs an error it did not announce."""
    threads_before = set(threading.enumerate())
    processes_before = set(_processes())
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(errors)
        structlog.reset_defaults()  # the command line configures it, for its own process
    if request.node.stash.get(_failed, False):
        return  # one failure is enough, and a failed test may keep anything alive
    if not _excused(request, "logs_errors") and errors.records:
        pytest.fail("logged at ERROR without @pytest.mark.logs_errors:\n" + "\n".join(errors.records))
    if _excused(request, "leaves_behind"):
        return
    left = _left(threads_before, processes_before)
    if left:
        deadline = time.monotonic() + GRACE
        while left and time.monotonic() < deadline:
            gc.collect()  # what only garbage holds ends now; it may become garbage while a thread ends
            time.sleep(0.002)
            left = _left(threads_before, processes_before)
    if left:
        pytest.fail("left behind: " + ", ".join(sorted(map(str, left))))


def _excused(request, marker):
    found = request.node.get_closest_marker(marker)
    if found is None:
        return False
    if not (found.args and isinstance(found.args[0], str)) and "reason" not in found.kwargs:
        pytest.fail(f"@pytest.mark.{marker} needs a reason")
    return True


def _left(threads_before, processes_before):
    processes = [pid for pid in _processes() if pid not in processes_before and not _is_shared(pid)]
    shared = {f"-{pid.number}" for pid in _processes() if _is_shared(pid)}
    threads = [
        thread.name
        for thread in threading.enumerate()
        if thread not in threads_before
        and not thread.name.startswith(SHARED_THREADS)
        and not (thread.name.startswith("beam-") and thread.name.endswith(tuple(shared)) and shared)
    ]
    return processes + threads


def _processes():
    beam = importlib.import_module("allm_actors.beam")
    return beam.processes() if hasattr(beam, "processes") else []


def _is_shared(pid):
    """The root supervisor and the default task supervisor start at first use and stay."""
    return pid.name in SHARED_PROCESSES
