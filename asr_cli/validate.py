"""``asr validate FILE...``: says whether configuration files are fit to run, without starting or downloading anything.

One line for each file that is, all the problems of each file that is not. Exit status 0 only if every file is fit.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from asr_cli.output import printing, shown
from shared.config import GatewayConfig, ModuleConfig
from shared.config_file import load_config
from shared.config_rules import access_problems, gateway_problems, spool_problems
from shared.errors import CheckpointError, ConfigError
from shared.hub import find, parse_reference, places
from shared.settings import KEYS, chosen, overridden, section_options

NO_FILE: Final = "there is no such file; looked for {places}"
NOT_FETCHED: Final = "not in {places}; asr fetch --config FILE brings it"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command's flags."""
    parser = subparsers.add_parser(
        "validate",
        description="Check configuration files without starting or downloading anything. The exit status is 0 only if "
        "every file is fit to run.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a configuration file (TOML)")
    parser.add_argument("--weights", action="store_true", help="also check that the model files are on this machine")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check every file; return 0 if all are fit to run, else 1."""
    return max(check(path, os.environ, weights=args.weights) for path in args.files)


def check(path: Path, environ: Mapping[str, str], *, weights: bool) -> int:
    """Check one file, print what was found; return 0 if it is fit to run, else 1."""
    try:
        loaded = load_config(path, environ)
        # A gateway takes the keys of both, and of its settings those of the environment first.
        values = chosen(argparse.Namespace(), (KEYS, *section_options(GatewayConfig, aliases={})), environ)
    except ConfigError as error:
        return _report(error.problems)
    service = loaded.service
    gateway, keys = overridden(service.gateway, values), (*service.authorized_ids, *values.get(KEYS.name, ()))
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    problems = [*access_problems(keys, gateway), *gateway_problems(gateway), *spool_problems(gateway)]
    if weights:
        problems += [problem for module in service.modules for problem in missing_files(module, service.source)]
    if problems:
        return _report([f"{path}: {problem}" for problem in problems])
    with printing():
        print(f"{shown(path)}: fine: {', '.join(summary(module) for module in service.modules)}", flush=True)
    return 0


def _report(problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1


def missing_files(module: ModuleConfig, source: Path) -> list[str]:
    """Return a problem for each model file that is not on this machine; the hub's are looked for in its cache.

    Args:
        module: whose files they are.
        source: the configuration file that names them.

    Raises:
        ConfigError: there is a file of the hub, and huggingface_hub is not installed.
    """
    return [
        f'[modules.{module.name}] {key} = "{reference}": {why}'
        for key in ("lm_model_file", "text_tokenizer_file", "audio_tokenizer_file")
        if (why := why_not_here(reference := getattr(module, key), source))
    ]


def why_not_here(reference: str, source: Path) -> str:
    """Say where the file that ``reference`` names was looked for in vain, and how it comes here; nothing if it is."""
    try:
        if find(reference, source) is not None:
            return ""
    except CheckpointError as error:
        return str(error).removeprefix(f"{reference}: ")
    why = NOT_FETCHED if parse_reference(reference) else NO_FILE
    return why.format(places=places(reference, source))


def summary(module: ModuleConfig) -> str:
    """Return a module in a few words."""
    return f"{module.name} at {module.path}, slots: {module.batch_size}"
