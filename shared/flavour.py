"""In which flavour the hot modules run: as their sources, or as the machine code that ``setup.py`` makes of them."""

from typing import Final

from shared import columns

COMPILED: Final = "compiled"
SOURCES: Final = "plain Python"


def is_compiled() -> bool:
    """Return whether machine code runs: all hot modules are compiled or none is."""
    return not columns.__file__.endswith(".py")


def flavour() -> str:
    """Return the flavour in words."""
    return COMPILED if is_compiled() else SOURCES
