"""The readable reasoning of a streamed Responses answer, put together as a whole answer would show it."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Thoughts"]

_BETWEEN = "\n\n"


@dataclass(slots=True)
class _Item:
    own: list[str] = field(default_factory=list[str])
    summary: list[str] = field(default_factory=list[str])
    part: int = 0
    gaps: int = 0


class Thoughts:
    """Gathers reasoning by output item: its own words win over their summary, whose parts stand apart."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: dict[int, _Item] = {}

    @property
    def text(self) -> str:
        """Everything so far."""
        return "".join("".join(item.own or item.summary) for item in self._items.values())

    def think(self, output: int, delta: str) -> None:
        """A piece of an item's own words."""
        if delta:
            self._item(output).own.append(delta)

    def next_summary(self, output: int, part: Any) -> None:
        """A part of the summary begins."""
        if type(part) is int and part > 0:
            item = self._item(output)
            item.gaps += 1
            item.part = part

    def summarise(self, output: int, part: Any, delta: str) -> None:
        """A piece of a part of the summary."""
        if not delta:
            return
        item = self._item(output)
        if type(part) is int and part > item.part:
            item.gaps += 1
            item.part = part
        if item.gaps:
            item.summary.append(_BETWEEN * item.gaps)
            item.gaps = 0
        item.summary.append(delta)

    def _item(self, output: int) -> _Item:
        return self._items.setdefault(output, _Item())
