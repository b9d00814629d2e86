"""WAV files that were written where nobody could go back to fill in their sizes."""

import struct
from pathlib import Path

import pytest

from shared.streamed_wav import is_streamed, open_streamed_wav

FORMAT = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 24_000, 48_000, 2, 16)
TITLE = struct.pack("<4sI", b"LIST", 5) + b"INFO\0\0"
UNKNOWN = 0xFFFF_FFFF


def wav(*, riff_size: int, data_size: int = 0, before: bytes = b"", behind: bytes = b"samples") -> bytes:
    head = b"RIFF" + struct.pack("<I", riff_size) + b"WAVE" + FORMAT + before
    return head + b"data" + struct.pack("<I", data_size) + behind


@pytest.mark.parametrize("riff_size", [0, 8, 36, 0x7FFF_F024, UNKNOWN])
@pytest.mark.parametrize("before", [b"", TITLE])
def test_audio_whose_size_is_given_as_0_goes_on_to_the_end(riff_size: int, before: bytes) -> None:
    assert is_streamed(wav(riff_size=riff_size, before=before))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"RIFF",
        wav(riff_size=36)[:43],
        wav(riff_size=36).replace(b"RIFF", b"RIFX"),
        wav(riff_size=36).replace(b"WAVE", b"AVI "),
        wav(riff_size=43, data_size=7),
        wav(riff_size=UNKNOWN, data_size=UNKNOWN),
        wav(riff_size=36 + len(TITLE), behind=TITLE),
    ],
)
def test_what_says_its_size_or_is_no_wav_is_left_alone(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(head)
    assert not is_streamed(head)
    assert open_streamed_wav(bytes(path)) is None


@pytest.mark.parametrize("n_bytes", [1, 3, 7, 100])
def test_it_is_read_with_the_size_of_an_unfinished_file(n_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(riff_size=UNKNOWN))
    file = open_streamed_wav(bytes(path))
    assert file is not None
    with file:
        read = b""
        piece = bytearray(n_bytes)
        while n := file.readinto(piece):
            read += piece[:n]
    assert read == wav(riff_size=8)
