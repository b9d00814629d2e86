import pytest
import torch

from asr_worker.model.kv_cache import KV_FORMATS, KvCache

SHAPE = (2, 5, 3, 7, 16)  # layers, slots, heads, context, head width
N_CELLS = 5 * 3 * 7


def cache_of(name: str | None, dtype: torch.dtype = torch.float32) -> KvCache:
    form = None if name is None else KV_FORMATS[name]
    return KvCache(SHAPE, dtype=dtype, form=form, device=torch.device("cpu"))


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "share"), [(None, 0.0), ("bf16", 2**-8), ("int8", 0.51 / 127), ("fp8", 2**-4)])
def test_what_is_read_is_what_was_written_within_the_format(name: str | None, share: float) -> None:
    cache = cache_of(name)
    # Any scale: each head and position has its own.
    written = [noise(i, 2, 2, 3, 16) * 10.0 ** torch.arange(-3, 3).view(1, 2, 3, 1) for i in (1, 2)]
    slots, context = torch.tensor([3, 1]), SHAPE[3]
    cells = ((slots[:, None, None] * 3 + torch.arange(3)) * context + torch.tensor([4, 5])[None, :, None]).flatten()
    cache.write(1, torch.cat((cells, N_CELLS + cells)), torch.cat([new.flatten(0, 2) for new in written]))
    for at in (slots, slice(0, 5)):
        for read, new in zip(cache.read(at, context)(1), written, strict=True):
            rows = read if isinstance(at, torch.Tensor) else read[[3, 1]]
            expected = new.transpose(1, 2)
            largest = expected.abs().amax(-1, keepdim=True)
            assert ((rows[:, :, 4:6] - expected).abs() <= share * largest).all()
            assert rows[:, :, :4].count_nonzero() == 0
    assert all(read.count_nonzero() == 0 for read in cache.read(slice(0, 5), context)(0))


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_zeros_and_numbers_beyond_the_scale_stay_finite(name: str) -> None:
    cache = cache_of(name)
    new = torch.tensor([0.0, 1e-30, 1e30, -1e30]).repeat(4)
    cache.write(0, torch.tensor([0, N_CELLS]), torch.stack((new, torch.zeros(16))))
    keys, values = cache.read(slice(0, 1), 1)(0)
    assert keys.isfinite().all()
    assert keys[0, 0, 0, 2] > 0 > keys[0, 0, 0, 3]
    assert values.count_nonzero() == 0


def test_half_as_many_bytes_in_8_bits_but_for_the_scales() -> None:
    def n_bytes(cache: KvCache) -> int:
        tensors = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    plain = n_bytes(cache_of(None, torch.bfloat16))
    assert n_bytes(cache_of("bf16")) == plain
    assert n_bytes(cache_of("int8")) == n_bytes(cache_of("fp8")) == plain // 2 + plain // 16


def test_a_cleared_layer_is_empty() -> None:
    cache = cache_of("int8")
    for layer in (0, 1):
        cache.write(layer, torch.arange(2 * N_CELLS), noise(1, 2 * N_CELLS, 16))
    cache.clear(0)
    assert all(read.count_nonzero() == 0 for read in cache.read(slice(0, 5), 7)(0))
    assert all(read.count_nonzero() > 0 for read in cache.read(slice(0, 5), 7)(1))
