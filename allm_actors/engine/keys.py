"""Where API keys come from.

Keys belong to calls, never to data. The first of these that is neither empty nor blank wins:
the call's own, one `put` at run time, one given to `configure`, the environment, and, once
`configure(load_dotenv=True)` was called, the `.env` file.

Guarantees:
    - Keys are held as `SecretStr`; no error of this module shows one.
    - All functions may be called from any thread.
    - The environment is read at every look-up, the `.env` file once, at first need.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from pydantic import SecretStr

from allm_actors.engine._dotenv import read_dotenv
from allm_actors.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

KeySource = Literal["call", "runtime", "config", "env", "dotenv"]

_VARIABLES: Final = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "google": ("GOOGLE_API_KEY",),
}


class KeyHit(NamedTuple):
    """A key, and which level it was found at."""

    key: SecretStr
    source: KeySource


class _Store:
    """What the process was told about keys. The lock guards the tables, never a look-up elsewhere."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runtime: dict[str, SecretStr] = {}
        self.config: dict[str, SecretStr] = {}
        self.load_dotenv = False
        self.dotenv_path: Path | None = None
        self.dotenv: dict[str, SecretStr] | None = None

    def renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self.lock = threading.Lock()

    def file(self) -> dict[str, SecretStr]:
        """Give what the `.env` file says, read at the first call."""
        with self.lock:
            if self.dotenv is None:
                found = read_dotenv(self.dotenv_path or Path(".env"))
                self.dotenv = {name: SecretStr(value) for name, value in found.items()}
            return self.dotenv


_store = _Store()
os.register_at_fork(after_in_child=_store.renew_lock)


def put(provider: str, key: str | SecretStr) -> None:
    """Use `key` for `provider` from now on, in the whole process."""
    secret = _secret(key)
    with _store.lock:
        _store.runtime[_tag(provider)] = secret


def delete(provider: str) -> None:
    """Forget the key that was `put` for `provider`, if any."""
    with _store.lock:
        _store.runtime.pop(_tag(provider), None)


def clear() -> None:
    """Forget every key that was `put`, and what the `.env` file said."""
    with _store.lock:
        _store.runtime.clear()
        _store.dotenv = None


def configure(
    *,
    keys: Mapping[str, str | SecretStr] | None = None,
    load_dotenv: bool | None = None,
    dotenv_path: str | os.PathLike[str] | None = None,
) -> None:
    """Set the levels below run time; what is not given stays as it is.

    Args:
        keys: Keys by provider, replacing the ones configured before.
        load_dotenv: Whether the `.env` file is looked at.
        dotenv_path: Where it is; by default `.env` in the working directory.
    """
    config = None if keys is None else {_tag(name): _secret(key) for name, key in keys.items()}
    with _store.lock:
        if config is not None:
            _store.config = config
        if load_dotenv is not None:
            _store.load_dotenv = load_dotenv
        if dotenv_path is not None:
            _store.dotenv_path = Path(dotenv_path)
            _store.dotenv = None


def get(provider: str, api_key: str | SecretStr | None = None) -> KeyHit | None:
    """Look a key up; `None` when no level has one.

    Raises:
        OSError: The `.env` file was needed and cannot be read.
        TypeError: `api_key` is neither text nor a `SecretStr`; the message shows the type only.
    """
    tag = _tag(provider)
    if api_key is not None and (hit := _hit(_secret(api_key), "call")):
        return hit
    with _store.lock:
        runtime, config = _store.runtime.get(tag), _store.config.get(tag)
    if hit := _hit(runtime, "runtime") or _hit(config, "config"):
        return hit
    names = env_vars_for(tag)
    for name in names:
        if hit := _hit(SecretStr(os.environ.get(name, "")), "env"):
            return hit
    if not _store.load_dotenv:
        return None
    file = _store.file()
    for name in names:
        if hit := _hit(file.get(name), "dotenv"):
            return hit
    return None


def fetch(provider: str, api_key: str | SecretStr | None = None) -> SecretStr:
    """Look a key up, or raise `EngineError("missing_key")` that says where it was looked for."""
    hit = get(provider, api_key)
    if hit is None:
        raise missing_key(provider)
    return hit.key


def env_vars_for(provider: str) -> tuple[str, ...]:
    """Give the environment variables that may hold a provider's key, the first to count first."""
    tag = _tag(provider)
    return _VARIABLES.get(tag) or (f"{tag.upper().replace('-', '_')}_API_KEY",)


def checked_sources() -> list[str]:
    """Name the levels a look-up that found nothing has walked."""
    levels = ["call", "runtime", "config", "env"]
    return [*levels, "dotenv"] if _store.load_dotenv else levels


def missing_key(provider: str) -> EngineError:
    """Make the error for a key nobody gave."""
    variables = " or ".join(env_vars_for(provider))
    return EngineError(
        "missing_key",
        f"no API key for {provider!r}: set {variables}, pass api_key=, or use allm_actors.keys.put",
        provider=provider,
        metadata={"checked_sources": checked_sources()},
    )


def _hit(key: SecretStr | None, source: KeySource) -> KeyHit | None:
    text = key.get_secret_value().strip() if key is not None else ""
    return KeyHit(SecretStr(text), source) if text else None


def _secret(key: object) -> SecretStr:
    if isinstance(key, SecretStr):
        return key
    if isinstance(key, str):
        return SecretStr(key)
    raise TypeError(f"an API key is a str or a SecretStr, not {type(key).__name__}")


def _tag(provider: object) -> str:
    if isinstance(provider, str):
        return provider
    raise TypeError(f"a provider tag is a str, not {type(provider).__name__}")
