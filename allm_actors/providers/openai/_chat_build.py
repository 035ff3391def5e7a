"""From our request to the body of a Chat Completions call."""

from typing import Any, Literal

from allm_actors.data import ImagePart, Message, Request, Tool, ToolCall
from allm_actors.providers._checks import Checked
from allm_actors.providers._content import arguments_text, flatten, user_content
from allm_actors.providers._images import ResolvedImage
from allm_actors.providers._log import debug
from allm_actors.providers._options import write_options
from allm_actors.providers.openai._models import refuses_max_tokens, thinks
from allm_actors.providers.openai._parts import prompt_cache

__all__ = ["MaxTokensParam", "build_chat"]

MaxTokensParam = Literal["max_tokens", "max_completion_tokens"]


def build_chat(
    checked: Checked, *, stream: bool, custom_host: bool, max_tokens_param: MaxTokensParam | None
) -> dict[str, Any]:
    """Return the body.

    Args:
        checked: The request, after its checks.
        stream: Whether a stream is asked for; usage comes with it, unless the options say otherwise.
        custom_host: Whether this is somebody else's server: then it gets `max_tokens`, which all of them
            know, and every reasoning option, for a model's name says nothing there.
        max_tokens_param: The name to use for the token limit, whatever the host and the model.
    """
    request, model = checked.request, checked.model
    body: dict[str, Any] = {"model": model, "messages": _messages(checked)}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        new_name = refuses_max_tokens(model) and not custom_host
        body[max_tokens_param or ("max_completion_tokens" if new_name else "max_tokens")] = request.max_tokens
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if checked.tool_choice is not None:
        body["tool_choice"] = _tool_choice(checked.tool_choice)
    response_format = _response_format(request)
    if response_format is not None:
        body["response_format"] = response_format
    body.update(prompt_cache(request))
    write_options(body, checked.options)
    _write_reasoning(body, checked, understood=custom_host or thinks(model))
    if stream:
        body["stream"] = True
        if "stream_options" not in checked.options:
            body["stream_options"] = {"include_usage": True}
    return body


def _messages(checked: Checked) -> list[dict[str, Any]]:
    messages = (_message(checked, row, message) for row, message in enumerate(checked.request.messages))
    return [message for message in messages if message is not None]


def _message(checked: Checked, row: int, message: Message) -> dict[str, Any] | None:
    """Return the wire's message; `None` for an assistant who said and did nothing, which servers refuse."""
    match message.role:
        case "user":
            content = user_content(
                message, row, checked.images, text_block=_text_block, image_block=_image_block
            )
            return {"role": "user", "content": content}
        case "tool":
            return {"role": "tool", "tool_call_id": message.tool_call_id, "content": flatten(message)}
        case "assistant":
            text = flatten(message)
            if not text and not message.tool_calls:
                return None
            wire: dict[str, Any] = {"role": "assistant", "content": text}
            if message.tool_calls:
                wire["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
            return wire
        case "system":
            return {"role": "system", "content": flatten(message)}


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image_block(part: ImagePart, image: ResolvedImage) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image.href, "detail": part.detail}}


def _tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments_text(call)}
    return {"id": call.id, "type": "function", "function": function}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.schema,
    }
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, dict) or choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _response_format(request: Request) -> dict[str, Any] | None:
    """Return the wire's format: our flat `json_schema` gets its envelope, other dicts go as they are."""
    wanted = request.response_format
    if not isinstance(wanted, dict):
        return None if wanted in (None, "text") else {"type": wanted}
    if wanted.get("type") == "json_schema" and "json_schema" not in wanted:
        schema = {name: value for name, value in wanted.items() if name != "type"}
        return {"type": "json_schema", "json_schema": schema}
    return wanted


def _write_reasoning(body: dict[str, Any], checked: Checked, *, understood: bool) -> None:
    for name, value in checked.reasoning.items():
        if understood and name != "reasoning_summary":
            body[name] = value
        else:
            debug("this model takes no such option: dropped", option=name, model=checked.model)
