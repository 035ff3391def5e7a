"""`allm-actors chat`: one question or a conversation, answers as they arrive, and how fast they were.

Promises: exit code 0 for an answer, 1 for a failure (one line on standard error), 130 for Ctrl-C after the
model was halted, 141 when the reader of the output has gone away. Text goes to standard output, everything
else to standard error. Nothing a provider wrote reaches the terminal raw.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pydantic
import structlog

from allm_actors.cli._providers import open_engine
from allm_actors.cli._screen import Screen, say
from allm_actors.cli._talk import Talk, load_tools
from allm_actors.cli._terminal import one_line
from allm_actors.data import ErrorEvent, Message
from allm_actors.engine.keys import env_vars_for
from allm_actors.errors import AdapterError, AllmError, EngineError, ValidationError
from allm_actors.streaming import StreamRunner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from allm_actors.data import Event
    from allm_actors.streaming import EventStream

OK: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130
READER_GONE: Final = 141


@dataclass(frozen=True)
class Chat:
    """One run of the command, from its options to its exit code."""

    provider: str
    base_url: str | None = None
    model: str | None = None
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    session: Path | None = None
    tools: Sequence[str] = ()
    interactive: bool = False
    show_events: bool = False
    verbose: bool = False

    def run(self, prompt: str | None) -> int:
        """Ask, show, and return the exit code."""
        # What goes wrong is said once, in one line, by `_fail`; the log would say it again.
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(
                logging.DEBUG if self.verbose else logging.CRITICAL
            ),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
        try:
            if self.interactive or (prompt is None and _is_terminal(sys.stdin)):
                return self._talk(None)
            asked = _prompt(prompt)
            return self._talk(asked) if self.session is not None or self.tools else self._ask(asked)
        except KeyboardInterrupt:  # the `with` around the stream has halted the model by now
            say("halted")
            return INTERRUPTED
        except BrokenPipeError:
            _drop_output()
            return READER_GONE
        except (AllmError, OSError, ValueError) as error:
            if self.verbose and error.__cause__ is not None:
                raise
            return self._fail(error)
        except Exception as error:
            if self.verbose:
                raise
            return self._fail(error, note=f"a bug: {type(error).__name__}; --verbose shows where")

    def _ask(self, prompt: str) -> int:
        messages = [Message(role="system", content=self.system)] if self.system else []
        messages.append(Message(role="user", content=prompt))
        with open_engine(self.provider, base_url=self.base_url, model=self.model) as engine:
            stream = StreamRunner(engine).run(messages, include_raw_chunks=self.show_events, **self.options)
            with stream:
                return self._show(stream)

    def _show(self, stream: EventStream[Event]) -> int:
        screen = Screen(show_events=self.show_events)
        for event in stream:
            screen.show(event)
            if isinstance(event, ErrorEvent):
                screen.end_line()
                return self._fail(event.error)
        return OK

    def _talk(self, prompt: str | None) -> int:
        tools = load_tools(self.tools)
        with open_engine(self.provider, base_url=self.base_url, model=self.model) as engine:
            talk = Talk(
                engine.put_tools(tools),
                path=self.session,
                system=self.system,
                options={"include_raw_chunks": self.show_events, **self.options},
                show_events=self.show_events,
                fail=self._fail,
            )
            return talk.run() if prompt is None else talk.once(prompt)

    def _fail(self, error: Exception, note: str | None = None) -> int:
        hints = [note or self._hint(error), *getattr(error, "__notes__", ())]
        said = "; ".join(hint for hint in hints if hint)
        text = _text_of(error) + (f" ({said})" if said else "")
        say(f"allm-actors: {one_line(text)}", style="bold red")
        return FAILED

    def _hint(self, error: Exception) -> str | None:  # noqa: PLR0911  # one for each kind of failure
        match error:
            case EngineError(reason="missing_model"):
                return "name one with --model"
            case EngineError(reason="missing_key"):
                return "or name a server that needs no key with --base-url"
            case AdapterError(reason="network_error") if self.base_url:
                return f"does a server listen at {self.base_url}?"
            case AdapterError(reason="authentication_failed", provider=str(provider)):
                return f"check the key in {' or '.join(env_vars_for(provider))}"
            case AdapterError(status=404):
                return "check --model" + (
                    " and --base-url, version segment included" if self.base_url else ""
                )
            case AdapterError(reason="malformed_response") if self.base_url:
                return f"is {self.base_url} the address of an API, version segment included?"
            case _:
                return None


def _prompt(given: str | None) -> str:
    """Return the prompt as given, or what standard input holds."""
    prompt = _read_input() if given is None or given == "-" else given
    if not prompt.strip():
        raise ValueError("the prompt is empty: give one as an argument or on standard input")
    return prompt


def _read_input() -> str:
    if sys.stdin is None or sys.stdin.closed:
        raise ValueError("no prompt: give one as an argument or on standard input")
    if _is_terminal(sys.stdin):
        say("Type the prompt, then Ctrl-D on a line of its own.")
    return sys.stdin.read()


def _is_terminal(stream: Any) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _text_of(error: Exception) -> str:
    if isinstance(error, pydantic.ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or error.title}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
    if isinstance(error, EngineError) and error.reason == "missing_key":
        variables = " or ".join(env_vars_for(error.provider or ""))
        return f"no API key for {error.provider}: set {variables}"
    if isinstance(error, ValidationError) and error.errors:
        problems = "; ".join(f"{'.'.join(map(str, path))}: {reason}" for path, reason in error.errors)
        return f"{error.reason}: {problems}".replace("_", " ")
    return str(error) or type(error).__name__


def _drop_output() -> None:
    """Let the interpreter flush into nothing at its exit, not into the closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
