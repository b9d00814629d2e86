import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr_gateway.core.wav_stream import MAX_HEADER_BYTES, WavStream
from shared.errors import BadAudioError


def written(subtype: str, form: str = "WAV", *, n_channels: int = 1) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(1).uniform(-1, 1, (1_000, n_channels))
    soundfile.write(file, noise, 11_025, format=form, subtype=subtype)
    return file.getvalue()


def expected(data: bytes) -> NDArray[np.float32]:
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    mean: NDArray[np.float32] = samples.mean(axis=1)
    return mean


def heard(stream: WavStream, data: bytes, n_bytes: int) -> NDArray[np.float32]:
    return np.concatenate([stream.feed(data[at : at + n_bytes]) for at in range(0, len(data), n_bytes)])


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def riff(*chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 0) + b"WAVE" + b"".join(chunks)


def fmt(tag: int = 1, n_channels: int = 1, rate: int = 8_000, bits: int = 16, block: int = 2) -> bytes:
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, n_channels, rate, rate * block, block, bits))


@pytest.mark.parametrize("n_bytes", [1, 7, 100_000])
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_every_kind_is_what_libsndfile_makes_of_it(subtype: str, form: str, n_bytes: int) -> None:
    for n_channels in (1, 3):
        data, stream = written(subtype, form, n_channels=n_channels), WavStream()
        np.testing.assert_allclose(heard(stream, data, n_bytes), expected(data), atol=1e-6)
        assert stream.rate == 11_025


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_length_that_nobody_knew_means_to_the_end(size: int) -> None:
    data = riff(fmt()) + b"data" + struct.pack("<I", size) + np.arange(100, dtype="<i2").tobytes()
    assert (heard(WavStream(), data, 33) * 32768).tolist() == list(range(100))


def test_what_stands_before_and_behind_the_samples_is_no_audio() -> None:
    samples = np.arange(100, dtype="<i2").tobytes()
    data = riff(
        chunk(b"LIST", b"odd"), fmt(), chunk(b"fact", bytes(4)), chunk(b"data", samples), chunk(b"LIST", bytes(99))
    )
    for n_bytes in (1, 50, 1_000):
        assert (heard(WavStream(), data, n_bytes) * 32768).tolist() == list(range(100))


def test_a_rate_is_known_with_the_first_samples() -> None:
    stream, data = WavStream(), riff(fmt(), b"data" + bytes(4))
    stream.feed(data[:-1])
    assert stream.rate is None
    stream.feed(data[-1:])
    assert stream.rate == 8_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"OggS" + bytes(20), "no WAV: it does not begin with RIFF and WAVE"),
        (riff(fmt(tag=2, bits=4), b"data" + bytes(4)), "format 2 with 4 bits"),
        (riff(fmt(bits=12), b"data" + bytes(4)), "format 1 with 12 bits"),
        (riff(fmt(n_channels=0), b"data" + bytes(4)), "0 channels; 1 to 64 are allowed"),
        (riff(fmt(rate=0), b"data" + bytes(4)), "a sample rate of 0 Hz"),
        (riff(fmt(block=4), b"data" + bytes(4)), "1 channels of 16 bits has 4 bytes"),
        (riff(chunk(b"fmt ", bytes(8))), "format has 8 bytes"),
        (riff(b"data" + bytes(4)), "samples before its format"),
        (riff(chunk(b"LIST", bytes(MAX_HEADER_BYTES)), fmt()), f"no samples in its first {MAX_HEADER_BYTES} bytes"),
        (riff(b"LIST\xff\xff\xff\xff" + bytes(MAX_HEADER_BYTES)), "no samples in its first"),
        (riff(*[chunk(b"LIST", bytes(100))] * 700), "no samples in its first"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, reason: str) -> None:
    for n_bytes in (1_000, 1_000_000):
        with pytest.raises(BadAudioError, match=reason):
            heard(WavStream(), data, n_bytes)


def test_much_audio_at_once_is_no_long_header() -> None:
    data = riff(fmt(), b"data" + struct.pack("<I", 0) + bytes(10 * MAX_HEADER_BYTES))
    assert len(WavStream().feed(data)) == 5 * MAX_HEADER_BYTES


@given(st.lists(st.binary(max_size=60), max_size=6), st.integers(0, 44))
def test_no_bytes_do_more_than_to_be_refused(pieces: list[bytes], n_good: int) -> None:
    stream = WavStream()
    try:
        for piece in [written("PCM_16")[:n_good], *pieces]:
            samples = stream.feed(piece)
            assert np.isfinite(samples).all()
    except BadAudioError:
        pass
