"""From our request to the body of a Responses call."""

from typing import Any

from allm_actors.data import ImagePart, Message, Request, Tool, ToolCall
from allm_actors.providers._checks import Checked
from allm_actors.providers._content import arguments_text, flatten, user_content
from allm_actors.providers._images import ResolvedImage
from allm_actors.providers._options import write_options
from allm_actors.providers.openai._parts import prompt_cache

__all__ = ["build_responses"]


def build_responses(checked: Checked, *, stream: bool) -> dict[str, Any]:
    """Return the body for a request that has passed its checks."""
    request = checked.request
    body: dict[str, Any] = {"model": checked.model, "input": _input(checked)}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if checked.tool_choice is not None:
        body["tool_choice"] = _tool_choice(checked.tool_choice)
    text_format = _text_format(request)
    if text_format is not None:
        body["text"] = {"format": text_format}
    body.update(prompt_cache(request))
    write_options(body, checked.options)
    _write_reasoning(body, checked.reasoning)
    if stream:
        body["stream"] = True
    return body


def _input(checked: Checked) -> list[dict[str, Any]]:
    return [
        item for row, message in enumerate(checked.request.messages) for item in _items(checked, row, message)
    ]


def _items(checked: Checked, row: int, message: Message) -> list[dict[str, Any]]:
    match message.role:
        case "user":
            content = user_content(
                message, row, checked.images, text_block=_text_block, image_block=_image_block
            )
            return [{"role": "user", "content": content}]
        case "tool":
            output = flatten(message)
            return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": output}]
        case "assistant":
            text = flatten(message)
            said = [{"role": "assistant", "content": text}] if text else []
            return said + [_function_call(call) for call in message.tool_calls]
        case "system":
            return [{"role": "system", "content": flatten(message)}]


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def _image_block(part: ImagePart, image: ResolvedImage) -> dict[str, Any]:
    return {"type": "input_image", "image_url": image.href, "detail": part.detail}


def _function_call(call: ToolCall) -> dict[str, Any]:
    """Return the item without the server's `id`, which would have to bring the reasoning along."""
    return {
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments_text(call),
    }


def _tool(tool: Tool) -> dict[str, Any]:
    """Return the flat form. Without `strict` this endpoint turns strict mode on, so it is always said."""
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.schema,
        "strict": tool.strict,
    }


def _tool_choice(choice: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, dict) or choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "name": choice}


def _text_format(request: Request) -> dict[str, Any] | None:
    """Return the format in the flat form of this endpoint; a schema may come in the other one's envelope."""
    wanted = request.response_format
    if not isinstance(wanted, dict):
        return None if wanted is None else {"type": wanted}
    inner = wanted.get("json_schema")
    return {"type": "json_schema", **inner} if isinstance(inner, dict) else wanted


def _write_reasoning(body: dict[str, Any], options: dict[str, str]) -> None:
    """Put each option where it belongs, beside what the caller has put there."""
    places = {
        "reasoning_effort": ("reasoning", "effort"),
        "reasoning_summary": ("reasoning", "summary"),
        "verbosity": ("text", "verbosity"),
    }
    for name, value in options.items():
        outer, inner = places[name]
        present = body.get(outer)
        body[outer] = {**(present if isinstance(present, dict) else {}), inner: value}
