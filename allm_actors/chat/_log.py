"""The chat floor's logger: handlers that were given up, and for developers what tools failed with."""

from allm_actors.beam._log import Logger

__all__ = ["log"]

log = Logger("allm_actors.chat")
