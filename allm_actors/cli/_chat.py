"""`allm-actors chat`: one question, its answer as it arrives, and how fast it was.

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
from rich.console import Console
from rich.text import Text

from allm_actors.cli._meter import Meter
from allm_actors.cli._providers import open_engine
from allm_actors.cli._terminal import one_line, printable, write
from allm_actors.data import ErrorEvent, Message, MessageCompleted, TextDelta
from allm_actors.errors import AdapterError, AllmError, EngineError, ValidationError
from allm_actors.streaming import StreamRunner

if TYPE_CHECKING:
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
            return self._ask(_prompt(prompt))
        except KeyboardInterrupt:  # the `with` around the stream has halted the model by now
            _say("halted")
            return INTERRUPTED
        except BrokenPipeError:
            _drop_output()
            return READER_GONE
        except (AllmError, OSError, ValueError) as error:
            return self._fail(error)
        except Exception as error:
            if self.verbose:
                raise
            return self._fail(error, note=f"a bug: {type(error).__name__}; --verbose shows where")

    def _ask(self, prompt: str) -> int:
        messages = [Message(role="system", content=self.system)] if self.system else []
        messages.append(Message(role="user", content=prompt))
        with open_engine(self.provider, base_url=self.base_url, model=self.model) as engine:
            meter = Meter()
            stream = StreamRunner(engine).run(messages, include_raw_chunks=self.show_events, **self.options)
            with stream:
                return self._show(stream, meter)

    def _show(self, stream: EventStream[Event], meter: Meter) -> int:
        ends_with_newline = True
        for event in stream:
            if self.show_events:
                write(_event_line(event, meter.elapsed()))
            match event:
                case TextDelta(delta=text):
                    meter.piece()
                    if not self.show_events:
                        shown = printable(text)
                        write(shown)
                        ends_with_newline = shown.endswith("\n") if shown else ends_with_newline
                case ErrorEvent(error=error):
                    if not ends_with_newline:
                        write("\n")
                    return self._fail(error)
                case MessageCompleted(usage=usage, finish_reason=reason):
                    if not ends_with_newline:
                        write("\n")
                    cut = "" if reason in {"stop", None} else f" · ended by {reason}"
                    _say(meter.report(usage) + cut)
                case _:
                    pass
        return OK

    def _fail(self, error: Exception, note: str | None = None) -> int:
        hint = note or self._hint(error)
        text = _text_of(error) + (f" ({hint})" if hint else "")
        _say(f"allm-actors: {one_line(text)}", style="bold red")
        return FAILED

    def _hint(self, error: Exception) -> str | None:
        match error:
            case EngineError(reason="missing_model"):
                return "name one with --model"
            case EngineError(reason="missing_key"):
                return "set OPENAI_API_KEY, or name a server that needs no key with --base-url"
            case AdapterError(reason="network_error") if self.base_url:
                return f"does a server listen at {self.base_url}?"
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
    if sys.stdin.isatty():
        _say("Type the prompt, then Ctrl-D on a line of its own.")
    return sys.stdin.read()


def _event_line(event: Event, elapsed: float) -> str:
    body = event.model_dump_json(exclude={"type"}, exclude_defaults=True)
    return f"{elapsed:9.3f} s  {event.type:<20} {printable(body)}\n"


def _text_of(error: Exception) -> str:
    if isinstance(error, pydantic.ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or error.title}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
    if isinstance(error, ValidationError) and error.errors:
        problems = "; ".join(f"{'.'.join(map(str, path))}: {reason}" for path, reason in error.errors)
        return f"{error.reason}: {problems}".replace("_", " ")
    return str(error) or type(error).__name__


def _say(text: str, style: str = "dim") -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(text, style=style))


def _drop_output() -> None:
    """Let the interpreter flush into nothing at its exit, not into the closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
