"""`SECURITY.md` and these tests belong together: each promise leads to its tests, each file to its promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from allm_actors.providers import _answer, _assembly, _sse

HERE = Path(__file__).parent
TEXT = (HERE.parents[1] / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = TEXT.split("## What is promised")[1].split("## What is not promised")[0]
SECTIONS = re.findall(r"^### (.+)$", PROMISES, re.MULTILINE)


@pytest.mark.parametrize("section", SECTIONS)
def test_each_promise_names_files_that_exist(section):
    files = re.findall(r"`(test_\w+\.py)`", section)
    assert files
    for file in files:
        assert re.search(r"^def test_", (HERE / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_each_file_keeps_a_promise():
    named = set(re.findall(r"`(test_\w+\.py)`", " ".join(SECTIONS)))
    assert named == {path.name for path in HERE.glob("test_*.py")} - {Path(__file__).name}


def test_other_tests_it_names_exist():
    for path in re.findall(r"`(tests/\w+/test_\w+\.py)`", TEXT):
        assert (HERE.parents[1] / path).is_file()


def test_the_limits_it_states_are_those_of_the_code():
    for written, limit in (
        ("one event of a stream | {} MiB", _sse.MAX_EVENT_BYTES),
        ("a stream, comments included | {} MiB", _answer.MAX_STREAM),
        ("a whole answer's body | {} MiB", _answer.MAX_BODY),
        ("images of one answer | {} Mi characters", _assembly.MAX_CHARACTERS),
    ):
        assert written.format(limit // 1024**2) in TEXT
    assert f"{_assembly.MAX_PARTS:,} together" in TEXT


def test_it_names_nobody_and_no_address():
    """A report goes to the repository, whoever keeps it."""
    assert not re.search(r"[\w.]+@[\w.]+|https?://(?!`| base)", TEXT)
