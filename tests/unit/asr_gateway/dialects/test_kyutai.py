"""Kyutai's protocol against the msgpack library, and against bytes written down by hand."""

import math
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_gateway.core.dialect import (
    Dialect,
    FlushReceived,
    InitReceived,
    MarkerReceived,
    OpusReceived,
    ResetReceived,
)
from asr_gateway.dialects import kyutai
from shared.errors import BadMessageError, NoFreeSlotError
from shared.messages import EventKind, StepEvent
from shared.units import Epoch, SessionId

dialect: Dialect = kyutai


def packed(**fields: Any) -> bytes:
    return bytes(msgpack.packb(fields))


def decoded_pcm(data: bytes) -> list[float]:
    pcm = dialect.decode(data)
    assert isinstance(pcm, np.ndarray)
    assert pcm.dtype.newbyteorder("=") == np.float32
    return pcm.tolist()


def event(kind: EventKind, **fields: Any) -> StepEvent:
    return StepEvent(session=SessionId(1), epoch=Epoch(1), kind=kind, **fields)


# --- audio ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [0, 1, 15, 16, 1_920, 65_535, 65_536])
@pytest.mark.parametrize("use_single_float", [True, False])
def test_float_arrays_of_every_length_are_read(n_samples: int, use_single_float: bool) -> None:  # noqa: FBT001
    samples = np.linspace(-1.0, 1.0, n_samples, dtype=np.float32).tolist()

    message = msgpack.packb({"type": "Audio", "pcm": samples}, use_single_float=use_single_float)

    assert decoded_pcm(message) == samples


@given(st.lists(st.floats(-1, 1, width=32) | st.integers(-1, 1), max_size=20), st.booleans(), st.booleans())
def test_any_mix_of_numbers_is_read_in_any_order_of_keys(
    samples: list[float],
    use_single_float: bool,  # noqa: FBT001
    pcm_first: bool,  # noqa: FBT001
) -> None:
    fields = {"pcm": samples, "type": "Audio"} if pcm_first else {"type": "Audio", "pcm": samples}

    assert decoded_pcm(msgpack.packb(fields, use_single_float=use_single_float)) == samples


def test_other_numbers_behind_the_first_float_do_not_confuse_the_fast_path() -> None:
    # The same number of bytes as two float32, but the second element begins elsewhere.
    head = b"\x82\xa4type\xa5Audio\xa3pcm"
    assert decoded_pcm(head + b"\x96\xca\x3f\x80\x00\x00" + b"\x00\x01\x02\x03\x04") == [1.0, 0.0, 1.0, 2.0, 3.0, 4.0]


def test_not_a_number_becomes_silence_and_absurd_values_are_clipped() -> None:
    samples = [0.5, math.nan, math.inf, -math.inf, 1e30, -11.0, 10.0]
    expected = [0.5, 0.0, 10.0, -10.0, 10.0, -10.0, 10.0]

    for use_single_float in (True, False):
        message = msgpack.packb({"type": "Audio", "pcm": samples}, use_single_float=use_single_float)
        assert decoded_pcm(message) == expected
    assert decoded_pcm(packed(type="Audio", pcm=[*samples, 1])) == [*expected, 1.0]
    assert decoded_pcm(packed(type="Audio", pcm=[1e300, -(2**63)])) == [10.0, -10.0]


# --- other messages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (packed(type="OggOpus", data=b"OggS"), OpusReceived(b"OggS")),
        *((packed(type="OggOpus", data=bytes(n)), OpusReceived(bytes(n))) for n in (0, 1, 255, 256, 70_000)),
        (packed(data=b"OggS", type="OggOpus"), OpusReceived(b"OggS")),
        (packed(type="OggOpus", data=[79, 255, 0]), OpusReceived(b"O\xff\x00")),
        (packed(type="Marker", id=2**63 - 1), MarkerReceived(2**63 - 1)),
        (packed(id=-(2**63), type="Marker"), MarkerReceived(-(2**63))),
        (packed(type="Init"), InitReceived()),
        (packed(type="Init", extra={"a": [1, {"b": 2}]}, more=None), InitReceived()),
        (packed(type="Flush"), FlushReceived(None)),
        (packed(type="Flush", id=4), FlushReceived(4)),
        (packed(type="Reset"), ResetReceived(None)),
        (packed(type="Reset", id=-4), ResetReceived(-4)),
        (bytes(msgpack.packb({"type": "Init", 1: 2, b"raw": 3})), InitReceived()),
    ],
)
def test_messages_are_read_and_extra_keys_ignored(message: bytes, expected: object) -> None:
    assert dialect.decode(message) == expected


AUDIO_HEAD = b"\x82\xa4type\xa5Audio\xa3pcm"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "one MessagePack map"),
        (b"\xc1", "one MessagePack map"),
        (b"\x81\xa4type", "one MessagePack map"),
        (packed(type="Init") + b"\x00", "one MessagePack map"),
        (packed(type="OggOpus", data=b"OggS")[:-1], "one MessagePack map"),
        (packed(type="OggOpus", data=b"OggS") + b"\x00", "one MessagePack map"),
        (b"\x82\xa4type\xa7OggOpus\xa4data\xc4", "one MessagePack map"),
        (b"\x91" * 5_000, "one MessagePack map"),
        (b"\x81\xa4type\xa2\xff\xfe", "one MessagePack map"),
        (msgpack.packb([1]), "MessagePack map, not list"),
        (msgpack.packb("Init"), "MessagePack map, not str"),
        (msgpack.packb(None), "MessagePack map, not NoneType"),
        (packed(pcm=[1.0]), "type None is unknown"),
        (packed(type="Audi"), "type 'Audi' is unknown; known are Audio, OggOpus, Marker, Init, Flush, Reset"),
        (packed(type=3), "type 3 is unknown"),
        (packed(type=["Init"]), "is unknown"),
        (packed(type="x" * 10_000), "is unknown"),
        (packed(type="Audio"), "pcm must be an array of numbers, not missing"),
        (packed(type="Audio", pcm=b"\0\0"), "pcm must be an array of numbers, not bytes"),
        (packed(type="Audio", pcm=[0.0, "x"]), "numbers only, not str"),
        (packed(type="Audio", pcm=[True]), "numbers only, not bool"),
        (packed(type="Audio", pcm=[0.0, True]), "numbers only, not bool"),
        (packed(type="Audio", pcm=[[0.0]]), "numbers only, not list"),
        (packed(type="Audio", pcm=[None]), "numbers only, not NoneType"),
        (packed(type="Audio", pcm=[[]] * 1000), "at most 64 arrays and maps"),
        (packed(type="Init", extra=[{}] * 1000), "at most 64 arrays and maps"),
        (AUDIO_HEAD, "one MessagePack map"),
        (AUDIO_HEAD + b"\xdc\x00", "one MessagePack map"),
        (AUDIO_HEAD + b"\xdc\x00\x01", "one MessagePack map"),
        (AUDIO_HEAD + b"\xdd\xff\xff\xff\xff\xca\0\0\0\0", "one MessagePack map"),
        (AUDIO_HEAD + b"\x91\xca\0\0\0\0\0", "one MessagePack map"),
        (packed(type="OggOpus"), "data must be bin or an array of integers, not missing"),
        (packed(type="OggOpus", data="text"), "not str"),
        (packed(type="OggOpus", data=[1.0]), "integers only"),
        (packed(type="OggOpus", data=[True]), "integers only"),
        (packed(type="OggOpus", data=[256]), "integers from 0 to 255"),
        (packed(type="OggOpus", data=[-1]), "integers from 0 to 255"),
        (packed(type="Marker"), "id must be a 64-bit integer, not None"),
        (packed(type="Marker", id=1.0), "id must be a 64-bit integer, not 1.0"),
        (packed(type="Marker", id=True), "id must be a 64-bit integer, not True"),
        (packed(type="Marker", id=2**63), "id must be a 64-bit integer"),
        (packed(type="Marker", id="1"), "id must be a 64-bit integer, not '1'"),
        (packed(type="Flush", id="a"), "Flush: id must be"),
        (packed(type="Reset", id=b"a"), "Reset: id must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_messages_are_refused_with_a_short_reason(message: bytes, reason: str) -> None:
    with pytest.raises(BadMessageError, match=reason) as caught:
        dialect.decode(message)
    assert len(str(caught.value)) < 250


def test_a_long_text_amid_numbers_costs_no_more_than_it_is_long() -> None:
    message = packed(type="Audio", pcm=[*[1] * 2_000, "x" * 2_000])
    tracemalloc.start()
    try:
        with pytest.raises(BadMessageError, match="numbers only, not str"):
            dialect.decode(message)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_bad_message(data: bytes) -> None:
    for message in (data, AUDIO_HEAD + data):
        try:
            dialect.decode(message)
        except BadMessageError:
            continue


# --- encoding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "expected_hex", "fields"),
    [
        (dialect.ready(1, 6), "81a474797065a55265616479", {"type": "Ready"}),
        (
            dialect.step(300, dialect.pack_pauses(np.array([[0.5, 0.25]], np.float32))[0], 70_000),
            (
                "84a474797065a453746570a8737465705f696478cd012ca370727392ca3f000000ca3e800000"
                "ac62756666657265645f70636dce00011170"
            ),
            {"type": "Step", "step_idx": 300, "prs": [0.5, 0.25], "buffered_pcm": 70_000},
        ),
        (
            dialect.event(event(EventKind.WORD, text="héllo", time_s=0.08)),
            "83a474797065a4576f7264a474657874a668c3a96c6c6faa73746172745f74696d65cb3fb47ae147ae147b",
            {"type": "Word", "text": "héllo", "start_time": 0.08},
        ),
        (
            dialect.event(event(EventKind.END_WORD, time_s=1.5)),
            "82a474797065a7456e64576f7264a973746f705f74696d65cb3ff8000000000000",
            {"type": "EndWord", "stop_time": 1.5},
        ),
        (
            dialect.event(event(EventKind.MARKER, id=-1)),
            "82a474797065a64d61726b6572a26964ff",
            {"type": "Marker", "id": -1},
        ),
        (
            dialect.event(event(EventKind.FLUSHED, id=9)),
            "82a474797065a7466c7573686564a2696409",
            {"type": "Flushed", "id": 9},
        ),
        (
            dialect.event(event(EventKind.RESET_DONE)),
            "82a474797065a95265736574446f6e65a26964c0",
            {"type": "ResetDone", "id": None},
        ),
        (
            dialect.error(NoFreeSlotError()),
            (
                "83a474797065a54572726f72a76d657373616765b06e6f2066726565206368616e6e656c73"
                "a4636f6465ac6e6f5f667265655f736c6f74"
            ),
            {"type": "Error", "message": "no free channels", "code": "no_free_slot"},
        ),
    ],
)
def test_messages_have_these_bytes(encoded: bytes, expected_hex: str, fields: dict[str, Any]) -> None:
    assert encoded.hex() == expected_hex
    assert list(msgpack.unpackb(encoded).items()) == list(fields.items())


@pytest.mark.parametrize("kind", EventKind)
def test_an_answer_in_json_holds_what_the_message_does(kind: EventKind) -> None:
    said = event(kind, text="héllo", time_s=0.08, id=7)
    assert list(dialect.fields(said).items()) == list(msgpack.unpackb(dialect.event(said)).items())


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63])
def test_numbers_in_steps_are_as_short_as_the_library_makes_them(value: int) -> None:
    (no_pauses,) = dialect.pack_pauses(np.empty((1, 0), np.float32))

    assert dialect.step(value, no_pauses, value) == packed(type="Step", step_idx=value, prs=[], buffered_pcm=value)


def test_the_pauses_of_a_whole_block_are_packed_row_by_row() -> None:
    pauses = np.random.default_rng(1).random((5, 4), np.float32)

    rows = dialect.pack_pauses(pauses)

    assert [msgpack.unpackb(b"\x81" + row) for row in rows] == [{"prs": row.tolist()} for row in pauses]


@pytest.mark.parametrize("n_chars", [0, 31, 32, 255, 256, 70_000])
def test_words_of_any_length_are_packed_as_the_library_packs_them(n_chars: int) -> None:
    encoded = dialect.event(event(EventKind.WORD, text="x" * n_chars))

    assert encoded == packed(type="Word", text="x" * n_chars, start_time=0.0)
