"""Gemini: Google's generateContent, and servers that speak it."""

from allm_actors.providers.gemini._adapter import Gemini

__all__ = ["Gemini"]
