"""Images: where their bytes are, and how to get at them.

Building an image does no I/O; reading one touches at most a local file, never the network.
"""

import base64
import os
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from allm_actors.data.base import Bytes, JsonObject, Model, OneOf, decode_base64
from allm_actors.errors import ImageSourceError

_MIME_BY_SUFFIX = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
}
_SHOWN = 100


class BinarySource(Model):
    """An image's bytes themselves."""

    type: Literal["binary"] = "binary"
    value: Bytes
    metadata: JsonObject = Field(default_factory=dict)

    def __repr_args__(self) -> Any:
        yield "value", _Size(f"<{len(self.value)} bytes>")


class Base64Source(Model):
    """An image's bytes as base64 text, unchecked until they are read."""

    type: Literal["base64"] = "base64"
    value: str
    metadata: JsonObject = Field(default_factory=dict)

    def __repr_args__(self) -> Any:
        yield "value", _Size(f"<{len(self.value)} characters>")


class UrlSource(Model):
    """An image behind a URL, for the provider to fetch."""

    type: Literal["url"] = "url"
    value: str
    metadata: JsonObject = Field(default_factory=dict)

    def __repr_args__(self) -> Any:
        if len(self.value) > _SHOWN:
            yield "value", _Size(f"{self.value[:_SHOWN]!r}... <{len(self.value)} characters>")
        else:
            yield "value", self.value


class FileSource(Model):
    """An image in a local file, read when its bytes are asked for; JSON holds the path alone."""

    type: Literal["file"] = "file"
    value: str
    metadata: JsonObject = Field(default_factory=dict)


Source = Annotated[
    BinarySource | Base64Source | UrlSource | FileSource,
    OneOf(
        "a binary, base64, url or file source",
        binary=BinarySource,
        base64=Base64Source,
        url=UrlSource,
        file=FileSource,
    ),
]


class Image(Model):
    """An image, given or generated.

    Attributes:
        prompt: What it was generated from.
        revised_prompt: What the provider made of that prompt.
    """

    source: Source
    mime_type: str | None = None
    width: int | None = None
    height: int | None = None
    prompt: str | None = None
    revised_prompt: str | None = None
    metadata: JsonObject = Field(default_factory=dict)

    @classmethod
    def from_binary(cls, data: bytes, mime_type: str) -> Self:
        """Return an image of these bytes."""
        return cls(source=BinarySource(value=data), mime_type=_required(mime_type))

    @classmethod
    def from_base64(cls, text: str, mime_type: str) -> Self:
        """Return an image of this base64 text, which is stored unchecked."""
        return cls(source=Base64Source(value=text), mime_type=_required(mime_type))

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return an image behind a URL; its MIME type is unknown."""
        return cls(source=UrlSource(value=url))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Return an image in a file, which need not exist yet; the suffix tells the MIME type."""
        name = os.fspath(path)
        if not isinstance(name, str):
            raise TypeError(f"path must be a string or a path of strings, got {type(name).__name__}")
        return cls(
            source=FileSource(value=name), mime_type=_MIME_BY_SUFFIX.get(PurePath(name).suffix.lower())
        )

    @classmethod
    def from_data_uri(cls, uri: str) -> Self:
        """Return the image in `data:<mime>[;param...];base64,<text>`; the text is kept as it stands.

        Raises:
            ValueError: Not a data URI, not base64, or no MIME type.
        """
        if not isinstance(uri, str):
            raise TypeError(f"uri must be a string, got {type(uri).__name__}")
        head, comma, text = uri.partition(",")
        scheme, colon, described = head.partition(":")
        if not colon or scheme.lower() != "data":
            raise ValueError("a data URI begins with `data:`")
        mime_type, *params = described.split(";")
        if not comma or not params or params[-1].strip().lower() != "base64":
            raise ValueError("the data URI does not hold base64: no `;base64,` in it")
        if not mime_type.strip():
            raise ValueError("the data URI has no MIME type")
        return cls(source=Base64Source(value=text), mime_type=mime_type.strip())

    def to_binary(self) -> bytes:
        """Return the image's bytes.

        Raises:
            ImageSourceError: `remote_source`, `invalid_base64` or `unreadable_file`.
        """
        match self.source:
            case BinarySource(value=data):
                return data
            case Base64Source(value=text):
                return _decoded(text)
            case FileSource(value=path):
                return _contents(path)
            case _:
                raise ImageSourceError("remote_source")

    def to_data_uri(self) -> str:
        """Return the image as `data:<mime>;base64,<text>`; base64 text is embedded without decoding it.

        Raises:
            ImageSourceError: `remote_source`, then `missing_mime_type`, then `unreadable_file`.
        """
        if isinstance(self.source, UrlSource):
            raise ImageSourceError("remote_source")
        if not self.mime_type:
            raise ImageSourceError("missing_mime_type")
        if isinstance(self.source, Base64Source):
            text = self.source.value
        else:
            text = base64.b64encode(self.to_binary()).decode()
        return f"data:{self.mime_type};base64,{text}"


class _Size:
    """Shows a payload by its size, in a `repr`."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _required(mime_type: str) -> str:
    if mime_type is None:
        raise TypeError("mime_type is required: the bytes of an image do not say what they are")
    return mime_type


def _decoded(text: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError:
        raise ImageSourceError("invalid_base64") from None


def _contents(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        raise ImageSourceError("unreadable_file", f"the image's file {path!r} cannot be read") from error
