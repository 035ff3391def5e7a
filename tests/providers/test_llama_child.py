"""The child process of the embedded model: it starts, says so, and never outlives its parent."""

import gc
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from allm_actors.errors import AdapterError
from allm_actors.providers import _llama_child
from allm_actors.providers._llama_child import LlamaChild

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = {"model": "m.gguf", "alias": "m", "threads": 1, "parallel": 1, "context": 64, "gpu_layers": 0}

POLITE = """
    import json, os, sys
    settings = json.loads(sys.stdin.readline())
    print(json.dumps({"url": "http://127.0.0.1:1/" + str(len(settings["api_key"]))}), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Have children run the given source instead of llama.cpp."""

    def install(source):
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(source))
        monkeypatch.setattr(_llama_child, "_PROGRAM", path)
        return path

    return install


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_child_hands_its_url_over_once_it_answers(program):
    """The key went in with the settings: it is on no command line, where everybody could read it."""
    program(POLITE)

    child = LlamaChild(SETTINGS)

    try:
        key = child.key.get_secret_value()
        assert child.ready.result(10) == f"http://127.0.0.1:1/{len(key)}/v1"
        assert child.is_alive()
        assert key.encode() not in pathlib.Path(f"/proc/{child.pid}/cmdline").read_bytes()
    finally:
        child.end()


def test_ending_a_child_waits_until_it_is_gone_and_may_be_repeated(program):
    program(POLITE)
    child = LlamaChild(SETTINGS)
    child.ready.result(10)

    child.end()
    child.end()

    assert is_gone(child.pid)
    assert not child.is_alive()


def test_a_child_nobody_holds_is_ended(program):
    program(POLITE)
    child = LlamaChild(SETTINGS)
    child.ready.result(10)
    pid = child.pid

    del child
    gc.collect()

    assert is_gone(pid)


def test_a_child_killed_while_it_loads_says_so_and_may_be_tried_again(program):
    program("import sys, time; sys.stdin.readline(); time.sleep(60)")
    child = LlamaChild(SETTINGS)

    os.kill(child.pid, signal.SIGKILL)

    error = child.ready.exception(10)
    assert isinstance(error, AdapterError)
    assert error.reason == "provider_unavailable"
    assert "-9" in error.message
    assert not error.metadata.get("no_retry")
    child.end()


def test_ending_a_child_while_it_loads_releases_who_waits_for_it(program):
    program("import sys, time; sys.stdin.readline(); time.sleep(60)")
    child = LlamaChild(SETTINGS)

    child.end()

    assert isinstance(child.ready.exception(10), AdapterError)


def test_what_the_program_says_went_wrong_is_the_error_and_is_not_tried_again(program):
    program("""
        import json, sys
        sys.stdin.readline()
        sys.stderr.write("0.00.005.014 E loader: no such tensor\\n0.00.006.000 E server: giving up\\n")
        print(json.dumps({"error": "failed"}), flush=True)
        sys.exit(1)
    """)
    child = LlamaChild(SETTINGS)

    error = child.ready.exception(10)

    assert error.message == "The embedded model did not start: loader: no such tensor"
    assert error.metadata == {"no_retry": True}
    assert error.provider == "llama"
    child.end()


def test_an_interpreter_that_cannot_be_started_is_an_adapter_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")

    with pytest.raises(AdapterError, match="cannot be started") as caught:
        LlamaChild(SETTINGS)

    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("how", ["exit", "kill", "fork"])
def test_the_child_dies_with_its_parent(tmp_path, how):
    """Whether the parent ends in order, is killed, or leaves a fork behind that still holds the pipe."""
    stub = tmp_path / "stub.py"
    # The real program with llama.cpp replaced: its lifeline is what is tested here.
    stub.write_text(
        "import importlib.util, types, sys\n"
        f"spec = importlib.util.spec_from_file_location('server', {str(_llama_child._PROGRAM)!r})\n"
        "server = importlib.util.module_from_spec(spec); spec.loader.exec_module(server)\n"
        "server._serve = lambda settings: types.SimpleNamespace(listening_address='http://127.0.0.1:1')\n"
        "server.PARENT_LOOK = 0.05\n"
        "server.main()\n"
    )
    parent = tmp_path / "parent.py"
    parent.write_text(
        textwrap.dedent(f"""
        import os, pathlib, signal, sys, time
        from allm_actors.providers import _llama_child
        _llama_child._PROGRAM = pathlib.Path({str(stub)!r})
        child = _llama_child.LlamaChild({SETTINGS!r})
        child.ready.result(20)
        print(child.pid, flush=True)
        if {how!r} == "fork" and os.fork() == 0:
            os.close(1)
            time.sleep(20)
            os._exit(0)
        if {how!r} != "exit":
            os.kill(os.getpid(), signal.SIGKILL)
        """)
    )

    run = subprocess.run(
        [sys.executable, str(parent)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
    )

    assert run.returncode == (0 if how == "exit" else -signal.SIGKILL)
    pid = int(run.stdout)
    assert ended_within(pid, 5)


def ended_within(pid, seconds):
    """Wait for a process that is not our child."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("this system has no pidfd_open")
    import select

    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)
