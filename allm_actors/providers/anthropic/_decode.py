"""From a Messages answer, whole, to our `Response`; and what a streamed one reads the same way."""

from typing import Any

from allm_actors.data import Response
from allm_actors.providers._assembly import Assembly, Finish
from allm_actors.providers._errors import malformed_response
from allm_actors.providers._partial_call import NOTHING
from allm_actors.providers._redact import SHAPES_ONLY, Redactor
from allm_actors.providers.anthropic._errors import DISPLAY, PROVIDER, failure
from allm_actors.providers.anthropic._lift import Lift
from allm_actors.providers.anthropic._thoughts import keep_thoughts
from allm_actors.providers.anthropic._usage import read_usage

__all__ = ["decode_messages", "given_input", "read_names", "read_stop"]

_FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def decode_messages(
    body: dict[str, Any], *, lifted: str | None = None, redactor: Redactor = SHAPES_ONLY
) -> Response:
    """Read a whole body.

    Args:
        body: The decoded body.
        lifted: The tool whose call is the answer.
        redactor: Cleans what the provider wrote.

    Raises:
        AdapterError: The body reports a failure, or holds no content.
    """
    if body.get("error") is not None or body.get("type") == "error":
        raise failure(body, redactor)
    content = body.get("content")
    if not isinstance(content, list):
        raise malformed_response(PROVIDER, DISPLAY, "the answer has no list of content blocks")
    assembly = Assembly(PROVIDER, redactor=redactor)
    lift = Lift(assembly, lifted)
    blocks = [block for block in content if isinstance(block, dict)]
    for block in blocks:
        _read_block(assembly, lift, block)
    keep_thoughts(assembly, [block for block in blocks if _is_thought(block)])
    read_names(assembly, body)
    read_stop(assembly, body)
    assembly.usage = read_usage(body.get("usage"))
    lift.close()
    return assembly.response(body)


def read_names(assembly: Assembly, message: dict[str, Any]) -> None:
    """Take the answer's id and model."""
    response_id, model = message.get("id"), message.get("model")
    if isinstance(response_id, str) and response_id:
        assembly.response_id = response_id
    if isinstance(model, str) and model:
        assembly.model = model


def read_stop(assembly: Assembly, source: dict[str, Any]) -> bool:
    """Take why the answer stopped, and what belongs to that; return whether it has."""
    raw = source.get("stop_reason")
    if not isinstance(raw, str) or not raw:
        return False
    assembly.finish_reason = _FINISH.get(raw, "other")
    assembly.raw_finish_reason = raw
    sequence, details = source.get("stop_sequence"), source.get("stop_details")
    if raw == "stop_sequence" and isinstance(sequence, str):
        assembly.facts["stop_sequence"] = sequence
    if raw == "refusal" and details is not None:
        assembly.facts["stop_details"] = details
    return True


def given_input(block: dict[str, Any]) -> Any:
    """Return the input of a tool call, `NOTHING` if it has none."""
    given = block.get("input")
    return NOTHING if given is None else given


def _read_block(assembly: Assembly, lift: Lift, block: dict[str, Any]) -> None:
    match block.get("type"):
        case "text":
            text = block.get("text")
            if isinstance(text, str):
                lift.text(text)
        case "tool_use":
            name, given = block.get("name"), given_input(block)
            if lift.claims(name):
                lift.begin(given)
            else:
                call = assembly.new_call(whole=given)
                assembly.identify(call, block.get("id"), name)
                if isinstance(given, str):  # some servers send the text they could not read
                    assembly.arguments(call, given)


def _is_thought(block: dict[str, Any]) -> bool:
    return block.get("type") in ("thinking", "redacted_thinking")
