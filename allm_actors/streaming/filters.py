"""What a consumer wants to see of a stream.

A filter is a function from an event to whether it passes. It holds no state and is applied after `on_event`,
in the consumer's thread.
"""

from collections.abc import Callable
from typing import Any

from allm_actors.data import RawChunk, TextDelta, ToolCallDelta

__all__ = ["Filter", "event_filter"]

Filter = Callable[[Any], bool]


def event_filter(
    *,
    emit_text_deltas: bool | None = None,
    emit_tool_deltas: bool | None = None,
    include_raw_chunks: bool | None = None,
) -> Filter | None:
    """The filter for these options, `None` if everything passes.

    By default deltas pass and raw chunks do not; usage reports always pass.
    """
    dropped: set[type] = set()
    if emit_text_deltas is False:
        dropped.add(TextDelta)
    if emit_tool_deltas is False:
        dropped.add(ToolCallDelta)
    if not include_raw_chunks:
        dropped.add(RawChunk)
    if not dropped:
        return None
    classes = frozenset(dropped)

    def passes(event: Any) -> bool:
        return type(event) not in classes or (type(event) is RawChunk and event.kind == "usage")

    return passes
