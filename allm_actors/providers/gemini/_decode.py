"""From a generateContent answer, whole, to our `Response`; and what a streamed one reads the same way."""

from typing import Any

from allm_actors.data import Response
from allm_actors.providers._assembly import Assembly, Finish
from allm_actors.providers._errors import malformed_response
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers.gemini._errors import DISPLAY, PROVIDER, error_of, unusable
from allm_actors.providers.gemini._parts import Parts
from allm_actors.providers.gemini._usage import read_usage

__all__ = ["candidate_of", "decode_generate", "read_block", "read_finish", "read_names"]

_FINISH: dict[str, Finish] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
_UNUSABLE = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
    }
)


def decode_generate(body: dict[str, Any], *, redactor: Redactor = SHAPES_ONLY) -> Response:
    """Read a whole body.

    Raises:
        AdapterError: It reports a failure, or has neither a candidate nor a reason for having none.
    """
    if body.get("error") is not None:
        raise error_of(body, redactor)
    assembly = Assembly(PROVIDER, redactor=redactor)
    candidate = candidate_of(body)
    blocked = read_block(assembly, body)
    if candidate is not None:
        parts = Parts(assembly)
        parts.take(candidate)
        parts.close()
        read_finish(assembly, candidate)
    elif not blocked:
        raise malformed_response(PROVIDER, DISPLAY, "the answer has no candidate")
    read_names(assembly, body)
    assembly.usage = read_usage(body.get("usageMetadata"))
    return assembly.response(body)


def candidate_of(payload: dict[str, Any]) -> dict[str, Any] | None:
    """Return the candidate that counts, the one with index 0 or none."""
    candidates = payload.get("candidates")
    if type(candidates) is list:
        for candidate in candidates:
            if type(candidate) is dict and (candidate.get("index") or 0) == 0:
                return candidate
    return None


def read_names(assembly: Assembly, payload: dict[str, Any]) -> None:
    """Take the answer's id and model, where not known yet."""
    response_id, model = payload.get("responseId"), payload.get("modelVersion")
    if assembly.response_id is None and isinstance(response_id, str) and response_id:
        assembly.response_id = response_id
    if assembly.model is None and isinstance(model, str) and model:
        assembly.model = model


def read_block(assembly: Assembly, payload: dict[str, Any]) -> bool:
    """Take why the prompt was not answered; return whether it was not."""
    feedback = payload.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    if not isinstance(reason, str) or not reason:
        return False
    assembly.facts["block_reason"] = assembly.redactor.literal(reason)
    assembly.finish_reason = "content_filter"
    assembly.raw_finish_reason = reason
    return True


def read_finish(assembly: Assembly, candidate: dict[str, Any]) -> bool:
    """Take the finish reason and what is said about it; return whether there is one. The last counts.

    Raises:
        AdapterError: The provider says that the model's output is of no use.
    """
    message = candidate.get("finishMessage")
    message = message if isinstance(message, str) and message else None
    raw = candidate.get("finishReason")
    if isinstance(raw, str) and raw in _UNUSABLE:
        raise unusable(raw, message, assembly.redactor)
    if message is not None:
        assembly.facts["finish_message"] = assembly.redactor.text(message)
    if not isinstance(raw, str) or not raw:
        return False
    assembly.finish_reason = _FINISH.get(raw, "other")
    assembly.raw_finish_reason = raw
    return True
