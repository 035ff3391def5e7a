"""Language-model calls run the way Erlang runs processes."""

from allm_actors._version import __version__

__all__ = ["__version__"]
