"""One table of a TOML file being read: every key is asked for once, and whatever is wrong is written down, not raised.

    [modules.asr]  batch_size = "64"   ->   errors:   [modules.asr] batch_size = "64": must be an integer of at least 1
                   batchsize = 64      ->   warnings: [modules.asr] batchsize: unknown key, ignored; did you mean ...

So that one reading finds all problems. It knows TOML's types and where a value stands; it knows no key by name.
"""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, TypeVar

from shared.allowed import Kind, NotAllowedError, kinds_of

_VARIABLE: Final = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_SHOWN_CHARS: Final = 60
_Section = TypeVar("_Section")


@dataclass(slots=True)
class Findings:
    """What was found wrong while reading one file."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class TomlTable:
    """A table and its place in the file; keys that nobody asks for are found by ``finish``."""

    def __init__(
        self, data: Mapping[str, object], place: str, *, findings: Findings, environ: Mapping[str, str], ours: bool
    ) -> None:
        self._data = data
        self.place = place
        self._findings = findings
        self._environ = environ
        self._ours = ours
        self._known: set[str] = set()

    def read(self, cls: type, *, but: str = "", hidden: str = "") -> dict[str, Any] | None:
        """Return what is written for the plain fields of the dataclass ``cls``, all but the field ``but``.

        Fields that are tables are left out, as are keys that are not written and have a default. None if a value is
        wrong or missing: the findings say which. The value of the key ``hidden`` is never shown.
        """
        values: dict[str, Any] = {}
        required = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        complete = True
        for key, kind in kinds_of(cls).items():
            if key == but or (key not in self._data and key not in required):
                self._known.add(key)
                continue
            value = self.value(key, kind, hidden=key == hidden)
            if value is None:
                complete = False
            values[key] = value
        return values if complete else None

    def value(self, key: str, kind: Kind, *, hidden: bool = False) -> Any | None:
        """Return the value under ``key``; None, and a finding, if it is missing or not allowed."""
        self._known.add(key)
        if key not in self._data:
            self.complain(key, f"is missing: {kind}")
            return None
        try:
            value = kind.from_toml(self._data[key])
            return kind.from_toml(self._expand(value)) if kind.expanded else value
        except NotAllowedError:
            self.complain(key, f"must be {kind}{_wrong_items(self._data[key], kind)}", hidden=hidden)
        except KeyError as missing:
            self.complain(key, f"the environment variable {missing.args[0]} is not set")
        return None

    def raw(self, key: str) -> object:
        """Return what stands under ``key``, unchecked; None if nothing does."""
        self._known.add(key)
        return self._data.get(key)

    def expect(self, key: str, *allowed: object, required: bool = False) -> None:
        """Complain unless the value under ``key``, if there is one, is among ``allowed`` (empty: must not be there)."""
        self._known.add(key)
        wanted = " or ".join(toml_text(value) for value in allowed) or "absent"
        if key not in self._data:
            if required:
                self.complain(key, f"is missing: only {wanted} is supported")
            return
        value = self._data[key]
        if not any(type(value) is type(one) and value == one for one in allowed):
            self.complain(key, f"only {wanted} is supported")

    def ignore(self, *keys: str) -> None:
        """Accept ``keys`` with any value: they have no effect here."""
        self._known.update(keys)

    def table(self, key: str, *, required: bool = False, ours: bool | None = None) -> "TomlTable | None":
        """Return the table under ``key``; None if there is none, which is a finding if ``required``."""
        self._known.add(key)
        value = self._data.get(key)
        if isinstance(value, dict):
            place = f"{self.place}.{key}" if self.place else key
            inherited = self._ours if ours is None else ours
            return TomlTable(value, place, findings=self._findings, environ=self._environ, ours=inherited)
        if key in self._data:
            self.complain(key, "must be a table")
        elif required:
            self.complain(key, "is missing: a table")
        return None

    def build(self, key: str, cls: type[_Section], *, ours: bool | None = None) -> _Section | None:
        """Return the table under ``key`` as a ``cls``; None if there is none or if something in it is wrong."""
        table = self.table(key, ours=ours)
        if table is None:
            return None
        values = table.read(cls)
        table.finish()
        return None if values is None else cls(**values)

    def tables(self) -> dict[str, "TomlTable"]:
        """Return every entry as a table; an entry that is none is a finding."""
        found = {key: self.table(key, ours=False) for key in self._data}
        return {key: table for key, table in found.items() if table is not None}

    def finish(self) -> None:
        """Report the keys that nobody asked for: errors in tables of ours, else warnings. Values are not shown."""
        for key in self._data:
            if key in self._known:
                continue
            close = difflib.get_close_matches(key, self._known, n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            line = f"{self._label(key)}: unknown key"
            if self._ours:
                self._findings.errors.append(line + (hint or f"; known are {', '.join(sorted(self._known))}"))
            else:
                self._findings.warnings.append(f"{line}, ignored{hint}")

    def complain(self, key: str, problem: str, *, hidden: bool = False) -> None:
        """Add an error about ``key``, with its value if it has one that may be shown."""
        if key not in self._data:
            self._findings.errors.append(f"{self._label(key)} {problem}")
            return
        value = "" if hidden else f" = {toml_text(self._data[key])}"
        self._findings.errors.append(f"{self._label(key)}{value}: {problem}")

    def _label(self, key: str) -> str:
        return f"[{self.place}] {key}" if self.place else key

    def _expand(self, text: str) -> str:
        # moshi-server's rule, which knows no ``${VAR}`` and leaves hf:// references alone; but where it puts nothing
        # for a variable that is not set, and so looks for "/model.safetensors", we say so.
        if text.startswith("hf://"):
            return text
        return _VARIABLE.sub(lambda match: self._environ[match[1]], text)


def _wrong_items(value: object, kind: Kind) -> str:
    """Say which items of a list are not allowed: it may be long, or none of it may be shown."""
    if not kind.many or not isinstance(value, list):
        return ""
    wrong = []
    for number, item in enumerate(value, start=1):
        try:
            kind.from_toml([item])
        except NotAllowedError:
            wrong.append(str(number))
    return f"; not so: item {', '.join(wrong)}" if wrong else ""


def toml_text(value: object) -> str:
    """Return ``value`` as a TOML file would say it, cut to a line's length."""
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = json.dumps(value, ensure_ascii=False)
        case dict():
            text = "{...}"
        case list():
            text = f"[{', '.join(toml_text(item) for item in value)}]"
        case _:
            text = str(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
