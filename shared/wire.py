"""Messages of the link <-> ZeroMQ parts: with `shared.columns`, all that knows how the link is encoded.

    part 0    1 byte kind, then one MessagePack array: the message's scalar fields in the order of its dataclass
    part 1    columns of a block, one after the other, little-endian, widest first      (blocks and resume logs only)
    part 2    float32 audio, row after row                                              (blocks and resume logs only)

Lengths are checked before memory is taken, numbers before they are believed. An array may be longer than expected: the
surplus comes from a peer of the next version and is ignored. Nothing is ever pickled.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, cast

import msgpack
import numpy as np

from shared.columns import (
    FLOAT32,
    INT32,
    INT64,
    UINT8,
    UINT16,
    Columns,
    Part,
    audio_part,
    audio_rows,
    check_least,
    join_columns,
)
from shared.errors import LinkError
from shared.messages import (
    AudioBlock,
    EventKind,
    Open,
    ResumeLog,
    StepBlock,
    StepEvent,
    StepFlag,
    ToGateway,
    ToWorker,
)
from shared.units import FRAME_BYTES
from shared.wire_fields import (
    AUDIO_FIELDS,
    EVENT_FIELDS,
    MAX_ROWS,
    MAX_TEXT_CHARS,
    OPEN_FIELDS,
    RESUME_FIELDS,
    SCALARS_BY_TYPE,
    STEPS_FIELDS,
    TO_GATEWAY_BY_KIND,
    TO_WORKER_BY_KIND,
    Kind,
    Scalars,
    read_fields,
    shown,
)

Parts: TypeAlias = Sequence[Part]

MAX_HEADER_BYTES: Final = 8 << 20
"""Of part 0: a worker sends at most a hundred thousand events with a block."""
MAX_PART_BYTES: Final = MAX_ROWS * FRAME_BYTES
"""What a socket may refuse unread (``ZMQ_MAXMSGSIZE``)."""

# Every word is an event: what ``read_fields`` and the enum would make anew for each is made once.
_EVENT_CHECKS: Final = tuple((f"StepEvent.{field}", check) for field, check in EVENT_FIELDS.items())
_EVENT_KINDS: Final = tuple(map(EventKind, range(max(EventKind) + 1)))

# --- encoding ---------------------------------------------------------------------------------------------


def encode(message: ToWorker | ToGateway) -> list[Part]:
    """Return the parts of ``message``. Audio is not copied: leave it alone until the parts are sent."""
    match message:
        case AudioBlock():
            columns = join_columns((INT64, message.sessions), (INT64, message.frames), (INT32, message.epochs))
            return [_head(Kind.AUDIO_BLOCK, [len(message.sessions)]), columns, audio_part(message.pcm)]
        case StepBlock():
            return _encode_steps(message)
        case Open():
            return _encode_open(message)
        case _:
            scalars = SCALARS_BY_TYPE[type(message)]
            return [_head(scalars.kind, [getattr(message, name) for name in scalars.checks])]


def _head(kind: Kind, values: list[Any]) -> bytes:
    return bytes((kind,)) + cast("bytes", msgpack.packb(values))


def _encode_steps(block: StepBlock) -> list[Part]:
    events = [
        (event.session, event.epoch, int(event.kind), event.time_s, event.text, event.id) for event in block.events
    ]
    n_rows, n_codebooks, n_heads = len(block.sessions), block.codes.shape[1], block.pauses.shape[1]
    columns = join_columns(
        (INT64, block.sessions),
        (INT64, block.frames),
        (INT64, block.steps),
        (INT32, block.epochs),
        (INT32, block.text),
        (FLOAT32, block.pauses),
        (UINT16, block.codes),
        (UINT8, block.flags),
    )
    return [_head(Kind.STEP_BLOCK, [n_rows, n_codebooks, n_heads, events]), columns]


def _encode_open(message: Open) -> list[Part]:
    values: list[Any] = [getattr(message, name) for name in OPEN_FIELDS]
    log = message.resume
    if log is None:
        return [_head(Kind.OPEN, [*values, None])]
    n_steps, n_codebooks = log.codes.shape
    sizes = [n_steps, n_codebooks, len(log.pcm)]
    values += [[*sizes, log.steps, log.silence, log.is_whole, log.is_word_open, log.last_end_s]]
    columns = join_columns(
        (INT64, log.frames), (INT64, log.times), (INT32, log.text), (UINT16, log.codes), (UINT8, log.flags)
    )
    return [_head(Kind.OPEN, values), columns, audio_part(log.pcm)]


ONE_FRAME_HEAD: Final = _head(Kind.AUDIO_BLOCK, [1])
"""Part 0 of a block with one frame of audio; see ``lone_frames.py``."""

# --- decoding ---------------------------------------------------------------------------------------------


def decode_to_worker(parts: Parts) -> ToWorker:
    """Return the message that a worker was sent.

    Raises:
        LinkError: the parts are no such message; says what is wrong.
    """
    kind, values = _split(parts)
    match kind:
        case Kind.AUDIO_BLOCK:
            return _decode_audio(parts, values)
        case Kind.OPEN:
            return _decode_open(parts, values)
        case _:
            return cast("ToWorker", _decode_scalars("worker", TO_WORKER_BY_KIND, kind, parts, values))


def decode_to_gateway(parts: Parts) -> ToGateway:
    """Return the message that a gateway was sent; its arrays are views of the parts.

    Raises:
        LinkError: the parts are no such message; says what is wrong.
    """
    kind, values = _split(parts)
    match kind:
        case Kind.STEP_BLOCK:
            return _decode_steps(parts, values)
        case _:
            return cast("ToGateway", _decode_scalars("gateway", TO_GATEWAY_BY_KIND, kind, parts, values))


def _split(parts: Parts) -> tuple[Kind, list[Any]]:
    if not parts or not parts[0]:
        message = "a message needs at least one part with its kind"
        raise LinkError(message)
    head = parts[0]
    if len(head) > MAX_HEADER_BYTES:
        message = f"the first part is {len(head)} bytes long, at most {MAX_HEADER_BYTES} are allowed"
        raise LinkError(message)
    try:
        kind = Kind(head[0])
    except ValueError:
        message = f"{head[0]} is no kind of message"
        raise LinkError(message) from None
    try:
        values = msgpack.unpackb(head[1:], max_str_len=4 * MAX_TEXT_CHARS, max_bin_len=0, max_map_len=0, max_ext_len=0)
    except (ValueError, RecursionError) as error:
        message = f"the fields of {kind.name} are no MessagePack: {error}"
        raise LinkError(message) from None
    if type(values) is not list:
        message = f"the fields of {kind.name} must be an array"
        raise LinkError(message)
    return kind, values


def _expect_parts(parts: Parts, n_parts: int) -> None:
    if len(parts) != n_parts:
        message = f"{n_parts} parts expected, {len(parts)} came"
        raise LinkError(message)


def _decode_scalars(receiver: str, known: dict[Kind, Scalars], kind: Kind, parts: Parts, values: list[Any]) -> Any:
    scalars = known.get(kind)
    if scalars is None:
        message = f"a {receiver} is not sent {kind.name}"
        raise LinkError(message)
    _expect_parts(parts, 1)
    return scalars.type(**read_fields(scalars.type.__name__, scalars.checks, values))


def _decode_audio(parts: Parts, values: list[Any]) -> AudioBlock:
    _expect_parts(parts, 3)
    n_rows = read_fields("AudioBlock", AUDIO_FIELDS, values)["rows"]
    columns = Columns(parts[1])
    sessions, frames = columns.take(INT64, n_rows), columns.take(INT64, n_rows)
    epochs = columns.take(INT32, n_rows)
    columns.finish()
    check_least("AudioBlock.sessions", sessions, 0)
    check_least("AudioBlock.frames", frames, 0)
    check_least("AudioBlock.epochs", epochs, 1)
    return AudioBlock(sessions=sessions, epochs=epochs, frames=frames, pcm=audio_rows(parts[2], n_rows))


def _decode_open(parts: Parts, values: list[Any]) -> Open:
    opened = read_fields("Open", OPEN_FIELDS, values)
    sizes = values[len(OPEN_FIELDS)] if len(values) > len(OPEN_FIELDS) else None
    if sizes is None:
        _expect_parts(parts, 1)
        return Open(**opened)
    _expect_parts(parts, 3)
    if type(sizes) is not list:
        message = f"Open.resume must be an array of sizes, not {shown(sizes)}"
        raise LinkError(message)
    return Open(**opened, resume=_decode_resume(parts, read_fields("Open.resume", RESUME_FIELDS, sizes)))


def _decode_resume(parts: Parts, size: dict[str, Any]) -> ResumeLog:
    columns = Columns(parts[1])
    log = ResumeLog(
        frames=columns.take(INT64, size["recorded"]),
        times=columns.take(INT64, size["recorded"] + 1),
        text=columns.take(INT32, size["recorded"]),
        codes=columns.take(UINT16, size["recorded"], size["codebooks"]),
        flags=columns.take(UINT8, size["recorded"]),
        pcm=audio_rows(parts[2], size["audio_frames"]),
        steps=size["steps"],
        silence=size["silence"],
        is_whole=size["is_whole"],
        is_word_open=size["is_word_open"],
        last_end_s=size["last_end_s"],
    )
    columns.finish()
    for name, column in (("times", log.times), ("text", log.text)):
        check_least(f"Open.resume.{name}", column, 0)
    n_client = int(np.count_nonzero(log.flags == StepFlag.CLIENT))
    n_silent_at_end = len(log.flags) - int(np.max(np.flatnonzero(log.flags != StepFlag.SILENCE), initial=-1)) - 1
    for name, value, most in (
        ("audio_frames", len(log.pcm), n_client),
        ("silence", log.silence, n_silent_at_end),
    ):
        if value > most:
            message = f"Open.resume.{name} is {value}, but only {most} recorded steps are such"
            raise LinkError(message)
    return log


def _decode_steps(parts: Parts, values: list[Any]) -> StepBlock:
    _expect_parts(parts, 2)
    size = read_fields("StepBlock", STEPS_FIELDS, values)
    events = values[3] if len(values) > len(STEPS_FIELDS) else None
    if type(events) is not list:
        message = "StepBlock.events must be an array"
        raise LinkError(message)
    n_rows = size["rows"]
    columns = Columns(parts[1])
    block = StepBlock(
        sessions=columns.take(INT64, n_rows),
        frames=columns.take(INT64, n_rows),
        steps=columns.take(INT64, n_rows),
        epochs=columns.take(INT32, n_rows),
        text=columns.take(INT32, n_rows),
        pauses=columns.take(FLOAT32, n_rows, size["heads"]),
        codes=columns.take(UINT16, n_rows, size["codebooks"]),
        flags=columns.take(UINT8, n_rows),
        events=tuple(_decode_event(event) for event in events),
    )
    columns.finish()
    return block


def _decode_event(values: Any) -> StepEvent:
    if type(values) is not list:
        message = f"an event must be an array, not {shown(values)}"
        raise LinkError(message)
    if len(values) < len(_EVENT_CHECKS):
        read_fields("StepEvent", EVENT_FIELDS, values)
    checked: list[Any] = [check(name, value) for (name, check), value in zip(_EVENT_CHECKS, values, strict=False)]
    session, epoch, kind, time_s, text, event_id = checked
    return StepEvent(session, epoch, _EVENT_KINDS[kind], time_s, text, event_id)
