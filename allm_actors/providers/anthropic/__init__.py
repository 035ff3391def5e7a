"""Anthropic: the Messages API, and servers that speak it."""

from allm_actors.providers.anthropic._adapter import Anthropic

__all__ = ["Anthropic"]
