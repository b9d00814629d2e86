"""Where keys and values lie: in the model's number format, or in 8 bits with a scale for each head and position.

    none    the model's dtype                              bf16    2 bytes, also for a model in float32
    int8    round(x / scale), scale = largest |x| / 127    fp8     e4m3 of x / scale, scale = largest |x| / 448

Scales are float16: 1.6 % more than the 8 bits at a head of 128. Attention computes with ``number * scale``, in the
model's dtype. On a CPU that multiplies bfloat16, caches in bf16 are attended to in bfloat16, sums in float32: it takes
0.6 of the time of float32 caches, where copies of bf16 in float32 take six times as long as those (one core with AMX,
4 slots of 16 heads of 128, 750 cells).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from asr_worker.model.pages import zeros
from asr_worker.model.products import multiplies_bf16

MIN_SCALE: Final = 2.0**-24
MAX_SCALE: Final = 65_504.0
"""The least and the largest positive float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvFormat:
    """How a number is kept. ``largest`` is what the largest of a head and position becomes; None: there is no scale."""

    dtype: torch.dtype
    largest: float | None = None

    def quantise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``x`` ``[..., hd]`` in 8 bits and its scales ``[...]``."""
        assert self.largest is not None
        wide = x.float()
        scales = wide.abs().amax(-1).div(self.largest).clamp(MIN_SCALE, MAX_SCALE).half()
        scaled = (wide / scales[..., None].float()).clamp(-self.largest, self.largest)
        return (scaled.round() if self.dtype == torch.int8 else scaled).to(self.dtype), scales


KV_FORMATS: Final = {
    "bf16": KvFormat(dtype=torch.bfloat16),
    "int8": KvFormat(dtype=torch.int8, largest=127.0),
    "fp8": KvFormat(dtype=torch.float8_e4m3fn, largest=448.0),
}
"""Values of ``kv_cache``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCache:
    """One layer of all slots: ``keys`` and ``values`` ``[S, H, C, hd]``, scales ``[S, H, C]`` if there are any."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None
    value_scales: Tensor | None


class KvCache:
    """Keys and values ``[layers, S, H, C, hd]``, of S slots.

    Args:
        shape: as above.
        dtype: the model's.
        form: how numbers are kept; None: in ``dtype``.
        device: where.
    """

    def __init__(
        self, shape: tuple[int, int, int, int, int], *, dtype: torch.dtype, form: KvFormat | None, device: torch.device
    ) -> None:
        self.form = form or KvFormat(dtype=dtype)
        is_narrow = device.type == "cpu" and self.form.dtype == torch.bfloat16 and multiplies_bf16()
        self.read_dtype = torch.bfloat16 if is_narrow else dtype
        """What attention computes with."""
        self.is_converted = self.form.dtype != self.read_dtype
        """Whether reading makes copies."""
        # Keys and values lie one behind the other, so that a step writes both at once. Zeros, not whatever memory
        # holds: the mask is added to the scores and would not hide a NaN.
        both = (shape[0], 2, *shape[1:])
        self._numbers = zeros(both, device=device, dtype=self.form.dtype)
        self._scales = None if self.form.largest is None else torch.zeros(both[:-1], device=device, dtype=torch.float16)
        self.keys, self.values = self._numbers.unbind(1)
        self.key_scales = None if self._scales is None else self._scales[:, 0]
        self.value_scales = None if self._scales is None else self._scales[:, 1]
        self.is_plain = not self.is_converted and self._scales is None
        """Whether a slot's numbers can be computed with where they lie."""
        # Views that every step needs: making them costs more than what is done with them.
        self._halves = self._numbers.flatten(0, 1)
        self._cells: list[Tensor] = [numbers.flatten(0, 3) for numbers in self._numbers]

    def layer(self, index: int) -> LayerCache:
        """Return one layer, not copied."""
        return LayerCache(
            keys=self.keys[index],
            values=self.values[index],
            key_scales=None if self.key_scales is None else self.key_scales[index],
            value_scales=None if self.value_scales is None else self.value_scales[index],
        )

    def write(self, index: int, cells: Tensor, numbers: Tensor) -> None:
        """Put ``[m, hd]`` of a layer into ``cells`` ``[m]``, counted over keys and values, slots, heads and context."""
        kept = self._cells[index]
        if self.is_plain:
            kept.index_copy_(0, cells, numbers.to(kept.dtype))
            return
        if self._scales is not None:
            numbers, scales = self.form.quantise(numbers)
            self._scales[index].flatten().index_copy_(0, cells, scales)
        # As bytes, since torch copies no 8-bit floats by an index.
        into, rows = (x.view(torch.uint8) if x.element_size() == 1 else x for x in (kept, numbers.to(kept.dtype)))
        into.index_copy_(0, cells, rows)

    def clear(self, index: int) -> None:
        """Fill a layer with zeros."""
        self._numbers[index].zero_()
        if self._scales is not None:
            self._scales[index].zero_()

    def read(self, slots: slice | Tensor, n_cells: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Return what reads the first cells of some slots in a layer: keys and values ``[n, H, n_cells, hd]``.

        By a slice, and not converted, they are not copied.
        """
        if self.is_plain and isinstance(slots, slice):
            halves = self._halves[:, slots, :, :n_cells].unbind()
            return lambda index: (halves[2 * index], halves[2 * index + 1])
        return lambda index: self._copies(self.layer(index), slots, n_cells)

    def cells(self, index: int) -> Tensor:
        """Return a layer's keys and values as they lie: ``[2 * S * H * C, hd]``."""
        return self._cells[index]

    def value_bags(self, slots: slice, n_cells: int, n_new: int) -> tuple[Tensor, Tensor]:
        """Return which of ``cells`` are the first values of each slot and head, ``n_new`` times, and where each starts.

        Returns:
            ``[n * H * n_new * n_cells]`` and ``[n * H * n_new]``, int32: memory ends before such numbers do.
        """
        n_slots, n_heads, context = self._numbers.shape[2:5]
        # Slots' values are counted behind slots' keys.
        heads = torch.arange((n_slots + slots.start) * n_heads, (n_slots + slots.stop) * n_heads, dtype=torch.int32)
        seen = (heads * context)[:, None, None] + torch.arange(n_cells, dtype=torch.int32)
        starts = torch.arange(0, len(heads) * n_new * n_cells, n_cells, dtype=torch.int32)
        return seen.expand(-1, n_new, -1).flatten(), starts

    def _copies(self, layer: LayerCache, slots: slice | Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
        return (
            self._plain(layer.keys, layer.key_scales, slots, n_cells),
            self._plain(layer.values, layer.value_scales, slots, n_cells),
        )

    def _plain(self, kept: Tensor, scales: Tensor | None, slots: slice | Tensor, n_cells: int) -> Tensor:
        as_bytes = kept.view(torch.uint8) if kept.element_size() == 1 else kept
        numbers = as_bytes[slots][:, :, :n_cells].view(kept.dtype).to(self.read_dtype)
        return numbers if scales is None else numbers * scales[slots][:, :, :n_cells, None].to(self.read_dtype)
