"""Adapters that a test drives by hand."""

import threading
from typing import Any, ClassVar

from pydantic import Field

from allm_actors.engine import Adapter, AdapterStream, Connection
from allm_actors.errors import AdapterError

from .helpers import START, Silent, closing, delta


class Handmade(Adapter):
    """An adapter whose streams a function makes: `make(request, call) -> AdapterStream`."""

    provider: ClassVar[str] = "handmade"
    make: Any = Field(default=None, exclude=True)
    on_connect: Any = Field(default=None, exclude=True)

    def connect(self):
        if self.on_connect is not None:
            self.on_connect()
        return HandmadeConnection(self)


class HandmadeConnection(Connection):
    def __init__(self, config):
        self.config = config
        self.closed = 0

    def stream(self, request, call):
        return self.config.make(request, call)

    def close(self):
        self.closed += 1


class WholeOnly(Adapter):
    """Gives no streams."""

    provider: ClassVar[str] = "whole"
    streams: ClassVar[bool] = False

    def connect(self):
        raise AssertionError("a call that was refused must not connect")


def plays(*lists):
    """An adapter that plays lists of events, one a call; `.calls` has the requests and contexts it saw."""
    calls, lock = [], threading.Lock()

    def make(request, call):
        with lock:
            calls.append((request, call))
            events = lists[len(calls) - 1]
        return AdapterStream(iter(events))

    adapter = Handmade(make=make)
    adapter.__dict__["calls"] = calls
    return adapter


class Line:
    """An adapter whose streams wait in silence after what they said; `.streams` are those that were opened."""

    def __init__(self, *before, after=None):
        self.before = before or (START, delta("a"))
        self.after = closing("a") if after is None else after
        streams = self.streams = []

        def make(request, call, before=self.before, after=self.after):
            # Without `self`, which holds the adapter: its processes would keep it for ever.
            stream = Silent(*before, after=after)
            streams.append(stream)
            return stream.stream

        self.adapter = Handmade(make=make)


def refuses(*errors):
    """An adapter whose pre-flight raises these, one a call."""
    todo = list(errors)

    def make(request, call):
        raise todo.pop(0)

    return Handmade(make=make)


def timeout_error():
    return AdapterError("timeout")
