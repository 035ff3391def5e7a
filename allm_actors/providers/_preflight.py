"""From a request to the HTTP request that will be sent, without sending anything.

Everything that can be wrong with a call before it reaches the network is found here, in a fixed order: the
times, what the wire format checks, the body as JSON, and last the key. The key is in the prepared request and
nowhere else.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import requests
from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError
from requests.structures import CaseInsensitiveDict

from allm_actors._version import __version__
from allm_actors.engine.keys import env_vars_for
from allm_actors.errors import AdapterError, EngineError, FieldError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from allm_actors.data import Request
    from allm_actors.engine import CallContext
    from allm_actors.providers._connection import HttpAdapter
    from allm_actors.providers._wire import Wire

_TIMES: Final = ("connect_timeout", "request_timeout", "stream_timeout")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready to be sent, and the wire format that reads its answer."""

    wire: Wire
    http: requests.PreparedRequest

    def __repr__(self) -> str:
        return f"<Prepared {self.wire.provider}>"


def prepare(adapter: HttpAdapter, request: Request, call: CallContext, *, stream: bool) -> Prepared:
    """Check a call and build what will be sent for it.

    Raises:
        AllmError: Anything wrong with the request, the options or the key.
        TypeError: A time or key of a wrong type.
        ValueError: A time that is not above 0.
    """
    for name in _TIMES:
        _check_time(name, getattr(call, name))
    wire = adapter.wire(request)
    built = wire.build(request, call.options, stream=stream)
    body = encode(built.body)
    headers = {"content-type": "application/json", "user-agent": f"allm_actors/{__version__}"}
    if stream:
        headers |= {"accept": "text/event-stream", "accept-encoding": "identity"}
    else:
        headers["accept"] = "application/json"
    headers |= adapter.extra_headers()
    key = find_key(adapter, call)
    if key is not None:
        headers |= wire.credential(key.get_secret_value())
    own: CaseInsensitiveDict[str] = CaseInsensitiveDict(headers)
    own.update({name: value for name, value in adapter.headers.items() if name.lower() != "content-type"})
    http = requests.Request("POST", adapter.base_url + built.path, headers=own, data=body).prepare()
    return Prepared(wire, http)


def _check_time(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if math.isnan(value) or value <= 0:
        raise ValueError(f"{name} must be more than 0, got {value!r}")


def encode(body: Any) -> bytes:
    """Write a body as JSON, non-ASCII characters as they are.

    Raises:
        ValidationError: A number is NaN or infinite, or a text is not Unicode.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:  # also UnicodeEncodeError
        pass
    raise ValidationError("invalid_request", list(_unwritable(body, ())))


def _unwritable(value: Any, path: tuple[str | int, ...]) -> Iterator[FieldError]:
    if isinstance(value, dict):
        for name, item in value.items():
            if isinstance(name, str) and not _is_unicode(name):
                yield FieldError((*path, repr(name)), "not_unicode")
            yield from _unwritable(item, (*path, name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _unwritable(item, (*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield FieldError(path, "not_finite")
    elif isinstance(value, str) and not _is_unicode(value):
        yield FieldError(path, "not_unicode")


def _is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def find_key(adapter: HttpAdapter, call: CallContext) -> SecretStr | None:
    """Return the key to send; `None` where none is to be sent.

    Raises:
        EngineError: `missing_key`: the provider's own host needs one.
        AdapterError: `authentication_failed`: it cannot be sent in a header.
        TypeError: It is no key at all.
    """
    if not adapter.auth:
        return None
    given: Any = call.api_key
    if given is not None and not isinstance(given, str | SecretStr):
        raise TypeError(f"an API key is a string or a SecretStr, not {type(given).__name__}")
    key = _stripped(given)
    if key is None:
        if adapter.custom_host:
            return None
        raise EngineError(
            "missing_key",
            f"no API key for {adapter.provider!r}: set {' or '.join(env_vars_for(adapter.provider))}, "
            "pass api_key= to the call, or use allm_actors.keys.put",
            provider=adapter.provider,
        )
    if not _sendable(key):
        raise AdapterError(
            "authentication_failed",
            f"the API key for {adapter.provider!r} holds characters that no header can hold",
            provider=adapter.provider,
        )
    return key


def _stripped(given: str | SecretStr | None) -> SecretStr | None:
    text = given.get_secret_value() if isinstance(given, SecretStr) else given
    text = text.strip() if text is not None else ""
    return SecretStr(text) if text else None


def _sendable(key: SecretStr) -> bool:
    return _HEADER_VALUE.fullmatch(key.get_secret_value()) is not None


# --- what configuration may hold ------------------------------------------------------------------------


def check_header_value(value: str) -> str:
    """Return `value` if a header can hold it."""
    if _HEADER_VALUE.fullmatch(value) is None:
        raise PydanticCustomError("header", "a header cannot hold control or non-ASCII characters")
    if value.startswith(" "):
        raise PydanticCustomError("header", "a header cannot begin with a space")
    return value


HeaderText = Annotated[str, AfterValidator(check_header_value)]
"""A string that is sent as a header."""


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of `headers` if they can be sent."""
    for name, value in headers.items():
        if _HEADER_NAME.fullmatch(name) is None:
            raise PydanticCustomError("header", "{name} is not the name of a header", {"name": ascii(name)})
        check_header_value(value)
    return dict(headers)


def url_problem(url: str) -> str | None:
    """Say what is wrong with a base URL, without quoting it; `None` if nothing is."""
    try:
        parts = urlsplit(url)
        _ = parts.port
        requests.Request("POST", url).prepare()
    except ValueError:  # the library's own errors about URLs are also that
        return "it is not a URL"
    problem = None
    if parts.scheme not in ("http", "https"):
        problem = "its scheme must be http or https, as in http://localhost:11434/v1"
    elif not parts.hostname:
        problem = "it has no host"
    elif "@" in parts.netloc:
        problem = "it must not hold a user name or password"
    elif "?" in url or "#" in url:
        problem = "it must not hold a query or fragment"
    elif any(char <= " " or char == "\x7f" for char in url):
        problem = "it must not hold spaces or control characters"
    return problem


def host_of(url: str) -> str:
    """The host of a URL, in lower case."""
    return (urlsplit(url).hostname or "").rstrip(".")
