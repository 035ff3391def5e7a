"""Every check of the conformance suite can fail: a broken adapter fails its check, and no other."""

import ast
import functools
import importlib
import inspect
import pathlib
import threading
import traceback

import pytest

from allm_actors import testing

from .broken import BROKEN, BROKEN_VALUES
from .reference import ReferenceCase

CHECKS = ("answers", "failures", "resources", "values")
VALUE = "test_the_adapter_is_a_value"
ALL = {name: (check, {"kind": cls}, cls.only is not None) for name, check, cls in BROKEN}
ALL |= {cls.__name__: (VALUE, {"adapter": cls}, True) for cls in BROKEN_VALUES}


class TestReference(ReferenceCase):
    """What does everything right passes every check."""


def cases(case):
    """Every case of every check: its id, the name of the method and its arguments."""
    for name, method in inspect.getmembers(case, inspect.ismethod):
        if name.startswith("test_"):
            marks = [mark for mark in getattr(method, "pytestmark", []) if mark.name == "parametrize"]
            if not marks:
                yield name, name, {}
            for mark in marks:
                argument, values = mark.args
                for value in values:
                    yield f"{name}[{value}]", name, {argument: value}


@functools.cache
def failures(broken):
    """The cases that an adapter fails, each with the places in the suite where it did.

    An adapter that is broken in one scenario only is the reference in all others, which passes: it is spared
    the waits for the times of those.
    """
    check, changes, elsewhere_sound = ALL[broken]
    make = type("Case", (ReferenceCase,), changes)
    failed, threads = {}, []

    def run(identity, name, values):
        try:
            getattr(make(), name)(**values)
        except (Exception, pytest.fail.Exception) as error:
            places = traceback.extract_tb(error.__traceback__)
            failed[identity] = [(pathlib.Path(place.filename).stem, place.lineno) for place in places]

    for identity, name, values in cases(make()):
        if name != "test_silence_ends_in_a_timeout":
            run(identity, name, values)
        elif identity == check or not elsewhere_sound:
            threads.append(threading.Thread(target=run, args=(identity, name, values)))
            threads[-1].start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return failed


@pytest.mark.parametrize("broken", ALL)
def test_a_broken_adapter_fails_its_check_and_no_other(broken):
    """C-91."""
    check, _, _ = ALL[broken]

    assert set(failures(broken)) == {check}


def test_every_check_has_an_adapter_that_fails_it():
    """C-91."""
    every = {identity for identity, _, _ in cases(ReferenceCase())}

    assert {check for check, _, _ in ALL.values()} == every
    assert len(ALL) == len(BROKEN) + len(BROKEN_VALUES)


def test_every_assertion_has_an_adapter_that_fails_it():
    """C-91: and not just the first of a check."""
    hit = {place for broken in ALL for places in failures(broken).values() for place in places}

    for part in CHECKS:
        module = importlib.import_module(f"{testing.__name__}._conformance_{part}")
        path = pathlib.Path(module.__file__)
        assertions = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Assert | ast.Raise)
        ]
        assert assertions
        idle = [
            f"{path.name}:{node.lineno}: {ast.unparse(node)}"
            for node in assertions
            if not any((path.stem, line) in hit for line in range(node.lineno, (node.end_lineno or 0) + 1))
        ]
        assert idle == []
