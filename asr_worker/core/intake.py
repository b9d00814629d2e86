"""Audio in: a block of frames of many sessions, checked row by row in columns and put into the rings.

A session whose frames do not follow each other, exceed its credit or are no audio loses its slot: a gap on the link is
never silence, and there is no retransmission. All others of the block are untouched by it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.gateways import UNKNOWN, Gateway
from asr_worker.core.pcm import PcmRings, rank_among_equals
from asr_worker.core.rows import Rows
from shared.errors import BadAudioError, LinkError
from shared.messages import EVICT_GAP, AudioBlock
from shared.units import FRAME_SAMPLES, Epoch, SessionId, SlotIndex

MAX_RMS: Final = 1e6
"""Of one frame: such numbers are no audio. Gateways clip at 10, so whoever sends them is broken, or none of ours."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The session in ``slot`` broke the rules of the link."""

    slot: SlotIndex
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was wrong with a block."""

    unknown: list[tuple[SessionId, Epoch]]
    """Sessions that hold no slot, or not in that epoch yet."""
    faults: list[Fault]


def take_audio(*, gateway: Gateway, block: AudioBlock, rows: Rows, rings: PcmRings, now: float) -> Taken:
    """Put the frames of ``block`` that belong to current epochs into the rings; say what was wrong with the others.

    Frames of an older epoch are dropped without a word. Of a session with a fault no frame of the block is kept.
    """
    slots = gateway.find(block.sessions)
    epochs = np.where(slots == UNKNOWN, 0, rows.epoch[slots])
    strange = np.flatnonzero(block.epochs > epochs)
    pairs = zip(block.sessions[strange].tolist(), block.epochs[strange].tolist(), strict=True)
    slots, frames, pcm = _keep(block.epochs == epochs, slots, block.frames, block.pcm)
    ranks = rank_among_equals(slots)
    broken = {
        EVICT_GAP: frames != rows.next_frame[slots] + ranks,
        LinkError.code: rows.unacknowledged[slots] + ranks >= rings.window,
        BadAudioError.code: _is_no_audio(pcm),
    }
    faults: dict[int, Fault] = {}
    for code, is_broken in broken.items():
        for slot in slots[is_broken].tolist():
            if slot not in faults:
                faults[slot] = Fault(SlotIndex(slot), code, _reason(code, int(rows.next_frame[slot]), rings.window))
    if faults:
        is_kept = ~np.isin(slots, list(faults))
        slots, frames, pcm = _keep(is_kept, slots, frames, pcm)
        ranks = ranks[is_kept]
    rings.push(slots, pcm, now, ranks=ranks)
    np.add.at(rows.next_frame, slots, 1)
    np.add.at(rows.unacknowledged, slots, 1)
    unknown = [(SessionId(session), Epoch(epoch)) for session, epoch in dict.fromkeys(pairs)]
    return Taken(unknown=unknown, faults=list(faults.values()))


def _keep(
    is_kept: NDArray[np.bool_], slots: NDArray[np.int64], frames: NDArray[np.int64], pcm: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows that are kept; all of them are not copied, and that is nearly always."""
    return (slots, frames, pcm) if is_kept.all() else (slots[is_kept], frames[is_kept], pcm[is_kept])


def _is_no_audio(pcm: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return ``[n]``: whether a frame of ``pcm`` ``[n, 1920]`` has samples that are no numbers, or far too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        energy = np.einsum("ij,ij->i", pcm, pcm)
    loud: NDArray[np.bool_] = ~(energy <= FRAME_SAMPLES * MAX_RMS**2)
    return loud


def _reason(code: str, next_frame: int, window: int) -> str:
    if code == EVICT_GAP:
        return f"frame {next_frame} was to come next"
    if code == BadAudioError.code:
        return f"samples must be numbers, of at most {MAX_RMS:g} (RMS) in a frame"
    return f"more frames than the window of {window}"
