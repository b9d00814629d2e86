"""What all clients of one live route share, and what each of them uses."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr_gateway.core.clocks import ClockLimits
from asr_gateway.core.dialect import Dialect
from asr_gateway.io.dispatch import Dispatch
from asr_gateway.metrics import GatewayMetrics
from shared.config import GatewayConfig


class OpusDecoder(Protocol):
    """Turns the pieces of one Ogg Opus stream into samples."""

    def feed_in_pieces(self, data: bytes) -> Iterator[NDArray[np.float32]]:
        """Yield samples ``[n]`` about a second at a time; raises BadAudioError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveService:
    """What all clients of one live route share."""

    dispatch: Dispatch
    module: str
    make_dialect: Callable[[], Dialect]
    """For each client."""
    config: GatewayConfig
    clock_limits: ClockLimits
    metrics: GatewayMetrics
    make_opus_decoder: Callable[[], OpusDecoder]
    big_messages: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One client at a time decodes a big message, and everybody else has a turn before the next does."""


@dataclass(slots=True)
class Usage:
    """What one client has used, for the metrics and its last line in the log."""

    samples: int = 0
    words: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
