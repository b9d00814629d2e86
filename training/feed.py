"""Batches made in other processes while this one trains: putting speech together costs a fifth of a step on CPU."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from asr_cli.child import die_with_parent
from training.utterance import Batch, UtteranceSource

_AHEAD: Final = 4
"""Batches that each process keeps ready."""
_MOST_PROCESSES: Final = 12


class _Batches(IterableDataset[Batch]):
    def __init__(self, source: UtteranceSource, size: int, seed: list[int]) -> None:
        self._source, self._size, self._seed = source, size, seed

    def __iter__(self) -> Iterator[Batch]:
        """Make batches for ever; each process draws its own."""
        worker = get_worker_info()
        self._source.reseed(np.random.SeedSequence([*self._seed, worker.id if worker else 0]))
        while True:
            yield self._source.batch(self._size)


def fed(source: UtteranceSource, *, size: int, seed: list[int], device: str) -> Callable[[], Batch]:
    """Return what gives the next batch of ``size`` utterances; the same ones for the same ``seed`` and machine."""
    spare = max(0, len(os.sched_getaffinity(0)) - 1)
    n_processes = min(_MOST_PROCESSES, spare if device != "cpu" else 1, spare)
    batches = DataLoader(
        _Batches(source, size, seed),
        batch_size=None,
        num_workers=n_processes,
        prefetch_factor=_AHEAD if n_processes else None,
        collate_fn=_as_it_is,
        worker_init_fn=_start,
    )
    return iter(batches).__next__


def _as_it_is(batch: Any) -> Any:
    return batch


def _start(worker: int) -> None:
    del worker
    # Ctrl-C reaches the whole group; the trainer decides what it means, and its own handlers were inherited.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # One whose trainer was killed would wait for ever for somebody to take its batches.
    die_with_parent()
    torch.set_num_threads(1)
