"""Which call failed: a note on every error of a call, for whoever reads a traceback."""

import pickle

import pytest

from allm_actors import Engine, Mailbox, Retry, chat, generate, open_stream, stream_generate
from allm_actors.errors import AdapterError, AllmError, EngineError, ValidationError
from allm_actors.events import ErrorEvent
from allm_actors.providers import Fake, OpenAI
from allm_actors.testing import FakeServer, Reply


def refusing():
    return Engine(adapter=Fake(script=[("error", "invalid_request", {"status": 400})]), model="m")


NOTE = ["request the-id to fake, model 'm'"]


def test_what_a_call_raises_says_which_call_it_was():
    with pytest.raises(ValidationError) as caught:
        stream_generate(refusing(), [], request_id="the-id")

    assert caught.value.__notes__ == NOTE


def test_so_does_the_error_of_a_stream_however_it_is_read():
    streamed = list(stream_generate(refusing(), "hi", request_id="the-id"))[-1]
    with Mailbox() as mailbox:
        open_stream(refusing(), "hi", into=mailbox, request_id="the-id")
        delivered = [envelope.event for envelope in mailbox][-1]
    with pytest.raises(AdapterError) as raised:
        generate(refusing(), "hi", request_id="the-id")
    with pytest.raises(AdapterError) as chatted:
        chat(refusing(), "hi", request_id="the-id")

    for error in (streamed.error, delivered.error, raised.value, chatted.value):
        assert error.__notes__ == NOTE


def test_a_note_is_no_part_of_what_an_error_is():
    """C-31, C-85: neither of equality nor of JSON, and copies do not share it."""
    error = list(stream_generate(refusing(), "hi"))[-1].error
    plain = AdapterError("invalid_request", provider=error.provider, status=400)
    copy = error.replace()
    copy.add_note("more")

    assert error == plain
    assert "__notes__" not in str(error.to_dict())
    assert len(error.__notes__) == 1
    assert pickle.loads(pickle.dumps(error)).__notes__ == error.__notes__


def test_an_error_that_an_adapter_raises_again_and_again_gathers_no_notes():
    always = AdapterError("invalid_request")

    def refuse(*_):
        raise always

    engine = Engine(adapter=Fake(on_request=refuse), model="m")
    for _ in range(3):
        with pytest.raises(AllmError):
            stream_generate(engine, "hi", request_id="the-id")

    assert always.__notes__ == NOTE
    always.with_traceback(None)  # which keeps the engine


def test_the_host_is_named_and_nothing_in_a_note_breaks_a_line():
    with FakeServer(default=Reply(status=404)) as server:
        adapter = OpenAI(base_url=server.base_url)
        last = list(stream_generate(Engine(adapter=adapter, model="m\x1b\n"), "hi", request_id="a\nb"))[-1]

    assert isinstance(last, ErrorEvent)
    (note,) = last.error.__notes__
    assert f"to openai at {adapter.address}" in note
    assert note.isprintable()


def test_a_server_that_is_not_there_is_named_in_the_message():
    with FakeServer() as gone:
        adapter = OpenAI(base_url=gone.base_url)

    with pytest.raises(AdapterError, match=f"OpenAI at {adapter.address}: connection refused"):
        generate(Engine(adapter=adapter, model="m", retry=Retry(max_attempts=1)), "hi")


def test_a_missing_key_names_the_variable_to_set(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(EngineError, match="set OPENAI_API_KEY, pass api_key="):
        generate(Engine(adapter=OpenAI(), model="m"), "hi")
