"""A transcript for people and programs: while it grows, on a terminal; at the end, as a file."""

import json
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

from asr_cli.output import shown
from shared.subtitles import make_cues, to_srt, to_vtt
from shared.transcript import TimedWord, plain_text
from shared.units import FRAME_RATE

STATUS_COLUMNS: Final = 78
"""At most so many are written, however wide the terminal is."""


class View(Protocol):
    """Shows a transcript while it grows."""

    def show(self, message: Mapping[str, Any]) -> None:
        """Take notice of one message of the service."""

    def end(self, elapsed_s: float) -> None:
        """Say that it is complete, and how long it took."""

    def break_off(self) -> None:
        """Make room for what went wrong: it begins a line of its own."""


class LiveWords:
    """Prints each word as it comes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gap = ""

    def show(self, message: Mapping[str, Any]) -> None:
        """Print the word, if it is one."""
        if message["type"] == "Word":
            self._stream.write(self._gap + printable(message["text"]))
            self._stream.flush()
            self._gap = " "

    def end(self, elapsed_s: float) -> None:  # noqa: ARG002 - the words are all that was asked for
        """End the line."""
        self._stream.write("\n")

    def break_off(self) -> None:
        """End the line, if there is one."""
        if self._gap:
            self._stream.write("\n")
            self._stream.flush()


class StatusLine:
    """One line on a terminal that says how far it is, and the last words; nothing where there is no terminal.

    ``duration_s`` is the length of the audio, None if nobody knows it yet.
    """

    def __init__(self, stream: TextIO, *, name: str, duration_s: float | None) -> None:
        self._stream = stream
        self._name = name
        self._duration_s = duration_s
        self._processed_s = 0.0
        self._words: list[str] = []
        self._is_drawn = False

    def show(self, message: Mapping[str, Any]) -> None:
        """Draw the line again if the message changes it."""
        match message["type"]:
            case "Step":
                self._processed_s = message["step_idx"] / FRAME_RATE
            case "Word":
                self._words = [*self._words[-9:], message["text"]]
            case "EndWord":
                # A model without pause predictors sends no steps; the words tell as well.
                self._processed_s = max(self._processed_s, message["stop_time"])
            case _:
                return
        if self._duration_s is None:
            how_far = f"{self._processed_s:.0f} s"
        else:
            how_far = f"{min(1.0, self._processed_s / max(self._duration_s, 1e-3)):4.0%}"
        self._draw(f"{self._name} {how_far} {' '.join(self._words)}")

    def end(self, elapsed_s: float) -> None:
        """Leave a line that says how long it took."""
        audio = "all of the" if self._duration_s is None else f"{self._duration_s:.1f} s of"
        self._draw(f"{self._name}: {audio} audio in {elapsed_s:.1f} s")
        if self._stream.isatty():
            self._stream.write("\n")

    def break_off(self) -> None:
        """Leave the line as it is."""
        if self._stream.isatty() and self._is_drawn:
            self._stream.write("\n")
            self._stream.flush()

    def _draw(self, line: str) -> None:
        if self._stream.isatty():
            self._is_drawn = True
            # Back to the first column, the line, and clear what an older one left behind.
            self._stream.write(f"\r{cut(line, status_columns(self._stream))}\x1b[K")
            self._stream.flush()


def status_columns(stream: TextIO) -> int:
    """Return how many columns a line may take on the terminal ``stream`` without being broken."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    # Some say 0 where nobody told them. The last column is left free: after it some begin a new line at once.
    return min(STATUS_COLUMNS, columns - 1) if columns > 1 else STATUS_COLUMNS


def cut(line: str, columns: int) -> str:
    """Return as much of ``line`` as fits into ``columns``, with a blank for what a terminal would obey."""
    shown, n_left = [], columns
    for char in line:
        width = 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "FW" else 1
        n_left -= width
        if n_left < 0:
            break
        shown.append(printable(char))
    return "".join(shown)


def printable(text: str) -> str:
    """Return ``text`` with a blank for each character that a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)


def render_text(_name: Path, _duration_s: float | None, words: Sequence[TimedWord]) -> str:
    """Return the words as one line."""
    return plain_text(words) + "\n"


def render_json(name: Path, duration_s: float | None, words: Sequence[TimedWord]) -> str:
    """Return one JSON object on one line; the duration is null if nobody knows it."""
    timed = [{"text": word.text, "start": word.start_s, "end": word.end_s} for word in words]
    duration = None if duration_s is None else round(duration_s, 3)
    document = {"file": shown(name), "duration": duration, "text": plain_text(words), "words": timed}
    return json.dumps(document, ensure_ascii=False) + "\n"


def render_srt(_name: Path, _duration_s: float | None, words: Sequence[TimedWord]) -> str:
    """Return a SubRip file."""
    return to_srt(make_cues(words))


def render_vtt(_name: Path, _duration_s: float | None, words: Sequence[TimedWord]) -> str:
    """Return a WebVTT file."""
    return to_vtt(make_cues(words))


RENDERERS: Final[Mapping[str, Callable[[Path, float | None, Sequence[TimedWord]], str]]] = {
    "text": render_text,
    "json": render_json,
    "srt": render_srt,
    "vtt": render_vtt,
}
SUFFIXES: Final = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}
