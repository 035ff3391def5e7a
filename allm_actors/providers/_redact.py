"""Taking secrets out of what a provider wrote.

Providers echo keys: in the text of a 401, in an error code, in the data of a broken frame. A `Redactor`
replaces the key of the call, literally, and whatever has the shape of a key, by `[REDACTED]`.

Text that the model generated is never touched.
"""

import re
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

__all__ = ["REDACTED", "SHAPES_ONLY", "Redactor"]

REDACTED = "[REDACTED]"

_SHAPES = re.compile(
    r"\b(?:(?:sk|rk|org|pa)-[A-Za-z0-9_-]{6,}"  # OpenAI, Anthropic (`sk-ant-`), Voyage
    r"|AIza[A-Za-z0-9_-]{6,}|ya29\.[A-Za-z0-9_.-]{6,}"  # Google: API keys, OAuth tokens
    r"|(?:sk|apikey)_[A-Za-z0-9_-]{6,})"  # ElevenLabs, TypeSafe
)
_SHORTEST_LITERAL = 8  # replacing a shorter key wherever its letters stand would garble the text


class Redactor:
    """Replaces secrets in strings and JSON values.

    It holds the key as a `SecretStr`, shows it in no `repr`, and may be used from any thread.
    """

    __slots__ = ("_key",)

    def __init__(self, key: SecretStr | str | None = None) -> None:
        self._key = SecretStr(key) if isinstance(key, str) else key

    def literal(self, text: str) -> str:
        """Return `text` without the key itself; for names, which may look like keys and be none."""
        if self._key is None:
            return text
        key = self._key.get_secret_value().strip()
        return text.replace(key, REDACTED) if len(key) >= _SHORTEST_LITERAL else text

    def text(self, text: str) -> str:
        """Return `text` without the key and without anything of the shape of a key."""
        return _SHAPES.sub(REDACTED, self.literal(text))

    def json(self, value: Any) -> Any:
        """Return a copy of the JSON `value` with every string in it redacted, dict keys too."""
        return _each(value, self.text)

    def literals(self, value: Any) -> Any:
        """Return the JSON `value` without the key itself, in whichever string or dict key it stood."""
        return value if self._key is None else _each(value, self.literal)


def _each(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {_each(key, clean): _each(item, clean) for key, item in value.items()}
    if isinstance(value, list):
        return [_each(item, clean) for item in value]
    return value


SHAPES_ONLY = Redactor()
"""Knows the shapes of keys and no key."""
