"""Scripted engines, tools that a test drives by hand, and waits with a deadline."""

import asyncio
import threading
import time
import weakref
from contextlib import contextmanager

import allm_actors as allm
from allm_actors.events import ErrorEvent
from allm_actors.providers import Fake

SOON = 10.0  # seconds within which everything here has to happen


def call(id, name, /, **arguments):
    """A script entry: the model calls a tool."""
    return ("tool_call", {"id": id, "name": name, "arguments": arguments})


def raw_call(id, name, text):
    """The same with argument text that need not be JSON."""
    return ("tool_call", {"id": id, "name": name, "arguments": {}, "raw_arguments": text})


def says(*entries):
    """The script of a turn that ends with text."""
    return [("text", entry) if isinstance(entry, str) else entry for entry in entries] + [("finish", "stop")]


def calls(*entries):
    """The script of a turn that ends with tool calls."""
    return [("text", entry) if isinstance(entry, str) else entry for entry in entries] + [
        ("finish", "tool_calls")
    ]


class Rig:
    """An engine over a script, and the requests it was sent."""

    def __init__(self, *scripts, tools=(), **fields):
        self.requests, self.contexts = [], []
        weak = weakref.ref(self)  # the adapter's processes hold what is below, and end with the adapter

        def seen(request, context):
            if (rig := weak()) is not None:
                rig.requests.append(request)
                rig.contexts.append(context)

        self.adapter = Fake(scripts=list(scripts), on_request=seen)
        self.engine = allm.Engine(
            **{"adapter": self.adapter, "model": "m", "retry": None, "tools": list(tools), **fields}
        )

    @property
    def sent(self):
        return len(self.requests)

    def rewound(self):
        self.adapter.rewind()
        self.requests.clear()
        self.contexts.clear()
        return self.engine


def tool(name, handler, **fields):
    """A tool around a plain handler."""
    return allm.Tool(
        **{
            "name": name,
            "description": f"{name}.",
            "schema": {"type": "object"},
            "handler": handler,
            **fields,
        }
    )


def echo(arguments):
    return arguments.get("x", "ok")


ECHO = tool("echo", echo)


class Stuck:
    """A handler that waits until it is let go, or is told that nobody waits for it."""

    def __init__(self, *, heeds=True, value="late"):
        self.entered, self.go, self.left = threading.Event(), threading.Event(), threading.Event()
        self.heeds, self.value = heeds, value
        self.cancelled = threading.Event()

    def __call__(self, arguments, ctx):
        self.cancelled = ctx.cancelled
        self.entered.set()
        try:
            limit = time.monotonic() + SOON
            while not self.go.wait(0.005) and not (self.heeds and ctx.cancelled.is_set()):
                assert time.monotonic() < limit, "nobody let it go"
            return self.value
        finally:
            self.left.set()

    def finish(self):
        self.go.set()
        assert self.left.wait(SOON)


def until(condition, seconds=SOON):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came true"
        time.sleep(0.001)


PATIENCE = 4  # a machine with more to do than this takes its time; what hangs takes for ever


@contextmanager
def within(seconds):
    """Fail what takes much longer than the seconds that are promised on a machine with time to spare."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < PATIENCE * seconds, f"took {took:.3f} s"


def types(events):
    return [event.type for event in events]


def of(events, *kinds):
    return [event for event in events if event.type in kinds]


def errors_in(events):
    return [event.error for event in events if isinstance(event, ErrorEvent)]


def roles(thread):
    return [message.role for message in thread.messages]


def contents(thread, role="tool"):
    return [message.content for message in thread.messages if message.role == role]


# --- the three ways to read a stream ----------------------------------------------------------------------


def by_next(open_, *args, **options):
    with open_(*args, **options) as events:
        return list(events)


def by_anext(open_, *args, **options):
    async def read():
        async with open_(*args, **options) as events:
            return [event async for event in events]

    return asyncio.run(asyncio.wait_for(read(), SOON))


def by_mailbox(open_, *args, **options):
    with allm.Mailbox() as mailbox:
        open_(*args, into=mailbox, **options)
        return [envelope.event for envelope in mailbox]


READERS = [by_next, by_anext, by_mailbox]


def in_thread(work, *args):
    """Run `work` in a thread; a function that joins it and gives or raises what came of it."""
    outcome = {}

    def run():
        try:
            outcome["value"] = work(*args)
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(SOON)
        assert not thread.is_alive(), "it still waits"
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    return result
