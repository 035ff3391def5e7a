"""The adapters: a scripted fake, and the providers behind HTTP."""

from allm_actors.providers.anthropic import Anthropic
from allm_actors.providers.fake import Fake
from allm_actors.providers.gemini import Gemini
from allm_actors.providers.llama import Llama
from allm_actors.providers.openai import OpenAI

__all__ = ["Anthropic", "Fake", "Gemini", "Llama", "OpenAI"]
