"""What the loop counts, whoever keeps the counters."""

from typing import Protocol


class Metrics(Protocol):
    """What the loop counts; see ``asr_worker/metrics.py``."""

    def step_lagged(self, lag_s: float) -> None:
        """Say how long the oldest frame of a step waited for it."""

    def step_finished(self, duration_s: float, *, n_frames: int) -> None:
        """Count one step."""

    def slots_changed(self, *, used: int, free: int) -> None:
        """Say how many slots are held."""

    def gateways_changed(self, count: int) -> None:
        """Say how many gateways are served."""

    def words_recognised(self, count: int) -> None:
        """Count words."""

    def gap_found(self) -> None:
        """Count a gap."""

    def session_evicted(self, code: str) -> None:
        """Count an eviction."""

    def session_rejected(self, reason: str) -> None:
        """Count a refusal."""

    def link_message_refused(self) -> None:
        """Count a malformed message."""

    def result_dropped(self) -> None:
        """Count a message that could not be sent."""
