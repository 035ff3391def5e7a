"""The logger of the process layer.

Records are structured (structlog). In a program that has configured structlog they go through its
processors; in any other they reach the standard `logging` tree under the same name, as one line of
`event key=value ...` with the stack or traceback indented below it, so a program that configured nothing
sees warnings and errors and no debug noise.

No field can break out of its line or drive a terminal: what is not printable in a text is written as an
escape, as in Python. Line breaks stay in `stack` and `traceback` alone, texts of many lines by nature.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import textwrap
import traceback
from typing import Any

import structlog

_MANY_LINES = frozenset({"stack", "traceback"})
_DEAF = frozenset(
    structlog.make_filtering_bound_logger(level)
    for level in (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
)
"""The wrapper classes that drop every debug record unseen, by which a program sets its level."""
_ONE_LINE = structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True)


def _render(logger: Any, method: str, record: Any) -> str:
    """Return `event key=value ...`, and below it, indented, the texts of many lines."""
    below = [text for name in sorted(_MANY_LINES) if isinstance(text := record.pop(name, None), str)]
    line = _ONE_LINE(logger, method, record)
    return "\n".join([line, *(textwrap.indent(text.rstrip("\n"), "    ", lambda _: True) for text in below)])


class Logger:
    """A structured logger whose debug records cost next to nothing while nobody listens.

    It never raises: what the program's own log processors raise goes to standard error, as with `logging`.
    """

    __slots__ = ("_name", "_plain", "_std")

    def __init__(self, name: str) -> None:
        self._name = name
        self._std = logging.getLogger(name)
        self._plain = structlog.wrap_logger(
            self._std,
            processors=[structlog.stdlib.filter_by_level, _render],
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        )

    def _target(self) -> Any:
        if structlog.is_configured():
            return structlog.get_logger(self._name).bind(logger=self._name)
        return self._plain

    def wants_debug(self) -> bool:
        """Whether a debug record would be seen."""
        if structlog.is_configured():
            return structlog.get_config()["wrapper_class"] not in _DEAF
        return self._std.isEnabledFor(logging.DEBUG)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        # A record is written in the middle of deaths: whatever a processor or a handler of the program
        # raises must not keep the news from those who wait for it.
        try:
            harmless = {name: _harmless(value, name) for name, value in fields.items()}
            getattr(self._target(), level)(event, **harmless)
        except Exception:
            if logging.raiseExceptions and sys.stderr is not None:
                with contextlib.suppress(Exception):
                    traceback.print_exc()

    def debug(self, event: str, **fields: Any) -> None:
        """Log what only a developer of the program wants to see."""
        if self.wants_debug():
            self._write("debug", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log something odd that the program survives."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log a failure."""
        self._write("error", event, fields)


def _harmless(value: Any, name: str = "") -> Any:
    """Return texts with their unprintable characters escaped; of anything else renderers show the `repr`."""
    if isinstance(value, str):
        if value.isprintable():
            return value
        kept = "\n" if name in _MANY_LINES else ""
        return "".join(
            char if char.isprintable() or char in kept else repr(char)[1:-1] for char in str.__str__(value)
        )
    if type(value) in {list, tuple}:
        return type(value)(_harmless(item) for item in value)
    if type(value) is dict:
        return {_harmless(key): _harmless(item) for key, item in value.items()}
    return value


log = Logger("allm_actors.beam")
