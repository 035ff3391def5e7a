"""Engines that run: their processes, their restarts, their connections, their messages."""

import gc
import math
import os
import queue
import threading
import time
import warnings
from dataclasses import dataclass

import pytest

from allm_actors import beam
from allm_actors.beam.supervisor import ChildSpec, start_child, which_children
from allm_actors.data import Message, MessageCompleted, MessageStarted, Request
from allm_actors.engine import (
    Adapter,
    AdapterStream,
    CallContext,
    Connection,
    Engine,
    EngineRef,
    borrow,
    check_engine,
    locate,
    processes,
    start_engine,
)
from allm_actors.errors import AdapterError, EngineError
from allm_actors.providers.fake import Fake

DEADLINE = 10


class Probe(Adapter):
    """An adapter that reports every connection made and closed on a queue of its class."""

    label: str = "probe"

    def connect(self):
        fail = news.fail.pop(0) if news.fail else None
        if fail is not None:
            raise fail
        connection = ProbeConnection(self)
        news.put(("connected", self.label, connection))
        return connection


class ProbeConnection(Connection):
    def __init__(self, config):
        self.config = config
        self.closed = 0
        self.process = beam.current()

    def stream(self, request, call):
        return AdapterStream(
            iter(
                [
                    MessageStarted(message=Message(role="assistant", content="")),
                    MessageCompleted(message=Message(role="assistant", content=self.config.label)),
                ]
            )
        )

    def close(self):
        self.closed += 1
        news.put(("closed", self.config.label, self))


class News(queue.SimpleQueue):
    def __init__(self):
        super().__init__()
        self.fail = []

    def next(self, kind):
        what, label, connection = self.get(timeout=DEADLINE)
        assert what == kind, f"{what} of {label}, not {kind}"
        return connection

    def quiet(self):
        assert self.empty(), self.get()


news = News()


@pytest.fixture(autouse=True)
def fresh_news():
    global news
    news = News()
    yield
    gc.collect()


def crash(pid):
    """Kills a process the way a bug would: an exception in a callback."""
    watch = beam.Inbox()
    beam.monitor(pid, to=watch)
    beam.exit(pid, "boom")
    watch.receive(timeout=DEADLINE)


def eventually(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


def text_of(lease):
    return lease.connection.generate(Request(messages=[]), CallContext()).message.content


# --- what is started ----------------------------------------------------------------------------------


def test_a_started_engine_has_its_three_processes_in_order():  # C-93
    with start_engine(Engine(adapter=Probe()), "three") as ref:
        connection = news.next("connected")
        lease = borrow("three")
        kinds = [(child_id, kind) for child_id, _pid, kind in which_children(ref._home.supervisor)]

        assert kinds == [("adapter", "worker"), ("streams", "supervisor"), ("engine", "worker")]
        assert lease.connection is connection
        assert connection.process == lease.adapter_pid
        assert beam.whereis("three") is not None
        assert lease.name == ref.name == "three"
        assert ref._home.supervisor in [pid for _, pid, _ in which_children(beam.root())]
    assert news.next("closed") is connection
    assert beam.whereis("three") is None


@pytest.mark.logs_errors("a process that cannot start is a crash report")
def test_a_connect_that_raises_comes_out_unchanged_and_leaves_nothing():  # C-93
    class OddError(Exception):
        pass

    odd = OddError("no")
    news.fail = [odd]

    with pytest.raises(OddError) as caught:
        start_engine(Engine(adapter=Probe()), "odd")

    assert caught.value is odd
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    with pytest.raises(EngineError, match="no engine runs") as down:
        locate("odd")
    assert down.value.reason == "engine_down"
    start_engine(Engine(adapter=Probe()), "odd").stop()


def test_a_name_is_given_once_and_free_after_the_stop():  # C-93, C-95
    first = start_engine(Engine(adapter=Fake()), "once")
    with pytest.raises(ValueError, match="'once' is in use"):
        start_engine(Engine(adapter=Fake()), "once")
    first.stop()
    first.stop()  # idempotent
    start_engine(Engine(adapter=Fake()), "once").stop()


@pytest.mark.logs_errors("a process that cannot start is logged")
def test_a_name_another_process_has_is_refused():  # C-93
    with pytest.raises(ValueError, match="in use"):
        holder = beam.spawn(lambda: beam.sleep(30), name="taken")
        try:
            start_engine(Engine(adapter=Fake()), "taken")
        finally:
            beam.exit(holder, "shutdown")


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (["engine"], {}, TypeError),
        ([Engine(), 3], {}, TypeError),
        ([Engine(), ""], {}, ValueError),
        ([Engine()], {"max_restarts": True}, TypeError),
        ([Engine()], {"max_restarts": -1}, ValueError),
        ([Engine()], {"max_seconds": "5"}, TypeError),
        ([Engine()], {"max_seconds": 0}, ValueError),
        ([Engine()], {"max_seconds": math.nan}, ValueError),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(arguments, options, error):  # C-8, C-93
    with pytest.raises(error):
        start_engine(*arguments, **options)


# --- what stands for an engine ------------------------------------------------------------------------


def test_an_engine_a_reference_and_a_name_stand_for_an_engine():  # C-9
    engine = Engine(adapter=Fake())
    with start_engine(engine, "found") as ref:
        assert locate(engine).engine is engine
        assert locate(ref).engine is engine
        assert locate("found").engine is engine
        assert [locate(engine).name, locate(ref).name] == [None, "found"]


@pytest.mark.parametrize("wrong", [None, 3, Fake(), {"adapter": None}])
def test_anything_else_is_a_type_error(wrong):  # C-9
    with pytest.raises(TypeError, match=type(wrong).__name__):
        locate(wrong)
    with pytest.raises(TypeError, match=type(wrong).__name__):
        check_engine(wrong)


def test_a_name_or_reference_behind_which_nothing_runs_is_down():  # C-9
    ref = start_engine(Engine(adapter=Fake()), "gone")
    ref.stop()
    for engine in (ref, "gone", "never"):
        with pytest.raises(EngineError) as down:
            locate(engine)
        assert down.value.reason == "engine_down"
    with pytest.raises(EngineError) as down:
        ref.update(lambda engine: engine)
    assert down.value.reason == "engine_down"


@pytest.mark.parametrize("started", [True, False])
def test_an_engine_without_an_adapter_shows_at_the_call(started):  # C-34, C-47
    engine = Engine()
    ref = start_engine(engine) if started else engine
    site = locate(ref)
    with pytest.raises(EngineError) as missing:
        site.borrow()
    assert missing.value.reason == "missing_adapter"
    if started:
        ref.stop()


# --- plain engines ------------------------------------------------------------------------------------


def test_a_plain_engine_starts_its_processes_at_the_first_call_only():  # C-51, C-94
    adapter = Probe()
    engine = Engine(adapter=adapter)
    site = locate(engine)
    news.quiet()

    leases = [site.borrow(), borrow(engine), borrow(engine.with_model("other"))]

    connection = news.next("connected")
    assert [lease.connection for lease in leases] == [connection] * 3
    news.quiet()
    supervisor = supervisor_of(leases[0])
    assert [child_id for child_id, _, _ in which_children(supervisor)] == ["adapter", "streams"]
    assert beam.whereis(adapter) is None


def supervisor_of(lease):
    return next(
        pid
        for _, pid, _ in which_children(beam.root())
        if isinstance(pid, beam.Pid) and lease.adapter_pid in [child for _, child, _ in _children(pid)]
    )


def _children(pid):
    try:
        return which_children(pid)
    except beam.ProcessExit:
        return []


def test_equal_values_do_not_share_processes():  # C-94
    one, other = Probe(), Probe()
    assert one == other

    first, second = borrow(Engine(adapter=one)), borrow(Engine(adapter=other))

    assert first.connection is not second.connection
    assert first.adapter_pid != second.adapter_pid


def test_many_threads_that_call_first_start_one_set():  # C-94
    engine = Engine(adapter=Probe())
    start = threading.Barrier(8)
    found = queue.SimpleQueue()

    def call():
        start.wait(DEADLINE)
        found.put(borrow(engine).connection)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert len({id(found.get(timeout=DEADLINE)) for _ in threads}) == 1
    news.next("connected")
    news.quiet()


def test_the_processes_of_a_plain_engine_end_with_the_adapter_value():  # C-51, C-94
    engine = Engine(adapter=Probe())
    lease = borrow(engine)
    pid = lease.adapter_pid
    connection = news.next("connected")

    del engine
    gc.collect()
    assert pid.alive, "a lease keeps the value, and the value its processes"

    del lease
    gc.collect()
    assert news.next("closed") is connection
    eventually(lambda: not pid.alive)


def test_the_processes_hold_a_twin_with_the_same_private_state():  # C-94
    fake = Fake(scripts=[[("text", "one")], [("text", "two")]])
    lease = borrow(Engine(adapter=fake))
    twin = lease.connection._config

    assert twin is not fake
    assert twin == fake
    text_of(lease)
    assert fake.calls_made == twin.calls_made == 1


def test_what_private_state_the_twin_gets_later_the_value_has():  # C-94
    value = Probe()
    twin = value.twin()
    assert type(twin) is Probe
    assert twin.__pydantic_private__ is value.__pydantic_private__


@pytest.mark.logs_errors("a process that cannot start is a crash report")
def test_a_plain_connect_that_raises_comes_out_unchanged_and_is_tried_again():  # C-94
    odd = LookupError("no")
    news.fail = [odd]
    engine = Engine(adapter=Probe())
    with pytest.raises(LookupError) as caught:
        borrow(engine)
    assert caught.value is odd
    assert caught.value.__context__ is None

    assert borrow(engine).connection is news.next("connected")


def test_a_plain_engine_starts_again_after_a_shutdown_of_the_runtime():  # C-94
    engine = Engine(adapter=Probe())
    first = borrow(engine)
    news.next("connected")
    beam.shutdown()
    news.next("closed")
    assert not first.adapter_pid.alive

    again = borrow(engine)

    assert again.connection is news.next("connected")
    assert again.adapter_pid.alive


# --- restarts -----------------------------------------------------------------------------------------


@pytest.mark.logs_errors("the crash is provoked")
@pytest.mark.parametrize("started", [True, False])
def test_after_a_crash_of_the_adapter_process_there_is_a_fresh_connection(started):  # C-41, C-60, C-94
    engine = Engine(adapter=Probe())
    ref = start_engine(engine, "again") if started else engine
    first = borrow(ref)
    assert news.next("connected") is first.connection

    crash(first.adapter_pid)
    second = borrow("again" if started else ref)

    assert news.next("closed") is first.connection
    assert second.connection is news.next("connected")
    assert first.connection.closed == 1
    assert second.connection is not first.connection
    assert second.adapter_pid != first.adapter_pid
    assert second.stream_supervisor != first.stream_supervisor, "all start afresh"
    assert not first.stream_supervisor.alive
    if started:
        ref.stop()


@pytest.mark.logs_errors("the crash is provoked")
def test_a_killed_adapter_process_closes_its_connection_too():  # C-41, C-94
    with start_engine(Engine(adapter=Probe())) as ref:
        first = borrow(ref)
        news.next("connected")
        beam.exit(first.adapter_pid, "kill")
        seen = {news.get(timeout=DEADLINE)[::2], news.get(timeout=DEADLINE)[::2]}
        assert ("closed", first.connection) in seen
        assert borrow(ref).connection is not first.connection


@pytest.mark.logs_errors("the crash is provoked")
def test_a_call_that_comes_during_a_restart_waits_for_it():  # C-94
    gate, connecting = threading.Event(), threading.Event()

    class Slow(Probe):
        def connect(self):
            if not news.empty():  # the second time
                connecting.set()
                assert gate.wait(DEADLINE)
            return super().connect()

    with start_engine(Engine(adapter=Slow()), "slow") as ref:
        first = borrow(ref)
        crash(first.adapter_pid)
        assert connecting.wait(DEADLINE)
        found = queue.SimpleQueue()
        threads = [
            threading.Thread(target=lambda engine=engine: found.put(borrow(engine).connection))
            for engine in (ref, "slow")
        ]
        for thread in threads:
            thread.start()
        with pytest.raises(AdapterError) as late:
            locate("slow", deadline=time.monotonic() + 0.02)
        assert late.value.reason == "timeout"
        assert late.value.metadata == {"limit": "deadline"}
        assert found.empty()

        gate.set()

        fresh = found.get(timeout=DEADLINE)
        assert found.get(timeout=DEADLINE) is fresh
        assert fresh is not first.connection
        for thread in threads:
            thread.join(DEADLINE)


@pytest.mark.logs_errors("the crash is provoked")
def test_a_process_that_waits_for_a_restart_can_be_told_to_exit():  # C-55, C-94
    gate = threading.Event()

    class Stuck(Probe):
        def connect(self):
            if not news.empty():
                assert gate.wait(DEADLINE)
            return super().connect()

    with start_engine(Engine(adapter=Stuck())) as ref:
        first = borrow(ref)
        crash(first.adapter_pid)
        waiting = threading.Event()
        down = beam.Inbox()

        def wait():
            waiting.set()
            borrow(ref)

        pid = beam.spawn(wait)
        beam.monitor(pid, to=down)
        assert waiting.wait(DEADLINE)
        began = time.monotonic()
        beam.exit(pid, "shutdown")
        assert down.receive(timeout=DEADLINE).reason == "shutdown"
        assert time.monotonic() - began < 0.4
        gate.set()


@pytest.mark.logs_errors("the crashes are provoked")
def test_an_engine_that_crashes_too_often_is_down():  # C-60, C-94
    ref = start_engine(Engine(adapter=Probe()), "weak", max_restarts=1, max_seconds=60)
    for _ in range(2):
        crash(borrow(ref).adapter_pid)

    for engine in (ref, "weak"):
        with pytest.raises(EngineError) as down:
            borrow(engine)
        assert down.value.reason == "engine_down"
    start_engine(Engine(adapter=Probe()), "weak").stop()  # the name is free


@pytest.mark.logs_errors("the crashes are provoked")
def test_a_plain_engine_that_was_given_up_starts_again_after_a_while():  # C-94
    engine = Engine(adapter=Probe())
    for _ in range(processes.PLAIN_MAX_RESTARTS + 1):
        crash(borrow(engine).adapter_pid)
    with pytest.raises(EngineError) as down:
        borrow(engine)
    assert down.value.reason == "engine_down"

    processes._directory.plain[id(engine.adapter)].home.gone_at -= processes.PLAIN_MAX_SECONDS

    assert borrow(engine).adapter_pid.alive


@pytest.mark.logs_errors("the crash is provoked")
def test_a_restart_takes_the_value_as_it_last_was():  # C-94
    with start_engine(Engine(adapter=Probe(label="old"))) as ref:
        ref.update(lambda engine: Engine(adapter=Probe(label="new"), model="m"))
        crash(borrow(ref).adapter_pid)

        lease = borrow(ref)

        assert text_of(lease) == "new"
        assert lease.engine.model == "m"


class Streaming(beam.Process):
    def init(self, ending):
        self.continue_with(ending)

    def handle_continue(self, ending):
        if isinstance(ending, Exception):
            raise ending
        return beam.Stop(ending)


def run_stream(lease, ending):
    down = beam.Inbox()
    pid = start_child(
        lease.stream_supervisor, ChildSpec(id="s", start=Streaming, args=(ending,), restart="temporary")
    )
    beam.monitor(pid, to=down)
    down.receive(timeout=DEADLINE)


@pytest.mark.logs_errors("the crashes are provoked")
def test_too_many_crashed_streams_replace_the_connection():  # C-59, C-94
    with start_engine(Engine(adapter=Probe()), max_restarts=2, max_seconds=60) as ref:
        lease = borrow(ref)
        for _ in range(2):
            run_stream(lease, RuntimeError("a bug"))
        assert borrow(ref).connection is lease.connection

        run_stream(lease, RuntimeError("a bug"))
        eventually(lambda: not lease.adapter_pid.alive)

        assert borrow(ref).connection is not lease.connection


@pytest.mark.logs_errors("an abnormal end is logged")
def test_streams_that_fail_or_are_stopped_are_no_crashes():  # C-94
    with start_engine(Engine(adapter=Probe()), max_restarts=0) as ref:
        lease = borrow(ref)
        for ending in ("normal", "shutdown", beam.Shutdown("halted"), "killed"):
            run_stream(lease, ending)
        which_children(lease.stream_supervisor)  # it has handled what came before

        assert borrow(ref).connection is lease.connection


# --- references ---------------------------------------------------------------------------------------


def test_an_update_holds_for_later_calls():  # C-95
    with start_engine(Engine(adapter=Probe(), model="a")) as ref:
        before = locate(ref)
        after = ref.update(lambda engine: engine.with_model("b"))

        assert ref.engine is after
        assert [before.engine.model, locate(ref).engine.model] == ["a", "b"]
        assert before.borrow().connection is borrow(ref).connection, "the adapter value is the same"


def test_updates_are_atomic():  # C-95
    with start_engine(Engine(adapter=Probe(), params={"n": 0})) as ref:

        def count():
            for _ in range(25):
                ref.update(lambda engine: engine.put_param("n", engine.params["n"] + 1))

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert ref.engine.params["n"] == 100


def test_another_adapter_value_is_a_new_connection_in_the_same_process():  # C-95
    with start_engine(Engine(adapter=Probe(label="old"))) as ref:
        old = borrow(ref)
        also_old = borrow(ref)
        news.next("connected")

        ref.update(lambda engine: Engine(adapter=Probe(label="new")))

        new = borrow(ref)
        news.next("connected")
        assert new.adapter_pid == old.adapter_pid
        assert [text_of(old), text_of(new)] == ["old", "new"]
        news.quiet()
        old.release()
        old.release()
        gc.collect()
        news.quiet()
        del also_old
        assert news.next("closed") is old.connection, "closed after its last stream"
        news.quiet()
    assert news.next("closed") is new.connection


def test_a_call_that_located_before_an_update_uses_its_own_adapter():  # C-95, O-1
    with start_engine(Engine(adapter=Probe(label="old"))) as ref:
        site = locate(ref)
        ref.update(lambda engine: Engine(adapter=Probe(label="new")))
        assert text_of(site.borrow()) == "old"


@pytest.mark.logs_errors("the crash is provoked")
def test_a_call_whose_adapter_was_replaced_and_restarted_does_not_get_the_other():  # C-60, C-95
    with start_engine(Engine(adapter=Probe(label="old"))) as ref:
        site = locate(ref)
        ref.update(lambda engine: Engine(adapter=Probe(label="new")))
        crash(borrow(ref).adapter_pid)
        borrow(ref)
        with pytest.raises(AdapterError) as down:
            site.borrow()
        assert down.value.reason == "adapter_down"


def test_an_update_whose_connect_raises_changes_nothing():  # C-95
    with start_engine(Engine(adapter=Probe(label="old"))) as ref:
        before = ref.engine
        lease = borrow(ref)
        odd = LookupError("no")
        news.fail = [odd]
        with pytest.raises(LookupError) as caught:
            ref.update(lambda engine: Engine(adapter=Probe(label="new")))
        assert caught.value is odd
        assert ref.engine is before
        assert borrow(ref).connection is lease.connection
        assert lease.adapter_pid.alive
        assert lease.connection.closed == 0


def test_what_the_function_of_an_update_raises_comes_out_and_changes_nothing():  # C-95
    with start_engine(Engine(adapter=Probe())) as ref:
        before = ref.engine
        with pytest.raises(ZeroDivisionError):
            ref.update(lambda engine: 1 / 0)
        with pytest.raises(TypeError, match="gives an Engine, not str"):
            ref.update(lambda engine: "no")
        with pytest.raises(RuntimeError, match="update was called by"):
            ref.update(lambda engine: ref.update(lambda inner: inner))
        assert ref.engine is before


def test_stopping_ends_the_streams_too():  # C-95
    with start_engine(Engine(adapter=Probe())) as ref:
        lease = borrow(ref)
        pid = start_child(
            lease.stream_supervisor,
            ChildSpec(id="s", start=Waiting, restart="temporary", shutdown=0.5),
        )
    assert not pid.alive
    assert not lease.adapter_pid.alive
    assert lease.connection.closed == 1


class Waiting(beam.Process):
    def init(self):
        self.continue_with(None)

    def handle_continue(self, token):
        beam.sleep(DEADLINE)


# --- messages -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Do:
    work: object

    def run(self, engine):
        return self.work(engine)


@pytest.mark.parametrize("by", ["name", "ref"])
def test_a_message_is_answered_with_what_its_work_gives(by):  # C-95
    with start_engine(Engine(adapter=Probe()), "answers") as ref:
        dest = ref if by == "ref" else "answers"
        assert beam.call(dest, Do(lambda engine: (engine, beam.current() is not None))) == (ref, True)


def test_what_the_work_raises_is_raised_in_the_caller_and_the_engine_lives():  # C-95
    def fail(engine):
        raise AdapterError("rate_limited")

    with start_engine(Engine(adapter=Probe()), "lives") as ref:
        pid = beam.whereis("lives")
        for _ in range(2):
            with pytest.raises(AdapterError) as caught:
                beam.call(ref, Do(fail))
            assert caught.value == AdapterError("rate_limited")
        assert beam.whereis("lives") == pid


def test_the_engine_answers_while_work_goes_on():  # C-95
    gate = threading.Event()
    with start_engine(Engine(adapter=Probe()), "busy") as ref:
        slow = threading.Thread(
            target=lambda: beam.call(ref, Do(lambda engine: gate.wait(DEADLINE)), DEADLINE)
        )
        slow.start()
        assert beam.call(ref, Do(lambda engine: "quick")) == "quick"
        gate.set()
        slow.join(DEADLINE)


def test_the_work_ends_when_its_caller_is_gone():  # C-95
    ended, begun = threading.Event(), threading.Event()

    def wait(engine):
        begun.set()
        try:
            beam.sleep(DEADLINE)
        finally:
            ended.set()

    with start_engine(Engine(adapter=Probe())) as ref:
        caller = beam.spawn(lambda: beam.call(ref, Do(wait), DEADLINE))
        assert begun.wait(DEADLINE)
        beam.exit(caller, "shutdown")
        assert ended.wait(DEADLINE)


def test_the_work_ends_when_its_caller_gave_up():  # C-95
    ended = threading.Event()

    def wait(engine):
        try:
            beam.sleep(DEADLINE)
        finally:
            ended.set()

    with start_engine(Engine(adapter=Probe())) as ref:
        with pytest.raises(beam.CallTimeout):
            beam.call(ref, Do(wait), timeout=0.01)
        assert ended.wait(DEADLINE)


@pytest.mark.logs_errors("the kill is provoked")
def test_the_caller_hears_when_the_work_is_killed(caplog):  # C-95
    with start_engine(Engine(adapter=Probe())) as ref:
        with pytest.raises(beam.ProcessExit):
            beam.call(ref, Do(lambda engine: beam.exit(beam.current(), "kill")), DEADLINE)
        assert beam.call(ref, Do(lambda engine: "alive")) == "alive"
        eventually(lambda: "supervisor.child_terminated" in caplog.text)  # the caller may hear of it first


def test_something_that_is_no_message_is_refused_and_the_engine_lives():  # C-95
    with start_engine(Engine(adapter=Probe())) as ref:
        with pytest.raises(TypeError, match="run\\(engine\\), not str"):
            beam.call(ref, "hello")
        beam.cast(ref, "hello")
        assert beam.call(ref, Do(lambda engine: "alive")) == "alive"


def test_a_reference_shows_its_name_and_state():  # C-95
    ref = start_engine(Engine(adapter=Probe()), "shown")
    assert isinstance(ref, EngineRef)
    assert repr(ref) == "<EngineRef 'shown' up>"
    ref.stop()
    assert repr(ref) == "<EngineRef 'shown' down>"


# --- forks --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_in_a_forked_child_a_plain_engine_starts_again_and_a_started_one_is_down():  # C-94
    plain = Engine(adapter=Fake(scripts=[[("text", "one")], [("text", "two")]]))
    with start_engine(Engine(adapter=Fake()), "forked") as ref:
        assert text_of(borrow(plain)) == "one"
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fork of a program with threads is the point here
            child = os.fork()
        if child == 0:  # pragma: no cover - another process
            said = _in_the_child(plain, ref)
            os.write(writer, said.encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            assert pipe.read() == "two engine_down engine_down 0"
        assert os.waitpid(child, 0)[1] == 0
        assert locate("forked").engine == ref.engine


def _in_the_child(plain, ref):  # pragma: no cover - another process
    def reason(engine):
        try:
            locate(engine)
        except EngineError as error:
            return error.reason

    try:
        said = [text_of(borrow(plain)), reason(ref), reason("forked")]
        return " ".join([*said, str(beam.shutdown(2))])
    except BaseException as error:
        return repr(error)
