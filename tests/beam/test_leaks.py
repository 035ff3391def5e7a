"""Nothing is left behind: after thousands of lives everything is back where it was."""

import gc
import logging
import os
import pathlib
import queue
import threading
from collections import Counter

import pykka
import pytest

from allm_actors import beam
from allm_actors.beam import _admin
from allm_actors.beam._cell import kill, table
from allm_actors.beam.timer import _PURGE_FROM, service
from tests.beam._probe import SOON, Boom, Probe, run_in, until

pytestmark = [pytest.mark.slow, pytest.mark.logs_errors("processes crash here")]

TIMES = 10_000


PROC = pathlib.Path("/proc/self")


def resident():
    """Bytes of memory that are resident; always the same where the system does not tell."""
    statm = PROC / "statm"
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def ours():
    """How many objects of the layer there are, by class."""
    gc.collect()
    return Counter(
        f"{type(o).__module__}.{type(o).__qualname__}"
        for o in gc.get_objects()
        if str(type(o).__module__).startswith("allm_actors.beam")  # a metaclass may hold anything there
    )


def books():
    """Everything that is counted somewhere."""
    return {
        "threads": threading.active_count(),
        "descriptors": len(list((PROC / "fd").glob("*"))),
        "registry": len(pykka.ActorRegistry.get_all()),
        "processes": len(table.cells),
        "names": len(table.names),
        "zombies": len(table.zombies),
        "timers": service.count(),
        "offers": len(_admin._dynamic_starts),
    }


class Plain(beam.Process):
    def handle_call(self, request, sender):
        return request

    def handle_cast(self, message):
        raise message


def gone(pid):
    pid._cell.thread.join(SOON)


def stopped(n):
    beam.stop(Plain.start())


def exited(n):
    pid = Plain.start(name="leaky")
    beam.exit(pid, "shutdown")
    gone(pid)


def killed(n):
    pid = Plain.start()
    kill(pid._cell)
    gone(pid)


def crashed(n):
    pid = Plain.start()
    beam.cast(pid, Boom("over"))
    gone(pid)


def spawned(n):
    gone(beam.spawn(len, ()))


def refused(n):
    def fail(process):
        raise beam.Exit("no")

    with pytest.raises(beam.StartError):
        Probe.start(queue.SimpleQueue(), at_birth=fail)


def watched(n):
    pid = Plain.start()
    inbox = beam.Inbox()
    beam.monitor(pid, to=inbox)
    beam.demonitor(beam.monitor(pid, to=inbox))
    beam.send_after(1000, pid, "never")
    beam.cancel_timer(beam.send_after(1000, inbox, "never"))
    beam.exit(pid, "shutdown")
    inbox.receive(SOON)
    gone(pid)


def asked(n):
    pid = Plain.start()
    beam.call(pid, n)
    beam.stop(pid)
    with pytest.raises(beam.NoProcess):
        beam.call(pid, n)


def late(n):
    """To the dead: nothing of it may pile up."""
    pid = Plain.start()
    beam.stop(pid)
    for _ in range(5):
        beam.send(pid, n)
        beam.exit(pid, "boom")
        beam.exit(pid, "kill")
    assert len(pid._cell.mailbox) == 0


LIVES = [stopped, exited, killed, crashed, spawned, refused, watched, asked, late]


@pytest.fixture
def _quiet():
    """Thousands of crash reports are not what is looked at here, and the test runner would keep them all."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_quiet")
def test_ten_thousand_lives_leave_nothing_behind():  # B-131
    for _ in range(30):
        for life in LIVES:
            life(0)
    until(lambda: not table.zombies)
    objects, before, memory = ours(), books(), resident()
    for n in range(TIMES):
        LIVES[n % len(LIVES)](n)
    until(lambda: not table.zombies)
    until(lambda: books() == before, f"the books at base ({before} before, {books()} now)")
    left = ours() - objects
    cancelled = left.pop("allm_actors.beam.timer._Timer", 0)  # they wait in the heap for the next clean-up
    assert cancelled <= _PURGE_FROM
    assert left == Counter()
    assert resident() - memory < 2**20


def test_links_and_monitors_of_a_long_life_do_not_pile_up(lab):  # B-131
    """One process that is linked to, watches and is watched by thousands that come and go."""
    hub = lab.probe(trap=True)
    run_in(hub, lambda process: process._cell)
    before = books()
    for _ in range(1000):
        pid = Plain.start()
        run_in(hub, lambda process, pid=pid: (beam.link(pid), beam.monitor(pid)))
        beam.exit(pid, "shutdown")
        gone(pid)
        for _ in range(2):
            hub.heard.get(timeout=SOON)
    run_in(hub, lambda process: None)
    cell = hub._cell
    assert (cell.links, cell.exits, cell.watching, cell.watchers) == ({}, {}, {}, {})
    assert (cell.calls, cell.timers, cell.interrupters) == ({}, {}, {})
    assert books() == before
    beam.stop(hub)


def test_timeouts_leave_no_calls_behind(lab):  # B-131
    pid = lab.probe()
    for _ in range(1000):
        with pytest.raises(beam.CallTimeout):
            beam.call(pid, lambda process: beam.NO_REPLY, 0)
    run_in(pid, lambda process: None)
    assert pid._cell.calls == {}
    assert len(pid._cell.mailbox) == 0


def test_timers_of_a_long_life_do_not_pile_up(lab):  # B-131
    pid = lab.probe()
    before = service.count()
    for n in range(2000):
        beam.cancel_timer(beam.send_after(1000, pid, n))
        beam.send_after(0, pid, n)
    for _ in range(2000):
        pid.heard.get(timeout=SOON)
    assert pid._cell.timers == {}
    assert service.count() == before
