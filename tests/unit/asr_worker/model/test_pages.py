import mmap

import pytest
import torch

from asr_worker.model.pages import LARGE_PAGE, zeros

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8])
@pytest.mark.parametrize("n_numbers", [7, LARGE_PAGE + 3])
def test_zeros_are_zeros_of_any_size_and_format(dtype: torch.dtype, n_numbers: int) -> None:
    memory = zeros((2, n_numbers), device=CPU, dtype=dtype)
    assert (memory.shape, memory.dtype, memory.is_contiguous()) == ((2, n_numbers), dtype, True)
    assert int(memory.view(torch.uint8).count_nonzero()) == 0


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no large pages")
def test_what_is_long_begins_with_a_page() -> None:
    memory = zeros((LARGE_PAGE,), device=CPU, dtype=torch.int8)
    assert memory.data_ptr() % LARGE_PAGE == 0
    memory.fill_(3)
    assert int(memory.sum()) == 3 * LARGE_PAGE


def test_other_devices_take_their_own_memory() -> None:
    assert zeros((LARGE_PAGE,), device=torch.device("meta"), dtype=torch.int8).device.type == "meta"
