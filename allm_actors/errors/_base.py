"""What all errors share: reasons, messages, equality, copies, pickles and the JSON form.

A class declares its `kind`, its reasons and its extra fields; everything else is derived from these here.
"""

import re
from math import inf, isinf, isnan
from typing import Any, ClassVar, NamedTuple, Self

import pydantic
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from allm_actors.errors._json import check_json, check_json_object, json_problems

_KINDS: dict[str, type["AllmError"]] = {}
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_INFINITIES = {"Infinity": inf, "-Infinity": -inf}


class _FieldError(NamedTuple):
    path: tuple[str | int, ...]
    reason: str


class FieldError(_FieldError):
    """One problem of a `ValidationError`: where (`path`, always a tuple of names and indices), and what."""

    __slots__ = ()

    def __new__(cls, path: Any, reason: str) -> Self:
        """Take a path as a tuple, a list, or the one name it consists of."""
        where = (path,) if isinstance(path, str | int) else tuple(path)
        if not all(isinstance(step, str | int) for step in where):
            raise TypeError(f"a path is made of names and indices, got {where!r}")
        if not isinstance(reason, str):
            raise TypeError(f"the reason of a field error is a string, got {type(reason).__name__}")
        return super().__new__(cls, where, reason)


class AllmError(Exception):
    r"""The base of every error this library raises or reports.

    Attributes:
        reason: One of `legal_reasons()`.
        message: One sentence for people; the same as `str(error)`, never empty. It drives no terminal:
            control characters but newline and tab, and those that turn the direction of writing, stand in
            it as escapes (`\x1b`), whatever it was built from.
        cause: What lies behind it, as JSON; never a live exception.
        metadata: Further facts, as JSON.
        partial: What had been completed when a call raised this error (a `Response`, `StepResult` or
            `ChatResult`), else `None`. No part of equality, JSON or `repr`.
    """

    kind: ClassVar[str] = ""
    """The first word of default messages, and the tag in JSON: a class that declares one is found by it."""

    _reasons: ClassVar[tuple[str, ...]] = ()
    _extra: ClassVar[dict[str, type]] = {}
    _who: ClassVar[str | None] = None

    reason: str
    message: str
    cause: Any
    metadata: dict[str, Any]
    partial: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            _KINDS[cls.kind] = cls

    def __init__(
        self,
        reason: str,
        message: str | None = None,
        *,
        cause: Any = None,
        metadata: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """Build an error; subclasses name their fields.

        Raises:
            ValueError: The reason is not one of `legal_reasons()`.
            TypeError: A field is unknown, or has the wrong type; `cause` or `metadata` is not JSON.
        """
        unknown = sorted(fields.keys() - self._extra)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {unknown[0]!r}")
        self._set(reason=reason, cause=cause, metadata={} if metadata is None else metadata)
        self._set(**{name: fields.get(name) for name in self._extra})
        self._set(message=message)
        self.partial = None
        super().__init__(self.message)

    @classmethod
    def legal_reasons(cls) -> tuple[str, ...]:
        """Return the reasons this class can have."""
        return cls._reasons

    @property
    def retryable(self) -> bool:
        """Whether asking again may help: a hint, and only ever true of an `AdapterError`."""
        return False

    def replace(self, **changes: Any) -> Self:
        """Return an equal copy, some fields changed: without traceback, context or `partial`.

        An explicit `__cause__` is kept. A default message follows the changed fields.

        Raises:
            ValueError: The new reason is not one of `legal_reasons()`.
            TypeError: A field is unknown, or has the wrong type.
        """
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        twin.partial = None
        if "metadata" not in changes:
            twin.metadata = dict(self.metadata)
        twin.__cause__ = self.__cause__
        if "__notes__" in twin.__dict__:
            twin.__notes__ = list(self.__notes__)
        if changes:
            unknown = sorted(changes.keys() - self._field_names())
            if unknown:
                raise TypeError(f"{type(self).__name__} has no field {unknown[0]!r}")
            text = changes.pop("message", None if self.message == self._default_message() else self.message)
            twin._set(**changes)  # noqa: SLF001 - its own kind
            twin._set(message=text)  # noqa: SLF001
            twin.args = (twin.message,)
        return twin

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: a dict of JSON values, `kind` first."""
        form: dict[str, Any] = {"kind": self.kind}
        for name in self._field_names():
            value = getattr(self, name)
            form[name] = dict(value) if name == "metadata" else _written(value)
        return form

    @classmethod
    def from_dict(cls, form: Any) -> Self:
        """Build the error that a JSON form describes, of this class or one derived from it.

        Raises:
            pydantic.ValidationError: An unknown kind, an illegal reason, an unknown, missing or ill-typed
                field; all problems at once, each with its path.
        """
        problems: list[InitErrorDetails] = []
        target = cls._named_by(form, problems)
        if target is not None:
            fields = target._read(form, problems)  # noqa: SLF001 - its own kind
            if not problems:
                return target(**fields)
        raise pydantic.ValidationError.from_exception_data(cls.__name__, problems)

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        shown = [repr(self.reason), repr(self.message)]
        for name in self._field_names():
            value = getattr(self, name)
            if name not in {"reason", "message"} and value is not None and value != {}:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AllmError) or type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._field_names())

    def __hash__(self) -> int:
        return hash((type(self), self.reason, self.message))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validated,
            serialization=core_schema.plain_serializer_function_ser_schema(AllmError.to_dict),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"type": "object", "title": cls.__name__, "required": ["kind", "reason"]}

    @classmethod
    def _validated(cls, value: Any) -> Self:
        """Take an error, or its JSON form, as the value of a model's field."""
        if isinstance(value, cls):
            return value.replace()  # data keeps no traceback alive, now or when the original is raised
        if isinstance(value, dict):
            return cls.from_dict(value)
        raise PydanticCustomError(
            "error_type",
            "Input should be an instance of {expected} or its JSON form",
            {"expected": cls.__name__},
        )

    @classmethod
    def _field_names(cls) -> tuple[str, ...]:
        return ("reason", "message", "cause", "metadata", *cls._extra)

    def _default_message(self) -> str:
        who = getattr(self, self._who) if self._who else None
        return f"{self.kind} error{f' ({_harmless(who)})' if who else ''}: {self.reason}"

    def _set(self, **fields: Any) -> None:
        """Check fields and store them; `message` may be left to the others, so it is set after them."""
        for name, value in fields.items():
            if name == "reason":
                checked: Any = self._checked_reason(value)
            elif name == "message":
                if not isinstance(value, str | None):
                    raise TypeError(f"message must be a string or None, got {type(value).__name__}")
                checked = _harmless(_writable(value)) if value else self._default_message()
            elif name in {"cause", "metadata"}:
                checked = _checked_json(name, value)
            else:
                checked = _checked(name, value, self._extra[name])
            setattr(self, name, checked)

    @classmethod
    def _checked_reason(cls, reason: Any) -> str:
        if reason not in cls._reasons:
            legal = ", ".join(map(repr, cls._reasons)) or "none: build a subclass"
            raise ValueError(f"{reason!r} is no reason of {cls.__name__}; legal reasons: {legal}")
        return str.__str__(reason)

    @classmethod
    def _named_by(cls, form: Any, problems: list[InitErrorDetails]) -> type[Self] | None:
        """Find the class a JSON form is of, or note why there is none."""
        if not isinstance(form, dict):
            problems.append(InitErrorDetails(type="dict_type", loc=(), input=form))
            return None
        if "kind" not in form:
            problems.append(InitErrorDetails(type="missing", loc=("kind",), input=form))
            return None
        kind = form["kind"]
        target = _KINDS.get(kind) if isinstance(kind, str) else None
        if target is None or not issubclass(target, cls):
            known = ", ".join(sorted(tag for tag, known in _KINDS.items() if issubclass(known, cls)))
            error = PydanticCustomError("error_kind", "Input should be one of: {known}", {"known": known})
            problems.append(InitErrorDetails(type=error, loc=("kind",), input=kind))
            return None
        return target

    @classmethod
    def _read(cls, form: dict[str, Any], problems: list[InitErrorDetails]) -> dict[str, Any]:
        """Read the fields of a JSON form, noting every problem."""
        fields: dict[str, Any] = {}
        for name, value in form.items():
            if name == "reason":
                if value in cls._reasons:
                    fields[name] = value
                else:
                    legal = ", ".join(cls._reasons)
                    error = PydanticCustomError(
                        "error_reason", "Input should be one of: {legal}", {"legal": legal}
                    )
                    problems.append(InitErrorDetails(type=error, loc=(name,), input=value))
            elif name == "metadata" and not isinstance(value, dict):
                problems.append(InitErrorDetails(type="dict_type", loc=(name,), input=value))
            elif name in {"cause", "metadata"}:
                problems.extend(json_problems(value, (name,)))
                fields[name] = value
            elif name == "message" or name in cls._extra:
                fields[name] = _read_field(
                    name, value, str if name == "message" else cls._extra[name], problems
                )
            elif name != "kind":
                problems.append(InitErrorDetails(type="extra_forbidden", loc=(name,), input=value))
        problems.extend(
            InitErrorDetails(type="missing", loc=(name,), input=form)
            for name in ("reason", *(name for name, kind in cls._extra.items() if kind is list))
            if name not in form
        )
        return fields


def _restore(cls: type[AllmError], args: tuple[Any, ...], state: dict[str, Any]) -> AllmError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


def _checked_json(name: str, value: Any) -> Any:
    """Check `cause` or `metadata`; a wrong one is a mistake of the code that builds the error."""
    try:
        return check_json_object(value) if name == "metadata" else check_json(value)
    except pydantic.ValidationError:
        wanted = "a dict of JSON values" if name == "metadata" else "a JSON value"
        hint = "; chain exceptions with `raise ... from`" if isinstance(value, BaseException) else ""
        raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}{hint}") from None


def _checked(name: str, value: Any, kind: type) -> Any:
    """Check a field that may be `None` (a list may not)."""
    if kind is list:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{name} must be a list of field errors, got {type(value).__name__}")
        return [FieldError(*problem) for problem in value]
    if value is None:
        return None
    wanted = int | float if kind is float else kind
    if not isinstance(value, wanted) or isinstance(value, bool) or value != value:  # noqa: PLR0124 - NaN
        raise TypeError(f"{name} must be {kind.__name__} or None, got {type(value).__name__}")
    return _writable(value) if isinstance(value, str) else kind(value)


def _writable(text: str) -> str:
    """Return text that JSON can hold: what an exception says may have lone surrogates in it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _harmless(text: str) -> str:
    """Return text that a terminal only shows: providers and models write parts of what errors say."""
    if text.isprintable():
        return text
    return _UNSAFE.sub(lambda found: repr(found[0])[1:-1], text.replace("\r\n", "\n"))


def _read_field(name: str, value: Any, kind: type, problems: list[InitErrorDetails]) -> Any:
    """Read a field of a JSON form, as strictly as it is built."""
    if kind is list:
        return _read_errors(name, value, problems)
    if kind is float and isinstance(value, str) and value in _INFINITIES:
        return _INFINITIES[value]
    try:
        return _checked(name, value, kind)
    except TypeError:
        expected = {str: "string_type", int: "int_type", float: "float_type"}[kind]
        problems.append(InitErrorDetails(type=expected, loc=(name,), input=value))
        return None


def _read_errors(name: str, value: Any, problems: list[InitErrorDetails]) -> list[FieldError]:
    """Read the list of field errors: dicts of `path` and `reason`."""
    if not isinstance(value, list):
        problems.append(InitErrorDetails(type="list_type", loc=(name,), input=value))
        return []
    found: list[FieldError] = []
    for index, item in enumerate(value):
        if isinstance(item, FieldError):
            found.append(item)
        elif not isinstance(item, dict):
            problems.append(InitErrorDetails(type="dict_type", loc=(name, index), input=item))
        elif item.keys() != {"path", "reason"}:
            problems.extend(
                InitErrorDetails(type="missing", loc=(name, index, key), input=item)
                for key in ("path", "reason")
                if key not in item
            )
            problems.extend(
                InitErrorDetails(type="extra_forbidden", loc=(name, index, key), input=item[key])
                for key in item
                if key not in {"path", "reason"}
            )
        else:
            path, reason = item["path"], item["reason"]
            steps = path if isinstance(path, list | tuple) else None
            if steps is None or any(
                not isinstance(step, str | int) or isinstance(step, bool) for step in steps
            ):
                problems.append(InitErrorDetails(type="list_type", loc=(name, index, "path"), input=path))
            elif not isinstance(reason, str):
                problems.append(
                    InitErrorDetails(type="string_type", loc=(name, index, "reason"), input=reason)
                )
            else:
                found.append(FieldError(steps, reason))
    return found


def _written(value: Any) -> Any:
    if isinstance(value, float) and (isinf(value) or isnan(value)):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list) and value and isinstance(value[0], FieldError):
        return [{"path": list(problem.path), "reason": problem.reason} for problem in value]
    return value
