"""The model catalog, and what a request may ask of a model.

No catalog comes with the library; without one every check passes. What a catalog does not say
never rejects anything.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Protocol

from allm_actors.beam._log import Logger
from allm_actors.data import ImagePart, ModelRef, Request, Usage
from allm_actors.errors import CatalogError, FieldError, ValidationError

if TYPE_CHECKING:
    from allm_actors.engine.adapter import Adapter

_log = Logger("allm_actors.engine")
_PER_TOKENS = 1_000_000


class Catalog(Protocol):
    """Knows models. Its methods are called from any thread."""

    def lookup(self, model: str) -> ModelRef | None:
        """Give what is known of a model, `None` if it is unknown."""
        ...

    def select(self, require: Any, prefer: Any) -> ModelRef:
        """Choose a model that has what is required; raises `CatalogError("no_match")`."""
        ...


class _Registered:
    """The one catalog of the process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.catalog: Catalog | None = None
        self.complained = False

    def first_complaint(self) -> bool:
        """True the first time it is asked."""
        with self.lock:
            before, self.complained = self.complained, True
        return not before

    def renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self.lock = threading.Lock()


_registered = _Registered()
os.register_at_fork(after_in_child=_registered.renew_lock)


def set_catalog(catalog: Catalog | None) -> None:
    """Use this catalog from now on, in the whole process; `None` for none."""
    _registered.catalog = catalog


def lookup(model: str | ModelRef | None) -> ModelRef | None:
    """Give what is known of a model.

    A catalog that raises is treated as knowing nothing, and logged the first time.
    """
    if model is None or isinstance(model, ModelRef):
        return model
    catalog = _registered.catalog
    if catalog is None:
        return None
    try:
        return catalog.lookup(model)
    except Exception as error:  # noqa: BLE001  (a catalog never costs a call)
        if _registered.first_complaint():
            _log.warning("catalog.lookup_failed", model=model, error=type(error).__name__)
        return None


def select(require: Any = None, prefer: Any = None) -> ModelRef:
    """Let the catalog choose a model.

    Raises:
        CatalogError: `catalog_not_loaded` without one, `no_match` when no model will do.
    """
    catalog = _registered.catalog
    if catalog is None:
        raise CatalogError("catalog_not_loaded", "no model catalog is registered: call set_catalog first")
    return catalog.select(require, prefer)


def preflight(request: Request, adapter: Adapter) -> Request:
    """Check a resolved request against its model, and mark it if it takes two passes.

    Needs no key and makes no traffic. The same object comes back unless the mark is set.

    Raises:
        ValidationError: `unsupported_capability`, with everything the model lacks.
    """
    problems = _problems(request)
    if problems:
        raise ValidationError("unsupported_capability", problems)
    if not request.structured_finalize and adapter.requires_structured_finalize(request):
        return request.model_copy(update={"structured_finalize": True})
    return request


def populate_costs(usage: Usage, ref: ModelRef | None) -> Usage:
    """Fill in the costs a provider did not report, from the catalog's prices.

    Nothing reported is overwritten; without counts or prices a cost stays `None`. Cached tokens
    are priced like any other.
    """
    if ref is None:
        return usage
    costs = {
        "input_cost": usage.input_cost
        if usage.input_cost is not None
        else _cost(ref.pricing.get("input"), usage.input_tokens),
        "output_cost": usage.output_cost
        if usage.output_cost is not None
        else _cost(ref.pricing.get("output"), usage.output_tokens),
        "total_cost": usage.total_cost,
    }
    if costs["total_cost"] is None and costs["input_cost"] is not None and costs["output_cost"] is not None:
        costs["total_cost"] = costs["input_cost"] + costs["output_cost"]
    return usage.model_copy(update=costs)


def _problems(request: Request) -> list[FieldError]:
    if _registered.catalog is None and not isinstance(request.model, ModelRef):
        return []
    ref = lookup(request.model)
    if ref is None:
        return []
    known = ref.capabilities
    tools = known.get("tools")
    problems = []
    if request.tools and isinstance(tools, dict) and tools.get("enabled") is False:
        problems.append(FieldError(("tools",), "tools_disabled"))
    if _wants_json_schema(request) and known.get("json_native") is False:
        problems.append(FieldError(("response_format",), "json_native_disabled"))
    if known.get("vision") is False and _has_image(request):
        problems.append(FieldError(("vision",), "vision_disabled"))
    return problems


def _wants_json_schema(request: Request) -> bool:
    wanted = request.response_format
    return isinstance(wanted, dict) and wanted.get("type") == "json_schema"


def _has_image(request: Request) -> bool:
    return any(
        isinstance(part, ImagePart)
        for message in request.messages
        if isinstance(message.content, list)
        for part in message.content
    )


def _cost(rate: Any, tokens: int | None) -> float | None:
    if tokens is None or isinstance(rate, bool) or not isinstance(rate, int | float):
        return None
    return rate * tokens / _PER_TOKENS
