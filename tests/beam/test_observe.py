"""What can be seen: log records with their levels and fields, and the state of every process."""

import logging
import queue

import pytest
import structlog

from allm_actors import beam
from allm_actors.beam._log import Logger
from tests.beam._probe import (
    SOON,
    Boom,
    Gate,
    InThread,
    Probe,
    crash,
    end_of,
    held,
    leave,
    outcome_in,
    run_in,
    sync,
    until,
    waits,
)

pytestmark = pytest.mark.logs_errors("processes are killed here")

SECRET = "hunter2-the-secret"


class Secretive(Probe):
    def handle_info(self, message):
        if message == "crash":
            raise Boom("without a word")
        super().handle_info(message)


# --- records ------------------------------------------------------------------------------------------


def test_a_start_is_a_debug_record(lab, logs):  # B-120
    pid = lab.probe(name="named")
    record = logs.wait_for("process.started")
    assert (record["level"], record["pid"], record["class"], record["name"]) == (
        "debug",
        pid.number,
        "Probe",
        "named",
    )
    assert record["logger"] == "allm_actors.beam"


@pytest.mark.parametrize("reason", ["normal", "shutdown", beam.Shutdown("x")])
def test_a_clean_end_is_a_debug_record(lab, logs, reason):  # B-120
    pid = lab.probe()
    end_of(pid, lambda: leave(pid, reason))
    record = logs.wait_for("process.exited")
    assert (record["level"], record["reason"]) == ("debug", repr(reason))
    assert logs.at("error") == []


@pytest.mark.parametrize("reason", ["boom", "kill", 5])
def test_any_other_end_is_an_error_record(lab, logs, reason):  # B-120
    pid = lab.probe()
    end_of(pid, lambda: leave(pid, reason))
    record = logs.wait_for("process.exited")
    assert (record["level"], record["reason"]) == ("error", repr(reason))


def test_the_fields_of_a_crash_report(lab, logs):  # B-120
    starter, peer = lab.probe(), lab.probe(trap=True)
    pid = lab.keep(run_in(starter, lambda _: Probe.start(queue.SimpleQueue(), name="fragile")))
    run_in(peer, lambda process: beam.link(pid))
    gate = Gate()

    def fail(process):
        gate()
        raise Boom("for all to see")

    beam.cast(pid, fail)
    gate.wait()
    for number in range(3):
        beam.send(pid, number)
    end_of(pid, gate.open)
    record = next(r for r in logs.of("process.exited") if r["pid"] == pid.number)
    assert record["level"] == "error"
    assert (record["class"], record["name"]) == ("Probe", "fragile")
    assert record["reason"] == "crashed with Boom: for all to see"
    assert record["ancestors"] == [str(starter)]
    assert record["links"] == [str(peer)]
    assert record["mailbox_len"] == 3
    assert record["last_message_type"] == "function"
    assert record["lifetime"] > 0
    assert "in fail" in record["traceback"]
    beam.stop(peer)


def test_one_crash_is_one_crash_report_whoever_else_dies_of_it(lab, logs):  # B-121
    pids = [lab.probe() for _ in range(4)]
    inbox = beam.Inbox()
    for pid in pids:
        beam.monitor(pid, to=inbox)
    for pid in pids[1:]:
        run_in(pid, lambda process: beam.link(pids[0]))
    crash(pids[0])
    for _ in pids:
        inbox.receive(SOON)
    reports = logs.at("error")
    assert [(r["event"], r["pid"]) for r in reports] == [("process.exited", pids[0].number)]
    followers = [r for r in logs.of("process.exited") if r["level"] == "debug"]
    assert {r["pid"] for r in followers} == {pid.number for pid in pids[1:]}
    assert {r["origin"] for r in followers} == {str(pids[0])}


def test_a_crash_of_its_own_is_reported_although_it_was_told_to_exit(lab, logs):  # B-121
    def fail(process):
        raise Boom("in terminate")

    pid = lab.probe(at_end=fail)
    end_of(pid, lambda: beam.exit(pid, "shutdown"))
    (report,) = logs.at("error")
    assert "in terminate" in report["reason"]


def test_a_caller_that_dies_of_a_failed_call_tells_its_own_story(lab, logs):  # B-121
    """The crash of the server is one report; the caller did not catch it, which is another crash."""
    server, client = lab.probe(), lab.probe()
    end_of(client, lambda: beam.cast(client, lambda process: beam.call(server, lambda _: {}["missing"])))
    assert {r["pid"] for r in logs.at("error")} == {server.number, client.number}


def test_an_init_that_crashes_is_one_crash_report(lab, logs):  # B-121
    def fail(process):
        raise Boom("stillborn")

    with pytest.raises(beam.StartError):
        lab.probe(at_birth=fail)
    (report,) = logs.at("error")
    assert (report["event"], "stillborn" in report["reason"]) == ("process.exited", True)


def test_an_init_that_refuses_or_takes_too_long_is_the_starters_news_alone(lab, logs):  # B-121
    def refuse(process):
        raise beam.Exit("not today")

    with pytest.raises(beam.StartError):
        lab.probe(at_birth=refuse)
    gate = Gate()
    with pytest.raises(beam.StartError):
        lab.probe(at_birth=gate, start_timeout=0.005)
    gate.open()
    assert logs.at("error") == []


def test_no_record_tells_the_content_of_a_message_or_the_arguments_of_a_start(lab, logs):  # B-120
    pid = lab.probe(Secretive)

    class Vault(beam.Process):
        def init(self, password, *, key):
            self.password = password

    vault = lab.keep(Vault.start(SECRET, key=SECRET))
    beam.send(vault, {"password": SECRET})  # unexpected: a warning
    beam.send(pid, SECRET)
    beam.cast(pid, lambda process, secret=SECRET: None)
    beam.call(pid, lambda process, secret=SECRET: secret)
    with held(pid):
        beam.send(pid, SECRET)
        with pytest.raises(beam.CallTimeout):
            beam.call(pid, lambda process, secret=SECRET: secret, 0.001)
        beam.cast(pid, lambda process, secret=SECRET: None)
    beam.send(pid, SECRET)
    end_of(pid, lambda: beam.send(pid, "crash"))
    beam.send(pid, SECRET)
    pid.actor_inbox.put(SECRET)
    end_of(vault, lambda: beam.exit(vault, "kill"))
    assert {r["event"] for r in logs.everything()} >= {
        "process.started",
        "process.exited",
        "process.unexpected_message",
        "mailbox.dropped",
    }
    assert SECRET not in repr(logs.everything())


def test_nor_do_the_faces_of_what_holds_a_message(lab):  # B-120
    pid = lab.probe()
    senders = queue.SimpleQueue()
    beam.call(pid, lambda process: senders.put(process.sender))
    for thing in (senders.get(timeout=SOON), beam.send_after(1000, beam.Inbox(), SECRET), beam.Inbox()):
        assert SECRET not in repr(thing)
    with held(pid), pytest.raises(beam.CallTimeout) as caught:
        beam.call(pid, SECRET, 0.001)
    assert SECRET not in str(caught.value)


# --- the logger ---------------------------------------------------------------------------------------


def test_a_program_that_configured_nothing_sees_errors_and_no_debug_noise(caplog, monkeypatch):  # B-120
    monkeypatch.setattr(structlog, "is_configured", lambda: False)
    logger = Logger("allm_actors.beam")
    with caplog.at_level(logging.WARNING, logger="allm_actors.beam"):
        logger.debug("quiet", field=1)
        logger.warning("loud", field=2)
    assert [(r.name, r.levelname) for r in caplog.records] == [("allm_actors.beam", "WARNING")]
    assert caplog.records[0].getMessage() == "event='loud' field=2"
    with caplog.at_level(logging.DEBUG, logger="allm_actors.beam"):
        assert logger.wants_debug()
        logger.debug("asked for")
    assert "asked for" in caplog.text


def test_a_level_that_drops_debug_records_has_none_made(logs):
    logger = Logger("allm_actors.beam")
    for level, seen in ((logging.DEBUG, True), (logging.INFO, False), (logging.CRITICAL, False)):
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
        assert logger.wants_debug() is seen
    structlog.configure(wrapper_class=structlog.stdlib.BoundLogger)
    assert logger.wants_debug()  # whose level may change at any time


# --- state --------------------------------------------------------------------------------------------


def test_the_states_of_a_process(lab):  # B-122
    gate, end = Gate(), Gate()
    started = InThread(lambda: lab.probe(at_birth=gate, at_end=end, name="life"))
    gate.wait()
    pid = beam.whereis("life")
    assert (beam.info(pid)["state"], beam.info(pid)["doing"]) == ("starting", "init")
    gate.open()
    started.result()
    waits(pid)
    with held(pid):
        assert beam.info(pid)["state"] == "running"
    leave(pid, "normal")
    end.wait()
    assert beam.info(pid)["state"] == "exiting"
    end.open()
    until(lambda: beam.info(pid)["state"] == "dead")
    other = lab.probe()
    with held(other):
        beam.exit(other, "kill")
        assert beam.info(other)["state"] == "zombie"


def test_what_is_known_of_a_process(lab):  # B-122
    starter, peer = lab.probe(), lab.probe()
    pid = lab.keep(run_in(starter, lambda _: Probe.start(queue.SimpleQueue(), name="known")))
    beam.register("also", pid)
    run_in(pid, lambda process: beam.link(peer))
    run_in(pid, lambda process: beam.monitor(peer) and None)
    beam.monitor(pid, to=beam.Inbox())
    with held(pid):
        beam.send(pid, 1)
        beam.send(pid, 2)
        record = beam.info(pid)
    assert record["pid"] is pid
    assert record["class"] == "Probe"
    assert (record["name"], record["names"]) == ("known", ["known", "also"])
    assert record["ancestors"] == [starter]
    assert record["links"] == [peer]
    assert (record["monitors"], record["monitored_by"]) == ([peer], 1)
    assert record["mailbox_len"] == 2
    assert record["handled"] == 3
    assert record["busy_for"] >= 0
    assert record["doing"] == "Gate"
    assert record["waits_for"] is None
    assert record["uptime"] > 0
    assert record["exit_reason"] is None
    assert beam.info("known")["pid"] is pid
    with pytest.raises(beam.UnknownName):
        beam.info("unknown")


def test_an_idle_process_is_not_busy(lab):  # B-122
    pid = lab.probe()
    sync(pid)
    until(lambda: beam.info(pid)["busy_for"] is None)
    assert beam.info(pid)["doing"] == ""


@pytest.mark.parametrize("wait", ["call", "stop", "start"])
def test_who_waits_for_whom_can_be_seen(lab, wait):  # B-122
    gate = Gate()
    server = lab.probe(name="server")
    pid = lab.probe()
    acts = {
        "call": lambda process: beam.call(server, lambda _: 1, SOON),
        "stop": lambda process: beam.stop(server, timeout=SOON),
        "start": lambda process: Probe.start(queue.SimpleQueue(), at_birth=gate, name="newborn") and None,
    }
    with held(server):
        beam.cast(pid, acts[wait])
        until(lambda: beam.info(pid)["waits_for"] is not None)
        awaited = beam.info(pid)["waits_for"]
        assert awaited is (beam.whereis("newborn") if wait == "start" else server)
        assert beam.info(pid)["state"] == "waiting"
        assert f"waits for {awaited}" in beam.tree()
        gate.open()
    sync(pid)
    assert beam.info(pid)["waits_for"] is None
    if wait == "start":
        beam.stop("newborn")


def test_the_runtime_at_a_glance(lab):  # B-122
    before = beam.info()
    lab.probe(name="one more")
    ref = beam.send_after(1000, beam.Inbox(), 1)
    after = beam.info()
    assert after["processes"] == before["processes"] + 1
    assert after["names"] == before["names"] + 1
    assert after["timers"] == before["timers"] + 1
    assert after["zombies"] == []
    beam.cancel_timer(ref)


def test_processes_are_listed_in_the_order_they_were_started(lab):  # B-122
    pids = [lab.probe() for _ in range(3)]
    assert [pid for pid in beam.processes() if pid in pids] == pids
    beam.stop(pids[1])
    assert [pid for pid in beam.processes() if pid in pids] == [pids[0], pids[2]]


def test_the_tree_shows_who_started_whom(lab):  # B-122
    top = lab.probe(name="top")
    left = lab.keep(run_in(top, lambda _: Probe.start_link(queue.SimpleQueue())))
    leaf = lab.keep(run_in(left, lambda _: Probe.start_link(queue.SimpleQueue(), name="leaf")))
    right = lab.keep(run_in(top, lambda _: Probe.start(queue.SimpleQueue())))
    lines = beam.tree().splitlines()
    at = {
        pid: next(i for i, line in enumerate(lines) if f"Probe {pid.number}" in line)
        for pid in (top, left, leaf, right)
    }
    assert [at[pid] - at[top] for pid in (top, left, leaf, right)] == [0, 1, 2, 3]
    assert lines[at[top]].startswith(f"Probe {top.number} 'top' (")
    assert lines[at[left]].startswith(f"├── Probe {left.number} (")
    assert lines[at[leaf]].startswith(f"│   └── Probe {leaf.number} 'leaf' (")
    assert lines[at[right]].startswith(f"└── Probe {right.number} (")


def test_a_dump_logs_every_process_with_its_stack(lab, logs):  # B-122
    pid = lab.probe(name="dumped")
    with held(pid):
        beam.send(pid, SECRET)
        beam.dump()
    record = next(r for r in logs.of("process.dump") if r["pid"] == str(pid))
    assert "opened.wait" in record["stack"]
    assert record["mailbox_len"] == 1
    assert SECRET not in repr(record)


def test_looking_while_everything_changes_never_fails(lab):  # B-122
    stop = []

    def churn():
        while not stop:
            pid = Probe.start(queue.SimpleQueue(), name=None)
            beam.monitor(pid, to=beam.Inbox())
            beam.stop(pid)

    hub = lab.probe(trap=True)

    def churn_links():
        while not stop:
            pid = Probe.start(queue.SimpleQueue())
            run_in(hub, lambda process, pid=pid: beam.link(pid))
            run_in(hub, lambda process, pid=pid: beam.monitor(pid) and None)
            beam.stop(pid)

    threads = [InThread(churn), InThread(churn_links)]
    try:
        for _ in range(60):
            beam.tree()
            beam.info()
            for pid in beam.processes():
                beam.info(pid)
    finally:
        stop.append(1)
    for thread in threads:
        thread.result()
    assert outcome_in(hub, lambda process: 1) == 1
    beam.stop(hub)


def test_a_program_without_structlog_reads_a_traceback_line_by_line(caplog):
    """Indented under its record, so that no line of it can pass for a record of its own."""

    def fail():
        raise ValueError("first\nevent='forged'")

    pid = beam.spawn(fail)
    until(lambda: any("process.exited" in record.getMessage() for record in caplog.records))
    text = next(r.getMessage() for r in caplog.records if "process.exited" in r.getMessage())
    head, *below = text.split("\n")

    assert f"pid={pid.number}" in head
    assert "traceback" not in head
    assert below[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in below)


def test_a_child_that_did_not_start_is_named_with_its_reason():
    class Broken(beam.Process):
        def init(self):
            raise OSError("no disk")

    with pytest.raises(
        beam.StartError, match="its child 'disk' did not start: crashed with OSError: no disk"
    ):
        beam.Supervisor.start([beam.ChildSpec(id="disk", start=Broken)])
