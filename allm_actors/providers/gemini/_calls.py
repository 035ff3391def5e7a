"""Reading the tool calls of an answer: whole ones, and those whose arguments are streamed."""

from dataclasses import dataclass
from typing import Any

from allm_actors.providers._assembly import Assembly
from allm_actors.providers._partial_call import NOTHING, PartialCall
from allm_actors.providers.gemini._partial_args import PartialArguments
from allm_actors.providers.gemini._signatures import THOUGHT_SIGNATURE

__all__ = ["Calls"]


@dataclass(slots=True)
class _Open:
    """A call of which more will follow."""

    call: PartialCall
    arguments: PartialArguments


class Calls:
    """Tells an assembly of the calls of one answer.

    A part without a name goes on with the call that was named last, or with the one whose id it has, for as
    long as that call has said that more will follow.
    """

    __slots__ = ("_assembly", "_open")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._open: list[_Open] = []

    def take(self, wire: dict[str, Any], signature: Any) -> None:
        """Read one `functionCall`, and the signature that stands beside it."""
        given, pieces = wire.get("args"), wire.get("partialArgs")
        more = wire.get("willContinue") is True
        opened = self._find(wire)
        if opened is not None:
            call = opened.call
            if isinstance(given, dict):
                opened.arguments.add(given)
        else:
            name = wire.get("name")
            if not isinstance(name, str) or not name:
                return  # the rest of nothing, or a call that nobody can make
            call = self._begin(wire.get("id"), name, given)
            if more or pieces is not None:
                opened = _Open(call, PartialArguments(given))
                self._open.append(opened)
        if isinstance(signature, str) and signature:
            call.facts.setdefault(THOUGHT_SIGNATURE, signature)
        if opened is None:
            return
        for piece in pieces if isinstance(pieces, list) else []:
            opened.arguments.put(piece)
        if not more:
            self._open.remove(opened)
            call.whole = opened.arguments.whole()

    def close(self) -> None:
        """Nothing follows: take what there is of the calls that are still open."""
        for opened in self._open:
            opened.call.whole = opened.arguments.whole()
        self._open.clear()

    def _begin(self, wire_id: Any, name: str, given: Any) -> PartialCall:
        call = self._assembly.new_call(whole=NOTHING if given is None else given)
        if isinstance(wire_id, str) and wire_id:
            self._assembly.identify(call, wire_id, name)
        else:
            self._assembly.identify_by_name(call, name)
        return call

    def _find(self, wire: dict[str, Any]) -> _Open | None:
        """Return the open call that a part goes on with; `None` if it begins one."""
        name, wire_id = wire.get("name"), wire.get("id")
        if isinstance(wire_id, str) and wire_id:
            for opened in self._open:
                if opened.call.wire_id == wire_id and (not name or name == opened.call.name):
                    return opened
        return self._open[-1] if self._open and not name else None
