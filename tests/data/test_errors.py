"""Errors: closed reasons, default messages, values through and through."""

import copy
import json
import math
import pickle

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from allm_actors import errors
from allm_actors.data import ErrorEvent, Response, StepResult, ToolHalt
from allm_actors.errors import (
    AdapterError,
    AllmError,
    CatalogError,
    EngineError,
    FieldError,
    ResponseError,
    SessionError,
    StreamError,
    ToolError,
    ValidationError,
)

REASONS = {
    EngineError: "missing_adapter missing_stream_adapter missing_model missing_key unknown_tool engine_down",
    AdapterError: "rate_limited provider_unavailable timeout network_error adapter_down authentication_failed "
    "invalid_request content_filter context_length_exceeded malformed_response unsupported_feature "
    "no_scripted_response unknown",
    StreamError: "cancelled timeout malformed_event unknown",
    ToolError: "handler_raised handler_exit timeout invalid_return invalid_arguments not_found encoding_failed",
    SessionError: "session_in_error_state invalid_status_for_operation unknown_tool_call_id",
    ResponseError: "non_stop_finish structured_content empty_response",
    ValidationError: "invalid_request invalid_message invalid_tool invalid_thread invalid_session "
    "unsupported_capability",
    CatalogError: "catalog_not_loaded no_match",
}
RETRYABLE = {"rate_limited", "provider_unavailable", "timeout", "network_error", "adapter_down"}
EXAMPLES = [
    EngineError("missing_key", provider="openai", metadata={"slot": "adapter"}),
    AdapterError(
        "rate_limited",
        "slow down",
        provider="x",
        status=429,
        retry_after=1.5,
        request_id="r",
        cause={"a": [1]},
    ),
    AdapterError("timeout", retry_after=math.inf),
    StreamError("malformed_event", provider="x", event_index=3),
    ToolError("timeout", tool_name="f", tool_call_id="1"),
    SessionError("unknown_tool_call_id", metadata={"tool_call_id": "9"}),
    ResponseError("non_stop_finish", metadata={"finish_reason": None}),
    ValidationError("invalid_request", [(("messages", 0), "empty"), (("tools",), "duplicate_name")]),
    ValidationError("invalid_tool", []),
    CatalogError("no_match"),
]


def build(kind, reason, **fields):
    return kind(reason, [], **fields) if kind is ValidationError else kind(reason, **fields)


@pytest.mark.parametrize("kind", REASONS, ids=lambda kind: kind.__name__)
def test_reasons_are_a_closed_set(kind):
    """C-29: the set is known, and a reason outside it is refused with the set in the message."""
    assert set(kind.legal_reasons()) == set(REASONS[kind].split())
    for reason in kind.legal_reasons():
        assert build(kind, reason).reason == reason

    for bad in ("nonsense", "", None, 5, []):
        with pytest.raises(ValueError, match=kind.legal_reasons()[0]) as caught:
            build(kind, bad)
        assert all(reason in str(caught.value) for reason in kind.legal_reasons())


def test_the_base_class_has_no_reasons_of_its_own():
    """C-29."""
    assert AllmError.legal_reasons() == ()
    with pytest.raises(ValueError):
        AllmError("timeout")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (EngineError("missing_key", provider="openai"), "engine error: missing_key"),
        (AdapterError("timeout"), "adapter error: timeout"),
        (AdapterError("timeout", provider="openai"), "adapter error (openai): timeout"),
        (StreamError("cancelled", provider="openai"), "stream error: cancelled"),
        (ToolError("timeout", tool_name="f"), "tool error (f): timeout"),
        (SessionError("session_in_error_state"), "session error: session_in_error_state"),
        (ResponseError("empty_response"), "response error: empty_response"),
        (
            ValidationError("invalid_request", [("a", "b"), ("c", "d")]),
            "validation failed: invalid_request (2 error(s))",
        ),
        (AdapterError("timeout", ""), "adapter error: timeout"),
        (AdapterError("timeout", None), "adapter error: timeout"),
        (AdapterError("timeout", "my words"), "my words"),
        (CatalogError("no_match"), "catalog error: no_match"),
    ],
)
def test_messages(error, message):
    """C-29: `str(err) == err.message`, never empty."""
    assert str(error) == error.message == message


def test_fields_have_defaults_and_are_checked():
    """C-29: an unknown field is a `TypeError`, an ill-typed one too."""
    error = AdapterError("timeout")
    assert (error.cause, error.metadata, error.provider, error.status) == (None, {}, None, None)
    assert (error.retry_after, error.request_id, error.partial) == (None, None, None)
    assert (StreamError("unknown").event_index, ToolError("timeout").tool_call_id) == (None, None)

    for kind, fields in [
        (AdapterError, {"tool_name": "x"}),
        (SessionError, {"provider": "x"}),
        (ResponseError, {"nonsense": 1}),
        (AdapterError, {"status": "429"}),
        (AdapterError, {"status": True}),
        (AdapterError, {"retry_after": "1"}),
        (AdapterError, {"retry_after": math.nan}),
        (AdapterError, {"provider": 1}),
        (AdapterError, {"message": 1}),
        (AdapterError, {"metadata": {"a": object()}}),
        (AdapterError, {"metadata": []}),
        (EngineError, {"partial": 1}),
    ]:
        with pytest.raises(TypeError):
            kind(kind.legal_reasons()[0], **fields)


def test_a_live_exception_is_no_cause():
    """C-31: a cause is JSON; the way to chain exceptions is Python's own."""
    with pytest.raises(TypeError, match=r"raise .* from"):
        AdapterError("network_error", cause=ConnectionError("x"))


@pytest.mark.parametrize("reason", AdapterError.legal_reasons())
def test_retryable_is_a_property_of_the_reason(reason):
    """C-30."""
    assert AdapterError(reason).retryable is (reason in RETRYABLE)


def test_no_other_class_is_retryable():
    """C-30: not even for a reason of the same name."""
    assert not StreamError("timeout").retryable
    assert not ToolError("timeout").retryable
    assert not any(
        build(kind, kind.legal_reasons()[0]).retryable for kind in REASONS if kind is not AdapterError
    )


@pytest.mark.parametrize("error", EXAMPLES, ids=repr)
def test_errors_are_values(error):
    """C-5, C-31: equal when class and fields are; hashable; pickled and copied they stay equal."""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error), error.replace()):
        assert again == error
        assert hash(again) == hash(error)
        assert again is not error
        assert str(again) == str(error)
        assert again.args == error.args
        assert type(again) is type(error)
    assert error != error.replace(message="other")
    assert error != error.replace(metadata={"other": 1})
    assert error != str(error)
    assert len({error, error.replace()}) == 1


def test_errors_of_different_classes_differ():
    """C-31: equal fields do not make equal errors."""

    class Special(AdapterError):
        pass

    assert Special("timeout") != AdapterError("timeout")
    assert StreamError("timeout", "m") != AdapterError("timeout", "m")


def test_field_errors_are_named_tuples_with_tuple_paths():
    """C-31: whatever the path was written as."""
    error = ValidationError(
        "invalid_request", [(["messages", 0], "empty"), ("tools", "x"), FieldError(("a", 1), "y")]
    )

    assert error.errors == [(("messages", 0), "empty"), (("tools",), "x"), (("a", 1), "y")]
    assert all(isinstance(problem, FieldError) for problem in error.errors)
    assert error.errors[0].path == ("messages", 0)
    assert error.errors[0].reason == "empty"
    assert pickle.loads(pickle.dumps(error.errors)) == error.errors


def test_partial_is_no_part_of_the_value():
    """C-32: it does not change equality, JSON or `repr`; it does survive pickle and copy."""
    error, bare = AdapterError("timeout"), AdapterError("timeout")
    error.partial = Response(output_text="half")

    assert error == bare
    assert repr(error) == repr(bare)
    assert error.to_dict() == bare.to_dict()
    assert pickle.loads(pickle.dumps(error)).partial == error.partial
    assert copy.copy(error).partial == error.partial


def raised(error):
    try:
        raise error
    except AllmError as caught:
        return caught


def test_a_model_holds_a_copy_without_traceback():
    """C-32: no traceback hangs on data, whether the error was raised before or is raised after."""
    before = raised(AdapterError("timeout"))
    after = AdapterError("timeout")
    events = [ErrorEvent(error=before), ErrorEvent(error=after)]
    raised(after)

    assert [event.error.__traceback__ for event in events] == [None, None]
    assert [event.error.__context__ for event in events] == [None, None]
    assert events[0].error == before


def test_raising_from_a_response_raises_an_equal_copy():
    """C-32: reading `text` twice does not pile up tracebacks on the response."""
    response = Response(error=AdapterError("timeout", provider="x"))

    for _ in range(2):
        with pytest.raises(AdapterError) as caught:
            _ = response.text
        assert caught.value == response.error
        assert caught.value is not response.error
    with pytest.raises(AdapterError):
        response.require_text()
    assert response.error.__traceback__ is None


def test_an_explicit_cause_is_kept_by_copies_in_models():
    """C-32: a tool's own exception stays reachable from the error that reports it."""
    error = ToolError("handler_raised")
    error.__cause__ = KeyError("x")

    assert (
        ToolHalt(tool_call_id="1", reason="tool_error", result=None, error=error).error.__cause__
        is error.__cause__
    )


def test_replace_changes_fields_and_lets_a_default_message_follow():
    """C-32: what fills in a tool's name need not know how messages are made."""
    filled = ToolError("timeout").replace(tool_name="f", tool_call_id="1")
    assert filled == ToolError("timeout", tool_name="f", tool_call_id="1")
    assert str(filled) == "tool error (f): timeout"
    assert filled.args == (str(filled),)
    assert str(ToolError("timeout", "own words").replace(tool_name="f")) == "own words"
    with pytest.raises(TypeError):
        filled.replace(status=1)
    with pytest.raises(ValueError):
        filled.replace(reason="rate_limited")


def test_metadata_is_the_errors_own():
    """C-31: a dict handed in, and the dict of a copy, can change without changing the error."""
    given_ = {"a": [1]}
    error = AdapterError("timeout", metadata=given_)
    twin = error.replace()

    given_["a"].append(2)
    twin.metadata["b"] = 1
    error.to_dict()["metadata"]["c"] = 1

    assert error.metadata == {"a": [1]}


def test_repr_shows_what_is_set():
    """C-31: and nothing that is not."""
    assert (
        repr(AdapterError("timeout", status=408))
        == "AdapterError('timeout', 'adapter error: timeout', status=408)"
    )


def test_json_form():
    """C-85: `kind`, the common fields, then the class's own."""
    assert EXAMPLES[1].to_dict() == {
        "kind": "adapter",
        "reason": "rate_limited",
        "message": "slow down",
        "cause": {"a": [1]},
        "metadata": {},
        "provider": "x",
        "status": 429,
        "retry_after": 1.5,
        "request_id": "r",
    }
    assert EXAMPLES[7].to_dict()["errors"] == [
        {"path": ["messages", 0], "reason": "empty"},
        {"path": ["tools"], "reason": "duplicate_name"},
    ]
    kinds = {kind: build(kind, kind.legal_reasons()[0]).to_dict()["kind"] for kind in REASONS}
    assert list(kinds.values()) == [
        "engine",
        "adapter",
        "stream",
        "tool",
        "session",
        "response",
        "validation",
        "catalog",
    ]


ANY = TypeAdapter(AllmError)


@pytest.mark.parametrize("error", EXAMPLES, ids=repr)
def test_errors_go_through_json_as_fields(error):
    """C-85: written and read by pydantic, on their own and inside a model."""
    assert ANY.validate_json(ANY.dump_json(error)) == error
    assert json.loads(ANY.dump_json(error))["kind"] == error.kind
    event = ErrorEvent(error=error)
    assert ErrorEvent.model_validate_json(event.model_dump_json()) == event
    assert ErrorEvent.model_validate(event.model_dump()) == event
    step = StepResult(error=error)
    again = StepResult.model_validate_json(step.model_dump_json())
    assert again == step
    assert all(isinstance(problem.path, tuple) for problem in getattr(again.error, "errors", []))


def test_a_field_of_one_class_takes_that_class_only():
    """C-85."""
    assert ToolHalt(tool_call_id="1", reason="r", result=None, error={"kind": "tool", "reason": "timeout"})
    for bad in (AdapterError("timeout"), {"kind": "adapter", "reason": "timeout"}, KeyError("x"), "timeout"):
        with pytest.raises(pydantic.ValidationError):
            ToolHalt(tool_call_id="1", reason="r", result=None, error=bad)


@pytest.mark.parametrize(
    ("form", "locs"),
    [
        ({"reason": "timeout"}, [("kind",)]),
        ({"kind": "nonsense", "reason": "timeout"}, [("kind",)]),
        ({"kind": ["x"], "reason": "timeout"}, [("kind",)]),
        ({"kind": "adapter"}, [("reason",)]),
        ({"kind": "adapter", "reason": "cancelled"}, [("reason",)]),
        ({"kind": "adapter", "reason": "timeout", "tool_name": "x"}, [("tool_name",)]),
        (
            {
                "kind": "adapter",
                "reason": "x",
                "status": "1",
                "provider": 2,
                "metadata": [],
                "message": 1,
                "retry_after": True,
            },
            [("reason",), ("status",), ("provider",), ("metadata",), ("message",), ("retry_after",)],
        ),
        (
            {"kind": "adapter", "reason": "timeout", "cause": math.nan, "metadata": {"a": math.inf}},
            [("cause",), ("metadata", "a")],
        ),
        ({"kind": "validation", "reason": "invalid_tool"}, [("errors",)]),
        ({"kind": "validation", "reason": "invalid_tool", "errors": {}}, [("errors",)]),
        (
            {
                "kind": "validation",
                "reason": "invalid_tool",
                "errors": [
                    1,
                    {"path": "x", "reason": "y"},
                    {"path": [1.5], "reason": "y"},
                    {"path": [], "reason": 1},
                    {"path": []},
                    {"path": [], "reason": "", "more": 1},
                ],
            },
            [
                ("errors", 0),
                ("errors", 1, "path"),
                ("errors", 2, "path"),
                ("errors", 3, "reason"),
                ("errors", 4, "reason"),
                ("errors", 5, "more"),
            ],
        ),
    ],
)
def test_a_wrong_json_form_is_refused_with_every_path(form, locs):
    """C-84, C-85: decoding is as strict as construction."""
    with pytest.raises(pydantic.ValidationError) as caught:
        AllmError.from_dict(form)
    assert [line["loc"] for line in caught.value.errors()] == locs

    with pytest.raises(pydantic.ValidationError) as caught:
        ErrorEvent.model_validate_json(json.dumps({"type": "error", "error": form}))
    assert [line["loc"] for line in caught.value.errors()] == [("error", *loc) for loc in locs]


def test_a_family_may_add_its_own_kind():
    """C-29, C-85: a class that declares a kind is read back as itself."""

    class WeatherError(AdapterError):
        kind = "weather"
        _reasons = (*AdapterError._reasons, "rain")

    error = WeatherError("rain", provider="sky", status=500)
    assert str(error) == "weather error (sky): rain"
    assert ErrorEvent.model_validate_json(ErrorEvent(error=error).model_dump_json()).error == error
    assert not error.retryable
    assert WeatherError("timeout").retryable
    with pytest.raises(ValueError):
        AdapterError("rain")


def test_errors_describe_themselves_in_a_json_schema():
    """C-85: a model that holds an error still has a schema."""
    assert ErrorEvent.model_json_schema()["properties"]["error"]["required"] == ["kind", "reason"]


@given(
    st.sampled_from([EngineError, AdapterError, StreamError, ToolError, SessionError, ResponseError]),
    st.data(),
    st.text(),
    st.dictionaries(
        st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), max_size=3
    ),
)
def test_any_error_survives_json_and_pickle(kind, data, message, metadata):
    """C-5, C-85."""
    error = kind(data.draw(st.sampled_from(kind.legal_reasons())), message, metadata=metadata)

    assert str(error)
    assert ANY.validate_json(ANY.dump_json(error)) == error
    assert pickle.loads(pickle.dumps(error)) == error


def test_an_error_can_always_be_written():
    """C-85: what a handler's exception says may hold what JSON cannot."""
    error = ToolError("handler_raised", "bad \ud800 text", tool_name="\udfff")

    assert str(error) == "bad \\ud800 text"
    assert ANY.validate_json(ANY.dump_json(error)) == error


def test_an_error_holds_what_it_was_told_and_nothing_of_where_it_was_made():
    """C-33: a key in a local variable does not get into an error's state or pickle."""
    api_key = "sk-canary-0123456789abcdefghij"

    error = raised(AdapterError("authentication_failed", provider="openai", status=401))

    for shown in (
        repr(error),
        str(error),
        repr(vars(error)),
        repr(pickle.dumps(error)),
        json.dumps(error.to_dict()),
    ):
        assert api_key not in shown


def test_all_names_are_exported_sorted():
    """C-29: the shop window of the module."""
    assert errors.__all__ == sorted(errors.__all__)
    assert all(hasattr(errors, name) for name in errors.__all__)
