"""From a Responses answer, whole, to our `Response`; and what a streamed one reads the same way."""

from collections.abc import Iterator
from typing import Any

from allm_actors.data import Response
from allm_actors.providers._assembly import Assembly
from allm_actors.providers._errors import malformed_response
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers._usage import read_usage
from allm_actors.providers.openai._chat_decode import (
    DISPLAY,
    PROVIDER,
    argument_text,
    error_of,
    read_names,
    read_service,
)
from allm_actors.providers.openai._responses_errors import failure
from allm_actors.providers.openai._usage import RESPONSES

__all__ = [
    "decode_responses",
    "message_refusal",
    "message_text",
    "output_items",
    "read_end",
    "read_status",
    "reasoning_of",
]

_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}


def decode_responses(body: dict[str, Any], *, redactor: Redactor = SHAPES_ONLY) -> Response:
    """Read a whole body.

    Raises:
        AdapterError: It reports a failure, is not finished, or is no answer.
    """
    status = body.get("status")
    if body.get("error") is not None and status not in ("failed", "cancelled"):
        raise failure(body["error"], redactor) if "output" in body else error_of(body, redactor)
    if status in ("queued", "in_progress"):
        raise malformed_response(PROVIDER, DISPLAY, f"the answer is {status!r}: there is no background mode")
    if not (isinstance(status, str) and status) and not isinstance(body.get("output"), list):
        raise malformed_response(PROVIDER, DISPLAY, "the answer has neither a status nor an output")
    assembly = Assembly(PROVIDER, redactor=redactor)
    for item in output_items(body):
        _read_item(assembly, item)
    read_status(assembly, body)
    read_end(assembly, body)
    return assembly.response(body)


def read_status(assembly: Assembly, body: dict[str, Any]) -> None:
    """Take the finish reason from the status of `body`.

    Raises:
        AdapterError: The answer failed or was cancelled.
    """
    status = body.get("status")
    match status:
        case "failed" | "cancelled":
            raise failure(body.get("error"), assembly.redactor, status=status)
        case "completed":
            assembly.finish_reason, assembly.raw_finish_reason = "stop", "completed"
        case "incomplete":
            details = body.get("incomplete_details")
            reason = details.get("reason") if isinstance(details, dict) else None
            reason = reason if isinstance(reason, str) and reason else None
            assembly.finish_reason = _INCOMPLETE.get(reason or "", "other")  # type: ignore[assignment]
            assembly.raw_finish_reason = reason or "incomplete"
            assembly.facts["incomplete_details"] = {"reason": reason}
        case str() if status:
            assembly.finish_reason, assembly.raw_finish_reason = "other", status
        case _:
            assembly.finish_reason, assembly.raw_finish_reason = "stop", None


def read_end(assembly: Assembly, body: dict[str, Any]) -> None:
    """Take what stands on the answer as a whole: names, usage, facts about how it was made."""
    read_names(assembly, body)
    read_service(assembly, body)
    reasoning = body.get("reasoning")
    if isinstance(reasoning, dict) and isinstance(reasoning.get("effort"), str):
        assembly.facts["reasoning_effort"] = reasoning["effort"]
    assembly.usage = read_usage(body.get("usage"), RESPONSES)


def output_items(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the items of the answer."""
    items = body.get("output")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def message_text(item: dict[str, Any]) -> str:
    """Return the text of a message item."""
    return "".join(_texts(item.get("content"), "text", kind="output_text"))


def message_refusal(item: dict[str, Any]) -> str:
    """Return the words in which a message item declines."""
    return "".join(_texts(item.get("content"), "refusal", kind="refusal"))


def reasoning_of(item: dict[str, Any]) -> str:
    """Return the readable reasoning of an item: its own words, else the summary of them."""
    content = list(_texts(item.get("content"), "text"))
    return "".join(content) if content else "\n\n".join(_texts(item.get("summary"), "text"))


def _read_item(assembly: Assembly, item: dict[str, Any]) -> None:
    match item.get("type"):
        case "message":
            assembly.text(message_text(item))
            assembly.refused(message_refusal(item))
        case "function_call":
            call = assembly.new_call()
            assembly.identify(call, item.get("call_id") or item.get("id"), item.get("name"))
            assembly.arguments(call, argument_text(item.get("arguments")))
        case "reasoning":
            assembly.thought(reasoning_of(item))


def _texts(parts: Any, member: str, *, kind: str | None = None) -> Iterator[str]:
    """Give the text `member` of each part, or of each part of one kind."""
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict) and (kind is None or part.get("type") == kind):
            text = part.get(member)
            if isinstance(text, str):
                yield text
