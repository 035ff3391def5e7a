"""Help for testing services and adapters: a provider on the loopback interface, and more."""

from allm_actors.testing._reply import Fault, Framing, Reply
from allm_actors.testing._requests import ReceivedRequest
from allm_actors.testing._server import FakeServer

__all__ = ["FakeServer", "Fault", "Framing", "ReceivedRequest", "Reply"]
