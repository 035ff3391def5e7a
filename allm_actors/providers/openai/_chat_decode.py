"""From a Chat Completions answer, whole, to our `Response`; and what a streamed one reads the same way."""

from typing import Any

from allm_actors.data import Response
from allm_actors.errors import AdapterError
from allm_actors.providers._assembly import Assembly, Finish
from allm_actors.providers._errors import adapter_error, malformed_response, object_error
from allm_actors.providers._json import compact
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers._report import Report
from allm_actors.providers._usage import read_usage
from allm_actors.providers.openai._usage import CHAT

__all__ = [
    "DISPLAY",
    "PROVIDER",
    "argument_text",
    "decode_chat",
    "error_of",
    "joined_text",
    "read_finish",
    "read_names",
    "read_service",
    "reasoning_text",
]

PROVIDER = "openai"
DISPLAY = "OpenAI"

_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def decode_chat(body: dict[str, Any], *, redactor: Redactor = SHAPES_ONLY) -> Response:
    """Read a whole body.

    Raises:
        AdapterError: It reports a failure, or has no choice to read.
    """
    if body.get("error") is not None:
        raise error_of(body, redactor)
    choice = _choice(body.get("choices"))
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        raise malformed_response(PROVIDER, DISPLAY, "the answer has no choice with a message")
    assembly = Assembly(PROVIDER, redactor=redactor)
    read_names(assembly, body)
    read_service(assembly, body)
    _read_message(assembly, message)
    read_finish(assembly, choice)
    assembly.usage = read_usage(body.get("usage"), CHAT)
    return assembly.response(body)


def error_of(payload: dict[str, Any], redactor: Redactor) -> AdapterError:
    """Return the error that an object with an `error` member stands for."""
    return object_error(payload, provider=PROVIDER, display=DISPLAY, redactor=redactor)


def read_names(assembly: Assembly, payload: dict[str, Any]) -> None:
    """Take the answer's id and model, where not known yet."""
    response_id, model = payload.get("id"), payload.get("model")
    if assembly.response_id is None and isinstance(response_id, str) and response_id:
        assembly.response_id = response_id
    if assembly.model is None and isinstance(model, str) and model:
        assembly.model = model


def read_service(assembly: Assembly, payload: dict[str, Any]) -> None:
    """Take the facts about how the answer was served; what is told last counts."""
    tier, fingerprint = payload.get("service_tier"), payload.get("system_fingerprint")
    if isinstance(tier, str):
        assembly.facts["service_tier"] = tier
    if isinstance(fingerprint, str):
        assembly.facts["system_fingerprint"] = fingerprint


def read_finish(assembly: Assembly, choice: dict[str, Any]) -> bool:
    """Take the finish reason; return whether there is one.

    Raises:
        AdapterError: The provider calls an error of its own a way to finish.
    """
    raw = choice.get("finish_reason")
    if not isinstance(raw, str) or not raw:
        return False
    if raw == "error":
        raise adapter_error(
            "provider_unavailable",
            Report.of({"error": choice.get("error")}),
            provider=PROVIDER,
            fallback=f"{DISPLAY}: the model's answer ended in an error",
            redactor=assembly.redactor,
        )
    assembly.finish_reason = _FINISH.get(raw, "other")
    assembly.raw_finish_reason = raw
    return True


def joined_text(content: Any) -> str:
    """Return the text of a content that may be a string or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))


def reasoning_text(message: dict[str, Any]) -> str:
    """Return the readable reasoning, under whichever name a compatible server gives it."""
    for name in ("reasoning_content", "reasoning"):
        text = message.get(name)
        if isinstance(text, str) and text:
            return text
    return ""


def argument_text(value: Any) -> str:
    """Return a piece of argument text; some servers send the object itself."""
    if isinstance(value, str):
        return value
    return compact(value) if isinstance(value, dict) else ""


def _choice(choices: Any) -> dict[str, Any] | None:
    """Return the choice with index 0, else the first."""
    found = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    first = found[0] if found else None
    return next((choice for choice in found if choice.get("index") == 0), first)


def _read_message(assembly: Assembly, message: dict[str, Any]) -> None:
    assembly.thought(reasoning_text(message))
    assembly.text(joined_text(message.get("content")))
    refusal = message.get("refusal")
    if isinstance(refusal, str):
        assembly.refused(refusal)
    calls = message.get("tool_calls")
    for entry in calls if isinstance(calls, list) else []:
        function = entry.get("function") if isinstance(entry, dict) else None
        if isinstance(function, dict):
            call = assembly.new_call()
            assembly.identify(call, entry.get("id"), function.get("name"))
            assembly.arguments(call, argument_text(function.get("arguments")))
    legacy = message.get("function_call")
    if isinstance(legacy, dict):
        call = assembly.new_call()
        assembly.identify_by_name(call, legacy.get("name"))
        assembly.arguments(call, argument_text(legacy.get("arguments")))
