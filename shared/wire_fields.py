"""Fields of the link's messages: which there are, in which order they travel, what each may be.

A check takes the name and the value of a field and returns the value, or raises LinkError saying what is allowed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

from shared.errors import LinkError
from shared.messages import (
    Close,
    Closed,
    EventKind,
    Evict,
    Flush,
    Heartbeat,
    Hello,
    Load,
    Marker,
    Ready,
    Reject,
    Reset,
    SessionKind,
    Unwelcome,
    Welcome,
)
from shared.units import FRAME_SAMPLES, MAX_CODEBOOKS, MAX_HEADS, MAX_SLOTS

MAX_ROWS: Final = MAX_SLOTS
"""Rows of one block."""
MAX_TEXT_CHARS: Final = 4_096

_SHOWN: Final = 80
_INT64_MAX: Final = 2**63 - 1
_INT32_MAX: Final = 2**31 - 1


class Kind(IntEnum):
    """First byte of a message. Numbers are never used again for something else."""

    HELLO = 1
    OPEN = 2
    AUDIO_BLOCK = 3
    MARKER = 4
    FLUSH = 5
    RESET = 6
    CLOSE = 7
    HEARTBEAT = 8
    WELCOME = 65
    UNWELCOME = 66
    READY = 67
    REJECT = 68
    STEP_BLOCK = 69
    LOAD = 70
    EVICT = 71
    CLOSED = 72


Check: TypeAlias = Callable[[str, Any], Any]


def shown(value: Any) -> str:
    """Return what an error says of a value that a peer sent: short, and without looking into arrays.

    They may be a thousand levels deep, or millions of numbers long.
    """
    if type(value) in (list, dict):
        return f"an array or map of {len(value)}"
    return repr(value)[:_SHOWN]


def _integer(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            message = f"{name} must be an integer from {low} to {high}, not {shown(value)}"
            raise LinkError(message)
        return value

    return check


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        message = f"{name} must be a finite number, not {shown(value)}"
        raise LinkError(message)
    return float(value)


def _text(name: str, value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT_CHARS:
        message = f"{name} must be a string of at most {MAX_TEXT_CHARS} characters, not {shown(value)}"
        raise LinkError(message)
    return value


def _boolean(name: str, value: Any) -> bool:
    if type(value) is not bool:
        message = f"{name} must be true or false, not {shown(value)}"
        raise LinkError(message)
    return value


def _optional(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _session_kind(name: str, value: Any) -> SessionKind:
    return SessionKind(_integer(0, max(SessionKind))(name, value))


def _versions(name: str, value: Any) -> tuple[int, ...]:
    if type(value) is not list or len(value) > 16:  # noqa: PLR2004  (more versions than will ever be spoken at once)
        message = f"{name} must be a short list of versions, not {shown(value)}"
        raise LinkError(message)
    return tuple(_count(name, version) for version in value)


_count = _integer(0, _INT32_MAX)
_frame = _integer(0, _INT64_MAX)
_ROUTE: Final[dict[str, Check]] = {"session": _integer(0, _INT64_MAX), "epoch": _integer(1, _INT32_MAX)}
_ID: Final[Check] = _integer(-(2**63), _INT64_MAX)


@dataclass(frozen=True, slots=True)
class Scalars:
    """How a message without arrays travels: its kind, its class, and a check for each of its fields, in order."""

    kind: Kind
    type: type[Any]
    checks: dict[str, Check]


TO_WORKER: Final = (
    Scalars(Kind.HELLO, Hello, {"version": _count, "gateway": _text}),
    Scalars(Kind.MARKER, Marker, {**_ROUTE, "id": _ID, "frame": _frame}),
    Scalars(
        Kind.FLUSH,
        Flush,
        {**_ROUTE, "id": _optional(_ID), "frame": _frame, "pad_samples": _integer(0, FRAME_SAMPLES - 1)},
    ),
    Scalars(Kind.RESET, Reset, {**_ROUTE, "id": _optional(_ID), "restart": _boolean, "frame": _frame}),
    Scalars(Kind.CLOSE, Close, _ROUTE),
    Scalars(Kind.HEARTBEAT, Heartbeat, {}),
)
TO_GATEWAY: Final = (
    Scalars(
        Kind.WELCOME,
        Welcome,
        {
            "version": _count,
            "worker": _text,
            "module": _text,
            "fingerprint": _text,
            "n_sessions": _integer(1, MAX_ROWS),
            "n_heads": _integer(0, MAX_HEADS),
            "n_codebooks": _integer(1, MAX_CODEBOOKS),
            "delay_frames": _count,
            "context_frames": _count,
            "codec_context_frames": _count,
            "window_frames": _integer(1, MAX_ROWS),
            "device": _text,
            "dtype": _text,
        },
    ),
    Scalars(Kind.UNWELCOME, Unwelcome, {"versions": _versions, "reason": _text}),
    Scalars(Kind.READY, Ready, {**_ROUTE, "slot": _integer(0, MAX_ROWS - 1)}),
    Scalars(Kind.REJECT, Reject, {**_ROUTE, "reason": _text, "free": _count}),
    Scalars(
        Kind.LOAD,
        Load,
        {
            "used": _count,
            "free": _count,
            "draining": _boolean,
            "steps": _frame,
            "step_p50_ms": _number,
            "step_p99_ms": _number,
            "deadline_s": _number,
        },
    ),
    Scalars(Kind.EVICT, Evict, {**_ROUTE, "code": _text, "reason": _text}),
    Scalars(Kind.CLOSED, Closed, _ROUTE),
)
SCALARS_BY_TYPE: Final = {scalars.type: scalars for scalars in (*TO_WORKER, *TO_GATEWAY)}
TO_WORKER_BY_KIND: Final = {scalars.kind: scalars for scalars in TO_WORKER}
TO_GATEWAY_BY_KIND: Final = {scalars.kind: scalars for scalars in TO_GATEWAY}

OPEN_FIELDS: Final[dict[str, Check]] = {
    **_ROUTE,
    "kind": _session_kind,
    "first_frame": _frame,
    "silence_prefix_frames": _integer(0, MAX_ROWS),
}
AUDIO_FIELDS: Final[dict[str, Check]] = {"rows": _integer(0, MAX_ROWS)}

RESUME_FIELDS: Final[dict[str, Check]] = {
    "recorded": _integer(0, MAX_ROWS),
    "codebooks": _integer(1, MAX_CODEBOOKS),
    "audio_frames": _integer(0, MAX_ROWS),
    "steps": _frame,
    "silence": _integer(0, MAX_ROWS),
    "is_whole": _boolean,
    "is_word_open": _boolean,
    "last_end_s": _number,
}

STEPS_FIELDS: Final[dict[str, Check]] = {
    "rows": _integer(0, MAX_ROWS),
    "codebooks": _integer(1, MAX_CODEBOOKS),
    "heads": _integer(0, MAX_HEADS),
}

EVENT_FIELDS: Final[dict[str, Check]] = {
    **_ROUTE,
    "kind": _integer(0, max(EventKind)),
    "time_s": _number,
    "text": _text,
    "id": _optional(_ID),
}


def read_fields(name: str, checks: dict[str, Check], values: list[Any]) -> dict[str, Any]:
    """Return the checked fields of the message ``name``; surplus values are a newer peer's and ignored.

    Raises:
        LinkError: a value is missing or not allowed.
    """
    if len(values) < len(checks):
        message = f"{name} needs {len(checks)} fields, {len(values)} came"
        raise LinkError(message)
    return {
        field: check(f"{name}.{field}", value) for (field, check), value in zip(checks.items(), values, strict=False)
    }
