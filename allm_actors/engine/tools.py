"""What a tool's handler is given, and the two seams at which running tools can be replaced.

An executor decides how a handler runs, an encoder how its result is written for the model. Both
run in the process of the call they serve, for several calls at once.
"""

from __future__ import annotations

import json
import math
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from allm_actors.errors import StreamError, ToolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allm_actors.data import Tool, ToolCall
    from allm_actors.engine.engine import Engine
    from allm_actors.engine.processes import EngineRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a handler may know of the run it serves. Read-only."""

    tool_call: ToolCall
    """The call as the model made it."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """The caller's own objects: the call's `context`, else the session's, else the engine's."""
    session_id: str | None = None
    request_id: str = ""
    engine: Engine | EngineRef | None = None
    """What the run uses; `None` when the tool runner was called without an engine."""
    deadline: float = math.inf
    """When the handler's time is over, on the clock of `time.monotonic()`."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set once nobody waits for the handler any more."""

    def raise_if_cancelled(self) -> None:
        """End the handler here if nobody waits for it.

        Raises:
            StreamError: `cancelled`; a handler that was given up may raise what it likes.
        """
        if self.cancelled.is_set():
            raise StreamError("cancelled", f"tool {self.tool_call.name!r} was given up")


class ToolExecutor(ABC):
    """Runs a tool. A class is instantiated without arguments once per run."""

    @abstractmethod
    def execute(self, tool: Tool, arguments: dict[str, Any], ctx: ToolContext) -> Any:
        """Return what a handler returns, or raise what a handler raises.

        Runs in the call's own process, several calls at once. Whatever comes out is judged like
        the outcome of a handler; it cannot take the run down.
        """


class ToolResultEncoder(ABC):
    """Writes results for the model. A class is instantiated without arguments once per run."""

    @abstractmethod
    def encode(self, value: Any) -> str:
        """Give the text of a result. Any exception is an `encoding_failed`."""

    def encode_error(self, error: ToolError) -> str:
        """Give the text of an error: a JSON object with the key `error`."""
        text = json.dumps({"error": _describe(error)}, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace").decode()


def _describe(error: ToolError) -> str:
    """Say what a model can use: the text of what a handler raised, else the error's own."""
    raised = error.__cause__
    if error.reason != "handler_raised" or raised is None:
        return error.message
    try:
        text = str(raised)
    except Exception:  # noqa: BLE001  (somebody's `__str__`)
        text = ""
    return text if text.strip() else type(raised).__name__
