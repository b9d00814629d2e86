"""Bounds of one gateway process and of the audio of one session. Counts only; nothing here waits.

A session may always hold a little audio; what it holds beyond that comes out of one budget for the whole process.
"""

from dataclasses import dataclass
from typing import Final

from shared.config import GatewayConfig
from shared.units import SAMPLE_RATE

SAMPLE_BYTES: Final = 4


class ByteBudget:
    """Memory that sessions share. It may be overdrawn by what one message brings; then it is exhausted."""

    __slots__ = ("capacity_bytes", "used_bytes")

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether nobody may take more."""
        return self.used_bytes >= self.capacity_bytes

    def charge(self, n_bytes: int) -> None:
        """Take ``n_bytes``; give back if negative."""
        self.used_bytes += n_bytes
        assert self.used_bytes >= 0, "more given back than taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioBounds:
    """How much decoded audio one session may hold in the gateway."""

    guaranteed_samples: int
    """Held whatever the others do."""
    max_samples: int
    """Held while the budget lasts."""

    @classmethod
    def of(cls, config: GatewayConfig) -> "AudioBounds":
        """Return the bounds that a configuration asks for."""
        return cls(
            guaranteed_samples=int(config.min_buffered_audio_s * SAMPLE_RATE),
            max_samples=int(config.max_buffered_audio_s * SAMPLE_RATE),
        )


class AudioAccount:
    """What one session holds, charged to the budget beyond the guaranteed part; decides when to stop reading."""

    __slots__ = ("_budget", "_charged_bytes", "_held_samples", "_max_samples", "guaranteed_samples", "is_beyond")

    def __init__(self, budget: ByteBudget, bounds: AudioBounds) -> None:
        self._budget = budget
        self.guaranteed_samples = bounds.guaranteed_samples
        self.is_beyond = False
        """Whether the session holds as much as is guaranteed, or more; while not, ``hold`` has nothing to do."""
        self._max_samples = bounds.max_samples
        self._charged_bytes = 0
        self._held_samples = 0

    def hold(self, n_samples: int) -> bool:
        """Set how many samples the session holds now; return whether it may take in more."""
        self._held_samples = n_samples
        self.is_beyond = n_samples >= self.guaranteed_samples
        due_bytes = max(0, n_samples - self.guaranteed_samples) * SAMPLE_BYTES
        self._budget.charge(due_bytes - self._charged_bytes)
        self._charged_bytes = due_bytes
        return self.may_read

    @property
    def may_read(self) -> bool:
        """Whether the session may take in more audio."""
        return not self.is_beyond or (self._held_samples < self._max_samples and not self._budget.is_exhausted)
