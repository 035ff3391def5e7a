"""From a call to its stream: checks, resolution, key, pre-flight, in this order and all of it at the call.

Guarantees:
    - What is wrong with a call is raised by the call: the first failure wins, nothing after it happens, and
      nothing of the stream is left behind.
    - Nothing is sent before the first `next()`.
    - The engine's value is read once: changing a started engine changes later calls.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from allm_actors import telemetry
from allm_actors.beam._log import Logger
from allm_actors.data import MessageCompleted, ModelRef, Request
from allm_actors.data import request as to_request
from allm_actors.data import validation as validate
from allm_actors.engine import AdapterStream, CallContext, Engine, capability, keys, new_request_id, processes
from allm_actors.errors import AllmError, EngineError
from allm_actors.streaming._attempts import Attempts
from allm_actors.streaming._limits import Limits
from allm_actors.streaming._producer import Producer, ProducerTap
from allm_actors.streaming.event_stream import EventStream
from allm_actors.streaming.filters import event_filter
from allm_actors.streaming.mailbox import Mailbox, StreamHandle
from allm_actors.streaming.options import REQUEST_FIELDS, CallOptions, seal, sort_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from allm_actors.data import Event
    from allm_actors.engine import Adapter
    from allm_actors.engine.processes import EngineRef
    from allm_actors.errors import AdapterError
    from allm_actors.streaming.filters import Filter

__all__ = ["OpenCall", "StreamRunner", "open_call", "open_stream", "resolve", "stream_generate"]

_log = Logger("allm_actors.streaming")

_DEFAULTS: Final = {name: Request.model_fields[name].default for name in REQUEST_FIELDS}


class StreamRunner:
    """Streams single requests through one engine.

    Args:
        engine: An `Engine`, a started engine's `EngineRef`, or the name it has.
    """

    def __init__(self, engine: Engine | EngineRef | str) -> None:
        self.engine = engine

    def run(self, input: Any, **options: Any) -> EventStream[Event]:  # noqa: A002
        """Check the call and give its events, lazily: nothing is sent before the first `next()`.

        Args:
            input: Text, messages, a `Thread` or a `Request`.
            **options: Options of the call; `None` means not given.

        Raises:
            TypeError: An engine, input or option of the wrong type.
            ValueError: An impossible option.
            AllmError: What is wrong with the engine or the request, or what the adapter refused.
        """
        seal(options)
        opened = open_call(self.engine, input, options)
        return EventStream(
            opened.tap(),
            request_id=opened.request_id,
            on_event=opened.options.on_event,
            passes=opened.passes(),
        )

    def open(self, input: Any, *, into: Mailbox, **options: Any) -> StreamHandle:  # noqa: A002
        """Make the same call, read through a mailbox. Its request goes out at once.

        Raises:
            ValueError: The mailbox is closed; nothing was sent.
            Exception: As `run`.
        """
        seal(options)
        if not isinstance(into, Mailbox):
            raise TypeError(f"into must be a Mailbox, not {type(into).__name__}")
        into.check_open()
        opened = open_call(self.engine, input, options)
        return into.feed(
            opened.producer(),
            request_id=opened.request_id,
            on_event=opened.options.on_event,
            passes=opened.passes(),
        )


def stream_generate(
    engine: Engine | EngineRef | str,
    input: Any,  # noqa: A002
    **options: Any,
) -> EventStream[Event]:
    """Give the events of one request, lazily: see `StreamRunner.run`."""
    seal(options)
    return StreamRunner(engine).run(input, **options)


def open_stream(
    engine: Engine | EngineRef | str,
    input: Any,  # noqa: A002
    *,
    into: Mailbox,
    **options: Any,
) -> StreamHandle:
    """Send one request whose events arrive in a mailbox: see `StreamRunner.open`."""
    seal(options)
    return StreamRunner(engine).open(input, into=into, **options)


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that passed every check: an adapter stream nobody has read from yet, and what goes with it."""

    request: Request
    """As sent: fully resolved."""
    context: CallContext
    options: CallOptions
    attempts: Attempts
    lease: processes.Lease
    span: telemetry.Span

    @property
    def request_id(self) -> str:
        """The call's id."""
        return self.context.request_id

    def passes(self) -> Filter | None:
        """What the consumer wants to see."""
        chosen = self.options
        return event_filter(
            emit_text_deltas=chosen.emit_text_deltas,
            emit_tool_deltas=chosen.emit_tool_deltas,
            include_raw_chunks=chosen.include_raw_chunks,
        )

    def producer(self) -> Producer:
        """The process that will read the adapter stream."""
        return Producer(
            self.attempts,
            interrupt=self.attempts.interrupt,
            lease=self.lease,
            provider=self.attempts.provider,
            about=self.attempts.about,
            span=self.span if self.span.name == "stream" else None,
        )

    def tap(self) -> ProducerTap:
        """The same, with a queue of its own."""
        return ProducerTap(self.producer())


def open_call(  # noqa: PLR0913  # the further three are for callers within the library
    engine: Any,
    input: Any,  # noqa: A002
    options: Mapping[str, Any],
    *,
    span: Literal["stream", "generate"] = "stream",
    site: processes.Site | None = None,
    wanted: Callable[[], bool] | None = None,
) -> OpenCall:
    """Run every check of a call, in order, and its pre-flight.

    Args:
        engine: As for `StreamRunner`.
        input: As for `StreamRunner.run`.
        options: The call's options, unsorted.
        span: What the call is watched as. A `generate` answers as a whole: `request_timeout` bounds each of
            its attempts.
        site: The engine as an earlier call found it: its value is used once more, and not looked up anew.
        wanted: Looked at while the restart of an engine is waited for; `False` ends that as `cancelled`.

    Raises:
        Exception: The first thing that is wrong; nothing of the call is left behind.
    """
    began = time.monotonic()
    processes.check_engine(engine)
    asked = to_request(input)
    given = sort_options(options)
    if site is None:
        site = processes.locate(engine, deadline=began + given.times.get("deadline", math.inf))
    value = site.engine
    defaults = sort_options(value.params, of_engine=True)
    chosen = given.over(defaults)
    request = resolve(asked, value, chosen, defaults)
    request_id = chosen.request_id or new_request_id()
    extra = {**_unnamed(defaults.extra, request), **given.extra}
    watched = telemetry.start(
        span,
        _metadata(value, site.name, request, request_id, chosen),
        details={"request": request, "options": extra, "adapter": value.adapter},
    )
    about = _about(value, request, request_id)
    try:
        adapter = _streaming_adapter(value)
        validate.request(request)
        request = capability.preflight(request, adapter)
        hit = keys.get(adapter.provider, chosen.api_key) if getattr(adapter, "auth", True) else None
        retry = chosen.retry or value.retry
        context = CallContext(
            request_id=request_id,
            api_key=hit.key if hit else None,
            options=extra,
            retry=retry,
            **chosen.times,
        )
        lease = site.borrow(deadline=began + context.deadline, wanted=wanted)
        attempts = Attempts(
            _preflight(lease, request, context),
            lambda: _preflight(lease, request, context),
            retry=retry,
            limits=Limits(
                ends_at=began + context.deadline,
                attempt=context.request_timeout if span == "generate" else math.inf,
                content=context.content_timeout,
            ),
            provider=adapter.provider,
            on_retry=_RetryReport(context.request_id, adapter.provider, watched),
            on_milestone=_Milestones(watched, began),
            about=about,
        )
    except BaseException as error:
        if isinstance(error, AllmError) and about not in getattr(error, "__notes__", ()):
            error.add_note(about)
        # A copy, for whoever watches may keep it: what is raised here has this frame hanging on it.
        watched.finish(error.replace() if isinstance(error, AllmError) else error)
        raise
    return OpenCall(request, context, chosen, attempts, lease, watched)


def resolve(asked: Request, engine: Engine, options: CallOptions, defaults: CallOptions) -> Request:
    """Lay a call's options over its request, and the engine's underneath; on a copy."""
    changes: dict[str, Any] = {}
    for name in REQUEST_FIELDS:
        if name in options.on_request:
            changes[name] = options.on_request[name]
        elif name in defaults.on_request and getattr(asked, name) == _DEFAULTS[name]:
            changes[name] = defaults.on_request[name]
    model = options.on_request.get("model", asked.model)
    if model is None and engine.model is None:
        model = defaults.on_request.get("model")
    changes["model"] = engine.resolve_model(model)
    if changes.get("prompt_cache") is False:
        changes["prompt_cache"] = None
    changes = {name: value for name, value in changes.items() if value != getattr(asked, name)}
    return asked.model_copy(update=changes) if changes else asked


def _streaming_adapter(engine: Engine) -> Adapter:
    adapter = engine.adapter
    if adapter is None:
        raise EngineError("missing_adapter", "the engine has no adapter: give it one, Engine(adapter=...)")
    if not adapter.streams:
        raise EngineError(
            "missing_stream_adapter",
            f"{type(adapter).__name__} gives whole answers only, no streams: use an adapter that streams",
            provider=adapter.provider,
        )
    return adapter


def _unnamed(extra: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Those of the engine's unknown options that the request does not name itself."""
    named = request.options if isinstance(request.options, dict) else {}
    return {name: value for name, value in extra.items() if name not in named}


def _preflight(lease: processes.Lease, request: Request, context: CallContext) -> AdapterStream:
    try:
        stream = lease.connection.stream(request, context)
    except EngineError as error:
        if error.reason != "missing_key" or "checked_sources" in error.metadata:
            raise
        known = error.replace(metadata={**error.metadata, "checked_sources": keys.checked_sources()})
    else:
        if isinstance(stream, AdapterStream):
            return stream
        raise TypeError(
            f"{type(lease.connection).__name__}.stream gave {type(stream).__name__}, no AdapterStream"
        )
    raise known


def _metadata(
    engine: Engine, name: Any, request: Request, request_id: str, options: CallOptions
) -> dict[str, Any]:
    model = request.model
    return {
        **(options.telemetry_metadata or {}),
        "request_id": request_id,
        "engine": name,
        "provider": engine.adapter.provider if engine.adapter is not None else None,
        "model": model.id if isinstance(model, ModelRef) else model,
    }


def _about(engine: Engine, request: Request, request_id: str) -> str:
    """Which call it is, for people to read."""
    adapter, model = engine.adapter, request.model
    where = ""
    if adapter is not None:
        address = f" at {adapter.address}" if adapter.address else ""
        where = f" to {adapter.provider}{address}"
    named = model.id if isinstance(model, ModelRef) else model
    text = f"request {request_id}{where}{f', model {named!r}' if named is not None else ''}"
    return text if text.isprintable() else repr(text)[1:-1]


@dataclass(frozen=True, slots=True)
class _Milestones:
    """Notes, for tracing, when the answer began and what it came to."""

    span: telemetry.Span
    began: float

    def __call__(self, event: Event) -> None:
        if isinstance(event, MessageCompleted):
            self.span.details["completed"] = event
        else:
            self.span.details["first_chunk"] = time.monotonic() - self.began


@dataclass(frozen=True, slots=True)
class _RetryReport:
    """Says of each repetition that it comes, before the wait."""

    request_id: str
    provider: str
    span: telemetry.Span

    def __call__(self, attempt: int, delay: float, error: AdapterError) -> None:
        _log.warning(
            "stream.retry",
            request_id=self.request_id,
            provider=self.provider,
            attempt=attempt,
            delay=delay,
            reason=error.reason,
            status=error.status,
        )
        telemetry.emit(
            "allm.retry",
            {"attempt": attempt, "delay": delay},
            {
                "request_id": self.request_id,
                "provider": self.provider,
                "status": error.status,
                "reason": error.reason,
            },
            span=self.span,
        )
