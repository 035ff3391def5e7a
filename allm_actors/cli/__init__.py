"""The command line: `allm-actors`, also `python -m allm_actors`."""

from allm_actors.cli._main import main

__all__ = ["main"]
