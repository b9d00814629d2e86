"""Mimi's split residual vector quantiser: one 512-wide latent to n codes.

    latent ──► project first ──► nearest entry of codebook 0                                    (semantic)
      └──────► project rest  ──► nearest of codebook 1 ──► residual ──► nearest of codebook 2 ...  (acoustic)

The acoustic branch starts from the latent itself, not from what the semantic one left over. Codebooks and half their
squared norms are computed once; a search is then one matrix product and an argmax, and the host never waits.

Source: model.md section 9.4.
"""

import torch
from torch import Tensor, nn

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
        entries, offsets = self.entries.unbind(), self.minus_half_norms.unbind()
        searched = self._packed or entries

        def nearest(level: int, x: Tensor) -> Tensor:
            # The least distance is the largest x.e - |e|^2 / 2.
            return linear(x, searched[level], offsets[level]).argmax(dim=-1)

        codes = [nearest(0, linear(latents, self.first_proj))]
        residual = linear(latents, self.rest_proj)
        for level in range(1, len(entries)):
            if level > 1:
                residual = residual - torch.embedding(entries[level - 1], codes[-1])
            codes.append(nearest(level, residual))
        return torch.stack(codes, dim=-1)

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
