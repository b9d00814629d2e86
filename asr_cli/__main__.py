"""The command ``asr``. What the user did wrong ends it with one message; only the chosen command is loaded."""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from asr_cli.output import abandon_output, flush_output, open_closed_streams
from asr_cli.usage import UsageError
from shared.errors import AsrError, ConfigError
from shared.extras import missing_package

COMMANDS: Final = {
    "serve": "run the service on this machine: one gateway and its workers",
    "transcribe": "transcribe audio files with a running service",
    "validate": "check configuration files without starting anything",
    "fetch": "download a configuration's model files ahead of time",
    "doctor": "say what this machine can do",
}
"""Module of each command under ``asr_cli``, and what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 wrong usage, 141 nobody reads what it prints."""
    open_closed_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return run_command(words)
    except ConfigError as error:
        print("\n".join(f"asr: {problem}" for problem in error.problems), file=sys.stderr)
        return 1
    except (UsageError, AsrError) as error:
        print(f"asr: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"asr: {missing_package(error, 'cli')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        abandon_output()
        return 128 + signal.SIGPIPE


def run_command(words: Sequence[str]) -> int:
    """Run one command, see that all it printed has come out, and return its exit status."""
    try:
        args = make_parser(words[0] if words else "").parse_args(words)
    except SystemExit:  # after --help, say
        flush_output()
        raise
    status = int(args.run(args))
    flush_output()
    return status


def make_parser(chosen: str) -> argparse.ArgumentParser:
    """Return the parser of all commands; only the ``chosen`` one's module is loaded and knows its flags."""
    parser = argparse.ArgumentParser(prog="asr", description="Streaming speech-to-text: the service and its tools.")
    parser.add_argument("--version", action="version", version=f"asr {version('asr-streaming')}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        if name == chosen:
            importlib.import_module(f"asr_cli.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


if __name__ == "__main__":
    sys.exit(main())
