"""Fixtures of the process layer's tests."""

import queue

import pytest
import structlog

from tests.beam._probe import SOON, Lab


@pytest.fixture
def lab():
    """Starts probes, and leaves none behind."""
    lab = Lab()
    yield lab
    lab.close()


class Records:
    """The log records of one test, as dictionaries with `event` and `level`."""

    def __init__(self):
        self._all = []
        self._news = queue.SimpleQueue()

    def __call__(self, _logger, level, fields):
        record = {**fields, "level": level}
        self._all.append(record)
        self._news.put(record)
        raise structlog.DropEvent

    def of(self, event):
        return [record for record in self._all if record["event"] == event]

    def wait_for(self, event, timeout=SOON):
        """The next record of this event, of those not waited for yet."""
        while True:
            record = self._news.get(timeout=timeout)
            if record["event"] == event:
                return record

    def at(self, level):
        return [record for record in self._all if record["level"] == level]

    def everything(self):
        return list(self._all)


@pytest.fixture
def logs():
    """What is logged, debug records as well; none of it reaches `logging`."""
    was = structlog.get_config() if structlog.is_configured() else None
    records = Records()
    structlog.configure(processors=[records], cache_logger_on_first_use=False)
    yield records
    structlog.reset_defaults()
    if was is not None:
        structlog.configure(**was)
