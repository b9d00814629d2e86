"""Which precision training computes its products in."""

from collections.abc import Iterator

import pytest
import torch

from training import precision


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    precision._pays.cache_clear()
    yield
    precision._pays.cache_clear()


@pytest.mark.parametrize(("bfloat16_s", "dtype"), [(0.1, torch.bfloat16), (5.0, torch.float32)])
def test_a_cpu_computes_in_what_it_is_faster_at(
    monkeypatch: pytest.MonkeyPatch, bfloat16_s: float, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "_seconds", lambda of: bfloat16_s if of is torch.bfloat16 else 1.0)
    with precision.mixed("cpu"):
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype is dtype


def test_both_precisions_can_be_timed() -> None:
    assert precision._seconds(torch.bfloat16) > 0
    assert precision._seconds(torch.float32) > 0
