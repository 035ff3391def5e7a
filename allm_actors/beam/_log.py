"""The logger of the process layer.

Records are structured (structlog). In a program that has configured structlog they go through its
processors; in any other they reach the standard `logging` tree under the same name, as one line of
`event key=value ...`, so a program that configured nothing sees warnings and errors and no debug noise.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog

_RENDER = structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True)


class Logger:
    """A structured logger whose debug records cost next to nothing while nobody listens."""

    __slots__ = ("_name", "_plain", "_std")

    def __init__(self, name: str) -> None:
        self._name = name
        self._std = logging.getLogger(name)
        self._plain = structlog.wrap_logger(
            self._std,
            processors=[structlog.stdlib.filter_by_level, _RENDER],
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        )

    def _target(self) -> Any:
        if structlog.is_configured():
            return structlog.get_logger(self._name, logger=self._name)
        return self._plain

    def wants_debug(self) -> bool:
        """Whether a debug record would be seen."""
        return structlog.is_configured() or self._std.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, **fields: Any) -> None:
        """Log what only a developer of the program wants to see."""
        if self.wants_debug():
            self._target().debug(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log something odd that the program survives."""
        self._target().warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log a failure."""
        self._target().error(event, **fields)


log = Logger("allm_actors.beam")
