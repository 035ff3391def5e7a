"""Running the tool calls of a response without a loop around them."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from allm_actors.chat import tool_help
from allm_actors.chat._batch import Batch, unexecuted
from allm_actors.chat._driver import RunTap
from allm_actors.chat._plan import metadata_of, toolbox_of
from allm_actors.chat._source import GATE, Run
from allm_actors.chat._turn import unknown_tool
from allm_actors.chat.options import sort_run_options, with_engine
from allm_actors.chat.outcomes import ToolBatch
from allm_actors.data import (
    ErrorEvent,
    MessageCompleted,
    StreamCollector,
    Thread,
    Tool,
    ToolCall,
    ToolCallCompleted,
    assistant,
)
from allm_actors.engine import new_request_id, processes
from allm_actors.streaming import EventStream
from allm_actors.streaming.options import sort_options

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from allm_actors.chat._calls import Toolbox
    from allm_actors.data import Event
    from allm_actors.engine import Engine
    from allm_actors.engine.processes import EngineRef
    from allm_actors.errors import AdapterError

__all__ = ["run_tool_calls", "stream_tool_calls"]


def run_tool_calls(
    tool_calls: Sequence[ToolCall],
    tools: Sequence[Tool],
    *,
    engine: Engine | EngineRef | str | None = None,
    **options: Any,
) -> ToolBatch:
    """Run calls and wait for all of them; their `manual` flags are ignored.

    Args:
        tool_calls: The calls, in call order.
        tools: The tools they may name.
        engine: What handlers see as `ctx.engine`; its context, executor, encoder and parameters count as in
            a run.
        **options: `on_tool_error`, `tool_timeout`, `max_concurrency`, `tool_executor`, `tool_result_encoder`,
            `context`, `session_id`, `request_id`, `deadline`.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An impossible option, or two calls with one id.
        EngineError: `unknown_tool`, before any handler runs.
    """
    calls, box = _prepared(tool_calls, tools, engine, options)
    unknown = box.unknown(calls)
    if unknown is not None:
        raise unknown_tool(unknown)
    folded = StreamCollector(Thread())
    for call in calls:  # the fold answers in call order
        folded.apply(
            ToolCallCompleted(
                id=call.id, name=call.name, arguments=call.arguments, raw_arguments=call.raw_arguments or ""
            )
        )
    folded.apply(MessageCompleted(message=assistant(""), finish_reason="tool_calls"))
    with EventStream[Any](_tap(calls, box), request_id=box.request_id) as events:
        for event in events:
            folded.apply(event)
    step = folded.step_result()
    names = ToolBatch.model_fields.keys() - {"messages"}
    return ToolBatch(messages=step.tool_results, **{name: getattr(step, name) for name in names})


def stream_tool_calls(
    tool_calls: Sequence[ToolCall],
    tools: Sequence[Tool],
    *,
    engine: Engine | EngineRef | str | None = None,
    **options: Any,
) -> EventStream[Event]:
    """Give the events of the same, lazily; a call of an unknown tool is a single `ErrorEvent`.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An impossible option, or two calls with one id.
    """
    calls, box = _prepared(tool_calls, tools, engine, options)
    return EventStream(_tap(calls, box), request_id=box.request_id)


def _prepared(
    tool_calls: Any, tools: Any, engine: Any, options: dict[str, Any]
) -> tuple[list[ToolCall], Toolbox]:
    began = time.monotonic()
    calls: list[ToolCall] = _list_of(ToolCall, "tool_calls", tool_calls)
    known = _list_of(Tool, "tools", tools)
    if engine is not None:
        processes.check_engine(engine)
    run, problem = sort_run_options(options)
    request = sort_options(run.request)
    if problem is not None:
        raise problem
    _check_ids(calls)
    site = value = None
    if engine is not None:
        engine = processes.find(engine)
        site = processes.locate(engine)
        value = site.engine
        run = with_engine(run, value)
        request = request.over(sort_options(value.params, of_engine=True))
        if run.context is None:
            run = replace(run, context=value.context)
    request_id = request.request_id or new_request_id()
    box = toolbox_of(
        run,
        value,
        tool_help.with_help(known),
        engine=engine,
        request_id=request_id,
        ends_at=began + request.times.get("deadline", math.inf),
        metadata=metadata_of(request, request_id, site, None),
    )
    return calls, box


def _list_of(kind: type, name: str, given: Any) -> list[Any]:
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"{name} must be a list, not {type(given).__name__}")
    for place, item in enumerate(given):
        if not isinstance(item, kind):
            raise TypeError(f"{name}[{place}] must be a {kind.__name__}, not {type(item).__name__}")
    return list(given)


def _check_ids(calls: Sequence[ToolCall]) -> None:
    """Raise `ValueError` for a call with the id of another: each is answered by a message with its id."""
    seen: set[str] = set()
    for place, call in enumerate(calls):
        if call.id in seen:
            raise ValueError(f"tool_calls[{place}] has the id of another: {call.id!r}")
        seen.add(call.id)


def _tap(calls: list[ToolCall], box: Toolbox) -> RunTap:
    run = Run()
    work = _Work(run, calls, box)
    run.begin(work.events(), work.listen)
    return RunTap(run)


class _Work:
    """Calls to run, outside any turn."""

    def __init__(self, run: Run, calls: list[ToolCall], box: Toolbox) -> None:
        self._run, self._calls, self._box = run, calls, box
        self._batch: Batch | None = None
        self._said = 0

    def events(self) -> Generator[Any, None, None]:
        """Give what there is to say of them."""
        yield GATE
        if self._run.closed or not self._calls:
            return
        if (unknown := self._box.unknown(self._calls)) is not None:
            yield ErrorEvent(error=unknown_tool(unknown))
            return
        batch = self._batch = Batch(self._box, self._calls)
        if not self._run.work_on(batch):
            return
        while (events := batch.take()) is not None:
            for event in events:
                self._said += 1
                yield event

    def listen(self) -> _Listener:
        """Begin to count what a reader is given."""
        return _Listener(self._rest, self._said)

    def _rest(self, heard: int) -> list[Any]:
        if self._batch is not None:
            return self._batch.rest(heard)
        if (unknown := self._box.unknown(self._calls)) is not None:
            return [] if heard else [ErrorEvent(error=unknown_tool(unknown))]
        return unexecuted(self._calls)


class _Listener:
    """Counts what the reader of such a run was given."""

    def __init__(self, rest: Callable[[int], list[Any]], heard: int) -> None:
        self._rest, self._heard = rest, heard

    def note(self, event: Event) -> None:  # noqa: ARG002  one is like another
        """Count one more."""
        self._heard += 1

    def rest(self, error: AdapterError) -> list[Any]:  # noqa: ARG002  the calls say it
        """What is left to say."""
        return self._rest(self._heard)
