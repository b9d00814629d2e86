"""Which attention reads the rings; the kernel here is one in torch, so that it needs no device."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from asr_worker.model.contest import Verdict, decide
from asr_worker.model.kv_cache import LayerCache
from asr_worker.model.ring import Ring, RingAttention

N_SLOTS = 5


def kernel_in_torch(queries: Tensor, cache: LayerCache, slots: Tensor, newest: Tensor, counts: Tensor) -> Tensor:
    """Attend row by row to the cells that a row has filled; of two queries the first does not see the newest cell."""
    answers = []
    for row, slot in enumerate(slots.tolist()):
        keys, values = (kept[slot, :, : counts[row]] for kept in (cache.keys, cache.values))
        scores = torch.einsum("thd,hcd->htc", queries[row], keys) * queries.shape[-1] ** -0.5
        if queries.shape[1] > 1:
            scores[:, 0, newest[row]] = -torch.inf
        answers.append(torch.einsum("htc,hcd->htd", scores.softmax(-1), values))
    return torch.stack(answers)


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
def test_a_kernel_that_agrees_and_is_faster_reads_the_rings(n_new: int) -> None:
    contested = ring()
    verdict = held(contested, n_new, lambda: kernel_in_torch, 3.0, 1.0)
    assert verdict == Verdict(is_kernel=True, torch_ms=3.0, kernel_ms=1.0)
    assert contested.kernel is kernel_in_torch
    assert str(verdict) == "kernel (kernel 1.000 ms, torch 3.000 ms)"


def test_a_slower_kernel_does_not() -> None:
    contested = ring()
    verdict = held(contested, 1, lambda: kernel_in_torch, 1.0, 3.0)
    assert verdict == Verdict(is_kernel=False, torch_ms=1.0, kernel_ms=3.0)
    assert contested.kernel is None


def sees_too_much(queries: Tensor, cache: LayerCache, slots: Tensor, newest: Tensor, counts: Tensor) -> Tensor:
    return kernel_in_torch(queries, cache, slots, newest, torch.full_like(counts, 12))


def says_nan(queries: Tensor, *_: object) -> Tensor:
    return torch.full_like(queries.transpose(1, 2), torch.nan)


@pytest.mark.parametrize("kernel", [sees_too_much, says_nan])
def test_a_kernel_with_wrong_answers_loses_however_fast(kernel: RingAttention) -> None:
    contested = ring()
    verdict = held(contested, 1, lambda: kernel)
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


@pytest.mark.parametrize("kernel", [kernel_in_torch, says_nan])
def test_the_rings_are_empty_and_fresh_afterwards(kernel: RingAttention) -> None:
    contested = ring()
    held(contested, 2, lambda: kernel, 2.0, 1.0)
    assert not contested.position.any()
    assert not contested.cache.keys.any()
    assert not contested.cache.values.any()
