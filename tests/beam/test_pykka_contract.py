"""What the layer relies on in pykka, so that a new release fails here first; and what pykka's users get."""

import logging
import queue
import threading

import pykka
import pytest
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from allm_actors import beam
from tests.beam._probe import SOON, Boom, InThread, crash, end_of, held, outcome_in, reason_of, run_in, sync

pytestmark = pytest.mark.logs_errors("processes crash here")


# --- what pykka has to have ---------------------------------------------------------------------------


class Bare(pykka.ThreadingActor):
    """An actor that overrides what the layer overrides."""

    made = None

    @staticmethod
    def _create_actor_inbox():
        Bare.made = queue.Queue()
        return Bare.made

    def _start_actor_loop(self):
        self.started_by = threading.current_thread()

    def on_start(self):
        self.born = True

    def on_receive(self, message):
        return message


def test_the_parts_of_pykka_that_are_relied_on_exist_and_behave():  # B-1
    ref = Bare.start()
    try:
        assert ref.actor_inbox is Bare.made  # the inbox is made by the static method
        assert ref in pykka.ActorRegistry.get_all()
        assert isinstance(ref.actor_stopped, threading.Event)
        assert not ref.actor_stopped.is_set()
        assert ref.is_alive()
        ref.tell("letter")
        envelope = ref.actor_inbox.get_nowait()
        assert (envelope.message, envelope.reply_to) == ("letter", None)
        ref.actor_stopped.set()
        assert not ref.is_alive()
    finally:
        pykka.ActorRegistry.unregister(ref)
    assert ref not in pykka.ActorRegistry.get_all()
    pykka.ActorRegistry.unregister(ref)  # not there: no error


def test_an_actor_is_made_in_parts_that_can_be_overridden():  # B-1
    actor = Bare()
    assert actor.actor_inbox is Bare.made
    assert actor.actor_ref.actor_class is Bare
    assert actor.actor_urn.startswith("urn:uuid:")
    assert actor.on_receive("x") == "x"
    assert pykka.ActorRegistry.get_by_urn(actor.actor_urn) is None  # `start` registers, not `__init__`
    actor._start_actor_loop()
    assert actor.started_by is threading.current_thread()


def test_actor_refs_take_any_actor():  # B-1
    ref = pykka.ActorRef(Bare())
    assert ref.actor_class is Bare


def test_futures_take_a_value_or_an_exception_once():  # B-1
    future = pykka.ThreadingFuture()
    future.set(1)
    assert future.get(timeout=0) == 1
    with pytest.raises(queue.Full):
        future.set(2)
    future = pykka.ThreadingFuture()
    future.set_exception((Boom, Boom("x"), None))
    with pytest.raises(Boom):
        future.get(timeout=0)


# --- what pykka's users get ---------------------------------------------------------------------------


def test_a_process_is_a_real_actor(lab):  # B-2
    pid = lab.probe()
    assert isinstance(pid, pykka.ActorRef)
    assert pid in pykka.ActorRegistry.get_all()
    assert pid in pykka.ActorRegistry.get_by_class_name("Probe")
    assert pykka.ActorRegistry.get_by_urn(pid.actor_urn) is pid
    assert pid.is_alive()
    assert run_in(pid, lambda process: isinstance(process, pykka.ThreadingActor) and process.actor_ref) is pid


def test_tell_is_send(lab):  # B-2
    pid = lab.probe()
    pid.tell("hello")
    assert pid.heard.get(timeout=SOON) == "hello"


def test_tell_to_a_dead_process_raises_as_pykka_does(lab):  # B-2
    pid = lab.probe()
    beam.stop(pid)
    with pytest.raises(pykka.ActorDeadError):
        pid.tell("hello")


def test_ask_is_a_call(lab):  # B-2
    pid = lab.probe()
    assert pid.ask(lambda process: 1) == 1
    assert pid.ask(lambda process: 2, block=False).get(timeout=SOON) == 2
    assert pid.ask(lambda process: 3, timeout=SOON) == 3


@pytest.mark.parametrize("block", [True, False])
def test_ask_of_a_process_that_crashes_names_the_cause(lab, block):  # B-2
    pid = lab.probe()

    def ask():
        answer = pid.ask(lambda process: {}[0], block=block)
        return answer if block else answer.get(timeout=SOON)

    with pytest.raises(pykka.ActorDeadError) as caught:
        ask()
    assert isinstance(caught.value.__cause__, beam.ProcessExit)
    assert isinstance(caught.value.__cause__.reason.exception, KeyError)
    assert not pid.is_alive()
    with pytest.raises(pykka.ActorDeadError) as caught:
        ask()
    assert isinstance(caught.value.__cause__, beam.NoProcess)


def test_ask_passes_on_what_the_server_failed_it_with(lab):  # B-2
    pid = lab.probe()

    def refuse(process):
        process.sender.fail(Boom("no"))
        return beam.NO_REPLY

    with pytest.raises(Boom):
        pid.ask(refuse)
    with pytest.raises(Boom):
        pid.ask(refuse, block=False).get(timeout=SOON)
    assert pid.is_alive()


def test_ask_has_a_timeout_after_which_the_call_is_given_up(lab):  # B-2
    pid = lab.probe()
    with held(pid), pytest.raises(pykka.Timeout):
        pid.ask(lambda process: 1, timeout=0.01)
    sync(pid)
    assert not pid._cell.calls


def test_a_process_that_asks_itself_is_told_so(lab):  # B-2
    pid = lab.probe()
    error = outcome_in(pid, lambda process: process.actor_ref.ask(1))
    assert isinstance(error, pykka.ActorDeadError)
    assert isinstance(error.__cause__, beam.CallingSelf)


def test_stop_of_a_ref_ends_the_process_normally(lab):  # B-2
    pid = lab.probe()
    assert reason_of(pid, pid.stop) == "normal"
    assert pid.stop() is False
    assert pid.stop(block=False).get(timeout=SOON) is False
    other = lab.probe()
    assert other.stop(block=False).get(timeout=SOON) is True
    assert not other.is_alive()


def test_stop_of_a_ref_has_a_timeout(lab):  # B-2
    pid = lab.probe()
    with held(pid), pytest.raises(pykka.Timeout):
        pid.stop(timeout=0.01)


def test_an_actor_may_stop_itself_as_in_pykka(lab):  # B-2
    pid = lab.probe()
    assert reason_of(pid, lambda: beam.cast(pid, lambda process: process.stop())) == "normal"


def test_stop_all_ends_every_process(lab):  # B-2
    before = set(pykka.ActorRegistry.get_all())
    pids = [lab.probe() for _ in range(3)]
    for ref in before:
        pykka.ActorRegistry.unregister(ref)
    try:
        assert pykka.ActorRegistry.stop_all(timeout=SOON) == [True, True, True]
    finally:
        for ref in before:
            pykka.ActorRegistry.register(ref)
    assert not any(pid.alive for pid in pids)
    assert pids[0].heard.get(timeout=SOON) == ("terminate", "normal")


def test_broadcast_reaches_processes(lab):  # B-2
    class Listener(beam.Process):
        def init(self, heard):
            self.heard = heard

        def handle_info(self, message):
            self.heard.put(message)

    pid = lab.probe(Listener)
    pykka.ActorRegistry.broadcast("all of you", target_class=Listener)
    assert pid.heard.get(timeout=SOON) == "all of you"


def test_there_is_no_proxy(lab):  # B-2
    pid = lab.probe()
    with pytest.raises(TypeError, match=r"call.*cast"):
        pid.proxy()


def test_an_envelope_in_the_inbox_is_handled_as_pykka_would(lab):  # B-1
    pid = lab.probe()
    pid.actor_inbox.put(Envelope("plain"))
    assert pid.heard.get(timeout=SOON) == "plain"
    future = pykka.ThreadingFuture()
    pid.actor_inbox.put(Envelope(lambda process: 7, reply_to=future))
    assert future.get(timeout=SOON) == 7
    assert reason_of(pid, lambda: pid.actor_inbox.put(Envelope(_ActorStop()))) == "normal"


@pytest.mark.parametrize("how", ["waiting", "late", "in hand"])
def test_whoever_asked_by_envelope_is_never_left_hanging(lab, how):  # B-11
    pid = lab.probe()
    future = pykka.ThreadingFuture()
    if how == "in hand":
        pid.actor_inbox.put(Envelope(lambda process: {}[0], reply_to=future))
    elif how == "waiting":
        with held(pid):
            pid.actor_inbox.put(Envelope(lambda process: 1, reply_to=future))
            beam.exit(pid, "shutdown")
    else:
        beam.stop(pid)
        pid.actor_inbox.put(Envelope(lambda process: 1, reply_to=future))
    with pytest.raises(pykka.ActorDeadError):
        future.get(timeout=SOON)


@pytest.mark.parametrize("error", [Boom("x"), KeyboardInterrupt(), SystemExit(1)])
def test_nothing_escapes_into_pykkas_loop(lab, caplog, error):  # B-8
    class Bystander(pykka.ThreadingActor):
        use_daemon_thread = True

    bystander = Bystander.start()
    try:
        with caplog.at_level(logging.INFO, logger="pykka"):
            pid = lab.probe()
            reason = reason_of(pid, lambda: crash(pid, error))
            assert reason == beam.Crash(error)
        assert [r for r in caplog.records if r.name == "pykka"] == []
        assert bystander.is_alive()
    finally:
        bystander.stop()


def test_the_registry_is_left_before_anybody_hears_of_the_death(lab):  # B-9
    pid = lab.probe()
    seen = queue.SimpleQueue()
    beam.monitor(pid, to=lambda down: seen.put((pid in pykka.ActorRegistry.get_all(), pid.is_alive())))
    beam.exit(pid, "shutdown")
    assert seen.get(timeout=SOON) == (False, False)


def test_a_waiting_ask_is_ended_by_an_exit(lab):  # B-22
    server, asker = lab.probe(), lab.probe()
    with held(server):
        beam.cast(asker, lambda process: server.ask(lambda _: 1))
        assert end_of(asker, lambda: beam.exit(asker, "enough")).reason == "enough"


def test_an_ask_from_another_thread_is_interrupted_by_nothing_but_its_answer(lab):  # B-2
    pid = lab.probe()
    with held(pid):
        asked = InThread(lambda: pid.ask(lambda process: 5))
    assert asked.result() == 5
