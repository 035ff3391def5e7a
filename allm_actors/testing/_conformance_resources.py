"""Checks of calls and of what they hold: nothing too early, nothing left, nothing twice."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from allm_actors.data import ErrorEvent, MessageCompleted, StreamCollector
from allm_actors.engine import CallContext
from allm_actors.errors import EngineError
from allm_actors.testing._conformance_case import HALT, NAMED, Case
from allm_actors.testing._looking import Reading, read_one, timed, within


class Resources(Case):
    """A call sends what it has to, when it has to, and gives back what it took."""

    def test_an_unknown_option_is_accepted(self) -> None:
        """Options that the library does not know are the provider's business."""
        unknown: Any = {"x_conformance": {"deep": [1, None]}}
        events, _ = self._streamed("unknown_option", options=unknown)
        assert isinstance(events[-1], MessageCompleted)
        with self._shown("unknown_option", options=unknown) as (connection, request, call, _scenario):
            assert connection.generate(request, call).error is None

    def test_laziness(self) -> None:
        """Neither connecting nor opening a stream sends anything; closing an unread one does nothing."""
        with self._shown("unread") as (connection, request, call, _scenario):
            assert self.requests() == 0, "sent by connect()"
            stream = connection.stream(request, call)
            assert self.requests() == 0, "sent before the first next()"
            stream.close()
            assert self.requests() == 0, "sent by closing an unread stream"
            assert self.freed() in (None, 0), "an unread stream holds nothing"
            assert list(stream) == []
        self._streamed("unread")
        assert self.requests() == 1, "reading sends one request"

    def test_a_missing_key_raises_at_the_call(self) -> None:
        """Before anything is sent, and not as an event."""
        with self._shown("missing_key") as (connection, request, call, _scenario):
            for ask in (connection.stream, connection.generate):
                with pytest.raises(EngineError) as caught:
                    ask(request, call)
                assert caught.value.reason == "missing_key"
            assert self.requests() == 0

    @timed
    def test_a_halt_after_two_events(self) -> None:
        """A consumer that walks away leaves nothing open."""
        with self._shown("stalled") as (connection, request, call, _scenario):
            stream = connection.stream(request, call)
            for _ in range(2):
                next(stream)
            with within(HALT):
                stream.close()
                self._await_free()
            stream.close()
            assert list(stream) == []
        assert self._freed_once()

    @timed
    def test_a_halt_from_another_thread(self) -> None:
        """Closing wakes a reader that waits for bytes."""
        with self._shown("stalled") as (connection, request, call, scenario):
            stream = connection.stream(request, call)
            reading = Reading(stream)
            reading.await_text(scenario.text_before)
            with within(HALT):
                stream.close()
                events = reading.end()
                self._await_free()
            assert not [event for event in events if isinstance(event, ErrorEvent | MessageCompleted)]
        assert self._freed_once()

    @timed
    def test_a_connection_that_is_closed_meanwhile(self) -> None:
        """Its streams end, and not as if all was said; nobody waits for what is gone."""
        with self._shown("stalled") as (connection, request, call, scenario):
            reading = Reading(connection.stream(request, call))
            reading.await_text(scenario.text_before)
            with within(HALT):
                connection.close()
                events = reading.end()
                self._await_free()
            assert not isinstance(events[-1], MessageCompleted)
        assert self._freed_once()

    @timed
    def test_a_stream_that_is_read_to_its_end(self) -> None:
        """It has given everything back by itself."""
        with self._shown("read_to_the_end") as (connection, request, call, _scenario):
            stream = connection.stream(request, call)
            assert isinstance(list(stream)[-1], MessageCompleted)
            with within(HALT):
                self._await_free()
            stream.close()
        assert self._freed_once()

    @pytest.mark.parametrize("connections", [1, 2])
    def test_two_streams_do_not_mix(self, connections: int) -> None:
        """On one connection, and on two of one value."""
        scenario = NAMED["two_answers"]
        with self._prepared(scenario) as (adapter, fields), contextlib.ExitStack() as stack:
            made = [adapter.connect() for _ in range(connections)]
            for connection in made:
                stack.callback(connection.close)
            streams, texts = [], []
            for connection in (made[0], made[-1]):
                streams.append(connection.stream(self.request(scenario), CallContext(**fields)))
                texts.append([next(streams[-1])])  # here the request goes out: the order of the answers
            left = [1, 1]
            while sum(left):
                left = [read_one(stream, text) for stream, text in zip(streams, texts, strict=True)]
        assert [StreamCollector.collect(events).text for events in texts] == list(scenario.texts)
