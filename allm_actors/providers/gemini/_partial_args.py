"""The arguments of a call that come in pieces, each with a JSONPath that says where it belongs."""

import itertools
import math
import re
from typing import Any

from pydantic_core import from_json

from allm_actors.providers._json import plain

__all__ = ["PartialArguments"]

_Path = tuple[str | int, ...]

_SEGMENT = re.compile(
    r"""\.(?P<name>[^.\[\]\s]+)
    |\[(?P<index>[0-9]{1,9})\]
    |\['(?P<single>(?:[^'\\]|\\.)*)'\]
    |\["(?P<double>(?:[^"\\]|\\.)*)"\]""",
    re.VERBOSE,
)
_MAX_GAP = 100  # elements of an array that nobody has sent, before one that somebody has
_MISSING = object()


class PartialArguments:
    """Puts the arguments of one call together.

    Pieces of a string are joined; of other values at the same place the last counts. Where a piece belongs
    nowhere, the arguments as a whole are broken, for no tool must run with half of what it was meant to get.

    Args:
        start: Arguments that came whole, before the pieces.
    """

    __slots__ = ("_misfits", "_paths", "_start", "_values")

    def __init__(self, start: Any = None) -> None:
        self._start: dict[str, Any] = start if isinstance(start, dict) else {}
        self._values: dict[_Path, Any] = {}  # a list is the pieces of a string
        self._paths: dict[str, _Path | None] = {}
        self._misfits: list[Any] = []

    def add(self, more: dict[str, Any]) -> None:
        """Take arguments that come whole."""
        self._start = {**self._start, **more}

    def put(self, piece: Any) -> None:
        """Take one piece."""
        value = _value(piece)
        if value is None:
            return
        path = self._path(piece.get("jsonPath")) if value is not _MISSING else None
        if path is None:
            self._misfits.append(piece)
            return
        known = self._values.get(path)
        if isinstance(known, list) and isinstance(value[0], str):
            known.append(value[0])
        else:
            self._values[path] = [value[0]] if isinstance(value[0], str) else value[0]

    def whole(self) -> Any:
        """Return the arguments; instead of an object a list of misfits, where there are any."""
        root = plain(self._start)  # a copy down to the leaves, for the pieces may belong anywhere
        misfits = list(self._misfits)
        for path, value in self._values.items():
            text_or_value = "".join(value) if isinstance(value, list) else value
            if not _place(root, path, text_or_value):
                misfits.append(text_or_value)
        return misfits or root

    def _path(self, text: Any) -> _Path | None:
        if not isinstance(text, str):
            return None
        if text not in self._paths:
            self._paths[text] = _parse(text)
        return self._paths[text]


def _value(piece: Any) -> Any:
    """Return the value of a piece in a tuple, `None` if it has none, `_MISSING` if it is unreadable."""
    if not isinstance(piece, dict):
        return _MISSING
    if "nullValue" in piece:
        return (None,)
    for name, kinds in (("stringValue", (str,)), ("numberValue", (int, float)), ("boolValue", (bool,))):
        if name in piece:
            value = piece[name]
            fits = type(value) in kinds and not (isinstance(value, float) and not math.isfinite(value))
            return (value,) if fits else _MISSING
    return None


def _parse(text: str) -> _Path | None:
    """Return the segments of a path from the root to one value; `None` for anything else."""
    path: list[str | int] = []
    end = 1
    while found := _SEGMENT.match(text, end):
        end = found.end()
        if found["index"] is not None:
            path.append(int(found["index"]))
        elif found["name"] is not None:
            path.append(found["name"])
        else:
            quoted = found["double"]
            if quoted is None:
                quoted = found["single"].replace("\\'", "'").replace('"', '\\"')
            try:
                path.append(from_json(f'"{quoted}"'))
            except ValueError:
                return None
    return tuple(path) if text[:1] == "$" and end == len(text) and path else None


def _place(root: dict[str, Any], path: _Path, value: Any) -> bool:
    """Put a value into the tree, making what leads there; return whether there was a place for it."""
    node: Any = root
    for step, after in itertools.pairwise(path):
        if not _opens(node, step):
            return False
        child = node[step]
        if child is None:
            child = node[step] = [] if isinstance(after, int) else {}
        node = child
    if not _opens(node, path[-1]):
        return False
    node[path[-1]] = value
    return True


def _opens(node: Any, step: str | int) -> bool:
    """Make room in `node` for what `step` leads to; return whether it can lead anywhere from there."""
    if isinstance(step, str):
        if not isinstance(node, dict):
            return False
        node.setdefault(step, None)
        return True
    if not isinstance(node, list) or step > len(node) + _MAX_GAP:
        return False
    node.extend([None] * (step + 1 - len(node)))
    return True
