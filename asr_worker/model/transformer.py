"""The layers of both transformers: the language model's (RMSNorm, gated SiLU) and Mimi's (LayerNorm, GELU, scales).

Both are pre-norm with plain residuals and share the attention of ``attention.py``. Tensors are ``[B, T, d]``.

Source: docs/model.md, sections 4 and 9.2. Parameters have the published names, except ``out_proj_weight`` for
``out_proj.weight`` and so on: ``published_name`` maps them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.attention import Attention, Memory
from asr_worker.model.norms import LAYER_NORM_EPSILON, RmsNorm
from asr_worker.model.packed_layers import PackedLayer, PackedLmLayer, PackedMimiLayer
from asr_worker.model.products import MakeProduct, Product, can_pack, linear


class LmLayer(nn.Module):
    """One layer of the language model; ``hidden`` is the width of the gated feed-forward."""

    def __init__(self, dim: int, hidden: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1 = RmsNorm(dim, dtype)
        self.self_attn = Attention(dim, dtype)
        self.norm2 = RmsNorm(dim, dtype)
        self.linear_in = nn.Parameter(torch.empty(2 * hidden, dim, dtype=dtype))
        self.linear_out = nn.Parameter(torch.empty(dim, hidden, dtype=dtype))

    def forward(self, x: Tensor, memory: Memory, layer: int) -> Tensor:
        """Map ``[B, T, d]`` to ``[B, T, d]``."""
        x = x + self.self_attn(self.norm1(x), memory, layer)
        gate, up = linear(self.norm2(x), self.linear_in).chunk(2, dim=-1)
        return x + linear(functional.silu(gate) * up, self.linear_out)

    def packed(self, product: MakeProduct) -> PackedLmLayer:
        """Return the layer as a step on CPU runs it."""
        return PackedLmLayer(
            product,
            project=self.self_attn.in_proj_weight * self.norm1.alpha[0],
            leave=self.self_attn.out_proj_weight,
            widen=self.linear_in * self.norm2.alpha[0],
            narrow=self.linear_out,
        )


class MimiLayer(nn.Module):
    """One layer of Mimi's encoder transformer: each branch is multiplied by a learnt scale for each channel."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.self_attn = Attention(dim, torch.float32)
        self.layer_scale_1 = nn.Parameter(torch.empty(dim))
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.linear1 = nn.Parameter(torch.empty(hidden, dim))
        self.linear2 = nn.Parameter(torch.empty(dim, hidden))
        self.layer_scale_2 = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor, memory: Memory, layer: int) -> Tensor:
        """Map ``[B, T, d]`` to ``[B, T, d]``."""
        x = x + self.layer_scale_1 * self.self_attn(self.norm1(x), memory, layer)
        inner = functional.gelu(linear(self.norm2(x), self.linear1))
        return x + self.layer_scale_2 * linear(inner, self.linear2)

    def packed(self, product: MakeProduct) -> PackedMimiLayer:
        """Return the layer as a step on CPU runs it."""
        return PackedMimiLayer(
            product,
            (self.norm1, self.norm2),
            project=self.self_attn.in_proj_weight,
            leave=self.self_attn.out_proj_weight * self.layer_scale_1[:, None],
            widen=self.linear1,
            narrow=self.linear2 * self.layer_scale_2[:, None],
        )


class Transformer(nn.Module):
    """A stack of layers that share one memory."""

    def __init__(self, layers: list[LmLayer] | list[MimiLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._packed: list[PackedLayer] = []

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Map ``[B, T, d]`` to ``[B, T, d]``; ``x`` may be overwritten once the weights are packed."""
        if self._packed:
            rows = x.flatten(0, 1)
            for i, layer in enumerate(self._packed):
                rows = layer(rows, memory, i)
            return rows.view(x.shape)
        for i, layer in enumerate(self.layers):
            x = layer(x, memory, i)
        return x

    def pack(self, product: MakeProduct = Product) -> None:
        """Pack the weights if they can be; from here on it only steps."""
        if not all(can_pack(weight) for weight in self.parameters()):
            return
        while self.layers:
            # One by one, so that no more than one layer is there twice.
            layer = self.layers.pop(0)
            assert isinstance(layer, LmLayer | MimiLayer)
            self._packed.append(layer.packed(product))


def published_name(parameter: str) -> str:
    """Return the published name of a transformer's parameter, both counted from the transformer."""
    *path, name = parameter.split(".")
    match name:
        case "out_proj_weight":
            path.append("out_proj.weight")
        case "linear_in" | "linear_out":
            path.append(f"gating.{name}.weight")
        case "linear1" | "linear2":
            path.append(f"{name}.weight")
        case "layer_scale_1" | "layer_scale_2":
            path.append(f"{name}.scale")
        case _:
            path.append(name)
    return ".".join(path)
