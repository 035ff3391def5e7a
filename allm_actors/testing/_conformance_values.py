"""Checks of the adapter as a value, and of the key that is not part of it."""

from __future__ import annotations

import pickle
from typing import Any, Final

import pydantic
import pytest

from allm_actors.errors import AllmError
from allm_actors.testing._conformance_case import NAMED, Case
from allm_actors.testing._looking import listening, strings
from allm_actors.testing._scenarios import SECRETIVE

_CANARY: Final = "canary-0123456789abcdef"
"""A key that does not look like one: what is left out is left out because it is the key."""


class Values(Case):
    """An adapter is data, and a key is not."""

    def test_the_adapter_is_a_value(self) -> None:
        """It can be stored, sent to other programs and compared, and it holds no key."""
        with self._prepared(NAMED["value"]) as (adapter, _):
            kind: Any = type(adapter)
            given = {name: getattr(adapter, name) for name in adapter.model_fields_set}
            assert kind.model_validate_json(adapter.model_dump_json()) == adapter
            assert pickle.loads(pickle.dumps(adapter)) == adapter  # noqa: S301  its own bytes
            with pytest.raises(pydantic.ValidationError) as refused:
                kind(**given, api_key=_CANARY)
            assert _CANARY not in str(refused.value)

    @pytest.mark.parametrize("name", SECRETIVE)
    def test_secrets(self, name: str) -> None:
        """A key is in nothing that may be stored, shown or logged, even if the provider sends it back."""
        seen: list[Any] = []
        with listening(seen), self._shown(name, api_key=_CANARY) as (connection, request, call, _scenario):
            seen += [repr(connection), repr(call), call.model_dump_json()]
            try:
                stream = connection.stream(request, call)
                seen += [repr(stream), *stream]
            except AllmError as error:
                seen.append(error)
        with listening(seen), self._shown(name, api_key=_CANARY) as (connection, request, call, _scenario):
            try:
                seen.append(connection.generate(request, call))
            except AllmError as error:
                seen.append(error)
        assert not [text for text in strings(seen) if _CANARY in text]
