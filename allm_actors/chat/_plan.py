"""What a run is asked to do, checked: from the arguments of a call to what each of its turns needs.

Guarantees:
    - Types are judged first, of all arguments; then values; then the thread; then the engine.
    - The engine's value is read once: changing a started engine changes later runs.
    - Every turn of a run sends the same tools, and no option of the run reaches an adapter.
"""

from __future__ import annotations

import contextvars
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from allm_actors.chat import tool_help
from allm_actors.chat._calls import DefaultExecutor, Toolbox
from allm_actors.chat.encoding import DefaultEncoder
from allm_actors.chat.options import RunOptions, sort_run_options, with_engine
from allm_actors.data import ModelRef, PromptCache, Request
from allm_actors.data import validation as validate
from allm_actors.engine import new_request_id, processes
from allm_actors.errors import AdapterError, FieldError, ValidationError
from allm_actors.streaming.options import CallOptions, sort_options
from allm_actors.streaming.stream_runner import OpenCall, open_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from allm_actors import telemetry
    from allm_actors.data import Thread, Tool
    from allm_actors.engine import Engine
    from allm_actors.engine.processes import EngineRef, Site

__all__ = ["Asked", "Pass", "Plan", "ask", "check_thread", "plan"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A call whose arguments have the right types.

    Attributes:
        run: The options of the run.
        request: The options of each of its requests.
        problem: The first impossible value; raised by `check`.
    """

    engine: Engine | EngineRef | str
    run: RunOptions
    request: CallOptions
    problem: ValueError | None

    def check(self) -> None:
        """Raise the impossible value, if there is one."""
        if self.problem is not None:
            raise self.problem


def ask(engine: Any, options: Mapping[str, Any]) -> Asked:
    """Judge the types of an engine and of every option.

    Raises:
        TypeError: One of the wrong type.
    """
    processes.check_engine(engine)
    run, problem = sort_run_options(options)
    try:
        request = sort_options(run.request)
    except ValueError as error:
        problem = problem or error
        request = CallOptions()
    return Asked(engine, run, request, problem)


def check_thread(thread: Thread) -> None:
    """Check a thread that a run shall go on from.

    Raises:
        ValidationError: `invalid_thread`: a malformed message, or a call that no later message answers; its
            metadata names the calls.
    """
    validate.thread(thread)
    answered: set[str | None] = set()
    open_calls: list[tuple[int, int, str]] = []
    for place in range(len(thread.messages) - 1, -1, -1):
        message = thread.messages[place]
        if message.role == "tool":
            answered.add(message.tool_call_id)
        elif message.role == "assistant":
            open_calls += [
                (place, index, call.id)
                for index, call in enumerate(message.tool_calls)
                if call.id not in answered
            ]
    if open_calls:
        open_calls.sort()
        ids = [call_id for _, _, call_id in open_calls]
        raise ValidationError(
            "invalid_thread",
            [
                FieldError(("messages", place, "tool_calls", index), "unanswered")
                for place, index, _ in open_calls
            ],
            f"tool calls without an answer: {', '.join(ids)}; append a tool message for each",
            metadata={"tool_call_ids": ids},
        )


@dataclass(frozen=True, slots=True)
class Pass:
    """What the requests of one pass have in common.

    Attributes:
        site: The engine's value and place.
        tools: As the model is shown them.
        options: The options of each request.
        ends_at: When the run has to be over, on the clock of `time.monotonic()`.
    """

    site: Site
    tools: Sequence[Tool]
    options: Mapping[str, Any]
    ends_at: float

    def open(self, thread: Thread, span: telemetry.Span, wanted: Callable[[], bool]) -> OpenCall:
        """Make the request of one turn, up to where it is sent; no restart is waited for once unwanted.

        Raises:
            AllmError: What is wrong with it; `AdapterError("timeout")` if the run's deadline is over.
            Exception: A bug of the adapter.
        """
        options = dict(self.options)
        if self.ends_at < math.inf:
            left = self.ends_at - time.monotonic()
            if left <= 0:
                adapter = self.site.engine.adapter
                raise AdapterError(
                    "timeout",
                    "deadline is over",
                    provider=adapter.provider if adapter is not None else None,
                    metadata={"limit": "deadline"},
                )
            options["deadline"] = left
        request = Request(messages=thread.messages, tools=list(self.tools))
        with span.active():
            return open_call(self.site.engine, request, options, site=self.site, wanted=wanted)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that passed the checks of its own; what is wrong with its requests shows when the first is made.

    Attributes:
        first: What the turns of the loop need.
        second: What the structured last turn needs; `None` for a run of one pass.
        metadata: What every telemetry event of the run says.
    """

    options: RunOptions
    request_id: str
    toolbox: Toolbox
    first: Pass
    second: Pass | None
    metadata: Mapping[str, Any]


def plan(
    asked: Asked,
    thread: Thread,
    *,
    passes: bool,
    context: Mapping[str, Any] | None = None,
    session_id: str | None = None,
) -> Plan:
    """Check a call and find out what its turns need.

    Args:
        asked: The call.
        thread: What it goes on from.
        passes: Whether it may run in two passes: a chat may, a step does not.
        context: A session's, used if the call gives none and it is not empty.
        session_id: A session's, used if the call gives none.

    Raises:
        ValueError: An impossible option.
        TypeError: An engine parameter of the wrong type.
        AllmError: The thread is invalid, or the engine is down.
        Exception: What building a tool executor or encoder raised.
    """
    began = time.monotonic()
    asked.check()
    check_thread(thread)
    engine = processes.find(asked.engine)
    site = processes.locate(engine, deadline=began + asked.request.times.get("deadline", math.inf))
    value = site.engine
    run = with_engine(asked.run, value)
    defaults = sort_options(value.params, of_engine=True)
    chosen = asked.request.over(defaults)
    run = replace(
        run,
        session_id=session_id if run.session_id is None else run.session_id,
        context=_first_context(run.context, context, value.context),
    )
    request_id = chosen.request_id or new_request_id()
    ends_at = began + chosen.times.get("deadline", math.inf)
    metadata = metadata_of(chosen, request_id, site, _model(value, asked.request, defaults))
    tools = tool_help.with_help(value.resolve_tools(run.tools))
    toolbox = toolbox_of(
        run, value, tools, engine=engine, request_id=request_id, ends_at=ends_at, metadata=metadata
    )
    settings = {**defaults.on_request, **asked.request.on_request}
    options = {
        **run.request,
        "request_id": request_id,
        **_cache(settings.get("prompt_cache"), run.session_id),
    }
    shown = tool_help.project(tools, settings.get("tool_choice"))
    first, second = Pass(site, shown, options, ends_at), None
    if passes and run.structured_finalize:
        if _is_schema(settings.get("response_format")):
            first = _without(first, "response_format", "structured_finalize")
            second = _without(Pass(site, [], options, ends_at), "tool_choice", "structured_finalize")
        else:
            first = replace(
                first, options={**options, "structured_finalize": True}
            )  # refused with the request
    return Plan(run, request_id, toolbox, first, second, metadata)


def metadata_of(
    options: CallOptions, request_id: str, site: Site | None, model: str | None
) -> dict[str, Any]:
    """What every telemetry event of a run says."""
    adapter = site.engine.adapter if site is not None else None
    return {
        **(options.telemetry_metadata or {}),
        "request_id": request_id,
        "engine": site.name if site is not None else None,
        "provider": adapter.provider if adapter is not None else None,
        "model": model,
    }


def toolbox_of(run: RunOptions, value: Engine | None, tools: Sequence[Tool], **fields: Any) -> Toolbox:
    """What the calls of a run share; classes of executors and encoders are instantiated here."""
    own = value.tool_executor if value is not None else None
    executor = run.tool_executor or own or DefaultExecutor
    own_encoder = value.tool_result_encoder if value is not None else None
    encoder = run.tool_result_encoder or own_encoder or DefaultEncoder
    return Toolbox(
        tools={tool.name: tool for tool in tools},
        executor=executor() if isinstance(executor, type) else executor,
        encoder=encoder() if isinstance(encoder, type) else encoder,
        policy=run.on_tool_error,
        timeout=run.tool_timeout,
        max_concurrency=run.max_concurrency,
        context=run.context if run.context is not None else {},
        session_id=run.session_id,
        variables=contextvars.copy_context(),
        **fields,
    )


def _first_context(*contexts: Mapping[str, Any] | None) -> Mapping[str, Any]:
    call, session, engine = contexts
    if call is not None:
        return call
    return session or engine or {}


def _model(engine: Engine, call: CallOptions, defaults: CallOptions) -> str | None:
    model = call.on_request.get("model")
    if model is None and engine.model is None:
        model = defaults.on_request.get("model")
    found = engine.resolve_model(model)
    return found.id if isinstance(found, ModelRef) else found


def _cache(wanted: Any, session_id: str | None) -> dict[str, Any]:
    """The caching option with the session's id as its key, if caching is on without a key."""
    if isinstance(wanted, PromptCache) and wanted.key is None and session_id:
        return {"prompt_cache": wanted.model_copy(update={"key": session_id})}
    return {}


def _is_schema(wanted: Any) -> bool:
    return isinstance(wanted, dict) and wanted.get("type") == "json_schema"


def _without(chosen: Pass, *names: str) -> Pass:
    """The same requests with these options given nowhere: not in the call, not by the engine."""
    engine = chosen.site.engine
    params = {name: value for name, value in engine.params.items() if name not in names}
    options = {name: value for name, value in chosen.options.items() if name not in names}
    site = chosen.site.using(engine.model_copy(update={"params": params}))
    return replace(chosen, site=site, options=options)
