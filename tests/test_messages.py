"""The messages an engine answers."""

import dataclasses
import threading

import pytest

import allm_actors as allm
from allm_actors import beam
from allm_actors.data import Response
from allm_actors.engine import Engine, start_engine
from allm_actors.errors import AdapterError, EngineError
from allm_actors.messages import Chat, Generate, Step, StreamGenerate
from allm_actors.providers.fake import Fake
from allm_actors.streaming import Mailbox, StreamHandle

DEADLINE = 10


@pytest.mark.parametrize("by", ["name", "ref"])
def test_generate_is_answered_with_a_response(by):  # C-95
    fake = Fake(script=[("text", "hi"), ("finish", "stop")])
    with start_engine(Engine(adapter=fake), "asked") as ref:
        response = beam.call(
            ref if by == "ref" else "asked", Generate("hello", {"request_id": "mine"}), DEADLINE
        )
    assert isinstance(response, Response)
    assert (response.text, response.request_id) == ("hi", "mine")


def test_a_library_error_is_raised_in_the_caller_and_the_engine_lives():  # C-95
    fake = Fake(scripts=[[("error", "authentication_failed")], [("text", "hi")]])
    with start_engine(Engine(adapter=fake)) as ref:
        with pytest.raises(AdapterError) as caught:
            beam.call(ref, Generate("hello"), DEADLINE)
        assert caught.value.reason == "authentication_failed"
        with pytest.raises(TypeError):
            beam.call(ref, Generate(3), DEADLINE)
        assert beam.call(ref, Generate("hello"), DEADLINE).text == "hi"


def test_an_engine_without_an_adapter_says_so():  # C-47, C-95
    with start_engine(Engine()) as ref, pytest.raises(EngineError) as caught:
        beam.call(ref, Generate("hello"), DEADLINE)
    assert caught.value.reason == "missing_adapter"


def test_a_stream_goes_into_the_mailbox_and_on_after_the_reply():  # C-95
    fake = Fake(script=[("text", "a"), ("delay", 0.05), ("text", "b"), ("finish", "stop")])
    with start_engine(Engine(adapter=fake)) as ref, Mailbox() as mailbox:
        handle = beam.call(ref, StreamGenerate("hello", into=mailbox), DEADLINE)
        envelopes = list(mailbox)
    assert isinstance(handle, StreamHandle)
    assert {envelope.stream for envelope in envelopes} == {handle}
    assert [envelope.event.type for envelope in envelopes] == [
        "message_started",
        "text_delta",
        "text_delta",
        "text_completed",
        "message_completed",
    ]


def test_the_request_ends_when_its_caller_is_gone():  # C-95
    released, begun = threading.Event(), threading.Event()
    fake = Fake(script=[("delay", 60)], on_cleanup=released.set)
    with start_engine(Engine(adapter=fake)) as ref:
        message = Generate("hello", {"on_event": lambda event: begun.set()})
        caller = beam.spawn(lambda: beam.call(ref, message, 60))
        assert begun.wait(DEADLINE)
        beam.exit(caller, "shutdown")
        assert released.wait(DEADLINE)


@pytest.mark.parametrize("message", [Generate("x"), StreamGenerate("x", into=None)])
def test_messages_are_frozen(message):  # C-95
    with pytest.raises(dataclasses.FrozenInstanceError):
        message.input = "y"


@pytest.mark.parametrize(("message", "field"), [(Step, "thread"), (Chat, "thread")])
def test_steps_and_chats_are_answered_with_their_results(message, field):  # C-95
    @allm.tool
    def double(n: int) -> int:
        """Twice a number."""
        return 2 * n

    call = ("tool_call", {"id": "1", "name": "double", "arguments": {"n": 4}})
    fake = Fake(scripts=[[call, ("finish", "tool_calls")], [("text", "eight"), ("finish", "stop")]])
    with start_engine(Engine(adapter=fake, tools=[double]), "asked"):
        result = beam.call("asked", message("twice four?", {"max_concurrency": 1}), timeout=DEADLINE)

    texts = [m.content for m in getattr(result, field).messages]
    assert texts == ["twice four?", "", "8"] + ["eight"] * (message is Chat)


def test_what_a_chat_failed_with_is_raised_in_the_caller():  # C-95
    fake = Fake(script=[("error", "network_error", {})])
    with start_engine(Engine(adapter=fake, retry=None), "asked"):
        with pytest.raises(AdapterError) as raised:
            beam.call("asked", Chat("hi"), timeout=DEADLINE)
        assert raised.value.partial.halted_reason == "error"
