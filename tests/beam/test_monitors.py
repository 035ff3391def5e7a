"""Monitors: one-way, as many as one likes, exactly one `Down` each."""

import queue

import pytest

from allm_actors import beam
from tests.beam._probe import SOON, Boom, end_of, held, leave, run_in, sync, until

pytestmark = pytest.mark.logs_errors("processes end abnormally here")


def monitor(pid, target):
    return run_in(pid, lambda process: beam.monitor(target))


def test_a_monitor_brings_exactly_one_down(lab):  # B-31
    pid, target = lab.probe(), lab.probe()
    ref = monitor(pid, target)
    leave(target, "over")
    assert pid.heard.get(timeout=SOON) == beam.Down(ref, target, "over", None)
    sync(pid)
    assert pid.heard.qsize() == 0


def test_monitors_are_one_way(lab):  # B-31
    pid, target = lab.probe(), lab.probe()
    monitor(pid, target)
    end_of(pid, lambda: leave(pid, "boom"))
    sync(target)
    assert beam.info(target)["monitored_by"] == 0


def test_each_monitor_is_its_own(lab):  # B-31
    pid, target = lab.probe(), lab.probe()
    refs = {monitor(pid, target), monitor(pid, target)}
    assert len(refs) == 2
    beam.stop(target)
    assert {pid.heard.get(timeout=SOON).ref for _ in range(2)} == refs


def test_a_monitor_on_a_name_says_the_name(lab):  # B-31
    pid, target = lab.probe(), lab.probe(name="the one")
    ref = monitor(pid, "the one")
    beam.stop(target)
    assert pid.heard.get(timeout=SOON) == beam.Down(ref, target, "normal", "the one")


def test_a_monitor_on_the_dead_or_unknown_brings_noproc_at_once(lab):  # B-31
    pid, target = lab.probe(), lab.probe()
    beam.stop(target, "over")
    ref = monitor(pid, target)
    assert pid.heard.get(timeout=SOON) == beam.Down(ref, target, "noproc", None)
    ref = monitor(pid, "nobody")
    assert pid.heard.get(timeout=SOON) == beam.Down(ref, None, "noproc", "nobody")
    assert target.exit_reason == "over"  # B-32


def test_a_down_may_go_to_an_inbox_a_callable_or_an_event_queue(lab):  # B-31
    target = lab.probe()
    inbox, called = beam.Inbox(), queue.SimpleQueue()

    class EventQueue:
        def __init__(self):
            self.downs = queue.SimpleQueue()

        def on_down(self, down):
            self.downs.put(down)

    events = EventQueue()
    refs = [beam.monitor(target, to=to) for to in (inbox, called.put, events)]
    leave(target, "over")
    downs = [inbox.receive(SOON), called.get(timeout=SOON), events.downs.get(timeout=SOON)]
    assert [down.ref for down in downs] == refs
    assert {(down.pid, down.reason) for down in downs} == {(target, "over")}


@pytest.mark.parametrize("to", [5, "inbox", object()])
def test_a_down_goes_nowhere_else(lab, to):  # B-31
    target = lab.probe()
    with pytest.raises(TypeError):
        beam.monitor(target, to=to)
    assert beam.info(target)["monitored_by"] == 0


def test_a_monitor_with_a_target_of_its_own_outlives_the_process_that_set_it(lab):  # B-31
    pid, target = lab.probe(), lab.probe()
    inbox = beam.Inbox()
    run_in(pid, lambda process: beam.monitor(target, to=inbox) and None)
    beam.stop(pid)
    beam.stop(target)
    assert inbox.receive(SOON).pid is target


def test_demonitor_silences(lab):  # B-31
    pid, target = lab.probe(), lab.probe()
    ref = monitor(pid, target)
    run_in(pid, lambda process: beam.demonitor(ref))
    run_in(pid, lambda process: beam.demonitor(ref))
    assert beam.info(pid)["monitors"] == []
    beam.stop(target)
    sync(pid)
    assert pid.heard.qsize() == 0


@pytest.mark.parametrize("flush", [True, False])
def test_demonitor_takes_back_a_down_that_waits(lab, flush):  # B-31
    pid, target = lab.probe(), lab.probe()
    ref = monitor(pid, target)

    def late(process):
        end_of(target, lambda: leave(target, "over"))
        until(lambda: len(process._cell.mailbox) == 1)
        beam.demonitor(ref, flush=flush)

    run_in(pid, late)
    sync(pid)
    assert pid.heard.qsize() == (0 if flush else 1)


def test_demonitor_takes_back_a_down_from_an_inbox(lab):  # B-31
    target, inbox = lab.probe(), beam.Inbox()
    ref = beam.monitor(target, to=inbox)
    beam.stop(target)
    inbox.put("after")
    beam.demonitor(ref)
    assert inbox.receive(SOON) == "after"


def test_a_raising_callable_is_logged_and_the_others_hear(lab, logs):  # section 15
    target = lab.probe()
    inbox = beam.Inbox()

    def fail(down):
        raise Boom("in a monitor")

    beam.monitor(target, to=fail)
    beam.monitor(target, to=inbox)
    beam.stop(target)
    assert inbox.receive(SOON).reason == "normal"
    assert "in a monitor" in logs.of("monitor.failed")[0]["error"]


def test_a_down_in_hand_means_the_name_is_free_and_the_resources_are_released(lab):  # B-32
    released = []
    target = lab.probe(name="busy name", at_end=lambda process: released.append("terminate"))
    run_in(target, lambda process: process.on_exit(lambda: released.append("closer")))
    inbox = beam.Inbox()
    beam.monitor(target, to=inbox)
    beam.exit(target, "over")
    inbox.receive(SOON)
    assert released == ["terminate", "closer"]
    assert beam.whereis("busy name") is None
    assert lab.probe(name="busy name").alive


def test_a_process_may_monitor_itself_and_never_hears_of_it(lab):  # B-31
    pid = lab.probe()
    monitor(pid, pid)
    beam.stop(pid)
    assert pid.heard.get(timeout=SOON) == ("terminate", "normal")
    assert pid.heard.qsize() == 0


def test_the_books_forget_the_monitors_of_the_dead(lab):  # B-33
    hub = lab.probe()
    targets = [lab.probe() for _ in range(5)]
    for target in targets:
        monitor(hub, target)
    watchers = [lab.probe() for _ in range(5)]
    for watcher in watchers:
        monitor(watcher, hub)
    assert set(beam.info(hub)["monitors"]) == set(targets)
    assert beam.info(hub)["monitored_by"] == 5
    for pid in targets + watchers:
        beam.stop(pid)
    for _ in targets:
        hub.heard.get(timeout=SOON)
    assert beam.info(hub)["monitors"] == []
    assert beam.info(hub)["monitored_by"] == 0


def test_a_ref_has_a_readable_face(lab):  # B-31
    target = lab.probe()
    assert str(target) in repr(beam.monitor(target, to=beam.Inbox()))
    assert "nobody" in repr(beam.monitor("nobody", to=beam.Inbox()))


def test_a_down_while_the_watcher_is_busy_waits_its_turn(lab):  # B-31
    pid, target = lab.probe(), lab.probe()
    monitor(pid, target)
    with held(pid):
        beam.send(pid, "before")
        end_of(target, lambda: beam.exit(target, "over"))
        beam.send(pid, "after")
    heard = [pid.heard.get(timeout=SOON) for _ in range(3)]
    assert heard[0] == "before"
    assert {type(heard[1]), heard[2]} == {beam.Down, "after"}
