"""Checks every provider makes of a request before it builds a body from it.

They hold for a connection that is called directly, too, where no layer above has looked at the request.
Each raises with every offender it found; the first check that finds one wins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from allm_actors.data import ImagePart, Request
from allm_actors.errors import EngineError, FieldError, ValidationError
from allm_actors.providers._images import ResolvedImage, resolve_images
from allm_actors.providers._options import check_reasoning_options, join_options

__all__ = [
    "Checked",
    "check_messages",
    "check_request",
    "check_tool_choice",
    "model_name",
    "wants_schema_and_tools",
]

_CHOICE_WORDS = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks found out about a request, for the body builders.

    Attributes:
        request: The request itself.
        model: The model's name.
        images: Every image by (message, part).
        tool_choice: As `check_tool_choice` gives it.
        options: The joined options, reasoning options among them.
        reasoning: Those reasoning options that were given.
    """

    request: Request
    model: str
    images: Mapping[tuple[int, int], ResolvedImage]
    tool_choice: str | dict[str, Any] | None
    options: dict[str, Any]
    reasoning: dict[str, str]


def check_request(request: Request, options: Mapping[str, Any], *, images: frozenset[str]) -> Checked:
    """Run every check: the request's messages, images, tool choice and model, then the options.

    Args:
        request: The request.
        options: The call's own.
        images: The MIME types the provider reads.

    Raises:
        ValidationError: `invalid_request` or `invalid_message`.
        EngineError: `missing_model`.
    """
    check_messages(request)
    resolved = resolve_images(request.messages, images)
    choice = check_tool_choice(request)
    model = model_name(request)
    joined = join_options(request, options)
    return Checked(request, model, resolved, choice, joined, check_reasoning_options(joined))


def check_messages(request: Request) -> None:
    """Tool results name their call; system messages hold no image.

    Raises:
        ValidationError: `invalid_request` for the first, `invalid_message` for the second.
    """
    unnamed = [
        FieldError(("messages", index, "tool_call_id"), "required")
        for index, message in enumerate(request.messages)
        if message.role == "tool" and not message.tool_call_id
    ]
    if unnamed:
        raise ValidationError("invalid_request", unnamed)
    pictured = [
        FieldError(("messages", index, "content"), "image_in_system_message")
        for index, message in enumerate(request.messages)
        if message.role == "system"
        and isinstance(message.content, list)
        and any(isinstance(part, ImagePart) for part in message.content)
    ]
    if pictured:
        raise ValidationError("invalid_message", pictured)


def check_tool_choice(request: Request) -> str | dict[str, Any] | None:
    """Return the choice to send: `None` for nothing, a word, a tool's name, or a dict to send as it is.

    Raises:
        ValidationError: A choice that forces a tool where there are none, or names one that is not there.
    """
    choice = request.tool_choice
    if not request.tools:
        if choice in (None, "auto", "none"):
            return None
        raise ValidationError("invalid_request", [FieldError(("tool_choice",), "requires_tools")])
    if (
        isinstance(choice, str)
        and choice not in _CHOICE_WORDS
        and all(tool.name != choice for tool in request.tools)
    ):
        raise ValidationError("invalid_request", [FieldError(("tool_choice",), "unknown_tool")])
    return choice


def model_name(request: Request) -> str:
    """Return the model's name.

    Raises:
        EngineError: `missing_model`.
    """
    model = request.model
    name = model if isinstance(model, str) else getattr(model, "id", None)
    if not name:
        raise EngineError(
            "missing_model", "no model was named: give one to the call, the request or the engine"
        )
    return str(name)


def wants_schema_and_tools(request: Request) -> bool:
    """Return whether the request has tools and asks for an answer by a JSON schema."""
    wanted = request.response_format
    return bool(request.tools) and isinstance(wanted, dict) and wanted.get("type") == "json_schema"
