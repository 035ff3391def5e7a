"""Every block of code in the documentation runs, and prints what the page says."""

import os
import re
import subprocess
import sys

import pytest

from tests.docs.blocks import PAGES, ROOT, blocks_of

EXEMPT: dict[str, str] = {}
"""Pages with a block that is not run, and the reason their marker gives. Keep it empty."""


def _name(page):
    return str(page.relative_to(ROOT))


RUNNABLE = [
    page
    for page in PAGES
    if any(
        block.language in {"python", "sh", "json"} and not block.included
        for block in blocks_of(page.read_text(encoding="utf-8"))
    )
]


@pytest.mark.parametrize("page", RUNNABLE, ids=_name)
def test_the_code_of_a_page_runs(page, tmp_path, tmp_path_factory):
    """A reader who types what a page shows sees what the page shows, and no warning."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    # A page that publishes its processes shall be the only program that does; a socket's path has to be short.
    runtime = tmp_path_factory.mktemp("run")
    environment["XDG_RUNTIME_DIR"] = str(runtime)

    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.docs.run_page", str(page)],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert not re.search(r"^Exception|Warning\b", run.stderr, re.MULTILINE), run.stderr


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_no_block_is_exempt_in_silence(page):
    """What is not run is a picture, a file with a test of its own, or carries a marker that is listed here."""
    for block in blocks_of(page.read_text(encoding="utf-8")):
        where = f"{_name(page)}:{block.line}"
        assert block.language in {"python", "sh", "json", "text", ""}, where
        if block.language in {"", "text"}:
            assert block.language == "", f"{where}: a text block follows the code that prints it"
            assert not re.search(
                r"^(\$ |import |from \w+ import|allm-actors |pip |make |python3? )", block.code, re.MULTILINE
            ), f"{where}: this is no picture"
        for path in block.included:
            assert (ROOT / path).is_file(), f"{where}: {path}"
            assert path.startswith(("examples/", "tests/")), f"{where}: {path} has no test"
        assert (block.not_run is None) or EXEMPT.get(_name(page)) == block.not_run, where


def test_each_page_says_what_it_is_for():
    """A title, then a sentence: a reader knows from the first line whether to go on."""
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# "), _name(page)
        first = next(line for line in lines[1:] if line)
        if page.parent.name != "reference":
            assert re.match(r"[A-Z`\[].*[.:]", first), f"{_name(page)} begins with {first!r}"


class TestTheTestItself:
    """What would let a wrong page pass."""

    @pytest.mark.parametrize(
        ("page", "complaint"),
        [
            ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "-2\n+1"),
            ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", "the block failed"),
            ("```python\nimport warnings; warnings.warn('old')\n```\n", "UserWarning: old"),
            ("```sh\nallm-actors chat --no-such-option\n```\n", "exits with 2"),
            ("```sh\nallm-actors chat 'x' # needs patience\n```\n", "is no reason not to run a line"),
            ("```sh\ncurl http://example.com\n```\n", "neither run nor known not to be: 'curl'"),
            ("```sh\necho 3\n```\n\n```text\n4\n```\n", "-4\n+3"),
            ("```json\n{]\n```\n", "JSONDecodeError"),
            ("- a list\n\n    ```python\n    assert False\n    ```\n", "the block failed"),
        ],
    )
    def test_what_is_wrong_is_found(self, page, complaint, tmp_path):
        path = tmp_path / "page.md"
        path.write_text(page, encoding="utf-8")

        run = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.docs.run_page", str(path)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            encoding="utf-8",
            timeout=50,
            check=False,
        )

        assert run.returncode == 1
        assert complaint in run.stderr

    def test_a_marker_needs_a_reason_and_is_seen(self):
        (block,) = blocks_of("<!-- not run: it is a dream -->\n```python\nx\n```\n")

        assert block.not_run == "it is a dream"

    def test_output_after_prose_is_nobodys(self):
        code, text = blocks_of("```python\nx = 1\n```\n\nAnd:\n\n```text\n1\n```\n")

        assert code.output is None
        assert text.language == "text"
