"""From the service's messages to words with a start and an end. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

ABOUT_WORDS: Final = frozenset({"Word", "EndWord"})
"""The types of the messages that a transcript is made of."""


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word of the transcript; times in seconds from the start of the audio."""

    text: str
    start_s: float
    end_s: float | None = None
    """None while the service has not said where the word ends."""


def timed_words(messages: Iterable[Mapping[str, Any]]) -> list[TimedWord]:
    """Pair each ``Word`` with its ``EndWord``; other messages are passed over.

    Words that share a start came as one stretch: the ``EndWord`` that follows ends all of them.
    """
    words: list[TimedWord] = []
    for message in messages:
        match message.get("type"):
            case "Word":
                words.append(TimedWord(str(message["text"]), float(message["start_time"])))
            case "EndWord":
                end_s = float(message["stop_time"])
                n_open = open_words(words)
                words[len(words) - n_open :] = [replace(word, end_s=end_s) for word in words[len(words) - n_open :]]
            case _:
                pass
    return words


def open_words(words: list[TimedWord]) -> int:
    """Return how many words at the end of the list still have no end."""
    count = 0
    for word in reversed(words):
        if word.end_s is not None:
            break
        count += 1
    return count


def plain_text(words: Iterable[TimedWord]) -> str:
    """Return the words as one line."""
    return " ".join(word.text for word in words)
