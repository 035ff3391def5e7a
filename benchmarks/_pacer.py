"""Many paced streams from one thread: what a load test needs of its server.

Each chunk holds the moment it was sent, as text after `" @"`, on the monotonic clock that all processes of a
machine share. A client that reads too slowly is not waited for: what its socket does not take is sent later.
"""

import heapq
import resource
import threading
import time

FILL_TIMEOUT = 120.0


def raise_limits():
    """Allow this process as many descriptors as the system lets it have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Pacer:
    """Keeps the time of all paced streams of a server."""

    def __init__(self):
        self._arrived = threading.Condition()
        self._waiting = []
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, connection, play, frames):
        """Take over a connection whose head is sent. The load begins when all its clients are here."""
        with self._arrived:
            self._waiting.append(Paced(connection, play, frames))
            self._arrived.notify()

    def _gather(self):
        """A complete load; or what there is of it, if the rest does not come."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting)
            first = self._waiting[0].play
            self._arrived.wait_for(lambda: len(self._waiting) >= first.together, FILL_TIMEOUT)
            load, self._waiting = self._waiting, []
        return load, first.pace

    def _run(self):
        while True:
            load, pace = self._gather()
            began = time.monotonic() + 0.1
            # Spread over one gap, as streams that began at different times are.
            due = [(began + pace * n / len(load), n) for n in range(len(load))]
            while due:
                when, n = due[0]
                left = when - time.monotonic()
                if left > 0:
                    time.sleep(left)
                if load[n].step():
                    heapq.heapreplace(due, (when + pace, n))
                else:
                    heapq.heappop(due)


class Paced:
    """One stream of a load."""

    def __init__(self, connection, play, frames):
        connection.setblocking(False)
        _, before, after, end = frames
        self.play = play
        self._connection, self._left, self._unsent = connection, play.chunks, b""
        # The stamp has a fixed width, so the length of a chunk is known beforehand.
        size = len(before) + len(after) + len(stamp(0.0))
        self._before, self._after = b"%x\r\n%s" % (size, before), after + b"\r\n"
        self._end = b"%x\r\n%s\r\n0\r\n\r\n" % (len(end), end)

    def step(self):
        """Send what is due; whether there is more to come."""
        data = self._unsent
        if self._left:
            data += self._before + stamp(time.monotonic()) + self._after
            self._left -= 1
            if not self._left:
                data += self._end
        try:
            sent = self._connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._connection.close()
            return False
        self._unsent = data[sent:]
        if self._left or self._unsent:
            return True
        self._connection.close()
        return False


def stamp(when):
    """The text of a chunk sent at this moment."""
    return b" @%017.6f" % when


def sent_at(text):
    """The moment in the text of a chunk."""
    return float(text[2:])
