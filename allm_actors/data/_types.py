"""The type checks of construction, on models that exist already."""

from collections.abc import Collection, Iterator
from typing import Any

import pydantic
from pydantic import BaseModel

from allm_actors.errors import FieldError

_Path = tuple[str | int, ...]


def type_problems(value: Any, path: _Path, but: Collection[str] = ()) -> Iterator[FieldError]:
    """Yield a problem for each ill-typed field of a model, and of the models in its fields.

    Args:
        value: A model; anything else has no problems.
        path: Where it stands.
        but: Names of fields that are judged elsewhere.
    """
    if not isinstance(value, BaseModel):
        return
    fields = {name: value.__dict__[name] for name in type(value).model_fields if name in value.__dict__}
    try:
        type(value).__pydantic_validator__.validate_python(dict(fields))
    except pydantic.ValidationError as error:
        for line in error.errors(include_url=False, include_context=False, include_input=False):
            name = line["loc"][0] if line["loc"] else ""
            if name not in but:
                reason = "required" if line["type"] == "missing" else "invalid_type"
                yield FieldError((*path, *line["loc"]), reason)
    for name, held in fields.items():
        if name not in but:
            yield from _inner_problems(held, (*path, name))


def _inner_problems(value: Any, path: _Path) -> Iterator[FieldError]:
    if isinstance(value, BaseModel):
        yield from type_problems(value, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, BaseModel):
                yield from type_problems(item, (*path, index))
