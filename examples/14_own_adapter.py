"""An adapter of one's own, asked like any other: `lines_adapter.py`, beside this file.

Prints:

    Hello from the socket.
    stop: 4 tokens
    refused: rate_limited
"""

import json
import socketserver
import threading

from lines_adapter import Lines

import allm_actors as allm
from allm_actors.errors import AdapterError

ANSWERS: list[list[dict[str, object]]] = [
    [{"text": "Hello from"}, {"text": " the socket."}, {"usage": {"output_tokens": 4}}, {"end": "stop"}],
    [{"error": {"reason": "rate_limited", "status": 429}}],
]


class Model(socketserver.StreamRequestHandler):
    """Answers one question, the next in order."""

    def handle(self) -> None:
        self.rfile.readline()
        for line in ANSWERS.pop(0):
            self.wfile.write(json.dumps(line).encode() + b"\n")


with socketserver.TCPServer(("127.0.0.1", 0), Model) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    engine = allm.Engine(adapter=Lines(port=server.server_address[1]), model="tiny", retry=None)

    response = allm.generate(engine, "hi", api_key="any")
    print(response.text)
    print(f"{response.finish_reason}: {response.usage.output_tokens} tokens")
    try:
        allm.generate(engine, "hi again", api_key="any")
    except AdapterError as error:
        print(f"refused: {error.reason}")
    server.shutdown()
