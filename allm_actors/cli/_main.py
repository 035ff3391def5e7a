"""The entry point of the command line, which works (and says what is missing) without its extra."""

import sys

_EXTRA = frozenset({"typer", "rich", "click", "shellingham"})
INTERRUPTED = 130  # what a shell makes of a program that Ctrl-C ended


def main() -> None:
    """Run the command line and exit with its code; a missing extra is one line and code 1."""
    try:
        from allm_actors.cli._app import app

        app(prog_name="allm-actors")
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write("allm-actors: the command line needs an extra: pip install 'allm-actors[cli]'\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
