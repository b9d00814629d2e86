"""Matrix products and convolutions; on CPU with weights that were packed once for oneDNN.

A step multiplies few rows with large matrices. The library that torch calls for that by default reads the matrix as it
lies, at a third to two thirds of the core's speed; oneDNN on a packed matrix comes close to its peak, and convolves
without copying overlapping windows. CPU time of one Zen 4 core, float32, ms:

    rows x in x out             default   packed
    2 x 512 x 2048                 0.68     0.33
    16 x 512 x 2048                0.79     0.43
    8 x 256 x 2048                 0.45     0.19
    Mimi's convolutions, B = 32     149      109     (105 if all of it ran at the core's peak)

The numbers stay float32, only the order of additions differs. The operators are those that torch's own compiler emits;
they know no gradients, so a model that was packed only runs.

From one step to the next a weight has left the core's caches. A product fetches it from memory in jumps, at 5 to 8
GB/s; read once from its beginning to its end, which the prefetcher follows, it comes at 25. So small weights, which fit
the second cache, are read before they are multiplied:

    rows x in x out             product   read and product
    1 x 192 x 1008                 0.12     0.07
    8 x 192 x 1008                 0.17     0.10

Where a step never has more than three rows, the CPU decides (``few_rows_want_packing``): torch's default library knows
Intel's better. On Sapphire Rapids, with slower memory, ms:

    2 x 2048 x 512                 0.22     0.34
    2 x 512 x 2048                 0.28     0.31
    2 x 8192 x 1024                1.7      2.3

Either way a row's numbers depend on no other row's, but how many rows a step has may change their last bits.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.cold_time import cold_ms

PACK_ROWS: Final = 64
"""For how many rows a weight is packed. Any number may come; only a pack for a single row is slow for more."""

MIN_PACKED_NUMBERS: Final = 1 << 18
"""Smaller weights stay as they are: each call of the packed product costs 15 us, twelve more than the default."""

MIN_PACKED_ROWS: Final = 4
"""Fewer rows are filled up with zeros: oneDNN reads the weight in a slower way for them (2 x 512 x 2048: 0.38 ms
instead of 0.30)."""

WORTH_LEAVING: Final = 0.9
"""Weights stay as they are for few rows if that saves at least a tenth of the time."""
_TRIED: Final = ((512, 2048), (2048, 512))
"""Weights of Mimi's feed-forward, in the place of all."""
_OTHER_BYTES: Final = 1 << 26
"""What is read between two turns: more than the second cache. With eight times as much the outcome is the same."""

MIN_READ_NUMBERS: Final = 1 << 13
"""What is smaller is not read before it is multiplied: it comes as fast, or stays in a cache."""

MIN_SAVED_NUMBERS: Final = 1 << 16
MIN_CONV_WINDOWS: Final = 64
"""A convolution is worth its call if it saves a copy of so many numbers; over few windows it is slower than a product
(B = 8, 2 windows of 16 x 512: 16 ms against 3.8)."""

VECTOR_FLOATS: Final = 16
"""Numbers that AVX-512 multiplies at once."""

_LOG2_E: Final = 1.4426950408889634
_ELU_CHUNK: Final = 1 << 18
"""So many numbers stay in a core's second cache from one pass to the next."""
_ELU_MIN: Final = 12_000

_OPERATORS: Final = (
    "_linear_pointwise",
    "_reorder_linear_weight",
    "_convolution_pointwise",
    "_reorder_convolution_weight",
)


def can_pack(weight: Tensor) -> bool:
    """Return whether a weight may be packed: float32 on CPU, with a torch that has the operators."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)
    )


def multiplies_bf16() -> bool:
    """Return whether oneDNN multiplies bfloat16 on this CPU."""
    knows = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return knows is not None and bool(knows())


def packing_pays(weight: Tensor, n_rows: int) -> bool:
    """Return whether a weight is multiplied faster packed in steps of up to ``n_rows`` rows."""
    if not can_pack(weight) or weight.numel() < MIN_PACKED_NUMBERS:
        return False
    return n_rows >= MIN_PACKED_ROWS or few_rows_want_packing(n_rows)


@lru_cache(maxsize=MIN_PACKED_ROWS)
def few_rows_want_packing(n_rows: int) -> bool:
    """Return whether this CPU multiplies fewer than ``MIN_PACKED_ROWS`` rows faster packed: found by trial, once."""
    weights = [torch.ones(shape) for shape in _TRIED]
    inputs = [torch.ones(n_rows, weight.shape[1]) for weight in weights]

    def taken_ms(tried: list[Tensor]) -> float:
        return cold_ms(lambda: [linear(x, weight) for x, weight in zip(inputs, tried, strict=True)], _OTHER_BYTES)

    return taken_ms(weights) > WORTH_LEAVING * taken_ms([packed(weight) for weight in weights])


def pack_weight(module: nn.Module, *, n_rows: int) -> None:
    """Replace ``module.weight`` ``[out, in]`` by a packed one where that pays. Only ``linear`` takes it then."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if packing_pays(weight, n_rows):
        del module.weight
        module.weight = packed(weight)


def packed(weight: Tensor) -> Tensor:
    """Return a weight ``[out, in]`` in the layout that ``linear`` is fastest with."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), PACK_ROWS)  # type: ignore[no-any-return]  # noqa: SLF001


def read_ahead(numbers: Tensor) -> None:
    """Bring what is multiplied next, and is small, into the core's second cache."""
    is_small = MIN_READ_NUMBERS <= numbers.numel() < MIN_PACKED_NUMBERS
    if is_small and numbers.device.type == "cpu" and not torch.is_grad_enabled():
        numbers.sum()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map ``[..., in]`` to ``[..., out]`` with a weight ``[out, in]``, packed or not."""
    if weight.is_mkldnn:
        n_rows = len(x)
        if x.dim() == 2 and n_rows < MIN_PACKED_ROWS:  # noqa: PLR2004
            filled = functional.pad(x, (0, 0, 0, MIN_PACKED_ROWS - n_rows))
            return linear(filled, weight, bias)[:n_rows]
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]  # noqa: SLF001
    read_ahead(weight)
    return functional.linear(x, weight, bias)


class StepProduct(Protocol):
    """A weight ``[out, in]`` as a step multiplies it, in whatever number format; no gradients."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``[N, in]`` to ``[N, out]``, both float32."""
        ...

    def add_to(self, x: Tensor, inner: Tensor) -> Tensor:
        """Return ``x`` ``[N, out]``, perhaps overwritten, plus the product with ``inner`` ``[N, in]``."""
        ...


MakeProduct = Callable[[Tensor], StepProduct]
"""Makes one of a float32 weight on CPU."""


class Product:
    """A weight ``[out, in]``, of those that ``can_pack`` allows, as a step multiplies it; no gradients.

    ``n_rows``: most that a step has; any number may come.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, n_rows: int = PACK_ROWS) -> None:
        weight = weight.detach()
        is_packed = packing_pays(weight, n_rows)
        self._weight = packed(weight) if is_packed else weight
        self._bias = bias
        self._is_read = MIN_READ_NUMBERS <= weight.numel() < MIN_PACKED_NUMBERS
        # Made once: in a step, a view costs more than a small sum.
        self._turned = None if is_packed else weight.t()

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``[N, in]`` to ``[N, out]``."""
        if self._turned is None:
            return linear(x, self._weight, self._bias)
        if self._is_read:
            self._weight.sum()
        return torch.mm(x, self._turned) if self._bias is None else torch.addmm(self._bias, x, self._turned)

    def add_to(self, x: Tensor, inner: Tensor) -> Tensor:
        """Return ``x`` ``[N, out]``, perhaps overwritten, plus the product with ``inner`` ``[N, in]``."""
        if self._turned is None:
            return add_linear_(x, inner, self._weight, self._bias)
        assert self._bias is None
        if self._is_read:
            self._weight.sum()
        return x.addmm_(inner, self._turned)


def add_linear_(x: Tensor, inner: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x`` ``[N, out]``, perhaps overwritten, plus ``linear`` of ``inner`` ``[N, in]``; no gradients."""
    if weight.is_mkldnn and len(inner) < MIN_PACKED_ROWS:
        return x.add_(linear(inner, weight, bias))
    if weight.is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise.binary(inner, x, weight, bias, "add")  # type: ignore[no-any-return]  # noqa: SLF001
    read_ahead(weight)
    if bias is not None:
        x.add_(bias)
    return x.addmm_(inner, weight.t())


def conv_pays(*, n_rows: int, n_windows: int, kernel: int, n_in: int) -> bool:
    """Return whether ``conv`` is faster than ``linear`` over copied windows."""
    saved = n_rows * n_windows * kernel * n_in
    return kernel > 1 and n_windows >= MIN_CONV_WINDOWS and saved >= MIN_SAVED_NUMBERS


def packed_conv(weight: Tensor, *, stride: int, n_rows: int, n_columns: int) -> Tensor:
    """Return a weight ``[out, kernel, in]`` in the layout that ``conv`` wants for ``[n_rows, n_columns, in]``."""
    image = weight.detach().transpose(1, 2)[:, :, None].contiguous(memory_format=torch.channels_last)
    reorder = torch.ops.mkldnn._reorder_convolution_weight  # noqa: SLF001
    return reorder(image, [0, 0], [1, stride], [1, 1], 1, [n_rows, image.shape[1], 1, n_columns])  # type: ignore[no-any-return]


def two_columns(weight: Tensor) -> Tensor:
    """Return a weight ``[out, kernel, in]`` that makes two columns at once: ``[2 * out, kernel + 1, in]``, stride 2.

    With fewer outputs than a vector has numbers, half of every product is thrown away; the zeros added here cost less.
    """
    return torch.cat((functional.pad(weight, (0, 0, 0, 1)), functional.pad(weight, (0, 0, 1, 0))))


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int) -> Tensor:
    """Map ``[B, T, in]`` to ``[B, (T - kernel) / stride + 1, out]`` with a weight of ``packed_conv``."""
    return conv_image(image_of(x), weight, bias, stride=stride)


def image_of(x: Tensor) -> Tensor:
    """View ``[B, T, C]`` as one line of an image whose channels come last: the memory is the same."""
    return x.transpose(1, 2)[:, :, None]


def conv_image(image: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int) -> Tensor:
    """Do what ``conv`` does with an ``image_of`` what goes in."""
    run = torch.ops.mkldnn._convolution_pointwise  # noqa: SLF001
    out: Tensor = run(image, weight, bias, [0, 0], [1, stride], [1, 1], 1, "none", [], "")
    return out.permute(0, 2, 3, 1).flatten(0, 1)


def write_elu(x: Tensor, out: Tensor) -> None:
    """Write the exponential linear unit of ``x`` ``[B, T, C]`` to ``out``, which may be ``x``; no gradients.

    On CPU through powers of two, whose loop torch vectorises best: 0.6 ns for each number instead of 1.4.
    """
    if x.device.type != "cpu" or x.numel() < _ELU_MIN:
        torch.ops.aten.elu.out(x, out=out)
        return
    n_rows = max(1, _ELU_CHUNK // (x.shape[1] * x.shape[2]))
    if n_rows >= len(x):
        _write_elu(x, out)
        return
    for numbers, into in zip(torch.split(x, n_rows), torch.split(out, n_rows), strict=True):
        _write_elu(numbers, into)


def _write_elu(x: Tensor, out: Tensor) -> None:
    below = torch.clamp(x, max=0.0).mul_(_LOG2_E).exp2_().sub_(1.0)
    torch.maximum(x, below, out=out)
