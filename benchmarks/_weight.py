"""What a client costs before it does anything: its import, its size on disk, the packages it brings along."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

CORE = ("pykka", "pydantic", "requests", "urllib3", "structlog", "tenacity", "dotenv")
USE = {
    "allm-actors": "from allm_actors import stream_generate; from allm_actors.providers import OpenAI",
    "openai": "from openai import OpenAI; OpenAI.chat",
    "anthropic": "from anthropic import Anthropic; Anthropic.messages",
    "litellm": "from litellm import completion",
    "langchain-openai": "from langchain_openai import ChatOpenAI",
    "pydantic-ai": "import pydantic_ai.direct; from pydantic_ai.models.openai import OpenAIChatModel",
}
"""What a program imports of each client to stream one answer."""
_IMPORT = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def importing(modules):
    """The statements that import these."""
    # A package that imports its parts when they are asked for is asked for the part that everybody uses.
    return "; ".join(
        f"from {name} import BaseModel" if name == "pydantic" else f"import {name}" for name in modules
    )


def seconds_of(statements):
    """How long a new interpreter takes for these statements."""
    code = _IMPORT.format(statements)
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    return float(done.stdout)


def closure(package):
    """The distributions that installing a package brings, itself included, without extras."""
    found, waiting = {}, [(package, frozenset())]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if (key, extras) in seen:
            continue
        seen.add((key, extras))
        try:
            found[key] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += list(needs(found[key], extras))
    return found


def needs(distribution, extras):
    """What a distribution requires here: names and their extras."""
    from packaging.requirements import Requirement

    for line in distribution.requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement.name, frozenset(requirement.extras)


def size(distribution):
    """Bytes on disk, compiled modules not counted: when they appear depends on the installer."""
    files = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    if _is_editable(distribution):
        import allm_actors

        files += Path(allm_actors.__file__).parent.rglob("*")
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.is_file())


def _is_editable(distribution):
    text = distribution.read_text("direct_url.json")
    return text is not None and json.loads(text).get("dir_info", {}).get("editable", False)


def weigh(package):
    """How many packages it brings besides itself, and how many bytes all of them take."""
    found = closure(package)
    return {"dependencies": len(found) - 1, "bytes": sum(map(size, found.values())), "names": sorted(found)}
