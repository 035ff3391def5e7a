"""Language-model calls run the way Erlang runs processes.

```python
import allm_actors as allm
from allm_actors.providers import OpenAI

engine = allm.Engine(adapter=OpenAI(), model="gpt-5")
with allm.stream_generate(engine, "Explain links and monitors.") as stream:
    for event in stream:
        print(event)
```

Events are in `allm_actors.events`, errors in `allm_actors.errors`, adapters in `allm_actors.providers`,
checks in `allm_actors.validate`, and what helps to test in `allm_actors.testing`. Each name is imported when
it is first used.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from allm_actors._version import __version__

if TYPE_CHECKING:
    from allm_actors import beam, errors, events, keys, messages, providers, telemetry, testing, validate
    from allm_actors.chat import (
        AskUser,
        Continue,
        Halt,
        Session,
        SessionHandle,
        SessionStream,
        StreamReducer,
        ToolBatch,
        chat,
        run_tool_calls,
        step,
        stream,
        stream_step,
        stream_tool_calls,
        tool_help,
    )
    from allm_actors.data import (
        Base64Source,
        BinarySource,
        ChatResult,
        FileSource,
        Image,
        ImagePart,
        Message,
        ModelRef,
        OtherHalt,
        PromptCache,
        Request,
        Response,
        StepResult,
        StreamCollector,
        TextPart,
        Thread,
        Tool,
        ToolCall,
        UrlSource,
        Usage,
        assistant,
        json_schema,
        request,
        system,
        tool,
        tool_result,
        user,
    )
    from allm_actors.engine import (
        Adapter,
        AdapterStream,
        CallContext,
        Catalog,
        Connection,
        Engine,
        Retry,
        ToolContext,
        ToolExecutor,
        ToolResultEncoder,
        populate_costs,
        select,
        set_catalog,
    )
    from allm_actors.engine.processes import (
        EngineRef,
        start_engine,
    )
    from allm_actors.streaming import (
        Envelope,
        EventStream,
        Mailbox,
        Runner,
        StreamHandle,
        StreamRunner,
        generate,
        open_stream,
        stream_generate,
    )

__all__ = [
    "Adapter",
    "AdapterStream",
    "AskUser",
    "Base64Source",
    "BinarySource",
    "CallContext",
    "Catalog",
    "ChatResult",
    "Connection",
    "Continue",
    "Engine",
    "EngineRef",
    "Envelope",
    "EventStream",
    "FileSource",
    "Halt",
    "Image",
    "ImagePart",
    "Mailbox",
    "Message",
    "ModelRef",
    "OtherHalt",
    "PromptCache",
    "Request",
    "Response",
    "Retry",
    "Runner",
    "Session",
    "SessionHandle",
    "SessionStream",
    "StepResult",
    "StreamCollector",
    "StreamHandle",
    "StreamReducer",
    "StreamRunner",
    "TextPart",
    "Thread",
    "Tool",
    "ToolBatch",
    "ToolCall",
    "ToolContext",
    "ToolExecutor",
    "ToolResultEncoder",
    "UrlSource",
    "Usage",
    "__version__",
    "assistant",
    "beam",
    "chat",
    "errors",
    "events",
    "generate",
    "json_schema",
    "keys",
    "messages",
    "open_stream",
    "populate_costs",
    "providers",
    "request",
    "run_tool_calls",
    "select",
    "set_catalog",
    "start_engine",
    "step",
    "stream",
    "stream_generate",
    "stream_step",
    "stream_tool_calls",
    "system",
    "telemetry",
    "testing",
    "tool",
    "tool_help",
    "tool_result",
    "user",
    "validate",
]

_HOMES: Final = {
    "allm_actors.chat": (
        "AskUser",
        "Continue",
        "Halt",
        "Session",
        "SessionHandle",
        "SessionStream",
        "StreamReducer",
        "ToolBatch",
        "chat",
        "run_tool_calls",
        "step",
        "stream",
        "stream_step",
        "stream_tool_calls",
        "tool_help",
    ),
    "allm_actors.data": (
        "Base64Source",
        "BinarySource",
        "ChatResult",
        "FileSource",
        "Image",
        "ImagePart",
        "Message",
        "ModelRef",
        "OtherHalt",
        "PromptCache",
        "Request",
        "Response",
        "StepResult",
        "StreamCollector",
        "TextPart",
        "Thread",
        "Tool",
        "ToolCall",
        "UrlSource",
        "Usage",
        "assistant",
        "json_schema",
        "request",
        "system",
        "tool",
        "tool_result",
        "user",
    ),
    "allm_actors.engine": (
        "Adapter",
        "AdapterStream",
        "CallContext",
        "Catalog",
        "Connection",
        "Engine",
        "Retry",
        "ToolContext",
        "ToolExecutor",
        "ToolResultEncoder",
        "populate_costs",
        "select",
        "set_catalog",
    ),
    "allm_actors.engine.processes": (
        "EngineRef",
        "start_engine",
    ),
    "allm_actors.streaming": (
        "Envelope",
        "EventStream",
        "Mailbox",
        "Runner",
        "StreamHandle",
        "StreamRunner",
        "generate",
        "open_stream",
        "stream_generate",
    ),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}
_MODULES: Final = frozenset(
    {"beam", "errors", "events", "keys", "messages", "providers", "telemetry", "testing", "validate"}
)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(types.ModuleType):
    """This package: `chat` is a function here, whoever imports the folder of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name == "chat" and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
