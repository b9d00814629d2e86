"""Causal attention with rotary positions.

The layers are the same offline and in a stream; what differs is the *memory* that a layer attends to:

    Sequence   an offline forward: keys and values are those of the input itself, under a band mask
    RingStep   one step of some slots: each slot's ring of the last C positions (``ring.py``)

Source: docs/model.md, sections 4 and 5.
"""

import math
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.products import linear, read_ahead

MIN_PRODUCT_NUMBERS: Final = 1 << 19
MAX_PRODUCT_QUERIES: Final = 4
"""For few queries and many keys two plain products are a fifth faster on CPU than torch's fused attention."""

MAX_READ_NUMBERS: Final = 1 << 12
"""Rings of shorter heads are read ahead (``products.py``); longer heads come fast enough while they are used."""


class Memory(Protocol):
    """What attention needs to know of time: shared by all layers of one call."""

    def attend(self, layer: int, projected: Tensor) -> Tensor:
        """Take in new queries, keys and values ``[..., 3 * d]``; return what the queries see, ``[..., d]``."""
        ...


def frequencies_of(*, head_dim: int, max_period: float, device: torch.device) -> Tensor:
    """Return by which angle, float64, each pair of a head turns from one position to the next: ``[head_dim / 2]``."""
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim
    return torch.exp(-math.log(max_period) * exponents)


def rotation_of(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Return ``exp(i * position * frequency)`` as complex64, with a last axis as long as ``frequencies``.

    Angles are computed in float64: in float32 they would be wrong by 0.06 rad after a day of audio.
    """
    angles = positions[..., None] * frequencies
    return torch.polar(torch.ones_like(frequencies[0]), angles).to(torch.complex64)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the interleaved pairs (0, 1), (2, 3), ... of the last axis, in float32; the dtype of ``x`` returns."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a bool mask into one that is added to the scores."""
    return torch.where(visible, torch.zeros((), dtype=dtype, device=visible.device), -torch.inf)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attend from ``[B, H, T, hd]`` to ``[B, H, S, hd]`` under an additive ``mask`` ``[B or 1, 1, T, S]``."""
    if keys.shape[2] * keys.shape[3] < MAX_READ_NUMBERS:
        read_ahead(keys)
        read_ahead(values)
    if not products_pay(queries, keys.shape[2]):
        return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    scores = torch.matmul(queries * queries.shape[-1] ** -0.5, keys.transpose(-1, -2)).add_(mask)
    return torch.matmul(torch.softmax(scores, dim=-1), values)


def products_pay(queries: Tensor, n_cells: int) -> bool:
    """Return whether plain products are faster than torch's fused attention from ``[B, H, T, hd]`` to so many cells."""
    n_rows, n_heads, n_new, head_dim = queries.shape
    is_long = n_rows * n_heads * n_cells * head_dim >= MIN_PRODUCT_NUMBERS and n_new <= MAX_PRODUCT_QUERIES
    return is_long and queries.device.type == "cpu" and queries.dtype == torch.float32


def attend_in_place(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, bags: tuple[Tensor, Tensor]) -> Tensor:
    """Attend from ``[G, T, hd]`` to ``[G, S, hd]`` where the values lie anywhere; return ``[G * T, hd]``.

    A weighted sum of rows is what an embedding bag is, and torch's is a third faster than its product for few queries.

    Args:
        queries: of G pairs of slot and head.
        keys: theirs.
        values: ``[cells, hd]``, of everybody.
        mask: ``[G, T, S]``, added to the scores.
        bags: which values each query sums up, ``[G * T * S]``, and where each query's begin, ``[G * T]``.
    """
    scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=queries.shape[-1] ** -0.5)
    weights = torch.softmax(scores, dim=-1).flatten()
    seen: Tensor = torch.embedding_bag(values, *bags, per_sample_weights=weights)[0]
    return seen


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
        frequencies = frequencies_of(head_dim=head_dim, max_period=max_period, device=like.device)
        self._rotation = rotation_of(at, frequencies)[:, None, None]
        self._head_dim = head_dim
        self._mask = additive(visible[None, None], like.dtype)

    def attend(self, layer: int, projected: Tensor) -> Tensor:
        """Attend to the input's own keys and values."""
        del layer
        heads = projected.view(*projected.shape[:2], 3, -1, self._head_dim)
        queries, keys = rotate(heads[:, :, :2], self._rotation).unbind(2)
        seen = attend(queries.transpose(1, 2), keys.transpose(1, 2), heads[:, :, 2].transpose(1, 2), self._mask)
        return seen.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Self-attention without biases; rows of ``in_proj_weight`` are the q, k and v blocks, each by head."""

    def __init__(self, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim, dtype=dtype))
        self.out_proj_weight = nn.Parameter(torch.empty(dim, dim, dtype=dtype))

    def forward(self, x: Tensor, memory: Memory, layer: int) -> Tensor:
        """Map ``[B, T, d]`` to ``[B, T, d]``."""
        projected = linear(x, self.in_proj_weight)
        if projected.dtype == torch.float16:
            # Models trained in bfloat16 can overflow float16: no row may leave inf or NaN in a ring.
            projected = projected.nan_to_num(0.0, 0.0, 0.0)
        return linear(memory.attend(layer, projected), self.out_proj_weight)
