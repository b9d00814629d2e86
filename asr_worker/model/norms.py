"""Normalisation of a position's numbers: the language model's RMSNorm, and what Mimi's LayerNorm needs to know.

Source: docs/model.md, sections 4 and 9.2.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

RMS_EPSILON: Final = 1e-8
"""Inside the square root. ``rms_norm_f32`` of the published configurations; plain ``rms_norm`` would mean 1e-5."""

LAYER_NORM_EPSILON: Final = 1e-5


class RmsNorm(nn.Module):
    """``x * alpha / sqrt(mean(x^2) + 1e-8)``, computed in float32."""

    def __init__(self, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1, 1, dim, dtype=dtype))
        self.register_buffer("_epsilon", torch.tensor(RMS_EPSILON), persistent=False)
        self._epsilon: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        if x.dtype == torch.float32 and not torch.is_grad_enabled():
            return unit_rms(x, self._epsilon).mul_(self.alpha)
        if x.dtype == torch.float32:
            return functional.rms_norm(x, self.alpha.shape[2:], self.alpha[0, 0], RMS_EPSILON)
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + RMS_EPSILON)
        return (wide * (self.alpha.float() * scale)).to(x.dtype)


def unit_rms(x: Tensor, epsilon: Tensor) -> Tensor:
    """Return ``x / sqrt(mean(x^2) + epsilon)`` over the last axis, in float32; no gradients."""
    # Four operations; torch's own norm is composed of seven.
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * torch.addcmul(epsilon, norm, norm, value=1 / x.shape[-1]).rsqrt_()
