"""The providers' logger: what was left out of a request, for developers who ask."""

from allm_actors.beam._log import Logger

__all__ = ["debug"]

debug = Logger("allm_actors.providers").debug
"""Log what only a developer wants to see. Never content, never a secret."""
