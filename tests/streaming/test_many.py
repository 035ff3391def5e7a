"""A thousand live streams at once, one consumer, real sockets."""

import collections
import threading

import pytest

import allm_actors as allm
from allm_actors import beam
from allm_actors.events import MessageCompleted, TextDelta
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, Reply

STREAMS = 1000
WORDS = 12


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_thousand_streams_and_one_mailbox():  # C-51, C-61
    """No event is lost, repeated or out of its order, the slowest stream ends, and everything is released."""
    threads = threading.active_count()
    everybody_is_here = threading.Barrier(STREAMS + 1)

    def reply(request):
        # Nobody is answered before all are connected: so they are live at the same time.
        everybody_is_here.wait(120)
        number = int(request.json["messages"][0]["content"])
        slow = 0.02 if number == 0 else 0
        return Reply(chunks=[f"{number}.{n} " for n in range(WORDS)], chunk_delay=slow)

    with FakeServer(script=[reply] * STREAMS) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any")
        seen = collections.defaultdict(list)
        finished = []
        with allm.Mailbox() as mailbox:
            number_of = {}
            for number in range(STREAMS):
                handle = allm.open_stream(engine, str(number), into=mailbox, stream_timeout=150)
                number_of[handle.request_id] = number
            everybody_is_here.wait(120)
            assert server.open_connections == STREAMS
            for envelope in mailbox:
                match envelope.event:
                    case TextDelta(delta=text):
                        seen[number_of[envelope.stream.request_id]].append(text)
                    case MessageCompleted():
                        finished.append(number_of[envelope.stream.request_id])

        assert sorted(finished) == list(range(STREAMS))
        assert all(seen[n] == [f"{n}.{word} " for word in range(WORDS)] for n in range(STREAMS))
        assert finished[-1] == 0 or 0 in finished  # the slow one was served like the others
        assert not [pid for pid in beam.processes() if beam.info(pid)["class"] == "StreamActor"]
        del engine
    beam.shutdown()
    assert threading.active_count() <= threads
