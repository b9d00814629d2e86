"""What values a setting may take, said once beside its type: ``port: Annotated[int, Range(1, 65_535)]``.

A ``Kind`` is one field's type and limits, taken from the annotation. It reads a TOML value or the text of a flag or
an environment variable, and it can say in words what it allows. It knows nothing of files, flags or tables.
"""

import math
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both included unless ``above``, which excludes ``low``."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        # Whole numbers as they are written: ``g`` would round 9223372036854775807 up to one that is not allowed.
        low, high = (str(end) if isinstance(end, int) else f"{end:g}" for end in (self.low, self.high))
        if self.above:
            return f"above {low}" + ("" if self.high == math.inf else f" and at most {high}")
        return f"of at least {low}" if self.high == math.inf else f"from {low} to {high}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few texts."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """Texts that match ``pattern`` as a whole; ``meaning`` says so in words."""

    pattern: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Expanded:
    """Marks a text in which ``$VAR`` is replaced from the environment."""


class NotAllowedError(ValueError):
    """The value is none that the kind allows."""


T = TypeVar("T")

MEANING: Final = "meaning"
"""Key of a dataclass field's metadata: a few words for ``--help``."""


def said(meaning: str, *, default: T) -> T:
    """Return a dataclass field with its default and what it means."""
    return field(default=default, metadata={MEANING: meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The type and the limits of one setting."""

    base: type
    many: bool = False
    """A list of ``base``, kept as a tuple."""
    limits: Range | Choice | Shape | None = None
    expanded: bool = False

    def __str__(self) -> str:
        one = self._one()
        return f"a list, each item {one}" if self.many else one

    def _one(self) -> str:
        match self.limits:
            case Choice(values=values):
                quoted = [f'"{value}"' for value in values]
                return quoted[0] if len(quoted) == 1 else "one of " + ", ".join(quoted)
            case Shape(meaning=meaning):
                return meaning
            case Range() as limits:
                return f"{'an integer' if self.base is int else 'a number'} {limits}"
            case None:
                return {int: "an integer", float: "a number", bool: "true or false", str: "a text"}[self.base]

    def from_toml(self, value: object) -> Any:
        """Return ``value``, of the base type (a tuple for lists), or raise ``NotAllowedError``."""
        if not self.many:
            return self._checked(value)
        if not isinstance(value, list):
            raise NotAllowedError
        return tuple(self._checked(item) for item in value)

    def from_text(self, text: str) -> Any:
        """Return what ``text`` says (a list's items stand between commas), or raise ``NotAllowedError``."""
        if self.many:
            return tuple(self._checked(self._parsed(item.strip())) for item in text.split(",") if item.strip())
        return self._checked(self._parsed(text))

    def _parsed(self, text: str) -> object:
        if self.base is bool:
            lowered = text.strip().lower()
            if lowered not in _TRUE | _FALSE:
                raise NotAllowedError
            return lowered in _TRUE
        if self.base is str:
            return text
        try:
            return self.base(text)
        except ValueError:
            raise NotAllowedError from None

    def _checked(self, value: object) -> object:
        if self.base is float and type(value) is int and abs(value) <= sys.float_info.max:
            value = float(value)  # as serde does: an integer is accepted where a float is meant
        if type(value) is not self.base:
            raise NotAllowedError
        match self.limits, value:
            case Range() as limits, int() | float():
                fine = math.isfinite(value) and value in limits
            case Choice(values=values), str():
                fine = value in values
            case Shape(pattern=pattern), str():
                fine = re.fullmatch(pattern, value) is not None
            case _:
                fine = not isinstance(value, float) or math.isfinite(value)
        if not fine:
            raise NotAllowedError
        return value


def kinds_of(cls: type) -> Mapping[str, Kind]:
    """Return the kind of each field of the dataclass ``cls`` that is a number, text, truth value or tuple of these.

    Fields of other types (nested dataclasses, paths) are left out: whoever reads them knows them by name.
    """
    hints = get_type_hints(cls, include_extras=True)
    found = ((field.name, _kind(hints[field.name])) for field in fields(cls))
    return {name: kind for name, kind in found if kind is not None}


def _kind(hint: Any) -> Kind | None:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        present = [part for part in parts if part is not type(None)]
        return _kind(present[0]) if len(present) == 1 else None
    if origin is tuple:
        item = _kind(parts[0])
        return None if item is None else Kind(base=item.base, many=True, limits=item.limits, expanded=item.expanded)
    if origin is Annotated:
        inner = _kind(parts[0])
        if inner is None:
            return None
        limits = next((part for part in parts[1:] if isinstance(part, Range | Choice | Shape)), inner.limits)
        expanded = inner.expanded or any(isinstance(part, Expanded) for part in parts[1:])
        return Kind(base=inner.base, many=inner.many, limits=limits, expanded=expanded)
    return Kind(base=hint) if hint in (int, float, bool, str) else None
