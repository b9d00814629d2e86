"""Kyutai's WebSocket protocol: one MessagePack map with a ``type`` key for each message.

The fields and their order are those of moshi-server; ``Flush``, ``Reset``, their answers and ``code`` in ``Error`` are
ours. Audio has a fast path: an array whose every number is a float32 (or every one a float64) is checked and read by
numpy as a table of prefix bytes and values; any other mix of numbers goes through the ``msgpack`` library. So has
Opus in short pieces. The compiled flavour has a faster one yet for float32, in C (``kyutai_samples.c``).

    82 a4 "type" a5 "Audio" a3 "pcm" dc NNNN   ca VVVVVVVV   ca VVVVVVVV   ...
    '---------------- _AUDIO_HEAD -----'       '-- one row of the table --'

Samples that no loudspeaker could play are mended, not refused: NaN becomes 0 and values beyond +-10 are clipped to it,
because one such number would stay in the model's state for a minute.
"""

import struct
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final

import msgpack
import numpy as np
from numpy.typing import NDArray

from asr_gateway.core.dialect import (
    ClientEvent,
    FlushReceived,
    InitReceived,
    MarkerReceived,
    OpusReceived,
    ResetReceived,
    SamplesOf,
)
from asr_gateway.core.level import limited
from shared.errors import AsrError, BadMessageError
from shared.messages import EventKind, StepEvent

is_text: Final = False
is_finished: Final = False
"""Who closes is the client."""

# --- decoding ---------------------------------------------------------------------------------------------

_AUDIO_HEAD: Final = b"\x82\xa4type\xa5Audio\xa3pcm"
_OPUS_HEAD: Final = b"\x82\xa4type\xa7OggOpus\xa4data\xc4"
"""With the length of the data, one byte, to follow."""
_ARRAY16: Final = 0xDC
_ARRAY32: Final = 0xDD
_FIXARRAY: Final = 0x90
_FIXARRAY_MASK: Final = 0xF0
_MAX_ARRAY16: Final = (1 << 16) - 1
_UINT16: Final = struct.Struct(">BH")
_FLOAT32: Final = np.dtype(">f4")
_ARRAY: Final = np.ndarray
_FLOAT32_PREFIX: Final = 0xCA
_FLOAT32_STRIDE: Final = 5
_FLOAT32_BEGIN: Final = len(_AUDIO_HEAD) + _UINT16.size
_TABLES: Final = {
    _FLOAT32_PREFIX: np.dtype([("prefix", "u1"), ("value", ">f4")]),
    0xCB: np.dtype([("prefix", "u1"), ("value", ">f8")]),
}
_FLOAT32_BYTES: Final = 4
_INT64: Final = range(-(2**63), 2**63)
_MAX_CONTAINERS: Final = 64
"""Arrays and maps in one message. What the dialect needs is three; a million empty ones would cost 60 bytes each."""
_SHOWN: Final = 40
"""Characters of a client's value that an error quotes."""


def _samples_of() -> SamplesOf | None:
    try:
        from asr_gateway.dialects.kyutai_samples import unmasked  # noqa: PLC0415  (there if it was compiled)
    except ImportError:
        return None
    return partial(unmasked, _AUDIO_HEAD + bytes((_ARRAY16,)))


samples_of: Final = _samples_of()


def decode(data: bytes | bytearray) -> ClientEvent:
    """Return what one message says.

    Raises:
        BadMessageError: it is no message of this dialect; names what is wrong.
    """
    # Nearly all messages end here, so this is as short as it can be.
    head, n_samples, prefixes = _float32_layout(len(data))
    if data.startswith(head) and data[_FLOAT32_BEGIN::_FLOAT32_STRIDE] == prefixes:
        # Left where it lies: converting and joining many frames is one pass instead of two.
        return _ARRAY((n_samples,), _FLOAT32, data, _FLOAT32_BEGIN + 1, (_FLOAT32_STRIDE,))
    if data.startswith(_AUDIO_HEAD):
        pcm = _uniform_pcm(data)
        if pcm is not None:
            return pcm
    elif data.startswith(_OPUS_HEAD):
        begin = len(_OPUS_HEAD) + 1
        if len(data) >= begin and data[begin - 1] == len(data) - begin:
            return OpusReceived(bytes(data[begin:]))
    fields = _fields(data)
    kind = fields.get("type")
    reader = _READERS.get(kind) if type(kind) is str else None
    if reader is None:
        message = f"type {_shown(kind)} is unknown; known are {', '.join(_READERS)}"
        raise BadMessageError(message)
    return reader(fields)


@lru_cache(maxsize=64)
def _float32_layout(n_bytes: int) -> tuple[bytes, int, bytes | None]:
    """Return what a message of ``n_bytes`` is like that holds float32 samples only, counted in two bytes.

    How it begins, how many samples follow, and the prefix bytes of all of them; None if there is no such message.
    """
    n_samples, rest = divmod(n_bytes - _FLOAT32_BEGIN, _FLOAT32_STRIDE)
    if rest or not 0 < n_samples <= _MAX_ARRAY16:
        return _AUDIO_HEAD, 0, None
    return _AUDIO_HEAD + _UINT16.pack(_ARRAY16, n_samples), n_samples, bytes((_FLOAT32_PREFIX,)) * n_samples


def _uniform_pcm(data: bytes | bytearray) -> NDArray[np.float32] | None:
    """Return the samples if all are float32 or all are float64 and nothing follows; else None."""
    offset = len(_AUDIO_HEAD)
    head = data[offset] if offset < len(data) else 0
    if head == _ARRAY16 and offset + 3 <= len(data):
        n_samples, offset = int.from_bytes(data[offset + 1 : offset + 3], "big"), offset + 3
    elif head == _ARRAY32 and offset + 5 <= len(data):
        n_samples, offset = int.from_bytes(data[offset + 1 : offset + 5], "big"), offset + 5
    elif head & _FIXARRAY_MASK == _FIXARRAY:
        n_samples, offset = head - _FIXARRAY, offset + 1
    else:
        return None
    table = _TABLES.get(data[offset]) if offset < len(data) else None
    if table is None or len(data) - offset != n_samples * table.itemsize:
        return None
    # Two comparisons of bytes: numpy takes twice as long to compare a column that is not contiguous.
    if data[offset :: table.itemsize] != data[offset : offset + 1] * n_samples:
        return None
    return _playable(np.frombuffer(data, table, n_samples, offset)["value"])


def _playable(values: "NDArray[np.floating[Any]]") -> NDArray[np.float32]:
    """Return the samples as float32 within the bounds of what can be played."""
    if values.dtype.itemsize == _FLOAT32_BYTES:
        return limited(values.astype(np.float32))
    # Wider numbers are cut down first: they could overflow.
    return limited(values.astype(np.float64)).astype(np.float32)


class _Containers:
    """Makes the arrays and maps of one message, up to a limit."""

    def __init__(self) -> None:
        self._n = 0

    def array(self, values: list[Any]) -> list[Any]:
        self._count()
        return values

    def map(self, pairs: list[tuple[Any, Any]]) -> tuple[tuple[Any, Any], ...]:
        # Not a dict: its keys may be anything, and a map inside a map is never looked into.
        self._count()
        return tuple(pairs)

    def _count(self) -> None:
        self._n += 1
        if self._n > _MAX_CONTAINERS:
            message = f"a message may hold at most {_MAX_CONTAINERS} arrays and maps; pcm is one array of numbers, mono"
            raise BadMessageError(message)


def _fields(data: bytes | bytearray) -> dict[Any, Any]:
    containers = _Containers()
    try:
        pairs = msgpack.unpackb(
            data, list_hook=containers.array, object_pairs_hook=containers.map, strict_map_key=False
        )
    except (ValueError, RecursionError, OverflowError) as error:
        message = f"a message must be one MessagePack map: {type(error).__name__} {error}"
        raise BadMessageError(message[:200]) from None
    if type(pairs) is not tuple:
        message = f"a message must be a MessagePack map, not {type(pairs).__name__}"
        raise BadMessageError(message)
    return {key: value for key, value in pairs if type(key) is str}


def _mixed_pcm(values: Any) -> NDArray[np.float32]:
    if type(values) is not list:
        message = f"Audio: pcm must be an array of numbers, not {_named(values)}"
        raise BadMessageError(message)
    # Before numpy sees them: beside one long text it would make a text as long of every number, gigabytes of them.
    for value_type in set(map(type, values)):
        if value_type not in (int, float):
            message = f"Audio: pcm must hold numbers only, not {value_type.__name__}"
            raise BadMessageError(message)
    return _playable(np.array(values, np.float64))


def _opus_bytes(data: Any) -> bytes:
    if type(data) is bytes:
        return data
    if type(data) is not list:
        message = f"OggOpus: data must be bin or an array of integers, not {_named(data)}"
        raise BadMessageError(message)
    if not set(map(type, data)) <= {int}:
        message = "OggOpus: data must hold integers only"
        raise BadMessageError(message)
    try:
        return bytes(data)
    except ValueError:
        message = "OggOpus: data must hold integers from 0 to 255"
        raise BadMessageError(message) from None


def _identifier(name: str, value: Any) -> int:
    if type(value) is not int or value not in _INT64:
        message = f"{name}: id must be a 64-bit integer, not {_shown(value)}"
        raise BadMessageError(message)
    return value


def _optional_identifier(name: str, value: Any) -> int | None:
    return None if value is None else _identifier(name, value)


def _named(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


def _shown(value: Any) -> str:
    return repr(value if type(value) in (int, float, bool, type(None)) else str(value)[:_SHOWN])


_READERS: Final[dict[str, Callable[[dict[Any, Any]], ClientEvent]]] = {
    "Audio": lambda fields: _mixed_pcm(fields.get("pcm")),
    "OggOpus": lambda fields: OpusReceived(_opus_bytes(fields.get("data"))),
    "Marker": lambda fields: MarkerReceived(_identifier("Marker", fields.get("id"))),
    "Init": lambda _: InitReceived(),
    "Flush": lambda fields: FlushReceived(_optional_identifier("Flush", fields.get("id"))),
    "Reset": lambda fields: ResetReceived(_optional_identifier("Reset", fields.get("id"))),
}

# --- encoding ---------------------------------------------------------------------------------------------

_READY: Final = b"\x81\xa4type\xa5Ready"
_STEP: Final = b"\x84\xa4type\xa4Step\xa8step_idx"
_PRS: Final = b"\xa3prs"
_BUFFERED: Final = b"\xacbuffered_pcm"
_WORD: Final = b"\x83\xa4type\xa4Word\xa4text"
_START_TIME: Final = b"\xaastart_time"
_END_WORD: Final = b"\x82\xa4type\xa7EndWord\xa9stop_time"
_MARKER: Final = b"\x82\xa4type\xa6Marker\xa2id"
_FLUSHED: Final = b"\x82\xa4type\xa7Flushed\xa2id"
_RESET_DONE: Final = b"\x82\xa4type\xa9ResetDone\xa2id"
_FLOAT64: Final = struct.Struct(">Bd")
_UINT32: Final = struct.Struct(">BI")
_UINT64: Final = struct.Struct(">BQ")
_SHORT_UNSIGNED: Final = tuple(bytes((n,) if n < 1 << 7 else (0xCC, n)) for n in range(1 << 8))
_SHORT_TEXT: Final = tuple(bytes((0xA0 + n_bytes,)) for n_bytes in range(1 << 5))
"""How texts begin, by their length in bytes."""
_FLOAT32_ROW: Final = _TABLES[_FLOAT32_PREFIX]


def ready(session: int, delay_frames: int) -> bytes:
    """Encode: the session has a fresh slot."""
    del session, delay_frames
    return _READY


def pack_pauses(pauses: NDArray[np.float32]) -> list[bytes]:
    """Encode the field ``prs`` for each row of ``pauses`` ``[n, heads]``."""
    row = _pauses_row(pauses.shape[1])
    table = row.repeat(len(pauses))
    table["heads"]["value"] = pauses
    # Rows without a type are bytes: nothing has to be called for each.
    packed: list[bytes] = table.view(f"V{row.itemsize}").tolist()
    return packed


@lru_cache(maxsize=8)
def _pauses_row(n_heads: int) -> NDArray[np.void]:
    """Return one row of ``pack_pauses``, ``[1]``: all but the values of its heads."""
    head = _PRS + bytes(msgpack.Packer().pack_array_header(n_heads))
    row = np.zeros(1, [("head", "u1", len(head)), ("heads", _FLOAT32_ROW, n_heads)])
    row["head"] = np.frombuffer(head, np.uint8)
    row["heads"]["prefix"] = _FLOAT32_PREFIX
    return row


def step(step_idx: int, packed_pauses: bytes, buffered_pcm: int) -> bytes:
    """Encode one processed frame; ``packed_pauses`` is a piece of ``pack_pauses``."""
    # Most steps of a session, and most sessions that keep pace: no call for what they have.
    index = _UINT16.pack(0xCD, step_idx) if 1 << 8 <= step_idx < 1 << 16 else _unsigned(step_idx)
    buffered = _unsigned(buffered_pcm) if buffered_pcm else b"\0"
    return b"".join((_STEP, index, packed_pauses, _BUFFERED, buffered))


def event(event: StepEvent) -> bytes:
    """Encode a word, the end of a word, or the answer to a marker, flush or reset."""
    match event.kind:
        case EventKind.WORD:
            return b"".join((_WORD, _text(event.text), _START_TIME, _FLOAT64.pack(0xCB, event.time_s)))
        case EventKind.END_WORD:
            return _END_WORD + _FLOAT64.pack(0xCB, event.time_s)
        case EventKind.MARKER:
            return _MARKER + bytes(msgpack.packb(event.id))
        case EventKind.FLUSHED:
            return _FLUSHED + bytes(msgpack.packb(event.id))
        case EventKind.RESET_DONE:
            return _RESET_DONE + bytes(msgpack.packb(event.id))


def fields(event: StepEvent) -> dict[str, Any]:
    """Return what the message that ``event`` encodes holds, in its order: the answer to a file lists such maps."""
    match event.kind:
        case EventKind.WORD:
            return {"type": "Word", "text": event.text, "start_time": event.time_s}
        case EventKind.END_WORD:
            return {"type": "EndWord", "stop_time": event.time_s}
        case EventKind.MARKER:
            return {"type": "Marker", "id": event.id}
        case EventKind.FLUSHED:
            return {"type": "Flushed", "id": event.id}
        case EventKind.RESET_DONE:
            return {"type": "ResetDone", "id": event.id}


def error(error: AsrError) -> bytes:
    """Encode why the session ends: ``message`` for people and moshi-server's clients, ``code`` for programs."""
    return bytes(msgpack.packb({"type": "Error", "message": str(error), "code": error.code}))


def _text(text: str) -> bytes:
    """Return the MessagePack form of a text, short ones without a call of the library."""
    encoded = text.encode()
    return _SHORT_TEXT[len(encoded)] + encoded if len(encoded) < len(_SHORT_TEXT) else bytes(msgpack.packb(text))


def _unsigned(value: int) -> bytes:
    """Return the shortest MessagePack form of an integer >= 0 (four times as fast as a call of the library)."""
    if value < 1 << 8:
        return _SHORT_UNSIGNED[value]
    if value < 1 << 16:
        return _UINT16.pack(0xCD, value)
    if value < 1 << 32:
        return _UINT32.pack(0xCE, value)
    return _UINT64.pack(0xCF, value)
