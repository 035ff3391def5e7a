"""What may reach a terminal: text that a provider wrote, with everything a terminal would obey made visible.

Promises that no escape sequence, control character or text-direction override of a provider is passed on;
newline and tab are.
"""

import sys
from typing import Final

_PICTURES: Final = 0x2400  # U+2400... are the pictures of the control characters U+0000...
_REPLACEMENT: Final = "\ufffd"
_BIDI: Final = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))

_VISIBLE: Final[dict[int, str]] = {
    **{code: chr(_PICTURES + code) for code in range(0x20) if chr(code) not in "\n\t"},
    ord("\r"): "",  # half of a CRLF, or a way to overwrite a line
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), _REPLACEMENT),
    **dict.fromkeys(_BIDI, _REPLACEMENT),
    **dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT),
}
_LONGEST_LINE: Final = 600


def printable(text: str) -> str:
    r"""Return `text` with control characters replaced.

    >>> printable("red: \x1b[31m")
    'red: ␛[31m'
    """
    return text.translate(_VISIBLE)


def one_line(text: str) -> str:
    r"""Return `text` as one line of bounded length.

    >>> one_line("first\n  second")
    'first second'
    """
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def write(text: str) -> None:
    """Write to standard output at once, as far as its encoding goes.

    Raises:
        OSError: There is none, or it takes no more.
    """
    out = sys.stdout
    if out is None:
        raise OSError("standard output is closed")
    encoding = out.encoding or "utf-8"
    out.write(text.encode(encoding, "replace").decode(encoding))
    out.flush()
