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
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.products import (
    add_linear_,
    can_pack,
    conv,
    conv_pays,
    linear,
    pack_weights,
    packed_conv,
    write_elu,
)
from asr_worker.model.rows import Rows, all_rows
from shared.config import MimiConfig

MANY_WINDOWS: Final = 256
"""From here on a product for each row, on windows that overlap in memory, is cheaper on CPU than copying them all for
one product; below, the one product reads the weight once. Measured at B = 8: 2.7 against 4.5 ms, 26 against 5.4 ms."""


class Past(Protocol):
    """Where a convolution finds the columns before its input."""

    def extend(self, conv: "CausalConv", x: Tensor) -> Tensor:
        """Return ``x`` ``[B, T, C]``, activated if ``conv`` wants that, with ``conv.n_carried`` columns before it.

        What is returned may be overwritten by the next call.
        """
        ...

    def activate(self, x: Tensor) -> Tensor:
        """Return the ELU of ``x``, which may be overwritten."""
        ...

    def add(self, x: Tensor, conv: "CausalConv", inner: Tensor) -> Tensor:
        """Return ``x`` plus what ``conv``, of kernel 1, makes of ``inner``; both may be overwritten."""
        ...


class Silence:
    """The past of an offline forward: zeros, as at a session's start. Gradients flow through it."""

    def extend(self, conv: "CausalConv", x: Tensor) -> Tensor:
        """Pad with zeros on the left."""
        return functional.pad(functional.elu(x) if conv.is_activated else x, (0, 0, conv.n_carried, 0))

    def activate(self, x: Tensor) -> Tensor:
        """Leave ``x`` as it is."""
        return functional.elu(x)

    def add(self, x: Tensor, conv: "CausalConv", inner: Tensor) -> Tensor:
        """Leave ``x`` as it is."""
        return x + conv(inner, self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Window:
    """What a convolution reads in one step, and where: ``[carried columns ; new columns]``, all views."""

    joined: Tensor
    past: Tensor
    new: Tensor
    last: Tensor
    """The columns that the next step will need, in ``joined``; ``kept`` is where they are until then."""
    kept: Tensor


class Carry:
    """The past of every convolution for a batch of slots.

    On CPU all convolutions read from one piece of memory, one after the other: it stays in the core's caches. Views
    into it are made once for each convolution and number of slots, for making them costs more than a small product.
    """

    def __init__(self, *, n_rows: int, n_floats: int, device: torch.device) -> None:
        self.kept = torch.zeros(n_rows, n_floats, device=device)
        self._copies = torch.zeros_like(self.kept)
        self._memory = torch.empty(0, device=device)
        self._windows: dict[tuple[int, int, bool], _Window] = {}
        self._everyone = all_rows(n_rows)

    def begin(self, active: Tensor, rows: Rows | None = None) -> "CarryStep":
        """Prepare a step of the slots in ``rows``, n in number, that moves on those in ``active`` ``[n]``."""
        return CarryStep(self, rows or self._everyone, active)

    def reset(self, chosen: Tensor, rows: Rows | None = None) -> None:
        """Make those of ``rows`` silent that are in the mask ``[n]``. A fill, not a product: it also removes NaN."""
        rows = rows or self._everyone
        rows.put(self.kept, rows.take(self.kept).masked_fill(chosen[:, None], 0.0))

    def state(self, n_rows: int, *, in_place: bool) -> Tensor:
        """Return what a step of so many slots reads and overwrites: ``kept`` itself, or room for a copy."""
        return (self.kept if in_place else self._copies)[:n_rows]

    def window(self, conv: "CausalConv", x: Tensor, *, in_place: bool) -> _Window:
        """Return where ``conv`` reads ``x`` ``[n, T, C]`` and its past."""
        key = (conv.carry_offset, len(x), in_place)
        window = self._windows.get(key)
        if window is not None and window.new.shape == x.shape:
            return window
        n_floats = len(x) * (conv.n_carried + x.shape[1]) * x.shape[2]
        if x.device.type != "cpu":
            # A captured graph may not read what a larger one lets go.
            return self._window(x.new_empty(n_floats), conv, x, in_place=in_place)
        if n_floats > len(self._memory):
            self._windows.clear()
            self._memory = x.new_empty(n_floats)
        window = self._window(self._memory[:n_floats], conv, x, in_place=in_place)
        self._windows[key] = window
        return window

    def _window(self, memory: Tensor, conv: "CausalConv", x: Tensor, *, in_place: bool) -> _Window:
        n_rows, n_columns, n_channels = x.shape
        joined = memory.view(n_rows, -1, n_channels)
        span = slice(conv.carry_offset, conv.carry_offset + conv.n_carried * n_channels)
        kept = self.state(n_rows, in_place=in_place)[:, span].view(n_rows, conv.n_carried, n_channels)
        return _Window(joined, joined[:, : conv.n_carried], joined[:, conv.n_carried :], joined[:, n_columns:], kept)


class CarryStep:
    """The past of every convolution for one step; slots that are not active keep theirs at ``commit``."""

    def __init__(self, carry: Carry, rows: Rows, active: Tensor) -> None:
        self._carry = carry
        self._rows = rows
        self._active = active
        # Where the host may look, and everybody moves on, nothing needs to be kept from before.
        self._is_whole = rows.runs is not None and active.device.type == "cpu" and bool(active.all())
        self._in_place = self._is_whole and rows.index is None
        if not self._in_place:
            carry.state(len(active), in_place=False).copy_(rows.take(carry.kept))

    def extend(self, conv: "CausalConv", x: Tensor) -> Tensor:
        """Put the carried columns before ``x`` and note what the next step will need."""
        window = self._carry.window(conv, x, in_place=self._in_place)
        window.past.copy_(window.kept)
        if conv.is_activated:
            write_elu(x, window.new)
        else:
            window.new.copy_(x)
        window.kept.copy_(window.last)
        return window.joined

    def activate(self, x: Tensor) -> Tensor:
        """Overwrite ``x``."""
        write_elu(x, x)
        return x

    def add(self, x: Tensor, conv: "CausalConv", inner: Tensor) -> Tensor:
        """Overwrite both."""
        return conv.add_to(x, self.activate(inner) if conv.is_activated else inner)

    def commit(self) -> None:
        """End the step."""
        if self._in_place:
            return
        state = self._carry.state(len(self._active), in_place=False)
        if not self._is_whole:
            state = torch.where(self._active[:, None], state, self._rows.take(self._carry.kept))
        self._rows.put(self._carry.kept, state)


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
            return conv(x, self.weight, self.bias, stride=self._stride)
        if self._kernel > 1:
            x = x.unfold(1, self._kernel, self._stride).transpose(2, 3).flatten(2)
        n_rows, n_windows, n_inputs = x.shape
        if n_windows < MANY_WINDOWS or self.weight.is_mkldnn:
            x = x.reshape(n_rows * n_windows, n_inputs)
        return linear(x, self.weight, self.bias).view(n_rows, n_windows, -1)

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
