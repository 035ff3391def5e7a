"""What stays on this machine: the embedded model's server, published process trees, files of sessions."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import types
from pathlib import Path

import pytest
from pydantic import SecretStr

import allm_actors as allm
from allm_actors import Session, beam
from allm_actors.cli import _talk
from allm_actors.data import Request, user
from allm_actors.engine import CallContext
from allm_actors.providers import Llama, OpenAI, _llama_server
from allm_actors.providers.llama import bundled_model
from allm_actors.testing import FakeServer

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
SETTINGS = {"model": "m.gguf", "alias": "m", "threads": 1, "parallel": 1, "context": 64, "gpu_layers": 0}


def listening(pid):
    """The addresses at which a process listens, as the system tells."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # closed meanwhile, as that of this very directory
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table, size in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                address = words[1].partition(":")[0]
                found.append("127.0.0.1" if address == "0100007F" else f"{address} ({size})")
    return found


@linux
def test_the_look_at_listening_sockets_sees_them():
    with socket.create_server(("127.0.0.1", 0)):
        assert listening(os.getpid()).count("127.0.0.1") >= 1


def test_the_embedded_models_server_is_told_to_listen_on_loopback_only(monkeypatch):
    """And to ask for the key, which is made anew for each child."""
    told = []

    class Params(types.SimpleNamespace):
        def __init__(self):
            super().__init__(
                model=types.SimpleNamespace(),
                cpuparams=types.SimpleNamespace(),
                cpuparams_batch=types.SimpleNamespace(),
            )

    fake = types.SimpleNamespace(CommonParams=Params, Server=told.append)
    monkeypatch.setitem(sys.modules, "xllamacpp", fake)
    _llama_server._serve({**SETTINGS, "api_key": "secret"})
    (params,) = told
    assert params.hostnames == ["127.0.0.1"]
    assert params.port == 0
    assert params.api_keys == ["secret"]


@linux
@pytest.mark.local_model
def test_the_embedded_models_server_listens_on_loopback_only():
    """Seen by the system, of the real one."""
    pytest.importorskip("xllamacpp", reason="the extra 'local' is not installed")
    if bundled_model() is None:
        pytest.skip("no bundled model is installed")
    connection = Llama(model=bundled_model()).connect()
    try:
        connection.generate(Request(messages=[user("hi")], max_tokens=1), CallContext())
        assert listening(connection.child.pid) == ["127.0.0.1"]
    finally:
        connection.close()


@linux
def test_the_server_for_tests_listens_on_loopback_only():
    before = len(listening(os.getpid()))
    with FakeServer() as server:
        assert listening(os.getpid())[before:] == ["127.0.0.1"]
        assert server.url.startswith("http://127.0.0.1:")


def test_a_published_tree_is_for_its_user_only(tmp_path, monkeypatch):
    """Nobody else may even look into the directory, or has made it first."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = beam.publish()
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        beam.unpublish()
    path.parent.chmod(0o777)
    with pytest.raises(PermissionError):
        beam.socket_directory()


def test_a_published_tree_holds_no_message(tmp_path):
    """Structure and numbers: neither what processes are sent, nor what they hold."""

    class Holder(beam.Process):
        def init(self, held):
            self.held = held

        def handle_cast(self, message):
            self.held = message

    pid = Holder.start("canary-in-state")
    path = beam.publish(tmp_path / "tree.sock")
    try:
        beam.cast(pid, "canary-in-message")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(5)
            peer.connect(str(path))
            data = b"".join(iter(lambda: peer.recv(65536), b""))
    finally:
        beam.unpublish()
        beam.exit(pid, "shutdown")
    assert b"Holder" in data
    assert b"canary" not in data


# --- files of sessions ------------------------------------------------------------------------------------


def test_a_new_session_file_is_its_users_alone(tmp_path):
    """Whatever the umask allows; a file that is there already keeps the permissions its owner gave it."""
    path = tmp_path / "talk.json"
    before = os.umask(0)
    try:
        _talk._write(path, "{}")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o640)
        _talk._write(path, "[]")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text() == "[]"


def test_no_moment_shows_a_session_to_others(tmp_path, monkeypatch):
    """What is written before the file has its name is its user's alone, too."""
    seen = []
    replace = Path.replace
    monkeypatch.setattr(
        Path,
        "replace",
        lambda self, to: (seen.append(stat.S_IMODE(self.stat().st_mode)), replace(self, to))[1],
    )
    before = os.umask(0)
    try:
        _talk._write(tmp_path / "talk.json", "{}")
    finally:
        os.umask(before)
    assert seen == [0o600]


@pytest.mark.parametrize("moment", ["write", "replace"])
def test_a_session_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, moment):
    path = tmp_path / "talk.json"
    _talk._write(path, "before")

    def full(*_):
        raise OSError(28, "No space left on device")

    if moment == "replace":
        monkeypatch.setattr(Path, "replace", full)
        text = "after"
    else:
        text = "after \ud800"  # cannot be encoded, so writing fails half way
    with pytest.raises((OSError, UnicodeEncodeError)):
        _talk._write(path, text)
    monkeypatch.undo()
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["talk.json"]


def test_a_session_file_holds_no_key(tmp_path):
    """P-136: options of a call are no part of a session."""
    with FakeServer(default="hi") as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="m")
        session = allm.Session.start(engine, "hi", api_key=SecretStr("canary-key-0123456789"))
    session = session[0] if isinstance(session, tuple) else session
    text = session.model_dump_json()
    assert json.loads(text)["thread"]["messages"]
    assert "canary" not in text + repr(session)
    assert Session.model_validate_json(text) == session
