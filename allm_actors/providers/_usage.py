"""Reading a provider's usage object into a `Usage`.

A table per wire says where each of our counters stands; everything else the provider reported is kept in
`extra`, under its wire name.
"""

from collections.abc import Mapping
from typing import Any

from allm_actors.data import Usage
from allm_actors.providers._json import plain

__all__ = ["counter", "lift", "read_usage"]

Path = str | tuple[str, str]
"""A member of the usage object, or a member of one of its details objects."""


def counter(value: Any) -> int | None:
    """Return `value` if it is a count: an int, not a bool, not negative."""
    return value if type(value) is int and value >= 0 else None


def lift(raw: Mapping[str, Any], table: Mapping[str, Path]) -> tuple[dict[str, int | None], dict[str, Any]]:
    """Take the counters of `table` out of `raw`.

    Returns:
        Our counters, `None` where the provider sent nothing usable, and what is left of `raw`. A details
        object of which nothing is left disappears.
    """
    rest = dict(raw)
    counters: dict[str, int | None] = {}
    for name, path in table.items():
        if isinstance(path, str):
            counters[name] = counter(rest.pop(path, None))
            continue
        outer, inner = path
        details = rest.get(outer)
        counters[name] = None
        if isinstance(details, dict):
            counters[name] = counter(details.get(inner))
            rest[outer] = {key: value for key, value in details.items() if key != inner}
    outers = {path[0] for path in table.values() if not isinstance(path, str)}
    return counters, {key: value for key, value in rest.items() if value or key not in outers}


def read_usage(raw: Any, table: Mapping[str, Path]) -> Usage | None:
    """Return the usage that `raw` is, or `None` if it is no object."""
    if not isinstance(raw, dict):
        return None
    counters, extra = lift(raw, table)
    return Usage.model_validate({**counters, "extra": plain(extra)})
