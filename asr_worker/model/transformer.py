"""The layers of both transformers: the language model's (RMSNorm, gated SiLU) and Mimi's (LayerNorm, GELU, scales).

Both are pre-norm with plain residuals and share the attention of ``attention.py``. Tensors are ``[B, T, d]``.

Source: model.md sections 4 and 9.2. Parameters have the published names, except ``out_proj_weight`` for
``out_proj.weight`` and so on: ``published_name`` maps them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.attention import Attention, Memory
from asr_worker.model.products import linear, pack_weights

RMS_EPSILON = 1e-8
"""Inside the square root. ``rms_norm_f32`` of the published configurations; plain ``rms_norm`` would mean 1e-5."""

LAYER_NORM_EPSILON = 1e-5


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
            # Five operations; torch's own is composed of seven.
            norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            scale = torch.addcmul(self._epsilon, norm, norm, value=1 / x.shape[-1]).rsqrt_()
            return (x * scale).mul_(self.alpha)
        if x.dtype == torch.float32:
            return functional.rms_norm(x, self.alpha.shape[2:], self.alpha[0, 0], RMS_EPSILON)
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + RMS_EPSILON)
        return (wide * (self.alpha.float() * scale)).to(x.dtype)


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

    def pack(self) -> None:
        """Pack the weights; from here on only ``forward`` without gradients works."""
        self.self_attn.pack()
        pack_weights(self, "linear_in", "linear_out")


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

    def pack(self) -> None:
        """Pack the weights; from here on only ``forward`` without gradients works."""
        self.self_attn.pack()
        pack_weights(self, "linear1", "linear2")


class Transformer(nn.Module):
    """A stack of layers that share one memory."""

    def __init__(self, layers: list[LmLayer] | list[MimiLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Map ``[B, T, d]`` to ``[B, T, d]``."""
        for i, layer in enumerate(self.layers):
            x = layer(x, memory, i)
        return x

    def pack(self) -> None:
        """Pack the weights; from here on only ``forward`` without gradients works."""
        for layer in self.layers:
            assert isinstance(layer, LmLayer | MimiLayer)
            layer.pack()


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
