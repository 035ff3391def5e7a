"""Mailboxes: nothing stranded, order, bounds, and the inbox of threads that are no processes."""

import gc
import math
import queue
import signal
import threading
import weakref

import pytest

from allm_actors import beam
from allm_actors.beam.mailbox import Counted, Mailbox, Wake
from tests.beam._probe import SOON, InThread, Probe, held, outcome_in, run_in, sync, until

pytestmark = pytest.mark.logs_errors("processes end abnormally here")


# --- the mailbox of a process -------------------------------------------------------------------------


def test_a_mailbox_speaks_pykkas_protocol():  # B-11
    box = Mailbox()
    assert box.empty()
    box.put("a")
    box.put("b")
    assert (len(box), box.empty()) == (2, False)
    assert (box.get(), box.get()) == ("a", "b")


def test_what_is_put_into_a_closed_mailbox_is_dropped(logs):  # B-11
    box = Mailbox()
    box.put("before")
    box.close()
    box.put("after")
    assert box.empty()
    assert box.dropped == 2
    assert [record["count"] for record in logs.of("mailbox.dropped")] == [1, 1]
    assert {record["level"] for record in logs.of("mailbox.dropped")} == {"debug"}


def test_a_put_that_lands_after_the_close_is_dropped_by_whoever_put_it():  # B-11
    box = Mailbox()

    class Late:
        """Closes the mailbox between a put's decision and its deed."""

        def __init__(self, inner):
            self.inner = inner

        def put(self, item):
            box.close()
            self.inner.put(item)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    box._queue = Late(box._queue)
    box.put("late")
    assert box.empty()
    assert box.dropped == 1


def test_putting_is_reentrant_from_a_finalizer(lab):  # B-11
    """A collection may run a finalizer that sends inside of any other send."""
    pid = lab.probe()
    count = 300

    class Cycle:
        def __init__(self):
            self.me = self

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(count):
            weakref.finalize(Cycle(), beam.send, pid, ("finalized", number)).atexit = False
            beam.send(pid, ("sent", number))
        gc.collect()
    finally:
        gc.set_threshold(*threshold)
    sync(pid)
    heard = [pid.heard.get_nowait() for _ in range(2 * count)]
    assert [n for kind, n in heard if kind == "sent"] == list(range(count))
    assert sorted(n for kind, n in heard if kind == "finalized") == list(range(count))


def test_putting_is_reentrant_from_a_signal_handler(lab):  # B-11
    pid = lab.probe()
    before = signal.signal(signal.SIGUSR1, lambda *_: beam.send(pid, "from a handler"))
    try:
        for _ in range(50):
            beam.send(pid, "plain")
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    sync(pid)
    heard = [pid.heard.get_nowait() for _ in range(100)]
    assert heard.count("from a handler") == 50


def test_a_finalizer_inside_a_bounded_put_does_not_deadlock(lab):  # B-11
    class Bounded(Probe):
        max_mailbox = 1000

    pid = lab.probe(Bounded)

    class Cycle:
        def __init__(self):
            self.me = self

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(100):
            weakref.finalize(Cycle(), beam.send, pid, number).atexit = False
            beam.send(pid, number)
        gc.collect()
    finally:
        gc.set_threshold(*threshold)
    sync(pid)
    assert pid.heard.qsize() == 200


def test_orders_to_exit_overtake_messages(lab):  # B-11
    pid = lab.probe()
    with held(pid):
        for number in range(3):
            beam.send(pid, number)
        beam.exit(pid, "now")
    assert pid.heard.get(timeout=SOON) == ("terminate", "now")
    assert pid.heard.qsize() == 0


def test_messages_of_one_thread_arrive_in_order(lab):  # B-12
    pid = lab.probe()
    count = 2000

    def sender(name):
        for number in range(count):
            beam.send(pid, (name, number))

    senders = [InThread(sender, name) for name in "ab"]
    for one in senders:
        one.result()
    sync(pid)
    heard = [pid.heard.get_nowait() for _ in range(2 * count)]
    for name in "ab":
        assert [number for who, number in heard if who == name] == list(range(count))


def test_calls_casts_and_sends_of_one_thread_keep_their_order(lab):  # B-12
    pid = lab.probe()
    beam.send(pid, 1)
    beam.cast(pid, lambda process: process.heard.put(2))
    beam.call(pid, lambda process: process.heard.put(3))
    beam.send(pid, 4)
    sync(pid)
    assert [pid.heard.get_nowait() for _ in range(4)] == [1, 2, 3, 4]


def test_messages_are_handed_over_not_copied(lab):  # B-12
    pid = lab.probe()
    message = object()
    beam.send(pid, message)
    assert pid.heard.get(timeout=SOON) is message


# --- send and cast ------------------------------------------------------------------------------------


def test_send_says_whether_there_was_somebody(lab):  # B-13
    pid = lab.probe(name="listener")
    assert beam.send(pid, 1) is True
    assert beam.send("listener", 2) is True
    sync(pid)
    beam.stop(pid)
    assert beam.send(pid, 3) is False
    with pytest.raises(beam.UnknownName):
        beam.send("listener", 4)


def test_send_to_a_process_that_ends_of_the_message_was_delivered(lab):  # B-13
    class Mayfly(beam.Process):
        def handle_info(self, message):
            return beam.Stop("normal")

    assert all(beam.send(lab.keep(Mayfly.start()), 1) for _ in range(20))


def test_cast_never_raises_for_a_missing_receiver(lab):  # B-13
    pid = lab.probe()
    beam.stop(pid)
    assert beam.cast(pid, 1) is None
    assert beam.cast("nobody", 1) is None


# --- bounds -------------------------------------------------------------------------------------------


class Narrow(Probe):
    max_mailbox = 2


def test_a_full_mailbox_refuses_at_once(lab):  # B-16
    pid = lab.probe(Narrow)
    with held(pid):
        beam.send(pid, 1)
        beam.cast(pid, lambda process: None)
        for ask in (beam.send, beam.cast, beam.call):
            with pytest.raises(beam.MailboxFull) as caught:
                ask(pid, 3)
            assert (caught.value.pid, caught.value.bound) == (pid, 2)
        assert pid._cell.calls == {}
    assert pid.heard.get(timeout=SOON) == 1
    until(pid._cell.mailbox._room.empty)
    beam.send(pid, 2)  # there is room again
    assert pid.heard.get(timeout=SOON) == 2


def test_what_is_not_a_message_from_others_always_gets_in(lab):  # B-16
    class Trapping(Narrow):
        trap_exit = True

        def init(self, heard):
            self.heard, self.at_end = heard, None

    peer = lab.probe()
    pid = lab.probe(Trapping)
    run_in(pid, lambda process: beam.monitor(peer) and None)
    fired = threading.Event()
    with held(pid):
        beam.send(pid, 1)
        beam.send(pid, 2)
        beam.exit(pid, "signal")
        beam.exit(peer, "gone")
        beam.send_after(0, pid, "timer")
        beam.send_after(0, lambda _: fired.set(), None)
        assert fired.wait(SOON)
        until(lambda: not peer.alive)
    heard = [pid.heard.get(timeout=SOON) for _ in range(5)]
    assert heard[:2] == [1, 2]
    assert beam.ExitMessage(None, "signal") in heard
    assert "timer" in heard
    assert any(isinstance(item, beam.Down) for item in heard)
    with held(pid):
        beam.send(pid, 1)
        beam.send(pid, 2)
        stopped = InThread(beam.stop, pid)
    stopped.result()


def test_a_process_may_send_itself_more_than_its_bound(lab):  # B-16
    pid = lab.probe(Narrow)
    run_in(pid, lambda process: [beam.send(process.pid, n) for n in range(5)] and None)
    sync(pid)
    assert [pid.heard.get_nowait() for _ in range(5)] == list(range(5))


def test_the_bound_holds_against_many_senders(lab):  # B-16
    class Bounded(Probe):
        max_mailbox = 10

    pid = lab.probe(Bounded)
    sent = queue.SimpleQueue()

    def hammer():
        for _ in range(100):
            try:
                beam.send(pid, 1)
                sent.put(1)
            except beam.MailboxFull:
                pass

    with held(pid):
        for one in [InThread(hammer) for _ in range(4)]:
            one.result()
        assert sent.qsize() == 10
        assert beam.info(pid)["mailbox_len"] == 10


def test_a_counted_message_stops_counting_when_read():  # B-16
    box = Mailbox(1)
    box.put_message("a", None)
    with pytest.raises(beam.MailboxFull):
        box.put_message("b", None)
    assert box.get() == "a"
    box.put_message("b", None)
    assert type(box._queue.get_nowait()) is Counted


# --- handle_info --------------------------------------------------------------------------------------


def test_handle_info_gets_what_is_no_call_and_no_cast(lab):  # B-17
    peer = lab.probe()
    pid = lab.probe(trap=True)
    run_in(pid, lambda process: beam.link(peer))
    ref = run_in(pid, lambda process: beam.monitor(peer))
    beam.send(pid, "plain")
    assert pid.heard.get(timeout=SOON) == "plain"
    beam.send_after(0, pid, "timer")
    assert pid.heard.get(timeout=SOON) == "timer"
    beam.exit(peer, "over")
    both = [pid.heard.get(timeout=SOON) for _ in range(2)]
    assert beam.ExitMessage(peer, "over") in both
    assert beam.Down(ref, peer, "over") in both
    beam.stop(pid)


# --- inboxes ------------------------------------------------------------------------------------------


def test_an_inbox_is_a_mailbox_for_any_thread(lab):  # B-18
    inbox = beam.Inbox()
    pid = lab.probe()
    beam.send(inbox, 1)
    assert inbox.put(2) is True
    beam.monitor(pid, to=inbox)
    assert [inbox.receive(SOON), inbox.receive(SOON)] == [1, 2]
    beam.stop(pid)
    assert inbox.receive(SOON).reason == "normal"
    beam.send_after(0, inbox, "timer")
    assert inbox.receive(SOON) == "timer"


def test_an_inbox_says_when_nothing_comes():  # B-18
    inbox = beam.Inbox()
    with pytest.raises(queue.Empty):
        inbox.receive(0)
    with pytest.raises(queue.Empty):
        inbox.receive(0.005)
    for timeout in (-1, math.nan):
        with pytest.raises(ValueError):
            inbox.receive(timeout)
    for timeout in (True, "1", None):
        with pytest.raises(TypeError):
            inbox.receive(timeout)


def test_a_closed_inbox_gives_what_it_has_and_then_says_so():  # B-18
    inbox = beam.Inbox()
    inbox.put(1)
    inbox.put(2)
    inbox.close()
    inbox.close()
    assert inbox.closed
    assert inbox.put(3) is False
    assert beam.send(inbox, 3) is False
    assert list(inbox) == [1, 2]
    for _ in range(2):
        with pytest.raises(beam.MailboxClosed):
            inbox.receive(0)


def test_closing_an_inbox_wakes_everybody_who_waits_for_it():  # B-18
    inbox = beam.Inbox()
    readers = [InThread(inbox.receive) for _ in range(3)]
    inbox.close()
    assert [type(reader.error()) for reader in readers] == [beam.MailboxClosed] * 3


def test_a_process_that_waits_on_an_inbox_is_ended_by_an_exit(lab):  # B-22
    inbox = beam.Inbox()
    pid = lab.probe()
    beam.cast(pid, lambda process: inbox.receive())
    until(lambda: beam.info(pid)["state"] == "waiting" and pid._cell.parked is not None)
    beam.exit(pid, "enough")
    assert pid.heard.get(timeout=SOON) == ("terminate", "enough")


def test_a_wake_finds_its_reader_among_several(lab):  # B-22
    inbox = beam.Inbox()
    pids = [lab.probe() for _ in range(3)]
    for pid in pids:
        beam.cast(pid, lambda process: process.heard.put(inbox.receive()))
    other = InThread(inbox.receive)
    until(lambda: all(pid._cell.parked is not None for pid in pids))
    beam.exit(pids[1], "you alone")
    assert pids[1].heard.get(timeout=SOON) == ("terminate", "you alone")
    for number in range(3):
        inbox.put(number)
    got = [other.result()] + [pids[i].heard.get(timeout=SOON) for i in (0, 2)]
    assert sorted(got) == [0, 1, 2]


def test_a_wake_nobody_waits_for_is_dropped():  # B-18
    inbox = beam.Inbox()
    pid = beam.Process.start()
    inbox._queue.put(Wake(pid._cell))
    inbox.put("message")
    assert inbox.receive(SOON) == "message"
    inbox._queue.put(Wake(pid._cell))
    inbox.close()
    with pytest.raises(beam.MailboxClosed):
        inbox.receive(SOON)
    beam.stop(pid)


@pytest.mark.parametrize(
    "what",
    [
        beam.link,
        beam.unlink,
        beam.monitor,
        lambda pid: beam.spawn(print, link=True),
        lambda pid: beam.spawn(print, monitor=True),
    ],
    ids=["link", "unlink", "monitor", "spawn link", "spawn monitor"],
)
def test_what_needs_a_process_says_so_outside_of_one(lab, what):  # B-18
    with pytest.raises(beam.NotAProcess, match="process"):
        what(lab.probe())


def test_receive_in_a_process_leaves_its_own_mailbox_alone(lab):  # B-18
    inbox = beam.Inbox()
    pid = lab.probe()
    inbox.put("a")
    beam.send(pid, "b")
    assert outcome_in(pid, lambda process: inbox.receive()) == "a"
    assert pid.heard.get(timeout=SOON) == "b"
