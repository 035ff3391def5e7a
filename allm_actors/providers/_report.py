"""What the body of an error says, wherever its provider puts it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Report"]

_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")


@dataclass(frozen=True, slots=True)
class Report:
    """What a body says about a failure; whatever it does not say is `None` or empty."""

    message: str | None = None
    code: str | int | None = None
    type: str | None = None
    status: str | int | None = None
    inner_code: str | None = None
    reasons: tuple[str, ...] = ()
    request_id: str | None = None
    details: tuple[dict[str, Any], ...] = field(default=())

    @classmethod
    def of(cls, body: Any) -> "Report":
        """Read the report out of a decoded body, wherever this provider puts it."""
        if isinstance(body, list):
            body = body[0] if body else None
        if isinstance(body, str):
            return cls(message=body or None)
        if not isinstance(body, dict):
            return cls()
        error = body.get("error")
        source = error if isinstance(error, dict) else body
        details = tuple(item for item in _items(source.get("details")) if isinstance(item, dict))
        inner = source.get("innererror")
        return cls(
            message=_message(body),
            code=_word(source.get("code")),
            type=_text(source.get("type")),
            status=_word(source.get("status")),
            inner_code=_text(inner.get("code")) if isinstance(inner, dict) else None,
            reasons=tuple(text for item in details if (text := _text(item.get("reason")))),
            request_id=_text(body.get("request_id")),
            details=details,
        )

    @property
    def http_status(self) -> int | None:
        """The error status the report itself names, as a number or as digits."""
        for word in (self.code, self.status):
            if isinstance(word, str) and word.isascii() and word.isdigit() and len(word) == 3:  # noqa: PLR2004
                word = int(word)  # noqa: PLW2901
            if isinstance(word, int) and 400 <= word <= 599:  # noqa: PLR2004
                return word
        return None

    @property
    def words(self) -> list[str]:
        """Code, type and status in lower case, as far as they are words."""
        return [word.lower() for word in (self.code, self.type, self.status) if isinstance(word, str)]

    @property
    def over_quota(self) -> bool:
        """Whether asking again is of no use until somebody has paid."""
        return any(word in _QUOTA for word in self.words)

    def marks(self, markers: Iterable[str]) -> bool:
        """Whether one of the lower-case `markers` is in the message or in a code."""
        parts = (self.message, self.inner_code, *self.reasons)
        text = "\n".join([part.lower() for part in parts if part] + self.words)
        return any(marker in text for marker in markers)


def _message(body: dict[str, Any]) -> str | None:
    """Return the message of an error body, from the first place that has one."""
    error, detail = body.get("error"), body.get("detail")
    first = next(iter(_items(detail)), None)
    candidates = (
        error.get("message") if isinstance(error, dict) else error,
        body.get("message"),
        first.get("msg") if isinstance(first, dict) else detail,
    )
    return next((text for text in candidates if isinstance(text, str) and text), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _word(value: Any) -> str | int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
