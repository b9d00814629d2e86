"""Mimi's convolutional front end (SEANet): 24 kHz samples to 25 Hz latents, streaming or offline.

Every convolution is causal; what it needs of the past is in ``carry.py``.

Tensors are ``[B, T, C]``, channels last: a window of k columns is then contiguous memory, and a convolution is one
copy and one matrix product, which beats the library's convolution for the late stages (2 to 16 columns) by 2 to 6
times on CPU and keeps cuDNN's TF32 out of the way on CUDA.

Source: docs/model.md, section 9.1; names of tensors are the published ones.
"""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from asr_worker.model.carry import Past
from asr_worker.model.products import (
    VECTOR_FLOATS,
    add_linear_,
    can_pack,
    conv_image,
    conv_pays,
    image_of,
    linear,
    pack_weight,
    packed_conv,
    two_columns,
)
from shared.config import MimiConfig

MANY_WINDOWS: Final = 256
"""From here on a product for each row, on windows that overlap in memory, is cheaper on CPU than copying them all for
one product; below, the one product reads the weight once. Measured at B = 8: 2.7 against 4.5 ms, 26 against 5.4 ms."""


class CausalConv(nn.Module):
    """A convolution over time that sees ``kernel - stride`` columns of the past; ELU comes first if ``is_activated``.

    Inputs must be a multiple of ``stride`` long. The weight is stored as ``[out, kernel * in]``, time before
    channel; ``put_weight`` takes the published ``[out, in, kernel]``.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, bias: bool = True, is_activated: bool = False
    ) -> None:
        super().__init__()
        self.n_in = n_in
        self.n_carried = kernel - stride
        self.is_activated = is_activated
        self.carry_offset = 0
        self.published_shape = (n_out, n_in, kernel)
        self._kernel = kernel
        self._stride = stride
        self._is_packed_conv = False
        self.weight = nn.Parameter(torch.empty(n_out, kernel * n_in))
        self.bias = nn.Parameter(torch.empty(n_out)) if bias else None

    def forward(self, x: Tensor, past: Past) -> Tensor:
        """Map ``[B, T, in]`` to ``[B, T / stride, out]``."""
        if self.n_carried:
            x = past.extend(self, x)
        elif self.is_activated:
            x = past.activate(x)
        if self._is_packed_conv:
            return conv_image(x, self.weight, self.bias, stride=self._stride).view(len(x), -1, self.published_shape[0])
        n_rows, n_windows, n_inputs = x.shape
        if n_windows < MANY_WINDOWS or self.weight.is_mkldnn:
            x = x.reshape(n_rows * n_windows, n_inputs)
        return linear(x, self.weight, self.bias).view(n_rows, n_windows, -1)

    def windows(self, joined: Tensor) -> Tensor:
        """View ``[B, n_carried + T, in]`` as windows ``[B, T / stride, kernel * in]``, or as an image to convolve."""
        if self._is_packed_conv:
            return image_of(joined)
        return joined.unfold(1, self._kernel, self._stride).transpose(2, 3).flatten(2)

    def add_to(self, x: Tensor, inner: Tensor) -> Tensor:
        """Return ``x`` ``[B, T, out]``, perhaps overwritten, plus a kernel of 1 on ``inner``; no gradients."""
        return add_linear_(x.flatten(0, 1), inner.flatten(0, 1), self.weight, self.bias).view(x.shape)

    def pack(self, n_rows: int, n_columns: int) -> int:
        """Pack the weight for steps that bring ``[n_rows, n_columns, in]``; return how many columns come out.

        From here on only ``forward`` without gradients works.
        """
        n_windows = n_columns // self._stride
        if can_pack(self.weight) and conv_pays(n_rows=n_rows, n_windows=n_windows, kernel=self._kernel, n_in=self.n_in):
            weight = self.weight.view(-1, self._kernel, self.n_in)
            del self.weight
            if self._stride == 1 and len(weight) < VECTOR_FLOATS and n_columns % 2 == 0:
                weight, self._stride, self._kernel = two_columns(weight), 2, self._kernel + 1
                self.bias = None if self.bias is None else nn.Parameter(self.bias.repeat(2), requires_grad=False)
            self.weight = packed_conv(  # type: ignore[assignment]
                weight, stride=self._stride, n_rows=n_rows, n_columns=self.n_carried + n_columns
            )
            self._is_packed_conv = True
        else:
            pack_weight(self, n_rows=n_rows * n_windows)
        return n_windows

    @torch.no_grad()
    def put_weight(self, weight: Tensor) -> None:
        """Store a published weight ``[out, in, kernel]``."""
        self.weight.copy_(weight.transpose(1, 2).flatten(1))

    @torch.no_grad()
    def put_normed_weight(self, gain: Tensor, direction: Tensor) -> None:
        """Store a weight-normalised weight: ``gain`` ``[out, 1, 1]``, ``direction`` ``[out, in, kernel]``."""
        direction = direction.float()
        self.put_weight(gain.float() * direction / direction.norm(dim=(1, 2), keepdim=True))


class Stage(nn.Module):
    """A residual block, then a convolution that shortens time by ``ratio`` and doubles the channels."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.squeeze = CausalConv(width, width // 2, 3, is_activated=True)
        self.expand = CausalConv(width // 2, width, 1, is_activated=True)
        self.down = CausalConv(width, 2 * width, 2 * ratio, stride=ratio, is_activated=True)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        """Map ``[B, T, width]`` to ``[B, T / ratio, 2 * width]``."""
        x = past.add(x, self.expand, self.squeeze(x, past))
        return self.down(x, past)  # type: ignore[no-any-return]


class SeanetEncoder(nn.Module):
    """Samples to latents: ``[B, T, 1]`` to ``[B, T / hop, dimension]``; ``hop`` is the product of the ratios."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        widths = [config.n_filters << i for i in range(len(config.ratios))]
        self.first = CausalConv(1, config.n_filters, 7)
        self.stages = nn.ModuleList(Stage(width, ratio) for width, ratio in zip(widths, config.ratios, strict=True))
        self.last = CausalConv(2 * widths[-1], config.dimension, 3, is_activated=True)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        """Encode samples after the given past."""
        x = self.first(x, past)
        for stage in self.stages:
            x = stage(x, past)
        return self.last(x, past)  # type: ignore[no-any-return]

    def pack(self, n_rows: int, n_columns: int) -> int:
        """Pack the weights for steps that bring ``[n_rows, n_columns, 1]``; return how many latents come out."""
        for _, layer in self.published_convs():
            n_columns = layer.pack(n_rows, n_columns)
        return n_columns

    def published_convs(self) -> Iterator[tuple[str, CausalConv]]:
        """Yield every convolution with its published name; the gaps in the numbers are the activations."""
        yield "encoder.model.0.conv.conv", self.first
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, Stage)
            yield f"encoder.model.{3 * i + 1}.block.1.conv.conv", stage.squeeze
            yield f"encoder.model.{3 * i + 1}.block.3.conv.conv", stage.expand
            yield f"encoder.model.{3 * i + 3}.conv.conv", stage.down
        yield f"encoder.model.{3 * len(self.stages) + 2}.conv.conv", self.last
