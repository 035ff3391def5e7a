"""The child process behind `Llama`: its start, the news of its readiness, and its end.

A `LlamaChild` promises:

- Starting it returns at once; `when_ready` tells later, in one short-lived thread, what became of it.
- It ends with this object: by `end()`, by garbage collection, at interpreter exit, and when this process
  dies in any other way, for the child watches the pipe that only this object holds open.
- A process forked from this one neither ends the child nor keeps it alive.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import threading
import weakref
from typing import IO, TYPE_CHECKING, Any

from pydantic import SecretStr

from allm_actors.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROGRAM = pathlib.Path(__file__).with_name("_llama_server.py")
_WAIT_FOR_DEATH = 5.0  # seconds a killed process gets until the system has taken it down
_LONGEST_REASON = 600  # characters of llama.cpp's own words that an error repeats


class LlamaChild:
    """One server process. `ready` resolves to its base URL, or to the `AdapterError` that says why not."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Start the process with `settings` (see the program); `AdapterError` if it cannot be started."""
        self.key = SecretStr(secrets.token_urlsafe(24))
        self.ready: concurrent.futures.Future[str] = concurrent.futures.Future()
        log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by the thread that reads it
        failure: AdapterError | None = None
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own program, by path
                [sys.executable, "-P", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # a Ctrl-C at the terminal is for the parent alone
            )
        except OSError as error:
            log.close()
            failure = _failed(
                f"its process cannot be started: {error.strerror or 'unknown reason'}", final=True
            )
        if failure is not None:
            raise failure
        self._finalizer = weakref.finalize(self, _end, self._process, os.getpid())
        threading.Thread(
            target=_watch_birth,
            args=(
                self._process,
                log,
                {**settings, "api_key": self.key.get_secret_value()},
                self.ready,
            ),
            name="llama-start",
            daemon=True,
        ).start()

    @property
    def pid(self) -> int:
        """The system's number of the process."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process runs (it may still be loading its model)."""
        return self._finalizer.alive and self._process.poll() is None

    def end(self) -> None:
        """Kill the process and wait until it is gone; idempotent. It holds no state worth a goodbye."""
        self._finalizer()


def _watch_birth(
    process: subprocess.Popen[bytes],
    log: IO[bytes],
    settings: dict[str, Any],
    ready: concurrent.futures.Future[str],
) -> None:
    """Hand over the settings, then wait for the one line the process says; it ends with the process, too."""
    assert process.stdin is not None
    assert process.stdout is not None
    with log, process.stdout:
        try:
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()
            news = json.loads(process.stdout.readline() or b"{}")
        except (OSError, ValueError):
            news = {}
        if "url" in news:
            ready.set_result(news["url"] + "/v1")
        else:
            said = news.get("error")
            ready.set_exception(_failed(_why(process, log, said), final=said is not None))


def _why(process: subprocess.Popen[bytes], log: IO[bytes], said: str | None) -> str:
    try:
        code = process.wait(_WAIT_FOR_DEATH)
    except subprocess.TimeoutExpired:  # pragma: no cover  # it closed its output and lives on
        code = None
    log.seek(0)
    words = log.read().decode(errors="replace").splitlines()
    reasons = [line.split(" E ", 1)[1].strip() for line in words if " E " in line] or words[-1:]
    # llama.cpp says first what went wrong, and then on every level above that something did.
    return (reasons[0] if reasons else said or f"its process ended with code {code}")[:_LONGEST_REASON]


def _failed(why: str, *, final: bool) -> AdapterError:
    """Return the error; `final` if the same settings would fail again (killed from outside, they may not)."""
    return AdapterError(
        "provider_unavailable",
        f"The embedded model did not start: {why}",
        provider="llama",
        metadata={"no_retry": True} if final else {},
    )


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:  # this is a fork: the process is somebody else's child
        return
    process.kill()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    process.wait(_WAIT_FOR_DEATH)
