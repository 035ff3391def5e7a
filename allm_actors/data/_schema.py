"""JSON schemas: enum members in them, and a model field of that name."""

import enum
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def normalize_schema(schema: Any) -> Any:
    """Return a schema in which enum members, as keys or values and at every depth, are their `.value`.

    What is plain already comes back equal.
    """
    if isinstance(schema, enum.Enum):
        return normalize_schema(schema.value)
    if isinstance(schema, dict):
        return {normalize_schema(key): normalize_schema(item) for key, item in schema.items()}
    if isinstance(schema, list):
        return [normalize_schema(item) for item in schema]
    return schema


@contextmanager
def field_named_schema() -> Iterator[None]:
    """Let a model have a field called `schema`, of which pydantic warns: it had such a method once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message='Field name "schema"', category=UserWarning)
        yield
