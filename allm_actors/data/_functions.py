"""Functions as tool handlers: what they take, the schema of it, and the check before they run."""

import functools
import inspect
import sys
import typing
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_origin

import pydantic
from pydantic import ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from allm_actors.errors import ToolError

_CONTEXT_NAMES = frozenset({"ctx", "context"})
_CONTEXT_CLASS = "ToolContext"


class HandlerContext:
    """The base of the class whose instances tool handlers receive beside their arguments."""

    __slots__ = ()


def check_handler(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that can be called with the arguments dict, or with it and a context.

    Raises:
        ValueError: It cannot, or it is a coroutine function.
    """
    if _is_coroutine_function(handler):
        raise ValueError("a handler is called in a thread of its own: it cannot be a coroutine function")
    signature = _signature(handler)
    if signature is not None and not _takes(signature, 1) and not _takes(signature, 2):
        raise ValueError(
            "a handler takes the arguments dict, and at most the tool context after it; "
            f"this one takes {signature}"
        )
    return handler


def wants_context(handler: Callable[..., Any]) -> bool:
    """Whether a handler takes a `ToolContext` as its second positional argument.

    It does if its second positional parameter is required, or named `ctx` or `context`, or, with no such
    parameter, if it takes `*args`. A callable that cannot be inspected gets the arguments alone.
    """
    signature = _signature(handler)
    if signature is None:
        return False
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    positional = [parameter for parameter in signature.parameters.values() if parameter.kind in kinds]
    if len(positional) > 1:
        second = positional[1]
        return second.default is inspect.Parameter.empty or second.name in _CONTEXT_NAMES
    return any(
        parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in signature.parameters.values()
    )


class FunctionHandler:
    """Calls a function with validated arguments: the handler of a tool made from that function.

    Attributes:
        function: The function itself.
        name: The tool's name, for messages.
        description: The function's docstring, dedented; `""` without one.
        schema: JSON schema of its parameters, the tool context left out.
    """

    def __init__(self, function: Callable[..., Any], *, name: str | None = None) -> None:
        """Read the function's signature.

        Raises:
            TypeError: Not a callable with a name and a signature.
            ValueError: `*args`, `**kwargs`, positional-only parameters, or a coroutine function.
        """
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"a tool is made from a function, got {function!r}")
        if _is_coroutine_function(function):
            raise ValueError(f"{_name_of(function)} is a coroutine function; a tool needs a plain one")
        self.function = function
        self.name = _name_of(function) if name is None else name
        self.description = inspect.cleandoc(function.__doc__ or "")
        self._fields, self._contexts = _parameters(function)
        self._model = _arguments_model(self.name, self._fields)
        self.schema: dict[str, Any] = self._model.model_json_schema(schema_generator=_PlainSchema)
        self.schema.pop("title", None)

    def __call__(self, arguments: dict[str, Any], ctx: Any = None) -> Any:
        """Validate the arguments, then call the function with them.

        Raises:
            ToolError: `invalid_arguments`; the message lists each path and problem, for the model to read.
        """
        try:
            checked = self._model.__pydantic_validator__.validate_python(arguments)
        except pydantic.ValidationError as error:
            problems = "; ".join(
                _problem(line) for line in error.errors(include_url=False, include_input=False)
            )
            raise ToolError(
                "invalid_arguments", f"invalid arguments for {self.name}: {problems}", tool_name=self.name
            ) from error
        values = {name: getattr(checked, field) for name, field in self._fields_by_name()}
        values.update(dict.fromkeys(self._contexts, ctx))
        return self.function(**values)

    def _fields_by_name(self) -> list[tuple[str, str]]:
        return [(name, f"p{index}") for index, name in enumerate(self._fields)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FunctionHandler):
            return NotImplemented
        return self.function == other.function and self.name == other.name

    def __hash__(self) -> int:
        return hash((self.function, self.name))

    def __copy__(self) -> "FunctionHandler":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "FunctionHandler":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Under the function's own name a decorated module holds the tool: pickle goes by way of it.
        module, qualname = self.function.__module__, getattr(self.function, "__qualname__", "")
        try:
            found = _found(module, qualname)
        except (AttributeError, ImportError, KeyError):
            found = None
        if found != self:
            return FunctionHandler._of, (self.function, self.name)
        return _found, (module, qualname)

    @staticmethod
    def _of(function: Callable[..., Any], name: str) -> "FunctionHandler":
        return FunctionHandler(function, name=name)

    def __repr__(self) -> str:
        return f"<handler of {_name_of(self.function)}>"


class _PlainSchema(GenerateJsonSchema):
    """JSON schemas without what a model does not need to read: titles made from names."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own declaration

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def _found(module: str, qualname: str) -> Any:
    """Return the handler of the tool that a module holds under a name."""
    __import__(module)
    found: Any = sys.modules[module]
    for step in qualname.split("."):
        found = getattr(found, step)
    return found.handler


def _parameters(function: Callable[..., Any]) -> tuple[dict[str, tuple[Any, Any]], list[str]]:
    """Tell arguments (hint and default, by name) from the parameters that receive the context."""
    fields: dict[str, tuple[Any, Any]] = {}
    contexts: list[str] = []
    where = _name_of(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
            raise ValueError(f"{where} takes {parameter}; a tool's arguments need names, for its schema")
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise ValueError(
                f"{where} takes {name!r} by position only; a tool's arguments are passed by keyword"
            )
        if name in _CONTEXT_NAMES or _named_context(parameter.annotation):
            contexts.append(name)
            continue
        hint = _hint(function, name, parameter.annotation)
        if _is_context(hint):
            contexts.append(name)
        else:
            fields[name] = (hint, parameter.default)
    return fields, contexts


def _hint(function: Callable[..., Any], name: str, annotation: Any) -> Any:
    """Evaluate an annotation where the function was written."""
    if annotation is inspect.Parameter.empty:
        return Any
    plain = inspect.unwrap(function)
    code = getattr(plain, "__func__", plain)
    variables = getattr(code, "__globals__", {})
    closure = inspect.getclosurevars(code).nonlocals if inspect.isfunction(code) else {}
    # Names local to the function that applies the decorator are not in the closure unless they are used.
    holder = SimpleNamespace(__annotations__={name: annotation})
    hints = typing.get_type_hints(holder, variables, {**_callers_names(), **closure}, include_extras=True)
    return hints[name]


def _callers_names() -> dict[str, Any]:
    """Return the local names of the code that applies `@tool`."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("allm_actors.data."):
        frame = frame.f_back
    return dict(frame.f_locals) if frame is not None else {}


def _named_context(annotation: Any) -> bool:
    """Whether an unevaluated annotation names the context: it may be imported for type checkers only."""
    return isinstance(annotation, str) and any(
        part.strip().rpartition(".")[2] == _CONTEXT_CLASS for part in annotation.strip("\"'").split("|")
    )


def _is_context(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _is_context(get_args(hint)[0])
    if isinstance(hint, type):
        return issubclass(hint, HandlerContext)
    return any(_is_context(part) for part in get_args(hint) if isinstance(part, type))


def _arguments_model(name: str, fields: dict[str, tuple[Any, Any]]) -> type[pydantic.BaseModel]:
    """Build the model that arguments are validated into; no name of a field can clash with pydantic's."""
    declared: dict[str, Any] = {}
    for index, (alias, (hint, default)) in enumerate(fields.items()):
        if isinstance(default, FieldInfo):
            info = FieldInfo.merge_field_infos(
                default, alias=alias, validation_alias=alias, serialization_alias=alias
            )
        elif default is inspect.Parameter.empty:
            info = Field(alias=alias)
        else:
            info = Field(default=default, alias=alias)
        declared[f"p{index}"] = (hint, info)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return pydantic.create_model(name, __config__=config, **declared)


def _problem(line: Any) -> str:
    path = ".".join(str(step) for step in line["loc"])
    return f"{path}: {line['msg']}" if path else str(line["msg"])


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _is_coroutine_function(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or (
        not isinstance(function, type) and inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
    )


def _signature(handler: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(handler)
    except (ValueError, TypeError):
        return None


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
