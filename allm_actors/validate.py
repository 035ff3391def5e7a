"""What data means: each function returns `None`, or raises `ValidationError` with all problems.

from allm_actors import validate

validate.request(allm_actors.request("hello"))
"""

from allm_actors.data.validation import message, request, session, thread, tool

__all__ = ["message", "request", "session", "thread", "tool"]
