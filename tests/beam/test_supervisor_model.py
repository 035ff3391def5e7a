"""Random supervision trees with random crashes, checked against a small model of the rules.

The model knows nothing of processes. For each thing that happens it says which children end and start, in which
order; the children of the real tree announce exactly that.
"""

import itertools
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from allm_actors import beam
from allm_actors.beam.supervisor import (
    ChildSpec,
    Supervisor,
    delete_child,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from tests.beam._kids import Kid, News, until, wait_dead

pytestmark = pytest.mark.logs_errors("children end abnormally here")

RESTARTS = ["permanent", "transient", "temporary"]
CLEAN = ["normal", "shutdown"]
_runs = itertools.count()


class Timeless(Supervisor):
    """A supervisor that forgets no restart."""

    clock = staticmethod(lambda: 0.0)


# --- the model ----------------------------------------------------------------------------------------


@dataclass
class Leaf:
    label: str
    restart: str
    up: bool = False

    def start(self):
        self.up = True
        return [("start", self.label)]

    def stop(self, reason):
        self.up = False
        return [("stop", self.label, reason)]


@dataclass
class Node:
    label: str
    restart: str
    strategy: str
    max_restarts: int
    specs: list
    up: bool = False
    restarts: int = 0
    children: list = field(default_factory=list)
    parent: "Node | None" = None

    def start(self):
        self.up, self.restarts = True, 0
        self.children = [fresh(spec, self) for spec in self.specs]
        return [item for child in self.children for item in child.start()]

    def stop(self, _reason):
        """End all children, last first; a supervisor itself announces nothing."""
        self.up = False
        return [item for child in reversed(self.children) if child.up for item in child.stop("shutdown")]

    def ended(self, child, reason):
        """A child ended by itself: what follows."""
        child.up = False
        clean = reason in CLEAN
        if child.restart == "temporary":
            self.children.remove(child)
            return []
        if child.restart == "transient" and clean:
            return []
        self.restarts += 1
        if self.restarts > self.max_restarts:
            said = self.stop(None)
            return said + (self.parent.ended(self, "shutdown") if self.parent else [])
        at = self.children.index(child)
        affected = {
            "one_for_one": [child],
            "rest_for_one": self.children[at:],
            "one_for_all": self.children[:],
        }[self.strategy]
        said = []
        for one in reversed(affected):
            if one.up:
                said += one.stop("shutdown")
            if one.restart == "temporary":
                self.children.remove(one)
        return said + [item for one in affected if one.restart != "temporary" for item in one.start()]


def fresh(spec, parent):
    """A child as its supervisor starts it."""
    if isinstance(spec, Leaf):
        return Leaf(spec.label, spec.restart)
    return Node(spec.label, spec.restart, spec.strategy, spec.max_restarts, spec.specs, parent=parent)


def leaves(node):
    for child in node.children:
        if isinstance(child, Leaf):
            yield node, child
        elif child.up:
            yield from leaves(child)


# --- trees --------------------------------------------------------------------------------------------

labels = itertools.count()


def trees(depth=2):
    leaf = st.builds(lambda restart: Leaf(f"leaf{next(labels)}", restart), st.sampled_from(RESTARTS))
    below = st.one_of(leaf, leaf, trees(depth - 1)) if depth else leaf
    return st.builds(
        lambda restart, strategy, most, specs: Node(f"sup{next(labels)}", restart, strategy, most, specs),
        st.sampled_from(RESTARTS),
        st.sampled_from(["one_for_one", "rest_for_one", "one_for_all"]),
        st.integers(0, 3),
        st.lists(below, min_size=1, max_size=4),
    )


class Tree(RuleBasedStateMachine):
    """The real tree beside the model."""

    @initialize(tree=trees())
    def begin(self, tree):
        self.news = News()
        self.tree = tree
        self.start_it()

    @precondition(lambda self: not self.model.up)
    @rule()
    def it_is_started_afresh(self):
        self.start_it()

    def start_it(self):
        tree = self.tree
        self.run = next(_runs)
        self.model = fresh(tree, None)
        self.added = itertools.count()
        expected = self.model.start()
        self.pid = Timeless.start(
            [self.spec(child) for child in tree.specs],
            strategy=tree.strategy,
            max_restarts=tree.max_restarts,
            name=self.name(tree.label),
        )
        self.hear(expected)

    def name(self, label):
        return ("model", self.run, label)

    def spec(self, node):
        if isinstance(node, Leaf):
            return ChildSpec(
                node.label,
                Kid,
                args=(node.label, self.news),
                restart=node.restart,
                name=self.name(node.label),
            )
        return ChildSpec(
            node.label,
            Timeless,
            args=([self.spec(child) for child in node.specs],),
            kwargs={"strategy": node.strategy, "max_restarts": node.max_restarts},
            restart=node.restart,
            name=self.name(node.label),
        )

    def hear(self, expected):
        assert self.news.take(len(expected)) == expected
        if not self.model.up:
            wait_dead(self.pid)
        self.news.nothing_more()

    def victims(self):
        return [(sup, leaf) for sup, leaf in leaves(self.model) if leaf.up]

    @precondition(lambda self: self.model.up and self.victims())
    @rule(data=st.data(), reason=st.sampled_from(["normal", "shutdown", "boom", "killed"]))
    def a_leaf_ends(self, data, reason):
        sup, leaf = data.draw(st.sampled_from(self.victims()))
        pid = beam.whereis(self.name(leaf.label))
        expected = []
        if reason == "killed":
            beam.exit(pid, "kill")
        else:
            expected = [("stop", leaf.label, reason)]
            beam.send(pid, ("exit", reason))
        self.hear(expected + sup.ended(leaf, reason))
        wait_dead(pid)

    @precondition(lambda self: self.model.up)
    @rule(restart=st.sampled_from(RESTARTS))
    def one_is_added(self, restart):
        leaf = Leaf(f"added{next(self.added)}", restart)
        start_child(self.pid, self.spec(leaf))
        self.model.children.append(leaf)
        self.hear(leaf.start())

    @precondition(lambda self: self.model.up and self.model.children)
    @rule(data=st.data(), what=st.sampled_from(["terminate", "restart", "delete"]))
    def one_is_administered(self, data, what):
        child = data.draw(st.sampled_from(self.model.children))
        if what == "terminate":
            terminate_child(self.pid, child.label)
            expected = child.stop("shutdown") if child.up else []
            if child.restart == "temporary":
                self.model.children.remove(child)
            self.hear(expected)
            return
        function = restart_child if what == "restart" else delete_child
        if child.up:
            with pytest.raises(beam.ChildRunning):
                function(self.pid, child.label)
            return
        function(self.pid, child.label)
        if what == "delete":
            self.model.children.remove(child)
        else:
            self.hear(child.start())

    @invariant()
    def the_real_tree_is_the_model(self):
        if not hasattr(self, "model"):
            return
        if self.model.up:
            self.compare(self.pid, self.model)
        else:
            assert self.pid.exit_reason == "shutdown"

    def compare(self, pid, node):
        until(lambda: self.listed(pid) == [(child.label, child.up) for child in node.children])
        for child in node.children:
            if isinstance(child, Node) and child.up:
                self.compare(beam.whereis(self.name(child.label)), child)

    @staticmethod
    def listed(pid):
        return [(id_, isinstance(child, beam.Pid)) for id_, child, _ in which_children(pid)]

    def teardown(self):
        if hasattr(self, "pid") and self.pid.alive:
            beam.stop(self.pid, timeout=5)
            assert self.news.take(len(ended := self.model.stop(None))) == ended
            self.news.nothing_more()


Tree.TestCase.settings = settings(
    max_examples=100, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)


class TestTree(Tree.TestCase):
    """B-61..B-65, B-67, B-68: any tree, any crashes."""
