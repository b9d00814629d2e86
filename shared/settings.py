"""Where a command's settings come from: its flags, then the environment, then the configuration file.

    --port 9000   >   ASR_PORT=9000   >   [gateway] port = 9000   >   the default

An ``Option`` is one setting that may be given as a flag and as a variable. Every key of our own tables is one, with the
same limits, so that a container can be configured without a file of its own.
"""

import argparse
import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from shared.allowed import MEANING, Choice, Kind, NotAllowedError, Shape, kinds_of
from shared.config import GatewayConfig, ServiceConfig, WorkerConfig
from shared.errors import ConfigError
from shared.logs import LEVELS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _Section = TypeVar("_Section", bound=DataclassInstance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting: ``max_body_bytes`` is ``--max-body-bytes`` and ``ASR_MAX_BODY_BYTES``.

    Truth values are switches (``--silent``, ``--no-silent``). Lists take a flag for each item, or a comma between items
    in the environment.
    """

    name: str
    kind: Kind
    help: str
    aliases: tuple[str, ...] = ()
    """Other spellings of the flag, with their dashes."""
    is_secret: bool = False
    """No message shows its value."""

    @property
    def flag(self) -> str:
        """The flag, with its dashes."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "ASR_" + self.name.upper()


TEXT: Final = Kind(base=str, limits=Shape(r"(?s).+", "a text"))
CONFIG: Final = Option(name="config", kind=TEXT, help="the configuration file (TOML)")
LOG: Final = Option(
    name="log", kind=Kind(base=str, limits=Choice(tuple(LEVELS))), help="how much is logged (info)", aliases=("-l",)
)
KEYS: Final = Option(
    name="key",
    kind=kinds_of(ServiceConfig)["authorized_ids"],
    help="a key that opens the door, beside authorized_ids; may be repeated",
    is_secret=True,
)
SILENT: Final = Option(name="silent", kind=Kind(base=bool), help="log to the file only")


_IN_NO_SECTION: Final = (
    "announce bind config discover fake_codebooks fake_context fake_delay fake_fail_at_step fake_heads fake_row_ms"
    " fake_slots fake_step_ms fake_word key log measure_only metrics_host metrics_port model module scrape silent url"
    " worker workers"
)
_ENVIRONMENT_ONLY: Final = (
    "ASR_BUILD_TIMESTAMP ASR_COMPILE ASR_GIT_BRANCH ASR_GIT_DESCRIBE ASR_GIT_HASH ASR_GIT_TIMESTAMP"
)


def known_variables() -> set[str]:
    """Return the environment variables of all commands: a container's environment may serve several."""
    sections = [name for section in (GatewayConfig, WorkerConfig) for name in kinds_of(section)]
    return {f"ASR_{name.upper()}" for name in (*sections, *_IN_NO_SECTION.split())} | {*_ENVIRONMENT_ONLY.split()}


def mistyped_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return a warning for each variable that looks like one of ours and is none; others are somebody else's."""
    known = known_variables()
    strange = sorted(name for name in environ if name.startswith("ASR_") and name not in known)
    close = [(name, difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)) for name in strange]
    return tuple(f"{name}: no command knows this variable; did you mean {best[0]}?" for name, best in close if best)


def section_options(cls: type, *, aliases: Mapping[str, tuple[str, ...]]) -> tuple[Option, ...]:
    """Return an option for each key of one of our tables (``GatewayConfig``, ``WorkerConfig``)."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    return tuple(
        Option(name=name, kind=kind, help=_about(fields[name], kind), aliases=aliases.get(name, ()))
        for name, kind in kinds_of(cls).items()
    )


def _about(field: "dataclasses.Field[Any]", kind: Kind) -> str:
    default = "" if field.default is None or field.default == "" else f"; default {field.default}"
    return f"{field.metadata[MEANING]} ({kind}{default})" if MEANING in field.metadata else f"{kind}{default}"


def add_options(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    """Add the flags of ``options`` to ``parser``; those that are not given leave no trace in the namespace."""
    for option in options:
        names = (*option.aliases, option.flag)
        about = f"{option.help}  [{option.variable}]".replace("%", "%%")
        common: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS, "help": about}
        if option.kind.base is bool:
            parser.add_argument(*names, action=argparse.BooleanOptionalAction, **common)
        else:
            word = {int: "N", float: "X", str: "TEXT"}[option.kind.base]
            parser.add_argument(*names, action="append" if option.kind.many else "store", metavar=word, **common)


def chosen(args: argparse.Namespace, options: Sequence[Option], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that were given, by name: flags, else variables. An empty variable counts as not given.

    Raises:
        ConfigError: a value is not allowed; holds every such problem.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for option in options:
        given, text = getattr(args, option.name, None), environ.get(option.variable, "")
        try:
            if given is not None:
                values[option.name] = _from_flag(option, given)
            elif text:
                values[option.name] = option.kind.from_text(text)
        except NotAllowedError:
            name, value = (option.variable, f"={text}") if given is None else (option.flag, f" {given}")
            problems.append(f"{name}{'' if option.is_secret else value}: must be {option.kind}")
    if problems:
        raise ConfigError(*problems)
    return values


def overridden(section: "_Section", values: Mapping[str, Any]) -> "_Section":
    """Return ``section`` with those of ``values`` that are keys of it in place of what the file says."""
    names = {field.name for field in dataclasses.fields(section)}
    return dataclasses.replace(section, **{name: value for name, value in values.items() if name in names})


def config_path(values: Mapping[str, Any]) -> Path:
    """Return the configuration file among the chosen settings.

    Raises:
        ConfigError: none was given.
    """
    if CONFIG.name not in values:
        message = f"no configuration file: give {CONFIG.flag} FILE or set {CONFIG.variable}"
        raise ConfigError(message)
    return Path(values[CONFIG.name])


def _from_flag(option: Option, given: object) -> Any:
    if isinstance(given, bool):
        return given
    one = Kind(base=option.kind.base, limits=option.kind.limits)
    return tuple(one.from_text(text) for text in given) if isinstance(given, list) else one.from_text(str(given))
