"""Mimi's split residual vector quantiser: one 512-wide latent to n codes.

    latent ──► project first ──► nearest entry of codebook 0                                    (semantic)
      └──────► project rest  ──► nearest of codebook 1 ──► residual ──► nearest of codebook 2 ...  (acoustic)

The acoustic branch starts from the latent itself, not from what the semantic one left over. Codebooks and half their
squared norms are computed once; a search is then one matrix product and an argmax, and the host never waits.

Source: docs/model.md, section 9.4.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.products import Product, can_pack
from shared.config import MimiConfig

MIN_USAGE = 1e-5
"""Floor of an entry's usage count, by which its running sum is divided."""


class SplitQuantizer(nn.Module):
    """The encoder half of the quantiser, for the first ``n_codebooks`` codebooks of a file."""

    def __init__(self, config: MimiConfig, n_codebooks: int) -> None:
        super().__init__()
        self.first_proj = nn.Parameter(torch.empty(config.codebook_dim, config.dimension))
        self.rest_proj = nn.Parameter(torch.empty(config.codebook_dim, config.dimension))
        shape = (n_codebooks, config.codebook_size)
        self.entries = nn.Parameter(torch.empty(*shape, config.codebook_dim))
        self.register_buffer("minus_half_norms", torch.empty(shape), persistent=False)
        self.minus_half_norms: Tensor
        self._packed: _PackedQuantizer | None = None

    def forward(self, latents: Tensor) -> Tensor:
        """Map ``[N, dimension]`` to codes ``[N, n_codebooks]``, int64."""
        if self._packed is not None:
            return self._packed(latents)
        entries, offsets = self.entries.unbind(), self.minus_half_norms.unbind()
        searches = [partial(functional.linear, weight=entries[i], bias=offsets[i]) for i in range(len(entries))]
        first, rest = (functional.linear(latents, weight) for weight in (self.first_proj, self.rest_proj))
        return _search(first, rest, entries, searches)

    def pack(self, n_rows: int) -> None:
        """Pack what is multiplied, for up to ``n_rows`` latents; from here on it only steps."""
        if can_pack(self.entries):
            self._packed = _PackedQuantizer(self, n_rows)
            del self.first_proj, self.rest_proj

    @torch.no_grad()
    def put_codebook(self, level: int, embedding_sum: Tensor, cluster_usage: Tensor) -> None:
        """Store a published codebook: running sums ``[K, D]`` and usage counts ``[K]``."""
        usage = cluster_usage.to(self.entries.device, torch.float32).clamp(min=MIN_USAGE)
        entries = embedding_sum.to(self.entries.device, torch.float32) / usage[:, None]
        self.entries[level].copy_(entries)
        self.minus_half_norms[level].copy_(entries.square().sum(-1) / -2)


class _PackedQuantizer:
    """The quantiser as a step on CPU runs it: views and packed weights are made once."""

    def __init__(self, of: SplitQuantizer, n_rows: int) -> None:
        self._project = Product(torch.cat((of.first_proj, of.rest_proj)), n_rows=n_rows)
        # The entries themselves stay as well: they are what is subtracted.
        self._entries = of.entries.detach().unbind()
        levels = zip(self._entries, of.minus_half_norms.unbind(), strict=True)
        self._searches = [Product(*level, n_rows=n_rows) for level in levels]

    def __call__(self, latents: Tensor) -> Tensor:
        first, rest = self._project(latents).chunk(2, dim=-1)
        return _search(first, rest, self._entries, self._searches)


def _search(
    first: Tensor, rest: Tensor, entries: Sequence[Tensor], searches: Sequence[Callable[[Tensor], Tensor]]
) -> Tensor:
    """Return the codes ``[N, n_codebooks]`` of both projections; a level's search maps ``[N, D]`` to scores ``[N, K]``.

    The least distance is the largest x.e - |e|^2 / 2.
    """
    codes = [searches[0](first).argmax(dim=-1)]
    for level in range(1, len(searches)):
        if level > 1:
            rest = rest - torch.embedding(entries[level - 1], codes[-1])
        codes.append(searches[level](rest).argmax(dim=-1))
    return torch.stack(codes, dim=-1)
