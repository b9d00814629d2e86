"""What the header of an audio file may say: who reads the file and who sends it refuse the same.

Headers are written by anybody. What is read at a time, and with it the memory, must not be what a header says.
"""

from typing import Final

MIN_RATE: Final = 2_000
MAX_RATE: Final = 768_000
MAX_CHANNELS: Final = 64
BLOCK_VALUES: Final = 1 << 14
"""Samples times channels that are decoded at a time."""

READABLE: Final = "WAV, FLAC, Ogg and MP3 can, M4A and WebM cannot"
"""Of the formats that people try; libsndfile knows more."""
NO_MP3_CODE: Final = 7
"""Of libsndfile's errors: what looks like an MP3 and is none. Its own words are that there is no such file."""


def header_problem(rate: int, channels: int) -> str | None:
    """Return what is wrong with a header, None if nothing is."""
    if not MIN_RATE <= rate <= MAX_RATE:
        return f"a sample rate of {rate} Hz; {MIN_RATE} to {MAX_RATE} are allowed"
    if not 1 <= channels <= MAX_CHANNELS:
        return f"{channels} channels; 1 to {MAX_CHANNELS} are allowed"
    return None


def block_frames(channels: int) -> int:
    """Return how many samples of each channel are decoded at a time."""
    return max(1, BLOCK_VALUES // channels)
