"""Tools of a module, for pickle to find."""

from allm_actors.data import tool


@tool
def shout(text: str) -> str:
    """Make it loud."""
    return text.upper()


@tool(name="loud")
def named(text: str) -> str:
    return text.upper()
