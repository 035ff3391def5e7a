"""Calls from coroutines: the loop goes on, no thread waits, and a cancelled wait abandons the call."""

import asyncio
import math
import queue
import threading
import time

import pytest

from allm_actors import beam
from tests.beam._probe import SOON, Boom, Gate, end_of, held, leave, reason_of, run_in, sync, until, waits

pytestmark = pytest.mark.logs_errors("processes crash here")


def no_reply(process):
    return beam.NO_REPLY


def test_acall_brings_the_reply(lab):  # B-115
    pid = lab.probe(name="server")

    async def main():
        return await beam.acall(pid, lambda process: 1), await beam.acall("server", lambda process: 2)

    assert asyncio.run(main()) == (1, 2)


def test_the_loop_goes_on_meanwhile_and_no_thread_waits(lab):  # B-115
    pid = lab.probe()

    async def main():
        threads = threading.active_count()
        gate = Gate()
        asked = [
            asyncio.create_task(beam.acall(pid, lambda process, n=n: gate() or n, SOON)) for n in range(50)
        ]
        ticks = 0
        while not gate.entered.is_set():
            await asyncio.sleep(0)
            ticks += 1
        assert threading.active_count() == threads
        assert not any(one.done() for one in asked)
        gate.open()
        await asyncio.gather(*asked)
        return ticks

    assert asyncio.run(main()) > 0


def test_many_calls_at_once_get_their_own_replies(lab):  # B-115
    pid = lab.probe()

    async def main():
        return await asyncio.gather(*(beam.acall(pid, lambda _, n=n: n) for n in range(200)))

    assert asyncio.run(main()) == list(range(200))


def test_acall_fails_as_call_does(lab):  # B-115
    pid, other = lab.probe(), lab.probe()
    beam.stop(other)

    def fail(process):
        raise Boom

    async def main():
        with pytest.raises(beam.NoProcess):
            await beam.acall(other, 1)
        with pytest.raises(beam.NoProcess):
            await beam.acall("nobody", 1)
        with pytest.raises(beam.ProcessExit) as caught:
            await beam.acall(pid, fail)
        assert isinstance(caught.value.__cause__, Boom)

    asyncio.run(main())


def test_acall_has_a_timeout(lab):  # B-115
    pid = lab.probe()
    gate = Gate()

    async def main():
        with pytest.raises(beam.CallTimeout):
            await beam.acall(pid, lambda process: gate() or "late", 0.01)
        gate.open()
        return await beam.acall(pid, lambda process: "next", math.inf)

    assert asyncio.run(main()) == "next"
    assert pid._cell.calls == {}


def test_an_outer_timeout_is_not_mistaken_for_the_calls_own(lab):  # B-115
    pid = lab.probe()

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await beam.acall(pid, no_reply, SOON)

    asyncio.run(main())
    assert pid._cell.calls == {}


def test_a_cancelled_acall_abandons_the_call(lab):  # B-115
    pid = lab.probe()
    senders = queue.SimpleQueue()

    async def main():
        task = asyncio.create_task(
            beam.acall(pid, lambda p: senders.put(p.sender) or beam.NO_REPLY, math.inf)
        )
        while senders.empty():  # noqa: ASYNC110  it is filled in another thread
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    sender = senders.get(timeout=SOON)
    assert sender.abandoned
    assert sender.reply(1) is False
    assert pid._cell.calls == {}


def test_a_server_that_dies_fails_the_awaiting_coroutine(lab):  # B-115
    pid = lab.probe()

    async def main():
        task = asyncio.create_task(beam.acall(pid, no_reply, math.inf))
        while not pid._cell.calls:  # noqa: ASYNC110  it is filled in another thread
            await asyncio.sleep(0)
        leave(pid, "over")
        with pytest.raises(beam.ProcessExit) as caught:
            await task
        return caught.value.reason

    assert asyncio.run(main()) == "over"


def test_a_loop_that_was_closed_meanwhile_is_nobodys_trouble(lab):  # B-115
    pid = lab.probe()
    gate = Gate()
    loop = asyncio.new_event_loop()
    task = loop.create_task(beam.acall(pid, lambda process: gate() or 1, math.inf))
    loop.run_until_complete(asyncio.sleep(0))
    gate.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    pid._cell.calls.clear()
    loop.close()
    gate.open()
    sync(pid)


def test_an_answer_to_a_closed_loop_is_dropped(lab):  # B-115
    from allm_actors.beam._calls import Answer, _LoopWaiter

    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    _LoopWaiter(loop, future).put(Answer(1))


def test_a_process_that_awaits_is_ended_by_an_exit(lab):  # B-22
    server, pid = lab.probe(), lab.probe()
    beam.cast(pid, lambda process: asyncio.run(beam.acall(server, no_reply, math.inf)))
    until(lambda: server._cell.calls)
    waits(server)
    began = time.monotonic()
    assert reason_of(pid, lambda: beam.exit(pid, "enough")) == "enough"
    assert time.monotonic() - began < 2
    assert server._cell.calls == {}


def test_a_process_that_awaits_itself_is_told_so(lab):  # B-14
    pid = lab.probe()

    def ask(process):
        try:
            asyncio.run(beam.acall(process.pid, 1, math.inf))
        except beam.CallingSelf as error:
            return error.reason

    assert run_in(pid, ask) == "calling_self"


def test_a_killed_process_cannot_await(lab):  # B-73
    server, pid = lab.probe(), lab.probe()
    outcome = queue.SimpleQueue()
    gate = Gate()

    def late(process):
        gate()
        try:
            asyncio.run(beam.acall(server, lambda _: 1))
        except beam.Exit as order:
            outcome.put(order.reason)

    beam.cast(pid, late)
    gate.wait()
    beam.exit(pid, "kill")
    gate.open()
    assert outcome.get(timeout=SOON) == "killed"
    sync(server)
    assert server._cell.handled == 1


def test_the_reply_wins_against_a_timeout_that_passes_meanwhile(lab):  # B-115
    """The deadline of `acall` passes after the server has answered, before the loop has looked."""
    pid = lab.probe()

    async def main():
        task = asyncio.create_task(beam.acall(pid, lambda process: "answered", 0.02))
        await asyncio.sleep(0)
        sync(pid)  # the answer is on its way to the loop
        time.sleep(0.03)  # noqa: ASYNC251  the loop is kept busy beyond the deadline
        return await task

    assert asyncio.run(main()) == "answered"


def test_casts_and_sends_do_not_block_a_loop(lab):  # B-115
    pid = lab.probe()

    async def main():
        with held(pid):
            for number in range(3):
                beam.send(pid, number)
            beam.cast(pid, lambda process: None)

    asyncio.run(main())
    assert [pid.heard.get(timeout=SOON) for _ in range(3)] == [0, 1, 2]
    end_of(pid, lambda: beam.exit(pid, "over"))
