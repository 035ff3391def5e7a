"""Whole programs: what a fork, an exit and a Ctrl-C make of the streams that are open."""

import os
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import os, signal, sys, threading, time
import allm_actors as allm
from allm_actors import beam
from allm_actors.providers import Fake
engine = allm.Engine(adapter=Fake(scripts=[[("text", "a"), ("delay", 60)]] * 9), retry=None)
"""


def run(body, timeout=20):
    code = PRELUDE + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONDEVMODE": "0"},
        check=False,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_stream_belongs_to_the_program_that_opened_it():
    """B-113: in a forked child it raises at once, and the child can make calls of its own."""
    done = run(
        """
        stream = allm.stream_generate(engine, "hi")
        next(stream)
        unread = allm.stream_generate(engine, "hi")
        pid = os.fork()
        if not pid:
            code = 9
            try:
                for inherited in (stream, unread):
                    try:
                        next(inherited)
                    except beam.NoProcess:
                        code -= 1
                stream.close()
                own = allm.Engine(adapter=Fake(script=[("text", "own")]))
                if allm.generate(own, "hi").text == "own":
                    code -= 7
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print("child", os.waitstatus_to_exitcode(status), next(stream).delta)
        stream.close()
        """
    )

    assert done.stdout.split() == ["child", "0", "a"], done.stderr


def test_a_program_may_end_with_streams_open():
    """B-110: at once, without a word."""
    done = run(
        """
        streams = [allm.stream_generate(engine, "hi") for _ in range(5)]
        for stream in streams:
            next(stream)
        mailbox = allm.Mailbox()
        allm.open_stream(engine, "hi", into=mailbox)
        threading.Thread(target=lambda: list(streams[0]), daemon=True).start()
        """
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_interrupts_a_consumer_that_waits():
    """B-114: what it leaves behind is closed by `with`."""
    done = run(
        """
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        try:
            with allm.stream_generate(engine, "hi") as stream:
                list(stream)
        except KeyboardInterrupt:
            left = [str(pid) for pid in beam.processes() if "StreamActor" in str(pid)]
            print("interrupted", left, time.monotonic() - began < 5)
        """
    )

    assert done.stdout.strip() == "interrupted [] True", done.stderr
