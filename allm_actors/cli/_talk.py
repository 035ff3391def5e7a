"""A conversation at the terminal: turn after turn, with tools, kept in a file if one is named.

Promises: the file is written after every turn, whole or not at all. Ctrl-C while the model works halts the
turn and keeps the session as it then stands; at the prompt it ends the conversation. A question that a tool
puts is answered at the prompt, and so is a call that waits for a person; asked once, both are shown.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from allm_actors.chat import Session
from allm_actors.cli._screen import Screen, say
from allm_actors.cli._terminal import one_line, printable
from allm_actors.data import ErrorEvent, Message, Thread, Tool, compact_json
from allm_actors.data import validation as validate
from allm_actors.errors import AllmError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from allm_actors.chat import SessionStream
    from allm_actors.data import ToolCall
    from allm_actors.engine import Engine

__all__ = ["Talk", "load_tools"]

OK: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130


class Talk:
    """One conversation.

    Args:
        engine: Who answers, its tools among it.
        path: The session's file; `None` to keep nothing.
        system: A system message for a conversation that is new.
        options: Those of each request.
        show_events: Show every event, one a line, in place of the text.
        fail: Says what went wrong, and gives the exit code.

    Raises:
        OSError: The file cannot be read, or there is no place for it.
        pydantic.ValidationError: There is no session in it.
        ValidationError: The session in it does not agree with itself.
    """

    def __init__(  # noqa: PLR0913
        self,
        engine: Engine,
        *,
        path: Path | None,
        system: str | None,
        options: dict[str, Any],
        show_events: bool,
        fail: Callable[[Exception], int],
    ) -> None:
        self._engine, self._path = engine, path
        self._options, self._show_events, self._fail = options, show_events, fail
        self.session = _load(path, system)

    def once(self, text: str) -> int:
        """One turn of the user's; the exit code."""
        if self.session.status == "awaiting_tools":
            names = ", ".join(call.name for call in self.session.pending_tool_calls)
            raise ValueError(f"calls wait for an answer ({names}): give it without a prompt, at the terminal")
        code = self._turn(Session.stream_reply, text)
        self._show_question()
        for call in self.session.pending_tool_calls:
            self._show_call(call)
        if self.session.status in ("awaiting_user", "awaiting_tools"):
            how = "the same --session and no prompt" if self._path is not None else "--interactive"
            say(f"that waits for an answer: give it with {how}")
        return code

    def run(self) -> int:
        """Turn after turn, until the input ends; the exit code."""
        say("Ctrl-D ends the conversation, Ctrl-C an answer.")
        try:
            while True:
                while self.session.status == "awaiting_tools":
                    if not self._answer_calls():
                        return OK
                self._show_question()
                text = _read("> ")
                if text is None:
                    return OK
                if text.strip():
                    self._turn(Session.stream_reply, text)
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            return INTERRUPTED

    # --- one turn -------------------------------------------------------------------------------------

    def _turn(self, open_: Callable[..., SessionStream[Session]], *given: Any) -> int:
        try:
            stream = open_(self._engine, self.session, *given, **self._options)
        except AllmError as error:
            return self._fail(error)
        screen, fold = Screen(show_events=self._show_events), stream.reducer()
        failure, code = None, OK
        try:
            with stream:
                for event in stream:
                    fold.apply(event)
                    screen.show(event)
                    if isinstance(event, ErrorEvent):
                        failure = event.error
        except KeyboardInterrupt:
            code = INTERRUPTED
        finally:
            self._keep(fold.finalize()[0])
        screen.end_line()
        if code == INTERRUPTED:
            say("halted")
        elif failure is not None:
            code = self._fail(failure)
        return code

    def _keep(self, session: Session) -> None:
        # A session in an error goes on from where it stands: the person at the terminal has read of it.
        self.session = Session.reset_error(session) if session.status == "error" else session
        if self._path is not None:
            _write(self._path, self.session.model_dump_json(indent=1) + "\n")

    # --- what waits for a person ----------------------------------------------------------------------

    def _show_question(self) -> None:
        if self.session.pending_question is None:
            return
        say(printable(self.session.pending_question), style="bold")
        if self.session.ask_user_options:
            say(one_line(compact_json(self.session.ask_user_options)))

    def _show_call(self, call: ToolCall) -> None:
        say(one_line(f"{call.name} {compact_json(call.arguments)}"), style="bold")

    def _answer_calls(self) -> bool:
        """Have the pending calls answered, then go on; `False` when the input ends first."""
        for call in self.session.pending_tool_calls:
            self._show_call(call)
            answer = _read("its result: ")
            if answer is None:
                return False
            self._keep(Session.submit_tool_result(self.session, call.id, answer))
        self._turn(Session.stream_continue)
        return True


def load_tools(names: Sequence[str]) -> list[Tool]:
    """Give the tools that Python files and modules define.

    Raises:
        ValueError: One of them defines none, or cannot be imported; `__cause__` is why.
    """
    tools: list[Tool] = []
    for name in names:
        try:
            module = _module(name)
        except Exception as error:
            what = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            hint = "" if name.endswith(".py") else "; the name of a file ends in .py"
            raise ValueError(f"the tools of {name} cannot be had: {what}{hint}") from error
        found = [value for value in vars(module).values() if isinstance(value, Tool)]
        if not found:
            raise ValueError(f"{name} defines no tool: make one with @allm_actors.tool")
        tools += [tool for tool in found if tool not in tools]
    return tools


def _module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _read(prompt: str) -> str | None:
    """A line of standard input, `None` at its end."""
    if sys.stdin is None or sys.stdin.closed:
        return None
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # lines can be edited, and earlier ones called back
        try:
            return input(prompt)
        except EOFError:
            sys.stderr.write("\n")  # the line of the prompt is not ended by whoever types Ctrl-D
            return None
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _load(path: Path | None, system: str | None) -> Session:
    if path is not None and path.exists():
        try:
            session = Session.model_validate_json(path.read_text(encoding="utf-8"))
            validate.session(session)
        except (ValueError, ValidationError) as error:
            error.add_note(f"{path} holds no session that can go on: name another file, or remove it")
            raise
        return Session.reset_error(session) if session.status == "error" else session
    if path is not None and not os.access(path.resolve().parent, os.W_OK):
        raise OSError(f"{path} cannot be written: {path.resolve().parent} is no directory that can be")
    first = [Message(role="system", content=system)] if system else []
    return Session(id=path.stem if path is not None else None, thread=Thread(messages=first))


def _write(path: Path, text: str) -> None:
    """Replace a file's content, whole or not at all; one that is new can be read by its owner only."""
    path = path.resolve()  # a link stays a link
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        with contextlib.suppress(OSError):
            shutil.copymode(path, temporary)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
