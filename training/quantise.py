"""The quantiser while it learns: codebooks follow the latents by moving averages, gradients pass straight through.

The published files hold just these averages (``embedding_sum``, ``cluster_usage``), so a resumed run goes on exactly
where the checkpoint stands.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.quantizer import SplitQuantizer

_DECAY: Final = 0.97
"""Codebooks that follow slower than the encoder moves fall behind; what they miss then drives it on (RESULTS.md)."""
_DEAD_USAGE: Final = 0.05
"""Below this moving count per batch an entry is given away."""


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """What came of N latents.

    ``codes`` ``[N, n]``; ``first`` and ``rest`` ``[N, D]`` with straight-through gradients; ``commit`` the mean
    squared distance to the entries.
    """

    codes: Tensor
    first: Tensor
    rest: Tensor
    commit: Tensor


class MovingCodebooks(nn.Module):
    """The averages behind a `SplitQuantizer`'s codebooks."""

    def __init__(self, quantizer: SplitQuantizer) -> None:
        super().__init__()
        n_levels, size, dim = quantizer.entries.shape
        self.register_buffer("sums", torch.zeros(n_levels, size, dim))
        self.register_buffer("usage", torch.ones(n_levels, size))
        self.sums: Tensor
        self.usage: Tensor
        quantizer.entries.requires_grad = False

    @torch.no_grad()
    def follow(self, quantizer: SplitQuantizer, per_batch: int) -> None:
        """Start from the quantiser's entries as if each had been used evenly in batches of ``per_batch`` latents."""
        self.usage.fill_(per_batch / self.usage.shape[1])
        self.sums.copy_(quantizer.entries * self.usage[..., None])

    @torch.no_grad()
    def write(self, quantizer: SplitQuantizer) -> None:
        """Put the entries that the averages stand for into the quantiser."""
        for level, (sums, usage) in enumerate(zip(self.sums, self.usage, strict=True)):
            quantizer.put_codebook(level, sums, usage)

    @torch.no_grad()
    def fit(self, quantizer: SplitQuantizer, latents: Tensor, generator: torch.Generator, rounds: int = 12) -> None:
        """Place the codebooks by k-means on ``[N, dimension]`` latents, level by level."""
        for levels, projection in (((0,), quantizer.first_proj), (range(1, len(self.sums)), quantizer.rest_proj)):
            residual = functional.linear(latents, projection)
            for level in levels:
                chosen = torch.randperm(len(residual), generator=generator)[: self.usage.shape[1]]
                entries = residual[chosen].clone()
                entries += 0.01 * entries.std() * torch.randn(entries.shape, generator=generator).to(entries.device)
                for _ in range(rounds):
                    code = _nearest(residual, entries)
                    counts = entries.new_zeros(len(entries)).index_add_(0, code, entries.new_ones(len(code)))
                    sums = torch.zeros_like(entries).index_add_(0, code, residual)
                    entries = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], entries)
                quantizer.put_codebook(level, entries, entries.new_ones(len(entries)))
                residual = residual - entries[_nearest(residual, entries)]

    @torch.no_grad()
    def learn(self, quantizer: SplitQuantizer, latents: Tensor, codes: Tensor) -> int:
        """Move the averages by one batch and write them into the quantiser; return how many entries were renewed.

        An entry that hardly anything uses is moved onto a random latent of the batch; two of a codebook at most, since
        each changes the codes of its neighbourhood.
        """
        renewed = 0
        residual = functional.linear(latents, quantizer.first_proj)
        for level in range(len(self.sums)):
            if level == 1:
                residual = functional.linear(latents, quantizer.rest_proj)
            code = codes[:, level]
            old = functional.embedding(code, quantizer.entries[level])
            counts = torch.zeros_like(self.usage[level]).index_add_(0, code, torch.ones_like(residual[:, 0]))
            sums = torch.zeros_like(self.sums[level]).index_add_(0, code, residual)
            self.usage[level].lerp_(counts, 1 - _DECAY)
            self.sums[level].lerp_(sums, 1 - _DECAY)
            dead = torch.nonzero(self.usage[level] < _DEAD_USAGE).flatten()[:2]
            if len(dead):
                at = torch.randint(len(residual), (len(dead),), device=residual.device)
                self.usage[level, dead] = 1.0
                self.sums[level, dead] = residual[at]
                renewed += len(dead)
            quantizer.put_codebook(level, self.sums[level], self.usage[level])
            residual = residual - old
        return renewed


def quantise(quantizer: SplitQuantizer, latents: Tensor) -> Quantised:
    """Quantise ``[N, dimension]`` float32 latents; gradients reach the latents as if nothing had been rounded."""
    codes = quantizer(latents.detach())
    first = functional.linear(latents, quantizer.first_proj)
    rest = functional.linear(latents, quantizer.rest_proj)
    first_entry = functional.embedding(codes[:, 0], quantizer.entries[0])
    rest_entry = sum(
        functional.embedding(codes[:, level], quantizer.entries[level]) for level in range(1, codes.shape[1])
    )
    assert isinstance(rest_entry, Tensor)
    commit = functional.mse_loss(first, first_entry) + functional.mse_loss(rest, rest_entry)
    return Quantised(
        codes=codes,
        first=first + (first_entry - first).detach(),
        rest=rest + (rest_entry - rest).detach(),
        commit=commit,
    )


def _nearest(x: Tensor, entries: Tensor) -> Tensor:
    return functional.linear(x, entries, entries.square().sum(-1) / -2).argmax(-1)
