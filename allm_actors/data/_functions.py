"""Functions as tool handlers: the schema of what they take, and the check before they run."""

import inspect
import sys
import typing
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple, Self, get_args, get_origin

import pydantic
from pydantic import ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from allm_actors.data._handlers import CONTEXT_NAMES, is_coroutine_function
from allm_actors.errors import ToolError

_CONTEXT_CLASS = "ToolContext"


class FunctionHandler:
    """Calls a function with validated arguments: the handler of a tool made from that function.

    Attributes:
        function: The function itself.
        name: The tool's name, for messages.
        description: The function's docstring, dedented; `""` without one.
        schema: JSON schema of its parameters, the tool context left out.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        """Read the function's signature.

        Raises:
            TypeError: Not a function.
            ValueError: `*args`, `**kwargs`, positional-only parameters, a coroutine function, or a
                parameter whose type has no JSON schema.
        """
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"a tool is made from a function, got {function!r}")
        if is_coroutine_function(function):
            raise ValueError(f"{_name_of(function)} is a coroutine function; a tool needs a plain one")
        self.function = function
        self.name = _name_of(function) if name is None else name
        self.description = inspect.cleandoc(function.__doc__ or "")
        parameters = _parameters(function)
        self._contexts = [parameter.name for parameter in parameters if parameter.is_context]
        arguments = [parameter for parameter in parameters if not parameter.is_context]
        # The model's fields get names of their own, for a parameter may be called what pydantic reserves.
        self._fields = {f"p{index}": parameter.name for index, parameter in enumerate(arguments)}
        self._model = pydantic.create_model(
            self.name,
            __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True),
            **{field: parameter.declared() for field, parameter in zip(self._fields, arguments, strict=True)},
        )
        try:
            self.schema: dict[str, Any] = self._model.model_json_schema(schema_generator=_PlainSchema)
        except pydantic.errors.PydanticInvalidForJsonSchema as error:
            hints = ", ".join(f"{parameter.name}: {_shown(parameter.hint)}" for parameter in arguments)
            raise ValueError(
                f"no JSON schema can be made of the parameters of {_name_of(function)} ({hints}): "
                "a model can only be asked for what JSON has; a parameter named ctx gets the tool context"
            ) from error
        self.schema.pop("title", None)

    def __call__(self, arguments: dict[str, Any], ctx: Any = None) -> Any:
        """Validate the arguments, then call the function with them.

        Raises:
            ToolError: `invalid_arguments`; the message lists each path and problem, for the model to read.
        """
        try:
            checked = self._model.model_validate(arguments)
        except pydantic.ValidationError as error:
            lines = error.errors(include_url=False, include_input=False)
            problems = "; ".join(_problem(line) for line in lines)
            message = f"invalid arguments for {self.name}: {problems}"
            raise ToolError("invalid_arguments", message, tool_name=self.name) from error
        values = {name: getattr(checked, field) for field, name in self._fields.items()}
        return self.function(**values, **dict.fromkeys(self._contexts, ctx))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FunctionHandler):
            return NotImplemented
        return self.function == other.function and self.name == other.name

    def __hash__(self) -> int:
        return hash((self.function, self.name))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Under the function's own name a module that used the decorator holds the tool: pickle goes by it.
        where = getattr(self.function, "__module__", ""), getattr(self.function, "__qualname__", "")
        try:
            is_there = _handler_at(*where) == self
        except (AttributeError, ImportError):
            is_there = False
        return (_handler_at, where) if is_there else (FunctionHandler, (self.function, self.name))

    def __repr__(self) -> str:
        return f"<handler of {_name_of(self.function)}>"


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


class _Parameter(NamedTuple):
    """A parameter: its name, its hint and default, and whether it receives the tool context."""

    name: str
    hint: Any
    default: Any
    is_context: bool

    def declared(self) -> Any:
        """Return the declaration of the model's field for it."""
        if isinstance(self.default, FieldInfo):
            return Annotated[self.hint, self.default, Field(alias=self.name)]
        if self.default is inspect.Parameter.empty:
            return Annotated[self.hint, Field(alias=self.name)]
        return Annotated[self.hint, Field(default=self.default, alias=self.name)]


class _PlainSchema(GenerateJsonSchema):
    """JSON schemas without what a model need not read: titles that repeat names."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def _handler_at(module: str, qualname: str) -> Any:
    """Return the handler of the tool that a module holds under a name."""
    __import__(module)
    found: Any = sys.modules[module]
    for step in qualname.split("."):
        found = getattr(found, step)
    return found.handler


def _parameters(function: Callable[..., Any]) -> list[_Parameter]:
    """Read a function's parameters, each of which must have a name to be passed by."""
    where = _name_of(function)
    found: list[_Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
            raise ValueError(f"{where} takes {parameter}; a tool's arguments need names, for its schema")
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise ValueError(
                f"{where} takes {name!r} by position only; a tool's arguments are passed by keyword"
            )
        is_context = name in CONTEXT_NAMES or _names_context(parameter.annotation)
        hint = Any if is_context else _hint(function, name, parameter.annotation)
        found.append(_Parameter(name, hint, parameter.default, is_context or _is_context(hint)))
    return found


def _hint(function: Callable[..., Any], name: str, annotation: Any) -> Any:
    """Evaluate an annotation where the function was written."""
    if annotation is inspect.Parameter.empty:
        return Any
    plain = inspect.unwrap(function)
    variables = getattr(getattr(plain, "__func__", plain), "__globals__", {})
    holder = SimpleNamespace(__annotations__={name: annotation})
    return typing.get_type_hints(holder, variables, _callers_names(), include_extras=True)[name]


def _callers_names() -> dict[str, Any]:
    """Return the local names of the code that applies the decorator."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("allm_actors.data."):
        frame = frame.f_back
    return dict(frame.f_locals) if frame is not None else {}


def _names_context(annotation: Any) -> bool:
    """Whether an unevaluated annotation names the context: it may be imported for type checkers only."""
    if not isinstance(annotation, str):
        return False
    parts = annotation.strip("\"'").split("|")
    return any(part.strip().rpartition(".")[2] == _CONTEXT_CLASS for part in parts)


def _is_context(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _is_context(get_args(hint)[0])
    if isinstance(hint, type):  # the class stands floors above: it is known by its name
        return any(
            base.__name__ == _CONTEXT_CLASS and base.__module__.startswith("allm_actors.")
            for base in hint.__mro__
        )
    return any(isinstance(part, type) and _is_context(part) for part in get_args(hint))


def _problem(line: Any) -> str:
    path = ".".join(str(step) for step in line["loc"])
    return f"{path}: {line['msg']}" if path else str(line["msg"])


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or type(function).__name__
