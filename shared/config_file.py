"""Reads a configuration file: moshi-server's TOML unchanged, and our own tables beside it.

    file --tomllib--> tables --TomlTable--> dataclasses --rules across keys--> LoadedConfig
                                  '------- findings: every error and warning of the whole file

Keys and limits stand in ``config.py``, what a value may be in ``allowed.py``. This module knows the tables, and which
of moshi-server's settings the batched path supports. It looks at no file but the TOML itself.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.allowed import Choice, Kind
from shared.config import (
    ContinuousConditioner,
    ExtraHeadsConfig,
    GatewayConfig,
    LmConfig,
    LutConditioner,
    MimiConfig,
    ModuleConfig,
    ServiceConfig,
    TransformerConfig,
    WorkerConfig,
)
from shared.config_rules import gateway_problems, module_problems, route_problems
from shared.errors import ConfigError
from shared.toml_table import Findings, TomlTable

MODULE_TYPE: Final = "BatchedAsr"
_FOREIGN_TYPES: Final = ("Asr", "PyBatchedAsr", "Tts", "Mimi", "Lm", "Py", "PyPost")
_CONDITIONERS: Final[Mapping[str, type[ContinuousConditioner | LutConditioner]]] = {
    "ContinuousAttribute": ContinuousConditioner,
    "Lut": LutConditioner,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    """A configuration that is fit to run, and what looked odd in its file."""

    service: ServiceConfig
    warnings: tuple[str, ...]


def load_config(path: Path, environ: Mapping[str, str]) -> LoadedConfig:
    """Read the TOML file at ``path``; ``$VAR`` in paths and names is replaced from ``environ``.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or says something wrong; holds every problem found, each
            with the key, the value and what is allowed.
    """
    findings = Findings()
    table = TomlTable(_parse(path), "", findings=findings, environ=environ, ours=False)
    service = _service(path, table, findings)
    if service is None or findings.errors:
        raise ConfigError(*(f"{path}: {error}" for error in findings.errors))
    return LoadedConfig(service=service, warnings=tuple(f"{path}: {warning}" for warning in findings.warnings))


def _parse(path: Path) -> dict[str, object]:
    try:
        # The -sig skips the mark that some editors put before a file.
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        message = f"{path}: is no TOML: not UTF-8 at byte {error.start}"
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: an integer may have too many digits for Python, and tables be too deep.
        message = f"{path}: is no TOML: {error}"
    raise ConfigError(message)


def _service(path: Path, table: TomlTable, findings: Findings) -> ServiceConfig | None:
    # A part that is wrong is replaced by anything: its finding keeps the whole from being returned.
    plain = table.read(ServiceConfig, hidden="authorized_ids")
    gateway = table.build("gateway", GatewayConfig, ours=True) or GatewayConfig()
    worker = table.build("worker", WorkerConfig, ours=True) or WorkerConfig()
    listed = table.table("modules", required=True)
    table.finish()
    tables = listed.tables() if listed else {}
    if "" in tables:
        # A worker is told by its name which module is its own.
        findings.errors.append('[modules.""]: the name of a module must be a text of at least one character')
    if listed and not tables:
        table.complain("modules", f'must hold at least one [modules.NAME] with type = "{MODULE_TYPE}"')
    modules = tuple(filter(None, [_module(name, one) for name, one in tables.items()]))
    for module in modules:
        findings.errors += module_problems(module)
    findings.errors += gateway_problems(gateway) + route_problems(modules)
    if plain is None:
        return None
    return ServiceConfig(source=path, modules=modules, gateway=gateway, worker=worker, **plain)


def _module(name: str, table: TomlTable) -> ModuleConfig | None:
    if table.raw("type") in _FOREIGN_TYPES:
        table.complain("type", f'of moshi-server\'s modules only "{MODULE_TYPE}" is served')
        return None
    if table.value("type", Kind(base=str, limits=Choice((MODULE_TYPE,)))) is None:
        return None
    plain = table.read(ModuleConfig, but="name")
    mimi = table.build("mimi", MimiConfig, ours=True) or MimiConfig()
    model_table = table.table("model", required=True)
    model = _lm(model_table) if model_table else None
    table.finish()
    if plain is None or model is None:
        return None
    return ModuleConfig(name=name, model=model, mimi=mimi, **plain)


def _lm(table: TomlTable) -> LmConfig | None:
    plain = table.read(LmConfig)
    table.ignore("depformer")  # only models that speak step through one
    transformer_table = table.table("transformer", required=True)
    transformer = _transformer(transformer_table) if transformer_table else None
    heads = table.build("extra_heads", ExtraHeadsConfig)
    conditioners_table = table.table("conditioners")
    conditioners = _conditioners(conditioners_table) if conditioners_table else {}
    table.finish()
    if plain is None or transformer is None:
        return None
    return LmConfig(transformer=transformer, extra_heads=heads, conditioners=conditioners, **plain)


def _transformer(table: TomlTable) -> TransformerConfig | None:
    plain = table.read(TransformerConfig)
    # moshi-server takes a missing gating for none, and a missing norm or position for an error.
    table.expect("gating", "silu", required=True)
    table.expect("norm", "RmsNorm", required=True)
    table.expect("positional_embedding", "Rope", required=True)
    table.expect("causal", True)
    table.expect("norm_first", True)
    table.expect("kv_repeat", 1)
    for key in ("bias_ff", "bias_attn", "use_conv_block", "shared_cross_attn"):
        table.expect(key, False)
    for key in ("layer_scale", "cross_attention"):
        table.expect(key)
    # Without a convolution block its two settings say nothing; the ring of the batched path is as long as ``context``.
    table.ignore("use_conv_bias", "conv_layout", "conv_kernel_size", "max_seq_len")
    table.finish()
    return None if plain is None else TransformerConfig(**plain)


def _conditioners(table: TomlTable) -> dict[str, ContinuousConditioner | LutConditioner]:
    found: dict[str, ContinuousConditioner | LutConditioner] = {}
    for name, one in table.tables().items():
        kind = one.value("type", Kind(base=str, limits=Choice(tuple(_CONDITIONERS))))
        if kind is None:
            continue
        values = one.read(_CONDITIONERS[kind])
        one.finish()
        if values is not None:
            found[name] = _CONDITIONERS[kind](**values)
    return found
