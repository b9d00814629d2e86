"""Which attention reads the rings; the kernel here is one in torch, so that it needs no device."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from asr_worker.model.contest import Verdict, decide
from asr_worker.model.ring import Ring, RingAttention

N_SLOTS = 5


def ring() -> Ring:
    return Ring(
        n_layers=2,
        n_rows=N_SLOTS + 1,
        context=12,
        n_heads=2,
        head_dim=8,
        max_period=100.0,
        device=torch.device("cpu"),
        dtype=torch.float32,
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
    return decide(contested, n_slots=N_SLOTS, n_new=n_new, make_kernel=make_kernel, time_ms=clock(*times_ms))


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
    assert verdict.trouble.startswith("its answers differ from torch's by ")
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
