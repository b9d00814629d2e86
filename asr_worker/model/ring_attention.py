"""Launches the Triton kernels that read rings where they lie (``ring_kernel.py``). Needs the package triton."""

from typing import Final

import torch
import triton
from torch import Tensor

from asr_worker.model.kv_cache import LayerCache
from asr_worker.model.ring_kernel import attend_kernel, merge_kernel

BLOCK_NUMBERS: Final = 4096
"""Numbers of a block of weighted values: 32 registers of each of 128 threads, so that four programs fit on a core."""
MAX_BLOCK: Final = 128
MAX_SPLITS: Final = 16
MAX_QUERIES: Final = 2
N_WARPS: Final = 4


class RingKernel:
    """Launches the kernels.

    Args:
        n_programs: how many programs keep the device busy; below that, contexts are split.
    """

    def __init__(self, n_programs: int) -> None:
        self._n_programs = n_programs

    def __call__(self, queries: Tensor, cache: LayerCache, slots: Tensor, newest: Tensor, counts: Tensor) -> Tensor:
        """Attend from ``[n, T, H, hd]`` to each row's slot; return ``[n, H, T, hd]`` in the queries' dtype.

        Args:
            queries: rotated; T is 1 or 2.
            cache: one layer of all slots.
            slots: ``[n]`` int64.
            newest: ``[n]`` int32, the cell of each row's last position.
            counts: ``[n]`` int32, how many cells are read: the first ones, T at least.
        """
        n, n_queries, n_heads, head_dim = queries.shape
        assert n_queries <= MAX_QUERIES
        context = cache.keys.shape[2]
        queries = queries if queries.stride(-1) == 1 else queries.contiguous()
        width = triton.next_power_of_2(head_dim)
        block = min(MAX_BLOCK, max(16, BLOCK_NUMBERS // (n_queries * width)))
        n_splits = splits(self._n_programs, n * n_heads, triton.cdiv(context, block))
        out = queries.new_empty(n, n_queries, n_heads, head_dim)
        # Not touched unless there are several splits.
        parts = [out, out, out]
        if n_splits > 1:
            shape = (n, n_queries, n_heads, n_splits)
            parts = [torch.empty(size, device=out.device) for size in (shape, shape, (*shape, head_dim))]
        attend_kernel[(n * n_heads, n_splits)](
            queries, cache.keys, cache.values, cache.key_scales, cache.value_scales, slots, newest, counts, out,
            *parts, queries.stride(0), queries.stride(1), queries.stride(2), head_dim**-0.5, n_heads, context,
            n_queries=n_queries, head_dim=head_dim, width=width, block=block, n_splits=n_splits,
            has_scales=cache.key_scales is not None, num_warps=N_WARPS,
        )  # fmt: skip
        if n_splits > 1:
            merge_kernel[(n * n_queries * n_heads,)](
                *parts, out, head_dim=head_dim, width=width, n_splits=n_splits, num_warps=1
            )
        return out.transpose(1, 2)


def splits(n_programs: int, n_pairs: int, n_blocks: int) -> int:
    """Return into how many parts, a power of four, ``n_blocks`` of each of ``n_pairs`` (row, head) are split.

    Not of two: each number is a kernel of its own, which takes a second to compile where none is cached.
    """
    n_splits = 1
    while n_splits * n_pairs < n_programs and 4 * n_splits <= min(n_blocks, MAX_SPLITS):
        n_splits *= 4
    return n_splits
