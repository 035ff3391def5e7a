"""Making an answer's text of the call by which the model gave it."""

from typing import Any

from allm_actors.providers._assembly import Assembly
from allm_actors.providers._json import compact
from allm_actors.providers._partial_call import NOTHING

__all__ = ["Lift"]


class Lift:
    """Lifts the first call to one tool out of an answer.

    The arguments of that call are the answer's text. What else the model says is held back until it is known
    whether the call comes: if it does, that was a preamble; if not, it is the answer after all.

    Args:
        assembly: The answer in the making.
        tool: The name of the tool; `None` lifts nothing and holds nothing back.
    """

    __slots__ = ("_assembly", "_held", "_lifted", "_tool", "_whole")

    def __init__(self, assembly: Assembly, tool: str | None) -> None:
        self._assembly, self._tool = assembly, tool
        self._held: list[str] = []
        self._lifted = False
        self._whole: Any = NOTHING

    def text(self, delta: str) -> None:
        """A piece of ordinary text."""
        if self._tool is None:
            self._assembly.text(delta)
        else:
            self._assembly.hold(delta)
            self._held.append(delta)

    def claims(self, name: Any) -> bool:
        """Return whether a call of that name is no call of the answer."""
        return self._tool is not None and name == self._tool

    def begin(self, whole: Any) -> bool:
        """A claimed call appears; return whether it is the first, the one that is lifted.

        Args:
            whole: Its arguments, if the wire has them as a value. Fragments win over it.
        """
        if self._lifted:
            return False
        self._lifted, self._whole = True, whole
        return True

    def arguments(self, fragment: str) -> None:
        """A piece of the argument text of the call that is lifted."""
        self._assembly.text(fragment)

    def close(self) -> None:
        """The answer is complete: deliver what is still held back, and say what happened."""
        assembly, held = self._assembly, "".join(self._held)
        if not self._lifted:
            assembly.text(held)
            return
        if not assembly.texts:
            assembly.text(_text(self._whole) or "{}")
        assembly.facts["structured_output_tool"] = True
        if held:
            assembly.facts["preamble"] = held
        if assembly.finish_reason == "tool_calls":
            assembly.finish_reason = "stop"  # the assembly knows whether other calls remain


def _text(whole: Any) -> str:
    if whole is NOTHING:
        return ""
    return whole if isinstance(whole, str) else compact(whole)
