"""Which slots take part in a step. Their number decides what a step costs; the others are left out.

slots   0  1  2  3  4  5  6  7  8  9         every tensor of the step has a row for each slot that takes part;
step       x  x  x        x     x            what is as large as a cache is not copied together, but read where
runs      [1 ......4)    [6,7) [8,9)         it lies, one run of neighbouring slots after the other

On CPU the host knows the runs. On a device which slots they are is known there only, as an index: what the host would
have to ask for is not looked at, so a step can be captured once and replayed for any slots.
"""

from collections.abc import Iterable, Iterator
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
    """``n`` slots in the order of the step's rows.

    ``index`` ``[n]`` is None for the first n slots: then nothing is copied. ``runs`` is None if only the device knows
    them; an index may then name one slot, the scratch slot, several times.
    """

    n: int
    index: Tensor | None
    runs: tuple[Run, ...] | None

    def take(self, kept: Tensor) -> Tensor:
        """Return these slots' rows of ``[n_slots, ...]``."""
        return kept[: self.n] if self.index is None else kept.index_select(0, self.index)

    def parts(self, most: int) -> Iterator[tuple[slice, slice | Tensor]]:
        """Yield rows of the step with the slots where they lie: the runs, else at most ``most`` rows at a time."""
        if self.runs is not None:
            yield from ((run.rows, run.slots) for run in self.runs)
            return
        for start in range(0, self.n, most):
            rows = slice(start, min(self.n, start + most))
            yield rows, rows if self.index is None else self.index[rows]

    def put(self, kept: Tensor, rows: Tensor) -> None:
        """Write ``rows`` to these slots of ``[n_slots, ...]``."""
        if self.index is None:
            kept[: self.n].copy_(rows)
        else:
            kept.index_copy_(0, self.index, rows)


def all_rows(n_slots: int) -> Rows:
    """Return the first ``n_slots`` slots, as the host knows them."""
    return Rows(n_slots, None, (Run(0, n_slots, 0),))


def rows_at(slots: Iterable[int]) -> Rows:
    """Return slots that the host knows, in rising order."""
    runs: list[Run] = []
    listed = list(slots)
    for row, slot in enumerate(listed):
        if runs and runs[-1].stop == slot:
            runs[-1] = Run(runs[-1].start, slot + 1, runs[-1].row)
        else:
            runs.append(Run(slot, slot + 1, row))
    if len(runs) == 1 and runs[0].start == 0:
        return all_rows(len(listed))
    return Rows(len(listed), torch.tensor(listed, dtype=torch.int64), tuple(runs))


def device_rows(n: int, index: Tensor | None) -> Rows:
    """Return slots that only the device knows: those in ``index`` ``[n]`` int64, or the first n."""
    return Rows(n, index, None)
