"""Adapters that break one promise each, and which check has to notice.

Each is the reference with one step done wrong. Those that are made `for_each` of several scenarios do it wrong in
one of them, so that exactly one case of one check is concerned.
"""

import logging
import threading
from typing import Any, ClassVar

from allm_actors.data import (
    ErrorEvent,
    MessageCompleted,
    MessageStarted,
    RawChunk,
    TextCompleted,
    TextDelta,
    ToolCallCompleted,
    ToolCallStarted,
    Usage,
    assistant,
)
from allm_actors.engine import AdapterStream
from allm_actors.errors import AdapterError, EngineError, StreamError
from allm_actors.testing._scenarios import ANSWERS, BREAKS, FAILURES, SECRETIVE, TIMEOUTS

from .reference import Reference, ReferenceConnection

BROKEN: list[tuple[str, str, type]] = []
"""Name, the case of the check that has to notice, and the class of connections."""
LATE = 0.6
"""Seconds, later than anything halted may be."""
WAIT = threading.Event()
"""Never set."""


def breaks(check, suffix=""):
    """Note a broken class and the check that has to notice."""

    def note(cls):
        BROKEN.append((cls.__name__ + suffix, check, cls))
        return cls

    return note


def for_each(check, scenarios):
    """Note a class that is broken in one scenario, for each of these; it looks at `self.bent`."""

    def note(cls):
        for name in map(str, scenarios):
            bent = type(f"{cls.__name__}In{name.title().replace('_', '')}", (cls,), {"only": name})
            BROKEN.append((bent.__name__, f"{check}[{name}]", bent))
        return cls

    return note


class Broken(ReferenceConnection):
    """A connection that may be broken in one scenario only."""

    only: ClassVar[str | None] = None

    @property
    def bent(self):
        return self.only is None or self.scenario == self.only

    def bend(self, events):
        """What becomes of the events of a stream; `generate` goes its own way."""
        return events

    def stream(self, request, call):
        stream = super().stream(request, call)
        if self.bent:
            stream._events = iter(self.bend(stream._events))
        return stream


class BrokenEverywhere(Broken):
    """Streams and whole answers are broken alike."""

    def whole(self, request, call):
        return self.stream(request, call)


# --- answers ------------------------------------------------------------------------------------------------


@breaks("test_a_whole_answer")
class AnswersWithADict(Broken):
    only = "plain"

    def answer(self, response, call):
        return response.model_dump() if self.bent else response


@breaks("test_a_whole_answer")
class AnswersSomethingElse(Broken):
    only = "plain"

    def answer(self, response, call):
        return response.model_copy(update={"output_text": "Something else"}) if self.bent else response


@breaks("test_a_whole_answer")
class NeverSaysWhyItEnds(Broken):
    only = "plain"

    def answer(self, response, call):
        return response.model_copy(update={"finish_reason": None}) if self.bent else response


@breaks("test_a_whole_answer")
class CountsInADict(Broken):
    only = "plain"

    def answer(self, response, call):
        return response.model_copy(update={"usage": {"input_tokens": 9}}) if self.bent else response


@for_each("test_the_order_of_events", ANSWERS)
class StartsTwice(Broken):
    def bend(self, events):
        for event in events:
            if isinstance(event, MessageCompleted):
                yield MessageStarted(message=assistant(""))
            yield event


@for_each("test_what_is_said", ANSWERS)
class SaysMore(BrokenEverywhere):
    def bend(self, events):
        said = []
        for event in events:
            if isinstance(event, TextCompleted):
                continue
            if isinstance(event, TextDelta):
                said.append(event.delta)
            if isinstance(event, MessageCompleted):
                yield TextDelta(id=None, delta=" and more")
                yield TextCompleted(id=None, text="".join([*said, " and more"]))
                yield event.model_copy(update={"message": assistant("".join([*said, " and more"]))})
            else:
                yield event


class SaysMoreQuietly(BrokenEverywhere):
    """One that changes the completed calls."""

    changes: ClassVar[dict[str, Any]]

    def bend(self, events):
        for event in events:
            if isinstance(event, ToolCallCompleted) or (
                isinstance(event, ToolCallStarted) and "name" in self.changes
            ):
                event = event.model_copy(update=self.changes)  # noqa: PLW2901
            yield event


@breaks("test_what_is_said[text_and_tools]")
class CallsAnotherTool(SaysMoreQuietly):
    only, changes = "text_and_tools", {"name": "news"}


@breaks("test_what_is_said[malformed_arguments]")
class GuessesArguments(SaysMoreQuietly):
    only, changes = "malformed_arguments", {"arguments": {"city": "Kyoto"}}


@breaks("test_what_is_said[text_and_tools]")
class ForgetsTheArgumentText(SaysMoreQuietly):
    only, changes = "text_and_tools", {"raw_arguments": "{}"}

    def bend(self, events):
        return (event for event in super().bend(events) if event.type != "tool_call_delta")


@for_each("test_a_folded_stream_is_the_whole_answer", ANSWERS)
class AnswersDifferentlyAsAWhole(Broken):
    def answer(self, response, call):
        return response.model_copy(update={"reasoning": "because"}) if self.bent else response


@breaks("test_usage")
class ReportsNoUsage(BrokenEverywhere):
    only = "usage"

    def bend(self, events):
        for event in events:
            if isinstance(event, MessageCompleted):
                yield event.model_copy(update={"usage": Usage(**self.scenario.usage)})
            elif not isinstance(event, RawChunk):
                yield event


@breaks("test_usage")
class ReportsUsageAsADict(Broken):
    only = "usage"

    def bend(self, events):
        for event in events:
            if isinstance(event, RawChunk):
                yield RawChunk.model_construct(kind="usage", payload=event.payload.model_dump())
            else:
                yield event


class _Counting(BrokenEverywhere):
    def bend(self, events):
        for event in events:
            if isinstance(event, MessageCompleted):
                usage = Usage(**(self.scenario.usage or {}), reasoning_tokens=0)
                yield RawChunk(kind="usage", payload=usage)
            yield event


@breaks("test_usage")
class ReportsZeroForUnknown(_Counting):
    only = "usage"


@breaks("test_usage")
class CountsDifferentlyAsAWhole(Broken):
    only = "usage"

    def answer(self, response, call):
        return response.model_copy(update={"usage": Usage()}) if self.bent else response


@breaks("test_no_usage")
class MakesUsageUp(_Counting):
    only = "no_usage"


# --- failures -----------------------------------------------------------------------------------------------


@for_each("test_generate_raises_a_failure", FAILURES)
class BlursWhatItRaises(Broken):
    def generate(self, request, call):
        try:
            return super().generate(request, call)
        except AdapterError as error:
            other = "unknown" if error.reason != "unknown" else "invalid_request"
            if self.bent:
                raise error.replace(reason=other) from None
            raise


@for_each("test_generate_raises_a_failure", FAILURES[:1])
class AnswersAFailure(Broken):
    def generate(self, request, call):
        try:
            return super().generate(request, call)
        except AdapterError:
            if self.bent:
                return None
            raise


@for_each("test_a_stream_ends_with_a_failure", FAILURES)
class FailsTwice(Broken):
    def bend(self, events):
        for event in events:
            yield event
            if isinstance(event, ErrorEvent):
                yield event


@for_each("test_a_stream_ends_with_a_failure", FAILURES[:1])
class EndsWellInsteadOfFailing(Broken):
    def bend(self, events):
        for event in events:
            if isinstance(event, ErrorEvent):
                yield MessageCompleted(message=assistant(""), finish_reason="stop")
            else:
                yield event


class _Fails(Broken):
    only = "error_rate_limited"

    def bend(self, events):
        for event in events:
            yield ErrorEvent(error=self.other(event.error)) if isinstance(event, ErrorEvent) else event

    def other(self, error):
        raise NotImplementedError


@breaks("test_a_stream_ends_with_a_failure[error_rate_limited]")
class FailsWithAnotherKind(_Fails):
    def other(self, error):
        return StreamError("unknown")


@breaks("test_a_stream_ends_with_a_failure[error_rate_limited]")
class ForgetsTheStatus(_Fails):
    def other(self, error):
        return error.replace(status=None)


@breaks("test_a_stream_ends_with_a_failure[error_rate_limited]")
class ForgetsHowLongToWait(_Fails):
    def other(self, error):
        return error.replace(retry_after=None)


@breaks("test_a_stream_ends_with_a_failure[error_rate_limited]")
class ForgetsTheRequestId(_Fails):
    def other(self, error):
        return error.replace(request_id=None)


@for_each("test_a_break_in_midstream", BREAKS)
class TakesACutForAnEnd(Broken):
    def bend(self, events):
        for event in events:
            if isinstance(event, ErrorEvent):
                yield TextCompleted(id=None, text=self.scenario.text_before)
                message = assistant(self.scenario.text_before)
                yield MessageCompleted(message=message, finish_reason="stop")
            else:
                yield event


@for_each("test_a_break_in_midstream", BREAKS[:1])
class GoesOnAfterTheError(Broken):
    def bend(self, events):
        yield from events
        yield TextDelta(id=None, delta="!")


@breaks("test_a_break_in_midstream[cut_connection]")
class BlamesTheServerForACut(Broken):
    only = "cut_connection"

    def broken_off(self, call):
        return AdapterError("provider_unavailable") if self.bent else super().broken_off(call)


@for_each("test_a_break_in_midstream", BREAKS[:1])
class LosesWhatWasSaid(Broken):
    def bend(self, events):
        return (event for event in events if not isinstance(event, TextDelta))


@for_each("test_silence_ends_in_a_timeout", TIMEOUTS)
class WaitsTooLong(Broken):
    def wait_for_answer(self, call):
        WAIT.wait(call.request_timeout * 1.8)

    def bend(self, events):
        iterator = iter(events)
        for event in iterator:
            if isinstance(event, RawChunk):
                WAIT.wait(0.45)  # and nobody wakes it
            if isinstance(event, ErrorEvent):
                WAIT.wait(0.18)
            yield event


class _TimesOut(Broken):
    only = "slow_answer"


@breaks("test_silence_ends_in_a_timeout[slow_answer]")
class AnswersSlowlyButWell(_TimesOut):
    def generate(self, request, call):
        if not self.bent:
            return super().generate(request, call)
        self.wait_for_answer(call)
        return None


@breaks("test_silence_ends_in_a_timeout[slow_answer]")
class CallsItANetworkError(_TimesOut):
    def timeout(self, call, limit):
        return AdapterError("network_error", metadata={"limit": limit})


@breaks("test_silence_ends_in_a_timeout[slow_answer]")
class NamesNoLimit(_TimesOut):
    def timeout(self, call, limit):
        return AdapterError("timeout") if self.bent else super().timeout(call, limit)


@breaks("test_silence_ends_in_a_timeout[slow_answer]")
class GivesUpAtOnce(_TimesOut):
    def wait_for_answer(self, call):
        pass


@breaks("test_silence_ends_in_a_timeout[only_keep_alives]")
class TakesKeepAlivesForContent(Broken):
    only = "only_keep_alives"

    def bend(self, events):
        yield next(events)
        for _ in range(30):
            WAIT.wait(0.02)
            yield TextDelta(id=None, delta=" ")
        yield ErrorEvent(error=StreamError("unknown"))


@breaks("test_one_attempt")
class AsksAgainForAnAnswer(Broken):
    only = "one_attempt"

    def generate(self, request, call):
        try:
            return super().generate(request, call)
        except AdapterError:
            if not self.bent:
                raise
            return super().generate(request, call)


@breaks("test_one_attempt")
class AsksAgainForAStream(Broken):
    only = "one_attempt"

    def bend(self, events):
        self.counts.sent += 1
        return events


@breaks("test_one_attempt")
class AnswersWhatFailed(Broken):
    only = "one_attempt"

    def generate(self, request, call):
        return None if self.bent else super().generate(request, call)


# --- calls --------------------------------------------------------------------------------------------------


@breaks("test_an_unknown_option_is_accepted")
class RefusesUnknownOptions(Broken):
    def preflight(self, call):
        super().preflight(call)
        if call.options:
            raise TypeError(f"unknown option: {call.options}")


@breaks("test_an_unknown_option_is_accepted")
class StreamsBadlyWithUnknownOptions(Broken):
    only = "unknown_option"

    def bend(self, events):
        yield next(events)
        yield ErrorEvent(error=AdapterError("invalid_request"))


@breaks("test_an_unknown_option_is_accepted")
class AnswersBadlyWithUnknownOptions(Broken):
    only = "unknown_option"

    def answer(self, response, call):
        error = AdapterError("invalid_request")
        return response.model_copy(update={"error": error}) if self.bent else response


class _Unread(Broken):
    only = "unread"


@breaks("test_laziness")
class SendsAsItConnects(_Unread):
    def __init__(self, config):
        super().__init__(config)
        if self.bent:
            self.counts.sent += 1


@breaks("test_laziness")
class SendsAtTheCall(_Unread):
    def next_text(self):
        self.counts.sent += self.bent
        return super().next_text()


class _Odd(AdapterStream):
    """A stream whose end a test decides on."""

    __slots__ = ("closing",)

    def close(self):
        closing = getattr(self, "closing", None)
        if closing is not None:
            closing()
        super().close()


class _Closes(Broken):
    def stream(self, request, call):
        stream = super().stream(request, call)
        if self.bent:
            odd = _Odd(stream._events, stream._release)
            odd.closing = lambda: self.closing(odd)
            return odd
        return stream

    def closing(self, stream):
        raise NotImplementedError


@breaks("test_laziness")
class SendsAsItIsClosed(_Closes):
    only = "unread"

    def closing(self, stream):
        self.counts.sent += 1


@breaks("test_laziness")
class FreesWhatItNeverHeld(_Closes):
    only = "unread"

    def closing(self, stream):
        self.counts.freed += 1


class _Talks(_Odd):
    """Goes on after its end."""

    __slots__ = ("closed",)

    def __next__(self):
        if getattr(self, "closed", False):
            self.closed = False
            return TextDelta(id=None, delta="and another thing")
        return super().__next__()

    def close(self):
        super().close()
        self.closed = True


class _TalksOn(Broken):
    def stream(self, request, call):
        stream = super().stream(request, call)
        return _Talks(stream._events, stream._release) if self.bent else stream


@breaks("test_laziness")
class TalksThoughItWasClosedUnread(_TalksOn):
    only = "unread"


@breaks("test_laziness")
class NeverSends(_Unread):
    def bend(self, events):
        yield from events
        self.counts.sent -= 1


class _Key(Broken):
    only = "missing_key"


@breaks("test_a_missing_key_raises_at_the_call")
class MissesTheKeyTooLate(_Key):
    def preflight(self, call):
        pass


@breaks("test_a_missing_key_raises_at_the_call")
class MissesTheModelInstead(_Key):
    def preflight(self, call):
        if self.bent:
            raise EngineError("missing_model")


@breaks("test_a_missing_key_raises_at_the_call")
class AsksWithoutAKey(_Key):
    def preflight(self, call):
        self.counts.sent += self.bent
        super().preflight(call)


# --- resources ----------------------------------------------------------------------------------------------


class _Stalls(Broken):
    """Wrong in how it ends: halted between two events, halted in its sleep, or by the connection."""

    only = "stalled"

    def ends(self, exchange, how):
        """What is done as a stalled stream ends."""

    def run(self, exchange, text, call):
        asleep = False
        try:
            for event in super().run(exchange, text, call):
                if isinstance(event, TextDelta) and event.delta == self.scenario.words[1] and self.bent:
                    asleep = True
                yield event
        finally:
            if self.bent:
                how = "connection" if exchange.down else "asleep" if asleep else "between"
                self.ends(exchange, how)


def _ends(check, how):
    """Three ways of ending badly, for one of the ways to end."""

    @breaks(check, suffix := how.title())
    class EndsLate(_Stalls):
        def ends(self, exchange, ended):
            if ended == how:
                WAIT.wait(LATE)

    @breaks(check, suffix)
    class FreesTwice(_Stalls):
        def ends(self, exchange, ended):
            if ended == how:
                exchange.counts.freed += 1

    @breaks(check, suffix)
    class NeverFrees(_Stalls):
        def ends(self, exchange, ended):
            if ended == how:
                exchange.counts.held += 1

    return EndsLate, FreesTwice, NeverFrees


_ends("test_a_halt_after_two_events", "between")
_ends("test_a_halt_from_another_thread", "asleep")
_ends("test_a_connection_that_is_closed_meanwhile", "connection")


@breaks("test_a_halt_after_two_events")
class TalksThoughItWasHalted(Broken):
    only = "stalled"

    def stream(self, request, call):
        stream = super().stream(request, call)
        if not self.bent:
            return stream
        talks = _Halted(stream._events, stream._release)
        talks.heard = 0
        return talks


class _Halted(_Talks):
    """Goes on after it was closed with two events read."""

    __slots__ = ("heard",)

    def __next__(self):
        self.heard += 1
        return super().__next__()

    def close(self):
        super().close()
        self.closed = self.heard == 2


@breaks("test_a_halt_from_another_thread")
class CallsAHaltAnError(Broken):
    only = "stalled"

    def stream(self, request, call):
        stream = super().stream(request, call)
        return _Reports(stream._events, stream._release) if self.bent else stream


class _Reports(AdapterStream):
    """Makes an error of its halt, if somebody waited."""

    __slots__ = ("reported", "waiting")

    def __next__(self):
        self.waiting = True
        try:
            return super().__next__()
        except StopIteration:
            if not self.waiting or getattr(self, "reported", False):
                raise
            self.reported = True
            return ErrorEvent(error=StreamError("cancelled"))
        finally:
            self.waiting = False

    def close(self):
        self.reported = not getattr(self, "waiting", False)
        super().close()


@breaks("test_a_connection_that_is_closed_meanwhile")
class TakesAClosedConnectionForAnEnd(Broken):
    def after_silence(self, exchange):
        if exchange.down:
            yield MessageCompleted(message=assistant(""), finish_reason="stop")


class _ReadToTheEnd(Broken):
    only = "read_to_the_end"


@breaks("test_a_stream_that_is_read_to_its_end")
class KeepsWhatItHadAtTheEnd(_ReadToTheEnd):
    def stream(self, request, call):
        stream = super().stream(request, call)
        if self.bent:
            stream._release = None
        return stream


@breaks("test_a_stream_that_is_read_to_its_end")
class FreesTwiceAtTheEnd(_ReadToTheEnd):
    def bend(self, events):
        yield from events
        self.counts.freed += 1


@breaks("test_a_stream_that_is_read_to_its_end")
class EndsWithoutAnEnd(_ReadToTheEnd):
    def bend(self, events):
        return (event for event in events if not isinstance(event, MessageCompleted))


class _Mixes(Broken):
    """Says in every stream what the one that was opened last shall say."""

    only = "two_answers"

    def opened(self):
        """The texts of the streams that are mixed, in the order in which they were opened."""
        raise NotImplementedError

    def next_text(self):
        text = super().next_text()
        if self.bent:
            self.opened().append(text)
        return text

    def bend(self, events):
        for event in events:
            if isinstance(event, TextCompleted):
                text = self.opened()[-1]
                yield TextDelta(id=None, delta=text)
                yield TextCompleted(id=None, text=text)
            elif not isinstance(event, TextDelta):
                yield event


@breaks("test_two_streams_do_not_mix[1]")
class MixesItsStreams(_Mixes):
    def opened(self):
        return self.__dict__.setdefault("texts", [])


@breaks("test_two_streams_do_not_mix[2]")
class MixesItsConnections(_Mixes):
    def __init__(self, config):
        super().__init__(config)
        self.counts.__dict__["connected"] = self.counts.__dict__.get("connected", 0) + 1

    def opened(self):
        """Those of all connections of the value."""
        return self.counts.__dict__.setdefault("texts", [])

    def bend(self, events):
        """A connection that is alone tells its streams apart."""
        return super().bend(events) if self.counts.connected > 1 else events


# --- secrets ------------------------------------------------------------------------------------------------


@for_each("test_secrets", SECRETIVE)
class LogsTheKey(Broken):
    def preflight(self, call):
        super().preflight(call)
        if self.bent and call.api_key is not None:
            logging.getLogger("broken").debug("asking with %s", call.api_key.get_secret_value())


class _Tells(Broken):
    """Tells the key in an error."""

    only = "echoed_key"

    def error(self, call):
        error = super().error(call)
        if self.bent and call.api_key is not None:
            return self.told(error, call.api_key.get_secret_value())
        return error

    def told(self, error, key):
        raise NotImplementedError


@breaks("test_secrets[echoed_key]")
class QuotesTheKey(_Tells):
    def told(self, error, key):
        return error.replace(message=f"Incorrect API key: {key}")


@breaks("test_secrets[echoed_key]")
class NotesTheKey(_Tells):
    def told(self, error, key):
        return error.replace(metadata={"headers": [{"authorization": key}]})


class _Sent:
    def __init__(self, key):
        self.headers = {"authorization": key}


@breaks("test_secrets[echoed_key]")
class ChainsTheRequest(Broken):
    only = "echoed_key"

    def generate(self, request, call):
        try:
            return super().generate(request, call)
        except AdapterError as error:
            if not self.bent or call.api_key is None:
                raise
            failed = OSError("refused")
            failed.request = _Sent(call.api_key.get_secret_value())
            error.__context__ = failed
            raise


@breaks("test_secrets[text]")
class ShowsTheKey(Broken):
    only = "text"
    key = None

    def preflight(self, call):
        super().preflight(call)
        if self.bent and call.api_key is not None:
            self.key = call.api_key.get_secret_value()

    def bend(self, events):
        for event in events:
            if isinstance(event, MessageCompleted) and self.key:
                yield event.model_copy(update={"provider_data": {"broken": {"key": self.key}}})
            else:
                yield event


# --- values -------------------------------------------------------------------------------------------------


class Forgetful(Reference):
    """Does not survive being stored."""

    provider: ClassVar[str] = "forgetful"

    @classmethod
    def model_validate_json(cls, text, **more):
        return super().model_validate_json(text, **more).model_copy(update={"setting": 0})


class Unpacked(Reference):
    """Does not survive being pickled."""

    provider: ClassVar[str] = "unpacked"

    def __setstate__(self, state):
        super().__setstate__(state)
        self.__dict__["setting"] = 0


class Indiscreet(Reference):
    """Takes a key."""

    provider: ClassVar[str] = "indiscreet"

    def __init__(self, **fields):
        fields.pop("api_key", None)
        super().__init__(**fields)


class Telltale(Reference):
    """Refuses a key, and shows it."""

    provider: ClassVar[str] = "telltale"

    def __init__(self, **fields):
        key = fields.pop("api_key", None)
        super().__init__(**(fields if key is None else {**fields, "setting": key}))


BROKEN_VALUES = [Forgetful, Unpacked, Indiscreet, Telltale]
