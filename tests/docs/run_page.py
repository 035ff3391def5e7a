"""Runs the blocks of one page, as its reader would: `python -m tests.docs.run_page docs/how-to/cancel.md`.

The working directory is a fresh one. A server on loopback stands in for the one at `localhost:11434`.
"""

import contextlib
import difflib
import doctest
import io
import itertools
import json
import pathlib
import shlex
import subprocess
import sys
import traceback

from tests.docs.blocks import ROOT, Block, blocks_of

LOCAL_SERVER = "http://localhost:11434/v1"
ANSWER = "A link is mutual: when one end dies, so does the other. A monitor only tells."
TIMEOUT = 30

RUN = {"allm-actors", "echo", "cat"}
"""Programs that a block is run with."""

NOT_RUN = {
    "pip": "installing needs the package index; CI does it before the tests",
    ".venv/bin/pip": "the same",
    "python3": "makes an environment",
    "make": "the targets are what CI itself runs",
    "git": "shows a use, in a repository that is not there",
}
"""Programs whose lines are not run, and why."""

NEEDS = {
    "needs OPENAI_API_KEY": "no key here",
    "needs ANTHROPIC_API_KEY": "no key here",
    "needs a terminal": "no terminal here",
    "needs a model": "tests/test_cli.py asks one, where it is installed",
}
"""The only comments that exempt a line."""


def main(page: str) -> None:
    text = pathlib.Path(page).read_text(encoding="utf-8")
    blocks = [block for block in blocks_of(text) if not block.included and not block.not_run]
    with contextlib.ExitStack() as stack:
        if LOCAL_SERVER in text:
            from allm_actors.testing import FakeServer

            server = stack.enter_context(FakeServer(default=ANSWER))
            for block in blocks:
                block.code = block.code.replace(LOCAL_SERVER, server.base_url)
        names: dict[str, object] = {"__name__": "__main__"}
        for block in blocks:
            printed = _run(page, block, names)
            if block.output is not None:
                _compare(page, block, printed)


def _run(page: str, block: Block, names: dict[str, object]) -> str:
    if block.title is not None:
        path = pathlib.Path(block.title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.code, encoding="utf-8")
    match block.language:
        case "python":
            printed = io.StringIO()
            # The lines keep their numbers, so that a traceback names the place on the page.
            code = compile("\n" * (block.line - 1) + block.code, page, "exec", dont_inherit=True)
            try:
                with contextlib.redirect_stdout(printed):
                    exec(code, names)
            except BaseException:
                traceback.print_exc()
                sys.exit(f"{page}:{block.line}: the block failed; it had printed:\n{printed.getvalue()}")
            return printed.getvalue()
        case "sh":
            return "".join(_shell(page, block.line, line) for line in _lines(block.code))
        case "json":
            json.loads(block.code)
    return ""


def _lines(code: str) -> list[str]:
    return [line for line in code.replace("\\\n", "").splitlines() if line.strip()]


def _shell(page: str, number: int, line: str) -> str:
    command, _, comment = line.partition(" #")
    words = list(shlex.shlex(command, punctuation_chars="|<>&;", posix=True))
    programs = [words[0], *(after for word, after in itertools.pairwise(words) if word in "|&&;")]
    for program in programs:
        if program not in RUN and program not in NOT_RUN:
            sys.exit(f"{page}:{number}: neither run nor known not to be: {program!r} in {line!r}")
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), line
    if any(program in NOT_RUN for program in programs):
        return ""
    if (needs := comment.strip()).startswith("needs"):
        if needs not in NEEDS:
            sys.exit(f"{page}:{number}: {needs!r} is no reason not to run a line: {', '.join(NEEDS)}")
        return ""
    run = subprocess.run(
        [
            "bash",
            "-c",
            f'allm-actors() {{ "{sys.executable}" -m allm_actors "$@"; }}; set -eo pipefail; {command}',
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    if run.returncode:
        sys.exit(f"{page}:{number}: {line!r} exits with {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.stdout


def _compare(page: str, block: Block, printed: str) -> None:
    promised = block.output or ""
    if printed and not printed.endswith("\n"):
        printed += "\n"
    if doctest.OutputChecker().check_output(promised, printed, doctest.ELLIPSIS):
        return
    diff = difflib.unified_diff(
        promised.splitlines(), printed.splitlines(), "the page says", "printed", lineterm=""
    )
    sys.exit(f"{page}:{block.line}: " + "\n".join(diff))


if __name__ == "__main__":
    main(sys.argv[1])
