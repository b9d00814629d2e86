"""Read an audio file of any format that libsndfile knows, piece by piece, as the service wants it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr_cli.usage import UsageError
from shared.units import SAMPLE_RATE


class AudioFile:
    """A file that can be read as 24 kHz mono.

    Raises:
        UsageError: libsndfile cannot open it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = soundfile.SoundFile(str(path))
        except (OSError, soundfile.LibsndfileError) as error:
            reason = error if path.is_file() else "is a folder" if path.is_dir() else "no such file"
            message = f"{path}: {reason}"
            raise UsageError(message) from error
        self.path = path
        self.duration_s: float = self._file.frames / self._file.samplerate

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Yield the whole file, a second or less at a time, as float32 in [-1, 1] at 24 kHz; channels are averaged."""
        with self._file as file:
            resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
            for block in file.blocks(file.samplerate, dtype="float32", always_2d=True):
                yield resampler.resample_chunk(block.mean(axis=1))
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
