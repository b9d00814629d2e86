"""Mimi's split residual vector quantiser: one 512-wide latent to n codes.

    latent ──► project first ──► nearest entry of codebook 0                                    (semantic)
      └──────► project rest  ──► nearest of codebook 1 ──► residual ──► nearest of codebook 2 ...  (acoustic)

The acoustic branch starts from the latent itself, not from what the semantic one left over. Codebooks and half their
squared norms are computed once; a search is then one matrix product and an argmax, and the host never waits.

Source: model.md section 9.4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.products import MIN_PACKED_NUMBERS, can_pack, linear, pack_weights, packed
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
        self._packed: list[Tensor] = []

    def forward(self, latents: Tensor) -> Tensor:
        """Map ``[N, dimension]`` to codes ``[N, n_codebooks]``, int64."""
        residual = linear(latents, self.first_proj)
        codes = [self._nearest(0, residual)]
        residual = linear(latents, self.rest_proj)
        for level in range(1, len(self.entries)):
            code = self._nearest(level, residual)
            codes.append(code)
            residual = residual - functional.embedding(code, self.entries[level])
        return torch.stack(codes, dim=-1)

    def _nearest(self, level: int, x: Tensor) -> Tensor:
        """Return for each row of ``x`` ``[N, D]`` the entry with the least distance: the largest x.e - |e|^2 / 2."""
        entries = self._packed[level] if self._packed else self.entries[level]
        scores = linear(x, entries, self.minus_half_norms[level])
        return scores.argmax(dim=-1)

    def pack(self) -> None:
        """Pack what is multiplied; from here on only ``forward`` without gradients works."""
        pack_weights(self, "first_proj", "rest_proj")
        # The entries themselves stay as well: they are what is subtracted.
        if can_pack(self.entries) and self.entries[0].numel() >= MIN_PACKED_NUMBERS:
            self._packed = [packed(entries) for entries in self.entries]

    @torch.no_grad()
    def put_codebook(self, level: int, embedding_sum: Tensor, cluster_usage: Tensor) -> None:
        """Store a published codebook: running sums ``[K, D]`` and usage counts ``[K]``."""
        usage = cluster_usage.to(self.entries.device, torch.float32).clamp(min=MIN_USAGE)
        entries = embedding_sum.to(self.entries.device, torch.float32) / usage[:, None]
        self.entries[level].copy_(entries)
        self.minus_half_norms[level].copy_(entries.square().sum(-1) / -2)
