"""What a catalog makes of a request."""

import types

import pytest

from allm_actors.data import Image, ImagePart, Message, ModelRef, Request, Tool, Usage, json_schema, user
from allm_actors.engine import capability
from allm_actors.engine.capability import lookup, populate_costs, preflight, select, set_catalog
from allm_actors.errors import CatalogError, FieldError, ValidationError
from allm_actors.providers.fake import Fake


class Catalog:
    def __init__(self, **known):
        self.known = known

    def lookup(self, model):
        return self.known.get(model)

    def select(self, require, prefer):
        return ("selected", require, prefer)


class Broken:
    def lookup(self, model):
        raise RuntimeError("catalog is down")


class TwoPass(Fake):
    provider = "two-pass"

    def requires_structured_finalize(self, request):
        return True


@pytest.fixture(autouse=True)
def no_catalog():
    yield
    set_catalog(None)


def model(**capabilities):
    return ModelRef(provider="p", id="m", capabilities=capabilities)


TOOL = Tool(name="t", description="", schema={})
IMAGE = Message(role="user", content=[ImagePart(image=Image.from_url("https://example.com/x.png"))])
EVERYTHING = Request(messages=[IMAGE], tools=[TOOL], response_format=json_schema("s", {}), model="m")
NOTHING_WORKS = model(tools={"enabled": False}, json_native=False, vision=False)


def test_everything_a_model_lacks_is_reported_in_order():  # P-151
    set_catalog(Catalog(m=NOTHING_WORKS))
    with pytest.raises(ValidationError) as caught:
        preflight(EVERYTHING, Fake())
    assert caught.value.reason == "unsupported_capability"
    assert caught.value.errors == [
        FieldError(("tools",), "tools_disabled"),
        FieldError(("response_format",), "json_native_disabled"),
        FieldError(("vision",), "vision_disabled"),
    ]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Request(messages=[user("x")], tools=[TOOL], model="m"), "tools_disabled"),
        (
            Request(messages=[user("x")], response_format=json_schema("s", {}), model="m"),
            "json_native_disabled",
        ),
        (Request(messages=[user("x"), IMAGE], model="m"), "vision_disabled"),
        (Request(messages=[user("x")], model="m"), None),
        (Request(messages=[user("x")], response_format={"type": "json_object"}, model="m"), None),
        (Request(messages=[user("x")], response_format="text", model="m"), None),
    ],
)
def test_only_what_is_asked_for_is_checked(request_, reason):  # P-151
    set_catalog(Catalog(m=NOTHING_WORKS))
    if reason is None:
        assert preflight(request_, Fake()) is request_
        return
    with pytest.raises(ValidationError) as caught:
        preflight(request_, Fake())
    assert [problem.reason for problem in caught.value.errors] == [reason]


@pytest.mark.parametrize(
    "capabilities",
    [
        {},
        {"tools": None, "json_native": None, "vision": None},
        {"tools": {}, "json_native": "no", "vision": 0},
        {"tools": False, "json_native": {}, "vision": []},
        {"tools": {"enabled": None}},
        {"tools": {"enabled": 0}},
        {"tools": {"enabled": True}, "json_native": True, "vision": True},
    ],
)
def test_what_is_absent_or_of_another_shape_rejects_nothing(capabilities):  # P-151, K-128
    set_catalog(Catalog(m=model(**capabilities)))
    assert preflight(EVERYTHING, Fake()) is EVERYTHING


def test_without_a_catalog_or_with_an_unknown_model_nothing_is_checked():  # P-151
    assert preflight(EVERYTHING, Fake()) is EVERYTHING
    set_catalog(Catalog(other=NOTHING_WORKS))
    assert preflight(EVERYTHING, Fake()) is EVERYTHING


def test_a_model_reference_brings_its_capabilities_along():  # K-128, P-151
    with pytest.raises(ValidationError):
        preflight(EVERYTHING.model_copy(update={"model": NOTHING_WORKS}), Fake())


def test_a_catalog_that_raises_knows_nothing_and_is_logged_once(monkeypatch):  # P-150
    records = []
    monkeypatch.setattr(capability, "_registered", capability._Registered())
    log = types.SimpleNamespace(warning=lambda *args, **fields: records.append(args))
    monkeypatch.setattr(capability, "_log", log)
    set_catalog(Broken())
    for _ in range(3):
        assert lookup("m") is None
        assert preflight(EVERYTHING, Fake()) is EVERYTHING
    assert records == [("catalog.lookup_failed",)]
    set_catalog(None)


def test_the_catalog_selects():  # K-127, P-150
    with pytest.raises(CatalogError) as caught:
        select()
    assert caught.value.reason == "catalog_not_loaded"
    set_catalog(Catalog())
    assert select("r", "p") == ("selected", "r", "p")


def test_an_adapter_that_takes_two_passes_marks_a_copy():  # P-152, C-47
    marked = preflight(EVERYTHING, TwoPass())
    assert marked is not EVERYTHING
    assert marked == EVERYTHING.model_copy(update={"structured_finalize": True})
    assert EVERYTHING.structured_finalize is False
    assert preflight(marked, TwoPass()) is marked


def test_what_is_rejected_is_not_marked():  # P-152
    asked = []

    class Asked(Fake):
        provider = "asked"

        def requires_structured_finalize(self, request):
            asked.append(request)
            return True

    set_catalog(Catalog(m=NOTHING_WORKS))
    with pytest.raises(ValidationError):
        preflight(EVERYTHING, Asked())
    assert asked == []


def test_the_check_takes_no_list_from_the_script():  # P-154
    fake = Fake(script=[("text", "x")])
    preflight(EVERYTHING, fake)
    assert fake.calls_made == 0


PRICED = ModelRef(provider="p", id="m", pricing={"input": 2.0, "output": 10})


@pytest.mark.parametrize(
    ("usage", "costs"),
    [
        ({"input_tokens": 1_000_000, "output_tokens": 500_000}, (2.0, 5.0, 7.0)),
        ({"input_tokens": 10, "output_tokens": 0, "cached_input_tokens": 9}, (2e-5, 0.0, 2e-5)),
        ({"input_tokens": 1_000_000}, (2.0, None, None)),
        (
            {"input_tokens": 1_000_000, "output_tokens": 1, "input_cost": 0.5, "total_cost": 9.0},
            (0.5, 1e-5, 9.0),
        ),
        ({"output_cost": 1.0, "input_tokens": 1_000_000}, (2.0, 1.0, 3.0)),
        ({}, (None, None, None)),
    ],
)
def test_missing_costs_are_filled_and_given_ones_kept(usage, costs):  # P-153, K-130
    priced = populate_costs(Usage(**usage), PRICED)
    assert (priced.input_cost, priced.output_cost, priced.total_cost) == pytest.approx(costs)


@pytest.mark.parametrize("pricing", [{}, {"input": None}, {"input": "2", "output": True}])
def test_without_prices_costs_stay_unknown(pricing):  # P-153
    usage = Usage(input_tokens=1, output_tokens=1)
    assert populate_costs(usage, ModelRef(provider="p", id="m", pricing=pricing)) == usage
    assert populate_costs(usage, None) is usage
