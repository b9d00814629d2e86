"""What one worker process is told: flags, then environment, then the configuration file, as one frozen value."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from asr_worker.model.fake_speech import MAX_CODEBOOKS, FakeSettings
from shared.allowed import Choice, Kind, Range, Shape
from shared.config import ModuleConfig, ServiceConfig, WorkerConfig
from shared.config_file import load_config
from shared.errors import ConfigError
from shared.settings import (
    CONFIG,
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

FAKE: Final = "fake"

_COUNT: Final = Kind(base=int, limits=Range(0))
_PORT: Final = Kind(base=int, limits=Range(0, 65_535))
# ZeroMQ takes for a port what begins like one, and of a large number what is left in 16 bits.
_PORT_OR_ANY: Final = r"(\*|[0-9]{1,4}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3[0-5]))))"
_ENDPOINT: Final = Kind(
    base=str,
    limits=Shape(rf"tcp://.+:{_PORT_OR_ANY}|ipc://.+", "tcp://HOST:PORT, PORT from 0 to 65535, or ipc://PATH"),
)

_OPTIONS: Final = (
    CONFIG,
    Option(name="module", kind=TEXT, help="NAME of the [modules.NAME] to serve, if the file has several"),
    Option(name="bind", kind=_ENDPOINT, help="where gateways connect: tcp://HOST:PORT (port 0: a free one) or ipc://PATH"),
    Option(name="measure_only", kind=Kind(base=bool), help="only time steps, print as JSON what was found, and end"),
    Option(name="announce", kind=TEXT, help="file that the endpoint is written to once the worker is ready"),
    Option(name="metrics_port", kind=_PORT, help="port of /metrics, /healthz and /readyz; 0: a free one"),
    Option(name="metrics_host", kind=TEXT, help="address of the metrics port (127.0.0.1)"),
    Option(
        name="model",
        kind=Kind(base=str, limits=Choice((FAKE,))),
        help='"fake": a model without weights that says words computed from the audio',
    ),
    Option(name="fake_slots", kind=_COUNT, help="slots of the fake model (8, or the file's batch_size)"),
    Option(name="fake_heads", kind=_COUNT, help="its pause heads, 0 to 4 (4, or as in the file)"),
    Option(name="fake_codebooks", kind=_COUNT, help="its codebooks (8, or as in the file)"),
    Option(name="fake_delay", kind=_COUNT, help="its delay in frames (6, or as in the file); 32 as the 2.6B model"),
    Option(name="fake_context", kind=_COUNT, help="frames that its words depend on (128)"),
    Option(name="fake_step_ms", kind=Kind(base=float, limits=Range(0.0)), help="how long its steps take at least (0)"),
    Option(name="fake_row_ms", kind=Kind(base=float, limits=Range(0.0)), help="and longer for each session (0)"),
    Option(name="fake_fail_at_step", kind=_COUNT, help="the step from which on its device fails (never)"),
    Option(name="fake_word", kind=Kind(base=str, many=True), help="a word that it may say, instead of made-up ones"),
    LOG,
    SILENT,
)  # fmt: skip
_SECTION: Final = options_of_section(WorkerConfig, aliases={})

_FAKE_FIELDS: Final = {
    "fake_slots": "n_slots",
    "fake_heads": "n_heads",
    "fake_codebooks": "n_codebooks",
    "fake_delay": "delay_frames",
    "fake_context": "context_frames",
    "fake_step_ms": "step_ms",
    "fake_row_ms": "row_ms",
    "fake_fail_at_step": "fail_at_step",
    "fake_word": "words",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """All that one worker process needs to know."""

    bind: str
    is_measuring: bool
    """Only find out how many sessions the device holds."""
    worker: WorkerConfig
    module_name: str
    module: ModuleConfig | None
    """None for the fake model without a configuration file."""
    fake: FakeSettings | None
    source: Path
    """The configuration file, which relative paths are looked for beside."""
    log_dir: Path
    instance_name: str
    log_level: str
    is_silent: bool
    secrets: tuple[str, ...]
    announce: Path | None
    metrics_host: str
    metrics_port: int | None
    warnings: tuple[str, ...]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="asr-worker",
        description="One model on one device: takes audio frames from gateways over ZeroMQ and answers with words.",
        epilog="Exit status: 0 after SIGTERM; 1 wrong settings or files; 2 wrong usage; 3 a mistake of ours; "
        "70 the device failed.",
    )
    parser.add_argument("--version", action="version", version=f"asr-worker {version('asr-streaming')}")
    parser.add_argument("--cpu", dest="device", action="store_const", const="cpu", default=argparse.SUPPRESS,
                        help="same as --device cpu")  # fmt: skip
    add_options(parser, (*_OPTIONS, *_SECTION))
    return parser


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> WorkerSettings:
    """Return the settings of this process.

    Raises:
        ConfigError: something is wrong with them; holds every problem found.
        SystemExit: ``--help``, or flags that do not exist.
    """
    args = make_parser().parse_args(arguments)
    values = chosen(args, (*_OPTIONS, *_SECTION), environ)
    is_measuring = values.get("measure_only", False)
    if "bind" not in values and not is_measuring:
        message = "no endpoint: give --bind tcp://HOST:PORT or set ASR_BIND"
        raise ConfigError(message)
    is_fake = values.get("model") == FAKE
    loaded = None if is_fake and CONFIG.name not in values else load_config(config_path(values), environ)
    service = loaded.service if loaded else None
    module = _module(service, values.get("module")) if service else None
    worker = overridden(service.worker if service else WorkerConfig(), values)
    return WorkerSettings(
        bind=values.get("bind", ""),
        is_measuring=is_measuring,
        worker=worker,
        module_name=module.name if module else values.get("module", FAKE),
        module=module,
        fake=_fake(values, module) if is_fake else None,
        source=service.source if service else Path(),
        log_dir=Path(service.log_dir if service else "logs"),
        instance_name=service.instance_name if service else FAKE,
        log_level=values.get("log", "info"),
        is_silent=values.get("silent", False),
        secrets=tuple(str(key) for key in service.authorized_ids) if service else (),
        announce=Path(values["announce"]) if "announce" in values else None,
        metrics_host=values.get("metrics_host", "127.0.0.1"),
        metrics_port=values.get("metrics_port"),
        warnings=(*mistyped_variables(environ), *(loaded.warnings if loaded else ())),
    )


def _module(service: ServiceConfig, name: str | None) -> ModuleConfig:
    try:
        return service.module(name)
    except KeyError:
        names = ", ".join(module.name for module in service.modules)
        wrong = "there are several modules: choose one" if name is None else f"there is no module {name!r}"
        message = f"--module: {wrong}; {service.source} has {names}"
        raise ConfigError(message) from None


def _fake(values: Mapping[str, Any], module: ModuleConfig | None) -> FakeSettings:
    fields: dict[str, Any] = {}
    if module is not None:
        heads = module.model.extra_heads
        fields = {
            "n_slots": module.batch_size,
            "n_heads": heads.num_heads if heads else 0,
            "n_codebooks": min(module.model.audio_codebooks, MAX_CODEBOOKS),
            "delay_frames": module.delay_frames,
        }
    fields |= {field: values[name] for name, field in _FAKE_FIELDS.items() if name in values}
    try:
        return FakeSettings(**fields)
    except ValueError as error:
        raise ConfigError(str(error)) from error
