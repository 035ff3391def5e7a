"""Watching a program's processes from another terminal."""

import json
import socket
import stat

import pytest

from allm_actors import beam

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix domain sockets")


class Named(beam.Process):
    def handle_call(self, request, sender):
        return request


@pytest.fixture
def place(tmp_path):
    path = beam.publish(tmp_path / "top.sock")
    yield path
    beam.unpublish()


def ask(path):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(5)
        peer.connect(str(path))
        return json.loads(b"".join(iter(lambda: peer.recv(65536), b"")))


def test_another_program_can_read_the_tree(place):
    """What a person wants to know stands in it: names, states, mailboxes, restarts, uptime.  # B-122"""
    pid = Named.start(name=("worker", 1))

    nodes = ask(place)["tree"]

    node = next(node for node in nodes if node["pid"] == pid.number)
    assert node["class"] == "Named"
    assert node["name"] == "('worker', 1)"
    assert node["state"] == "waiting"
    assert {"mailbox_len", "restarts", "uptime", "waits_for", "busy_for", "children"} <= node.keys()
    beam.stop(pid)


def test_a_child_stands_below_its_parent(place):
    class Parent(beam.Process):
        def init(self):
            self.child = Named.start_link()

        def handle_call(self, request, sender):
            return self.child

    parent = Parent.start()
    child = beam.call(parent, "child?")

    node = next(node for node in ask(place)["tree"] if node["pid"] == parent.number)
    assert [below["pid"] for below in node["children"]] == [child.number]
    beam.stop(parent, "shutdown")


def test_nobody_else_may_read_it(place):
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_publishing_twice_is_one_publisher(place):
    assert beam.publish() == place
    assert beam.publish() == place


def test_unpublishing_removes_the_socket(tmp_path):
    path = beam.publish(tmp_path / "gone.sock")
    pid = beam.whereis(("beam", "publisher"))

    beam.unpublish()

    assert not path.exists()
    assert not pid.alive
    beam.unpublish()  # harmless


def test_a_client_that_says_nothing_does_not_stop_the_publisher(place):
    with socket.socket(socket.AF_UNIX) as mute:
        mute.connect(str(place))
        assert ask(place)["processes"] >= 1


def test_restarts_are_counted_in_the_tree(tmp_path):
    """A child that came back says so, and so does its supervisor."""
    births = beam.Inbox()

    class Mortal(beam.Process):
        def init(self):
            births.put(self.pid)

    supervisor = beam.Supervisor.start([beam.ChildSpec("mortal", Mortal)])
    beam.exit(births.receive(5), "shutdown")
    second = births.receive(5)

    node = next(node for node in beam.snapshot()["tree"] if node["pid"] == supervisor.number)
    assert node["restarts"] == 1
    assert [(child["pid"], child["restarts"]) for child in node["children"]] == [(second.number, 1)]
    assert "restarts 1" in beam.tree()
    beam.stop(supervisor)
