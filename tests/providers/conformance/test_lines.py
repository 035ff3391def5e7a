"""The adapter of `examples/lines_adapter.py` passes the conformance suite."""

import json
import socketserver
import threading

import pytest

from allm_actors import CallContext
from allm_actors.errors import AdapterError, StreamError
from allm_actors.testing import AdapterConformance
from examples.lines_adapter import Answer, Lines


class Server(socketserver.ThreadingTCPServer):
    """Shows one scenario to whoever connects."""

    daemon_threads = False  # closing the server waits for those who answer

    def __init__(self, scenario):
        super().__init__(("127.0.0.1", 0), Answering)
        self.scenario, self.asked, self.gone = scenario, 0, 0
        self.lock, self.over = threading.Lock(), threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}).start()

    def close(self):
        self.over.set()
        self.shutdown()
        self.server_close()


class Answering(socketserver.StreamRequestHandler):
    def handle(self):
        server, scenario = self.server, self.server.scenario
        question = json.loads(self.rfile.readline() or "{}")
        if not question:
            return
        with server.lock:
            text = scenario.texts[server.asked % len(scenario.texts)]
            server.asked += 1
        try:
            for line in answer(scenario, text, question):
                self.wfile.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
            if scenario.limit or scenario == "stalled":
                self.be_silent()
        except OSError:
            pass  # the client has gone

    def be_silent(self):
        """Say nothing until the client goes, but for a sign of life where that is the scenario."""
        self.connection.settimeout(0.02)
        while not self.server.over.is_set():
            if self.server.scenario == "only_keep_alives":
                self.wfile.write(b"\n")
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                pass

    def finish(self):
        """Wait until the client has closed its side, and note that it did."""
        super().finish()
        try:
            self.connection.shutdown(socketserver.socket.SHUT_WR)
            self.connection.settimeout(2)
            while self.connection.recv(4096):
                pass
        except TimeoutError:
            return
        except OSError:
            pass
        with self.server.lock:
            self.server.gone += 1


def answer(scenario, text, question):
    """The lines that show a scenario."""
    if scenario == "error_network_error":
        return
    if scenario == "error_malformed_response":
        yield b"<html>\n"
        return
    if scenario.reason is not None:
        yield failure(scenario, f"no answer for {question['key']}")
        return
    words = [word if not n else f" {word}" for n, word in enumerate(text.split(" "))]
    if scenario.events or scenario.limit:
        yield from ({"text": word} for word in words[: scenario.events])
        if scenario == "error_in_midstream":
            yield {"error": {"reason": "provider_unavailable"}}
        if scenario == "unparseable_event":
            yield b'{"text": \n'
        return
    yield from ({"text": word} for word in words)
    for call in scenario.tool_calls:
        raw = call.raw_arguments
        size = -(-len(raw) // scenario.pieces)
        for start in range(0, len(raw), size):
            yield {"call": call.id, "name": call.name, "arguments": raw[start : start + size]}
    if scenario.usage is not None:
        yield {"usage": scenario.usage}
    yield {"end": scenario.finish_reason}


def failure(scenario, message):
    fields = {
        "reason": scenario.reason,
        "message": message,
        "status": scenario.status,
        "retry_after": scenario.retry_after,
        "request_id": scenario.provider_request_id,
    }
    return {"error": {name: value for name, value in fields.items() if value is not None}}


class TestLines(AdapterConformance):
    @pytest.fixture(autouse=True)
    def _close_servers(self):
        self.servers = []
        yield
        for server in self.servers:
            server.close()

    def prepare(self, scenario):
        self.servers.append(Server(scenario))
        key = {} if scenario == "missing_key" else {"api_key": "any"}
        return Lines(port=self.servers[-1].server_address[1]), key

    def requests(self):
        return self.servers[-1].asked

    def freed(self):
        return self.servers[-1].gone

    def held(self):
        return self.requests() - self.freed()


# --- what the suite does not ask ----------------------------------------------------------------------------


def kinds(*lines):
    return [event.type for event in Answer(CallContext()).events(iter(lines))]


def test_a_sign_of_life_is_no_beginning():
    said = kinds(b"\n", b'{"text": "a"}\n', b"\n", b'{"sings": true}\n', b'{"end": "stop"}\n')

    assert said == ["message_started", "text_delta", "text_completed", "message_completed"]


@pytest.mark.parametrize("line", [b"[]", b"1", b'{"end": "never"}', b'{"usage": {"x": 1}}', b'{"error": {}}'])
def test_a_line_that_cannot_be_read_is_an_error(line):
    with pytest.raises(AdapterError, match="malformed"):
        kinds(line)
    with pytest.raises(StreamError, match="malformed"):
        kinds(b'{"text": "a"}', line)
