"""The conformance suite over a local server, for every provider that speaks HTTP."""

import pytest

from allm_actors.testing import AdapterConformance, FakeServer, Reply
from allm_actors.testing._render import render

BODIES = {
    "content_filter": {"error": {"message": "blocked by content_filter", "code": "content_filter"}},
    "context_length_exceeded": {"error": {"message": "this model's maximum context length is 8 tokens"}},
}


class HttpCase(AdapterConformance):
    """A provider played by a `FakeServer`. A subclass says which adapter, and how its format reports an error."""

    midstream_error: bytes
    limit = 0.4

    @pytest.fixture(autouse=True)
    def server(self, monkeypatch):
        with FakeServer() as server:
            self._server = server
            yield

    def adapter(self, **fields):
        """The adapter value."""
        raise NotImplementedError

    def prepare(self, scenario):
        self._scenario = scenario
        self._sent_before = len(self._server.requests)
        if scenario == "missing_key":
            return self.adapter(), {}
        reply = self.reply(scenario)
        if reply is None:
            return None
        self._server.add(*(reply if isinstance(reply, list) else [reply] * 2))
        return self.adapter(base_url=self.base_url()), {}

    def base_url(self):
        return self._server.base_url

    def requests(self):
        return len(self._server.requests) - self._sent_before

    def held(self):
        # A connection that was read to its end stays open, in the pool.
        return self._server.open_connections if self._scenario == "stalled" else None

    def reply(self, scenario):
        """What the server answers."""
        if scenario.reason is not None:
            return self.failure(scenario)
        if scenario == "slow_answer":
            return Reply(fault="stall", after=-1)
        if scenario.events:
            return lambda request: self.broken(request, scenario)
        return [
            Reply(
                text,
                chunks=[word if not n else f" {word}" for n, word in enumerate(text.split(" "))]
                if text
                else [],
                tool_calls=scenario.tool_calls,
                argument_pieces=scenario.pieces,
                usage=scenario.usage,
            )
            for text in scenario.texts
        ] * 2

    def failure(self, scenario):  # noqa: PLR0911
        headers = {}
        if scenario.retry_after is not None:
            headers["retry-after"] = str(int(scenario.retry_after))
        if scenario.provider_request_id is not None:
            headers["x-request-id"] = headers["request-id"] = scenario.provider_request_id
        match scenario.reason:
            case "timeout":
                return Reply(status=408)
            case "network_error":
                return Reply(fault="drop", after=-1)
            case "malformed_response":
                return Reply(body="<html>", headers={"content-type": "text/html"})
            case "unknown":
                return Reply(status=302, headers={"location": "/elsewhere"})
            case "unsupported_feature":
                return None
        if scenario == "echoed_key":
            return lambda request: Reply(f"Incorrect API key: {request.headers}", status=401)
        return Reply(status=scenario.status, json=BODIES.get(scenario.reason), headers=headers)

    def broken(self, request, scenario):
        """The answer up to the last piece of text that comes, and then what goes wrong."""
        pieces, _ = render(request, Reply(chunks=scenario.words))
        word = scenario.words[scenario.events - 1].strip().encode()
        end = next(n for n, piece in enumerate(pieces) if word in piece) + 1
        before, after = pieces[:end], pieces[end:]
        match str(scenario):
            case "error_in_midstream":
                return Reply(frames=[*before, self.midstream_error])
            case "unparseable_event":
                return Reply(frames=[*before, b"data: {nonsense\n\n", *after])
            case "cut_connection":
                return Reply(frames=pieces, fault="drop", after=end)
            case "only_keep_alives":
                return Reply(frames=pieces, fault="stall", after=end, heartbeat=0.02)
        return Reply(frames=pieces, fault="stall", after=end)
