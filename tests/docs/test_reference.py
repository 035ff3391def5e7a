"""Everything public is in the reference, and everything the reference names is there."""

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import zlib

import pytest

from tests.docs.blocks import PAGES, ROOT

PUBLIC = [
    "allm_actors",
    "allm_actors.beam",
    "allm_actors.chat",
    "allm_actors.data",
    "allm_actors.errors",
    "allm_actors.events",
    "allm_actors.keys",
    "allm_actors.messages",
    "allm_actors.providers",
    "allm_actors.streaming",
    "allm_actors.telemetry",
    "allm_actors.testing",
    "allm_actors.validate",
]
ELSEWHERE = {
    "allm_actors.__version__": "`allm-actors --version` says it",
    "allm_actors.chat": "the function, under the name of the module it is in: allm_actors.chat.runs.chat",
}
"""Names that the reference has in another place, or that need no entry."""


def _directives():
    """What the pages of the reference ask to be written, and the members they pick."""
    asked = {}
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^::: ([\w.]+)\n((?: {4}.*\n)*)", text + "\n", re.MULTILINE):
            members = re.search(r"members: \[(.*)\]", found[2])
            asked[found[1]] = members and members[1].split(", ")
    return asked


def _resolve(path):
    """The module of that name, or what a module has of it."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("path", sorted(_directives()))
def test_what_a_page_asks_for_exists(path):
    found = _resolve(path)

    for name in _directives()[path] or []:
        assert hasattr(found, name), f"{path}.{name}"


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """Every name that the site has an entry for."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip(
            "the site is built by zensical, of the dependency group docs, which is not installed here"
        )
    copy = tmp_path_factory.mktemp("site")
    for part in ("docs", "examples", "tests/providers/conformance", "allm_actors"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in [ROOT / "mkdocs.yml", *ROOT.glob("*.md")]:
        shutil.copy(file, copy)
    run = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=copy,
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    inventory = (copy / "site" / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory.split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines}


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_an_entry(module, described):
    names = {f"{module}.{name}" for name in importlib.import_module(module).__all__}

    assert names - described - set(ELSEWHERE) == set()


def test_what_is_elsewhere_is_there(described):
    import allm_actors
    from allm_actors.chat import runs

    assert allm_actors.chat is runs.chat
    assert "allm_actors.chat.runs.chat" in described
    assert set(ELSEWHERE) & described == set()


def test_every_page_is_in_the_navigation_once():
    """A page that nobody can find is not there."""
    navigation = re.findall(
        r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE
    )
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if (ROOT / "docs") in page.parents}

    assert sorted(navigation) == sorted(pages)
