"""Every guarantee on the page about the runtime names a test file that there is."""

import re

from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "explanation" / "runtime-semantics.md"


def test_every_guarantee_names_its_proof():
    text = PAGE.read_text(encoding="utf-8")
    rows = [row for row in re.findall(r"^\| (.*) \|$", text, re.MULTILINE) if not row.startswith("what ")]
    proven = [row for table in text.split("\n\n") if "proved in |" in table for row in table.splitlines()[2:]]

    assert len(rows) > 40
    for row in proven:
        files = re.findall(r"`([\w/]+\.py)`", row.rsplit("|", 2)[1])
        assert files, row
    for file in re.findall(r"`([\w/]+/test_\w+\.py)`", text):
        assert (ROOT / "tests" / file).is_file(), file
