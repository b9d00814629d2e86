"""The computed floor of a model step: what must be read and multiplied, and how fast this machine can do either.

    floor = max(bytes that must be read / read bandwidth, FLOPs / peak of a matrix product), each measured here, now

Bytes: every weight that enters a product once, the visible part of the active rows' rings once. FLOPs: products of
one frame for each active row, and attention over what is visible.
"""

import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import MimiEncoder
from bench.sizes import Size
from shared.units import FRAME_SAMPLES

F32_BYTES = 4
N_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the device can do at best, with the threads that it was measured with."""

    bytes_per_s: float
    flops_per_s: float
    """In float32, which Mimi is always in."""
    lm_flops_per_s: float
    """In the language model's number type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step cannot do without."""

    read_bytes: float
    mimi_flops: float
    lm_flops: float

    def floor_ms(self, machine: Machine) -> float:
        """Return the least time for it, everything overlapped perfectly."""
        products_s = self.mimi_flops / machine.flops_per_s + self.lm_flops / machine.lm_flops_per_s
        return 1e3 * max(self.read_bytes / machine.bytes_per_s, products_s)


def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Time a read of memory beyond the caches, and large square products: the best of a few tries.

    Args:
        device: is measured.
        dtype: the language model's.
    """
    big = torch.ones((256 if device.type == "cpu" else 4096) << 18, device=device)
    side = 1536 if device.type == "cpu" else 8192

    def best_s(run: object) -> float:
        assert callable(run)
        tries = []
        for _ in range(N_TRIES):
            started_s = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            tries.append(time.perf_counter() - started_s)
        return min(tries)

    def product_s(dtype: torch.dtype) -> float:
        square = torch.ones(side, side, device=device, dtype=dtype)
        return best_s(lambda: square @ square)

    peaks = {kind: 2 * side**3 / product_s(kind) for kind in {torch.float32, dtype}}
    machine = Machine(
        bytes_per_s=big.numel() * F32_BYTES / best_s(big.sum),
        flops_per_s=peaks[torch.float32],
        lm_flops_per_s=peaks[dtype],
    )
    del big
    if device.type == "cuda":
        # The engines, in other processes, want all of it.
        torch.cuda.empty_cache()
    return machine


def work_of(
    size: Size, *, active: int, fill: float, dtype: torch.dtype, kv_bytes: int, lm_bytes: int | None = None
) -> Work:
    """Return what one step of ``active`` rows needs.

    ``dtype`` is the language model's; a number in its cache has ``kv_bytes``, scales left aside. If its weights are
    kept in ``lm_bytes`` each, fewer than the dtype's, only their reading counts: what their products cost at best was
    not measured.
    """
    with torch.device("meta"):
        lm = LanguageModel(size.lm, hidden=size.lm.transformer.hidden, dtype=dtype)
        mimi = MimiEncoder(size.mimi, size.lm.audio_codebooks)
    n_tables = lm.text_emb.numel() + lm.audio_emb.numel()
    n_lm_weights = sum(p.numel() for p in lm.parameters()) - n_tables
    weights = n_lm_weights * (lm_bytes or dtype.itemsize) + sum(p.nbytes for p in mimi.parameters())
    sizes = size.lm.transformer
    seen_lm = max(1.0, fill * sizes.context) * sizes.num_layers * sizes.d_model
    seen_mimi = max(2.0, fill * size.mimi.context) * size.mimi.num_layers * size.mimi.dimension
    rings = 2 * (seen_lm * kv_bytes + seen_mimi * F32_BYTES)
    mimi_flops = _flops_of(mimi, torch.empty(1, FRAME_SAMPLES, device="meta"))
    lm_flops = _flops_of(
        lm,
        torch.zeros(1, 1, dtype=torch.int64, device="meta"),
        torch.zeros(1, 1, size.lm.audio_codebooks, dtype=torch.int64, device="meta"),
    )
    # Two products over what is visible, for one query in the language model and two in Mimi.
    return Work(
        read_bytes=weights + active * rings,
        mimi_flops=active * (mimi_flops + 8 * seen_mimi),
        lm_flops=0.0 if lm_bytes else active * (lm_flops + 4 * seen_lm),
    )


def _flops_of(model: torch.nn.Module, *inputs: torch.Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model(*inputs)
    return float(counter.get_total_flops())
