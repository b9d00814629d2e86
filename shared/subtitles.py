"""From timed words to subtitles, as SubRip (srt) or WebVTT (vtt). Pure.

A cue ends where the speaker pauses, where a sentence ends, or where two lines or six seconds are full; its lines are
broken so that both are about equally long. The limits are the usual ones of broadcasters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from shared.transcript import TimedWord, plain_text

LINE_CHARS: Final = 42
LONGEST_CUE_S: Final = 6.0
SHORTEST_CUE_S: Final = 1.0
"""A shorter cue stays on the screen until then, unless the next one comes first."""
PAUSE_S: Final = 0.8
LONE_WORD_S: Final = 0.4
"""Taken as the length of a word whose end is not known."""


@dataclass(frozen=True, slots=True)
class Cue:
    """What stands on the screen from ``start_s`` to ``end_s``: one or two lines."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


def make_cues(words: Sequence[TimedWord]) -> list[Cue]:
    """Group words into cues, in order and without overlap."""
    groups = split_into_groups(words)
    cues = []
    for index, group in enumerate(groups):
        start_s = group[0].start_s
        end_s = max(end_of(group[-1]), start_s + SHORTEST_CUE_S)
        if index + 1 < len(groups):
            end_s = min(end_s, groups[index + 1][0].start_s)
        cues.append(Cue(start_s, end_s, break_lines(plain_text(group))))
    return cues


def split_into_groups(words: Iterable[TimedWord]) -> list[list[TimedWord]]:
    """Cut the words where a new cue has to begin."""
    groups: list[list[TimedWord]] = []
    for word in words:
        if groups and fits(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def fits(group: Sequence[TimedWord], word: TimedWord) -> bool:
    """Return whether ``word`` may stand in the same cue as ``group``."""
    # Words that came as one stretch share their start; two cues cannot.
    if word.start_s == group[-1].start_s:
        return True
    return (
        word.start_s - end_of(group[-1]) < PAUSE_S
        and not group[-1].text.endswith((".", "?", "!"))
        and end_of(word) - group[0].start_s <= LONGEST_CUE_S
        and all(len(line) <= LINE_CHARS for line in break_lines(plain_text([*group, word])))
    )


def end_of(word: TimedWord) -> float:
    """Return where the word ends, as far as one can tell."""
    return word.start_s + LONE_WORD_S if word.end_s is None else word.end_s


def break_lines(text: str) -> tuple[str, ...]:
    """Break ``text`` at the space that makes two lines most equal; short text stays on one line."""
    spaces = [index for index, char in enumerate(text) if char == " "]
    if len(text) <= LINE_CHARS or not spaces:
        return (text,)
    middle = min(spaces, key=lambda index: abs(2 * index - len(text)))
    return text[:middle], text[middle + 1 :]


def to_srt(cues: Iterable[Cue]) -> str:
    """Return the cues as a SubRip file."""
    return "\n".join(
        f"{number}\n{clock(cue.start_s, ',')} --> {clock(cue.end_s, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues, start=1)
    )


def to_vtt(cues: Iterable[Cue]) -> str:
    """Return the cues as a WebVTT file."""
    blocks = [
        f"{clock(cue.start_s, '.')} --> {clock(cue.end_s, '.')}\n" + escape("\n".join(cue.lines)) + "\n" for cue in cues
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def escape(text: str) -> str:
    """Return ``text`` without the characters that WebVTT takes as mark-up."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def clock(time_s: float, separator: str) -> str:
    """Return a time as hours, minutes, seconds and milliseconds."""
    total_ms = round(time_s * 1000)
    minutes, ms = divmod(total_ms, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02}{separator}{ms % 1000:03}"
