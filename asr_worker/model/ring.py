"""The last C keys and values of every slot: the memory of a transformer that streams.

A slot's ring has C cells; position q lies in cell q mod C. After a step whose last position is ``last``, cell c holds
position ``last - (last - c) mod C``; below zero it is empty. A query sees the cells that hold 0 <= position <= its
own. With two positions a step (Mimi) and a full ring the first query therefore sees C - 1 positions: its oldest was
just overwritten. That is what the published models were run with.

A step may leave slots out. Of those that take part on a device, all are computed as if they stepped, and write their
cell: harmless for the inactive ones, since it is written again before it can be seen, and no row is ever without a
visible cell, so no NaN arises.

Who reads the rings: on CPU torch, each run of slots where it lies, and only cells that some slot of the step has
filled; on CUDA a kernel that reads each slot's filled cells where they lie, or torch on copies of the rings, whichever
is faster there (``contest.py``).

Source: docs/model.md, section 5.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from asr_worker.model.attention import (
    attend,
    attend_in_place,
    frequencies_of,
    products_pay,
    rotation_of,
)
from asr_worker.model.heads import Heads
from asr_worker.model.kv_cache import KvCache, KvFormat, LayerCache
from asr_worker.model.rows import Rows, all_rows

ROWS_AT_ONCE: Final = 64
"""Of rings that must be copied: bounds the memory that a step takes."""


class RingAttention(Protocol):
    """Attention that reads rings where they lie; ``RingKernel`` says what goes in and comes out."""

    def __call__(self, queries: Tensor, cache: LayerCache, slots: Tensor, newest: Tensor, counts: Tensor) -> Tensor:
        """Attend from ``[n, T, H, hd]``; return ``[n, H, T, hd]``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where each row's keys lie: its slot, the cell of its newest position, how many cells are read."""

    slots: Tensor
    newest: Tensor
    counts: Tensor


class Ring:
    """Keys and values of the last C positions of B slots, and each slot's position ``[B]``.

    ``kernel`` reads the rings if it is set and the step's slots are known to the device only.
    """

    def __init__(
        self,
        *,
        n_layers: int,
        n_rows: int,
        context: int,
        n_heads: int,
        head_dim: int,
        max_period: float,
        device: torch.device,
        dtype: torch.dtype,
        form: KvFormat | None = None,
    ) -> None:
        # A head's cells lie together: reading them takes half the time of cells that hold all heads (CPU, B = 8).
        shape = (n_layers, n_rows, n_heads, context, head_dim)
        self.cache = KvCache(shape, dtype=dtype, form=form, device=device)
        self.kernel: RingAttention | None = None
        self.position = torch.zeros(n_rows, device=device, dtype=torch.int64)
        self.context = context
        self._frequencies = frequencies_of(head_dim=head_dim, max_period=max_period, device=device)
        self._cells = torch.arange(context, device=device)
        self._n_heads = n_heads
        self._first_cells = torch.arange(n_rows * n_heads, device=device).view(n_rows, n_heads, 1) * context
        # Behind all cells of the keys lie those of the values.
        self._halves = torch.arange(2, device=device)[:, None, None, None] * (n_rows * n_heads * context)
        self._slots = torch.arange(n_rows, device=device)
        self._everyone = all_rows(n_rows)
        # What is added to the scores of cells that are seen, and of others.
        self._shown, self._hidden = (torch.full((), added, device=device, dtype=dtype) for added in (0.0, -torch.inf))
        self.dtype = dtype

    def begin(self, n_new: int, rows: Rows | None = None, active: Tensor | None = None) -> "RingStep":
        """Prepare a step that brings ``n_new`` positions to the slots in ``rows``; positions do not move yet.

        What rows outside ``active`` ``[n]`` see may be anything.
        """
        rows = rows or self._everyone
        new = rows.take(self.position)[:, None] + self._cells[:n_new]
        last = new[:, -1:]
        if self.kernel is not None and rows.runs is None:
            mask, places = None, self._places(last[:, 0], n_new, rows, active)
        else:
            mask, places = self._mask(new, rows), None
        targets = rows.take(self._first_cells) + torch.remainder(new, self.context)[:, None]
        return RingStep(
            ring=self,
            rows=rows,
            targets=(targets + self._halves).flatten(),
            heads=Heads(rotation_of(new, self._frequencies), n_heads=self._n_heads, dtype=self.dtype),
            mask=mask,
            places=places,
        )

    def _places(self, last: Tensor, n_new: int, rows: Rows, active: Tensor | None) -> Places:
        counts = last.add(1).clamp(max=self.context)
        if active is not None:
            # Who does not step, padding above all, should cost nothing.
            counts = counts.masked_fill(~active, n_new)
        return Places(
            slots=rows.take(self._slots), newest=torch.remainder(last, self.context).int(), counts=counts.int()
        )

    def _mask(self, new: Tensor, rows: Rows) -> Tensor:
        """Return what each of ``new`` ``[n, T]`` sees of the cells, for scores ``[n, H, T, cells]``."""
        last = new[:, -1:]
        # Where the host may look, cells that no slot has filled yet are not read.
        n_filled = self.context if last.is_cuda or rows.runs is None else min(self.context, int(last.max()) + 1)
        steps_ago = torch.remainder(last - self._cells[:n_filled], self.context)
        visible = (steps_ago <= last)[:, None]
        if new.shape[1] > 1:
            visible = visible & (steps_ago[:, None] >= (last - new)[:, :, None])
        return torch.where(visible[:, None], self._shown, self._hidden)

    def advance(self, active: Tensor, n_new: int, rows: Rows | None = None) -> None:
        """End a step: of the slots in ``rows``, those in ``active`` ``[n]`` move on by ``n_new`` positions."""
        rows = rows or self._everyone
        rows.put(self.position, rows.take(self.position).add(active, alpha=n_new))

    def age(self, n_positions: int) -> None:
        """Let every slot be as old as if it had stepped ``n_positions``; what it remembers means nothing."""
        self.position.fill_(n_positions)

    def reset(self, chosen: Tensor, rows: Rows | None = None) -> None:
        """Empty those of ``rows`` in the mask ``[n]``: what their rings hold is hidden by the position."""
        rows = rows or self._everyone
        rows.put(self.position, rows.take(self.position).masked_fill(chosen, 0))


class RingStep:
    """The memory of one step."""

    def __init__(
        self, *, ring: Ring, rows: Rows, targets: Tensor, heads: Heads, mask: Tensor | None, places: Places | None
    ) -> None:
        self._cache = ring.cache
        self._kernel = ring.kernel
        self._heads = heads
        self._targets = targets
        self._places = places
        self._parts = () if mask is None else tuple(self._parts_of(rows, mask))

    def attend(self, layer: int, projected: Tensor) -> Tensor:
        """Write new keys and values into their cells; return what the queries see of the rings, ``[..., d]``.

        ``projected`` is ``[n, T, 3 * d]`` or ``[n * T, 3 * d]``.
        """
        self._heads.put(projected)
        self._cache.write(layer, self._targets, self._heads.written)
        if self._places is not None and self._kernel is not None:
            at, queries = self._places, self._heads.queries.transpose(1, 2)
            seen = [self._kernel(queries, self._cache.layer(layer), at.slots, at.newest, at.counts)]
        else:
            seen = [attend_part(layer) for attend_part in self._parts]
        together = seen[0] if len(seen) == 1 else torch.cat(seen)
        return together.transpose(1, 2).reshape(*projected.shape[:-1], -1)

    def _parts_of(self, rows: Rows, mask: Tensor) -> Iterator[Callable[[int], Tensor]]:
        """Yield what attends in a layer, for rows that are computed together."""
        is_copied = rows.index is not None or self._cache.is_converted
        for chosen, slots in rows.parts(ROWS_AT_ONCE if is_copied else rows.n):
            yield self._part_of(self._heads.queries[chosen], mask[chosen], slots)

    def _part_of(self, queries: Tensor, mask: Tensor, slots: slice | Tensor) -> Callable[[int], Tensor]:
        cache, n_cells = self._cache, mask.shape[-1]
        read = cache.read(slots, n_cells)
        if cache.read_dtype != queries.dtype:
            narrow, wide = cache.read_dtype, queries.dtype
            added = mask.to(narrow)
            return lambda layer: attend(queries.to(narrow), *read(layer), added).to(wide)
        if not (isinstance(slots, slice) and cache.is_plain and products_pay(queries, n_cells)):
            return lambda layer: attend(queries, *read(layer), mask)
        _, n_heads, n_new, _ = queries.shape
        # What all layers share is made once: the queries are a view of what each layer overwrites.
        flat, bags = queries.flatten(0, 1), cache.value_bags(slots, n_cells, n_new)
        added = mask.expand(-1, n_heads, -1, -1).flatten(0, 1)

        def attend_long(layer: int) -> Tensor:
            keys = read(layer)[0].flatten(0, 1)
            return attend_in_place(flat, keys, cache.cells(layer), added, bags).view(queries.shape)

        return attend_long
