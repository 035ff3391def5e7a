"""One request at a time: streams of events, whole answers, and mailboxes that many streams feed."""

from allm_actors.streaming.event_stream import EventStream
from allm_actors.streaming.mailbox import Envelope, Mailbox, StreamHandle
from allm_actors.streaming.runner import Runner, generate
from allm_actors.streaming.stream_runner import StreamRunner, open_stream, stream_generate

__all__ = [
    "Envelope",
    "EventStream",
    "Mailbox",
    "Runner",
    "StreamHandle",
    "StreamRunner",
    "generate",
    "open_stream",
    "stream_generate",
]
