"""A server on loopback, in a process of its own, that plays streams exactly as its address says.

The address a client is given holds the play, `http://127.0.0.1:PORT/gap=0.02,chunks=50/v1`, so any client can
be sent to any play. Paths that end in `/messages` are answered in the Messages format, all others in that of
Chat Completions. The server tells its owner, through a pipe, when each client closed an answer that was not
over: `(mark, seconds on the monotonic clock)`. Every chunk of a paced play says when it was sent.
"""

import contextlib
import json
import multiprocessing
import select
import socket
import threading
import time
from dataclasses import dataclass

from benchmarks._pacer import Pacer, raise_limits

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
MOST_SILENCE = 12.0


@dataclass(frozen=True)
class Play:
    """What one answer is to be.

    Attributes:
        chunks: How many pieces of text.
        gap: Seconds between two chunks, kept by a thread for each connection, which sees a close at once.
        pace: The same for loads: one thread keeps the time of all connections.
        together: A load begins when so many clients are there.
        size: Bytes of text in a chunk, at least.
        end: `done`, or the way in which the answer breaks off after its chunks: `silent` and `comments` say
            nothing more or nothing but comments, `drop` and `reset` break the connection, `truncated` breaks
            it within a chunk, `short` before the announced length, `eof` has announced none, and `clean` ends
            the body properly but not the answer.
        status: The answer's status; no stream unless 200.
        mark: Comes back in the news of a close.
    """

    chunks: int = 5
    gap: float = 0.0
    pace: float = 0.0
    together: int = 1
    size: int = 0
    end: str = "done"
    status: int = 200
    mark: str = ""

    @classmethod
    def of(cls, path):
        """The play that a path names."""
        kinds = cls.__annotations__
        pairs = (pair.split("=") for pair in path.split("/")[1].split(",") if "=" in pair)
        return cls(**{name: kinds[name](value) for name, value in pairs})


def chat_frames():
    """The first frame, what stands around a piece of text, and the last frames."""

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
        return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"

    before, after = frame({"content": "@"}).split(b"@")
    start = frame({"role": "assistant", "content": "", "refusal": None})
    return start, before, after, frame({}, "stop") + b"data: [DONE]\n\n"


def messages_frames():
    """The same of a Messages stream."""

    def frame(kind, **fields):
        text = json.dumps({"type": kind, **fields}, separators=(",", ":"))
        return f"event: {kind}\ndata: {text}\n\n".encode()

    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    start = frame("message_start", message=message)
    start += frame("content_block_start", index=0, content_block={"type": "text", "text": ""})
    before, after = frame("content_block_delta", index=0, delta={"type": "text_delta", "text": "@"}).split(
        b"@"
    )
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    end = frame("content_block_stop", index=0)
    end += frame("message_delta", delta=stop, usage={"output_tokens": 9}) + frame("message_stop")
    return start, before, after, end


FORMATS = {"chat": chat_frames(), "messages": messages_frames()}


def chunk(data):
    """One chunk of HTTP."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def serve(pipe):
    """Answer every connection, until the process is ended."""
    raise_limits()
    pacer = Pacer()
    told = threading.Lock()

    def tell(mark, when):
        with told:
            pipe.send((mark, when))

    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        pipe.send(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=converse, args=(connection, pacer, tell), daemon=True).start()


def converse(connection, pacer, tell):
    """Answer the requests of one connection."""
    with contextlib.suppress(OSError):
        while path := read_request(connection):
            play = Play.of(path)
            frames = FORMATS["messages" if path.endswith("/messages") else "chat"]
            if play.pace:
                connection.sendall(HEAD + CHUNKED + b"connection: close\r\n\r\n" + chunk(frames[0]))
                pacer.add(connection, play, frames)
                return
            answer = Answer(connection, play, frames)
            if answer.closed_by_client(tell) or play.end != "done":
                break
    connection.close()


def read_request(connection):
    """The path of the next request; empty when the peer is gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return ""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    left = (int(lengths[0].split(b":")[1]) if lengths else 0) - len(rest)
    while left > 0:
        left -= len(connection.recv(65536))
    return head.split(b" ", 2)[1].decode()


class Answer:
    """One answer on one connection."""

    def __init__(self, connection, play, frames):
        self.connection, self.play, self.frames = connection, play, frames

    def closed_by_client(self, tell):
        """Play it; whether the client closed before it was over, which is told at once."""
        try:
            over = self._play()
        except OSError:
            over = False
        if not over:
            tell(self.play.mark, time.monotonic())
        return not over

    def _play(self):
        play, send = self.play, self.connection.sendall
        if play.status != 200:
            body = b'{"error":{"message":"busy","type":"server_error"}}'
            head = b"HTTP/1.1 %d Busy\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            send(head % (play.status, len(body)) + body)
            return True
        start, before, after, end = self.frames
        # Not always the same word: one client takes that for a model gone mad.
        words = [b" word%d" % n + b"x" * max(0, play.size - 6) for n in range(2)]
        one = before + words[0] + after
        wrap = chunk
        if play.end == "short":
            send(HEAD + b"content-length: %d\r\n\r\n" % (len(start) + len(one) * play.chunks + len(end)))
            wrap = bytes
        elif play.end == "eof":
            send(HEAD + b"connection: close\r\n\r\n")
            wrap = bytes
        else:
            send(HEAD + CHUNKED + b"\r\n")
        send(wrap(start))
        pieces = [wrap(before + word + after) for word in words]
        for n in range(play.chunks):
            send(pieces[n % 2])
            if play.gap and self._gone(play.gap):
                return False
        return self._finish(wrap, one, end)

    def _finish(self, wrap, one, end):
        """End it as the play says."""
        connection, how = self.connection, self.play.end
        if how == "silent":
            return not self._gone(MOST_SILENCE)
        if how == "comments":
            for _ in range(int(MOST_SILENCE / 0.2)):
                connection.sendall(wrap(b": keep-alive\n\n"))
                if self._gone(0.2):
                    return False
        elif how == "truncated":
            connection.sendall(chunk(one)[: -len(one) // 2])
        elif how == "clean":
            connection.sendall(b"0\r\n\r\n")
        elif how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif how == "done":
            connection.sendall(wrap(end) + b"0\r\n\r\n")
        return True

    def _gone(self, seconds):
        """Wait; whether the client closed meanwhile."""
        look = select.poll()
        look.register(self.connection, select.POLLIN)
        return bool(look.poll(seconds * 1000)) and not self.connection.recv(65536)


class Server:
    """The server's process, as its owner sees it: a context manager."""

    def __enter__(self):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        self.port = self._pipe.recv()
        return self

    def __exit__(self, *exc_info):
        self._process.terminate()
        self._process.join()

    def url(self, **play):
        """The base address of a play, see `Play`."""
        return f"http://127.0.0.1:{self.port}/" + ",".join(f"{name}={value}" for name, value in play.items())

    def closes(self, mark, count=1, *, within=5.0):
        """When so many clients closed answers with this mark; fewer if that took too long."""
        found, ends = [], time.monotonic() + within
        while len(found) < count and self._pipe.poll(max(0.0, ends - time.monotonic())):
            name, when = self._pipe.recv()
            if name == mark:
                found.append(when)
        return found

    def forget(self):
        """Drop the news that has come."""
        while self._pipe.poll(0):
            self._pipe.recv()
