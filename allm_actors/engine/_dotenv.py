"""Reads the part of the `.env` format that every program agrees on.

`KEY=VALUE` lines, blank lines, `#` comment lines, an optional leading `export`, and one pair of
double quotes around the value. No interpolation, no escapes, no values over several lines; single
quotes belong to the value. A line of any other shape is skipped.
"""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING

from dotenv import dotenv_values

if TYPE_CHECKING:
    from pathlib import Path

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_QUOTES = 2


def read_dotenv(path: Path) -> dict[str, str]:
    """Give what the file says; nothing if there is no such file.

    Of a repeated name the last line counts.

    Raises:
        OSError: The file is there and cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return {}
    # The reader knows more of the format than is wanted here. A value in single quotes is the one
    # thing it takes as it stands, so each line that fits is handed over in that form.
    plain = "\n".join(filter(None, map(_quote, text.split("\n"))))
    found = dotenv_values(stream=StringIO(plain), interpolate=False)
    return {name: value for name, value in found.items() if value is not None}


def _quote(line: str) -> str | None:
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return None
    name, value = match.groups()
    if len(value) >= _QUOTES and value[0] == value[-1] == '"':
        value = value[1:-1]
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{name}='{escaped}'"
