"""The adapter and the connection that every HTTP provider shares.

An `HttpAdapter` is configuration; a subclass adds fields and names the `Wire`. An `HttpConnection` sends
what the wire has built and hands it what comes back. Everything about time, ends and failures is decided
here, once.

Promises:
    - A call is checked before it returns a stream, and sends nothing until the first event is asked for.
    - An event is delivered as soon as the bytes of its frame are there.
    - A halt, the end of the connection or the end of the process wakes a blocked call, and whatever was read
      by then is not looked at.
    - No exception or event reaches an object of the HTTP library, which would hold the key.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from allm_actors.beam.interrupt import Interrupted, Scope
from allm_actors.beam.timer import cancel_timer, send_after
from allm_actors.data import ErrorEvent
from allm_actors.engine import Adapter, AdapterStream, Connection
from allm_actors.errors import AllmError
from allm_actors.providers._answer import (
    down,
    error_body,
    expired,
    json_object,
    named,
    read_stream,
    succeeded,
    transport_failure,
)
from allm_actors.providers._errors import malformed_response
from allm_actors.providers._http import HttpTransport, Reply, TransportError
from allm_actors.providers._preflight import Prepared, check_headers, host_of, prepare, url_problem
from allm_actors.providers._redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    import requests

    from allm_actors.data import Event, Request, Response
    from allm_actors.engine import CallContext
    from allm_actors.providers._wire import Wire

_HIDDEN: Final = "[REDACTED]"
_SSE_TYPES: Final = ("text/event-stream", "", "text/plain", "application/octet-stream")


class HttpAdapter(Adapter, slot=True):
    """The configuration that every HTTP provider has.

    A subclass sets `provider` and `default_base_url`, gives `base_url` that default, and says which wire
    format a request is sent in.
    """

    default_base_url: ClassVar[str]
    """The provider's own address."""
    _refuse_key_shapes: ClassVar[bool] = True
    uses_environment: ClassVar[bool] = True
    """False where requests must reach this very machine: no proxy that the environment names is used."""

    base_url: str
    """Where requests go, the version segment included; trailing slashes are dropped."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Extra request headers; they win over the adapter's own, `content-type` aside."""
    auth: bool = True
    """False: look for no key and send no credential."""
    verify: bool | str = True
    """TLS verification, or the path of a CA bundle."""

    @abstractmethod
    def wire(self, request: Request) -> Wire:
        """Return the wire format that `request` is sent in. Checks nothing; the wire does."""

    def extra_headers(self) -> dict[str, str]:
        """Return the headers that this configuration adds to every request."""
        return {}

    @property
    def address(self) -> str | None:
        """The host that requests go to, with the port if the URL names one."""
        return urlsplit(self.base_url).netloc

    @property
    def custom_host(self) -> bool:
        """Whether requests go to somebody else's server than the provider's."""
        return host_of(self.base_url) != host_of(self.default_base_url)

    def connect(self) -> HttpConnection:
        """Give a connection with a pool of its own. Opens nothing on the network."""
        return HttpConnection(self)

    @model_validator(mode="before")
    @classmethod
    def _check_base_url(cls, data: Any) -> Any:
        url = data.get("base_url") if isinstance(data, dict) else None
        problem = url_problem(url) if isinstance(url, str) else None
        if problem is None:
            return data
        # By hand, for pydantic would quote the URL, and with it a password.
        kind = PydanticCustomError("base_url", "{problem}", {"problem": problem})
        line = InitErrorDetails(type=kind, loc=("base_url",), input=_HIDDEN)
        raise ValidationError.from_exception_data(cls.__name__, [line], hide_input=True)

    @field_validator("base_url")
    @classmethod
    def _strip_base_url(cls, url: str) -> str:
        return url.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        return check_headers(headers)


class HttpConnection(Connection):
    """A provider's HTTP session: a pool of sockets, shared by any number of threads.

    More calls at once than the pool has idle sockets open further ones; no call waits for another.
    """

    def __init__(self, adapter: HttpAdapter) -> None:
        self.adapter = adapter
        self._transport = HttpTransport(verify=adapter.verify, environment=adapter.uses_environment)
        # Without a lock, for an exchange may leave it from a finalizer. Whoever comes adds itself and then
        # looks whether the connection is closed; closing marks first and then looks who is there.
        self._running: set[_Exchange] = set()
        self._closed = False

    def prepare_request(
        self, request: Request, call: CallContext, *, stream: bool = False
    ) -> requests.PreparedRequest:
        """Return the request that would be sent, after the same checks, without sending it."""
        return self._prepare(request, call, stream=stream).http

    def stream(self, request: Request, call: CallContext) -> AdapterStream:
        """Check the call and give a lazy stream of its events; raises what is wrong, the key last."""
        return self._lazy(self._prepare(request, call, stream=True), request, call)

    def generate(self, request: Request, call: CallContext) -> Response:
        """Send one request for a whole answer; return it, or raise the error it ended with."""
        # The error is raised here, where no local variable leads to the request that was sent.
        outcome = self._generate(request, call)
        if isinstance(outcome, AllmError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Close the pool; streams and calls that are running end with `adapter_down`. Idempotent."""
        self._closed = True
        for exchange in list(self._running):
            exchange.shutdown()
        self._transport.close()

    def _prepare(self, request: Request, call: CallContext, *, stream: bool) -> Prepared:
        self._check_open()
        return prepare(self.adapter, request, call, stream=stream)

    def _check_open(self) -> None:
        if self._closed:
            raise down(self.adapter.provider)

    # --- a stream -------------------------------------------------------------------------------------

    def _lazy(self, prepared: Prepared, request: Request, call: CallContext) -> AdapterStream:
        def again() -> AdapterStream:
            self._check_open()
            return self._lazy(prepared, request, call)

        exchange = _Exchange(self._running)
        return AdapterStream(self._events(prepared, request, call, exchange), exchange.halt, again=again)

    def _events(
        self, prepared: Prepared, request: Request, call: CallContext, exchange: _Exchange
    ) -> Iterator[Event]:
        """The whole of a stream: what the answer says, and at most one error as the end of it."""
        failure: AllmError | None = None
        reply: Reply | None = None
        with exchange:
            try:
                self._enter(exchange)
                reply = exchange.reply = self._transport.send(
                    prepared.http, connect_timeout=call.connect_timeout, idle_timeout=call.stream_timeout
                )
                yield from self._answer(prepared.wire, reply, request, call)
            except AllmError as error:
                failure = error
            except TransportError as error:
                failure = transport_failure(
                    prepared.wire, error, call, "stream_timeout", address=self.adapter.address
                )
            except Interrupted:
                if exchange.halted:
                    return
                failure = down(prepared.wire.provider)
        if failure is not None:
            yield ErrorEvent(error=named(failure, reply, Redactor(call.api_key)))

    def _enter(self, exchange: _Exchange) -> None:
        if self._closed:
            exchange.shutdown()

    def _answer(self, wire: Wire, reply: Reply, request: Request, call: CallContext) -> Iterator[Event]:
        redactor = Redactor(call.api_key)
        if not succeeded(reply):
            raise wire.http_error(reply.status, reply.headers, error_body(reply), redactor=redactor)
        declared = reply.headers.get("content-type", "").partition(";")[0].strip()
        kind = declared.lower()
        if kind in _SSE_TYPES:
            yield from read_stream(wire, reply, wire.decoder(request, redactor=redactor))
        elif kind == "application/json":
            body = json_object(wire, reply)
            yield from wire.replay(body, request, redactor=redactor)
        else:
            # As it was sent, and whole: neither in lower case nor cut in two would the key be found in it.
            shown = redactor.text(declared)[:100]
            raise malformed_response(wire.provider, wire.display, f"a stream was answered with {shown!r}")

    # --- a whole answer -------------------------------------------------------------------------------

    def _generate(self, request: Request, call: CallContext) -> Response | AllmError:
        prepared = self._prepare(request, call, stream=False)
        wire, redactor = prepared.wire, Redactor(call.api_key)
        failure: AllmError
        reply: Reply | None = None
        exchange = _Exchange(self._running)
        timer = None
        if call.request_timeout != math.inf:
            timer = send_after(call.request_timeout, exchange.expire, None)
        try:
            with exchange:
                self._enter(exchange)
                reply = exchange.reply = self._transport.send(
                    prepared.http, connect_timeout=call.connect_timeout, idle_timeout=math.inf
                )
                if not succeeded(reply):
                    error = wire.http_error(reply.status, reply.headers, error_body(reply), redactor=redactor)
                    return named(error, reply, redactor)
                body = json_object(wire, reply)
            response = wire.decode(body, request, redactor=redactor)
            return response.model_copy(update={"request_id": call.request_id})
        except AllmError as error:
            failure = error
        except TransportError as error:
            failure = transport_failure(wire, error, call, "request_timeout", address=self.adapter.address)
        except Interrupted:
            if exchange.expired:
                failure = expired(wire, call, "request_timeout", address=self.adapter.address)
            else:
                failure = down(wire.provider)
        finally:
            if timer is not None:
                cancel_timer(timer)
        return named(failure, reply, redactor)


class _Exchange:
    """One request on its way and its answer, as far as others may end it."""

    __slots__ = ("_running", "expired", "halted", "reply", "scope")

    def __init__(self, running: set[_Exchange]) -> None:
        self.scope = Scope()
        self.reply: Reply | None = None
        self.halted = False
        self.expired = False
        self._running = running

    def halt(self) -> None:
        """Nobody wants the answer any more."""
        self.halted = True
        self.scope.interrupt()

    def shutdown(self) -> None:
        """The connection is closed."""
        self.scope.interrupt()

    def expire(self, _: object) -> None:
        """The time for it is over."""
        self.expired = True
        self.scope.interrupt()

    def __enter__(self) -> Self:
        self._running.add(self)
        self.scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.reply is not None:
            self.reply.abort()
            self.reply = None
        self.scope.__exit__(kind, value, trace)
        self._running.discard(self)
