"""``asr transcribe``: audio files through a running service, as text, JSON or subtitles."""

import argparse
import asyncio
import math
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from asr_cli.audio_file import STANDARD_INPUT, AudioFile
from asr_cli.live_client import Service, transcribe_by_post, transcribe_live
from asr_cli.output import printing, shown
from asr_cli.transcript_output import RENDERERS, SUFFIXES, LiveWords, StatusLine, View
from asr_cli.usage import UsageError
from shared.allowed import Kind, Shape
from shared.settings import TEXT, Option, add_options, chosen
from shared.transcript import ABOUT_WORDS, timed_words

DEFAULT_URL: Final = "http://127.0.0.1:8080"
DEFAULT_KEY: Final = "public_token"
"""The key of the demo model's configuration, and of the published ones."""

URL: Final = Option(name="url", kind=TEXT, help=f"address of the service ({DEFAULT_URL})")
KEY: Final = Option(
    name="key",
    kind=Kind(base=str, limits=Shape(r"[^\x00-\x1f\x7f]+", "a text in one line, as it is sent in a header")),
    help=f"one of its authorized_ids ({DEFAULT_KEY})",
    is_secret=True,
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "transcribe",
        description="Send audio files of any format that libsndfile reads to a running service and print the words.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add_options(parser, (URL, KEY))
    parser.add_argument("--format", choices=sorted(RENDERERS), default="text", help="of the output (default: text)")
    parser.add_argument(
        "--rtf",
        type=speed,
        default=0.0,
        metavar="X",
        help="seconds of audio to send in a second, 1 is live; not with --post (default: as fast as it is taken)",
    )
    parser.add_argument("--post", action="store_true", help="send each file as it is, in one POST request")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="write files into DIR instead of printing")
    parser.set_defaults(run=run)


def speed(text: str) -> float:
    """Return the number that ``--rtf`` was given.

    Raises:
        argparse.ArgumentTypeError: it is none above 0.
    """
    try:
        rtf = float(text)
    except ValueError:
        rtf = math.nan
    if not 0 < rtf < math.inf:
        message = f"must be a number above 0, not {text}"
        raise argparse.ArgumentTypeError(message)
    return rtf


def run(args: argparse.Namespace) -> int:
    """Transcribe the files one after another; an unreadable one is found before any is sent."""
    check_subtitles(args)
    check_flags(args)
    audio_files = [AudioFile(path, keep=args.post) for path in args.files]
    if args.output_dir is not None:
        check_names(args.files)
        with writing(args.output_dir):
            args.output_dir.mkdir(parents=True, exist_ok=True)
    service = chosen_service(args, os.environ)
    for audio in audio_files:
        transcribe_file(audio, service, args)
    return 0


def chosen_service(args: argparse.Namespace, environ: Mapping[str, str]) -> Service:
    """Return the service that the flags name, else the variables.

    Raises:
        ConfigError: the key is none.
    """
    # To a gateway the same variable gives all keys, and some only as hashes, which open no door.
    keys = [key for item in environ.get(KEY.variable, "").split(",") if (key := item.strip())]
    first = next((key for key in keys if not key.startswith("sha256:")), "")
    values = chosen(args, (URL, KEY), {**environ, KEY.variable: first})
    return Service(url=values.get(URL.name, DEFAULT_URL), key=values.get(KEY.name, DEFAULT_KEY))


def check_subtitles(args: argparse.Namespace) -> None:
    """See to it that subtitles of several files are not run together: players read no such file.

    Raises:
        UsageError: they would be.
    """
    if args.format in {"srt", "vtt"} and len(args.files) > 1 and args.output_dir is None:
        message = f"--format {args.format} takes one file, or --output-dir DIR, where each gets subtitles of its own"
        raise UsageError(message)


def check_flags(args: argparse.Namespace) -> None:
    """See to it that all that was asked for can be done.

    Raises:
        UsageError: it cannot.
    """
    if args.post and args.rtf:
        message = f"--rtf {args.rtf:g}: with --post a file goes as fast as the service takes it; leave one of them out"
        raise UsageError(message)
    if (count := args.files.count(STANDARD_INPUT)) > 1:
        message = f"{STANDARD_INPUT}: given {count} times, but standard input comes only once"
        raise UsageError(message)


def check_names(files: Sequence[Path]) -> None:
    """See to it that no result overwrites another.

    Raises:
        UsageError: two files differ only in their folders or endings.
    """
    by_stem: dict[str, Path] = {}
    for path in files:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            both = f"{shown(other)} and {shown(path)}"
            message = f"{both} would be written to the same file; transcribe them into different folders"
            raise UsageError(message)


def transcribe_file(audio: AudioFile, service: Service, args: argparse.Namespace) -> None:
    """Transcribe one file and put the result where it belongs."""
    live = args.format == "text" and args.output_dir is None
    name = shown(audio.path.name)
    view: View = LiveWords(sys.stdout) if live else StatusLine(sys.stderr, name=name, duration_s=audio.duration_s)
    started_at = time.monotonic()
    try:
        told = asyncio.run(receive_words(audio, service, args, view, keep=not live))
    except (UsageError, KeyboardInterrupt):
        with printing():
            view.break_off()
        raise
    with printing():
        view.end(time.monotonic() - started_at)
    if live:
        return
    text = RENDERERS[args.format](audio.path, audio.duration_s, timed_words(told))
    if args.output_dir is None:
        with printing():
            sys.stdout.write(text)
            sys.stdout.flush()
    else:
        result = args.output_dir / audio.path.with_suffix(SUFFIXES[args.format]).name
        with writing(result):
            write_whole(result, text)


def write_whole(path: Path, text: str) -> None:
    """Write a file; where that fails, what lay there before stays and nothing is left behind.

    Raises:
        OSError: it cannot be written.
    """
    # A name of its own: what is long enough for a file system with its suffix would be too long with another.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says about ``path`` into words for the user.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        message = f"{shown(path)}: cannot be written: {error.strerror}"
        raise UsageError(message) from error


async def receive_words(
    audio: AudioFile, service: Service, args: argparse.Namespace, view: View, *, keep: bool
) -> list[Mapping[str, Any]]:
    """Return the messages about words, if they are to be kept; the view sees every message as it comes.

    Nothing else is kept: there is a ``Step`` for each frame, and speech on standard input may never end.
    """
    told: list[Mapping[str, Any]] = []

    def take(message: Mapping[str, Any]) -> None:
        if keep and message["type"] in ABOUT_WORDS:
            told.append(message)
        with printing():
            view.show(message)

    if args.post:
        for message in await transcribe_by_post(audio, service):
            take(message)
    else:
        await transcribe_live(audio.pieces(), service, rtf=args.rtf, on_message=take)
    return told
