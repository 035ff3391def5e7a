"""The engine: which adapter, which model, which defaults.

An `Engine` is a value. It holds no socket, no process and no key; equal arguments make equal
engines, and every change gives a new one. Calls give it processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, InstanceOf, model_validator
from pydantic.json_schema import SkipJsonSchema

from allm_actors.data import ModelRef, Tool
from allm_actors.data.base import JsonObject, Model, OneOf, Opaque
from allm_actors.engine import capability
from allm_actors.engine._secrets import refuse_secrets
from allm_actors.engine.adapter import Adapter
from allm_actors.engine.retry import Retry
from allm_actors.engine.tools import ToolExecutor, ToolResultEncoder


class Engine(Model):
    """Which adapter answers, with which model and which defaults. A frozen value.

    Engines made from one another hold the same adapter value and share its running processes.
    """

    adapter: Adapter | None = None
    """What answers; a class stands for its value without arguments."""
    model: Annotated[str | ModelRef, OneOf("a string or a ModelRef", str_=str, model_ref=ModelRef)] | None = (
        None
    )
    """The model of requests that name none."""
    tools: list[Tool] = Field(default_factory=list)
    """The tools of steps and chats; a single request has its own."""
    tool_executor: SkipJsonSchema[InstanceOf[ToolExecutor] | type[ToolExecutor] | None] = Field(
        default=None, exclude=True
    )
    """How tools are run; not serialised."""
    tool_result_encoder: SkipJsonSchema[InstanceOf[ToolResultEncoder] | type[ToolResultEncoder] | None] = (
        Field(default=None, exclude=True)
    )
    """How results are written for the model; not serialised."""
    params: JsonObject = Field(default_factory=dict)
    """Options of every call, underneath those the call gives itself."""
    context: dict[str, Opaque] = Field(default_factory=dict)
    """The caller's own objects, for tool handlers."""
    retry: Retry | None = Retry()
    """When a failed attempt is made again; `None` for never."""
    metadata: JsonObject = Field(default_factory=dict)
    """The caller's; the library writes nothing into it."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            if "api_key" in data:
                refuse_secrets(cls.__name__, {"api_key": data["api_key"]})
            params = data.get("params")
            if isinstance(params, Mapping):
                refuse_secrets(cls.__name__, {"params": params}, shapes=True)
        return data

    def put_tool(self, tool: Tool) -> Self:
        """Add a tool at the end; names are not looked at."""
        return self.put_tools([tool])

    def put_tools(self, tools: Iterable[Tool]) -> Self:
        """Add tools at the end; names are not looked at."""
        return self._changed(tools=[*self.tools, *tools])

    def put_param(self, name: str, value: Any) -> Self:
        """Set one default option."""
        return self._changed(params={**self.params, name: value})

    def put_context(self, name: str, value: Any) -> Self:
        """Set one object for tool handlers."""
        return self._changed(context={**self.context, name: value})

    def with_model(self, model: str | ModelRef | None) -> Self:
        """Set the default model."""
        return self._changed(model=model)

    def merge(
        self,
        *,
        model: str | ModelRef | None = None,
        tools: list[Tool] | None = None,
        params: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Self:
        """Lay new settings over these: tools as in `resolve_tools`, dicts shallowly, new over old."""
        return self._changed(
            model=self.model if model is None else model,
            tools=self.resolve_tools(tools),
            params={**self.params, **(params or {})},
            context={**self.context, **(context or {})},
        )

    def resolve_model(self, model: str | ModelRef | None = None) -> str | ModelRef | None:
        """Give the model a call uses: `model`, else this engine's, as the catalog knows it."""
        chosen = self.model if model is None else model
        return capability.lookup(chosen) or chosen

    def resolve_tools(self, tools: list[Tool] | None = None) -> list[Tool]:
        """Give the tools a run uses: this engine's, those of equal name replaced in place, new ones last."""
        given = list(tools or ())
        by_name = {tool.name: tool for tool in given}
        own_names = {tool.name for tool in self.tools}
        kept = [by_name.get(tool.name, tool) for tool in self.tools]
        return kept + [tool for tool in given if tool.name not in own_names]

    def _changed(self, **changes: Any) -> Self:
        return type(self)(**{**self.__dict__, **changes})
