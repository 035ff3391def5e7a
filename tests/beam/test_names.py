"""Names: one flat table, resolved at each use, free before anybody hears of a death."""

import queue

import pytest

from allm_actors import beam
from tests.beam._probe import SOON, Gate, InThread, Probe, held, outcome_in, reason_of, run_in, until

pytestmark = pytest.mark.logs_errors("processes end abnormally here")


@pytest.mark.parametrize("name", ["name", ("engine", "main"), 7, frozenset({1}), ""])
def test_any_hashable_value_is_a_name(lab, name):  # B-40
    pid = lab.probe()
    beam.register(name, pid)
    assert beam.whereis(name) is pid
    assert name in beam.registered()
    assert beam.call(name, lambda process: 1) == 1
    beam.unregister(name)
    assert beam.whereis(name) is None
    assert name not in beam.registered()


@pytest.mark.parametrize("name", [None, [], {}, ("a", []), "pid"])
def test_what_is_no_name(lab, name):  # B-40
    pid = lab.probe()
    if name == "pid":
        name = pid
    for use in (
        lambda: beam.register(name, pid),
        lambda: beam.unregister(name),
        lambda: beam.whereis(name),
    ):
        with pytest.raises(TypeError):
            use()
    if name is not None:
        with pytest.raises(TypeError):
            lab.probe(name=name)


def test_only_pids_are_registered(lab):  # B-40
    with pytest.raises(TypeError):
        beam.register("name", "pid")


def test_a_name_belongs_to_one_process(lab):  # B-40
    holder, other = lab.probe(name="taken"), lab.probe()
    for pid in (holder, other):
        with pytest.raises(beam.NameTaken) as caught:
            beam.register("taken", pid)
        assert (caught.value.pid, caught.value.name) == (holder, "taken")


def test_the_dead_get_no_name(lab):  # B-40
    pid = lab.probe()
    beam.stop(pid)
    with pytest.raises(beam.NoProcess):
        beam.register("late", pid)
    assert beam.whereis("late") is None


def test_taking_away_a_name_nobody_has(lab):  # B-40
    with pytest.raises(beam.UnknownName):
        beam.unregister("nobody")


def test_a_process_may_have_several_names(lab):  # B-40
    pid = lab.probe(name="one")
    beam.register("two", pid)
    beam.register(("three",), pid)
    assert beam.info(pid)["names"] == ["one", "two", ("three",)]
    assert pid.name == "one"
    beam.unregister("one")
    assert pid.name == "two"
    assert str(pid) == f"<Probe {pid.number} 'two'>"
    beam.stop(pid)
    assert not {"one", "two", ("three",)} & set(beam.registered())
    assert pid.name is None


def test_a_start_under_a_taken_name_starts_no_thread(lab, monkeypatch):  # B-40
    holder = lab.probe(name="taken")
    ran = queue.SimpleQueue()
    with pytest.raises(beam.StartError) as caught:
        Probe.start(queue.SimpleQueue(), at_birth=ran.put, name="taken")
    assert isinstance(caught.value.reason, beam.NameTaken)
    assert caught.value.reason.pid is holder
    assert ran.qsize() == 0
    with pytest.raises(beam.StartError):
        beam.spawn(print, name="taken")


def test_a_start_under_a_taken_name_does_not_touch_its_linked_starter(lab):  # B-40
    lab.probe(name="taken")
    starter = lab.probe(trap=True)
    error = outcome_in(starter, lambda _: Probe.start_link(queue.SimpleQueue(), name="taken"))
    assert isinstance(error.reason, beam.NameTaken)
    assert beam.info(starter)["links"] == []
    assert starter.heard.qsize() == 0
    beam.stop(starter)


def test_a_name_is_gone_before_anybody_hears_of_the_death(lab):  # B-40
    for _ in range(50):
        pid = lab.probe(name="phoenix")
        peer = lab.probe()
        seen = queue.SimpleQueue()
        beam.monitor(pid, to=lambda down, seen=seen: seen.put(beam.whereis("phoenix")))
        asked = InThread(beam.call, pid, lambda process: beam.NO_REPLY)
        until(lambda pid=pid: pid._cell.calls)
        beam.exit(pid, "over")
        asked.error()
        assert lab.probe(name="phoenix").alive  # at once, in the caller that heard of it
        assert seen.get(timeout=SOON) is None or beam.whereis("phoenix") is not pid
        beam.stop("phoenix")
        beam.stop(peer)


def test_names_are_resolved_at_each_use(lab):  # B-41
    first = lab.probe(name="service")
    assert run_in("service", lambda process: process.pid) is first
    beam.stop(first)
    second = lab.probe(name="service")
    assert run_in("service", lambda process: process.pid) is second
    beam.send("service", "hello")
    assert second.heard.get(timeout=SOON) == "hello"


def test_a_name_that_moves_takes_later_messages_with_it(lab):  # B-41
    first, second = lab.probe(name="service"), lab.probe()
    with held(first):
        beam.send("service", 1)
        beam.unregister("service")
        beam.register("service", second)
        beam.send("service", 2)
    assert first.heard.get(timeout=SOON) == 1
    assert second.heard.get(timeout=SOON) == 2


def test_a_name_is_free_although_the_thread_of_its_killed_holder_is_stuck(lab):  # B-72
    pid = lab.probe(name="stuck")
    with held(pid):
        assert reason_of(pid, lambda: beam.exit(pid, "kill")) == "killed"
        assert lab.probe(name="stuck").alive


def test_a_name_is_taken_while_its_holder_still_cleans_up(lab):  # B-9
    gate = Gate()
    pid = lab.probe(name="cleaning", at_end=gate)
    beam.exit(pid, "over")
    gate.wait()
    assert beam.whereis("cleaning") is pid
    with pytest.raises(beam.StartError):
        lab.probe(name="cleaning")
    gate.open()
    until(lambda: beam.whereis("cleaning") is None)


def test_nobody_holds_a_name_of_an_unborn(lab):  # B-5
    def fail(process):
        raise beam.Exit("no")

    for _ in range(3):
        with pytest.raises(beam.StartError):
            lab.probe(name="unborn", at_birth=fail)
        assert beam.whereis("unborn") is None
