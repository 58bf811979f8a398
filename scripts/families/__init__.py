"""The families of problems we wrote, by name. To add one, write it into a theme file; nothing else changes."""

from . import arithmetic, digits, lists, sequences, strings, times, words
from .base import Family

__all__ = ["FAMILIES", "Family"]

_THEMES = (arithmetic, digits, lists, sequences, strings, times, words)

FAMILIES: dict[str, Family] = {family.name: family for theme in _THEMES for family in theme.FAMILIES}
