"""The scripted fake passes the conformance suite."""

from allm_actors.data import Usage
from allm_actors.errors import EngineError
from allm_actors.providers import Fake
from allm_actors.testing import AdapterConformance

LONG = 60


class TestFake(AdapterConformance):  # C-92
    """A script for each scenario. An attempt that was iterated at all is cleaned up: that is what is counted."""

    def prepare(self, scenario):
        self.cleaned = []
        if scenario == "value":
            entries = [("text", "a"), ("error", "timeout", {"status": 408})]
            return Fake(script=entries, usage=Usage(input_tokens=1)), {}
        callbacks = {"on_cleanup": lambda: self.cleaned.append(1)}
        if scenario == "missing_key":
            callbacks["on_request"] = refuse
        scripts = [script(scenario, text) for text in scenario.texts]
        return Fake(scripts=scripts * 2, **callbacks), {}

    def requests(self):
        return len(self.cleaned)

    def freed(self):
        return len(self.cleaned)


def refuse(request, call):
    raise EngineError("missing_key")


def script(scenario, text):
    """A scenario as the fake's entries."""
    if scenario.reason is not None:
        return [failure(scenario)]
    first, *others = text.split(" ")
    words = [("text", word) for word in [first, *(f" {other}" for other in others)]]
    endings = {
        "error_in_midstream": [("error", "provider_unavailable")],
        "cut_connection": [("error", "network_error")],
        "unparseable_event": [("stream_error", "malformed_event")],
        "slow_answer": [("delay", LONG)],
        "silent_stream": [("delay", LONG)],
        "slow_stream": [("delay", LONG)],
        "only_keep_alives": [("delay", 0.02), ("raw_chunk", {}, "unknown_event")] * 200,
        "stalled": [("delay", LONG)],
    }
    if scenario in endings:
        return [*words[: scenario.events], *endings[scenario]]
    usage = [] if scenario.usage is None else [("usage", dict(scenario.usage))]
    return [*words, *calls(scenario), *usage, ("finish", scenario.finish_reason)]


def failure(scenario):
    fields = {
        "status": scenario.status,
        "retry_after": scenario.retry_after,
        "request_id": scenario.provider_request_id,
    }
    return ("error", scenario.reason, fields)


def calls(scenario):
    """The scenario's calls, their arguments in pieces."""
    for call in scenario.tool_calls:
        raw = call.raw_arguments
        size = -(-len(raw) // scenario.pieces)
        for start in range(0, len(raw), size):
            delta = {"id": call.id, "name": call.name, "arguments_delta": raw[start : start + size]}
            yield ("tool_call_delta", delta)
