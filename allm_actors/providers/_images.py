"""Reading and checking the images of a request, before anything is sent.

Files are read here, once; a remote image is never fetched. What comes back is what the body builders embed.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from allm_actors.data import (
    Base64Source,
    BinarySource,
    FileSource,
    Image,
    ImagePart,
    Message,
    UrlSource,
)
from allm_actors.errors import FieldError, ValidationError

__all__ = ["MAX_IMAGE_BYTES", "ResolvedImage", "resolve_images"]

MAX_IMAGE_BYTES = 20 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image ready to be sent.

    Attributes:
        url: The URL it was given as (`http`, `https` or `data`), else `None`.
        mime_type: Known for everything but a remote URL.
        data: The content in base64; `None` for a remote URL.
    """

    url: str | None
    mime_type: str | None
    data: str | None

    @property
    def href(self) -> str:
        """A URL that leads to the image: its own, verbatim, or a `data:` URL."""
        return self.url if self.url is not None else f"data:{self.mime_type};base64,{self.data}"


class _Unfit(Exception):
    """The image cannot be sent; the argument is the code."""


def resolve_images(
    messages: Sequence[Message], accepted: frozenset[str]
) -> Mapping[tuple[int, int], ResolvedImage]:
    """Return every image of `messages` by (message, part).

    Args:
        messages: The request's.
        accepted: The MIME types the provider reads.

    Raises:
        ValidationError: `invalid_message`, with one error for each image that cannot be sent:
            `missing_mime_type`, `unsupported_image_format`, `image_too_large` or `unresolvable_image`.
    """
    images: dict[tuple[int, int], ResolvedImage] = {}
    errors: list[FieldError] = []
    for row, message in enumerate(messages):
        if isinstance(message.content, str):
            continue
        for column, part in enumerate(message.content):
            if isinstance(part, ImagePart):
                try:
                    images[row, column] = _resolve(part.image, accepted)
                except _Unfit as unfit:
                    errors.append(FieldError(("content", row, column), str(unfit)))
    if errors:
        raise ValidationError("invalid_message", errors)
    return images


def _resolve(image: Image, accepted: frozenset[str]) -> ResolvedImage:
    mime = image.mime_type
    match image.source:
        case UrlSource(value=url):
            return _from_url(url, mime, accepted)
        case BinarySource(value=content):
            _check_mime(mime, accepted)
            _check_size(len(content))
            return ResolvedImage(None, mime, base64.b64encode(content).decode("ascii"))
        case Base64Source(value=text):
            _check_mime(mime, accepted)
            _check_base64(text)
            return ResolvedImage(None, mime, text)
        case FileSource(value=path):
            _check_mime(mime, accepted)
            return ResolvedImage(None, mime, base64.b64encode(_read(path)).decode("ascii"))


def _from_url(url: str, mime: str | None, accepted: frozenset[str]) -> ResolvedImage:
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError:
        raise _Unfit("unresolvable_image") from None
    if scheme in ("http", "https"):
        if mime is not None:
            _check_mime(mime, accepted)
        return ResolvedImage(url, mime, None)
    if scheme != "data":
        raise _Unfit("unresolvable_image")
    head, comma, text = url.partition(",")
    kind, *parameters = head.partition(":")[2].split(";")
    if not comma or not kind or not parameters or parameters[-1].strip().lower() != "base64":
        raise _Unfit("unresolvable_image")
    _check_mime(kind, accepted)
    _check_base64(text)
    return ResolvedImage(url, kind, text)


def _check_mime(mime: str | None, accepted: frozenset[str]) -> None:
    if not mime:
        raise _Unfit("missing_mime_type")
    if mime.lower() not in accepted:
        raise _Unfit("unsupported_image_format")


def _check_size(size: int) -> None:
    if size > MAX_IMAGE_BYTES:
        raise _Unfit("image_too_large")


def _check_base64(text: str) -> None:
    """Look at the size first: what is too large is not decoded just to find out."""
    _check_size(len(text) // 4 * 3 - text[-2:].count("="))
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _Unfit("unresolvable_image") from None


def _read(path: str) -> bytes:
    try:
        file = Path(path)
        _check_size(file.stat().st_size)
        content = file.read_bytes()
    except (OSError, ValueError):
        raise _Unfit("unresolvable_image") from None
    _check_size(len(content))
    return content
