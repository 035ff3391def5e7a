"""Tools: what the model may call, and the functions behind them."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar, overload

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from allm_actors.data._functions import FunctionHandler
from allm_actors.data._handlers import check_handler
from allm_actors.data._schema import field_named_schema, normalize_schema
from allm_actors.data.base import JsonObject, Model

F = TypeVar("F", bound=Callable[..., Any])

with field_named_schema():

    class Tool(Model):
        """Something the model may call.

        Attributes:
            schema: JSON schema of the arguments; enum members in it are stored as their values.
            handler: Called with the arguments dict, and with a `ToolContext` if it takes one. Not part of
                the JSON form.
            manual: The caller answers the calls; the handler never runs.
            compact: The model is shown one line, and asks for the rest.
            summary: That line; without it, the first sentence of the description.
            strict: The provider shall hold the model to the schema.
        """

        name: str
        description: str
        schema: Annotated[JsonObject, BeforeValidator(normalize_schema)]  # type: ignore[assignment]
        handler: SkipJsonSchema[Annotated[Callable[..., Any], AfterValidator(check_handler)] | None] = Field(
            default=None, exclude=True
        )
        manual: bool = False
        compact: bool = False
        summary: str | None = None
        strict: bool = False
        metadata: JsonObject = Field(default_factory=dict)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Call the function the tool was made from, or the handler it was given, as it stands."""
            if self.handler is None:
                raise TypeError(f"tool {self.name!r} has no handler to call")
            if isinstance(self.handler, FunctionHandler):
                return self.handler.function(*args, **kwargs)
            return self.handler(*args, **kwargs)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    manual: bool = False,
    compact: bool = False,
    summary: str | None = None,
    strict: bool = False,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(  # noqa: PLR0913 - the fields of a `Tool`, all but one by name
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    manual: bool = False,
    compact: bool = False,
    summary: str | None = None,
    strict: bool = False,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a `Tool` from a function: its name, its docstring, and a schema from its type hints and defaults.

    A parameter named `ctx` or `context`, or annotated `ToolContext`, is no argument: it receives the tool
    context. The model's arguments are validated before the function runs, with pydantic's usual
    conversions, and passed by keyword as the hinted types. Calling the tool calls the function.

        >>> @tool
        ... def forecast(city: str, days: int = 1) -> str:
        ...     "The weather of the next days."
        ...     return f"{city}: sun for {days} days"
        >>> forecast("Kyoto", days=2)
        'Kyoto: sun for 2 days'
        >>> forecast.schema["required"]
        ['city']

    Args:
        function: The function to wrap; leave it out to give options.
        name: The tool's name, if not the function's.
        description: The tool's description, if not the function's docstring.
        manual: As in `Tool`.
        compact: As in `Tool`.
        summary: As in `Tool`.
        strict: As in `Tool`.

    Raises:
        ValueError: The function takes `*args`, `**kwargs` or positional-only parameters, or is a coroutine
            function.
    """

    def decorate(function: Callable[..., Any]) -> Tool:
        handler = FunctionHandler(function, name=name)
        return Tool(
            name=handler.name,
            description=handler.description if description is None else description,
            schema=handler.schema,
            handler=handler,
            manual=manual,
            compact=compact,
            summary=summary,
            strict=strict,
        )

    return decorate if function is None else decorate(function)
