"""How the model shall answer: `generationConfig`, and the options, each in its place."""

from typing import Any

from allm_actors.data import Request
from allm_actors.providers._checks import Checked
from allm_actors.providers._log import debug
from allm_actors.providers._options import REASONING_OPTIONS, write_options
from allm_actors.providers.gemini._errors import PROVIDER

__all__ = ["generation_config", "top_level_options", "wanted_format"]

_RENAMED = {
    "top_p": "topP",
    "top_k": "topK",
    "stop": "stopSequences",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_TOP_LEVEL = {
    "safety_settings": "safetySettings",
    "safetySettings": "safetySettings",
    "cached_content": "cachedContent",
    "cachedContent": "cachedContent",
    "tool_config": "toolConfig",
    "toolConfig": "toolConfig",
    "labels": "labels",
}
_PLACED = (*REASONING_OPTIONS, "parallel_tool_calls")
"""Options that other APIs have, and this one has nothing to do with."""


def generation_config(checked: Checked) -> dict[str, Any]:
    """Return the `generationConfig` of a request; empty where nothing was said."""
    request = checked.request
    config: dict[str, Any] = {}
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.temperature is not None:
        config["temperature"] = request.temperature
    config.update(_response_format(request))
    if checked.options.get("parallel_tool_calls") is not None:
        debug("this API takes no such option: dropped", option="parallel_tool_calls", provider=PROVIDER)
    options = {
        _RENAMED.get(name, name): [value] if name == "stop" and isinstance(value, str) else value
        for name, value in checked.options.items()
        if name not in _TOP_LEVEL
    }
    write_options(config, options, placed=_PLACED)
    return config


def top_level_options(checked: Checked) -> dict[str, Any]:
    """Return the options that stand beside `generationConfig`, under the wire's names."""
    return {_TOP_LEVEL[name]: value for name, value in checked.options.items() if name in _TOP_LEVEL}


def wanted_format(request: Request) -> Any:
    """Return the type of the response format that is asked for, `None` if none is."""
    wanted = request.response_format
    return wanted.get("type") if isinstance(wanted, dict) else wanted


def _response_format(request: Request) -> dict[str, Any]:
    wanted, kind = request.response_format, wanted_format(request)
    if kind not in ("json_object", "json_schema"):
        if wanted not in (None, "text") and kind != "text":
            debug("this API has no such response format: dropped", response_format=kind, provider=PROVIDER)
        return {}
    config: dict[str, Any] = {"responseMimeType": "application/json"}
    if kind == "json_schema" and isinstance(wanted, dict):
        inner = wanted.get("json_schema")  # the schema may stand in an envelope of its own
        schema = (inner if isinstance(inner, dict) else wanted).get("schema")
        if schema is not None:
            config["responseJsonSchema"] = schema
    return config
