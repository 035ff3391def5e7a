"""Images: built without I/O, read without the network."""

import base64
import copy
import pickle

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allm_actors.data import Base64Source, BinarySource, FileSource, Image, UrlSource
from allm_actors.errors import ImageSourceError

PNG = b"\x89PNG\r\n\x1a\n\xff\x00"
TEXT = base64.b64encode(PNG).decode()


def test_sources_are_told_apart_by_type():
    """C-12."""
    sources = [BinarySource(value=b""), Base64Source(value=""), UrlSource(value=""), FileSource(value="")]
    assert [source.type for source in sources] == ["binary", "base64", "url", "file"]
    for source in sources:
        assert type(Image(source=source).source) is type(source)
        assert Image(source=source.model_dump()) == Image(source=source)


def test_building():
    """C-13."""
    assert Image.from_binary(PNG, "image/png") == Image(source=BinarySource(value=PNG), mime_type="image/png")
    assert Image.from_base64("not base64!", "image/png").source == Base64Source(value="not base64!")
    assert Image.from_url("https://x/y.png") == Image(
        source=UrlSource(value="https://x/y.png"), mime_type=None
    )


@pytest.mark.parametrize(("build", "data"), [(Image.from_binary, PNG), (Image.from_base64, TEXT)])
def test_a_mime_type_is_required_for_bytes(build, data):
    """C-13."""
    with pytest.raises(TypeError):
        build(data, None)
    with pytest.raises(TypeError):
        build(data)


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("a.png", "image/png"),
        ("a.JPG", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.b.WebP", "image/webp"),
        ("/x/y.gif", "image/gif"),
        ("a.bmp", None),
        ("png", None),
        ("a.png.txt", None),
        ("", None),
    ],
)
def test_the_suffix_tells_the_type(name, mime, tmp_path):
    """C-13: the file need not exist."""
    assert Image.from_file(name) == Image(source=FileSource(value=name), mime_type=mime)
    assert Image.from_file(tmp_path / "z.png").source == FileSource(value=str(tmp_path / "z.png"))
    with pytest.raises(TypeError):
        Image.from_file(b"a.png")


@pytest.mark.parametrize(
    ("uri", "mime", "text"),
    [
        (f"data:image/png;base64,{TEXT}", "image/png", TEXT),
        ("data:image/png;name=x;charset=utf-8;base64,a,b", "image/png", "a,b"),
        ("data:image/png;base64,", "image/png", ""),
        ("DATA:image/png;BASE64,!!", "image/png", "!!"),
    ],
)
def test_data_uris(uri, mime, text):
    """C-13: parameters are dropped, the text is kept as it is."""
    assert Image.from_data_uri(uri) == Image.from_base64(text, mime)


@pytest.mark.parametrize(
    "uri",
    [
        "image/png;base64,aa",
        "https://x",
        "data:image/png,aa",
        "data:;base64,aa",
        "data:image/png;base64",
        "",
        "data:",
        "data:;name=x;base64,aa",
    ],
)
def test_other_uris_are_refused(uri):
    """C-13."""
    with pytest.raises(ValueError) as caught:
        Image.from_data_uri(uri)

    assert not isinstance(caught.value, pydantic.ValidationError | ImageSourceError)


def test_reading(tmp_path):
    """C-14."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)

    for image in (
        Image.from_binary(PNG, "image/png"),
        Image.from_base64(TEXT, "image/png"),
        Image.from_file(path),
    ):
        assert image.to_binary() == PNG
        assert image.to_data_uri() == f"data:image/png;base64,{TEXT}"


def refused(call):
    with pytest.raises(ImageSourceError) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    return caught.value


def test_a_url_is_never_fetched():
    """C-14: whatever its MIME type; this comes before a missing one."""
    for image in (
        Image.from_url("data:image/png;base64,aa"),
        Image(source=UrlSource(value="u"), mime_type="image/png"),
    ):
        assert refused(image.to_binary).reason == "remote_source"
        assert refused(image.to_data_uri).reason == "remote_source"


def test_a_data_uri_needs_a_mime_type(tmp_path):
    """C-14: looked at before the bytes are."""
    assert refused(Image.from_file(tmp_path / "absent").to_data_uri).reason == "missing_mime_type"
    assert (
        refused(Image(source=Base64Source(value="!"), mime_type=None).to_data_uri).reason
        == "missing_mime_type"
    )


@pytest.mark.parametrize(
    "text", ["a", "aaa", "aa=a", "aaaa\n", " aaaa", "a-_a", "aaaa=", "aaaa====", "é", "=aaa", "aa==aa=="]
)
def test_base64_is_strict(text):
    """C-14: nothing is skipped, padding is complete."""
    image = Image.from_base64(text, "image/png")

    assert refused(image.to_binary).reason == "invalid_base64"
    assert image.to_data_uri() == f"data:image/png;base64,{text}"


def test_an_unreadable_file_says_why(tmp_path):
    """C-14."""
    error = refused(Image.from_file(tmp_path / "absent.png").to_binary)
    assert error.reason == "unreadable_file"
    assert isinstance(error.__cause__, FileNotFoundError)
    assert refused(Image.from_file(tmp_path / "absent.png").to_data_uri).reason == "unreadable_file"
    assert refused(Image.from_file("a\0b.png").to_binary).reason == "unreadable_file"


def test_image_source_errors_are_values():
    """C-5: pickled and copied, they say the same."""
    for again in (
        pickle.loads(pickle.dumps(ImageSourceError("remote_source"))),
        copy.copy(ImageSourceError("remote_source")),
    ):
        assert (again.reason, str(again)) == ("remote_source", str(ImageSourceError("remote_source")))


@given(st.binary())
def test_bytes_are_standard_base64_in_json(value):
    """C-86."""
    image = Image.from_binary(value, "image/png")
    text = image.model_dump_json()

    assert image.model_dump(mode="json")["source"]["value"] == base64.b64encode(value).decode()
    assert Image.model_validate_json(text) == image


@pytest.mark.parametrize("broken", ["a", "aa", "aa=", "a-_a", "aaaa\\n", "!!!!", "é"])
def test_broken_bytes_in_json_are_refused(broken):
    """C-86: with the path of the value."""
    text = f'{{"source": {{"type": "binary", "value": "{broken}"}}}}'

    with pytest.raises(pydantic.ValidationError) as caught:
        Image.model_validate_json(text)
    assert caught.value.errors()[0]["loc"] == ("source", "value")


def test_a_file_is_stored_as_its_path(tmp_path):
    """C-86: neither writing nor loading reads it."""
    image = Image.from_file(tmp_path / "absent.png")

    assert Image.model_validate_json(image.model_dump_json()) == image
    assert image.model_dump(mode="json")["source"]["value"] == str(tmp_path / "absent.png")


def test_payloads_do_not_fill_the_screen():
    """K-17: a `repr` shows sizes, not payloads."""
    big = "A" * 4000
    for image in (
        Image.from_binary(big.encode(), "x"),
        Image.from_base64(big, "x"),
        Image.from_url("data:" + big),
    ):
        assert len(repr(image)) < 500
        assert "40" in repr(image)
    assert "https://x/y.png" in repr(Image.from_url("https://x/y.png"))
