"""``asr fetch``: downloads model files ahead of time, so that everything starts offline afterwards.

    asr fetch --config FILE                    all files that the configuration names
    asr fetch hf://owner/repo/file ...         these

Files whose sums are known are checked. Progress is shown on a terminal.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from asr_cli.output import printing
from asr_cli.published import verify
from shared.config_file import load_config
from shared.errors import CheckpointError, ConfigError
from shared.hub import download, find, parse_reference, resolve

NAMED_BY_HAND: Final = Path()
"""Stands for the configuration of a file that none names."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command's flags."""
    parser = subparsers.add_parser(
        "fetch",
        description="Download model files ahead of time, so that the service starts offline. Files whose sums are "
        "known are checked. The exit status is 1 if one is missing or wrong.",
    )
    parser.add_argument("references", nargs="*", metavar="hf://OWNER/REPO/FILE", help="a file on the Hugging Face hub")
    parser.add_argument("--config", type=Path, metavar="FILE", help="fetch what this configuration names  [ASR_CONFIG]")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch every file; return 0 if all are there and right, else 1.

    Raises:
        ConfigError: nothing to fetch was named, or the configuration is wrong.
    """
    wanted = wanted_references(args.references, args.config, os.environ.get("ASR_CONFIG", ""))
    failures = [problem for reference, source in wanted.items() for problem in fetch(reference, source)]
    for problem in failures:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if failures else 0


def wanted_references(references: list[str], config: Path | None, fallback: str) -> dict[str, Path]:
    """Return what to fetch, each once, with the file that it stands in.

    Raises:
        ConfigError: nothing was named, or the configuration is wrong.
    """
    wanted = dict.fromkeys(references, NAMED_BY_HAND)
    if config is None and not wanted and fallback:
        config = Path(fallback)
    if config is not None:
        service = load_config(config, os.environ).service
        for module in service.modules:
            names = (module.lm_model_file, module.text_tokenizer_file, module.audio_tokenizer_file)
            wanted |= dict.fromkeys(names, service.source)
    if not wanted:
        message = "nothing to fetch: give --config FILE, or files as hf://owner/repo/file"
        raise ConfigError(message)
    return wanted


def fetch(reference: str, source: Path) -> tuple[str, ...]:
    """Bring one file here and check it, saying so; return the problems, none if it is there and right."""
    try:
        hub_file = parse_reference(reference)
        if hub_file is None:
            if source == NAMED_BY_HAND and find(reference, source) is None:
                return (f"{reference}: there is no such file here; one of the hub is named hf://owner/repo/file",)
            _say(f"{reference}: here, at {resolve(reference, source)}")
            return ()
        _say(f"{reference}: fetching")
        path = download(reference, hub_file)
        _say(f"{reference}: here, {path.stat().st_size:,} bytes, {verify(path, hub_file)}")
    except (ConfigError, CheckpointError) as error:
        return error.problems
    return ()


def _say(line: str) -> None:
    with printing():
        print(line, flush=True)
