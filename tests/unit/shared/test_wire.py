"""The link's encoding: what goes in comes out, what is wrong is named, and the bytes stay what they are."""

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_args

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import LinkError
from shared.messages import (
    AudioBlock,
    Close,
    Closed,
    EventKind,
    Evict,
    Flush,
    Heartbeat,
    Hello,
    Load,
    Marker,
    Open,
    Ready,
    Reject,
    Reset,
    ResumeLog,
    SessionKind,
    StepBlock,
    StepEvent,
    ToGateway,
    ToWorker,
    Unwelcome,
    Welcome,
)
from shared.units import FRAME_SAMPLES, Epoch, FrameIndex, SessionId, SlotIndex
from shared.wire import MAX_HEADER_BYTES, decode_to_gateway, decode_to_worker, encode
from shared.wire_fields import TO_GATEWAY_BY_KIND, TO_WORKER_BY_KIND, Kind, Scalars

S, E, F = SessionId(2**62 + 5), Epoch(3), FrameIndex(7)


def audio_block(n: int) -> AudioBlock:
    pcm = np.arange(n * FRAME_SAMPLES, dtype=np.float32).reshape(n, FRAME_SAMPLES)
    return AudioBlock(
        sessions=np.arange(n, dtype=np.int64) + 2**40,
        epochs=np.ones(n, np.int32),
        frames=np.arange(n, dtype=np.int64),
        pcm=pcm / 1e6,
    )


def step_block(n: int, n_heads: int = 4, n_codebooks: int = 3) -> StepBlock:
    events = (
        StepEvent(S, E, EventKind.WORD, time_s=1.2, text="naïve"),
        StepEvent(S, E, EventKind.END_WORD, time_s=1.6),
        StepEvent(S, E, EventKind.MARKER, id=-(2**63)),
        StepEvent(S, E, EventKind.FLUSHED, id=None),
    )
    return StepBlock(
        sessions=np.arange(n, dtype=np.int64) + 2**40,
        epochs=np.ones(n, np.int32),
        frames=np.arange(n, dtype=np.int64),
        steps=np.arange(n, dtype=np.int64) + 1,
        flags=np.zeros(n, np.uint8),
        text=np.full(n, 3, np.int32),
        codes=np.full((n, n_codebooks), 2047, np.uint16),
        pauses=np.linspace(0, 1, n * n_heads, dtype=np.float32).reshape(n, n_heads),
        events=events,
    )


RESUME = ResumeLog(
    frames=np.array([6, 7, 7], np.int64),
    flags=np.array([0, 0, 1], np.uint8),
    times=np.array([0, 1920, 3840, 3840], np.int64),
    text=np.array([3, 0, 17], np.int32),
    codes=np.arange(6, dtype=np.uint16).reshape(3, 2),
    pcm=np.ones((2, FRAME_SAMPLES), np.float32),
    steps=8,
    silence=1,
    is_whole=False,
    is_word_open=True,
    last_end_s=0.16,
)

TO_WORKER: list[ToWorker] = [
    Hello(version=1, gateway="gw:host:1:abc"),
    Open(session=S, epoch=E, kind=SessionKind.LIVE, first_frame=F),
    Open(session=S, epoch=E, kind=SessionKind.FILE, first_frame=F, silence_prefix_frames=13, resume=RESUME),
    audio_block(0),
    audio_block(3),
    Marker(session=S, epoch=E, id=-5, frame=F),
    Flush(session=S, epoch=E, id=None, frame=F, pad_samples=FRAME_SAMPLES - 1),
    Flush(session=S, epoch=E, id=9, frame=F, pad_samples=0),
    Reset(session=S, epoch=E, id=None, restart=True, frame=F),
    Close(session=S, epoch=E),
    Heartbeat(),
]
TO_GATEWAY: list[ToGateway] = [
    Welcome(
        version=1,
        worker="wk:host:2:def",
        module="asr",
        fingerprint="f" * 64,
        n_sessions=64,
        n_heads=4,
        n_codebooks=32,
        delay_frames=6,
        context_frames=750,
        codec_context_frames=125,
        window_frames=25,
        device="cpu",
        dtype="float32",
    ),
    Unwelcome(versions=(1, 2), reason="speak 1 or 2"),
    Ready(session=S, epoch=E, slot=SlotIndex(5)),
    Reject(session=S, epoch=E, reason="full", free=0),
    step_block(0),
    step_block(3),
    step_block(2, n_heads=0, n_codebooks=32),
    Load(used=1, free=7, draining=False, steps=10**12, step_p50_ms=4.5, step_p99_ms=9.0, deadline_s=0.6),
    Evict(session=S, epoch=E, code="gap", reason="frame 8 after 6"),
    Closed(session=S, epoch=E),
]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and bool((left == right).all())
    if is_dataclass(left):
        return type(left) is type(right) and all(
            same(getattr(left, field.name), getattr(right, field.name)) for field in fields(left)
        )
    return bool(left == right)


def over_the_wire(message: ToWorker | ToGateway) -> list[bytes]:
    return [bytes(part) for part in encode(message)]


@pytest.mark.parametrize("message", TO_WORKER, ids=lambda m: type(m).__name__)
def test_a_worker_reads_what_a_gateway_wrote(message: ToWorker) -> None:
    assert same(decode_to_worker(over_the_wire(message)), message)


@pytest.mark.parametrize("message", TO_GATEWAY, ids=lambda m: type(m).__name__)
def test_a_gateway_reads_what_a_worker_wrote(message: ToGateway) -> None:
    assert same(decode_to_gateway(over_the_wire(message)), message)


@pytest.mark.parametrize(
    ("union", "table", "with_arrays"),
    [(ToWorker, TO_WORKER_BY_KIND, {Open, AudioBlock}), (ToGateway, TO_GATEWAY_BY_KIND, {StepBlock})],
)
def test_every_message_is_in_the_table_of_its_receiver(
    union: Any, table: dict[Kind, Scalars], with_arrays: set[type]
) -> None:
    assert {scalars.type for scalars in table.values()} | with_arrays == set(get_args(union))


def test_memoryviews_are_read_as_bytes_are() -> None:
    parts = [memoryview(part) for part in over_the_wire(step_block(2))]
    assert same(decode_to_gateway(parts), step_block(2))


@pytest.mark.parametrize(
    ("message", "pinned"),
    [
        (Hello(version=1, gateway="gw"), "01 92 01 a2 67 77"),
        (Marker(session=SessionId(1), epoch=Epoch(2), id=3, frame=FrameIndex(4)), "04 94 01 02 03 04"),
        (
            Flush(session=SessionId(1), epoch=Epoch(2), id=None, frame=FrameIndex(4), pad_samples=5),
            "05 95 01 02 c0 04 05",
        ),
        (Close(session=SessionId(1), epoch=Epoch(2)), "07 92 01 02"),
        (Heartbeat(), "08 90"),
        (Ready(session=SessionId(1), epoch=Epoch(2), slot=SlotIndex(3)), "43 93 01 02 03"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bytes_are_pinned_since_other_versions_must_read_them(message: ToWorker | ToGateway, pinned: str) -> None:
    assert over_the_wire(message) == [bytes.fromhex(pinned)]


def test_columns_of_an_audio_block_are_pinned() -> None:
    block = AudioBlock(
        sessions=np.array([1], np.int64),
        epochs=np.array([2], np.int32),
        frames=np.array([3], np.int64),
        pcm=np.zeros((1, FRAME_SAMPLES), np.float32),
    )
    head, columns, pcm = over_the_wire(block)
    assert head == bytes.fromhex("03 91 01")
    assert columns == bytes.fromhex("0100000000000000 0300000000000000 02000000")
    assert pcm == bytes(FRAME_SAMPLES * 4)


def test_audio_is_not_copied_on_the_way_out() -> None:
    block = audio_block(2)
    view = encode(block)[2]
    block.pcm[1, 0] = 42.0
    assert np.frombuffer(view, np.float32)[FRAME_SAMPLES] == 42.0


def test_fields_that_a_newer_peer_adds_are_ignored() -> None:
    head = bytes([7]) + msgpack.packb([1, 2, "new"])
    assert decode_to_worker([head]) == Close(session=SessionId(1), epoch=Epoch(2))


def head(kind: int, *values: object) -> bytes:
    return bytes([kind]) + msgpack.packb(values)


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([], "at least one part"),
        ([b""], "at least one part"),
        ([b"\x00\x90"], "0 is no kind of message"),
        ([b"\x01"], "no MessagePack"),
        ([b"\x01\xc1"], "no MessagePack"),
        ([b"\x01" + b"\x91" * 5000], "no MessagePack"),
        ([b"\x01\x01"], "must be an array"),
        ([b"\x08\x90", b""], "1 parts expected, 2 came"),
        ([b"\x08" + bytes(MAX_HEADER_BYTES)], "at most"),
        ([head(1, 1)], "Hello needs 2 fields, 1 came"),
        ([head(1, 1, 2)], "Hello.gateway must be a string"),
        ([head(1, True, "x")], "Hello.version must be an integer"),
        ([head(4, -1, 1, 1, 1)], "Marker.session must be an integer from 0"),
        ([head(4, 1, 0, 1, 1)], "Marker.epoch must be an integer from 1"),
        ([head(4, 1, 1, 2**63, 1)], "Marker.id must be an integer"),
        ([head(5, 1, 1, None, 1, FRAME_SAMPLES)], "Flush.pad_samples must be an integer from 0 to 1919"),
        ([head(6, 1, 1, None, 1, 1)], "Reset.restart must be true or false"),
        ([head(2, 1, 1, 2, 0, 0, None)], "Open.kind must be an integer from 0 to 1"),
        ([head(2, 1, 1, 0, 0, 0, [0, 1, 0, 0]), b"", b""], "Open.resume needs 8 fields, 4 came"),
        (
            [head(2, 1, 1, 0, 0, 0, [1, 1, 2, 0, 0, True, False, 0.0]), bytes(31), bytes(15360)],
            "audio_frames is 2, but only 1 recorded",
        ),
        (
            [head(2, 1, 1, 0, 0, 0, [1, 1, 1, 0, 1, True, False, 0.0]), bytes(31), bytes(7680)],
            "silence is 1, but only 0 recorded",
        ),
        (
            [head(2, 1, 1, 0, 0, 0, [1, 1, 0, 0, 0, True, False, 0.0]), bytes(24) + b"\xff" * 4 + bytes(3), b""],
            "text must be at least 0",
        ),
        ([head(2, 1, 1, 0, 0, 0, 5), b"", b""], "Open.resume must be an array"),
        ([head(3, 1)], "3 parts expected"),
        ([head(3, 4097), b"", b""], "AudioBlock.rows must be an integer from 0 to 4096"),
        ([head(3, 1), b"", bytes(7680)], "too short for the 1 rows"),
        ([head(3, 1), bytes(8) + bytes(8) + b"\1\0\0\0", bytes(7676)], "7680 bytes, not 7676"),
        ([head(3, 1), bytes(8) + bytes(8) + b"\1\0\0\0\0", bytes(7680)], "21 bytes long, 20 were announced"),
        ([head(3, 1), bytes(8) + bytes(8) + bytes(4), bytes(7680)], "AudioBlock.epochs must be at least 1"),
        ([head(3, 1), b"\xff" * 8 + bytes(8) + b"\1\0\0\0", bytes(7680)], "AudioBlock.sessions must be at least 0"),
        ([head(67, 1, 1, 1)], "a worker is not sent READY"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_worker_names_what_is_wrong(parts: list[bytes], complaint: str) -> None:
    with pytest.raises(LinkError, match=re.escape(complaint)):
        decode_to_worker(parts)


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([head(1, 1, "gw")], "a gateway is not sent HELLO"),
        ([head(69, 1, 1, 0, []), b""], "too short"),
        ([head(69, 0, 0, 0, []), b""], "StepBlock.codebooks must be an integer from 1"),
        ([head(69, 0, 1, 65, []), b""], "StepBlock.heads must be an integer from 0 to 64"),
        ([head(69, 0, 1, 0), b""], "StepBlock.events must be an array"),
        ([head(69, 0, 1, 0, [1]), b""], "an event must be an array"),
        ([head(69, 0, 1, 0, [[1, 1, 5, 0.0, "", None]]), b""], "StepEvent.kind must be an integer from 0 to 4"),
        ([head(69, 0, 1, 0, [[1, 1, 0, float("nan"), "", None]]), b""], "StepEvent.time_s must be a finite number"),
        ([head(69, 0, 1, 0, [[1, 1, 0, 0.0, "x" * 4097, None]]), b""], "StepEvent.text must be a string of at most"),
        ([head(70, 1, 1, False, 1, 1.0, 1.0, float("inf"))], "Load.deadline_s must be a finite number"),
        ([head(66, "1", "no")], "Unwelcome.versions must be a short list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_gateway_names_what_is_wrong(parts: list[bytes], complaint: str) -> None:
    with pytest.raises(LinkError, match=re.escape(complaint)):
        decode_to_gateway(parts)


@pytest.mark.parametrize(
    "packed",
    [
        b"\x91" * 1000 + b"\xc0",
        b"\x81\xa0" * 1000 + b"\xc0",
        msgpack.packb(list(range(100_000))),
        msgpack.packb("x" * 9999),
    ],
    ids=["deep arrays", "deep maps", "long array", "long text"],
)
@pytest.mark.parametrize("message", [TO_WORKER[0], TO_WORKER[2], step_block(1)])
def test_an_error_does_not_look_into_what_came_in_the_place_of_a_field(message: Any, packed: bytes) -> None:
    decode = decode_to_gateway if isinstance(message, StepBlock) else decode_to_worker
    first, *rest = map(bytes, encode(message))
    values = msgpack.unpackb(first[1:])
    for place in range(len(values)):
        pieces = [packed if at == place else msgpack.packb(value) for at, value in enumerate(values)]
        changed = first[:1] + msgpack.Packer().pack_array_header(len(values)) + b"".join(pieces)
        with pytest.raises(LinkError) as refused:
            decode([changed, *rest])
        assert len(str(refused.value)) < 300


@given(
    st.sampled_from([decode_to_worker, decode_to_gateway]),
    st.lists(st.binary(max_size=64), max_size=4),
)
def test_any_bytes_are_a_message_or_a_link_error(
    decode: Callable[[list[bytes]], ToWorker | ToGateway], parts: list[bytes]
) -> None:
    try:
        message = decode(parts)
    except LinkError:
        return
    assert same(decode(over_the_wire(message)), message)


@given(st.sampled_from(TO_WORKER), st.data())
def test_one_damaged_byte_is_a_message_or_a_link_error(message: ToWorker, data: st.DataObject) -> None:
    parts = over_the_wire(message)
    which = data.draw(st.integers(0, len(parts) - 1))
    if not parts[which]:
        return
    where = data.draw(st.integers(0, min(len(parts[which]), 64) - 1))
    damaged = bytearray(parts[which])
    damaged[where] = data.draw(st.integers(0, 255))
    parts[which] = bytes(damaged)
    try:
        decode_to_worker(parts)
    except LinkError:
        return
