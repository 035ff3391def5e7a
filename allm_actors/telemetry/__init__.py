"""What a program may watch of its calls: spans with a start and one end, and single events.

`attach` a handler to names out of `NAMES`, or have `instrument_opentelemetry` turn spans into those of
OpenTelemetry. While nobody watches, a span costs next to nothing.
"""

from allm_actors.telemetry._opentelemetry import instrument_opentelemetry, uninstrument_opentelemetry
from allm_actors.telemetry._spans import (
    EVENTS,
    NAMES,
    SPANS,
    Span,
    SpanName,
    SpanWatcher,
    attach,
    current,
    detach,
    emit,
    start,
    unwatch,
    watch,
)

__all__ = [
    "EVENTS",
    "NAMES",
    "SPANS",
    "Span",
    "SpanName",
    "SpanWatcher",
    "attach",
    "current",
    "detach",
    "emit",
    "instrument_opentelemetry",
    "start",
    "uninstrument_opentelemetry",
    "unwatch",
    "watch",
]
