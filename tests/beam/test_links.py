"""Links: symmetrical, at most one between two, and silent once removed."""

import itertools
import queue
import threading

import pytest

from allm_actors import beam
from allm_actors.beam import _cell
from tests.beam._probe import (
    SOON,
    Boom,
    Probe,
    end_of,
    held,
    leave,
    outcome_in,
    reason_of,
    run_in,
    sync,
    until,
)

pytestmark = pytest.mark.logs_errors("processes end abnormally here")


def link(pid, peer):
    run_in(pid, lambda process: beam.link(peer))


@pytest.mark.parametrize("first", ["linker", "linked"])
def test_links_are_symmetrical(lab, first):  # B-30
    linker, peer = lab.probe(), lab.probe()
    link(linker, peer)
    assert beam.info(linker)["links"] == [peer]
    assert beam.info(peer)["links"] == [linker]
    dying, other = (linker, peer) if first == "linker" else (peer, linker)
    assert reason_of(other, lambda: leave(dying, "boom")) == "boom"


def test_there_is_at_most_one_link_between_two(lab):  # B-30
    pid, peer = lab.probe(), lab.probe()
    link(pid, peer)
    link(pid, peer)
    link(peer, pid)
    assert beam.info(pid)["links"] == [peer]
    run_in(pid, lambda process: beam.unlink(peer))
    end_of(peer, lambda: leave(peer, "boom"))
    sync(pid)


@pytest.mark.parametrize("side", ["linker", "linked"])
def test_either_side_may_unlink(lab, side):  # B-30
    pid, peer = lab.probe(), lab.probe()
    link(pid, peer)
    one, other = (pid, peer) if side == "linker" else (peer, pid)
    run_in(one, lambda process: beam.unlink(other))
    assert (pid._cell.links, peer._cell.links) == ({}, {})
    end_of(peer, lambda: leave(peer, "boom"))
    sync(pid)


def test_unlinking_what_is_not_linked_is_nothing(lab):  # B-30
    pid, peer = lab.probe(), lab.probe()
    run_in(pid, lambda process: beam.unlink(peer))
    run_in(pid, lambda process: beam.unlink(pid))
    beam.stop(peer)
    run_in(pid, lambda process: beam.unlink(peer))
    sync(pid)


def test_nothing_of_a_removed_link_arrives_afterwards(lab):  # B-30
    """Not even the message that waits in the mailbox when `unlink` is called."""
    pid, peer = lab.probe(trap=True), lab.probe()
    link(pid, peer)

    def unlink_late(process):
        beam.send(process.pid, "marker")
        leave(peer, "boom")
        until(lambda: peer.number not in _cell.table.cells and not peer._cell.thread.is_alive())
        beam.unlink(peer)

    run_in(pid, unlink_late)
    beam.send(pid, "last")
    assert [pid.heard.get(timeout=SOON) for _ in range(2)] == ["marker", "last"]
    assert pid._cell.exits == {}
    beam.stop(pid)


def test_an_exit_message_in_hand_is_forgotten_by_the_books(lab):  # B-30
    pid, peer = lab.probe(trap=True), lab.probe()
    link(pid, peer)
    leave(peer, "boom")
    assert pid.heard.get(timeout=SOON) == beam.ExitMessage(peer, "boom")
    sync(pid)
    assert pid._cell.exits == {}
    beam.stop(pid)


def test_linking_again_after_unlink(lab):  # B-30
    pid, peer = lab.probe(), lab.probe()
    link(pid, peer)
    run_in(pid, lambda process: beam.unlink(peer))
    link(pid, peer)
    assert reason_of(pid, lambda: leave(peer, "boom")) == "boom"


def test_a_link_to_the_dead_raises_in_one_that_does_not_trap(lab):  # B-30
    pid, peer = lab.probe(), lab.probe(name="gone")
    beam.stop(peer)
    for dest in (peer, "gone"):
        error = outcome_in(pid, lambda process, dest=dest: beam.link(dest))
        assert type(error) is beam.NoProcess
    sync(pid)


def test_a_link_to_the_dead_is_a_message_for_one_that_traps(lab):  # B-30
    pid, peer = lab.probe(trap=True), lab.probe()
    beam.stop(peer)
    link(pid, peer)
    assert pid.heard.get(timeout=SOON) == beam.ExitMessage(peer, "noproc")
    beam.stop(pid)


def test_a_process_cannot_link_to_itself(lab):  # B-30
    pid = lab.probe()
    link(pid, pid)
    assert beam.info(pid)["links"] == []


def test_start_link_links_before_the_first_line_of_init(lab):  # B-4
    starter = lab.probe()
    seen = queue.SimpleQueue()

    def birth(process):
        seen.put((beam.info(process.pid)["links"], beam.info(starter)["links"], process.pid))

    child = lab.keep(run_in(starter, lambda _: Probe.start_link(queue.SimpleQueue(), at_birth=birth)))
    assert seen.get(timeout=SOON) == ([starter], [child], child)


def test_start_link_outside_a_process_is_start(lab):  # B-71
    pid = lab.keep(Probe.start_link(queue.SimpleQueue()))
    assert beam.info(pid)["links"] == []
    assert pid._cell.parent is None


def test_a_crowd_dies_together_with_one_reason(lab):  # B-23
    pids = [lab.probe() for _ in range(20)]
    watcher = beam.Inbox()
    for pid in pids:
        beam.monitor(pid, to=watcher)
    for left, right in itertools.pairwise(pids):
        link(left, right)
    error = Boom("all")

    def fail(process):
        raise error

    beam.cast(pids[10], fail)
    assert [watcher.receive(SOON).reason for _ in pids] == [beam.Crash(error)] * 20


def test_the_tables_forget_the_links_of_the_dead(lab):  # B-33
    hub = lab.probe(trap=True)
    for _ in range(20):
        pid = lab.probe()
        link(hub, pid)
        end_of(pid, lambda pid=pid: beam.exit(pid, "over"))
    sync(hub)
    assert hub._cell.links == {}
    assert hub._cell.exits == {}
    beam.stop(hub)


def test_the_lock_is_free_while_user_code_runs_and_while_anything_waits(lab):  # B-33
    def lock_is_free():
        """Whether another thread can take it."""
        got = []

        def attempt():
            got.append(_cell.table.lock.acquire(timeout=SOON))
            if got[0]:
                _cell.table.lock.release()

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(SOON)
        return got == [True]

    seen = queue.SimpleQueue()
    pid = lab.probe(
        at_birth=lambda process: seen.put(lock_is_free()), at_end=lambda process: seen.put(lock_is_free())
    )
    beam.monitor(pid, to=lambda down: seen.put(lock_is_free()))
    run_in(pid, lambda process: process.on_exit(lambda: seen.put(lock_is_free())))
    with held(pid):
        seen.put(lock_is_free())
    beam.stop(pid)
    assert [seen.get(timeout=SOON) for _ in range(5)] == [True] * 5


def test_starting_inside_the_tables_own_work_is_refused_and_not_a_deadlock():  # section 15
    with _cell.table.lock:  # as a finalizer finds it that a collection runs in there
        with pytest.raises(beam.StartError) as caught:
            beam.spawn(print)
    assert caught.value.reason == "in_finalizer"
