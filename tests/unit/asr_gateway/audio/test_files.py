"""Real files through the real child process."""

import asyncio
import os
import signal
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
import pytest
import soundfile
from numpy.typing import NDArray

from asr_gateway.audio.files import FileLimits, open_decoder
from shared.errors import BadAudioError, DecodeTimeoutError, MessageTooLargeError

LIMITS = FileLimits(max_audio_s=60, decode_timeout_s=20)


def tone(seconds: float, rate: int, *, hz: float = 300.0) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


class Folder:
    """Makes files and opens them, and closes what it opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: list[BinaryIO] = []

    def raw(self, data: bytes) -> BinaryIO:
        path = self.path / f"{len(self.opened)}.bin"
        path.write_bytes(data)
        self.opened.append(path.open("rb"))
        return self.opened[-1]

    def audio(self, pcm: NDArray[np.float32], rate: int, form: str, subtype: str | None = None) -> BinaryIO:
        path = self.path / "made.bin"
        channels = 1 if pcm.ndim == 1 else pcm.shape[1]
        with soundfile.SoundFile(path, "w", rate, channels, subtype, format=form) as file:
            # libsndfile's Vorbis encoder overflows the stack when it is given much at once.
            for begin in range(0, len(pcm), 4096):
                file.write(pcm[begin : begin + 4096])
        return self.raw(path.read_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    folder = Folder(tmp_path)
    yield folder
    for file in folder.opened:
        file.close()


async def decode(file: BinaryIO, limits: FileLimits = LIMITS) -> NDArray[np.float32]:
    async with open_decoder(file, limits) as decoder:
        await decoder.begin()
        chunks = [chunk async for chunk in decoder.chunks()]
    return np.concatenate(chunks)


def wav(
    *, rate: int = 24_000, channels: int = 1, data: bytes = b"\0" * 960, claim: int | None = None, tag: int = 1
) -> bytes:
    """A WAV file with any header."""
    width = 4 if tag == 3 else 2
    size = len(data) if claim is None else claim
    align = channels * width
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * align & 0xFFFF_FFFF, align & 0xFFFF, width * 8)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(len(body) - len(data) + size, 0xFFFF_FFFF)) + body


@pytest.mark.parametrize(
    ("form", "subtype", "rate"),
    [
        ("WAV", "PCM_16", 24_000),
        ("WAV", "FLOAT", 8_000),
        ("WAV", "ULAW", 8_000),
        ("FLAC", None, 44_100),
        ("MP3", None, 44_100),
        ("OGG", "VORBIS", 22_050),
        ("OGG", "OPUS", 48_000),
        ("AIFF", None, 16_000),
    ],
)
async def test_every_format_comes_out_as_24_khz_mono(folder: Folder, form: str, subtype: str | None, rate: int) -> None:
    pcm = await decode(folder.audio(tone(1.5, rate), rate, form, subtype))
    assert pcm.dtype == np.float32
    assert len(pcm) == pytest.approx(36_000, abs=2)
    expected = tone(1.5, 24_000)[3_000:33_000]
    assert np.dot(pcm[3_000:33_000], expected) / np.dot(expected, expected) == pytest.approx(1, abs=0.08)


async def test_all_channels_are_mixed(folder: Folder) -> None:
    left, right = tone(1, 24_000, hz=300), tone(1, 24_000, hz=500)
    pcm = await decode(folder.audio(np.stack([left, right, right], axis=1), 24_000, "WAV", "FLOAT"))
    assert np.allclose(pcm, (left + 2 * right) / 3, atol=1e-6)


async def test_absurdly_loud_samples_are_limited_and_loud_ones_left_alone(folder: Folder) -> None:
    samples = np.array([0.5, 1.5, -1e30, 1e30] * 1000, np.float32)
    pcm = await decode(folder.audio(samples, 24_000, "WAV", "FLOAT"))
    assert pcm[:4].tolist() == [0.5, 1.5, -10.0, 10.0]


async def test_a_cut_off_wav_gives_what_is_there(folder: Folder) -> None:
    pcm = await decode(folder.raw(wav(claim=0xFFFF_FF00)))
    assert len(pcm) == 480


@pytest.mark.parametrize("riff_size", [0, 36, 0xFFFF_FFFF])
@pytest.mark.parametrize("claim", [0, 0xFFFF_FFFF])
async def test_a_streamed_wav_is_read_to_its_end(folder: Folder, riff_size: int, claim: int) -> None:
    samples = np.random.default_rng(3).integers(-9_000, 9_000, 480, "<i2")
    body = wav(data=samples.tobytes(), claim=claim)
    pcm = await decode(folder.raw(body[:4] + struct.pack("<I", riff_size) + body[8:]))
    assert len(pcm) == 480
    assert np.abs(pcm - samples / 32_768).max() < 1e-6


async def refused(file: BinaryIO, reason: str, limits: FileLimits = LIMITS) -> None:
    with pytest.raises(BadAudioError, match=reason):
        await decode(file, limits)


@pytest.mark.parametrize("data", [b"", b"\0" * 5000, b"hello world", b"RIFF\xff\xff\xff\xffWAVE", b"OggS" + b"\0" * 99])
async def test_what_is_no_audio_is_refused(folder: Folder, data: bytes) -> None:
    await refused(folder.raw(data), "no audio file that can be read" if data else "the audio file is empty")


async def test_a_file_without_samples_is_refused(folder: Folder) -> None:
    await refused(folder.raw(wav(data=b"")), "holds no audio")


async def test_a_damaged_flac_is_refused_with_the_place(folder: Folder) -> None:
    noise = np.random.default_rng(0).normal(size=100_000).astype(np.float32) * 0.1
    data = folder.audio(noise, 24_000, "FLAC").read()
    await refused(folder.raw(data[: len(data) // 2]), r"damaged after [12]\.\d\d s")


async def test_samples_that_are_no_numbers_are_refused(folder: Folder) -> None:
    samples = tone(1, 24_000)
    samples[12_000] = np.nan
    await refused(folder.audio(samples, 24_000, "WAV", "FLOAT"), r"the sample at 0\.50 s is not a finite number")


@pytest.mark.parametrize("rate", [1, 1_999, 768_001, 0x7FFF_FFFF])
async def test_absurd_rates_are_refused(folder: Folder, rate: int) -> None:
    await refused(folder.raw(wav(rate=rate)), f"a sample rate of {rate} Hz; 2000 to 768000")


async def test_absurd_channel_counts_are_refused(folder: Folder) -> None:
    await refused(folder.raw(wav(channels=255, data=b"\0" * 5100)), "255 channels; 1 to 64")


async def test_a_file_that_says_it_is_too_long_is_refused(folder: Folder) -> None:
    limits = FileLimits(max_audio_s=1, decode_timeout_s=20)
    with pytest.raises(MessageTooLargeError, match=r"2\.0 s of audio or more; at most 1 s"):
        await decode(folder.audio(tone(2, 24_000), 24_000, "FLAC"), limits)


async def test_a_file_that_does_not_say_how_long_it_is_is_cut_off(folder: Folder) -> None:
    data = bytearray(folder.audio(tone(2, 24_000), 24_000, "FLAC").read())
    data[21] &= 0xF0
    data[22:26] = b"\0\0\0\0"
    limits = FileLimits(max_audio_s=1, decode_timeout_s=20)
    async with open_decoder(folder.raw(bytes(data)), limits) as decoder:
        await decoder.begin()
        with pytest.raises(MessageTooLargeError, match="at most 1 s"):
            [chunk async for chunk in decoder.chunks()]


async def test_a_child_that_takes_too_long_is_given_up(folder: Folder) -> None:
    limits = FileLimits(max_audio_s=60, decode_timeout_s=0.001)
    with pytest.raises(DecodeTimeoutError, match=r"longer than 0\.001 s"):
        await decode(folder.raw(wav()), limits)


async def test_a_child_that_takes_too_much_memory_is_bad_audio(folder: Folder) -> None:
    limits = FileLimits(max_audio_s=60, decode_timeout_s=20, max_memory_bytes=40 << 20)
    with pytest.raises(BadAudioError, match=r"the file cannot be decoded|more than 40 MiB"):
        await decode(folder.raw(wav()), limits)


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "file_child" in " ".join(child.cmdline())]


async def test_a_ctrl_c_for_the_gateway_does_not_reach_a_child(folder: Folder) -> None:
    async with open_decoder(folder.audio(tone(30, 24_000), 24_000, "WAV"), LIMITS) as decoder:
        await decoder.begin()
        (child,) = children()
        assert os.getpgid(child.pid) != os.getpgid(0), "a terminal signals the whole process group"


async def test_a_child_that_crashes_is_bad_audio(folder: Folder) -> None:
    async with open_decoder(folder.audio(tone(30, 24_000), 24_000, "WAV"), LIMITS) as decoder:
        await decoder.begin()
        (child,) = children()
        child.send_signal(signal.SIGSEGV)
        with pytest.raises(BadAudioError, match="status -11"):
            [chunk async for chunk in decoder.chunks()]


async def test_a_child_that_used_its_cpu_time_is_a_timeout(folder: Folder) -> None:
    async with open_decoder(folder.audio(tone(30, 24_000), 24_000, "WAV"), LIMITS) as decoder:
        await decoder.begin()
        (child,) = children()
        child.send_signal(signal.SIGXCPU)
        with pytest.raises(DecodeTimeoutError):
            [chunk async for chunk in decoder.chunks()]


async def test_leaving_early_ends_a_child_that_waits_with_a_full_pipe(folder: Folder) -> None:
    async with open_decoder(folder.audio(tone(30, 24_000), 24_000, "WAV"), LIMITS) as decoder:
        await decoder.begin()
        (child,) = children()
    assert not child.is_running()


async def test_a_cancelled_reader_leaves_no_child(folder: Folder) -> None:
    file = folder.audio(tone(30, 24_000), 24_000, "WAV")
    started = asyncio.Event()

    async def read_one() -> None:
        async with open_decoder(file, LIMITS) as decoder:
            await decoder.begin()
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(read_one())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == []


async def test_the_child_waits_while_nobody_reads(folder: Folder) -> None:
    file = folder.audio(tone(50, 24_000), 24_000, "WAV")
    async with open_decoder(file, LIMITS) as decoder:
        await decoder.begin()
        chunks = decoder.chunks()
        await anext(chunks)
        position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        assert position < 50 * 48_000 / 2, "at most half of the file has been read"
        await chunks.aclose()


async def test_the_gateways_environment_is_not_passed_on(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_SECRET", "x")
    async with open_decoder(folder.raw(wav()), LIMITS) as decoder:
        await decoder.begin()
        (child,) = children()
        assert "ASR_SECRET" not in child.environ()
