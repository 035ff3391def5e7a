"""The base of all data models, and the field types they share.

Guarantees:
    - Models are frozen and strict: `"1"` is no int, `True` is no number, a tuple is no list, and an unknown
      field is an error. A dict of a model's fields stands for the model.
    - Lists and dicts are copied at construction; nothing in the library mutates what it finds in a model.
    - JSON both ways is pydantic's: `model_dump_json()` and `model_validate_json(text)` are inverse, and
      decoding is as strict as construction.
"""

import base64
from collections.abc import Callable
from math import inf, isfinite, isnan
from typing import Annotated, Any, ClassVar, get_args

import pydantic
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from allm_actors.data._opaque import to_jsonable
from allm_actors.errors._json import check_json, check_json_object

_KNOWN_ERRORS = frozenset(get_args(core_schema.ErrorType))
_INFINITIES = {"Infinity": inf, "-Infinity": -inf}
_LABEL = "\N{BULLET}"


class Model(BaseModel):
    """A frozen, strict value."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        strict=True, frozen=True, extra="forbid", ser_json_inf_nan="strings"
    )


def _check_text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PydanticCustomError(
                "lone_surrogate",
                "Input should be text that can be written as UTF-8; there is half of a surrogate pair at "
                "index {index}",
                {"index": error.start},
            ) from None
    return text


Text = Annotated[str, AfterValidator(_check_text)]
"""Text that can be written as JSON: without halves of surrogate pairs."""


def to_text(text: str) -> str:
    """Return text that can be written as JSON: halves of surrogate pairs become U+FFFD."""
    return (
        text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    )


JsonData = Annotated[Any, PlainValidator(check_json), WithJsonSchema({})]
"""Any JSON value; a plain copy is stored."""

JsonObject = Annotated[dict[str, Any], PlainValidator(check_json_object), WithJsonSchema({"type": "object"})]
"""A dict with string keys and JSON values; a plain copy is stored."""

Opaque = Annotated[Any, PlainSerializer(to_jsonable, when_used="json")]
"""Any object: written as JSON if the whole of it can be, else as its `repr`. Writing never fails."""


def _read_float(value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
    """Take the JSON spelling of infinity, and refuse NaN, where JSON is read."""
    if info.mode != "json":
        return handler(value)
    return _refuse_nan(_INFINITIES.get(value, value) if isinstance(value, str) else value, handler)


def _check_float(value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
    """The same, and refuse NaN everywhere."""
    if info.mode == "json" and isinstance(value, str):
        value = _INFINITIES.get(value, value)
    return _refuse_nan(value, handler)


def _refuse_nan(value: Any, handler: Callable[[Any], Any]) -> Any:
    number = handler(value)
    if number is not None and isnan(number):
        raise PydanticCustomError("not_a_number", "Input should be a number, not NaN")
    return number


def _write_float(value: Any) -> Any:
    # Spelled out here: a model's own setting does not count where it is part of something else.
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


_WriteFloat = PlainSerializer(_write_float, when_used="json-unless-none")

Float = Annotated[float, WrapValidator(_check_float), _WriteFloat]
"""A float that is not NaN; infinity is written `"Infinity"`."""

JudgedFloat = Annotated[float, WrapValidator(_read_float), _WriteFloat]
"""A float whose range `validate` judges: NaN can be built, but is not read from JSON."""

Seconds = Annotated[float, Field(gt=0), WrapValidator(_check_float), _WriteFloat]
"""A time limit: more than 0, `math.inf` for no limit."""


def decode_base64(text: str) -> bytes:
    """Return the bytes of standard base64: nothing in it is skipped, and padding is neither missing nor more.

    Raises:
        ValueError: It is not.
    """
    if len(text) % 4 or text.endswith("==="):  # the standard decoder takes any padding after a whole group
        raise ValueError("the padding is wrong")
    return base64.b64decode(text, validate=True)


def _read_bytes(value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
    if info.mode == "json" and isinstance(value, str):
        try:
            return decode_base64(value)
        except ValueError:
            raise PydanticCustomError("base64", "Input should be standard base64 with padding") from None
    return handler(value)


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


Bytes = Annotated[bytes, WrapValidator(_read_bytes), PlainSerializer(_write_bytes, when_used="json")]
"""Bytes, in JSON as standard base64 with padding."""


def OneOf(expected: str, **branches: Any) -> Any:  # noqa: N802 - reads as a type, like pydantic's own `Field`
    """Annotate a field that takes one of several types, so that errors lead to the value itself.

    Pydantic's unions put the name of the branch into every path. Here the value's own type picks the
    branch, only that branch reports problems, and its name is left out.

    Args:
        expected: What the value should be, for the error when no branch fits.
        branches: Type by label: `str_`, `list_` and `dict_` are taken by values of these types; any other
            label is a model, taken by its instances, and by dicts whose `type` is the label. A dict without
            a `type` goes to the only model there is.
    """

    def build(_source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        models = {label: kind for label, kind in branches.items() if label not in {"str_", "list_", "dict_"}}

        def pick(value: Any) -> str | None:
            label: Any = None
            if isinstance(value, str):
                label = "str_"
            elif isinstance(value, list):
                label = "list_"
            elif isinstance(value, dict):
                label = value.get("type") if "dict_" not in branches else "dict_"
                if label is None and len(models) == 1:
                    (label,) = models
            else:
                label = next((label for label, kind in models.items() if isinstance(value, kind)), None)
            return _LABEL + label if isinstance(label, str) and label in branches else None

        union = core_schema.tagged_union_schema(
            {_LABEL + label: handler.generate_schema(kind) for label, kind in branches.items()},
            pick,
            custom_error_type="type_mismatch",
            custom_error_message=f"Input should be {expected}",
        )
        return core_schema.no_info_wrap_validator_function(_without_labels, union)

    return GetPydanticSchema(build)


def _without_labels(value: Any, handler: Callable[[Any], Any]) -> Any:
    try:
        return handler(value)
    except pydantic.ValidationError as error:
        raise relocated(error, error.title) from None


def relocated(
    error: pydantic.ValidationError, title: str, prefix: tuple[str | int, ...] = ()
) -> pydantic.ValidationError:
    """Rebuild an error, its paths put behind `prefix`, without the label of a branch that they begin with."""
    lines = [_relocated(line, prefix) for line in error.errors(include_url=False)]
    return pydantic.ValidationError.from_exception_data(title, lines)


def _relocated(line: Any, prefix: tuple[str | int, ...]) -> InitErrorDetails:
    loc = line["loc"]
    if loc and isinstance(loc[0], str) and loc[0].startswith(_LABEL):
        loc = loc[1:]
    loc = (*prefix, *loc)
    if line["type"] in _KNOWN_ERRORS:
        return InitErrorDetails(type=line["type"], loc=loc, input=line["input"], ctx=line.get("ctx", {}))
    return InitErrorDetails(type=PydanticCustomError(line["type"], line["msg"]), loc=loc, input=line["input"])
