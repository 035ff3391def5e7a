"""A web service on threads: a page shows an answer word by word, and leaving the page halts the model.

Flask serves each request in a thread of its own. `/ask` sends server-sent events; its generator reads from a
mailbox, and while the model is silent it writes a comment every now and then. A write to a browser that has
left fails, Flask closes the generator, the generator leaves its `with`, and the model is halted.

    python 33_web_service.py serve 8000     then open http://127.0.0.1:8000/

Without arguments it plays the browser itself:

Prints:

    the page asks with: new EventSource
    events: "Links" " tell" " you." done
    a browser that left after one word: the model was halted: True
"""

import json
import queue
import sys
import threading
from collections.abc import Iterator
from itertools import islice

import requests
from flask import Flask, Response, request
from werkzeug.serving import make_server

import allm_actors as allm
from allm_actors.events import ErrorEvent, MessageCompleted, TextDelta
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, ReceivedRequest, Reply

PAGE = """<!doctype html>
<title>Ask</title>
<form><input name="q" autofocus> <button>Ask</button></form>
<p id="answer"></p><p id="state"></p>
<script>
const asked = new URLSearchParams(location.search).get("q");
const show = (id, text) => document.getElementById(id).textContent += text;
if (asked) {
  const source = new EventSource("/ask?q=" + encodeURIComponent(asked));
  source.onmessage = event => show("answer", JSON.parse(event.data));
  addEventListener("pagehide", () => source.close());  // browsers keep what was left alive for a while
  source.addEventListener("done", event => { source.close(); show("state", event.data); });
}
</script>
"""
PATIENCE = 0.25  # seconds of silence after which we look whether the browser is still there


def create_app(engine: allm.Engine) -> Flask:
    """The service; it needs nothing but an engine."""
    app = Flask(__name__)

    @app.get("/")
    def page() -> str:
        return PAGE

    @app.get("/ask")
    def ask() -> Response:
        return Response(events(engine, request.args["q"]), mimetype="text/event-stream")

    return app


def events(engine: allm.Engine, question: str) -> Iterator[str]:
    """The answer as server-sent events."""
    with allm.Mailbox() as mailbox:
        allm.open_stream(engine, question, into=mailbox)
        while True:
            try:
                event = mailbox.get(timeout=PATIENCE).event
            except queue.Empty:
                yield ": still there?\n\n"
                continue
            match event:
                case TextDelta(delta=text):
                    yield f"data: {json.dumps(text)}\n\n"
                case MessageCompleted():
                    yield "event: done\ndata: done\n\n"
                    return
                case ErrorEvent(error=error):
                    yield f"event: done\ndata: failed: {error.reason}\n\n"
                    return


def model(received: ReceivedRequest) -> Reply:
    """The loopback model: to `wait` it says one word and falls silent."""
    if received.json["messages"][0]["content"] == "wait":
        return Reply("Well ...", fault="stall", after=2)
    return Reply(chunks=["Links", " tell", " you."])


def play_the_browser(url: str, provider: FakeServer) -> None:
    """Do what a browser does, and show what it gets."""
    page = requests.get(url, timeout=10).text
    print("the page asks with:", "new EventSource" if "new EventSource" in page else "?")

    with requests.get(f"{url}/ask?q=links", stream=True, timeout=10) as answer:
        data = [line[6:] for line in answer.iter_lines(decode_unicode=True) if line.startswith("data: ")]
        print("events:", *data)

    with requests.get(f"{url}/ask?q=wait", stream=True, timeout=10) as answer:
        assert list(islice(answer.iter_lines(decode_unicode=True), 1)) == ['data: "Well"']
    halted = provider.requests[-1].wait_disconnected()
    print("a browser that left after one word: the model was halted:", halted)


def main() -> None:
    with FakeServer(default=model) as provider:
        app = create_app(allm.Engine(adapter=OpenAI(base_url=provider.base_url), model="any"))
        port = int(sys.argv[2]) if sys.argv[1:2] == ["serve"] else 0
        server = make_server("127.0.0.1", port, app, threaded=True)
        if port:
            server.serve_forever()
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            play_the_browser(f"http://127.0.0.1:{server.server_port}", provider)
        finally:
            server.shutdown()
            serving.join()
            server.server_close()


if __name__ == "__main__":
    main()
