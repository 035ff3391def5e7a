"""The program of the child process that runs llama.cpp's own HTTP server.

It is started by path, as a script, and imports nothing of this package, so that it costs no more than
llama.cpp itself. What it promises its parent:

- It reads one JSON line of settings from standard input and answers with one JSON line on standard output:
  `{"url": ...}` once the model answers on a free loopback port, or `{"error": ...}`, and then it ends.
- It ends when its standard input ends or its parent is gone, however the parent went.
- It listens on loopback only and answers nobody who does not hold the key that came with the settings.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any

PARENT_LOOK = 1.0  # seconds between two looks whether the parent still lives


def main() -> None:
    """Serve until the parent lets go."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    settings: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, name="lifeline", daemon=True).start()
    try:
        server = _serve(settings)
    except Exception as error:  # noqa: BLE001  # whatever it is, the parent is who must hear of it
        _say({"error": str(error) or type(error).__name__})
        sys.exit(1)
    _say({"url": server.listening_address})
    parent = os.getppid()
    while os.getppid() == parent:  # a copy of the pipe may outlive the parent in a process it forked
        time.sleep(PARENT_LOOK)
    os._exit(0)


def _serve(settings: dict[str, Any]) -> Any:
    """Load the model and start llama.cpp's server on a free port; returns when it answers."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [settings["api_key"]]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.n_parallel = settings["parallel"]
    params.n_ctx = settings["parallel"] * settings["context"]
    params.n_gpu_layers = settings["gpu_layers"]
    params.fit_params = False  # the numbers above are meant; fitting them to the machine takes a second load
    params.warmup = False
    params.ui = False
    params.cache_ram_mib = 0  # prompts of finished calls are not kept aside; each slot still keeps its last
    params.verbosity = 1  # errors only: standard error is a file the parent looks into when a start fails
    return xllamacpp.Server(params)


def _say(news: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
