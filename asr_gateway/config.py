"""What one gateway process is told: flags, then environment, then the configuration file, as one frozen value."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from asr_gateway.core.modules import ServedModule
from asr_gateway.core.scrape import scrape_target
from asr_gateway.io.discovery import Source, discovery_source, worker_source
from shared.allowed import Kind, Shape
from shared.config import GatewayConfig, ModuleConfig, ServiceConfig
from shared.config_file import load_config
from shared.config_rules import access_problems, gateway_problems, spool_problems
from shared.errors import ConfigError
from shared.hub import locate
from shared.settings import (
    CONFIG,
    KEYS,
    LOG,
    SILENT,
    TEXT,
    Option,
    add_options,
    chosen,
    config_path,
    mistyped_variables,
    overridden,
)
from shared.settings import section_options as options_of_section
from shared.units import FRAME_RATE

DEFAULT_PATH: Final = "/api/asr-streaming"
DEFAULT_MODULE: Final = "fake"
"""What a worker with the fake model calls itself if it has no configuration file."""

_WORDS: Final = Shape(r"\S+", "a text without blanks")
_TEXTS: Final = Kind(base=str, many=True, limits=_WORDS)
_OPTIONS: Final = (
    CONFIG,
    Option(name="worker", kind=_TEXTS, help="endpoint of a worker: tcp://HOST:PORT or ipc://PATH; may be repeated"),
    Option(
        name="discover", kind=_TEXTS, help="where workers are named: dns://NAME:PORT or file://PATH; may be repeated"
    ),
    Option(name="scrape", kind=_TEXTS, help="metrics of a worker, which /metrics then includes; may be repeated"),
    KEYS,
    Option(name="module", kind=TEXT, help=f"without a configuration file: the workers' module ({DEFAULT_MODULE})"),
    LOG,
    SILENT,
)
_SECTION: Final = options_of_section(GatewayConfig, aliases={"host": ("-a", "--addr"), "port": ("-p",)})


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """All that one gateway process needs to know."""

    gateway: GatewayConfig
    modules: tuple[ServedModule, ...]
    keys: tuple[str, ...] = field(repr=False)
    sources: tuple[Source, ...]
    scrape: Mapping[str, str] = field(default_factory=dict)
    """URLs of the metrics of workers, which ``/metrics`` includes, by the label that they get."""
    static_dir: Path = Path("static")
    config_file: Path | None = None
    log_dir: Path = Path("logs")
    instance_name: str = "gateway"
    log_level: str = "info"
    is_silent: bool = False
    warnings: tuple[str, ...] = ()


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="asr-gateway",
        description="Takes WebSocket and HTTP clients, and has their audio transcribed by workers over ZeroMQ.",
        epilog="Exit status: 0 after SIGTERM, 1 wrong settings or files, 2 wrong usage, 70 a fault of its own.",
    )
    parser.add_argument("--version", action="version", version=f"asr-gateway {version('asr-streaming')}")
    parser.add_argument("--cpu", action="store_true", help="accepted for moshi-server's sake: a gateway needs no GPU")
    add_options(parser, (*_OPTIONS, *_SECTION))
    return parser


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> GatewaySettings:
    """Return the settings of this process.

    Raises:
        ConfigError: something is wrong with them; holds every problem found.
        SystemExit: ``--help``, or flags that do not exist.
    """
    args = make_parser().parse_args(arguments)
    values = chosen(args, (*_OPTIONS, *_SECTION), environ)
    problems: list[str] = []
    sources, scrape = _sources(values, problems), _scrape_targets(values.get("scrape", ()), problems)
    if problems:
        raise ConfigError(*problems)
    common: dict[str, Any] = {
        "sources": sources,
        "scrape": scrape,
        "log_level": values.get("log", "info"),
        "is_silent": values.get("silent", False),
        "warnings": mistyped_variables(environ),
    }
    if args.cpu:
        common["warnings"] += ("--cpu has no effect: a gateway needs no GPU",)
    if CONFIG.name not in values and sources:
        module = ServedModule(
            name=values.get("module", DEFAULT_MODULE), path=DEFAULT_PATH, lm="unknown", audio_tokenizer="unknown"
        )
        gateway = overridden(GatewayConfig(), values)
        settings = GatewaySettings(gateway=gateway, modules=(module,), keys=values.get(KEYS.name, ()), **common)
    else:
        settings = _from_file(config_path(values), values, environ, common)
    _check(settings)
    return settings


def _from_file(
    path: Path, values: Mapping[str, Any], environ: Mapping[str, str], common: Mapping[str, Any]
) -> GatewaySettings:
    loaded = load_config(path, environ)
    service: ServiceConfig = loaded.service
    return GatewaySettings(
        **{**common, "warnings": (*common["warnings"], *loaded.warnings)},
        gateway=overridden(service.gateway, values),
        modules=tuple(_served(module) for module in service.modules),
        keys=(*service.authorized_ids, *values.get(KEYS.name, ())),
        static_dir=locate(service.static_dir, service.source),
        config_file=service.source,
        log_dir=Path(service.log_dir),
        instance_name=service.instance_name,
    )


def _served(module: ModuleConfig) -> ServedModule:
    return ServedModule(
        name=module.name,
        path=module.path,
        lm=module.lm_model_file,
        audio_tokenizer=module.audio_tokenizer_file,
        silence_prefix_frames=round(module.silence_prefix_s * FRAME_RATE),
    )


def _sources(values: Mapping[str, Any], problems: list[str]) -> tuple[Source, ...]:
    sources: list[Source] = []
    for read, name in ((worker_source, "worker"), (discovery_source, "discover")):
        for text in values.get(name, ()):
            try:
                sources.append(read(text))
            except ConfigError as error:
                problems.extend(error.problems)
    return tuple(sources)


def _scrape_targets(texts: Sequence[str], problems: list[str]) -> dict[str, str]:
    targets: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for text in texts:
        try:
            name, url = scrape_target(text)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        if name in targets:
            # Their series would have the same labels, and those of one would hide the other's.
            problems.append(
                f"scrape {text!r}: {by_name[name]!r} is called {name!r} too; NAME=URL gives it another name"
            )
            continue
        targets[name], by_name[name] = url, text
    return targets


def _check(settings: GatewaySettings) -> None:
    # Once more for what flags and variables have changed.
    problems = [*access_problems(settings.keys, settings.gateway), *gateway_problems(settings.gateway)]
    if not settings.sources:
        problems.append("no worker: give --worker tcp://HOST:PORT, --discover dns://NAME:PORT, or set ASR_WORKER")
    problems += spool_problems(settings.gateway)
    if problems:
        raise ConfigError(*problems)
