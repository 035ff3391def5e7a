"""Ending blocking calls from outside: interrupters and scopes."""

from __future__ import annotations

import queue
import socket
import threading

import pytest

from allm_actors import beam
from allm_actors.beam.interrupt import Interrupted, Scope, interruptible


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    duplicate = ours.dup()
    yield ours, theirs, duplicate
    for each in (ours, theirs, duplicate):
        each.close()


def in_thread(function):
    found: queue.SimpleQueue = queue.SimpleQueue()

    def run():
        try:
            found.put(function())
        except BaseException as error:
            found.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


# --- interruptible --------------------------------------------------------------------------------------


def test_outside_a_process_interruptible_does_nothing():
    """B-75."""
    with interruptible(pytest.fail):
        pass


class Blocked(beam.Process):
    """A process that blocks in something only its interrupter ends."""

    def init(self, news):
        self.news = news
        self.release = threading.Event()
        self.runs = []
        self.continue_with("go")

    def handle_continue(self, token):
        with interruptible(self.interrupt):
            self.news.put("blocked")
            self.release.wait(5)
        self.news.put(("woken", len(self.runs), self.runs[0] if self.runs else None))
        beam.checkpoint()

    def interrupt(self):
        self.runs.append(threading.get_ident())
        self.release.set()


@pytest.mark.logs_errors("a process that was killed is reported")
@pytest.mark.parametrize("reason", ["shutdown", "kill"])
def test_an_exit_or_kill_runs_the_interrupter_in_the_senders_thread_once(reason):
    """B-72, B-75."""
    news = queue.SimpleQueue()
    pid = Blocked.start(news)
    assert news.get(timeout=5) == "blocked"

    beam.exit(pid, reason)
    beam.exit(pid, "again")

    assert news.get(timeout=5) == ("woken", 1, threading.get_ident())


@pytest.mark.logs_errors("a process that was killed is reported")
def test_an_interrupter_does_not_run_after_its_block():
    """B-75: the callback must not touch what others may own by then."""
    ran = []
    entered, go = threading.Event(), threading.Event()

    def work():
        with interruptible(lambda: ran.append(1)):
            pass
        entered.set()
        go.wait(5)

    pid = beam.spawn(work)
    assert entered.wait(5)
    beam.exit(pid, "kill")
    go.set()

    assert ran == []


def test_a_process_told_before_runs_the_interrupter_at_once():
    """B-75, B-22: an order that came first is not missed."""
    ran = queue.SimpleQueue()
    ready, go = threading.Event(), threading.Event()

    def work():
        ready.set()
        go.wait(5)
        with interruptible(lambda: ran.put("ran")):
            pass

    pid = beam.spawn(work)
    assert ready.wait(5)
    beam.exit(pid, "shutdown")
    go.set()

    assert ran.get(timeout=5) == "ran"


# --- scopes ---------------------------------------------------------------------------------------------


def test_the_current_scope_is_the_one_entered_last():
    """B-95."""
    assert Scope.current() is None
    with Scope() as outer:
        with Scope() as inner:
            assert Scope.current() is inner
        assert Scope.current() is outer
    assert Scope.current() is None


def test_scopes_belong_to_their_thread():
    with Scope():
        thread, found = in_thread(Scope.current)
        thread.join(5)
        assert found.get(timeout=5) is None


def test_scopes_may_be_left_in_any_order_and_thread():
    """A generator holds its scope while it is suspended, and may be closed by anybody."""
    first, second = Scope(), Scope()
    first.__enter__()
    second.__enter__()

    thread, _ = in_thread(lambda: first.__exit__(None, None, None))
    thread.join(5)

    assert Scope.current() is second
    second.__exit__(None, None, None)
    assert Scope.current() is None


def test_a_scope_is_entered_once():
    with Scope() as scope:
        with pytest.raises(RuntimeError):
            scope.__enter__()


def test_interrupt_wakes_a_blocked_read_of_what_is_attached(pair):
    """B-95: by shutting the duplicate down."""
    ours, _, duplicate = pair
    with Scope() as scope:
        scope.attach(duplicate)
        thread, found = in_thread(lambda: ours.recv(1))

        scope.interrupt()
        scope.interrupt()

        assert found.get(timeout=5) == b""
        assert scope.interrupted
        thread.join(5)


def test_what_was_detached_is_not_cut(pair):
    """B-95: a late interrupt cannot hurt the next user."""
    ours, theirs, duplicate = pair
    with Scope() as scope:
        scope.attach(duplicate)
        assert scope.detach(duplicate)

        scope.interrupt()

    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"


def test_detaching_tells_whether_it_was_cut(pair):
    """B-98."""
    with Scope() as scope:
        scope.attach(pair[2])
        scope.interrupt()

        assert not scope.detach(pair[2])


def test_an_interrupted_scope_takes_nothing_any_more(pair):
    """B-97."""
    with Scope() as scope:
        scope.check()
        scope.interrupt()

        with pytest.raises(Interrupted):
            scope.check()
        with pytest.raises(Interrupted):
            scope.attach(pair[2])
        with pytest.raises(Interrupted):
            with scope.uncut():
                pytest.fail("the step must not be taken")


def test_an_interrupt_waits_for_a_step_that_must_not_be_cut(pair):
    ours, theirs, duplicate = pair
    with Scope() as scope:
        scope.attach(duplicate)
        with scope.uncut():
            thread, _ = in_thread(scope.interrupt)
            theirs.sendall(b"x")
            assert ours.recv(1) == b"x"
            assert not scope.interrupted
        thread.join(5)
        assert scope.interrupted


def test_an_adopted_duplicate_is_cut_and_closed_with_the_scope(pair):
    """B-96: a connection object may go while its answer is still being read."""
    ours, _, duplicate = pair
    with Scope() as scope:
        scope.attach(duplicate)
        scope.adopt(duplicate)
        assert duplicate.fileno() != -1
        thread, found = in_thread(lambda: ours.recv(1))
        scope.interrupt()
        assert found.get(timeout=5) == b""
        thread.join(5)

    assert duplicate.fileno() == -1


def test_what_an_interrupted_scope_adopts_is_cut(pair):
    """B-95, B-96."""
    ours, _, duplicate = pair
    with Scope() as scope:
        scope.interrupt()
        scope.adopt(duplicate)

        assert ours.recv(1) == b""


def test_what_comes_too_late_to_be_adopted_is_closed(pair):
    """B-96: every duplicate is closed in the end."""
    with Scope() as scope:
        pass
    scope.adopt(pair[2])

    assert pair[2].fileno() == -1


def test_an_adopted_duplicate_may_be_closed_before_the_scope_ends(pair):
    """B-96: one that is left would keep the peer from seeing the end of the connection."""
    ours, theirs, duplicate = pair
    with Scope() as scope:
        scope.attach(duplicate)
        scope.adopt(duplicate)
        scope.release()
        ours.close()

        assert theirs.recv(1) == b""


def test_after_its_end_a_scope_cuts_nothing(pair):
    ours, theirs, duplicate = pair
    with Scope() as scope:
        scope.attach(duplicate)
    scope.interrupt()

    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"


def test_cutting_what_has_gone_already_is_harmless(pair):
    ours, theirs, duplicate = pair
    with Scope() as scope:
        scope.attach(duplicate)
        theirs.close()
        ours.close()
        duplicate.close()

        scope.interrupt()


@pytest.mark.logs_errors("a process that was killed is reported")
@pytest.mark.parametrize("reason", ["shutdown", "kill"])
def test_an_exit_cuts_the_scope_of_a_process(pair, reason):
    """B-75, B-95: and the next checkpoint raises `Exit`."""
    ours, _, duplicate = pair
    news = queue.SimpleQueue()

    def work():
        with Scope() as scope:
            scope.attach(duplicate)
            news.put("reading")
            news.put(ours.recv(1))
            try:
                scope.check()
            except beam.Exit as error:
                news.put(error.reason)
                raise

    pid = beam.spawn(work)
    assert news.get(timeout=5) == "reading"

    beam.exit(pid, reason)

    assert news.get(timeout=5) == b""
    assert news.get(timeout=5) == ("killed" if reason == "kill" else reason)


@pytest.mark.race
def test_an_interrupt_cuts_before_or_is_seen_never_neither(pair):
    """B-95: attaching and interrupting at once."""
    for _ in range(300):
        ours, theirs = socket.socketpair()
        duplicate = ours.dup()
        with Scope() as scope:
            thread, _ = in_thread(scope.interrupt)
            try:
                scope.attach(duplicate)
            except Interrupted:
                pass
            else:
                ours.settimeout(5)
                assert ours.recv(1) == b""
            thread.join(5)
        for each in (ours, theirs, duplicate):
            each.close()
