"""Mimi's convolutional front end (SEANet): 24 kHz samples to 25 Hz latents, streaming or offline.

Every convolution is causal. What it needs of the past lies in one flat row for each slot, the *carry*:

    carry row   | conv 0 | squeeze 1 | down 1 | ... | last | downsample |      floats, 46 kB for the published size
    one conv    joined = [carried columns ; new columns]  ->  valid convolution  ->  carry keeps joined's last columns

Tensors are ``[B, T, C]``, channels last: a window of k columns is then contiguous memory, and a convolution is one
copy and one matrix product, which beats the library's convolution for the late stages (2 to 16 columns) by 2 to 6
times on CPU and keeps cuDNN's TF32 out of the way on CUDA.

Source: model.md section 9.1; names of tensors are the published ones.
"""

from collections.abc import Iterator
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.products import can_pack, conv, conv_pays, linear, pack_weights, packed_conv, write_elu
from asr_worker.model.rows import Rows, all_rows
from shared.config import MimiConfig

MANY_WINDOWS: Final = 256
"""From here on a product for each row, on windows that overlap in memory, is cheaper on CPU than copying them all for
one product; below, the one product reads the weight once. Measured at B = 8: 2.7 against 4.5 ms, 26 against 5.4 ms."""


class Past(Protocol):
    """Where a convolution finds the columns before its input."""

    def extend(self, conv: "CausalConv", x: Tensor) -> Tensor:
        """Return ``x`` ``[B, T, C]``, activated if ``conv`` wants that, with ``conv.n_carried`` columns before it."""
        ...


class Silence:
    """The past of an offline forward: zeros, as at a session's start."""

    def extend(self, conv: "CausalConv", x: Tensor) -> Tensor:
        """Pad with zeros on the left."""
        return functional.pad(functional.elu(x) if conv.is_activated else x, (0, 0, conv.n_carried, 0))


class Carry:
    """The past of every convolution for a batch of slots."""

    def __init__(self, *, n_rows: int, n_floats: int, device: torch.device) -> None:
        self.kept = torch.zeros(n_rows, n_floats, device=device)
        self._everyone = all_rows(n_rows)

    def begin(self, rows: Rows | None = None) -> "CarryStep":
        """Prepare a step of the slots in ``rows``."""
        return CarryStep(self, rows or self._everyone)

    def reset(self, chosen: Tensor, rows: Rows | None = None) -> None:
        """Make those of ``rows`` silent that are in the mask ``[n]``. A fill, not a product: it also removes NaN."""
        rows = rows or self._everyone
        rows.put(self.kept, rows.take(self.kept).masked_fill(chosen[:, None], 0.0))


class CarryStep:
    """The past of every convolution for one step; it changes on ``commit``, and only where a slot is active."""

    def __init__(self, carry: Carry, rows: Rows) -> None:
        self._carry = carry
        self._rows = rows
        self._kept = rows.take(carry.kept)
        self._fresh = torch.empty_like(self._kept)

    def extend(self, conv: "CausalConv", x: Tensor) -> Tensor:
        """Put the carried columns before ``x`` and note what the next step will need."""
        n_rows, n_columns, n_channels = x.shape
        span = slice(conv.carry_offset, conv.carry_offset + conv.n_carried * n_channels)
        joined = x.new_empty(n_rows, conv.n_carried + n_columns, n_channels)
        joined[:, : conv.n_carried].copy_(self._kept[:, span].view(n_rows, conv.n_carried, n_channels))
        if conv.is_activated:
            write_elu(x, joined[:, conv.n_carried :])
        else:
            joined[:, conv.n_carried :].copy_(x)
        self._fresh[:, span].view(n_rows, conv.n_carried, n_channels).copy_(joined[:, -conv.n_carried :])
        return joined

    def commit(self, active: Tensor) -> None:
        """End the step: rows in ``active`` ``[n]`` keep what was noted, the others what they had."""
        self._rows.put(self._carry.kept, torch.where(active[:, None], self._fresh, self._kept))


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
            x = functional.elu(x)
        if self._is_packed_conv:
            return conv(x, self.weight, self.bias, stride=self._stride)
        if self._kernel > 1:
            x = x.unfold(1, self._kernel, self._stride).transpose(2, 3).flatten(2)
        n_rows, n_windows, n_inputs = x.shape
        if n_windows < MANY_WINDOWS or self.weight.is_mkldnn:
            x = x.reshape(n_rows * n_windows, n_inputs)
        return linear(x, self.weight, self.bias).view(n_rows, n_windows, -1)

    def pack(self, n_rows: int, n_columns: int) -> int:
        """Pack the weight for steps that bring ``[n_rows, n_columns, in]``; return how many columns come out.

        From here on only ``forward`` without gradients works.
        """
        n_windows = n_columns // self._stride
        if can_pack(self.weight) and conv_pays(n_rows=n_rows, n_windows=n_windows, kernel=self._kernel, n_in=self.n_in):
            weight = self.weight.view(-1, self._kernel, self.n_in)
            del self.weight
            self.weight = packed_conv(  # type: ignore[assignment]
                weight, stride=self._stride, n_rows=n_rows, n_columns=self.n_carried + n_columns
            )
            self._is_packed_conv = True
        else:
            pack_weights(self, "weight")
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
        x = x + self.expand(self.squeeze(x, past), past)
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
