"""The layers of both transformers as a step on CPU runs them: the same sums in fewer operations.

    LmLayer     x + out(attend(in(RMSNorm(x) * alpha)))     alpha goes into the columns of the weight behind it
    MimiLayer   x + scale * out(attend(in(LayerNorm(x))))   scale goes into the rows of the weight before it

and so on for the second halves. What leaves a half is added within its product. Tensors are ``[N, d]``, the new
positions of all slots one behind the other; what goes in may be overwritten. There are no gradients. All of it is
float32; how the weights themselves are kept is their product's business (``cpu_weights.py``).
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.attention import Memory
from asr_worker.model.norms import LAYER_NORM_EPSILON, RMS_EPSILON, unit_rms
from asr_worker.model.products import MakeProduct


class PackedLayer(Protocol):
    """One layer."""

    def __call__(self, x: Tensor, memory: Memory, layer: int) -> Tensor:
        """Map ``[N, d]`` to ``[N, d]``."""
        ...


class PackedLmLayer:
    """A layer of the language model, of the four weights that its states are multiplied with, alphas included."""

    def __init__(self, product: MakeProduct, *, project: Tensor, leave: Tensor, widen: Tensor, narrow: Tensor) -> None:
        self._project, self._leave = product(project), product(leave)
        self._widen, self._narrow = product(widen), product(narrow)
        self._epsilon = torch.tensor(RMS_EPSILON)

    def __call__(self, x: Tensor, memory: Memory, layer: int) -> Tensor:
        """Map ``[N, d]`` to ``[N, d]``."""
        x = self._leave.add_to(x, memory.attend(layer, self._project(unit_rms(x, self._epsilon))))
        gate, up = self._widen(unit_rms(x, self._epsilon)).chunk(2, dim=-1)
        return self._narrow.add_to(x, functional.silu(gate).mul_(up))


class PackedMimiLayer:
    """A layer of Mimi's transformer, of its two norms and the four weights, scales included."""

    def __init__(
        self,
        product: MakeProduct,
        norms: tuple[nn.LayerNorm, nn.LayerNorm],
        *,
        project: Tensor,
        leave: Tensor,
        widen: Tensor,
        narrow: Tensor,
    ) -> None:
        self._norms = tuple((norm.normalized_shape, norm.weight, norm.bias, LAYER_NORM_EPSILON) for norm in norms)
        self._project, self._leave = product(project), product(leave)
        self._widen, self._narrow = product(widen), product(narrow)

    def __call__(self, x: Tensor, memory: Memory, layer: int) -> Tensor:
        """Map ``[N, d]`` to ``[N, d]``."""
        first, second = self._norms
        x = self._leave.add_to(x, memory.attend(layer, self._project(torch.layer_norm(x, *first))))
        return self._narrow.add_to(x, functional.gelu(self._widen(torch.layer_norm(x, *second))))
