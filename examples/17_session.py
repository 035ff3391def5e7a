"""A conversation that outlives its program: a session is JSON, and any process can go on with it.

Each turn is made by another Python process, which knows nothing but the file.

Prints:

    turn 1 by process ...: completed, 2 messages
    turn 2 by process ...: completed, 4 messages
    turn 3 by process ...: completed, 6 messages
    all of them different: True
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import allm_actors as allm
from allm_actors import Session
from allm_actors.providers import Fake

ENGINE = allm.Engine(adapter=Fake(script=[("text", "Noted."), ("finish", "stop")]), model="scripted")


def turn(file: Path, text: str) -> None:
    """Load, say something, save."""
    if file.exists():
        session = Session.model_validate_json(file.read_text(encoding="utf-8"))
        session, _ = Session.reply(ENGINE, session, text)
    else:
        session, _ = Session.start(ENGINE, text, id="diary")
    file.write_text(session.model_dump_json(), encoding="utf-8")
    print(f"{os.getpid()}: {session.status}, {len(session.thread.messages)} messages")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "session.json")
        pids = set()
        for number in (1, 2, 3):
            command = [sys.executable, __file__, str(file), f"Note number {number}, please."]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
            print(f"turn {number} by process {line}")
            pids.add(line.partition(":")[0])
        print("all of them different:", len(pids) == 3)


if __name__ == "__main__":
    if sys.argv[1:]:
        turn(Path(sys.argv[1]), sys.argv[2])
    else:
        main()
