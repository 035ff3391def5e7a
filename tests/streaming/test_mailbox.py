"""Many streams, one consumer."""

import asyncio
import gc
import queue
import threading
from collections import Counter

import pytest

import allm_actors as allm
from allm_actors import beam
from allm_actors.data import ErrorEvent, MessageCompleted, RawChunk, TextDelta
from allm_actors.engine import Engine
from allm_actors.providers import Fake
from allm_actors.streaming import Envelope, Mailbox, StreamHandle

from .adapters import Handmade, Line, plays
from .helpers import SOON, START, Scripted, closing, delta, failing, good, in_thread, until, within
from .test_event_stream import gone, kill_adapter, stream_processes


def open_into(mailbox, adapter, **options):
    return allm.open_stream(Engine(adapter=adapter), "hi", into=mailbox, **options)


def long(name, count=1000):
    """An adapter of one long stream; each delta names it."""
    return plays([START, *[delta(f"{name}{n}") for n in range(count)], *closing("x")])


@pytest.mark.parametrize(
    ("maxsize", "error"),
    [("9", TypeError), (True, TypeError), (1.5, TypeError), (0, ValueError), (-1, ValueError)],
)
def test_a_mailbox_has_a_size(maxsize, error):
    """C-61, C-8."""
    with pytest.raises(error, match="maxsize"):
        Mailbox(maxsize)
    assert Mailbox().maxsize == 256


def test_events_come_in_envelopes_that_name_their_stream():
    """C-61, C-62."""
    mailbox = Mailbox()
    one = open_into(mailbox, plays(good("a")), request_id="one")
    other = open_into(mailbox, plays(good("b")))

    envelopes = list(mailbox)

    assert isinstance(one, StreamHandle)
    assert (one.request_id, len(other.request_id)) == ("one", 22)
    assert all(isinstance(envelope, Envelope) for envelope in envelopes)
    assert [envelope.event for envelope in envelopes if envelope.stream is one] == good("a")
    assert [envelope.event for envelope in envelopes if envelope.stream is other] == good("b")
    assert one.done
    assert other.done
    assert gone()


def test_opening_is_asking():
    """C-62: the request goes out before anybody reads."""
    line = Line()
    mailbox = Mailbox()

    handle = open_into(mailbox, line.adapter)

    until(line.streams[0].waiting.is_set)
    assert not handle.done
    mailbox.close()


def test_iteration_ends_when_nothing_feeds_it_and_begins_again_with_the_next_stream():
    """C-61."""
    mailbox = Mailbox()
    assert list(mailbox) == []
    engine = Engine(adapter=plays(good("a"), good("b")))

    for _ in range(2):
        allm.open_stream(engine, "hi", into=mailbox)
        assert len(list(mailbox)) == len(good())


def test_streams_may_be_opened_while_it_is_read():
    """C-61."""
    mailbox = Mailbox()
    engine = Engine(adapter=plays(good("a"), good("b"), good("c")))
    allm.open_stream(engine, "1", into=mailbox)
    opened, ended = 1, 0

    for envelope in mailbox:
        if isinstance(envelope.event, MessageCompleted):
            ended += 1
            if opened < 3:
                opened += 1
                allm.open_stream(engine, str(opened), into=mailbox)

    assert ended == 3


def test_get_waits_for_streams_opened_later():
    """C-61."""
    mailbox = Mailbox()
    reader = in_thread(mailbox.get)
    until(mailbox._turn.locked)

    open_into(mailbox, plays(good()))

    assert reader().event == START
    mailbox.close()


def test_get_gives_up_after_its_timeout_and_loses_nothing():
    """C-61."""
    mailbox = Mailbox()
    with pytest.raises(queue.Empty):
        mailbox.get(timeout=0.01)
    with pytest.raises(queue.Empty):
        mailbox.get(timeout=0)
    line = Line(START)
    open_into(mailbox, line.adapter)
    assert mailbox.get(timeout=SOON).event == START

    with pytest.raises(queue.Empty):
        mailbox.get(timeout=0.01)

    line.streams[0].go.set()
    assert [mailbox.get(timeout=SOON).event for _ in closing("a")] == closing("a")


def test_a_streams_own_order_is_kept():
    """C-61: over many times the room, with everybody at once."""
    mailbox = Mailbox(maxsize=16)
    handles = {open_into(mailbox, long(f"{n}:", 300)): f"{n}:" for n in range(8)}
    got = {handle: [] for handle in handles}

    for envelope in mailbox:
        if isinstance(envelope.event, TextDelta):
            got[envelope.stream].append(envelope.event.delta)

    assert got == {handle: [f"{name}{n}" for n in range(300)] for handle, name in handles.items()}


@pytest.mark.parametrize(
    ("maxsize", "streams", "share"),
    [(256, 1, 64), (256, 4, 64), (256, 8, 32), (4, 3, 1), (3, 5, 1), (1, 1, 1)],
)
def test_credit_is_per_stream(maxsize, streams, share):
    """C-61: 64, less when many are open, at least 1."""
    mailbox = Mailbox(maxsize)
    scripts = [Scripted(START, *[delta("x")] * 300) for _ in range(streams)]
    todo = list(scripts)
    engine = Engine(adapter=Handmade(make=lambda *_: todo.pop(0).stream))
    for _ in range(streams):
        allm.open_stream(engine, "hi", into=mailbox)
    until(lambda: all(beam.info(pid)["state"] == "waiting" for pid in stream_processes()))

    # A stream that was there before its share fell may have sent what it was allowed then.
    assert scripts[-1].asked == share + 1  # and one in its hand, waiting for room
    assert all(share < script.asked <= 65 for script in scripts)
    mailbox.close()


def test_a_slow_streams_event_waits_behind_one_of_each_other_stream():
    """C-61: never behind more than `maxsize`, however much the fast ones have sent."""
    mailbox = Mailbox(maxsize=64)
    for n in range(4):
        open_into(mailbox, long(f"{n}:"))
    until(lambda: len(stream_processes()) == 4)
    until(lambda: all(beam.info(pid)["state"] == "waiting" for pid in stream_processes()))
    line = Line(START)
    slow = open_into(mailbox, line.adapter)
    until(line_waits(line))

    behind = 0
    while mailbox.get(timeout=SOON).stream is not slow:
        behind += 1

    assert behind <= 5
    line.streams[0].go.set()
    until(line.streams[0].cleaned.is_set)
    behind = 0
    while mailbox.get(timeout=SOON).stream is not slow:
        behind += 1
    assert behind <= 5
    mailbox.close()


def line_waits(line):
    return lambda: bool(line.streams) and line.streams[0].waiting.is_set()


def test_with_more_streams_than_room_each_has_its_turn():
    """C-61: one of each."""
    mailbox = Mailbox(maxsize=2)
    handles = [open_into(mailbox, long(f"{n}:", 50)) for n in range(10)]
    until(lambda: all(beam.info(pid)["state"] == "waiting" for pid in stream_processes()))
    for _ in range(64 * 2):  # what the first ones sent before there were so many
        mailbox.get(timeout=SOON)

    turns = Counter(mailbox.get(timeout=SOON).stream for _ in range(100))

    assert set(turns) == set(handles)
    assert max(turns.values()) <= 30
    mailbox.close()


def test_a_stalled_stream_holds_up_nobody():
    """C-61, B-90."""
    mailbox = Mailbox()
    line = Line(START)
    open_into(mailbox, line.adapter)
    other = open_into(mailbox, long("x"))

    got = [mailbox.get(timeout=SOON) for _ in range(1000)]

    assert sum(envelope.stream is other for envelope in got) >= 999
    mailbox.close()


# --- callbacks and filters ---------------------------------------------------------------------------------


def test_filters_and_on_event_run_where_the_mailbox_is_read():
    """C-61."""
    told = []
    mailbox = Mailbox()
    open_into(
        mailbox,
        plays([START, RawChunk(payload=1), delta("a"), *closing("a")]),
        emit_text_deltas=False,
        on_event=lambda event: told.append((event.type, threading.current_thread())),
    )
    until(gone)
    assert told == []

    reader = in_thread(list, mailbox)
    kinds = [envelope.event.type for envelope in reader()]

    assert kinds == ["message_started", "text_completed", "message_completed"]
    assert [kind for kind, _ in told] == ["message_started", "raw_chunk", "text_delta", *kinds[1:]]
    assert {thread for _, thread in told} == {reader.thread}


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_what_on_event_raises_comes_out_there_and_halts_that_stream_only(kind):
    """C-61."""
    bug = kind("x")

    def on_event(event):
        raise bug

    mailbox = Mailbox()
    line = Line()
    bad = open_into(mailbox, line.adapter, on_event=on_event)
    until(line_waits(line))

    with pytest.raises(kind) as caught:
        mailbox.get(timeout=SOON)

    assert caught.value is bug
    assert bad.done
    assert line.streams[0].cleaned.wait(0.5)
    good_one = open_into(mailbox, plays(good()))
    assert {envelope.stream for envelope in mailbox} == {good_one}


@pytest.mark.logs_errors("a crash of an adapter is reported")
def test_a_bug_in_an_adapter_comes_out_there_and_ends_that_stream_only():
    """C-59, C-61."""
    bug = ZeroDivisionError("x")
    mailbox = Mailbox()
    bad = open_into(mailbox, Handmade(make=lambda *_: Scripted(START, bug).stream))
    assert mailbox.get(timeout=SOON) == Envelope(bad, START)

    with pytest.raises(ZeroDivisionError) as caught:
        mailbox.get(timeout=SOON)

    assert caught.value is bug
    assert bad.done
    open_into(mailbox, plays(good()))
    assert len(list(mailbox)) == len(good())


# --- ends ----------------------------------------------------------------------------------------------------


def test_a_handle_halts_its_stream_alone_and_its_events_are_discarded():
    """C-62."""
    mailbox = Mailbox()
    line = Line()
    halted = open_into(mailbox, line.adapter)
    other = open_into(mailbox, plays(good()))
    until(line_waits(line))

    with within(0.5):
        halted.halt()
        halted.halt()
        assert line.streams[0].cleaned.wait(SOON)

    assert halted.done
    assert {envelope.stream for envelope in mailbox} == {other}
    until(gone)
    assert line.streams[0].released == 1


def test_a_halt_elsewhere_ends_a_reader_that_waits_for_the_last_stream():
    """C-61, C-62."""
    mailbox = Mailbox()
    line = Line(START)
    handle = open_into(mailbox, line.adapter)
    assert mailbox.get(timeout=SOON).event == START
    reader = in_thread(list, mailbox)
    until(mailbox._turn.locked)

    handle.halt()

    assert reader() == []


def test_closing_halts_every_stream_and_discards_what_is_there():
    """C-61, C-55."""
    lines = [Line() for _ in range(10)]
    with Mailbox() as mailbox:
        handles = [open_into(mailbox, line.adapter) for line in lines]
        until(lambda: all(line.streams[0].waiting.is_set() for line in lines))
        began = within(0.5)
        began.__enter__()
    began.__exit__(None, None, None)

    assert gone()
    assert all(line.streams[0].cleaned.is_set() for line in lines)
    assert all(handle.done for handle in handles)
    assert list(mailbox) == []
    with pytest.raises(beam.MailboxClosed):
        mailbox.get()
    mailbox.close()


def test_opening_into_a_closed_mailbox_is_refused_before_anything_is_asked():
    """C-61."""
    mailbox = Mailbox()
    mailbox.close()
    adapter = plays(good())

    with pytest.raises(ValueError, match="closed"):
        open_into(mailbox, adapter)

    assert adapter.calls == []
    assert mailbox.closed


def test_a_mailbox_closed_during_the_preflight_gets_no_stream():
    """C-61: it was open when the call began."""
    mailbox = Mailbox()
    script = Scripted(*good())

    def make(request, call):
        mailbox.close()
        return script.stream

    with pytest.raises(ValueError, match="closed"):
        open_into(mailbox, Handmade(make=make))

    assert script.asked == 0
    assert gone()


def test_closing_wakes_a_reader_elsewhere():
    """C-61."""
    mailbox = Mailbox()
    line = Line(START)
    open_into(mailbox, line.adapter)
    told = in_thread(list, mailbox)
    until(lambda: mailbox._turn.locked() and line_waits(line)())

    mailbox.close()

    with within(0.5):
        assert [envelope.event for envelope in told()] in ([START], [])


def test_a_mailbox_that_is_dropped_halts_its_streams():
    """C-55: nobody will read them any more."""
    mailbox = Mailbox()
    line = Line()
    handle = open_into(mailbox, line.adapter)
    until(line_waits(line))

    del mailbox
    gc.collect()

    assert line.streams[0].cleaned.wait(0.5)
    until(gone)
    assert handle.done


@pytest.mark.parametrize("into", [None, [], "mailbox"])
def test_into_must_be_a_mailbox(into):
    """C-8."""
    with pytest.raises(TypeError, match="into"):
        open_into(into, plays(good()))


def test_two_readers_at_once_are_one_too_many():
    """C-61: one consumer."""
    mailbox = Mailbox()
    reader = in_thread(mailbox.get)
    until(mailbox._turn.locked)

    with pytest.raises(RuntimeError, match="another"):
        mailbox.get(timeout=0)

    open_into(mailbox, plays(good()))
    assert reader().event == START
    mailbox.close()


def test_a_failing_stream_is_an_event():
    """C-58."""
    mailbox = Mailbox()
    handle = open_into(mailbox, plays([START, failing("invalid_request")]))

    assert list(mailbox) == [Envelope(handle, START), Envelope(handle, failing("invalid_request"))]


@pytest.mark.logs_errors("ends from outside are reported")
def test_an_adapter_that_goes_down_is_an_event_of_each_stream():
    """C-60."""
    mailbox = Mailbox()
    line = Line()
    engine = Engine(adapter=line.adapter)
    handles = [allm.open_stream(engine, "hi", into=mailbox) for _ in range(5)]
    until(lambda: len(line.streams) == 5 and all(stream.waiting.is_set() for stream in line.streams))

    kill_adapter()
    envelopes = list(mailbox)

    last = {envelope.stream: envelope.event for envelope in envelopes}
    assert set(last) == set(handles)
    assert all(
        isinstance(event, ErrorEvent) and event.error.reason == "adapter_down" for event in last.values()
    )
    assert Counter(envelope.stream for envelope in envelopes) == dict.fromkeys(handles, 3)
    assert gone()


def test_the_process_that_opened_a_stream_may_end():
    """C-95: whoever reads the mailbox owns what is in it."""
    mailbox = Mailbox()
    line = Line()
    opened = []
    pid = beam.spawn(lambda: opened.append(open_into(mailbox, line.adapter)))
    until(lambda: opened and not pid.alive)

    line.streams[0].go.set()

    assert [envelope.event for envelope in mailbox] == [*line.before, *line.after]


def test_refused_calls_are_raised_by_the_call():
    """C-47: with a mailbox as without."""
    mailbox = Mailbox()
    with pytest.raises(allm.errors.EngineError):
        allm.open_stream(Engine(), "hi", into=mailbox)
    with pytest.raises(TypeError):
        open_into(mailbox, plays(good()), temperature="hot")
    assert list(mailbox) == []


# --- asyncio ---------------------------------------------------------------------------------------------------


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, SOON))


def test_async_for_gives_the_same():
    """C-61."""
    events = [START, *[delta(str(n)) for n in range(500)], *closing("x")]

    async def main():
        mailbox = Mailbox(maxsize=8)
        engine = Engine(adapter=plays(events, events))
        handles = [allm.open_stream(engine, "hi", into=mailbox) for _ in range(2)]
        got = {handle: [] for handle in handles}
        async for envelope in mailbox:
            got[envelope.stream].append(envelope.event)
        return list(got.values())

    assert run(main()) == [events, events]


def test_a_cancelled_wait_loses_nothing():
    """C-61, C-54."""
    line = Line(START)

    async def main():
        async with Mailbox() as mailbox:
            open_into(mailbox, line.adapter)
            got = [await anext(mailbox)]
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(mailbox), 0.01)
            line.streams[0].go.set()
            return [envelope.event for envelope in [*got, *[each async for each in mailbox]]]

    assert run(main()) == [START, *closing("a")]


def test_leaving_async_with_closes_it():
    """C-61."""
    line = Line()

    async def main():
        async with Mailbox() as mailbox:
            open_into(mailbox, line.adapter)
            await anext(mailbox)
        return [each async for each in mailbox]

    assert run(main()) == []
    assert line.streams[0].cleaned.is_set()
    assert gone()


def test_hundred_streams_through_one_mailbox():
    """C-61, B-89: a fake each, all read by one thread."""
    engine = Engine(adapter=Fake(scripts=[[("text", "a"), ("text", "b"), ("finish", "stop")]] * 100))
    mailbox = Mailbox()
    handles = {allm.open_stream(engine, "hi", into=mailbox) for _ in range(100)}

    counts = Counter(envelope.stream for envelope in mailbox)

    assert counts == dict.fromkeys(handles, 5)
    assert gone()


def test_the_adapter_stream_of_a_mailbox_obeys_the_filters_of_its_call():
    """C-57, C-61: each stream has its own."""
    mailbox = Mailbox()
    make = plays(good("a"), good("b"))
    engine = Engine(adapter=make)
    quiet = allm.open_stream(engine, "hi", into=mailbox, emit_text_deltas=False)
    allm.open_stream(engine, "hi", into=mailbox)

    deltas = [envelope.stream for envelope in mailbox if isinstance(envelope.event, TextDelta)]

    assert len(deltas) == 1
    assert deltas[0] is not quiet


@pytest.mark.logs_errors("ends from outside are reported")
@pytest.mark.parametrize(
    "said", [good("a"), [START, failing("invalid_request")]], ids=["completed", "failed"]
)
def test_an_adapter_that_goes_down_after_the_last_event_adds_none(said):
    """C-26, C-60: the answer was whole, or had failed, before its process was ended."""
    line = Line(*said, after=())
    mailbox = Mailbox()
    open_into(mailbox, line.adapter)
    until(line.streams[0].waiting.is_set)

    kill_adapter()

    assert [envelope.event for envelope in mailbox] == said
    until(gone)
