"""Which slots take part in a step. Their number decides what a step costs, so on CPU the others are left out.

slots   0  1  2  3  4  5  6  7  8  9         every tensor of the step has a row for each slot that takes part;
step       x  x  x        x     x            what is as large as a cache is not copied together, but read where
runs      [1 ......4)    [6,7) [8,9)         it lies, one run of neighbouring slots after the other
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring slots ``start`` to ``stop``, whose rows in the step begin at ``row``."""

    start: int
    stop: int
    row: int

    @property
    def rows(self) -> slice:
        """Their rows in the step's tensors."""
        return slice(self.row, self.row + self.stop - self.start)

    @property
    def slots(self) -> slice:
        """Their rows in what is kept of all slots."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some slots, in order. ``index`` ``[n]`` is None if they are all there are: then nothing is copied."""

    index: Tensor | None
    runs: tuple[Run, ...]

    def take(self, kept: Tensor) -> Tensor:
        """Return these slots' rows of ``[n_slots, ...]``."""
        return kept if self.index is None else kept.index_select(0, self.index)

    def put(self, kept: Tensor, rows: Tensor) -> None:
        """Write ``rows`` to these slots of ``[n_slots, ...]``."""
        if self.index is None:
            kept.copy_(rows)
        else:
            kept.index_copy_(0, self.index, rows)


def all_rows(n_slots: int) -> Rows:
    """Return all slots."""
    return Rows(None, (Run(0, n_slots, 0),))


def rows_of(active: Tensor) -> Rows:
    """Return the slots in a mask ``[n_slots]`` on the host."""
    if bool(active.all()):
        return all_rows(len(active))
    index = torch.nonzero(active).flatten()
    runs: list[Run] = []
    for row, slot in enumerate(index.tolist()):
        if runs and runs[-1].stop == slot:
            runs[-1] = Run(runs[-1].start, slot + 1, runs[-1].row)
        else:
            runs.append(Run(slot, slot + 1, row))
    return Rows(index, tuple(runs))
