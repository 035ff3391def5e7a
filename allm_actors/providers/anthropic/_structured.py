"""Asking for an answer by a JSON schema: a tool that takes the answer, or the API's own output format."""

from typing import Any, Literal

from allm_actors.data import Request
from allm_actors.providers._log import debug

__all__ = ["StructuredOutput", "lifted_tool", "write_structured"]

StructuredOutput = Literal["tool", "native"]

_PREFIX = "respond_with_json_"
_DESCRIPTION = "Returns the final answer. Call it once, with the whole answer as its input."


def lifted_tool(request: Request, mode: StructuredOutput) -> str | None:
    """Return the name of the tool that takes the answer to `request`; `None` if it is ordinary text."""
    wanted = _wanted(request)
    return _PREFIX + str(wanted.get("name", "")) if wanted is not None and mode == "tool" else None


def write_structured(body: dict[str, Any], request: Request, mode: StructuredOutput) -> None:
    """Write what makes the model answer in the response format of `request`, where there is a way to."""
    wanted = _wanted(request)
    if wanted is None:
        if request.response_format not in (None, "text"):
            debug("this API has no such response format: dropped", response_format=_kind(request))
        return
    schema = wanted.get("schema", {"type": "object"})
    name = lifted_tool(request, mode)
    if name is None:
        others = body.get("output_config")
        output_format = {"type": "json_schema", "schema": schema}
        body["output_config"] = {**(others if isinstance(others, dict) else {}), "format": output_format}
        return
    tools = body.get("tools")
    tool = {"name": name, "description": _DESCRIPTION, "input_schema": schema}
    body["tools"] = [*(tools if isinstance(tools, list) else []), tool]
    body["tool_choice"] = {"type": "tool", "name": name}


def _wanted(request: Request) -> dict[str, Any] | None:
    """Return the name and schema that are asked for; they may stand in an envelope of their own."""
    if _kind(request) != "json_schema" or not isinstance(request.response_format, dict):
        return None
    inner = request.response_format.get("json_schema")
    return inner if isinstance(inner, dict) else request.response_format


def _kind(request: Request) -> Any:
    wanted = request.response_format
    return wanted.get("type") if isinstance(wanted, dict) else wanted
