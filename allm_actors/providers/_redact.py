"""Taking secrets out of what a provider wrote.

Providers echo keys: in the text of a 401, in an error code, in the data of a broken frame. A `Redactor`
replaces the key of the call, literally, and whatever has the shape of a key, by `[REDACTED]`.

Text that the model generated is never touched.
"""

import re
from typing import Any, TypeVar

from pydantic import SecretStr

from allm_actors.errors import AllmError

__all__ = ["REDACTED", "SHAPES_ONLY", "Redactor"]

REDACTED = "[REDACTED]"

_SHAPES = re.compile(
    r"\b(?:(?:sk|rk|org|pa)-[A-Za-z0-9_-]{6,}"  # OpenAI, Anthropic (`sk-ant-`), Voyage
    r"|AIza[A-Za-z0-9_-]{6,}|ya29\.[A-Za-z0-9_.-]{6,}"  # Google: API keys, OAuth tokens
    r"|(?:sk|apikey)_[A-Za-z0-9_-]{6,})"  # ElevenLabs, TypeSafe
)
_SHORTEST_LITERAL = 8  # replacing a shorter key wherever its letters stand would garble the text

_E = TypeVar("_E", bound=AllmError)


class Redactor:
    """Replaces secrets in strings, JSON values and errors.

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
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.json(key): self.json(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.json(item) for item in value]
        return value

    def error(self, error: _E) -> _E:
        """Return a copy of `error` with its message, cause, metadata and request id redacted.

        The copy is chained to nothing.
        """
        changes = {
            "message": self.text(error.message),
            "cause": self.json(error.cause),
            "metadata": self.json(error.metadata),
        }
        request_id = getattr(error, "request_id", None)
        if isinstance(request_id, str):
            changes["request_id"] = self.text(request_id)
        clean = error.replace(**changes)
        clean.__cause__ = None
        return clean


SHAPES_ONLY = Redactor()
"""Knows the shapes of keys and no key."""
