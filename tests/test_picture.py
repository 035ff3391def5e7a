"""The picture of the README shows what the service that it was drawn from does today."""

import html
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
GENERATED = ROOT / "docs" / "generated"


def shape(text):
    """What stays the same from one run to the next: no numbers of processes, no times, no order of siblings."""
    text = re.sub(r"up [\d.]+ s", "up", text).replace("(running", "(waiting")
    lines = re.sub(r"(?<=\w) \d+(?= [('])", "", text).splitlines()
    return sorted(re.sub(r"[├└]", "+", line) for line in lines)


def test_the_picture_is_that_of_the_service(tmp_path):
    for name in ("service.py", "service.svg"):
        (tmp_path / name).write_bytes((GENERATED / name).read_bytes())
    kept = (tmp_path / "service.svg").read_text(encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", tmp_path / "service.py"],
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8", timeout=50, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")

    drawn = [html.unescape(re.sub("<[^>]+>", "", line)) for line in re.findall("<text .*?</text>", kept)]
    assert shape("\n".join(drawn)) == shape(run.stdout)
    assert "http" not in kept.replace("http://www.w3.org/2000/svg", "")  # it fetches nothing
