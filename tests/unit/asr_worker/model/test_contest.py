"""Which attention reads the rings; the kernel here is one in torch, so that it needs no device."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from asr_worker.model.contest import Verdict, decide
from asr_worker.model.kv_cache import LayerCache
from asr_worker.model.ring import Ring, RingAttention

N_SLOTS = 5
CONTEXT = 750
"""As published."""


def ring(*, context: int = 12, dtype: torch.dtype = torch.float32) -> Ring:
    return Ring(
        n_layers=2,
        n_rows=N_SLOTS + 1,
        context=context,
        n_heads=2,
        head_dim=8,
        max_period=100.0,
        device=torch.device("cpu"),
        dtype=dtype,
    )


def clock(*times_ms: float) -> Callable[[Callable[[], object]], float]:
    """Return a clock that runs what it is given and says these times."""
    left = list(times_ms)

    def time_ms(run: Callable[[], object]) -> float:
        run()
        return left.pop(0)

    return time_ms


def held(contested: Ring, n_new: int, make_kernel: Callable[[], RingAttention], *times_ms: float) -> Verdict:
    torch.manual_seed(1)
    return decide(
        contested, sizes=(1, 2, 3, 4, N_SLOTS), n_new=n_new, make_kernel=make_kernel, time_ms=clock(*times_ms)
    )


@pytest.mark.parametrize("n_new", [1, 2])
def test_a_kernel_that_agrees_and_is_faster_reads_the_rings(kernel: RingAttention, n_new: int) -> None:
    contested = ring()
    verdict = held(contested, n_new, lambda: kernel, 3.0, 1.0)
    assert verdict == Verdict(is_kernel=True, torch_ms=3.0, kernel_ms=1.0)
    assert contested.kernel is kernel
    assert str(verdict) == "kernel (kernel 1.000 ms, torch 3.000 ms)"


def test_a_slower_kernel_does_not(kernel: RingAttention) -> None:
    contested = ring()
    verdict = held(contested, 1, lambda: kernel, 1.0, 3.0)
    assert verdict == Verdict(is_kernel=False, torch_ms=1.0, kernel_ms=3.0)
    assert contested.kernel is None


def says_nan(queries: Tensor, *_: object) -> Tensor:
    return torch.full_like(queries.transpose(1, 2), torch.nan)


def sees_too_much(kernel: RingAttention) -> RingAttention:
    return lambda queries, cache, slots, newest, counts: kernel(
        queries, cache, slots, newest, torch.full_like(counts, 12)
    )


@pytest.mark.parametrize("spoil", [sees_too_much, lambda _kernel: says_nan])
def test_a_kernel_with_wrong_answers_loses_however_fast(
    kernel: RingAttention, spoil: Callable[[RingAttention], RingAttention]
) -> None:
    contested = ring()
    verdict = held(contested, 1, lambda: spoil(kernel))
    assert verdict.trouble is not None
    assert "its answers differ from torch's by " in verdict.trouble
    assert (verdict.is_kernel, contested.kernel, str(verdict)) == (False, None, "torch (not timed)")


def test_a_kernel_that_fails_loses_and_says_why() -> None:
    def fails(*_: object) -> Tensor:
        msg = "no compiler found\nand more"
        raise RuntimeError(msg)

    def is_missing() -> RingAttention:
        msg = "No module named 'triton'"
        raise ModuleNotFoundError(msg)

    contested = ring()
    assert held(contested, 1, lambda: fails).trouble == "RuntimeError: no compiler found"
    assert held(contested, 1, is_missing).trouble == "ModuleNotFoundError: No module named 'triton'"
    assert contested.kernel is None


@pytest.mark.parametrize("is_right", [True, False])
def test_the_rings_are_empty_and_fresh_afterwards(kernel: RingAttention, *, is_right: bool) -> None:
    contested = ring()
    held(contested, 2, lambda: kernel if is_right else says_nan, 2.0, 1.0)
    assert not contested.position.any()
    assert not contested.cache.keys.any()
    assert not contested.cache.values.any()


@pytest.mark.parametrize("forgotten", [0, 8])
def test_a_kernel_that_forgets_a_few_cells_of_full_rings_loses(kernel: RingAttention, forgotten: int) -> None:
    """Young slots answer with numbers twenty times as large: one limit for all would not see it."""

    def forgets(queries: Tensor, cache: LayerCache, slots: Tensor, newest: Tensor, counts: Tensor) -> Tensor:
        counts = torch.where(counts == CONTEXT, CONTEXT - forgotten, counts)
        return kernel(queries.float(), cache, slots, newest, counts).to(queries.dtype)

    torch.manual_seed(1)
    contested = ring(context=CONTEXT, dtype=torch.bfloat16)
    verdict = decide(contested, sizes=(N_SLOTS,), n_new=1, make_kernel=lambda: forgets, time_ms=clock(2.0, 1.0))
    assert verdict.is_kernel == (forgotten == 0), verdict.trouble


def fails_for_few_rows(kernel: RingAttention) -> RingAttention:
    def run(queries: Tensor, *places: Tensor) -> Tensor:
        if len(queries) < 3:
            msg = "a variant that does not compile here"
            raise RuntimeError(msg)
        return kernel(queries, *places)

    return run


def test_a_kernel_that_fails_for_few_rows_only_loses(kernel: RingAttention) -> None:
    contested = ring()
    verdict = held(contested, 1, lambda: fails_for_few_rows(kernel), 2.0, 1.0)
    assert not verdict.is_kernel


def test_memory_that_is_out_is_no_fault_of_the_kernel() -> None:
    def no_room(*_: object) -> Tensor:
        raise torch.OutOfMemoryError

    contested = ring()
    with pytest.raises(torch.OutOfMemoryError):
        held(contested, 1, lambda: no_room)
    assert contested.kernel is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [("at 3:4:\n  code\nno such type", "no such type"), ("no compiler\nsee the log", "no compiler"), ("", "")],
)
def test_of_what_a_compiler_says_the_line_that_tells_why_is_kept(said: str, reason: str) -> None:
    def fails(*_: object) -> Tensor:
        raise RuntimeError(said)

    assert held(ring(), 1, lambda: fails).trouble == f"RuntimeError: {reason}"
