"""Queries, keys and values of a step, rotated by position."""

import torch
from torch import Tensor


class Heads:
    """Room for one layer's queries, keys and values of n rows; all layers of a step use it, one after the other.

        projected [n, T, 3 * d] ──► [3, n, H, T, hd] float32, queries and keys rotated in place ──► the model's dtype

    Every view of it is made once for all layers: on CPU that costs more than what is done with them.

    Args:
        rotation: ``[n, T, hd / 2]`` complex64.
        n_heads: H.
        dtype: the model's.
    """

    def __init__(self, rotation: Tensor, *, n_heads: int, dtype: torch.dtype) -> None:
        n_rows, n_new, n_pairs = rotation.shape
        shape = (3, n_rows, n_heads, n_new, 2 * n_pairs)
        self._wide = torch.empty(shape, device=rotation.device, dtype=torch.float32)
        self._room = self._wide if dtype == torch.float32 else torch.empty_like(self._wide, dtype=dtype)
        self._projected = self._wide.permute(1, 3, 0, 2, 4)
        self._rotated = torch.view_as_complex(self._wide[:2].view(2, *shape[1:4], n_pairs, 2))
        self._rotation = rotation[:, None]
        self.queries = self._room[0]
        """``[n, H, T, hd]``"""
        self.written = self._room[1:].flatten(0, 3)
        """``[2 * n * H * T, hd]``: the keys, then the values."""

    def put(self, projected: Tensor) -> None:
        """Take in ``[n, T, 3 * d]`` and rotate it; no gradients."""
        self._projected.copy_(projected.view(self._projected.shape))
        self._rotated.mul_(self._rotation)
        if self._room is not self._wide:
            self._room.copy_(self._wide)
