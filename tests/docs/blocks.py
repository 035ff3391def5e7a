"""The fenced blocks of a Markdown page, and what is to be done with each.

What a fence says decides:

- `python` is run, in order, all blocks of a page in one namespace; with `title="name.py"` it is also written
  to that file first;
- `sh` is run line by line, but for lines that end in a comment `# needs ...`;
- `text` right after one of these is what it prints;
- `json` is parsed;
- nothing: a picture; it must not look like a command or a program.

A block of one line `--8<-- "path"` is a file, which has a test of its own. `<!-- not run: reason -->` on the
line before a fence exempts the block.
"""

import pathlib
import re
import textwrap
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGES = sorted(
    path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if "generated" not in path.parts
)

_FENCE = re.compile(
    r"(?:^[ ]*<!-- not run: (?P<reason>[^\n]+?) -->\n\n?)?"
    r"^(?P<indent>[ ]*)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_INCLUDED = re.compile(r'--8<-- "(?P<path>[^"]+)"')


@dataclass
class Block:
    """One fenced block."""

    line: int
    language: str
    code: str
    title: str | None = None
    not_run: str | None = None
    included: list[str] = field(default_factory=list)
    output: str | None = None
    """What the page says it prints."""


def blocks_of(text: str) -> list[Block]:
    """Every block of a page, in order."""
    blocks: list[Block] = []
    end = 0
    for found in _FENCE.finditer(text):
        info = found["info"].strip()
        language = info.split(" ", 1)[0]
        title = re.search(r'title="([^"]+)"', info)
        code = textwrap.dedent(found["code"])
        adjoins = blocks and not text[end : found.start()].strip()
        end = found.end()
        if language == "text" and adjoins and blocks[-1].language in {"python", "sh"}:
            blocks[-1].output = code
            continue
        blocks.append(
            Block(
                line=text.count("\n", 0, found.start("code")) + 1,
                language=language,
                code=code,
                title=title and title[1],
                not_run=found["reason"],
                included=[match["path"] for match in _INCLUDED.finditer(code)],
            )
        )
    return blocks
