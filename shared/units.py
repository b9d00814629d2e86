"""The words of the house: sizes, rates and identifiers that both kinds of process use.

A *frame* is 80 ms of audio, the unit of everything: one frame of one session is one row of one model step.
"""

from typing import Final, NewType

SAMPLE_RATE: Final = 24_000
"""Samples per second of all audio inside the service (mono float32 in [-1, 1])."""

FRAME_SAMPLES: Final = 1_920
"""Samples in one frame: 24 kHz / 12.5 Hz."""

FRAME_RATE: Final = 12.5
"""Frames per second."""

FRAME_BYTES: Final = FRAME_SAMPLES * 4
"""Bytes of one frame of float32 on the link."""

MAX_SLOTS: Final = 4_096
"""Slots of one worker, and rows of one block on the link: more than any card holds."""

DEFAULT_WINDOW_FRAMES: Final = 25
"""Frames of one session that a gateway may send ahead: 2 s, more than any jitter of the link, little enough to lose."""

MAX_CODEBOOKS: Final = 64
MAX_HEADS: Final = 64

MAX_PENDING_MARKERS: Final = 512
"""Of one session: the gateway refuses its client's next one, and the worker a gateway that does not.

Kyutai's Rust client sends one each 100 ms: a session must be able to fall behind by seconds and catch up.
"""

MAX_PENDING_CONTROLS: Final = 64
"""Flushes and resets of one session that may be under way at once, and in a count of their own Inits; likewise."""

LEAST_GATEWAY_TIMEOUT_S: Final = 0.5
"""A worker gives no gateway up any sooner: one whose clients say nothing is heard twice in this time."""

SessionId = NewType("SessionId", int)
"""One client stream, for its whole life, on whatever worker: a random integer below 2**63."""

Epoch = NewType("Epoch", int)
"""Counts the (re)openings of one session on any worker, from 1. What carries an older epoch is dropped."""

SlotIndex = NewType("SlotIndex", int)
"""A row of the batch, ``0 <= slot < B``."""

FrameIndex = NewType("FrameIndex", int)
"""Number of a frame on the link, from 0, per session; an ``Init`` does not restart it."""


def words_delay_frames(asr_delay_in_tokens: int, conditioning_delay_s: float | None) -> int:
    """Return D, the number of frames by which the model's words trail the audio.

    Source: moshi-server, ``BatchedAsr::new``: a configured conditioning delay wins over the token count.
    """
    if conditioning_delay_s is None:
        return asr_delay_in_tokens
    return int(conditioning_delay_s * FRAME_RATE) + 1
