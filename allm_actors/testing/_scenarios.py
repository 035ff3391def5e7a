"""What a provider is made to do for the conformance suite, by name.

A `Scenario` is a value: its name, a string, that carries what the provider shall say in it. `prepare` makes
an adapter show it: a fake gets a script, an HTTP adapter a local server.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Self

from allm_actors.data import ToolCall
from allm_actors.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ANSWERS",
    "BREAKS",
    "FAILURES",
    "FAILURE_REASONS",
    "SCENARIOS",
    "SECRETIVE",
    "TIMEOUTS",
    "Scenario",
]


class Scenario(str):  # noqa: SLOT000  it carries what is said in it
    """One thing a provider can do. Compare it with its name.

    Attributes:
        texts: The text of each answer, one a call; an adapter serves as many calls as there are texts.
        tool_calls: The calls of the answer; `raw_arguments` is what the provider sends.
        pieces: In how many pieces a stream sends the arguments of a call.
        usage: The usage it reports, as the fields of `Usage`; `None` for no report.
        finish_reason: How the answer ends.
        reason: The `AdapterError` reason of a failure.
        status: The HTTP status of the failure, where one fits.
        retry_after: The seconds the provider asks to wait.
        provider_request_id: The provider's own id of the failed request.
        events: So many pieces of text come before what goes wrong, or before silence.
        limit: The option whose time is over, and the seconds it is given.
    """

    texts: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]
    pieces: int
    usage: Mapping[str, int] | None
    finish_reason: str
    reason: str | None
    status: int | None
    retry_after: float | None
    provider_request_id: str | None
    events: int
    limit: tuple[str, float] | None

    def __new__(cls, name: str, **said: Any) -> Self:
        """Name a scenario and say what happens in it."""
        self = super().__new__(cls, name)
        tool_calls = said.get("tool_calls", ())
        fields = {
            "texts": ("Hello there my friend",),
            "tool_calls": (),
            "pieces": 1,
            "usage": {"input_tokens": 9, "output_tokens": 2},
            "finish_reason": "tool_calls" if tool_calls else "stop",
            "reason": None,
            "status": None,
            "retry_after": None,
            "provider_request_id": None,
            "events": 0,
            "limit": None,
        }
        if said.keys() - fields:
            raise TypeError(f"a scenario has no {', '.join(sorted(said.keys() - fields))}")
        self.__dict__.update(fields, **said)
        return self

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a scenario is a value: {name!r} cannot be set")

    @property
    def text(self) -> str:
        """The text of its first answer."""
        return self.texts[0]

    @property
    def words(self) -> list[str]:
        """The pieces in which a stream sends that text: word by word, each but the first after its space."""
        first, *others = self.text.split(" ")
        return [word for word in [first, *(f" {other}" for other in others)] if word]

    @property
    def text_before(self) -> str:
        """What of the text comes before what goes wrong."""
        return "".join(self.words[: self.events])

    def with_limit(self, seconds: float) -> Scenario:
        """The same with another time."""
        assert self.limit is not None
        return Scenario(self, **{**self.__dict__, "limit": (self.limit[0], seconds)})


def _call(identity: str, city: str, raw: str | None = None) -> ToolCall:
    arguments = {"city": city}
    text = json.dumps(arguments, separators=(",", ":")) if raw is None else raw
    return ToolCall(
        id=identity, name="weather", arguments=arguments if raw is None else {}, raw_arguments=text
    )


_KYOTO, _OSLO = _call("call_1", "Kyoto"), _call("call_2", "Oslo")

ANSWERS: Final = (
    Scenario("text"),
    Scenario("text_and_tools", tool_calls=(_KYOTO,)),
    Scenario("parallel_tools", texts=("",), tool_calls=(_KYOTO, _OSLO)),
    Scenario("argument_deltas", texts=("",), tool_calls=(_KYOTO,), pieces=4),
    Scenario("malformed_arguments", texts=("",), tool_calls=(_call("call_1", "", '{"city": "Kyo'),)),
    Scenario("empty", texts=("",)),
)
"""Answers that end well."""

_STATUSES: Final = {
    "rate_limited": 429,
    "provider_unavailable": 503,
    "authentication_failed": 401,
    "invalid_request": 400,
    "content_filter": 400,
    "context_length_exceeded": 400,
}

FAILURE_REASONS: Final = tuple(
    reason
    for reason in AdapterError.legal_reasons()
    if reason not in {"no_scripted_response", "adapter_down"}
)
"""Each has a scenario."""

FAILURES: Final = tuple(
    Scenario(
        f"error_{reason}",
        reason=reason,
        status=_STATUSES.get(reason),
        retry_after=7.0 if reason == "rate_limited" else None,
        provider_request_id="req_canary" if reason in {"rate_limited", "invalid_request"} else None,
    )
    for reason in FAILURE_REASONS
)
"""The call fails before anything was said."""

BREAKS: Final = (
    Scenario("error_in_midstream", events=2),
    Scenario("cut_connection", events=2),
    Scenario("unparseable_event", events=2),
)
"""Two pieces of text, then something goes wrong."""

TIMEOUTS: Final = (
    Scenario("slow_answer", limit=("request_timeout", 0.4)),
    Scenario("silent_stream", limit=("stream_timeout", 0.4)),
    Scenario("slow_stream", limit=("stream_timeout", 0.4), events=1),
    Scenario("only_keep_alives", limit=("content_timeout", 0.4), events=1),
)
"""Silence that is too long: of a whole answer; of a stream from its beginning, and after its first piece; and
a stream that after its first piece sends nothing but keep-alives."""

SECRETIVE: Final = ("text", "echoed_key", "cut_connection", "unparseable_event", "error_network_error")
"""The names of those in which a key might slip out."""

SCENARIOS: Final = (
    *ANSWERS,
    *FAILURES,
    *BREAKS,
    *TIMEOUTS,
    Scenario("plain"),
    Scenario("unknown_option"),
    Scenario("unread"),
    Scenario("read_to_the_end"),
    Scenario("usage"),
    Scenario("no_usage", usage=None),
    Scenario("one_attempt", reason="provider_unavailable", status=503),
    Scenario("stalled", events=2),
    Scenario("two_answers", texts=("alpha alpha alpha", "beta beta beta")),
    Scenario("missing_key"),
    Scenario("echoed_key", reason="authentication_failed", status=401),
    Scenario("value"),
)
"""All of them. `stalled` says two pieces and is then silent for ever; `missing_key` is a call without a key
to a provider that needs one; `echoed_key` refuses the key and quotes it, as providers do; `value` is any
adapter that can be written as JSON and pickled. The others of this list are answers like `text`."""
