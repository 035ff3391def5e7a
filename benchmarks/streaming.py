"""What a streamed event costs, from the socket to the consumer.

    python -m benchmarks.streaming [chunks]

A source in a process of its own plays one Chat Completions stream over a loopback socket. The floor is what
nobody can go below in plain Python with `requests`: `iter_lines` and `json.loads`. Both are measured in the
same run, in turns, as CPU seconds of this process, so that a busy machine hits both alike.
"""

import json
import multiprocessing
import os
import socket
import statistics
import sys
import threading
import time

import requests
import structlog

import allm_actors as allm
from allm_actors.providers import Fake, OpenAI

ROUNDS = 5
BATCH = 1  # chunks in one write of the source
MOST_FLOORS = 2.5
MOST_FAKE = 12e-6


def body(chunks):
    """The bytes of one stream, as writes."""

    def frame(delta, reason=None):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        data = {
            "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
            "object": "chat.completion.chunk",
            "created": 1741569952,
            "model": "gpt-5-2025-08-07",
            "service_tier": "default",
            "system_fingerprint": "fp_44709d6fcb",
            "choices": [choice],
        }
        return f"data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()

    frames = [frame({"role": "assistant", "content": "", "refusal": None})]
    frames += [frame({"content": f" word{n}"}) for n in range(chunks)]
    frames += [frame({}, "stop"), b"data: [DONE]\n\n"]
    return [b"".join(frames[start : start + BATCH]) for start in range(0, len(frames), BATCH)]


def serve(ready, chunks):
    """Answer every request with the stream, in HTTP chunks."""
    writes = [b"%x\r\n%s\r\n" % (len(write), write) for write in body(chunks)] + [b"0\r\n\r\n"]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.send(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection, head, writes), daemon=True).start()


def answer(connection, head, writes):
    """Answer the requests of one connection."""
    with connection:
        while read_request(connection):
            connection.sendall(head)
            for write in writes:
                connection.sendall(write)


def read_request(connection):
    """Read one request; false when the peer is gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return False
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        ),
        0,
    )
    while len(rest) < length:
        rest += connection.recv(65536)
    return True


def floor(http, url):
    """Read the stream the shortest way; how many chunks had text."""
    count = 0
    with http.post(f"{url}/chat/completions", json={"stream": True}, stream=True) as reply:
        for line in reply.iter_lines():
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                chunk = json.loads(line[6:])
                if chunk["choices"][0]["delta"].get("content"):
                    count += 1
    return count


def ours(engine):
    """Read the stream as a user does; how many deltas came."""
    count = 0
    with allm.stream_generate(engine, "hi") as stream:
        for event in stream:
            if event.type == "text_delta":
                count += 1
    return count


def cpu(work, *args, expected):
    """CPU seconds of this process for one piece of work."""
    began = time.process_time()
    count = work(*args)
    took = time.process_time() - began
    assert count == expected, f"{count} events, expected {expected}"
    return took


def sockets(chunks, rounds=ROUNDS):
    """CPU seconds a chunk: the floor's, and ours."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    source = context.Process(target=serve, args=(send, chunks), daemon=True)
    source.start()
    try:
        url = f"http://127.0.0.1:{receive.recv()}/v1"
        engine = allm.Engine(adapter=OpenAI(base_url=url, auth=False), model="m")
        with requests.Session() as http:
            floor(http, url), ours(engine)  # warm
            pairs = [
                (cpu(floor, http, url, expected=chunks), cpu(ours, engine, expected=chunks))
                for _ in range(rounds)
            ]
    finally:
        source.terminate()
        source.join()
    least_floor, least_ours = (min(times) / chunks for times in zip(*pairs, strict=True))
    return least_floor, least_ours


def fake(events, rounds=ROUNDS):
    """CPU seconds an event on the in-process path."""
    script = [("text", "word ")] * events
    adapter = Fake(scripts=[script] * (rounds + 1))
    engine = allm.Engine(adapter=adapter)
    ours(engine)
    return min(cpu(ours, engine, expected=events) for _ in range(rounds)) / events


def first_event(rounds=200):
    """Seconds from the call to its first event, median."""
    engine = allm.Engine(adapter=Fake(scripts=[[("text", "x")]] * (rounds + 1)))
    ours(engine)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        with allm.stream_generate(engine, "hi") as stream:
            next(stream)
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def main():
    """Print the table; the exit code says whether the budgets are kept."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    chunks = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    least, mine = sockets(chunks)
    short = sockets(chunks // 10)[1]
    in_process, in_process_short = fake(chunks), fake(chunks // 10)
    ratio = mine / least
    print(f"{os.cpu_count()} cores, {chunks} chunks, best of {ROUNDS}, CPU time of the reading process")
    print(f"requests.iter_lines + json.loads   {least * 1e6:7.2f} us a chunk")
    print(
        f"stream_generate over OpenAI        {mine * 1e6:7.2f} us a chunk"
        f" = {ratio:.2f} floors (<= {MOST_FLOORS})"
    )
    print(f"  ... a tenth as long              {short * 1e6:7.2f} us a chunk")
    print(
        f"stream_generate over Fake          {in_process * 1e6:7.2f} us an event (<= {MOST_FAKE * 1e6:.0f})"
    )
    print(f"  ... a tenth as long              {in_process_short * 1e6:7.2f} us an event")
    print(f"first event, Fake                  {first_event() * 1e3:7.2f} ms")
    return 0 if ratio <= MOST_FLOORS and in_process <= MOST_FAKE else 1


if __name__ == "__main__":
    sys.exit(main())
