"""The child process that decodes one audio file: a bug in a codec is a bug in here, and nowhere else.

Run as ``python -m asr_gateway.audio.file_child LIMITS`` (LIMITS: JSON of ``ChildLimits``) with the file as standard
input. It takes its limits on itself before it loads a codec, and writes messages to standard output, blocking while
nobody reads:

    kind (1 byte) | length (4 bytes, little endian) | payload

    BEGUN {}                                first, once the header is understood
    PCM   float32 samples at 24 kHz, mono   any number
    DONE  {}                                last, if all went well
    ERROR {code, message}                   last, if not

soundfile and soxr do the work: librosa's own loader is the same two behind an import of numba that takes seconds, and
what it reads beyond them goes through programs that need not be there.
"""

import json
import os
import resource
import struct
import sys
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from shared.audio_header import NO_MP3_CODE, READABLE, block_frames, header_problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADER: Final = struct.Struct("<cI")
BEGUN: Final = b"B"
PCM: Final = b"P"
DONE: Final = b"D"
ERROR: Final = b"E"

CHUNK_SAMPLES: Final = 16_384
"""Samples in one PCM message at most."""
MAX_PAYLOAD_BYTES: Final = CHUNK_SAMPLES * 4

BAD_AUDIO: Final = "bad_audio"
TOO_LONG: Final = "too_large"

_UNKNOWN_FRAMES: Final = 1 << 60
"""libsndfile reports a length it does not know as the largest number that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """What the child may use, and how much it may put out."""

    max_audio_s: float
    max_cpu_s: int
    max_memory_bytes: int


class _RefusedError(Exception):
    """The file cannot or may not be decoded."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def limit_process(limits: ChildLimits) -> None:
    """Let this process use no more than it needs: memory, CPU time, no files written, lower priority."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.max_memory_bytes, limits.max_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.max_cpu_s, limits.max_cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)


def decode(source: int, out: IO[bytes], limits: ChildLimits) -> None:
    """Decode the file open at descriptor ``source`` and write all messages but the last to ``out``."""
    # Here, not at the top: the limits must hold before a codec is loaded, and the gateway imports this module.
    import soundfile  # noqa: PLC0415

    from shared.streamed_wav import open_streamed_wav  # noqa: PLC0415

    class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
        """Read from front to back: soundfile seeks after every read, and a FLAC of unknown length cannot."""

        def seekable(self) -> bool:
            return False

    try:
        file = ForwardFile(open_streamed_wav(source, closefd=False) or source, closefd=False)
    except (soundfile.SoundFileError, OSError) as error:
        if not os.fstat(source).st_size:
            raise _RefusedError(BAD_AUDIO, "the audio file is empty: no byte of it came") from error
        message = f"the body is no audio file that can be read ({_reason(error)}); {READABLE}"
        raise _RefusedError(BAD_AUDIO, message) from error
    with file:
        n_frames = file.frames if file.frames < _UNKNOWN_FRAMES else 0
        if problem := header_problem(file.samplerate, file.channels):
            raise _RefusedError(BAD_AUDIO, problem)
        _check_length(n_frames / file.samplerate, limits)
        _write(out, BEGUN, b"{}")
        _decode_blocks(file, out, limits)


def _decode_blocks(file: Any, out: IO[bytes], limits: ChildLimits) -> None:
    import numpy as np  # noqa: PLC0415
    import soundfile  # noqa: PLC0415

    from asr_gateway.audio.resample import Resampler  # noqa: PLC0415
    from asr_gateway.core.level import limited  # noqa: PLC0415

    resampler = Resampler(file.samplerate)
    writer = _SampleWriter(out)
    n_frames, n_read = block_frames(file.channels), 0
    while True:
        try:
            block = file.read(n_frames, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            at_s = n_read / file.samplerate
            raise _RefusedError(BAD_AUDIO, f"the audio is damaged after {at_s:.2f} s ({_reason(error)})") from error
        if len(block) == 0:
            break
        mono = block.mean(axis=1)
        if not np.isfinite(mono).all():
            at_s = (n_read + int(np.argmin(np.isfinite(mono)))) / file.samplerate
            raise _RefusedError(BAD_AUDIO, f"the sample at {at_s:.2f} s is not a finite number")
        n_read += len(block)
        _check_length(n_read / file.samplerate, limits)
        writer.feed(resampler.feed(limited(mono)))
    if n_read == 0:
        raise _RefusedError(BAD_AUDIO, "the file holds no audio")
    writer.feed(resampler.flush())
    writer.flush()


def _check_length(seconds: float, limits: ChildLimits) -> None:
    if seconds > limits.max_audio_s:
        raise _RefusedError(TOO_LONG, f"{seconds:.1f} s of audio or more; at most {limits.max_audio_s:g} s are allowed")


def _reason(error: Exception) -> str:
    """Return libsndfile's own words, without the file name, which says nothing to a client."""
    if getattr(error, "code", None) == NO_MP3_CODE:
        return "Format not recognised"
    return str(getattr(error, "error_string", error)).rstrip(".")


def _write(out: IO[bytes], kind: bytes, payload: bytes) -> None:
    out.write(HEADER.pack(kind, len(payload)))
    out.write(payload)


class _SampleWriter:
    """Writes samples in whole chunks: each message costs the gateway a turn of its loop."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._waiting = bytearray()

    def feed(self, samples: "NDArray[np.float32]") -> None:
        self._waiting += samples.astype("<f4").tobytes()
        while len(self._waiting) >= MAX_PAYLOAD_BYTES:
            _write(self._out, PCM, bytes(self._waiting[:MAX_PAYLOAD_BYTES]))
            del self._waiting[:MAX_PAYLOAD_BYTES]

    def flush(self) -> None:
        _write(self._out, PCM, bytes(self._waiting))


def limits_argument(limits: ChildLimits) -> str:
    """Return ``limits`` as the child's argument."""
    return json.dumps(asdict(limits))


def main() -> None:
    """Decode standard input to standard output; the last message says how it ended."""
    limits = ChildLimits(**json.loads(sys.argv[1]))
    limit_process(limits)
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=HEADER.size + MAX_PAYLOAD_BYTES)
    try:
        decode(sys.stdin.fileno(), out, limits)
        _write(out, DONE, b"{}")
    except _RefusedError as error:
        _write(out, ERROR, json.dumps({"code": error.code, "message": str(error)}).encode())
    except MemoryError:
        message = f"decoding the file takes more than {limits.max_memory_bytes >> 20} MiB of memory"
        _write(out, ERROR, json.dumps({"code": BAD_AUDIO, "message": message}).encode())
    out.flush()


if __name__ == "__main__":
    main()
