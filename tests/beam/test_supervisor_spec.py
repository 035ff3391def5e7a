"""Child specs and the options of supervisors: what makes no sense is refused before anything starts."""

import dataclasses
import math

import pytest

from allm_actors import beam
from allm_actors.beam.supervisor import Backoff, ChildSpec, DynamicSupervisor, Supervisor
from tests.beam._kids import Kid, News, kid


def test_a_spec_is_a_frozen_value_with_the_defaults_of_the_field():
    """B-60"""
    spec = ChildSpec("a", Kid, args=["x"], kwargs={"news": 1})
    assert spec == ChildSpec("a", Kid, args=("x",), kwargs={"news": 1})
    assert (spec.restart, spec.shutdown, spec.type, spec.significant) == ("permanent", 5.0, "worker", False)
    assert (spec.backoff, spec.name, spec.max_zombies) == (None, None, 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.restart = "temporary"


def test_a_spec_does_not_show_its_arguments():
    assert "sesame" not in repr(ChildSpec("a", Kid, args=("sesame",), kwargs={"key": "sesame"}))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"restart": "always"}, "'permanent', 'transient', 'temporary'"),
        ({"restart": None}, "restart"),
        ({"type": "boss"}, "'worker', 'supervisor'"),
        ({"shutdown": -1}, "brutal_kill"),
        ({"shutdown": math.nan}, "shutdown"),
        ({"shutdown": "gently"}, "brutal_kill"),
        ({"shutdown": True}, "shutdown"),
        ({"significant": True}, "significant"),
        ({"significant": 1}, "significant must be True or False, not int"),
        ({"backoff": 1.0}, "a Backoff, not float"),
        ({"id": []}, "hashable"),
        ({"id": ([],)}, "hashable"),
        ({"start": "Kid"}, "callable, not str"),
        ({"args": "abc"}, "args must be a tuple, not str"),
        ({"args": 3}, "args"),
        ({"kwargs": [1]}, "kwargs must map names to values; this list"),
        ({"kwargs": {1: 2}}, "kwargs"),
        ({"name": []}, "name"),
        ({"max_zombies": 0}, "max_zombies"),
        ({"max_zombies": True}, "max_zombies"),
    ],
)
def test_wrong_values_are_refused(fields, named):
    """B-60, bad use: the error names what is allowed, or what is wrong."""
    with pytest.raises(beam.SpecError, match="child") as caught:
        ChildSpec(**{"id": "a", "start": Kid, **fields})
    assert isinstance(caught.value, ValueError)
    assert named in str(caught.value)


def test_an_unknown_field_is_refused():
    """Bad use"""
    with pytest.raises(TypeError, match="restarts"):
        ChildSpec("a", Kid, restarts="permanent")


@pytest.mark.parametrize(
    "fields",
    [
        {"initial": -1},
        {"initial": math.inf},
        {"maximum": math.nan},
        {"factor": 0.5},
        {"jitter": -0.1},
        {"jitter": 1.5},
        {"reset_after": "long"},
    ],
)
def test_a_backoff_makes_sense(fields):
    """B-66"""
    with pytest.raises(beam.SpecError):
        Backoff(**fields)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"strategy": "all_for_one"}, "'one_for_one', 'one_for_all', 'rest_for_one'"),
        ({"auto_shutdown": "sometimes"}, "'never', 'any_significant', 'all_significant'"),
        ({"max_restarts": -1}, "max_restarts"),
        ({"max_restarts": 1.5}, "max_restarts"),
        ({"max_restarts": True}, "max_restarts"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"max_seconds": "5"}, "max_seconds"),
    ],
)
@pytest.mark.parametrize("start", [Supervisor.start, Supervisor.start_link])
def test_wrong_options_are_refused_before_anything_starts(options, named, start):
    """B-60, bad use"""
    news = News()
    with pytest.raises(beam.SpecError) as caught:
        start([kid("a", news)], **options)
    assert named in str(caught.value)
    news.nothing_more()


def test_a_class_in_the_place_of_a_child_spec_is_told_how_to_make_one():
    """B-60, bad use"""
    with pytest.raises(beam.SpecError, match=r"not the class Kid; Kid\.child_spec\(\.\.\.\) makes one"):
        Supervisor.start([Kid])
    with pytest.raises(beam.SpecError, match="a list of child specs, not dict"):
        Supervisor.start({})


def test_duplicate_ids_are_refused_before_anything_starts():
    """B-60, scenario: duplicate child ids."""
    news = News()
    with pytest.raises(beam.SpecError, match="'a'"):
        Supervisor.start([kid("a", news), kid("b", news), kid("a", news)])
    news.nothing_more()


def test_a_significant_child_under_never_is_refused():
    """B-60, B-69, scenario: start refused."""
    news = News()
    with pytest.raises(beam.SpecError, match="significant"):
        Supervisor.start([kid("a", news, restart="temporary", significant=True)])
    news.nothing_more()


@pytest.mark.parametrize("children", [3, "abc", {"a": 1}, [3], [None]])
def test_children_are_child_specs(children):
    with pytest.raises(beam.SpecError):
        Supervisor.start(children)


def test_children_may_come_from_an_iterator():
    news = News()
    pid = Supervisor.start(kid(label, news) for label in "ab")
    assert news.take(2) == [("start", "a"), ("start", "b")]
    beam.stop(pid)


def test_children_may_be_given_by_name():
    news = News()
    pid = Supervisor.start(children=[kid("a", news)])
    assert news.next() == ("start", "a")
    beam.stop(pid)


def test_unknown_arguments_of_a_supervisor_are_refused():
    """Bad use: `TypeError` in the caller, no thread."""
    for start in (
        lambda: Supervisor.start([], tactics="none"),
        Supervisor.start,
        lambda: Supervisor.start([], []),
        lambda: DynamicSupervisor.start([]),
        lambda: DynamicSupervisor.start(strategy="one_for_one"),
    ):
        with pytest.raises(TypeError):
            start()


@pytest.mark.logs_errors("the start fails in init")
def test_a_subclass_that_passes_nonsense_on_does_not_start():
    class Mine(Supervisor):
        def init(self):
            super().init([], strategy="none")

    with pytest.raises(beam.StartError) as caught:
        Mine.start()
    assert isinstance(caught.value.reason.exception, beam.SpecError)


@pytest.mark.parametrize("limit", [-1, 1.5, True, "3", math.nan])
def test_the_bound_of_a_dynamic_supervisor_is_a_whole_number(limit):
    """B-70"""
    with pytest.raises(beam.SpecError, match="max_children"):
        DynamicSupervisor.start(max_children=limit)


def test_a_class_makes_its_own_spec():
    """B-60: `Process.child_spec(*args, **overrides)`."""
    spec = Kid.child_spec("a", "news", restart="transient", name="kid")
    assert spec == ChildSpec("Kid", Kid, args=("a", "news"), restart="transient", name="kid")
    assert Kid.child_spec(id=3).id == 3
    assert Supervisor.child_spec([]).type == "supervisor"
    assert Supervisor.child_spec([]).shutdown == math.inf
    with pytest.raises(beam.SpecError):
        Kid.child_spec(restart="never")
