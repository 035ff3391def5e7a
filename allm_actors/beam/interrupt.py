"""Ending a blocking call from outside: `interruptible` for any call, `Scope` for one network request.

A thread blocked in a read cannot be ended by closing what it reads from: only shutting the socket down wakes
it. A `Scope` does that for whatever sockets a transport attached to it, through duplicates of their
descriptors, in every phase of a request.

Guarantees:
    - Only what is attached at that moment is cut: a late interrupt cannot hurt the next user of a connection.
    - What is begun in a scope that was interrupted raises before anything is sent.
    - Every duplicate that a scope was left with is closed when the scope ends.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

from allm_actors.beam._current import current_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from allm_actors.beam._cell import Cell


class Interrupted(Exception):
    """What was asked for runs in a scope that was interrupted."""


class interruptible:
    """Tell the process of this thread how to end the blocking call inside the `with` block.

    Args:
        callback: Runs in the thread that sends an exit or kill, at most once, at once if the process was told
            to exit before. It must be quick, must not raise, and must not touch anything that another
            process may own by now.

    Outside a process nothing happens. A call without an interrupter ends by its own timeout only.
    """

    __slots__ = ("_callback", "_process", "_token")

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._process: Cell | None = None
        self._token = 0

    def __enter__(self) -> None:
        self._process = current_process()
        if self._process is not None:
            self._token = self._process.add_interrupter(self._callback)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.remove_interrupter(self._token)


class _Entered(threading.local):
    def __init__(self) -> None:
        self.scopes: list[Scope] = []


_entered = _Entered()


class Scope:
    """What one request holds on the network, and the way to cut it.

    A scope is made for one request and entered, once, by the thread that makes the request; a transport finds
    it with `Scope.current()`. Any thread may call `interrupt()`, and in a process an exit or kill does. The
    scope may be left in another thread than it was entered in, and in any order with other scopes.

    ```python
    with Scope() as scope:
        hand_out(scope.interrupt)
        reply = http.post(url, body)
    ```
    """

    __slots__ = ("__weakref__", "_attached", "_home", "_interrupted", "_interruptible", "_lock", "_owned")

    def __init__(self) -> None:
        # Reentrant, for the garbage collector may run a finalizer that interrupts inside of any method here.
        self._lock = threading.RLock()
        self._interrupted = False
        self._attached: set[socket.socket] = set()
        self._owned: list[socket.socket] = []
        self._home: list[Scope] | None = None
        self._interruptible: interruptible | None = None

    @staticmethod
    def current() -> Scope | None:
        """The scope entered last by this thread and not left yet."""
        scopes = _entered.scopes
        return scopes[-1] if scopes else None

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt()` was called; look here before believing anything that was read."""
        return self._interrupted

    def interrupt(self) -> None:
        """Cut what is attached and refuse what comes. Idempotent; blocks for nothing; from any thread."""
        with self._lock:
            if self._interrupted:
                return
            self._interrupted = True
            for duplicate in self._attached:
                _cut(duplicate)

    def check(self) -> None:
        """Do nothing, unless the scope was interrupted.

        Raises:
            Exit: It was, because the process of this thread was told to exit.
            Interrupted: It was, otherwise.
        """
        if not self._interrupted:
            return
        process = current_process()
        if process is not None and process.must_exit:
            process.obey()
        raise Interrupted

    # --- for transports -------------------------------------------------------------------------------

    def attach(self, duplicate: socket.socket) -> None:
        """Have `interrupt()` cut this duplicate of a connection's descriptor.

        Raises:
            Interrupted: Too late; nothing is attached.
        """
        with self._lock:
            if self._interrupted:
                raise Interrupted
            self._attached.add(duplicate)

    @contextlib.contextmanager
    def uncut(self) -> Iterator[None]:
        """Hold off an interrupt from other threads for one step that does not block.

        Raises:
            Interrupted: The scope was interrupted before.
        """
        with self._lock:
            if self._interrupted:
                raise Interrupted
            yield

    def detach(self, duplicate: socket.socket) -> bool:
        """Take a duplicate back; from now on it is not cut. False if it was, or may have been."""
        with self._lock:
            self._attached.discard(duplicate)
            return not self._interrupted

    def adopt(self, duplicate: socket.socket) -> None:
        """Take over a duplicate whose connection object goes before its last response has been read.

        It stays attached, and is closed when the scope ends; at once, if it has ended.
        """
        with self._lock:
            if self._home is not None:
                self._attached.add(duplicate)
                self._owned.append(duplicate)
                if self._interrupted:
                    _cut(duplicate)
                return
        duplicate.close()

    def release(self) -> None:
        """Close the duplicates the scope was left with; for when a request has ended before its scope."""
        with self._lock:
            owned, self._owned = self._owned, []
            self._attached.difference_update(owned)
        for duplicate in owned:
            duplicate.close()

    def __enter__(self) -> Self:
        if self._home is not None:
            raise RuntimeError("a scope is entered once")
        self._home = _entered.scopes
        self._home.append(self)
        self._interruptible = interruptible(self.interrupt)
        self._interruptible.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            home, self._home = self._home, None
            hook, self._interruptible = self._interruptible, None
        if home is not None and self in home:
            home.remove(self)
        if hook is not None:
            hook.__exit__(kind, value, trace)
        self.release()
        with self._lock:
            self._attached.clear()

    def __repr__(self) -> str:
        return f"<Scope{' interrupted' if self._interrupted else ''} of {len(self._attached)} sockets>"


def _cut(duplicate: socket.socket) -> None:
    # The peer may have gone first, or nothing may be connected yet: then there is nothing to wake either.
    with contextlib.suppress(OSError):
        duplicate.shutdown(socket.SHUT_RDWR)
