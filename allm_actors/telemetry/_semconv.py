"""The names of OpenTelemetry's GenAI conventions (v1.41, in development), and what they are filled with.

Everything that depends on those names is here: they are still being renamed. Functions take spans of
this package and give attributes; what is not set is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from allm_actors.data import (
    Message,
    MessageCompleted,
    Request,
    Response,
    TextPart,
    ToolCall,
    Usage,
)
from allm_actors.errors import AdapterError

if TYPE_CHECKING:
    from allm_actors.telemetry._spans import Span

CALLS: Final = frozenset({"generate", "stream"})
SPANS: Final = frozenset({"generate", "stream", "step", "chat", "tool"})
"""The spans that conventions exist for."""

_PROVIDERS: Final = {"gemini": "gcp.gemini"}
_OPTIONS: Final = {
    "gen_ai.request.max_tokens": (
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "maxOutputTokens",
    ),
    "gen_ai.request.temperature": ("temperature",),
    "gen_ai.request.top_p": ("top_p", "topP"),
    "gen_ai.request.top_k": ("top_k", "topK"),
    "gen_ai.request.frequency_penalty": ("frequency_penalty", "frequencyPenalty"),
    "gen_ai.request.presence_penalty": ("presence_penalty", "presencePenalty"),
    "gen_ai.request.seed": ("seed",),
    "gen_ai.request.stop_sequences": ("stop", "stop_sequences", "stopSequences"),
    "gen_ai.request.choice.count": ("n", "candidateCount"),
}
_INTEGERS: Final = ("max_tokens", "seed", "choice.count")
_COUNTS: Final = {
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cached_input_tokens",
    "gen_ai.usage.cache_creation.input_tokens": "cache_write_input_tokens",
    "gen_ai.usage.reasoning.output_tokens": "reasoning_tokens",
}

Attributes = dict[str, Any]


def name_and_operation(span: Span) -> tuple[str, str | None]:
    """Give the name and the operation of a span."""
    match span.name:
        case "chat":
            return "invoke_agent", "invoke_agent"
        case "step":
            return "allm.step", None
        case "tool":
            return f"execute_tool {tool_name(span) or ''}".strip(), "execute_tool"
        case _:
            operation = "generate_content" if span.metadata.get("provider") == "gemini" else "chat"
            return f"{operation} {span.metadata.get('model') or ''}".strip(), operation


def tool_name(span: Span) -> str | None:
    """Give the name of the tool a span runs."""
    call = span.details.get("tool_call")
    return call.name if isinstance(call, ToolCall) else span.metadata.get("tool_name")


def at_start(span: Span) -> Attributes:
    """Give what is known when a span starts."""
    provider = span.metadata.get("provider")
    found: Attributes = {
        "gen_ai.operation.name": name_and_operation(span)[1],
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider) if provider else None,
        "gen_ai.request.model": span.metadata.get("model"),
        "gen_ai.conversation.id": span.details.get("session_id"),
    }
    if span.name == "tool":
        found |= _tool(span)
    if span.name in CALLS:
        found |= _call(span)
    return _set(found)


def at_end(span: Span, error: BaseException | None) -> Attributes:
    """Give what is known when a span ends."""
    found: Attributes = {}
    if span.name in CALLS:
        answer = span.result.get("response") or span.details.get("completed")
        found |= _answer(answer, span.details.get("usage"))
        if span.name == "stream":
            found["gen_ai.response.time_to_first_chunk"] = span.details.get("first_chunk")
    if error is not None:
        found["error.type"] = error.reason if isinstance(error, AdapterError) else type(error).__name__
    return _set(found)


def content_at_start(span: Span) -> Attributes:
    """Give what a call sends: prompts, tools, arguments. Only for those who asked for content."""
    found: Attributes = {}
    request = span.details.get("request")
    if span.name in CALLS and isinstance(request, Request):
        system = [message for message in request.messages if message.role == "system"]
        others = [message for message in request.messages if message.role != "system"]
        found["gen_ai.input.messages"] = _json([_message(message) for message in others])
        if system:
            found["gen_ai.system_instructions"] = _json(
                [part for message in system for part in _message(message)["parts"]]
            )
        if request.tools:
            found["gen_ai.tool.definitions"] = _json(
                [
                    {
                        "type": "function",
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.schema,
                    }
                    for tool in request.tools
                ]
            )
    call = span.details.get("tool_call")
    if span.name == "tool" and isinstance(call, ToolCall):
        found["gen_ai.tool.call.arguments"] = _json(call.arguments)
    return found


def content_at_end(span: Span) -> Attributes:
    """Give what a call answered. Only for those who asked for content."""
    found: Attributes = {}
    answer = span.result.get("response") or span.details.get("completed")
    if span.name in CALLS and isinstance(answer, Response | MessageCompleted) and answer.message is not None:
        reason = answer.finish_reason
        found["gen_ai.output.messages"] = _json([{**_message(answer.message), "finish_reason": reason}])
    if span.name == "tool" and "result" in span.result:
        found["gen_ai.tool.call.result"] = _json(span.result["result"])
    return found


def _call(span: Span) -> Attributes:
    found: Attributes = {"gen_ai.request.stream": True if span.name == "stream" else None}
    adapter = span.details.get("adapter")
    url = getattr(adapter, "base_url", None)
    if isinstance(url, str):
        parts = urlsplit(url)
        default = {"https": 443, "http": 80}.get(parts.scheme)
        found |= {"server.address": parts.hostname, "server.port": parts.port or default}
    request = span.details.get("request")
    if not isinstance(request, Request):
        return found
    found |= _sampling(request, span.details.get("options") or {})
    wanted = request.response_format
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if isinstance(kind, str):
        found["gen_ai.output.type"] = (
            "json" if kind.startswith("json") else "text" if kind == "text" else None
        )
    if span.metadata.get("provider") == "openai":
        found["openai.api.type"] = _openai_api(adapter, request)
    return found


def _sampling(request: Request, options: Mapping[str, Any]) -> Attributes:
    """The options as they end up in the body: those of the call over those of the request over its fields."""
    typed = {"temperature": request.temperature, "max_tokens": request.max_tokens}
    flat = {**typed, **request.options, **options}
    nested = flat.get("generationConfig")
    if isinstance(nested, Mapping):
        flat |= nested
    found: Attributes = {}
    for attribute, names in _OPTIONS.items():
        value = next((flat[name] for name in names if flat.get(name) is not None), None)
        found[attribute] = _number_or_texts(value, whole=attribute.endswith(_INTEGERS))
    if found["gen_ai.request.choice.count"] == 1:
        del found["gen_ai.request.choice.count"]
    return found


def _number_or_texts(value: Any, *, whole: bool) -> Any:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return value if value and all(isinstance(item, str) for item in value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if whole else value


def _openai_api(adapter: Any, request: Request) -> str | None:
    try:
        api = adapter.wire(request).api(request)
    except Exception:  # noqa: BLE001  (an adapter of somebody else's with the same tag)
        return None
    return {"chat": "chat_completions", "responses": "responses"}.get(api)


def _tool(span: Span) -> Attributes:
    call, tool = span.details.get("tool_call"), span.details.get("tool")
    return {
        "gen_ai.tool.name": tool_name(span),
        "gen_ai.tool.call.id": getattr(call, "id", None) or span.metadata.get("tool_call_id"),
        "gen_ai.tool.description": getattr(tool, "description", None) or None,
        "gen_ai.tool.type": "function",
    }


def _answer(answer: Any, reported: Any) -> Attributes:
    if not isinstance(answer, Response | MessageCompleted):
        return _usage(reported)
    usage = answer.usage if isinstance(answer.usage, Usage) else reported
    reason = answer.raw_finish_reason or answer.finish_reason
    facts = answer.provider_data.get("openai")
    facts = facts if isinstance(facts, Mapping) else {}
    return {
        "gen_ai.response.id": answer.id if isinstance(answer, Response) else answer.response_id,
        "gen_ai.response.model": answer.model,
        "gen_ai.response.finish_reasons": [reason] if reason else None,
        "openai.response.service_tier": facts.get("service_tier"),
        "openai.response.system_fingerprint": facts.get("system_fingerprint"),
        **_usage(usage),
    }


def _usage(usage: Any) -> Attributes:
    return {attribute: getattr(usage, name, None) for attribute, name in _COUNTS.items()}


def _message(message: Message) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if message.role == "tool":
        return {"role": "tool", "parts": [_tool_response(message)]}
    for part in Message.normalize_content(message.content):
        if isinstance(part, TextPart):
            parts += [{"type": "text", "content": part.text}] if part.text else []
        else:
            parts.append({"type": "blob", "modality": "image", "mime_type": part.image.mime_type})
    parts += [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
    return {"role": message.role, "parts": parts}


def _tool_response(message: Message) -> dict[str, Any]:
    content = Message.normalize_content(message.content)
    text = "\n".join(part.text for part in content if isinstance(part, TextPart))
    return {"type": "tool_call_response", "id": message.tool_call_id, "response": text}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=repr)


def _set(attributes: Mapping[str, Any]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def flat(values: Iterable[tuple[str, Any]]) -> Attributes:
    """Give values as attributes of a span event: what is neither number nor text is left out."""
    return {name: value for name, value in values if isinstance(value, str | int | float)}
