"""What the checks of the conformance suite stand on: an adapter that shows a scenario, and witnesses."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest

from allm_actors.data import ErrorEvent, Request, user
from allm_actors.engine import CallContext
from allm_actors.errors import AdapterError
from allm_actors.testing._looking import TooLate, connects
from allm_actors.testing._scenarios import SCENARIOS, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allm_actors.engine import Adapter, Connection

HALT: Final = 0.5
"""Seconds in which what is halted has to be free."""
NAMED: Final = {str(scenario): scenario for scenario in SCENARIOS}


class Case:
    """One adapter, made to show scenarios."""

    limit: ClassVar[float] = 0.4
    """The seconds a time is given in the scenarios of silence; half of that more, and it has to be over."""

    # --- what a subclass says -------------------------------------------------------------------------

    def prepare(self, scenario: Scenario) -> tuple[Adapter, dict[str, Any]] | None:
        """Make the provider show a scenario. Called anew before each adapter value that a check uses.

        Args:
            scenario: What it shall do: a string, its name, with what it shall say in its attributes. The
                adapter is called as often as it has `texts`.

        Returns:
            An adapter value, and fields of the `CallContext` that the call is made with. `None` if this
            provider cannot show the scenario: its checks are skipped.
        """
        raise NotImplementedError

    def requests(self) -> int:
        """How many requests have reached the provider since `prepare`.

        By default how many connections this program has asked for, which is as good while each request has a
        connection of its own.
        """
        return connects.count - self._connects_before

    def held(self) -> int | None:
        """How much of what calls hold has not been given back; `None` if that cannot be seen."""
        return None

    def freed(self) -> int | None:
        """How often something was given back since `prepare`; `None` if that cannot be seen."""
        return None

    def request(self, scenario: Scenario) -> Request:  # noqa: ARG002
        """The request that is sent."""
        return Request(messages=[user("Hello")], model="conformance")

    # --- how it is done -------------------------------------------------------------------------------

    _connects_before = 0

    @contextlib.contextmanager
    def _prepared(self, scenario: Scenario) -> Iterator[tuple[Adapter, dict[str, Any]]]:
        made = self.prepare(scenario)
        if made is None:
            pytest.skip(f"this provider cannot show {scenario!r}")
        connects.listen()
        self._connects_before = connects.count
        yield made

    @contextlib.contextmanager
    def _shown(self, name: str, **more: Any) -> Iterator[tuple[Connection, Request, CallContext, Scenario]]:
        scenario = NAMED[name]
        with self._prepared(scenario) as (adapter, fields):
            connection = adapter.connect()
            try:
                yield connection, self.request(scenario), CallContext(**{**fields, **more}), scenario
            finally:
                connection.close()

    def _streamed(self, name: str, **more: Any) -> tuple[list[Any], Scenario]:
        """All events of a scenario; a feature that is refused before anything is sent counts as its event."""
        with self._shown(name, **more) as (connection, request, call, scenario):
            try:
                stream = connection.stream(request, call)
            except AdapterError as error:
                if scenario.reason != "unsupported_feature":
                    raise
                return [ErrorEvent(error=error)], scenario
            return list(stream), scenario

    def _await_free(self) -> None:
        limit = time.monotonic() + HALT
        while self.held() or self.freed() == 0:
            if time.monotonic() > limit:
                raise TooLate(f"still not free: {self.held()} held, {self.freed()} freed")
            time.sleep(0.001)

    def _freed_once(self) -> bool:
        return self.freed() in (None, 1)
