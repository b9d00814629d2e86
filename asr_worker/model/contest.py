"""Which attention reads the rings on a device: decided on that device, at start-up, by trying both.

torch's reads copies of the rings unless all slots step, and all cells of them; the kernel reads only what is filled,
where it lies. Both get the same random rings, first of slots of all ages in every prepared size (the answers must
agree), then all full at the biggest size, where torch copies nothing (the faster one wins). A kernel that fails in any
way loses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from asr_worker.model.ring import Ring, RingAttention
from asr_worker.model.rows import Rows, device_rows

TOLERANCES: Final = {torch.float32: 1e-3}
DEFAULT_TOLERANCE: Final = 3e-2
"""Of the largest number in the answer to a query; for number formats of 16 bits. Right kernels reach a third of it."""

SLOTS_AT_ONCE: Final = 16
N_AGES: Final = 3
"""Ages are tried up to so many contexts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Who reads the rings from now on: the kernel, or torch."""

    is_kernel: bool
    torch_ms: float | None = None
    kernel_ms: float | None = None
    trouble: str | None = None
    """Why the kernel cannot be used."""

    def __str__(self) -> str:
        times = [
            f"{name} {ms:.3f} ms"
            for name, ms in (("kernel", self.kernel_ms), ("torch", self.torch_ms))
            if ms is not None
        ]
        return f"{'kernel' if self.is_kernel else 'torch'} ({', '.join(times) or 'not timed'})"


def decide(
    ring: Ring,
    *,
    sizes: Sequence[int],
    n_new: int,
    make_kernel: Callable[[], RingAttention],
    time_ms: Callable[[Callable[[], object]], float],
) -> Verdict:
    """Let both read ``ring`` in steps of ``n_new`` positions, and leave it with the winner, empty.

    Args:
        ring: of as many slots as the last of ``sizes``, and the scratch slot.
        sizes: the prepared ones, rising. The kernel is another one for few rows than for many: all are tried.
        n_new: positions of a step.
        make_kernel: may fail.
        time_ms: runs something a few times and says how long it took.
    """
    trial = _Trial(ring, n_new)
    winner: RingAttention | None = None
    try:
        kernel = make_kernel()
        trial.prepare()
        verdict = _compete(trial, kernel, sizes, time_ms)
        winner = kernel if verdict.is_kernel else None
    except torch.OutOfMemoryError:
        # Says nothing about the kernel; whatever comes next would have no room either.
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is that a compiler or a driver lacks, torch can do without
        # A compiler says first where, and last what is wrong.
        lines = str(error).strip().splitlines() or [""]
        reason = lines[-1] if lines[0].startswith("at ") else lines[0]
        verdict = Verdict(is_kernel=False, trouble=f"{type(error).__name__}: {reason}")
    finally:
        trial.clear()
        ring.kernel = winner
    return verdict


def _compete(
    trial: "_Trial", kernel: RingAttention, sizes: Sequence[int], time_ms: Callable[[Callable[[], object]], float]
) -> Verdict:
    trouble = _disagreement(trial, kernel, sizes)
    if trouble is not None:
        return Verdict(is_kernel=False, trouble=trouble)
    n_slots = sizes[-1]
    everyone = device_rows(n_slots, None)
    trial.fill_all()
    inputs = trial.inputs(n_slots)
    torch_ms = time_ms(lambda: trial.answer(None, everyone, inputs))
    kernel_ms = time_ms(lambda: trial.answer(kernel, everyone, inputs))
    return Verdict(is_kernel=kernel_ms < torch_ms, torch_ms=torch_ms, kernel_ms=kernel_ms)


def _disagreement(trial: "_Trial", kernel: RingAttention, sizes: Sequence[int]) -> str | None:
    """Compare answers for every prepared size, at all ages; return what is wrong."""
    tolerance = TOLERANCES.get(trial.dtype, DEFAULT_TOLERANCE)
    n_slots = sizes[-1]
    for n in sizes:
        rows = device_rows(n, None if n == n_slots else torch.randperm(n_slots, device=trial.device)[:n])
        trial.spread_ages()
        inputs = trial.inputs(n)
        expected = trial.answer(None, rows, inputs).float()
        errors = (trial.answer(kernel, rows, inputs).float() - expected).abs().amax(-1)
        # Each query has its own limit: what a slot with few cells answers is 20 times as large as the mean of many.
        limits = tolerance * expected.abs().amax(-1)
        # Not "errors > limits": NaN must not pass.
        if not bool((errors <= limits).all()):
            share = float((errors / limits).nan_to_num(torch.inf).max())
            return f"for {n} rows its answers differ from torch's by {share:.2g} times what is allowed"
    return None


class _Trial:
    """Random rings, and questions to them. Only the first layer is used."""

    def __init__(self, ring: Ring, n_new: int) -> None:
        self._ring = ring
        self._n_new = n_new
        self.dtype = ring.dtype
        self.device = ring.position.device

    def prepare(self) -> None:
        """Fill the first layer's rings."""
        n_kept, n_heads, context, head_dim = self._ring.cache.keys.shape[1:]
        # The slots' values are counted behind the slots' keys.
        for start in range(0, 2 * n_kept, SLOTS_AT_ONCE):
            stop = min(2 * n_kept, start + SLOTS_AT_ONCE)
            cells = torch.arange(start * n_heads * context, stop * n_heads * context, device=self.device)
            self._ring.cache.write(0, cells, self._noise(len(cells), head_dim))

    def fill_all(self) -> None:
        """Let all slots be as old as the context."""
        self._ring.position.fill_(self._ring.context)

    def spread_ages(self) -> None:
        """Let slots be anything from fresh to some contexts old, in any order."""
        n_kept = len(self._ring.position)
        n_steps = N_AGES * self._ring.context // self._n_new
        ages = torch.randperm(n_kept, device=self.device) * n_steps // n_kept
        self._ring.position.copy_(ages * self._n_new)

    def inputs(self, n_rows: int) -> Tensor:
        """Return queries, keys and values of a step."""
        _, _, n_heads, _, head_dim = self._ring.cache.keys.shape
        return self._noise(n_rows, self._n_new, 3 * n_heads * head_dim)

    def answer(self, kernel: RingAttention | None, rows: Rows, inputs: Tensor) -> Tensor:
        """Run one layer of a step; positions do not move."""
        self._ring.kernel = kernel
        return self._ring.begin(self._n_new, rows).attend(0, inputs)

    def clear(self) -> None:
        """Empty the rings again."""
        self._ring.cache.clear(0)
        self._ring.position.zero_()

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype)
