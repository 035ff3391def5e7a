"""How a stream can end badly, on every wire: each end is the specified error, never a short answer.

Every case is played by a server over a real socket, through the connection and through the façade.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import allm_actors as allm
from allm_actors.data import Request, StreamCollector, user
from allm_actors.engine import CallContext
from allm_actors.errors import AdapterError, StreamError
from allm_actors.providers import Anthropic, Gemini, OpenAI
from allm_actors.testing import FakeServer, Reply
from allm_actors.testing._render import render

ASK = Request(messages=[user("hi")], model="m")
TEXT = "one two three four"
IDLE = 0.5  # seconds

WIRES = {
    # adapter, its fields, frames before the first piece of text, the provider's error frame
    "chat": (OpenAI, {"api": "chat"}, 1, {"error": {"message": "no", "type": "server_error"}}),
    "responses": (
        OpenAI,
        {"api": "responses"},
        2,
        {"type": "error", "code": "server_error", "message": "no"},
    ),
    "messages": (Anthropic, {}, 2, {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}),
    "gemini": (Gemini, {}, 0, {"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}),
}
SAID = 2  # pieces of the text that come before the bad end


def fault(kind, lead):
    return Reply(TEXT, fault=kind, after=lead + SAID, keep_alive=False)


def midstream(lead, frame, **fields):
    def answer(request):
        return Reply(
            frames=[*render(request, Reply(TEXT))[0][: lead + SAID], frame], keep_alive=False, **fields
        )

    return answer


ENDS = {
    # how the server ends it: the answer; kind, reason and metadata of the error
    "stalled": (lambda lead, _: fault("stall", lead), AdapterError, "timeout", {"limit": "stream_timeout"}),
    "dropped": (lambda lead, _: fault("drop", lead), AdapterError, "network_error", {"premature_close": True}),
    "cut in a chunk": (
        lambda lead, _: fault("truncate", lead), AdapterError, "network_error", {"premature_close": True},
    ),
    "clean early end": (lambda lead, _: fault("end", lead), AdapterError, "network_error", {"premature_close": True}),
    "short of its length": (
        lambda lead, _: Reply(TEXT, fault="truncate", after=lead + SAID, framing="length", keep_alive=False),
        AdapterError, "network_error", {"premature_close": True},
    ),
    "error object": (midstream, AdapterError, "provider_unavailable", {}),
    "malformed event": (lambda lead, _: fault("malformed", lead), StreamError, "malformed_event", {}),
    "not an object": (lambda lead, _: midstream(lead, "[1]"), StreamError, "malformed_event", {}),
    "not utf-8": (lambda lead, _: midstream(lead, b"data: {\xff}\n\n"), StreamError, "malformed_event", {}),
    "cut in an event": (
        lambda lead, _: midstream(lead, b'data: {"half'), AdapterError, "network_error", {"premature_close": True},
    ),
}  # fmt: skip


@pytest.fixture(params=WIRES)
def wire(request):
    return WIRES[request.param]


@pytest.fixture(params=ENDS)
def end(request):
    return ENDS[request.param]


def test_a_bad_end_is_its_error_and_no_short_answer(wire, end):
    """P-44, P-49, P-109, P-120, P-13, P-101..P-104."""
    kind, fields, lead, error_frame = wire
    reply, error_kind, reason, metadata = end
    with FakeServer(default=reply(lead, error_frame)) as server:
        connection = kind(base_url=server.base_url, **fields).connect()
        *events, last = connection.stream(ASK, CallContext(stream_timeout=IDLE))
        connection.close()

    assert last.type == "error"
    assert isinstance(last.error, error_kind)
    assert last.error.reason == reason
    assert metadata.items() <= last.error.metadata.items()
    assert [event.type for event in events] == ["message_started"] + ["text_delta"] * SAID
    assert "".join(event.delta for event in events[1:]) == "one two"
    folded = StreamCollector.collect([*events, last])
    assert folded.finish_reason == "error"


def test_a_bad_end_reaches_the_user_as_its_error(wire, end):
    """C-29, P-44: what had arrived hangs on the error, and passes for nothing else."""
    kind, fields, lead, error_frame = wire
    reply, error_kind, reason, _ = end
    with FakeServer(default=reply(lead, error_frame)) as server:
        engine = allm.Engine(adapter=kind(base_url=server.base_url, **fields), model="m")
        with pytest.raises(error_kind) as caught:
            allm.generate(engine, "hi", stream_timeout=IDLE)

    assert caught.value.reason == reason
    assert caught.value.partial.finish_reason == "error"
    assert caught.value.partial.output_text == "one two"
    assert len(server.requests) == 1  # something had been delivered: nothing is asked again


LIMIT = 1.0  # seconds, where the time itself is the promise


def silence_of_a_stream(wire, after):
    """How long the stream waited for more, and what it ended with."""
    kind, fields, lead, _ = wire
    after = lead + SAID if after is None else after
    with FakeServer(default=Reply(TEXT, fault="stall", after=after)) as server:
        connection = kind(base_url=server.base_url, **fields).connect()
        silent_since = time.monotonic()
        for event in connection.stream(ASK, CallContext(stream_timeout=LIMIT)):
            if event.type != "error":
                silent_since = time.monotonic()
        took = time.monotonic() - silent_since
        connection.close()
    return took, event.error.reason


def silence_of_a_whole_answer(wire):
    """The same of an answer that is no stream."""
    kind, fields, _, _ = wire
    with FakeServer(default=Reply(TEXT, fault="stall", after=0)) as server:
        connection = kind(base_url=server.base_url, **fields).connect()
        began = time.monotonic()
        with pytest.raises(AdapterError) as caught:
            connection.generate(ASK, CallContext(request_timeout=LIMIT))
        took = time.monotonic() - began
        connection.close()
    return took, caught.value.reason


def test_a_stalled_server_costs_no_more_than_the_limit():
    """P-125: silence ends with `timeout` within 1.2 times the limit, wherever it begins, on every wire."""
    with ThreadPoolExecutor(4 * len(WIRES)) as pool:
        waits = [
            pool.submit(silence_of_a_stream, wire, after)
            for wire in WIRES.values()
            for after in (-1, 0, None)  # before the headers, after them, in the text
        ]
        waits += [pool.submit(silence_of_a_whole_answer, wire) for wire in WIRES.values()]
        ends = [wait.result(timeout=30) for wait in waits]

    assert {reason for _, reason in ends} == {"timeout"}
    assert all(LIMIT * 0.95 <= took <= LIMIT * 1.2 for took, _ in ends), ends


@pytest.mark.parametrize("kind_of_end", ["end", "drop", "truncate"])
def test_a_whole_answer_that_breaks_off_is_an_error(wire, kind_of_end):
    """P-101, P-15: half a JSON body is no answer."""
    kind, fields, _, _ = wire
    with FakeServer(default=Reply(TEXT, piece=10, fault=kind_of_end, after=3, keep_alive=False)) as server:
        connection = kind(base_url=server.base_url, **fields).connect()
        with pytest.raises(AdapterError) as caught:
            connection.generate(ASK, CallContext(request_timeout=5))
        connection.close()

    assert caught.value.reason == ("malformed_response" if kind_of_end == "end" else "network_error")
