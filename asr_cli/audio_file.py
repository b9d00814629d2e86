"""Read an audio file of any format that libsndfile knows, piece by piece, as the service wants it."""

import errno
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr_cli.output import shown
from asr_cli.reading import waited_for
from asr_cli.usage import UsageError
from shared.audio_header import NO_MP3_CODE, READABLE, block_frames, header_problem
from shared.streamed_wav import NO_SIZE, open_streamed_wav
from shared.units import FRAME_SAMPLES, SAMPLE_RATE

_UNKNOWN_FORMAT: Final = 1
"""libsndfile's SF_ERR_UNRECOGNISED_FORMAT."""
_UNKNOWN_FRAMES: Final = 1 << 60
"""libsndfile reports a length that it does not know as the largest number that it has, or as 0."""
_MAX_SAMPLE_BYTES: Final = 8

STANDARD_INPUT: Final = Path("-")
"""The path that stands for it, to libsndfile as well."""
_STANDARD_INPUT_FD: Final = 0
_WAV: Final = frozenset({"WAV", "WAVEX"})
_THROUGH_PIPES: Final = _WAV | {"RAW", "W64", "AIFF", "AU", "OGG", "MP3"}
"""What libsndfile reads right where it cannot go back. Of a CAF it finds nothing, of an RF64 wrong samples."""
_PIPES: Final = "Of what comes through a pipe WAV, AIFF, AU, Ogg and MP3 can be read; with --post FLAC and others, too"


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """Read from front to back: soundfile seeks after every read, and a FLAC that came through a pipe cannot."""

    def __init__(self, file: int | bytes | io.FileIO, **how: Any) -> None:
        self._file_object = file if isinstance(file, io.FileIO) else None
        super().__init__(file, **how)

    def close(self) -> None:
        """Close what it reads from, too: soundfile leaves that open."""
        super().close()
        if self._file_object is not None:
            self._file_object.close()

    def seekable(self) -> bool:
        return False


def _opened_file(file: int | bytes) -> _ForwardFile:
    closefd = not isinstance(file, int)
    return _ForwardFile(open_streamed_wav(file, closefd=closefd) or file, closefd=closefd)


def _opened_once(path: Path) -> _ForwardFile:
    """Open what comes through a pipe, or as standard input.

    Raises:
        OSError: the system cannot.
        LibsndfileError: libsndfile cannot.
    """
    source = _STANDARD_INPUT_FD if path == STANDARD_INPUT else os.fsencode(path)
    with io.FileIO(source, closefd=path != STANDARD_INPUT) as pipe:
        if pipe.seekable():
            return _opened_file(source)
        file = _ForwardFile(os.dup(pipe.fileno()))
        if file.frames or file.format not in _WAV or not soundfile.check_format("RAW", file.subtype):
            return file
        # Streamed, by somebody who left 0 for the size. libsndfile has read the header and no byte more.
        what = {name: getattr(file, name) for name in ("samplerate", "channels", "subtype")}
        return _ForwardFile(os.dup(pipe.fileno()), format="RAW", endian="LITTLE", **what)


def _why_not(path: Path, error: Exception, *, is_pipe: bool) -> str:
    is_empty = False
    if path != STANDARD_INPUT:
        # What the system says about it: to libsndfile all that is a system error.
        try:
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                return "is a folder"
        except FileNotFoundError:
            return "no such file"
        except OSError as failure:
            return f"cannot be read: {failure.strerror}"
        if not os.access(path, os.R_OK):
            return f"cannot be read: {os.strerror(errno.EACCES)}"
        is_empty = stat.S_ISREG(found.st_mode) and not found.st_size
    code = getattr(error, "code", None)
    if code == _UNKNOWN_FORMAT or (code == NO_MP3_CODE and not is_pipe):
        return "is empty" if is_empty else f"no audio file that can be read; {READABLE}"
    if isinstance(error, OSError):
        is_pipe, reason = False, f"cannot be read: {error.strerror or error}"
    else:
        reason = getattr(error, "error_string", str(error)).removeprefix("Error : ")
    return f"{reason} {_PIPES}" if is_pipe else reason


def _can_go_back(path: Path) -> bool:
    """Return whether standard input is a file after all (``asr transcribe - < speech.flac``)."""
    return path == STANDARD_INPUT and stat.S_ISREG(os.fstat(_STANDARD_INPUT_FD).st_mode)


def _is_pipe(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # whoever opens it will say why
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


class AudioFile:
    """A file that can be read as 24 kHz mono, once, or sent as it is.

    It is opened to be checked, and again when its turn comes: files may be more than a process may have open. Only what
    comes through a pipe stays open, as it comes only once.

    Args:
        path: of the file; ``-`` is standard input.
        keep: put what comes through a pipe into a temporary file first. All of it must have come by then, but it
            can be sent as it is, and of any format.

    Raises:
        UsageError: libsndfile cannot open it, or its header says what is not allowed.
    """

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        self.path = path
        is_pipe = path == STANDARD_INPUT or _is_pipe(path)
        self._copy = _copied(path) if keep and is_pipe else None
        self._comes_once = is_pipe and self._copy is None
        # Nobody knows when a pipe brings its header.
        self._file: Any = waited_for(self._open) if self._comes_once else self._open()
        if self._comes_once and self._file.format not in _THROUGH_PIPES and not _can_go_back(path):
            message = f"{shown(path)}: {self._file.format} cannot be read from front to back. {_PIPES}"
            raise UsageError(message)
        # The header of what comes through a pipe was often written before anybody knew.
        unknown = NO_SIZE // (_MAX_SAMPLE_BYTES * self._file.channels) if self._comes_once else _UNKNOWN_FRAMES
        is_known = 0 < self._file.frames < unknown
        self.duration_s: float | None = self._file.frames / self._file.samplerate if is_known else None
        """None if the header does not tell; counted once all pieces were read."""
        if not self._comes_once:
            self._file.close()

    def _open(self) -> _ForwardFile:
        file = self._open_unchecked()
        if problem := header_problem(file.samplerate, file.channels):
            file.close()
            if self._copy is not None:
                self._copy.close()
            message = f"{shown(self.path)}: {problem}"
            raise UsageError(message)
        return file

    def _open_unchecked(self) -> _ForwardFile:
        try:
            if self._comes_once:
                return _opened_once(self.path)
            if self._copy is not None:
                self._copy.seek(0)
                return _opened_file(self._copy.fileno())
            # As bytes: a name need not be UTF-8.
            return _opened_file(os.fsencode(self.path))
        except (OSError, soundfile.LibsndfileError) as error:
            message = f"{shown(self.path)}: {_why_not(self.path, error, is_pipe=self._comes_once)}"
            raise UsageError(message) from error

    def body(self) -> IO[bytes]:
        """Return the file as it is, from its start; the caller closes it. Only with ``keep``.

        Raises:
            UsageError: it can no longer be opened.
        """
        if self._copy is not None:
            self._copy.seek(0)
            return self._copy
        assert not self._comes_once, "libsndfile has read from it already"
        return _opened(self.path)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Yield the whole file as float32 in [-1, 1] at 24 kHz, channels averaged; of a pipe 80 ms or less at a time.

        Raises:
            UsageError: the audio is damaged; says where.
        """
        if not self._comes_once:
            self._file = self._open()
        with self._file as file:
            resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
            n_frames = 0
            while len(block := self._read(n_frames)):
                n_frames += len(block)
                yield resampler.resample_chunk(block.mean(axis=1))
            self.duration_s = n_frames / file.samplerate
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)

    def _block_frames(self) -> int:
        most = block_frames(self._file.channels)
        # What comes through a pipe may be live: a word must not wait for what is said after it.
        return min(most, self._file.samplerate * FRAME_SAMPLES // SAMPLE_RATE) if self._comes_once else most

    def _read(self, n_read: int) -> NDArray[np.float32]:
        try:
            block: NDArray[np.float32] = self._file.read(self._block_frames(), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            message = f"{shown(self.path)}: the audio is damaged after {n_read / self._file.samplerate:.1f} s: {error}"
            raise UsageError(message) from error
        return block


def _copied(path: Path) -> IO[bytes]:
    """Return what comes through a pipe, in a file without a name."""
    try:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the AudioFile
        with _opened(path) as pipe:
            shutil.copyfileobj(pipe, copy)
        copy.flush()
    except OSError as error:
        message = f"{shown(path)}: cannot be kept for its turn: {error.strerror}"
        raise UsageError(message) from error
    return copy


def _opened(path: Path) -> IO[bytes]:
    try:
        return os.fdopen(_STANDARD_INPUT_FD, "rb", closefd=False) if path == STANDARD_INPUT else path.open("rb")
    except OSError as error:
        message = f"{shown(path)}: {error.strerror}"
        raise UsageError(message) from error
