"""Causal attention with rotary positions, over a whole sequence or over a ring of the last C positions.

The layers are the same in both cases; what differs is the *memory* that a layer asks for keys and values:

    Sequence   an offline forward: keys and values are those of the input itself, under a band mask
    RingStep   one step of B slots: the new ones go into each slot's ring cell, the whole ring comes back

A slot's ring has C cells; position q lies in cell q mod C. After a step whose last position is ``last``, cell c holds
position ``last - (last - c) mod C``; below zero it is empty. A query sees the cells that hold 0 <= position <= its
own. With two positions a step (Mimi) and a full ring the first query therefore sees C - 1 positions: its oldest was
just overwritten. That is what the published models were run with.

Rows outside the active ones are computed too, as if they stepped, and write their cell: harmless, since it is
written again before it can be seen, and no row is ever without a visible cell, so no NaN arises.

Source: model.md sections 4 and 5.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class Memory(Protocol):
    """What attention needs to know of time: shared by all layers of one call."""

    rotation: Tensor
    """``[B or 1, T, hd / 2]`` complex64: the rotary rotation of each new position."""
    mask: Tensor
    """``[B or 1, 1, T, S]`` in the model's dtype: 0 where a query sees a position, -inf elsewhere."""

    def recall(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take the new keys and values ``[B, T, H, hd]``; return all that may be seen, ``[B, S, H, hd]``."""
        ...


def rotation_of(positions: Tensor, *, head_dim: int, max_period: float) -> Tensor:
    """Return ``exp(i * position * theta)`` as complex64, with a last axis of ``head_dim / 2``.

    Angles are computed in float64: in float32 they would be wrong by 0.06 rad after a day of audio.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float64) / head_dim
    angles = positions[..., None] * torch.exp(-math.log(max_period) * exponents)
    return torch.complex(angles.cos().float(), angles.sin().float())


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the interleaved pairs (0, 1), (2, 3), ... of the last axis, in float32; the dtype of ``x`` returns."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a bool mask into one that is added to the scores."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)


class Sequence:
    """The memory of an offline forward over T positions from a session's start.

    Args:
        n_positions: T.
        context: C, the window.
        per_step: how many positions one streaming step would bring; decides the window of the first ones in a step.
        head_dim: width of a head.
        max_period: of the rotary angles.
        like: gives device and dtype.
    """

    def __init__(
        self, *, n_positions: int, context: int, per_step: int, head_dim: int, max_period: float, like: Tensor
    ) -> None:
        at = torch.arange(n_positions, device=like.device)
        last_of_step = at - at % per_step + per_step - 1
        visible = (at[None, :] <= at[:, None]) & (at[None, :] > last_of_step[:, None] - context)
        self.rotation = rotation_of(at[None], head_dim=head_dim, max_period=max_period)
        self.mask = additive(visible[None, None], like.dtype)

    def recall(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input's own keys and values."""
        del layer
        return keys, values


class Ring:
    """Keys and values of the last C positions, for every layer and slot, and each slot's position."""

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
        shape = (n_layers, n_rows, context, n_heads, head_dim)
        # Zeros, not whatever memory holds: the mask is added to the scores and would not hide a NaN.
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.position = torch.zeros(n_rows, device=device, dtype=torch.int64)
        self.max_period = max_period
        self._cells = torch.arange(context, device=device)
        self._row_starts = torch.arange(n_rows, device=device)[:, None] * context

    def begin(self, n_new: int) -> "RingStep":
        """Prepare a step that brings ``n_new`` positions to every slot; positions do not move yet."""
        context = self._cells.shape[0]
        new = self.position[:, None] + torch.arange(n_new, device=self.position.device)
        last = new[:, -1:]
        held = last - torch.remainder(last - self._cells, context)
        visible = (held >= 0)[:, None] & (held[:, None] <= new[:, :, None])
        return RingStep(
            ring=self,
            targets=(self._row_starts + torch.remainder(new, context)).flatten(),
            rotation=rotation_of(new, head_dim=self.keys.shape[-1], max_period=self.max_period),
            mask=additive(visible[:, None], self.keys.dtype),
        )

    def advance(self, active: Tensor, n_new: int) -> None:
        """End a step: slots in ``active`` ``[B]`` move on by ``n_new`` positions."""
        self.position.add_(active, alpha=n_new)

    def reset(self, rows: Tensor) -> None:
        """Empty the slots in the mask ``[B]``: what their rings hold is hidden by the position."""
        self.position.masked_fill_(rows, 0)


class RingStep:
    """The memory of one streaming step."""

    def __init__(self, *, ring: Ring, targets: Tensor, rotation: Tensor, mask: Tensor) -> None:
        self.rotation = rotation
        self.mask = mask
        self._ring = ring
        self._targets = targets

    def recall(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values into their cells and return the whole ring of the layer."""
        all_keys, all_values = self._ring.keys[layer], self._ring.values[layer]
        all_keys.flatten(0, 1).index_copy_(0, self._targets, keys.flatten(0, 1))
        all_values.flatten(0, 1).index_copy_(0, self._targets, values.flatten(0, 1))
        return all_keys, all_values


class Attention(nn.Module):
    """Self-attention without biases; rows of ``in_proj_weight`` are the q, k and v blocks, each by head."""

    def __init__(self, dim: int, n_heads: int, dtype: torch.dtype) -> None:
        super().__init__()
        self._n_heads = n_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim, dtype=dtype))
        self.out_proj_weight = nn.Parameter(torch.empty(dim, dim, dtype=dtype))

    def forward(self, x: Tensor, memory: Memory, layer: int) -> Tensor:
        """Map ``[B, T, d]`` to ``[B, T, d]``."""
        projected = functional.linear(x, self.in_proj_weight).view(*x.shape[:2], 3, self._n_heads, -1)
        if projected.dtype == torch.float16:
            # Models trained in bfloat16 can overflow float16: no row may leave inf or NaN in a ring.
            projected = projected.nan_to_num(0.0, 0.0, 0.0)
        queries, keys = rotate(projected[:, :, :2], memory.rotation[:, :, None, None]).unbind(2)
        keys, values = memory.recall(layer, keys, projected[:, :, 2])
        seen = functional.scaled_dot_product_attention(
            queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=memory.mask
        )
        return functional.linear(seen.transpose(1, 2).flatten(2), self.out_proj_weight)
