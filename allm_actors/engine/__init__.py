"""What a call is made with: engines, adapters, keys, and the processes behind them."""

from allm_actors.engine import capability, keys
from allm_actors.engine.adapter import Adapter, AdapterStream, CallContext, Connection, new_request_id
from allm_actors.engine.capability import Catalog, lookup, populate_costs, select, set_catalog
from allm_actors.engine.engine import Engine
from allm_actors.engine.processes import EngineRef, Lease, Site, borrow, check_engine, locate, start_engine
from allm_actors.engine.retry import Retry
from allm_actors.engine.tools import ToolContext, ToolExecutor, ToolResultEncoder

__all__ = [
    "Adapter",
    "AdapterStream",
    "CallContext",
    "Catalog",
    "Connection",
    "Engine",
    "EngineRef",
    "Lease",
    "Retry",
    "Site",
    "ToolContext",
    "ToolExecutor",
    "ToolResultEncoder",
    "borrow",
    "capability",
    "check_engine",
    "keys",
    "locate",
    "lookup",
    "new_request_id",
    "populate_costs",
    "select",
    "set_catalog",
    "start_engine",
]
