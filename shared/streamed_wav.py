"""WAV files whose ``data`` chunk says that it is empty: who wrote them into a pipe could not go back and say its size.

libsndfile cuts a size that is too large down to what there is, but takes 0 at its word, unless the size in the RIFF
header is 8. Its own files look so until they are closed, and of those it reads all that there is.
"""

import io
import os
import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

NO_SIZE: Final = 0x7FFF_0000
"""Who cannot know a size and does not write 0 writes this or more: some programs stay a little below 2 GiB."""
HEAD_BYTES: Final = 1 << 16
"""What may stand before the audio: the format, and a title or the like."""
_CHUNK: Final = struct.Struct("<4sI")
_FIRST_CHUNK_AT: Final = 12
_SIZE_AT: Final = 4
_UNFINISHED: Final = struct.pack("<I", 8)


def is_streamed(head: bytes) -> bool:
    """Return whether ``head`` begins a WAV file whose audio goes on to its end, though its size says 0."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return False
    riff_end = 8 + _CHUNK.unpack_from(head)[1]
    at = _FIRST_CHUNK_AT
    while at + _CHUNK.size <= len(head):
        name, size = _CHUNK.unpack_from(head, at)
        at += _CHUNK.size
        if name == b"data":
            # Chunks behind it that the RIFF header knows of were written by somebody who knew what there is.
            return size == 0 and not at < riff_end < NO_SIZE
        at += size + size % 2
    return False


def open_streamed_wav(file: int | bytes, *, closefd: bool = True) -> io.FileIO | None:
    """Return ``file`` as libsndfile can read it, if it is such a WAV file: a descriptor at its start, or a path.

    Raises:
        OSError: it cannot be read.
    """
    with io.FileIO(file, closefd=closefd) as plain:
        if not plain.seekable() or not is_streamed(os.pread(plain.fileno(), HEAD_BYTES, 0)):
            return None
    return _UnfinishedWav(file, closefd=closefd)


class _UnfinishedWav(io.FileIO):
    """A file with 8 for the size in its RIFF header, for those that read it by ``readinto``."""

    def readinto(self, buffer: "WriteableBuffer", /) -> Any:
        begin = self.tell()
        n_bytes = super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for at in range(max(begin, _SIZE_AT), min(begin + (n_bytes or 0), _SIZE_AT + len(_UNFINISHED))):
            view[at - begin] = _UNFINISHED[at - _SIZE_AT]
        return n_bytes
