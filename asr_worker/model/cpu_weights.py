"""The language model's weights on CPU in fewer bits: a step of few slots takes as long as reading them takes.

    f32     exact: as ``products.py`` has them
    bf16    weights, what is multiplied with them and what comes out rounded to bfloat16, sums in float32
    int8    weights as whole numbers with a scale for each output, what is multiplied with them as 8 bits with a scale
            for each row; sums are exact, so a row never depends on another one

Residuals, norms, rotations and softmax stay float32, and so does Mimi, where a flipped code spoils a whole frame. CPU
time of one core with AMX for ``[n, 2048] x [2048, 11264]``, cold, ms:

    rows     f32    bf16    int8
    1        7.5     3.8     2.0
    8        8.9     3.2     1.8
    32      16.6     4.5     2.7

Which one is fastest depends on the CPU: ``auto`` finds out by trying.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor

from asr_worker.model.cold_time import cold_ms
from asr_worker.model.lm import LanguageModel
from asr_worker.model.products import MakeProduct, Product, StepProduct, can_pack, multiplies_bf16, packed
from shared.errors import ConfigError

LARGEST: Final = 127
ZERO_POINT: Final = 128
"""What is multiplied is kept without a sign: CPUs with VNNI know a product of such with signed weights only. (With
signs oneDNN falls back to plain loops there: 600 ms instead of 1.3.)"""

LEAST_NUMBER: Final = 1e-30
"""In the place of a row or an output of zeros only, which would have the scale 0."""

WORTH: Final = 0.8
"""Fewer bits must save at least a fifth of the time of whatever is more exact."""

X86: Final = ("x86_64", "AMD64")


class Bf16Product:
    """A weight ``[out, in]`` in bfloat16; no gradients."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = packed(weight.to(torch.bfloat16))

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``[N, in]`` to ``[N, out]``, both float32."""
        return self._multiply(x).float()

    def add_to(self, x: Tensor, inner: Tensor) -> Tensor:
        """Return ``x`` ``[N, out]``, overwritten, plus the product with ``inner`` ``[N, in]``."""
        return x.add_(self._multiply(inner))

    def _multiply(self, x: Tensor) -> Tensor:
        run = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        return run(x.bfloat16(), self._weight, None, "none", [], "")  # type: ignore[no-any-return]


class Int8Product:
    """A weight ``[out, in]`` in 8 bits; no gradients."""

    def __init__(self, weight: Tensor) -> None:
        scales = weight.detach().abs().amax(1).clamp_(min=LEAST_NUMBER).div_(LARGEST)
        whole = weight.detach().div(scales[:, None]).round_().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(whole, None)
        # A row's own scale is its largest number over 127: the 127 is here.
        self._scales = scales.div_(LARGEST)
        self._zero_points = torch.zeros(len(scales), dtype=torch.int64)

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``[N, in]`` to ``[N, out]``, both float32."""
        largest = x.abs().amax(-1, keepdim=True).clamp_(min=LEAST_NUMBER)
        whole = x.mul(LARGEST / largest).round_().add_(ZERO_POINT).to(torch.uint8)
        return _multiply_whole(whole, self._weight, self._scales, self._zero_points).mul_(largest)

    def add_to(self, x: Tensor, inner: Tensor) -> Tensor:
        """Return ``x`` ``[N, out]``, overwritten, plus the product with ``inner`` ``[N, in]``."""
        return x.add_(self(inner))


CPU_WEIGHTS: Final[Mapping[str, Callable[[int], MakeProduct]]] = {
    "f32": lambda n_rows: partial(Product, n_rows=n_rows),
    "bf16": lambda _: Bf16Product,
    "int8": lambda _: Int8Product,
}
"""What multiplies weights of each number format, in steps of up to so many rows; the most exact first."""

BYTES_EACH: Final = {"f32": 4, "bf16": 2, "int8": 1}


def _multiply_whole(whole: Tensor, weight: Tensor, scales: Tensor, zero_points: Tensor) -> Tensor:
    """Return ``(whole - 128) x weight`` in float32, outputs times ``scales``."""
    run = torch.ops.onednn.qlinear_pointwise
    return run(whole, 1.0, ZERO_POINT, weight, scales, zero_points, None, 1.0, 0, torch.float32, "none", [], "")  # type: ignore[no-any-return]


def trouble_with(name: str) -> str | None:
    """Return why this CPU, or this torch, cannot multiply weights of a format; None: it can."""
    if name != "f32" and platform.machine() not in X86:
        # Their products may be exact and still run in plain loops.
        return f"it was tried on x86 only, this is {platform.machine()}"
    try:
        if name == "bf16" and not multiplies_bf16():
            return "this CPU has neither AVX-512 nor AVX-NE-CONVERT"
        if name == "int8" and not _is_exact():
            # Two products of 8 bits are added up in 16 bits there, and cut off.
            return "this CPU has no VNNI, and its sums of 8-bit products overflow"
    except (RuntimeError, AttributeError) as error:
        return f"torch {torch.__version__} cannot: {str(error).partition(chr(10))[0]}"
    return None


def _is_exact() -> bool:
    """Return whether the largest whole numbers are multiplied and summed up as they should be."""
    n_in, n_out = 256, 64
    signs = torch.tensor([1, -1], dtype=torch.int8).repeat(n_out // 2)
    weight = torch.ops.onednn.qlinear_prepack((signs * LARGEST)[:, None].repeat(1, n_in), None)
    whole = torch.tensor([[ZERO_POINT + LARGEST], [ZERO_POINT - LARGEST]], dtype=torch.uint8).repeat(2, n_in)
    found = _multiply_whole(whole, weight, torch.ones(n_out), torch.zeros(n_out, dtype=torch.int64))
    expected = torch.tensor([1.0, -1.0]).repeat(2)[:, None] * signs * LARGEST * LARGEST * n_in
    return torch.equal(found, expected)


def pack_lm(lm: LanguageModel, name: str, *, n_rows: int) -> str | None:
    """Pack a language model's weights if it runs on CPU; from here on it only steps.

    Args:
        lm: the model.
        name: of ``CPU_WEIGHTS``; ``auto``: the most exact one than which none takes a fifth less time.
        n_rows: most slots that step together.

    Returns:
        What was decided, for the log; None: nothing had to be.

    Raises:
        ConfigError: this machine, or this model's dtype, has no such products.
    """
    if lm.text_emb.device.type != "cpu" or name == "f32":
        lm.pack(CPU_WEIGHTS["f32"](n_rows))
        return None
    if not can_pack(lm.text_linear):
        msg = f"worker.cpu_weights is {name!r}, which wants a model in float32 and a torch with oneDNN; " + (
            f"dtype_override makes it {str(lm.text_emb.dtype).removeprefix('torch.')}"
            if lm.text_emb.dtype != torch.float32
            else f"torch {torch.__version__} has none"
        )
        raise ConfigError(msg)
    usable = {known: trouble_with(known) for known in CPU_WEIGHTS}
    said = name
    if name == "auto":
        name, said = _choose(lm, [known for known, trouble in usable.items() if trouble is None], n_rows)
    elif usable[name] is not None:
        here = ", ".join(known for known, trouble in usable.items() if trouble is None)
        msg = f"worker.cpu_weights is {name!r}: {usable[name]}; allowed here are {here}, auto"
        raise ConfigError(msg)
    lm.pack(CPU_WEIGHTS[name](n_rows))
    return said


def _choose(lm: LanguageModel, usable: Sequence[str], n_rows: int) -> tuple[str, str]:
    """Find by trial in which format one layer multiplies best; return it, and what to say of all.

    The time of one row and of ``n_rows`` count the same: few speak at most times, but all may.
    """
    layers = lm.transformer.layers
    weights = [parameter.detach() for parameter in layers[0].parameters() if parameter.dim() == 2]  # noqa: PLR2004
    n_numbers = sum(weight.numel() for weight in weights) * len(layers)
    times_ms = {}
    for name in usable:
        products = [CPU_WEIGHTS[name](n_rows)(weight) for weight in weights]
        taken_ms = [
            _time_ms(products, [torch.ones(n, weight.shape[1]) for weight in weights], n_numbers * BYTES_EACH[name])
            for n in (1, n_rows)
        ]
        times_ms[name] = sum(taken_ms)
    # The most exact stand first.
    best = next(name for name, taken_ms in times_ms.items() if WORTH * taken_ms <= min(times_ms.values()))
    times = ", ".join(f"{name} {taken_ms:.3g}" for name, taken_ms in times_ms.items())
    return best, f"{best} (ms a layer, of 1 and {n_rows} rows: {times})"


def _time_ms(products: Sequence[StepProduct], inputs: Sequence[Tensor], model_bytes: int) -> float:
    """Return how long one layer takes when the rest of the model was read meanwhile."""

    def run() -> None:
        for multiply, x in zip(products, inputs, strict=True):
            multiply(x)

    return cold_ms(run, model_bytes)
