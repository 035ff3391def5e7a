"""How a stream looks on a terminal: text on standard output, everything else on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from allm_actors.cli._meter import Meter
from allm_actors.cli._terminal import one_line, printable, write
from allm_actors.data import (
    MessageCompleted,
    StepCompleted,
    TextDelta,
    ToolExecutionStarted,
    ToolHalt,
    ToolResultEncoded,
    compact_json,
)

if TYPE_CHECKING:
    from allm_actors.data import Event

__all__ = ["Screen", "say"]


def say(text: str, style: str = "dim") -> None:
    """Write a line to standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(text, style=style))


class Screen:
    """Shows the events of one stream as they come.

    Args:
        show_events: Show every event as one line, in place of the text.
    """

    def __init__(self, *, show_events: bool = False) -> None:
        self._show_events = show_events
        self._meter = Meter()
        self._began = self._meter
        self._names: dict[str, str] = {}
        self._ends_with_newline = True

    def show(self, event: Event) -> None:
        """Show one event."""
        if self._show_events:
            write(_event_line(event, self._began.elapsed()))
        match event:
            case StepCompleted():
                self._meter = Meter()  # of the next turn, whose request goes out now
            case TextDelta(delta=text):
                self._meter.piece()
                if not self._show_events:
                    shown = printable(text)
                    write(shown)
                    self._ends_with_newline = shown.endswith("\n") if shown else self._ends_with_newline
            case MessageCompleted(usage=usage, finish_reason=reason):
                self.end_line()
                if reason != "tool_calls":
                    cut = "" if reason in {"stop", None} else f" · ended by {reason}"
                    say(self._meter.report(usage) + cut)
            case ToolExecutionStarted(id=call_id, name=name, arguments=arguments):
                self._names[call_id] = name
                say(one_line(f"· {name} {compact_json(arguments)}"))
            case ToolResultEncoded(id=call_id, content=content):
                say("  " + one_line(f"{self._names.get(call_id, call_id)}: {content}"))
            case ToolHalt(tool_call_id=call_id, reason=reason, content=content):
                say("  " + one_line(f"{self._names.get(call_id, call_id)}: {content} (halted: {reason})"))
            case _:
                pass

    def end_line(self) -> None:
        """End the line of text that was begun, if one was."""
        if not self._ends_with_newline:
            write("\n")
            self._ends_with_newline = True


def _event_line(event: Event, elapsed: float) -> str:
    body = event.model_dump_json(exclude={"type"}, exclude_defaults=True)
    return f"{elapsed:9.3f} s  {event.type:<20} {printable(body)}\n"
