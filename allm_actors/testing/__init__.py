"""Help for testing services and adapters: a provider on the loopback interface, and more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allm_actors.testing._reply import Fault, Framing, Reply
from allm_actors.testing._requests import ReceivedRequest
from allm_actors.testing._server import FakeServer

if TYPE_CHECKING:
    from allm_actors.testing.conformance import AdapterConformance, Scenario

__all__ = [
    "AdapterConformance",
    "FakeServer",
    "Fault",
    "Framing",
    "ReceivedRequest",
    "Reply",
    "Scenario",
]

_CHECKS = tuple(f"_conformance_{part}" for part in ("answers", "failures", "resources", "values"))


def __getattr__(name: str) -> Any:
    """Import the conformance suite, which needs pytest, when it is asked for."""
    if name not in {"AdapterConformance", "Scenario"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite(f"{__name__}.conformance", f"{__name__}._looking")
    from allm_actors.testing import conformance

    return getattr(conformance, name)
