"""The last C keys and values of every slot: the memory of a transformer that streams.

A slot's ring has C cells; position q lies in cell q mod C. After a step whose last position is ``last``, cell c holds
position ``last - (last - c) mod C``; below zero it is empty. A query sees the cells that hold 0 <= position <= its
own. With two positions a step (Mimi) and a full ring the first query therefore sees C - 1 positions: its oldest was
just overwritten. That is what the published models were run with.

A step may leave slots out. Of those that take part on a device, all are computed as if they stepped, and write their
cell: harmless for the inactive ones, since it is written again before it can be seen, and no row is ever without a
visible cell, so no NaN arises.

Source: model.md section 5.
"""

import torch
from torch import Tensor

from asr_worker.model.attention import additive, attend, frequencies_of, rotation_of
from asr_worker.model.rows import Rows, all_rows


class Ring:
    """Keys and values ``[layers, B, H, C, hd]`` of the last C positions, and each slot's position ``[B]``."""

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
    ) -> None:
        # A head's cells lie together: reading them takes half the time of cells that hold all heads (CPU, B = 8).
        shape = (n_layers, n_rows, n_heads, context, head_dim)
        # Zeros, not whatever memory holds: the mask is added to the scores and would not hide a NaN.
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.position = torch.zeros(n_rows, device=device, dtype=torch.int64)
        self._context = context
        self._frequencies = frequencies_of(head_dim=head_dim, max_period=max_period, device=device)
        self._cells = torch.arange(context, device=device)
        self._first_cells = torch.arange(n_rows * n_heads, device=device).view(n_rows, 1, n_heads) * context
        self._everyone = all_rows(n_rows)

    def begin(self, n_new: int, rows: Rows | None = None) -> "RingStep":
        """Prepare a step that brings ``n_new`` positions to the slots in ``rows``; positions do not move yet."""
        rows = rows or self._everyone
        new = rows.take(self.position)[:, None] + torch.arange(n_new, device=self.position.device)
        last = new[:, -1:]
        # Where the host may look, cells that no slot has filled yet are not read.
        n_filled = self._context if last.is_cuda or rows.runs is None else min(self._context, int(last.max()) + 1)
        held = last - torch.remainder(last - self._cells[:n_filled], self._context)
        visible = (held >= 0)[:, None] & (held[:, None] <= new[:, :, None])
        return RingStep(
            ring=self,
            rows=rows,
            targets=(rows.take(self._first_cells) + torch.remainder(new, self._context)[:, :, None]).flatten(),
            rotation=rotation_of(new, self._frequencies),
            mask=additive(visible[:, None], self.keys.dtype),
        )

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

    def __init__(self, *, ring: Ring, rows: Rows, targets: Tensor, rotation: Tensor, mask: Tensor) -> None:
        self.rotation = rotation
        self._ring = ring
        self._rows = rows
        self._targets = targets
        self._mask = mask

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Write new keys and values ``[n, T, H, hd]`` into their cells; return what the queries see of the rings."""
        all_keys, all_values = self._ring.keys[layer], self._ring.values[layer]
        all_keys.flatten(0, 2).index_copy_(0, self._targets, keys.flatten(0, 2))
        all_values.flatten(0, 2).index_copy_(0, self._targets, values.flatten(0, 2))
        queries = queries.transpose(1, 2)
        n_filled = self._mask.shape[-1]
        if self._rows.runs is None:
            return attend(queries, self._rows.take(all_keys), self._rows.take(all_values), self._mask)
        seen = [
            attend(
                queries[run.rows],
                all_keys[run.slots, :, :n_filled],
                all_values[run.slots, :, :n_filled],
                self._mask[run.rows],
            )
            for run in self._rows.runs
        ]
        return seen[0] if len(seen) == 1 else torch.cat(seen)
