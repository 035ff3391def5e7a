"""Configuration as a value: what adapters of every kind have in common.

An adapter value is frozen data: no socket, no thread, no key. This module gives it a tag, a JSON
form, equality by class and fields, and a twin that processes may hold instead of the value itself.

Guarantees:
    - JSON never chooses what code is loaded: a tag is looked up among the classes already imported.
    - A refused API key is not shown by the exception that refuses it.
"""

from __future__ import annotations

import inspect
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_serializer, model_validator
from pydantic_core import PydanticCustomError, core_schema, to_json

from allm_actors.data.base import Model
from allm_actors.engine._secrets import refuse_secrets

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, SerializerFunctionWrapHandler

_by_tag: dict[str, list[weakref.ref[type[AdapterValue]]]] = {}


def _dump(value: Any, info: core_schema.SerializationInfo) -> Any:
    """Write what a slot holds with the fields of its own class."""
    if not isinstance(value, AdapterValue):
        return value
    return value.model_dump(
        mode=info.mode, exclude_none=info.exclude_none, exclude_defaults=info.exclude_defaults
    )


class AdapterValue(Model):
    """A frozen configuration that JSON can name by its `provider` tag."""

    provider: ClassVar[str] = ""
    """The tag in errors, key look-up and JSON. Default: the name of the class."""

    _slot: ClassVar[bool] = True
    """True for the abstract class a field is typed with; its subclasses are what the field holds."""
    _refuse_key_shapes: ClassVar[bool] = False
    """True where strings in the fields are checked for looking like a key."""
    _named_itself: ClassVar[bool] = False

    def __init_subclass__(cls, *, slot: bool = False, **kwargs: Any) -> None:
        """Give the class its tag. With `slot=True` it stands for all its subclasses in a field."""
        super().__init_subclass__(**kwargs)
        cls._slot = slot
        if "provider" in cls.__dict__:
            cls._named_itself = True
        elif not cls._named_itself:
            cls.provider = cls.__name__

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Make the class known to JSON; of two with one tag the later counts."""
        super().__pydantic_init_subclass__(**kwargs)
        if not cls._slot:
            _by_tag.setdefault(cls.provider, []).append(weakref.ref(cls))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Describe a field: of a slot class by look-up, of any other as the model it is."""
        if not cls._slot:
            return handler(source)
        return core_schema.with_info_plain_validator_function(
            cls._decode,
            serialization=core_schema.plain_serializer_function_ser_schema(_dump, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> Any:
        """Describe the JSON of a slot class by its tag, of any other by its fields."""
        if cls._slot:
            return {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}
        return handler(schema)

    @classmethod
    def _decode(cls, data: Any, info: core_schema.ValidationInfo) -> AdapterValue:
        """Take a value, a class that stands for its value without arguments, or the JSON form."""
        if isinstance(data, cls):
            return data
        if isinstance(data, type) and issubclass(data, cls):
            return data()
        if not isinstance(data, dict):
            raise PydanticCustomError(
                "adapter_type", "should be an instance or a class of {slot}", {"slot": cls.__name__}
            )
        tag = data.get("type")
        for known in reversed(_by_tag.get(tag, ()) if isinstance(tag, str) else ()):
            candidate = known()
            if candidate is not None and issubclass(candidate, cls) and not inspect.isabstract(candidate):
                if info.mode == "json":
                    return candidate.model_validate_json(to_json(data, inf_nan_mode="constants"))
                return candidate.model_validate(data)
        raise PydanticCustomError(
            "adapter_tag",
            "no {slot} with the type {tag} is imported",
            {"slot": cls.__name__, "tag": repr(tag)},
        )

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        refuse_secrets(cls.__name__, data, shapes=cls._refuse_key_shapes)
        if "type" not in data or "type" in cls.model_fields:
            return data
        fields = dict(data)
        if fields.pop("type") != cls.provider:
            raise PydanticCustomError("adapter_tag", "type should be {tag}", {"tag": repr(cls.provider)})
        return fields

    @model_serializer(mode="wrap")
    def _add_tag(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"type": self.provider, **handler(self)}

    def __eq__(self, other: object) -> bool:
        """Adapters are equal when class and fields are; private state plays no part."""
        if not isinstance(other, AdapterValue):
            return NotImplemented
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        """Hash by class and fields; raises `TypeError` where a field is a list or a dict."""
        return hash((type(self), tuple(self.__dict__.items())))

    def twin(self) -> Self:
        """Give a second object that is this value in all but identity.

        Class, fields and private state are the same, the private state even shared: what the
        twin notes there, this value sees. Whoever holds the twin does not keep this value alive.
        """
        twin = object.__new__(type(self))
        for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
            object.__setattr__(twin, name, getattr(self, name))
        return twin
