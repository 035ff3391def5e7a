"""The entry point of the command line, which works (and says what is missing) without its extra."""

import os
import shlex
import sys

_EXTRA = frozenset({"typer", "rich", "click", "shellingham"})
INTERRUPTED = 130  # what a shell makes of a program that Ctrl-C ended


_COMPLETE = "_ALLM_ACTORS_COMPLETE"  # what the shell's completion function sets, by the command's name


def _join_options() -> None:
    """Have `--option=value` completed as `--option value` is: bash passes the `=` as a word of its own."""
    if os.environ.get(_COMPLETE) != "complete_bash":
        return
    try:
        words = shlex.split(os.environ["COMP_WORDS"])
        at = int(os.environ["COMP_CWORD"])
    except (KeyError, ValueError):  # an open quote, say: completed as it stands
        return
    os.environ["COMP_WORDS"] = shlex.join(word for word in words if word != "=")
    os.environ["COMP_CWORD"] = str(at - words[:at].count("="))


def main() -> None:
    """Run the command line and exit with its code; a missing extra is one line and code 1."""
    try:
        from allm_actors.cli._app import app

        _join_options()
        app(prog_name="allm-actors")
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write("allm-actors: the command line needs an extra: pip install 'allm-actors[cli]'\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
