"""The page about errors knows every error there is, and no other."""

import re

from allm_actors import errors
from allm_actors.errors import AllmError
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "how-to" / "deal-with-errors.md"


def _classes():
    named = {name: getattr(errors, name) for name in errors.__all__}
    return {
        name: kind
        for name, kind in named.items()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not AllmError
    }


def _legal(kind):
    if issubclass(kind, AllmError):
        return set(kind.legal_reasons())
    return set(errors.ImageSourceReason.__args__)


def _described():
    """Class to reason to the cells beside it, as the page has them."""
    described = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, body = section.split("\n", 1)
        rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", body, re.MULTILINE)
        if title.endswith("Error"):
            assert len({reason for reason, *_ in rows}) == len(rows), f"{title}: a reason stands there twice"
            described[title] = {reason: cells for reason, *cells in rows}
    return described


def test_every_class_of_error_has_a_section():
    assert set(_described()) == set(_classes())


def test_every_reason_is_explained_with_what_to_do():
    for name, kind in _classes().items():
        rows = _described()[name]

        assert set(rows) == _legal(kind), name
        for reason, (happened, to_do) in rows.items():
            assert len(happened.split()) >= 3, (name, reason)
            assert to_do.strip(), (name, reason)


def test_what_the_library_repeats_is_what_the_page_says():
    """The page names the first four reasons as those that are retried."""
    from allm_actors import Retry

    assert list(_described()["AdapterError"])[:4] == Retry().retry_on
