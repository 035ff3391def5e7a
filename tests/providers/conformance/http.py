"""The scenarios of the conformance suite over HTTP: a server on loopback plays the provider.

A subclass says which adapter it is about, and the few things in which one wire format differs from another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from allm_actors.testing import AdapterConformance, FakeServer, Reply
from allm_actors.testing._render import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from allm_actors.engine import Adapter
    from allm_actors.testing import ReceivedRequest, Scenario

KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key")
MESSAGES = {
    "context_length_exceeded": "This model's maximum context length is 8192 tokens.",
    "content_filter": "Refused by our content_filter.",
}
STATUSES = {"timeout": 408, "unknown": 418}


class HttpCase(AdapterConformance):
    """An adapter that asks a server, one answer a connection."""

    kind: ClassVar[type[Any]]
    """The class of the adapter."""
    fields: ClassVar[Mapping[str, Any]] = {}
    """What it is configured with, the address aside."""
    lead: ClassVar[int]
    """How many frames of a stream come before the first piece of text."""
    error_frame: ClassVar[Mapping[str, Any]]
    """What a provider sends that fails in the middle of a stream."""

    @pytest.fixture(autouse=True)
    def _close_servers(self) -> Iterator[None]:
        self._servers: list[FakeServer] = []
        yield
        for server in self._servers:
            server.close()

    # --- what the suite asks for ----------------------------------------------------------------------------

    def prepare(self, scenario: Scenario) -> tuple[Adapter, dict[str, Any]] | None:
        self._servers.append(server := FakeServer())
        if scenario == "missing_key":
            return self.kind(**self.fields), {}
        answer: Any = self._answer(scenario)
        if answer is None:
            return None
        server.add(*(answer if isinstance(answer, list) else [answer]))
        return self.kind(base_url=server.base_url, **self.fields), {}

    def requests(self) -> int:
        return len(self._servers[-1].requests)

    def held(self) -> int:
        return self._servers[-1].open_connections

    def freed(self) -> int:
        return sum(request.disconnected_at is not None for request in self._servers[-1].requests)

    # --- what the server answers ----------------------------------------------------------------------------

    def _answer(self, scenario: Scenario) -> Any:
        """The answer, a function that gives it, or a list of answers; `None` if there is none."""
        if scenario == "echoed_key":
            return quote_the_key
        if scenario.reason is not None:
            return self.failure(scenario)
        before = self.lead + scenario.events
        after = before if scenario.events else -1
        faults: dict[str, dict[str, Any]] = {
            "cut_connection": {"fault": "truncate"},
            "unparseable_event": {"fault": "malformed"},
            "slow_answer": {"fault": "stall"},
            "silent_stream": {"fault": "stall"},
            "slow_stream": {"fault": "stall"},
            "stalled": {"fault": "stall"},
            "only_keep_alives": {"fault": "stall", "heartbeat": 0.05},
        }
        if scenario in faults:
            return self._reply(scenario, scenario.text, **faults[scenario], after=after)
        replies = [self._reply(scenario, text) for text in scenario.texts]
        if scenario != "error_in_midstream":
            return replies
        return lambda request: Reply(
            frames=[*render(request, replies[0])[0][:before], self.error_frame], keep_alive=False
        )

    def _reply(self, scenario: Scenario, text: str, **more: Any) -> Reply:
        return Reply(
            text,
            tool_calls=scenario.tool_calls,
            argument_pieces=scenario.pieces,
            usage=scenario.usage,
            finish_reason=scenario.finish_reason,
            keep_alive=False,
            **more,
        )

    def failure(self, scenario: Scenario) -> Reply | None:
        """An answer that fails with the scenario's reason; `None` if this provider has no such failure."""
        headers = {}
        if scenario.retry_after is not None:
            headers["retry-after"] = f"{scenario.retry_after:g}"
        if scenario.provider_request_id is not None:
            headers["x-request-id"] = scenario.provider_request_id
        match scenario.reason:
            case "network_error":
                return Reply(fault="drop", after=-1)
            case "malformed_response":
                return Reply(body="<html>It works!</html>", keep_alive=False)
            case "unsupported_feature":
                return None
            case reason:
                status = scenario.status or STATUSES[reason or ""]
                text = MESSAGES.get(reason or "", "")
                return Reply(text, status=status, headers=headers, keep_alive=False)


def quote_the_key(request: ReceivedRequest) -> Reply:
    """Refuse the key and quote it, as providers do."""
    key = next(request.headers[name] for name in KEY_HEADERS if name in request.headers)
    return Reply(f"Incorrect API key provided: {key.removeprefix('Bearer ')}.", status=401, keep_alive=False)
