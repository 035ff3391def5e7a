"""Draws `service.svg`: the processes of a small service, as `beam.tree()` shows them at one moment.

    python docs/generated/service.py

The service is real: two engines with names, four answers under way, and a pool of workers, one of which has
crashed and is back, while another is stuck in code of its own and was given up.
"""

import html
import logging
import pathlib
import re
import threading

import allm_actors as allm
from allm_actors import beam
from allm_actors.events import TextDelta
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, Reply

PICTURE = pathlib.Path(__file__).with_suffix(".svg")
LINE, WIDTH, LEFT, TOP = 19, 8.43, 18, 44  # pixels; WIDTH is that of a character
COLOURS = (
    (r"'[^']*'", "#a5d6ff"),
    (r"[├└│─]+", "#6e7681"),
    (r"\([^)]*\)", "#8b949e"),
    (r"\b[A-Z]\w+", "#d2a8ff"),
    (r"\d+", "#8b949e"),
)


class Worker(beam.Process):
    """Crashes, or gets stuck, when it is told to."""

    def init(self, births: beam.Inbox, release: threading.Event) -> None:
        self.release = release
        beam.send(births, self.pid)

    def handle_cast(self, message: str) -> None:
        if message == "crash":
            raise RuntimeError(message)
        self.release.wait(timeout=60)


def tree() -> str:
    """Run the service for a moment; what its tree looks like."""
    logging.getLogger("allm_actors").setLevel(logging.CRITICAL)  # the crash is meant
    births, release = beam.Inbox(), threading.Event()
    with FakeServer(default=Reply("Well ...", fault="stall", after=2)) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any")
        with allm.start_engine(engine, name="chat"), allm.start_engine(engine, name="titles"):
            specs = [
                beam.ChildSpec(id=n, start=Worker, args=(births, release), shutdown="brutal_kill")
                for n in range(3)
            ]
            supervisor = beam.Supervisor.start(specs, name="workers")
            workers = [births.receive(timeout=5) for _ in specs]
            beam.cast(workers[0], "crash")
            births.receive(timeout=5)
            beam.cast(workers[1], "hang")
            while beam.info(workers[1])["state"] != "running":
                threading.Event().wait(0.001)
            beam.exit(workers[1], "kill")
            births.receive(timeout=5)
            with allm.Mailbox() as mailbox:
                for name in ("chat", "chat", "chat", "titles"):
                    allm.open_stream(name, "hello", into=mailbox)
                words = 0
                while words < 4:
                    words += isinstance(mailbox.get(timeout=5).event, TextDelta)
                shown = str(beam.tree())
            release.set()
            beam.stop(supervisor)
    return shown


def draw(lines: list[str]) -> str:
    """The lines in a window, as SVG: nothing is fetched, nothing runs."""
    height = TOP + LINE * len(lines) + 8
    width = int(LEFT * 2 + WIDTH * max(map(len, lines)))
    dots = "".join(
        f'<circle cx="{20 + 18 * n}" cy="18" r="6" fill="{colour}"/>'
        for n, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    text = "".join(
        f'<text x="{LEFT}" y="{TOP + LINE * n + 6}" xml:space="preserve">{_coloured(line)}</text>\n'
        for n, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' role="img" aria-label="The process tree of a small service">\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>{dots}\n'
        f'<g fill="#c9d1d9" font-size="14" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas,'
        f" 'DejaVu Sans Mono', monospace\">\n{text}</g>\n</svg>\n"
    )


def _coloured(line: str) -> str:
    pattern = "|".join(f"({expression})" for expression, _ in COLOURS)

    def span(found: re.Match[str]) -> str:
        colour = "#ff7b72" if "zombie" in found[0] else COLOURS[(found.lastindex or 1) - 1][1]
        return f'<tspan fill="{colour}">{html.escape(found[0], quote=False)}</tspan>'

    return re.sub(pattern, span, html.escape(line, quote=False))


if __name__ == "__main__":
    lines = [">>> print(beam.tree())", *tree().splitlines()]
    PICTURE.write_text(draw(lines), encoding="utf-8")
    print("\n".join(lines))
