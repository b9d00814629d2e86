from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr_gateway.audio.opus import OggOpusDecoder, packet_positions
from shared.errors import BadAudioError

PRE_SKIP = 312
"""Look-ahead of libopus' encoder at 48 kHz: what a muxer writes as pre-skip."""


def decode(*cuts: bytes) -> NDArray[np.float32]:
    decoder = OggOpusDecoder()
    pieces = [piece for data in cuts for piece in decoder.feed_in_pieces(data)]
    return np.concatenate([np.zeros(0, np.float32), *pieces])


def likeness(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Correlation of two signals of the same length."""
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


def level(pcm: NDArray[np.float32], hz: float) -> float:
    """Amplitude of one frequency, the ends left out."""
    pcm = pcm[2400:-2400]
    turns = np.exp(-2j * np.pi * hz * np.arange(len(pcm)) / 24_000)
    return float(2 * abs(np.dot(pcm, turns)) / len(pcm))


@pytest.mark.parametrize("packet_ms", [2.5, 5, 10, 20, 40, 60, 80, 100, 120])
def test_every_packet_length_decodes_to_the_same_tone(opus_files: Any, packet_ms: float) -> None:
    tone = opus_files.tone(1.2)
    packets = opus_files.encode(tone, packet_ms=packet_ms)
    pcm = decode(opus_files.stream(packets, packet_ms=packet_ms, pre_skip=PRE_SKIP))
    assert pcm.dtype == np.float32
    assert len(pcm) == len(packets) * int(packet_ms * 24) - PRE_SKIP // 2
    assert likeness(pcm[2000:20_000], tone[2000:20_000]) > 0.95


@pytest.mark.parametrize("per_page", [1, 2, 7, 50])
def test_packets_may_share_a_page(opus_files: Any, per_page: int) -> None:
    packets = opus_files.encode(opus_files.tone(1))
    one_each = decode(opus_files.stream(packets))
    assert np.array_equal(decode(opus_files.stream(packets, per_page=per_page)), one_each)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 5000), max_size=10))
def test_any_cut_gives_the_same_samples(opus_files: Any, cuts: list[int]) -> None:
    data = opus_files.stream(opus_files.encode(opus_files.tone(0.5)), pre_skip=PRE_SKIP)
    cuts = sorted(min(cut, len(data)) for cut in cuts)
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert np.array_equal(decode(*pieces), decode(data))


@pytest.mark.parametrize("packet_ms", [2.5, 20, 120])
def test_pages_one_by_one_give_the_same_samples(opus_files: Any, packet_ms: float) -> None:
    packets = opus_files.encode(opus_files.tone(0.5), packet_ms=packet_ms)
    packets.insert(3, b"")  # lost
    data = opus_files.stream(packets, packet_ms=packet_ms, pre_skip=PRE_SKIP)
    begins = [i for i in range(len(data)) if data.startswith(b"OggS", i)]
    pages = [data[begin:end] for begin, end in zip(begins, [*begins[1:], len(data)], strict=True)]
    assert len(pages) == len(packets) + 2
    assert np.array_equal(decode(*pages), decode(data))


@given(st.binary(max_size=300))
def test_any_packet_gives_audio_or_bad_audio(opus_files: Any, packet: bytes) -> None:
    try:
        pcm = decode(opus_files.stream([packet], packet_ms=120))
    except BadAudioError:
        return
    assert len(pcm) <= 2880
    assert np.isfinite(pcm).all()


def test_pieces_are_what_feed_returns(opus_files: Any) -> None:
    data = opus_files.stream(opus_files.encode(opus_files.tone(3.5)))
    pieces = list(OggOpusDecoder().feed_in_pieces(data))
    assert [len(piece) for piece in pieces] == [24_000, 24_000, 24_000, 12_000]
    assert np.array_equal(np.concatenate(pieces), decode(data))


def test_stereo_is_mixed_to_mono(opus_files: Any) -> None:
    left, right = opus_files.tone(1, hz=500), opus_files.tone(1, hz=2000)
    packets = opus_files.encode(np.stack([left, right], axis=1))
    pcm = decode(opus_files.stream(packets, channels=2))
    assert level(pcm, 500) == pytest.approx(0.25, abs=0.03)
    assert level(pcm, 2000) == pytest.approx(0.25, abs=0.03)


def test_the_output_gain_is_applied(opus_files: Any) -> None:
    packets = opus_files.encode(opus_files.tone(1))
    plain, doubled = decode(opus_files.stream(packets)), decode(opus_files.stream(packets, gain_q8=1541))
    assert np.allclose(doubled, plain * 2, rtol=1e-3)


def test_pre_skip_longer_than_a_packet_takes_several(opus_files: Any) -> None:
    packets = opus_files.encode(opus_files.tone(1))
    whole, skipped = decode(opus_files.stream(packets)), decode(opus_files.stream(packets, pre_skip=3840))
    assert np.array_equal(skipped, whole[1920:])


def test_the_last_granule_position_trims_the_end(opus_files: Any) -> None:
    packets = opus_files.encode(opus_files.tone(1))
    data = opus_files.stream(packets, per_page=10, end=48_000 - 3 * 960 - 96, pre_skip=PRE_SKIP)
    assert len(decode(data)) == 24_000 - 3 * 480 - 48 - PRE_SKIP // 2


def test_a_single_page_can_be_trimmed(opus_files: Any) -> None:
    packets = opus_files.encode(opus_files.tone(0.1))
    assert len(decode(opus_files.stream(packets, per_page=5, end=1000))) == 500


def test_trimming_never_reaches_into_an_earlier_page(opus_files: Any) -> None:
    packets = opus_files.encode(opus_files.tone(1))
    assert len(decode(opus_files.stream(packets, end=1))) == 49 * 480


def test_a_recording_cut_from_a_longer_one_keeps_its_length(opus_files: Any) -> None:
    muxer, packets = opus_files.Muxer(), opus_files.encode(opus_files.tone(0.06))
    start = 480_000
    data = muxer.headers() + muxer.packets(packets[:2], granule=start + 1920)
    data += muxer.packets(packets[2:], granule=start + 2400, flags=4)
    assert len(decode(data)) == 1200


def test_an_empty_packet_lasts_as_long_as_the_one_before(opus_files: Any) -> None:
    packets = opus_files.encode(opus_files.tone(0.08), packet_ms=40)
    assert len(decode(opus_files.stream([packets[0], b"", packets[1]], packet_ms=40))) == 3 * 960


def test_an_empty_packet_at_the_start_is_nothing(opus_files: Any) -> None:
    assert len(decode(opus_files.stream([b"", *opus_files.encode(opus_files.tone(0.02))]))) == 480


def test_a_dtx_packet_of_one_byte_keeps_the_time(opus_files: Any) -> None:
    packets = opus_files.encode(opus_files.tone(0.04))
    silent = bytes([packets[0][0] & 0xFC])
    assert len(decode(opus_files.stream([packets[0], silent, silent, packets[1]]))) == 4 * 480


def test_a_few_bytes_that_stand_for_long_are_decoded_a_second_at_a_time(opus_files: Any) -> None:
    dtx = bytes([0b1111_1011, 6])
    data = opus_files.stream([dtx] * 200, packet_ms=120, per_page=100)
    pieces = [len(piece) for piece in OggOpusDecoder().feed_in_pieces(data)]
    assert (sum(pieces), max(pieces)) == (200 * 2880, 9 * 2880)


def test_huge_tags_are_skipped(opus_files: Any) -> None:
    muxer, packets = opus_files.Muxer(), opus_files.encode(opus_files.tone(0.02))
    head, rest = b"OpusTags" + b"p" * (255 * 255 - 8), b"q" * 255 * 200
    muxer.headers()
    first = opus_files.Muxer()
    data = first.headers()[: 28 + 19]
    muxer.sequence = 1
    data += muxer.page([255] * 255, head, granule=-1) + muxer.page([255] * 200 + [0], rest, flags=1)
    data += muxer.packets(packets, granule=960, flags=4)
    assert len(decode(data)) == 480


def refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadAudioError, match=reason):
        decode(data)


def test_a_wrong_magic_is_refused(opus_files: Any) -> None:
    refused(opus_files.Muxer().packets([b"\x01vorbis" + b"\0" * 20], flags=2), "not Opus")


def test_255_channels_are_refused(opus_files: Any) -> None:
    refused(opus_files.stream([b"\0"], channels=255, mapping=255), "255 channels with mapping family 255")


@pytest.mark.parametrize("channels", [0, 3])
def test_other_channel_counts_are_refused(opus_files: Any, channels: int) -> None:
    refused(opus_files.stream([b"\0"], channels=channels), f"{channels} channels")


def test_a_future_header_version_is_refused(opus_files: Any) -> None:
    refused(opus_files.stream([b"\0"], version=16), "version 16")


def test_missing_tags_are_refused(opus_files: Any) -> None:
    muxer = opus_files.Muxer()
    head = muxer.headers()[: 28 + 19]
    muxer.sequence = 1
    refused(head + muxer.packets([b"audio"]), "must be OpusTags")


@pytest.mark.parametrize("packet", [b"\x03", b"\x03\x00", b"\x1b\x03", b"\xfb\x31"])
def test_packets_of_impossible_length_are_refused(packet: bytes) -> None:
    with pytest.raises(BadAudioError, match=r"2\.5 to 120 ms"):
        packet_positions(packet)


def test_a_packet_that_libopus_refuses_is_bad_audio(opus_files: Any) -> None:
    refused(opus_files.stream([b"\xf9" + b"\0" * 3]), "cannot be decoded")


def test_an_audio_packet_that_is_too_long_is_refused(opus_files: Any) -> None:
    muxer = opus_files.Muxer()
    data = muxer.headers() + muxer.page([255] * 255, b"\0" * 65_025, granule=-1)
    data += muxer.page([255, 0], b"\0" * 255, flags=1)
    refused(data, "65280 bytes; at most 61296")


def test_an_absurd_gain_is_limited_to_ten_times_full_scale(opus_files: Any) -> None:
    pcm = decode(opus_files.stream(opus_files.encode(opus_files.tone(0.2)), gain_q8=32_767))
    assert (pcm.max(), pcm.min()) == (10.0, -10.0)
