"""From our request to the body of a generateContent call, streamed or not."""

from typing import Any

from allm_actors.data import Tool
from allm_actors.errors import FieldError, ValidationError
from allm_actors.providers._checks import Checked
from allm_actors.providers._content import flatten
from allm_actors.providers._options import write_options
from allm_actors.providers.gemini._config import generation_config, top_level_options
from allm_actors.providers.gemini._contents import wire_contents

__all__ = ["build_generate"]

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_SAYS_SOMETHING = ("properties", "patternProperties", "$ref", "anyOf", "oneOf", "allOf")


def build_generate(checked: Checked) -> dict[str, Any]:
    """Return the body for a request that has passed its checks.

    Raises:
        AdapterError: `unsupported_feature`: it holds a remote image.
        ValidationError: `invalid_message`: a tool result answers no call. `invalid_request`: there is nothing
            to answer, only system messages.
    """
    request = checked.request
    contents = wire_contents(checked)
    if not contents:
        raise ValidationError("invalid_request", [FieldError(("messages",), "empty")])
    body: dict[str, Any] = {"contents": contents}
    system = [flatten(message) for message in request.messages if message.role == "system"]
    if system:
        body["systemInstruction"] = {"parts": [{"text": "\n\n".join(system)}]}
    config = generation_config(checked)
    if config:
        body["generationConfig"] = config
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool) for tool in request.tools]}]
    if checked.tool_choice is not None:
        body["toolConfig"] = {"functionCallingConfig": _tool_choice(checked.tool_choice)}
    write_options(body, top_level_options(checked))
    return body


def _tool(tool: Tool) -> dict[str, Any]:
    """Return the declaration; a function without parameters must not have an empty schema."""
    wire: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if any(tool.schema.get(name) for name in _SAYS_SOMETHING):
        wire["parametersJsonSchema"] = tool.schema
    return wire


def _tool_choice(choice: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(choice, dict):
        return choice
    if choice in _MODES:
        return {"mode": _MODES[choice]}
    return {"mode": "ANY", "allowedFunctionNames": [choice]}
