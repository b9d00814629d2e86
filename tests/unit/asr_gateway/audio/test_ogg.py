import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_gateway.audio.ogg import NO_GRANULE, OggParser, Page, page_crc
from shared.errors import BadAudioError


def parse(chunks: list[bytes], *, max_packet_bytes: int = 1 << 16) -> list[Page]:
    parser = OggParser(max_packet_bytes=max_packet_bytes)
    return [page for chunk in chunks for page in parser.feed(chunk)]


def packets_of(pages: list[Page]) -> list[bytes]:
    return [packet.data for page in pages for packet in page.packets]


@pytest.fixture
def muxer(opus_files: Any) -> Any:
    return opus_files.Muxer()


@given(st.binary(max_size=300))
def test_the_checksum_is_that_of_the_rfc(opus_files: Any, data: bytes) -> None:
    assert page_crc(data) == opus_files.crc_by_definition(data)


@given(st.lists(st.binary(max_size=700), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_any_cut_gives_the_same_packets(opus_files: Any, packets: list[bytes], rng: random.Random) -> None:
    muxer = opus_files.Muxer()
    pages = [muxer.packets([p], flags=2 if i == 0 else 0, granule=i) for i, p in enumerate(packets)]
    data = b"".join(pages)
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(8)))
    chunks = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert packets_of(parse(chunks)) == packets


@given(st.binary(max_size=400))
def test_any_bytes_are_pages_or_bad_audio(data: bytes) -> None:
    try:
        parse([data])
    except BadAudioError:
        return
    assert b"OggS".startswith(data[:4])


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_damaged_byte_never_goes_unseen(opus_files: Any, at: int, change: int) -> None:
    muxer = opus_files.Muxer()
    data = muxer.packets([b"first"], flags=2) + muxer.packets([b"second" * 60]) + muxer.packets([b"third"], flags=4)
    at %= len(data)
    damaged = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
    try:
        found = packets_of(parse([damaged]))
    except BadAudioError:
        return
    assert found in ([], [b"first"], [b"first", b"second" * 60]), "a page was lengthened: it waits for its end"


def test_a_packet_that_spans_three_pages_comes_out_whole(muxer: Any) -> None:
    packet = random.Random(1).randbytes(255 * 400 + 10)
    cuts = [packet[: 255 * 150], packet[255 * 150 : 255 * 400], packet[255 * 400 :]]
    data = (
        muxer.page([255] * 150, cuts[0], flags=2, granule=NO_GRANULE)
        + muxer.page([255] * 250, cuts[1], flags=1, granule=NO_GRANULE)
        + muxer.page([10, 3], cuts[2] + b"end", flags=1, granule=77)
    )
    pages = parse([data], max_packet_bytes=1 << 20)
    assert packets_of(pages) == [packet, b"end"]
    assert [page.granule for page in pages] == [NO_GRANULE, NO_GRANULE, 77]


def test_only_the_allowed_part_of_a_long_packet_is_kept(muxer: Any) -> None:
    data = muxer.page([255] * 255, b"x" * 65_025, flags=2, granule=NO_GRANULE)
    data += muxer.page([255] * 254 + [1], b"y" * 64_771, flags=1)
    (packet,) = (packet for page in parse([data], max_packet_bytes=1000) for packet in page.packets)
    assert (packet.data, packet.n_bytes, packet.is_complete) == (b"x" * 1000, 129_796, False)


def test_a_packet_of_exactly_255_bytes_ends_with_a_zero_lacing_value(muxer: Any) -> None:
    assert packets_of(parse([muxer.packets([b"z" * 255, b""], flags=2)])) == [b"z" * 255, b""]


def test_sequence_numbers_wrap(muxer: Any) -> None:
    data = muxer.packets([b"a"], flags=2, sequence=0xFFFF_FFFF) + muxer.packets([b"b"], sequence=0)
    assert packets_of(parse([data])) == [b"a", b"b"]


def test_the_last_page_ends_the_stream(muxer: Any) -> None:
    parser = OggParser(max_packet_bytes=100)
    pages = list(parser.feed(muxer.packets([b"a"], flags=2) + muxer.packets([b"b"], flags=4)))
    assert parser.ended
    assert [(page.is_first, page.is_last) for page in pages] == [(True, False), (False, True)]


def refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadAudioError, match=reason):
        parse([data])


def test_bytes_that_are_no_page_are_refused_with_what_was_found() -> None:
    refused(b"RIFF", "found the bytes 52 49 46 46")


def test_a_stream_without_its_first_page_is_refused(muxer: Any) -> None:
    refused(muxer.packets([b"a"]), "must begin with its first page")


def test_a_wrong_checksum_is_refused(muxer: Any) -> None:
    refused(muxer.packets([b"a"], flags=2, crc=1), "checksum of page 0")


def test_an_unknown_version_is_refused(muxer: Any) -> None:
    refused(muxer.packets([b"a"], flags=2, version=1), "version 1")


def test_unknown_flags_are_refused(muxer: Any) -> None:
    refused(muxer.packets([b"a"], flags=2 + 8), "flags 10")


def test_a_missing_page_is_refused(muxer: Any) -> None:
    refused(muxer.packets([b"a"], flags=2) + muxer.packets([b"c"], sequence=2), "page 1 is missing, page 2 came")


def test_a_multiplexed_stream_is_refused(opus_files: Any, muxer: Any) -> None:
    refused(muxer.packets([b"a"], flags=2) + opus_files.Muxer(7).packets([b"b"], flags=2), "a second stream")


def test_a_chained_stream_is_refused(opus_files: Any, muxer: Any) -> None:
    data = muxer.packets([b"a"], flags=2) + muxer.packets([b"b"], flags=4)
    refused(data + opus_files.Muxer(7).packets([b"c"], flags=2), "chained streams")


def test_a_second_beginning_is_refused(muxer: Any) -> None:
    refused(muxer.packets([b"a"], flags=2) + muxer.packets([b"b"], flags=2), "begins a second time")


def test_a_page_that_continues_nothing_is_refused(muxer: Any) -> None:
    refused(muxer.packets([b"a"], flags=2) + muxer.packets([b"b"], flags=1), "page 1 continues a packet that was not")


def test_a_packet_that_is_not_continued_is_refused(muxer: Any) -> None:
    refused(muxer.page([255], b"a" * 255, flags=2) + muxer.packets([b"b"]), "page 1 does not continue")


def test_a_stream_that_ends_inside_a_packet_is_refused(muxer: Any) -> None:
    refused(muxer.page([255], b"a" * 255, flags=2 + 4), "ends in the middle of a packet")


def heard(pages: list[bytes], *, plainly: bool) -> list[bytes | str]:
    """Return the packets, and what was wrong in the end; ``plainly``: every page that is plain is taken as such."""
    parser, packets = OggParser(max_packet_bytes=600), list[bytes | str]()
    try:
        for page in pages:
            packet = parser.take_plain(page) if plainly else None
            packets += packets_of(list(parser.feed(page))) if packet is None else [packet]
    except BadAudioError as error:
        packets.append(str(error))
    return packets


@given(
    packets=st.lists(st.lists(st.binary(max_size=700), min_size=1, max_size=2), max_size=5),
    page=st.integers(0, 4),
    at=st.integers(0, 600),
    change=st.integers(0, 255),
    act=st.sampled_from(["damage", "drop", "repeat", "cut"]),
)
def test_a_plain_page_says_what_it_would_say_in_the_stream(
    opus_files: Any, *, packets: list[list[bytes]], page: int, at: int, change: int, act: str
) -> None:
    muxer = opus_files.Muxer()
    pages = [muxer.packets([b"first"], flags=2), *(muxer.packets(on_page) for on_page in packets)]
    pages.append(muxer.packets([b"last"], flags=4))
    page %= len(pages)
    at %= len(pages[page])
    match act:
        case "damage":
            pages[page] = pages[page][:at] + bytes([pages[page][at] ^ change]) + pages[page][at + 1 :]
        case "drop":
            del pages[page]
        case "repeat":
            pages.insert(page, pages[page])
        case "cut":
            pages[page : page + 1] = [pages[page][:at], pages[page][at:]]

    assert heard(pages, plainly=True) == heard(pages, plainly=False)


def test_a_page_with_one_packet_is_plain_unless_something_is_special_about_it(opus_files: Any) -> None:
    muxer = opus_files.Muxer()
    parser = OggParser(max_packet_bytes=600)
    first, plain = muxer.packets([b"first"], flags=2), muxer.packets([b"plain" * 100])
    two, empty = muxer.packets([b"one", b"two"]), muxer.packets([b""])
    begun, ended = muxer.page([1, 255], bytes(256)), muxer.page([1], b"x", flags=1)
    last = muxer.packets([b"last"], flags=4)

    taken = []
    for page in (first, plain, two, empty, begun, ended, last):
        taken.append(parser.take_plain(page))
        if taken[-1] is None:
            assert list(parser.feed(page))

    assert taken == [None, b"plain" * 100, None, None, None, None, None]
