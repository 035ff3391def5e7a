"""The messages a started engine answers, sent by any thread or process with `beam.call`.

    beam.call("main", Generate("hello"), timeout=60).text

The engine has the work done in a process of its own, which ends when the caller is gone or gave up.
What the work raises is raised in the caller, and the engine lives on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from allm_actors.chat import chat, step
from allm_actors.streaming import generate, open_stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allm_actors.data import ChatResult, Response, StepResult
    from allm_actors.engine.processes import EngineRef
    from allm_actors.streaming import Mailbox, StreamHandle

__all__ = ["Chat", "Generate", "Step", "StreamGenerate"]


@dataclass(frozen=True, slots=True)
class Generate:
    """Make one request; the reply is its `Response`.

    Attributes:
        input: Text, messages, a `Thread` or a `Request`.
        options: Those of `generate`.
    """

    input: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, engine: EngineRef) -> Response:
        """Do it, in the process that answers."""
        return generate(engine, self.input, **self.options)


@dataclass(frozen=True, slots=True)
class StreamGenerate:
    """Open one stream into a mailbox; the reply is its `StreamHandle`, and the stream goes on.

    Attributes:
        input: Text, messages, a `Thread` or a `Request`.
        into: Where the events go.
        options: Those of `stream_generate`.
    """

    input: Any
    into: Mailbox
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, engine: EngineRef) -> StreamHandle:
        """Do it, in the process that answers."""
        return open_stream(engine, self.input, into=self.into, **self.options)


@dataclass(frozen=True, slots=True)
class Step:
    """Run one turn, tools included; the reply is its `StepResult`.

    Attributes:
        input: Text, messages or a `Thread`.
        options: Those of `step`.
    """

    input: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, engine: EngineRef) -> StepResult:
        """Do it, in the process that answers."""
        return step(engine, self.input, **self.options)


@dataclass(frozen=True, slots=True)
class Chat:
    """Run turns until the model is done; the reply is the `ChatResult`.

    Attributes:
        input: Text, messages or a `Thread`.
        options: Those of `chat`.
    """

    input: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, engine: EngineRef) -> ChatResult:
        """Do it, in the process that answers."""
        return chat(engine, self.input, **self.options)
