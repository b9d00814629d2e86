from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from asr_worker.model import products
from asr_worker.model.attention import MIN_PRODUCT_NUMBERS, Sequence, additive, attend
from asr_worker.model.carry import Silence
from asr_worker.model.products import (
    MIN_PACKED_NUMBERS,
    MIN_PACKED_ROWS,
    Product,
    add_linear_,
    can_pack,
    conv,
    conv_pays,
    linear,
    pack_weight,
    packed,
    packed_conv,
    write_elu,
)
from asr_worker.model.ring import Ring
from asr_worker.model.seanet import CausalConv
from asr_worker.model.transformer import MimiLayer, Transformer

pytestmark = pytest.mark.skipif(not can_pack(torch.zeros(1, 1)), reason="this torch cannot pack weights")


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("n_rows", [1, 2, 17, 200])
def test_a_packed_product_is_the_product(n_rows: int) -> None:
    x, weight, bias = seeded(n_rows, 2, 96), seeded(33, 96), seeded(33)
    expected = functional.linear(x, weight, bias)
    torch.testing.assert_close(linear(x, packed(weight), bias), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(linear(x, weight, bias), expected, atol=0, rtol=0)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (8, 4), (7, 1)])
@pytest.mark.parametrize("n_rows", [1, 3])
def test_a_packed_convolution_is_the_convolution_for_any_number_of_rows(kernel: int, stride: int, n_rows: int) -> None:
    n_columns = 20 * stride + kernel
    x, weight, bias = seeded(n_rows, n_columns, 5), seeded(6, kernel, 5), seeded(6)
    expected = functional.conv1d(x.transpose(1, 2), weight.transpose(1, 2), bias, stride=stride).transpose(1, 2)
    ready = packed_conv(weight, stride=stride, n_rows=3, n_columns=n_columns)
    torch.testing.assert_close(conv(x, ready, bias, stride=stride), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("n_columns", [64, 1920])
def test_packing_a_causal_convolution_changes_its_speed_only(n_columns: int) -> None:
    """64 columns are 16 windows, a product; 1920 are 480, a convolution."""
    layer = CausalConv(16, 2048, 8, stride=4, is_activated=True).requires_grad_(requires_grad=False)
    layer.put_weight(seeded(2048, 16, 8))
    assert layer.bias is not None
    layer.bias.zero_()
    x = seeded(2, n_columns, 16)
    expected = layer(x, Silence())
    assert layer.pack(2, n_columns) == n_columns // 4
    assert layer.weight.is_mkldnn
    torch.testing.assert_close(layer(x, Silence()), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n_out", [8, 16])
@pytest.mark.parametrize("n_rows", [1, 3])
def test_a_convolution_with_few_outputs_makes_two_columns_at_once(n_out: int, n_rows: int) -> None:
    layer = CausalConv(16, n_out, 3).requires_grad_(requires_grad=False)
    layer.put_weight(seeded(n_out, 16, 3))
    assert layer.bias is not None
    layer.bias.copy_(seeded(n_out))
    x = seeded(n_rows, 1920, 16)
    expected = layer(x, Silence())
    assert layer.pack(3, 1920) == 1920
    assert layer.weight.shape[0] == 16
    torch.testing.assert_close(layer(x, Silence()), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wanted", [False, True])
def test_small_weights_stay_as_they_are_and_those_for_few_rows_may(
    monkeypatch: pytest.MonkeyPatch, *, wanted: bool
) -> None:
    monkeypatch.setattr(products, "few_rows_want_packing", lambda _: wanted)

    def is_packed(n_numbers: int, n_rows: int) -> bool:
        layer = nn.Linear(64, n_numbers // 64)
        pack_weight(layer, n_rows=n_rows)
        return layer.weight.is_mkldnn

    assert not is_packed(MIN_PACKED_NUMBERS // 2, MIN_PACKED_ROWS)
    assert is_packed(MIN_PACKED_NUMBERS, MIN_PACKED_ROWS)
    assert is_packed(MIN_PACKED_NUMBERS, MIN_PACKED_ROWS - 1) is wanted


@pytest.mark.parametrize(("plain_ms", "wanted"), [(0.8, False), (0.95, True), (2.0, True)])
def test_few_rows_are_multiplied_as_they_are_if_that_saves_a_tenth(
    monkeypatch: pytest.MonkeyPatch, plain_ms: float, *, wanted: bool
) -> None:
    times = iter([plain_ms, 1.0])
    monkeypatch.setattr(products, "cold_ms", lambda *_: next(times))
    assert products.few_rows_want_packing.__wrapped__(2) is wanted


def test_few_rows_are_tried_once() -> None:
    assert products.few_rows_want_packing(1) is products.few_rows_want_packing(1)
    assert products.few_rows_want_packing.cache_info().hits > 0


@pytest.mark.parametrize("wanted", [False, True])
@torch.inference_mode()
def test_one_slot_hears_the_same_whether_its_weights_are_packed(
    monkeypatch: pytest.MonkeyPatch, *, wanted: bool
) -> None:
    monkeypatch.setattr(products, "few_rows_want_packing", lambda _: wanted)
    layers = [MimiLayer(512, 1024).requires_grad_(requires_grad=False) for _ in range(2)]
    for layer in layers:
        for name, parameter in layer.named_parameters():
            parameter.copy_(1.0 if name.startswith("norm") else seeded(*parameter.shape) / 16)
    x = seeded(1, 2, 512)
    offline = Transformer(layers)
    expected = offline(x, Sequence(n_positions=2, context=9, per_step=2, head_dim=64, max_period=1e4, like=x))
    stepping = Transformer([*layers])
    stepping.pack(partial(Product, n_rows=2))
    ring = Ring(n_layers=2, n_rows=1, context=9, n_heads=8, head_dim=64, max_period=1e4, device=x.device, dtype=x.dtype)
    found = stepping(x.clone(), ring.begin(2, None, torch.ones(1, dtype=torch.bool)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_half_precision_is_not_packed() -> None:
    assert not can_pack(torch.zeros(4, 4, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("n_rows", "n_windows", "kernel", "n_in", "pays"),
    [(8, 1920, 3, 64, True), (8, 1920, 1, 64, False), (8, 2, 16, 512, False), (1, 96, 3, 32, False)],
)
def test_convolutions_pay_where_they_save_a_large_copy(
    *, n_rows: int, n_windows: int, kernel: int, n_in: int, pays: bool
) -> None:
    assert conv_pays(n_rows=n_rows, n_windows=n_windows, kernel=kernel, n_in=n_in) is pays


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 1920, 32)])
def test_elu_is_elu_for_few_numbers_and_for_many(shape: tuple[int, ...]) -> None:
    x = 4 * seeded(*shape)
    joined = torch.zeros(shape[0], shape[1] + 2, shape[2])
    write_elu(x, joined[:, 2:])
    torch.testing.assert_close(joined[:, 2:], functional.elu(x), atol=2e-7, rtol=1e-5)
    assert not joined[:, :2].any()


def test_elu_may_overwrite_what_it_reads() -> None:
    x = 4 * seeded(3, 1920, 32)
    expected = functional.elu(x)
    write_elu(x, x)
    torch.testing.assert_close(x, expected, atol=2e-7, rtol=1e-5)


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_product_is_added_to_what_is_there(*, has_bias: bool, is_packed: bool) -> None:
    x, inner, weight = seeded(7, 33), seeded(7, 96), seeded(33, 96)
    bias = seeded(33) if has_bias else None
    expected = x + functional.linear(inner, weight, bias)
    found = add_linear_(x, inner, packed(weight) if is_packed else weight, bias)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_elu_of_extremes_is_finite() -> None:
    x = torch.tensor([-1e30, -200.0, -0.0, 0.0, 1e30]).repeat(1, 1 << 14, 1)
    out = torch.empty_like(x)
    write_elu(x, out)
    assert out[0, 0].tolist() == [-1.0, -1.0, 0.0, 0.0, pytest.approx(1e30)]


@pytest.mark.parametrize("n_cells", [7, MIN_PRODUCT_NUMBERS // 64])
def test_attention_by_products_is_attention(n_cells: int) -> None:
    queries, keys, values = seeded(2, 4, 2, 8), seeded(2, 4, n_cells, 8), seeded(2, 4, n_cells, 8) + 1
    visible = torch.ones(2, 1, 2, n_cells, dtype=torch.bool)
    visible[0, :, :, 3:] = False
    mask = additive(visible, torch.float32)
    expected = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    torch.testing.assert_close(attend(queries, keys, values, mask), expected, atol=1e-5, rtol=1e-5)
