"""What decoding costs on each wire, beside its floor on the same bytes.

    python -m benchmarks.wires [chunks]

A source in a process of its own plays one answer of each format over a loopback socket, framed as the
provider does. The floor reads those very bytes the shortest way there is in plain Python:
`requests.iter_lines` and `json.loads`. Beside it: the connection alone, whose events are what an adapter's
author gets, and `stream_generate`, the whole road to the user. All are CPU seconds of this process,
measured in turns.
"""

import json
import multiprocessing
import os
import socket
import sys
import threading

import requests
import structlog

import allm_actors as allm
from allm_actors.data import Request, user
from allm_actors.engine import CallContext
from allm_actors.providers import Anthropic, Gemini, OpenAI
from benchmarks.streaming import MOST_FLOORS, ROUNDS, answer, body, cpu

REQUEST = Request(messages=[user("hi")], model="m")


def frame(data, *, named=False):
    """One frame as the provider writes it."""
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def responses(chunks):
    """The frames of a Responses stream."""
    item, response = (
        "msg_68af4030592c81938ec0a5fbab4a3e9f0",
        {"id": "resp_68af4030", "model": "gpt-5", "output": []},
    )

    def event(number, kind, **fields):
        return frame({"type": f"response.{kind}", "sequence_number": number, **fields}, named=True)

    yield event(0, "created", response={**response, "status": "in_progress"})
    for n in range(chunks):
        yield event(
            n + 1, "output_text.delta", item_id=item, output_index=0, content_index=0, delta=f" word{n}",
            logprobs=[], obfuscation="Ue8mzkBFzR",
        )  # fmt: skip
    usage = {"input_tokens": 9, "output_tokens": chunks, "total_tokens": chunks + 9}
    yield event(chunks + 1, "completed", response={**response, "status": "completed", "usage": usage})


def messages(chunks):
    """The frames of a Messages stream."""
    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "usage": usage,
    }
    yield frame({"type": "message_start", "message": message}, named=True)
    block = {"type": "text", "text": ""}
    yield frame({"type": "content_block_start", "index": 0, "content_block": block}, named=True)
    for n in range(chunks):
        delta = {"type": "text_delta", "text": f" word{n}"}
        yield frame({"type": "content_block_delta", "index": 0, "delta": delta}, named=True)
    yield frame({"type": "content_block_stop", "index": 0}, named=True)
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield frame({"type": "message_delta", "delta": end, "usage": {"output_tokens": chunks}}, named=True)
    yield frame({"type": "message_stop"}, named=True)


def gemini(chunks):
    """The frames of a generateContent stream, each with its usage and names, as they come."""
    for n in range(chunks):
        candidate = {"content": {"parts": [{"text": f" word{n}"}], "role": "model"}, "index": 0}
        if n == chunks - 1:
            candidate["finishReason"] = "STOP"
        details = [{"modality": "TEXT", "tokenCount": 9}]
        usage = {"promptTokenCount": 9, "candidatesTokenCount": n, "totalTokenCount": n + 9}
        yield frame(
            {
                "candidates": [candidate],
                "usageMetadata": {**usage, "promptTokensDetails": details},
                "modelVersion": "gemini-2.5-flash",
                "responseId": "mPKtaOqSG4m7qtsPtO_a8QI",
            }
        )


WIRES = {
    "chat": (body, lambda url: OpenAI(base_url=url, api="chat", auth=False)),
    "responses": (
        lambda chunks: list(responses(chunks)),
        lambda url: OpenAI(base_url=url, api="responses", auth=False),
    ),
    "messages": (lambda chunks: list(messages(chunks)), lambda url: Anthropic(base_url=url, auth=False)),
    "gemini": (lambda chunks: list(gemini(chunks)), lambda url: Gemini(base_url=url, auth=False)),
}  # fmt: skip
TEXTS = {
    "chat": lambda chunk: chunk["choices"][0]["delta"].get("content"),
    "responses": lambda chunk: chunk.get("delta"),
    "messages": lambda chunk: chunk["delta"].get("text") if "delta" in chunk else None,
    "gemini": lambda chunk: chunk["candidates"][0]["content"]["parts"][0]["text"],
}
"""What the floor looks at in a chunk, to know that it read it."""


def serve(ready, name, chunks):
    """Answer every request with the stream, in HTTP chunks."""
    writes = [b"%x\r\n%s\r\n" % (len(write), write) for write in WIRES[name][0](chunks)] + [b"0\r\n\r\n"]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.send(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection, head, writes), daemon=True).start()


def floor(http, url, text):
    """Read the stream the shortest way; how many chunks had text."""
    count = 0
    with http.post(f"{url}/chat/completions", json={"stream": True}, stream=True) as reply:
        for line in reply.iter_lines():
            if line.startswith(b"data: ") and line != b"data: [DONE]" and text(json.loads(line[6:])):
                count += 1
    return count


def decoded(connection):
    """Read the stream as an adapter gives it; how many deltas came."""
    return sum(event.type == "text_delta" for event in connection.stream(REQUEST, CallContext()))


def whole_road(engine):
    """Read the stream as a user does; how many deltas came."""
    with allm.stream_generate(engine, "hi") as stream:
        return sum(event.type == "text_delta" for event in stream)


def measure(name, chunks, rounds=ROUNDS):
    """CPU seconds a chunk: the floor's, the connection's, the whole road's."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    source = context.Process(target=serve, args=(send, name, chunks), daemon=True)
    source.start()
    try:
        url = f"http://127.0.0.1:{receive.recv()}/v1"
        adapter = WIRES[name][1](url)
        engine = allm.Engine(adapter=adapter, model="m")
        connection = adapter.connect()
        with requests.Session() as http:
            floor(http, url, TEXTS[name]), decoded(connection), whole_road(engine)  # warm
            times = [
                (
                    cpu(floor, http, url, TEXTS[name], expected=chunks),
                    cpu(decoded, connection, expected=chunks),
                    cpu(whole_road, engine, expected=chunks),
                )
                for _ in range(rounds)
            ]
        connection.close()
    finally:
        source.terminate()
        source.join()
    return [min(column) / chunks for column in zip(*times, strict=True)]


def main():
    """Print the table; the exit code says whether every wire keeps its budget."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    chunks = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"{os.cpu_count()} cores, {chunks} chunks, best of {ROUNDS}, CPU us a chunk")
    print(f"{'':10}   floor  decoded  floors  stream_generate  floors  (<= {MOST_FLOORS})")
    worst = 0.0
    for name in WIRES:
        least, mine, whole = measure(name, chunks)
        worst = max(worst, mine / least, whole / least)
        print(
            f"{name:10} {least * 1e6:7.2f} {mine * 1e6:8.2f} {mine / least:7.2f}"
            f" {whole * 1e6:16.2f} {whole / least:7.2f}"
        )
    return 0 if worst <= MOST_FLOORS else 1


if __name__ == "__main__":
    sys.exit(main())
