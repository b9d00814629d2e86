"""The token log: what was fed to the model, in files, written by a thread of its own.

    loop ──FedTokens──► bounded queue ──► thread ─every so many seconds─► {instance}-asr-{secs}-{micros}.{n}.safetensors

A file holds the tensors ``text`` [B, n], ``audio`` [B, n_codebooks, n], ``mask`` [B, n] and ``generation`` [B, n] of n
steps. The loop never waits for it: a full queue or a full disk costs steps of the log, which are counted.
Source of the names, the first two tensors and their layout: moshi-server, ``BatchedAsr``'s ``Logger``.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import structlog

from asr_worker.core.tokens import FedTokens
from shared.log_events import TOKEN_LOG_FAILED, TOKEN_LOG_WRITTEN

MAX_QUEUED_STEPS: Final = 4_096
"""More than five minutes at real-time pace. A queue that is half full is written at once, whatever the period."""

MAX_QUEUED_BYTES: Final = 64 << 20

STOP_WITHIN_S: Final = 5.0


def queue_length(n_slots: int, n_codebooks: int) -> int:
    """Return how many steps may wait: as many as ``MAX_QUEUED_BYTES`` hold, within reason."""
    step_bytes = n_slots * (4 * (1 + n_codebooks) + 1 + 8)
    return max(64, min(MAX_QUEUED_STEPS, MAX_QUEUED_BYTES // step_bytes))


def tensors_of(steps: list[FedTokens]) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """Return the tensors of one file: ``steps`` side by side on the last axis."""
    return {
        "text": np.stack([step.text for step in steps], axis=-1),
        "audio": np.stack([step.audio for step in steps], axis=-1),
        "mask": np.stack([step.mask for step in steps], axis=-1),
        "generation": np.stack([step.generation for step in steps], axis=-1),
    }


class TokenLog:
    """Writes a file every ``period_s``. ``started_s`` (since 1970) names the files; ``on_lost`` is told of lost steps.

    ``on_lost`` may be called from either thread.
    """

    def __init__(
        self,
        *,
        log_dir: Path,
        instance_name: str,
        period_s: float,
        started_s: float,
        on_lost: Callable[[int], None],
        max_queued: int = MAX_QUEUED_STEPS,
    ) -> None:
        # Here and not above: the fake model runs where this is not installed.
        from safetensors import SafetensorError  # noqa: PLC0415
        from safetensors.numpy import save_file  # noqa: PLC0415

        self._save_file, self._save_error = save_file, SafetensorError
        secs = int(started_s)
        self._stem = f"{instance_name}-asr-{secs}-{int((started_s - secs) * 1e6)}"
        self._dir = log_dir
        self._period_s = min(period_s, threading.TIMEOUT_MAX)
        self._on_lost = on_lost
        self._queue: queue.Queue[FedTokens] = queue.Queue(maxsize=max_queued)
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="token log", daemon=True)
        self._log = structlog.get_logger()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_stopping = True
        self._wake.set()
        self._thread.join(STOP_WITHIN_S)

    def put(self, step: FedTokens) -> None:
        """Log ``step``; never waits."""
        try:
            self._queue.put_nowait(step)
        except queue.Full:
            self._on_lost(1)
        if self._queue.qsize() > self._queue.maxsize // 2:
            self._wake.set()

    def _run(self) -> None:
        n_files = 0
        while not self._is_stopping:
            self._wake.wait(self._period_s)
            self._wake.clear()
            n_files += self._write(n_files)
        self._write(n_files)

    def _write(self, number: int) -> int:
        """Write what is queued as file ``number``; return how many files that made."""
        steps = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        if not steps:
            return 0
        path = self._dir / f"{self._stem}.{number}.safetensors"
        unfinished = path.with_name(path.name + ".part")  # a reader never sees half a file
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            self._save_file(tensors_of(steps), unfinished)
            unfinished.replace(path)
        except (OSError, self._save_error) as error:
            self._on_lost(len(steps))
            self._log.error(TOKEN_LOG_FAILED, path=str(path), steps=len(steps), reason=str(error))
            with contextlib.suppress(OSError):
                unfinished.unlink()
        else:
            self._log.debug(TOKEN_LOG_WRITTEN, path=str(path), steps=len(steps))
        return 1
