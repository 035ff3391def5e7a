"""Spans as OpenTelemetry has them. Optional: works where the `opentelemetry` API is installed.

Guarantees:
    - Nothing of OpenTelemetry is imported before `instrument_opentelemetry` is called.
    - No prompt, answer, argument or result leaves the program unless content was asked for.
    - A parent is the span a call was made in, in whichever thread that was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from allm_actors.telemetry import _spans

if TYPE_CHECKING:
    from allm_actors.telemetry._spans import Span


class _Installed:
    """The one bridge of the process, if there is one."""

    bridge: Bridge | None = None


_installed: Final = _Installed()


def instrument_opentelemetry(tracer_provider: Any = None, *, capture_content: bool = False) -> None:
    """Have every model call, step, chat and tool appear as a span of OpenTelemetry.

    A second call replaces the first. Spans that are open then end unseen.

    Args:
        tracer_provider: Where the spans go; by default the one of the program.
        capture_content: Also record prompts, answers, tool arguments and results.

    Raises:
        ImportError: The `opentelemetry` API is not installed; the extra `otel` brings it.
    """
    bridge = Bridge(tracer_provider, capture_content=capture_content)
    uninstrument_opentelemetry()
    _installed.bridge = bridge
    _spans.watch(bridge)


def uninstrument_opentelemetry() -> None:
    """Take the bridge off, if there is one."""
    if _installed.bridge is not None:
        _spans.unwatch(_installed.bridge)
        _installed.bridge = None


class Bridge:
    """Follows spans and makes OpenTelemetry's out of them.

    Args:
        tracer_provider: Where they go; `None` for the program's own.
        capture_content: Whether they carry prompts and answers.
    """

    def __init__(self, tracer_provider: Any = None, *, capture_content: bool = False) -> None:
        from opentelemetry import trace

        from allm_actors._version import __version__
        from allm_actors.telemetry import _semconv

        self._trace = trace
        self._names = _semconv
        self._content = capture_content
        self._tracer = trace.get_tracer("allm_actors", __version__, tracer_provider)
        self._open: dict[Span, Any] = {}  # set and popped as one step each: any thread may

    def started(self, span: Span) -> None:
        """Start the span's counterpart under that of its parent."""
        names, trace = self._names, self._trace
        if span.name not in names.SPANS:
            return
        parent = self._open_parent(span)
        attributes = names.at_start(span)
        if self._content:
            attributes |= names.content_at_start(span)
        self._open[span] = self._tracer.start_span(
            names.name_and_operation(span)[0],
            context=trace.set_span_in_context(parent) if parent is not None else None,
            kind=trace.SpanKind.CLIENT if span.name in names.CALLS else trace.SpanKind.INTERNAL,
            attributes=attributes,
        )

    def ended(self, span: Span, error: BaseException | None) -> None:
        """End the counterpart, with what the span ended with."""
        counterpart = self._open.pop(span, None)
        if counterpart is None:
            return
        attributes = self._names.at_end(span, error)
        if self._content:
            attributes |= self._names.content_at_end(span)
        counterpart.set_attributes(attributes)
        if error is not None:
            counterpart.set_status(self._trace.Status(self._trace.StatusCode.ERROR))
        counterpart.end()

    def event(
        self, span: Span | None, name: str, measurements: dict[str, Any], metadata: dict[str, Any]
    ) -> None:
        """Note a single event, a retry for one, on the span it happened in."""
        counterpart = self._open.get(span) if span is not None else None
        if counterpart is not None:
            counterpart.add_event(name, self._names.flat([*measurements.items(), *metadata.items()]))

    def _open_parent(self, span: Span) -> Any:
        parent = span.parent
        while parent is not None:
            if parent in self._open:
                return self._open[parent]
            parent = parent.parent
        return None
