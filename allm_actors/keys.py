"""API keys: put one, configure where they come from, look one up.

Keys belong to calls, never to data: no engine, adapter or stored value may hold one.
"""

from allm_actors.engine.keys import KeyHit, clear, configure, delete, env_vars_for, fetch, get, put

__all__ = ["KeyHit", "clear", "configure", "delete", "env_vars_for", "fetch", "get", "put"]
