"""The commands and their options, as typer reads them."""

from __future__ import annotations

import enum
import sys
from pathlib import Path  # noqa: TC003  (typer reads the annotation)
from typing import Annotated

import typer

from allm_actors._version import __version__
from allm_actors.cli._chat import Chat

app = typer.Typer(
    help="Stream a language model's answer through supervised processes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Provider(enum.StrEnum):
    """Who answers."""

    ANTHROPIC = "anthropic"
    FAKE = "fake"
    GEMINI = "gemini"
    LOCAL = "local"
    OPENAI = "openai"


_IN_PROCESS = (Provider.FAKE, Provider.LOCAL)


def _version(asked: bool) -> None:  # noqa: FBT001  # typer's calling convention
    if asked:
        sys.stdout.write(f"allm-actors {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def chat(  # noqa: PLR0913  # one parameter for each option
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask. Without it, or with '-': standard input.")
    ] = None,
    *,
    provider: Annotated[
        Provider | None,
        typer.Option(
            metavar="NAME",
            help="Who answers: local, openai, anthropic, gemini or fake. 'local': a small model on this "
            "machine. 'openai': OpenAI, or any server that speaks its "
            "Chat Completions (see --base-url). 'anthropic', 'gemini': these, with a key in "
            "ANTHROPIC_API_KEY or GEMINI_API_KEY. 'fake': a scripted server on loopback. "
            "Default: openai if --base-url is given, else local.",
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Base URL of a compatible server, e.g. http://localhost:11434/v1. It speaks as OpenAI does, "
            "or as the provider that is named.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model's name; for 'local' the path of a GGUF file."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message to put before the prompt.")] = None,
    session: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the conversation in this file, and go on with it if it is there.",
            dir_okay=False,
        ),
    ] = None,
    tools: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py|MODULE",
            help="A Python file or module whose tools the model may use; may be given several times.",
        ),
    ] = None,
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive",
            "-i",
            help="Turn after turn, one line each. Default without a prompt at a terminal.",
        ),
    ] = False,
    temperature: Annotated[float | None, typer.Option(help="How freely words are chosen, 0 to 2.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest answer, in tokens.")] = None,
    show_events: Annotated[
        bool, typer.Option("--show-events", help="Show every event, one a line, instead of the text.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Let the library's log through, to standard error.")
    ] = False,
) -> None:
    """Ask a model, once or turn after turn, and show its answers as they arrive.

    Prints the time to the first token and the tokens per second after each, on standard error.

    Asked once, Ctrl-C halts the model (exit code 130), and a failure is one line (exit code 1).

    In a conversation Ctrl-C halts the answer and keeps the session; Ctrl-D ends it.
    """
    if interactive and prompt is not None:
        raise typer.BadParameter("takes no prompt: type it when asked", param_hint="--interactive")
    chosen = provider or (Provider.OPENAI if base_url else Provider.LOCAL)
    if base_url is not None and chosen in _IN_PROCESS:
        raise typer.BadParameter(
            f"needs --provider openai, anthropic or gemini, not {chosen.value}", param_hint="--base-url"
        )
    code = Chat(
        provider=chosen.value,
        base_url=base_url,
        model=model,
        system=system,
        options={
            name: value
            for name, value in (("temperature", temperature), ("max_tokens", max_tokens))
            if value is not None
        },
        session=session,
        tools=tools or (),
        interactive=interactive,
        show_events=show_events,
        verbose=verbose,
    ).run(prompt)
    raise typer.Exit(code)


@app.command()
def top(
    target: Annotated[
        str | None,
        typer.Argument(help="Process id or socket of the program. Without it: the only one that publishes."),
    ] = None,
    *,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one snapshot and end.")] = False,
) -> None:
    """Watch a program's processes: what restarts, what is stuck, who waits for whom.

    The program has to call allm_actors.beam.publish().

    Ctrl-C ends the view, not the program.
    """
    from rich.console import Console

    from allm_actors.cli._top import NothingToWatchError, find, watch

    try:
        watch(find(target), interval=interval, once=once, console=Console())
    except NothingToWatchError as error:
        typer.echo(f"allm-actors: {error}", err=True)
        raise typer.Exit(1) from None
