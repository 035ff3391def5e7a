"""OpenAI: Chat Completions, which many servers speak, and Responses."""

from allm_actors.providers.openai._adapter import OpenAI

__all__ = ["OpenAI"]
