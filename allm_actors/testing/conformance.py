"""The conformance suite: what every adapter promises, as tests that a third party runs against theirs.

A subclass of `AdapterConformance` says with `prepare(scenario)` how its provider is made to show a named
scenario; every check then calls the adapter as the library does and compares what it saw.

```python
class TestMine(AdapterConformance):
    def prepare(self, scenario):
        server = my_server(says=scenario.texts, calls=scenario.tool_calls, fails=scenario.reason)
        return Mine(port=server.port), {"api_key": "any"}
```

Needs pytest. Every check can fail, and says in its docstring what it is there for. What depends on time is
tried up to three times, for a busy machine is no broken adapter.
"""

from __future__ import annotations

from typing import Any

from allm_actors.testing._conformance_answers import Answers
from allm_actors.testing._conformance_case import Case
from allm_actors.testing._conformance_failures import Failures
from allm_actors.testing._conformance_resources import Resources
from allm_actors.testing._conformance_values import Values
from allm_actors.testing._scenarios import SCENARIOS, Scenario

__all__ = ["SCENARIOS", "AdapterConformance", "Scenario"]


class AdapterConformance(Answers, Failures, Resources, Values):
    """The tests of one adapter. Subclass it, define `prepare`, and let pytest find the subclass.

    `requests`, `held` and `freed` are witnesses: with them the suite sees the provider's side, too. The
    checks that need one that is not there look at as much as they can without it.

    Raises:
        TypeError: A subclass does not define `prepare`; pytest shows it as a failed collection.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.prepare is Case.prepare:
            raise TypeError(
                f"{cls.__name__} must define prepare(scenario), which gives an adapter and CallContext fields"
            )
