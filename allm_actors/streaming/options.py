"""The options of a call: what each must look like, and where it goes.

An option is a keyword argument of a call or an entry of `engine.params`; both are sorted alike, the call's
over the engine's. `None` means not given, everywhere.

Guarantees:
    - A value of the wrong type is a `TypeError`, an impossible one a `ValueError`, both naming the option,
      and both before an adapter is contacted. No message shows a key.
    - What is consumed here, placed on the request or left out never reaches `CallContext.options`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import SecretStr, TypeAdapter, ValidationError

from allm_actors.beam._log import Logger
from allm_actors.data import ModelRef, PromptCache
from allm_actors.data.base import JsonData
from allm_actors.engine import Engine, Retry

__all__ = ["ENGINE_FIELDS", "ORCHESTRATION", "REQUEST_FIELDS", "TIMES", "CallOptions", "seal", "sort_options"]

_log = Logger("allm_actors.streaming")

REQUEST_FIELDS: Final = (
    "model",
    "temperature",
    "max_tokens",
    "tool_choice",
    "response_format",
    "structured_finalize",
    "prompt_cache",
)
"""Options that land on the request, the call's over the request's own over the engine's."""

TIMES: Final = ("connect_timeout", "request_timeout", "stream_timeout", "content_timeout", "deadline")
"""Options that land on the `CallContext`, in seconds."""

ORCHESTRATION: Final = frozenset(
    {
        "mode",
        "max_turns",
        "halt_when",
        "on_tool_error",
        "tool_timeout",
        "max_concurrency",
        "session_id",
        "structured_finalize_nudge",
    }
)
"""Options of steps, chats and sessions, without a meaning for one request."""

ENGINE_FIELDS: Final = frozenset(Engine.model_fields) - {"model", "retry"}
"""Fields of an engine that no call can override."""

OnEvent = Callable[[Any], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """The options of one call, each where it belongs; what was not given is `None` or absent."""

    on_request: Mapping[str, Any] = field(default_factory=dict)
    """Those of `REQUEST_FIELDS` that were given; `prompt_cache` is a `PromptCache`, or `False` for off."""
    times: Mapping[str, float] = field(default_factory=dict)
    on_event: OnEvent | None = None
    emit_text_deltas: bool | None = None
    emit_tool_deltas: bool | None = None
    include_raw_chunks: bool | None = None
    telemetry_metadata: Mapping[str, Any] | None = None
    retry: Retry | None = None
    request_id: str | None = None
    api_key: SecretStr | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Every option the library does not know: JSON, for the adapter."""

    def over(self, below: "CallOptions") -> "CallOptions":
        """These options, gaps filled from those `below`; what goes onto the request has its own rule."""

        def first(name: str) -> Any:
            mine = getattr(self, name)
            return getattr(below, name) if mine is None else mine

        return CallOptions(
            on_request=self.on_request,
            times={**below.times, **self.times},
            extra={**below.extra, **self.extra},
            **{name: first(name) for name in _SINGLE},
        )


_SINGLE: Final = (
    "on_event",
    "emit_text_deltas",
    "emit_tool_deltas",
    "include_raw_chunks",
    "telemetry_metadata",
    "retry",
    "request_id",
    "api_key",
)


def seal(options: dict[str, Any]) -> None:
    """Put a key that came as text into a `SecretStr`, in place.

    The first thing every public call does: should it fail, those who print the variables of its frames print
    no key.
    """
    if type(options.get("api_key")) is str:
        options["api_key"] = SecretStr(options["api_key"])


def sort_options(options: Mapping[str, Any], *, of_engine: bool = False) -> CallOptions:
    """Checks every option and puts it where it belongs.

    Args:
        options: The keyword arguments of a call, or the `params` of an engine.
        of_engine: They are `engine.params`: orchestration options are then left out without a word, for the
            chat layer reads them there. In a call each is one debug record that names it.

    Raises:
        TypeError: A value of the wrong type, a field of the engine, or an unknown option that is not JSON.
        ValueError: A value that is impossible.
    """
    on_request: dict[str, Any] = {}
    times: dict[str, float] = {}
    single: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in options.items():
        if name in ORCHESTRATION:
            if not of_engine and value is not None:
                _log.debug("option.ignored", option=name)
        elif name in ENGINE_FIELDS:
            if value is not None:
                raise TypeError(
                    f"{name!r} is a field of the engine, not an option of a call: use engine.merge()"
                )
        elif value is None:
            continue
        elif name in _REQUEST_CHECKS:
            on_request[name] = _REQUEST_CHECKS[name](name, value)
        elif name in TIMES:
            times[name] = seconds(name, value)
        elif name in _SINGLE_CHECKS:
            single[name] = _SINGLE_CHECKS[name](name, value)
        else:
            extra[name] = _json(name, value)
    return CallOptions(on_request=on_request, times=times, extra=extra, **single)


def seconds(name: str, value: Any) -> float:
    """A time: an int or float above zero, `math.inf` for no limit."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"option {name!r} must be a number of seconds, not {type(value).__name__}")
    if math.isnan(value) or value <= 0:
        raise ValueError(f"option {name!r} must be above zero, not {value!r}")
    return float(value)


_JSON: Final[TypeAdapter[Any]] = TypeAdapter(JsonData)


def _json(name: str, value: Any) -> Any:
    try:
        return _JSON.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = "".join(f"[{step!r}]" for step in first["loc"])
    problem = f"at {where}: {first['msg']}" if where else f"not {type(value).__name__}"
    raise TypeError(
        f"option {name!r} is none of the library's, so it goes to the provider as JSON; {problem}"
    )


def _one_of(*types: type) -> Callable[[str, Any], Any]:
    """A check that a value is an instance of one of `types`, a bool being none but a bool."""
    wanted = " or ".join("str" if kind is str else kind.__name__ for kind in types)

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TypeError(f"option {name!r} must be {wanted}, not {type(value).__name__}")
        return value

    return check


def _callable(name: str, value: Any) -> Any:
    if not callable(value):
        raise TypeError(f"option {name!r} must be callable, not {type(value).__name__}")
    return value


def _request_id(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"option {name!r} must be str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"option {name!r} must not be empty")
    return value


def _api_key(name: str, value: Any) -> SecretStr | None:
    if isinstance(value, str):
        value = SecretStr(value)
    if not isinstance(value, SecretStr):
        raise TypeError(f"option {name!r} must be str or SecretStr, not {type(value).__name__}")
    return value if value.get_secret_value() else None


def _metadata(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"option {name!r} must be a mapping, not {type(value).__name__}")
    return dict(value)


def _prompt_cache(name: str, value: Any) -> "PromptCache | bool":
    if value is True:
        return PromptCache()
    if value is False or isinstance(value, PromptCache):
        return value
    if isinstance(value, dict):
        return PromptCache.model_validate(value)
    raise TypeError(f"option {name!r} must be PromptCache, dict or bool, not {type(value).__name__}")


_REQUEST_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "model": _one_of(str, ModelRef),
    "temperature": _one_of(float, int),
    "max_tokens": _one_of(int),
    "tool_choice": _one_of(str, dict),
    "response_format": _one_of(str, dict),
    "structured_finalize": _one_of(bool),
    "prompt_cache": _prompt_cache,
}
_SINGLE_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "on_event": _callable,
    "emit_text_deltas": _one_of(bool),
    "emit_tool_deltas": _one_of(bool),
    "include_raw_chunks": _one_of(bool),
    "telemetry_metadata": _metadata,
    "retry": _one_of(Retry),
    "request_id": _request_id,
    "api_key": _api_key,
}
