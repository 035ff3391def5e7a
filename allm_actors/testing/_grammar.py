"""The order in which an adapter may say things, as a check over a list of events."""

from __future__ import annotations

from typing import Any

from allm_actors.data import (
    ErrorEvent,
    MessageCompleted,
    MessageStarted,
    RawChunk,
    TextCompleted,
    TextDelta,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
)

__all__ = ["breaches"]

_BODY = (TextDelta, ToolCallStarted, ToolCallDelta, ToolCallCompleted, RawChunk)
_CLOSING = (TextCompleted, ToolCallCompleted, RawChunk)
_TERMINAL = (MessageCompleted, ErrorEvent)


def breaches(events: list[Any]) -> list[str]:
    """What is wrong with the events of one adapter stream, in words; nothing for a stream as it should be."""
    if not events:
        return ["there is no event"]
    foreign = [
        event for event in events if not isinstance(event, (MessageStarted, *_BODY, *_CLOSING, *_TERMINAL))
    ]
    if foreign:
        return [f"no event of an adapter: {type(foreign[0]).__name__}"]
    return [*_frame(events), *_text(events), *_calls(events)]


def _frame(events: list[Any]) -> list[str]:
    """The first event, the last one, and what stands between."""
    found = []
    terminal = [index for index, event in enumerate(events) if isinstance(event, _TERMINAL)]
    if terminal != [len(events) - 1]:
        found.append(f"{len(terminal)} terminal events; there is one, the last")
    if isinstance(events[0], ErrorEvent):
        return found
    if [index for index, event in enumerate(events) if isinstance(event, MessageStarted)] != [0]:
        found.append("there is one MessageStarted, the first event")
    if isinstance(events[-1], MessageCompleted):
        kinds = [type(event) for event in events[:-1]]
        tail = kinds[kinds.index(TextCompleted) + 1 :] if TextCompleted in kinds else []
        if any(kind not in (ToolCallCompleted, RawChunk) for kind in tail):
            found.append("after TextCompleted come completed calls, raw chunks and the end")
    return found


def _text(events: list[Any]) -> list[str]:
    deltas = [event.delta for event in events if isinstance(event, TextDelta)]
    completed = [event.text for event in events if isinstance(event, TextCompleted)]
    found = ["an empty TextDelta"] if "" in deltas else []
    expected = ["".join(deltas)] if deltas and isinstance(events[-1], MessageCompleted) else []
    if completed != expected:
        found.append(f"TextCompleted says {completed}, the deltas {expected}")
    return found


def _calls(events: list[Any]) -> list[str]:
    """Each call: started, deltas, completed; once, and in this order."""
    found = []
    seen: dict[str, list[Any]] = {}
    for event in events:
        if isinstance(event, ToolCallStarted | ToolCallDelta | ToolCallCompleted):
            seen.setdefault(event.id, []).append(event)
    for identity, said in seen.items():
        order = [("started", "delta", "completed")[_RANK[type(event)]] for event in said]
        once = order.count("started") <= 1 and order.count("completed") <= 1
        if not once or order != sorted(order, key=_ORDER.index):
            found.append(f"call {identity!r} is {', '.join(order)}")
        if isinstance(events[-1], MessageCompleted):
            if order.count("completed") != 1:
                found.append(f"call {identity!r} is completed {order.count('completed')} times")
                continue
            text = "".join(event.arguments_delta for event in said if isinstance(event, ToolCallDelta))
            whole = next(event.raw_arguments for event in said if isinstance(event, ToolCallCompleted))
            if "delta" in order and whole != text:
                found.append(f"call {identity!r} has arguments {whole!r}, its deltas say {text!r}")
    return found


_RANK: dict[Any, int] = {ToolCallStarted: 0, ToolCallDelta: 1, ToolCallCompleted: 2}
_ORDER = ["started", "delta", "completed"]
