"""Packed layers against the layers that they were made of."""

import pytest
import torch

from asr_worker.model.products import MIN_PACKED_NUMBERS, Product, can_pack
from asr_worker.model.ring import Ring
from asr_worker.model.transformer import LmLayer, MimiLayer, Transformer

pytestmark = pytest.mark.skipif(not can_pack(torch.zeros(1, 1)), reason="this torch cannot pack weights")

N_ROWS, N_HEADS, CONTEXT = 3, 4, 10


def lm_layer(dim: int, hidden: int) -> LmLayer:
    return LmLayer(dim, hidden, torch.float32)


def transformer_of(kind: type[MimiLayer] | type[LmLayer], dim: int) -> Transformer:
    """Return two layers of seeded weights; alphas, scales and biases are not ones and zeros either."""
    make = lm_layer if kind is LmLayer else MimiLayer
    transformer = Transformer([make(dim, 3 * dim) for _ in range(2)]).requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(dim)
    for parameter in transformer.parameters():
        shift = 1.0 if parameter.dim() != 2 else 0.0
        parameter.copy_(shift + 0.2 * torch.randn(parameter.shape, generator=generator))
    return transformer


def steps_of(transformer: Transformer, dim: int, n_new: int) -> torch.Tensor:
    ring = Ring(
        n_layers=2,
        n_rows=N_ROWS,
        context=CONTEXT,
        n_heads=N_HEADS,
        head_dim=dim // N_HEADS,
        max_period=10_000.0,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(CONTEXT):
        x = torch.randn(N_ROWS, n_new, dim, generator=generator)
        seen.append(transformer(x, ring.begin(n_new)))
        ring.advance(torch.ones(N_ROWS, dtype=torch.bool), n_new)
    return torch.stack(seen)


@pytest.mark.parametrize(("kind", "n_new"), [(LmLayer, 1), (MimiLayer, 2)])
@pytest.mark.parametrize("dim", [64, 512])
@torch.inference_mode()
def test_packing_a_transformer_changes_its_speed_only(
    kind: type[MimiLayer] | type[LmLayer], n_new: int, dim: int
) -> None:
    """Weights of 512 are packed for oneDNN, those of 64 are not."""
    transformer = transformer_of(kind, dim)
    expected = steps_of(transformer, dim, n_new)
    transformer.pack()
    assert list(transformer.parameters()) == []
    found = steps_of(transformer, dim, n_new)
    torch.testing.assert_close(found, expected, atol=2e-5 * float(expected.abs().max()), rtol=1e-4)


def test_half_precision_stays_as_it_is() -> None:
    transformer = Transformer([LmLayer(8, 16, torch.bfloat16)])
    transformer.pack()
    assert len(transformer.layers) == 1


@pytest.mark.parametrize("n_out", [8, 100, MIN_PACKED_NUMBERS // 96 + 1])
@pytest.mark.parametrize("n_rows", [1, 2, 5])
@torch.inference_mode()
def test_a_product_may_be_added_to_rows(n_out: int, n_rows: int) -> None:
    generator = torch.Generator().manual_seed(n_out)
    weight, inner, x = (
        torch.randn(shape, generator=generator) for shape in ((n_out, 96), (n_rows, 96), (n_rows, n_out))
    )
    product, biased = Product(weight), Product(weight, weight[:, 0].contiguous())
    torch.testing.assert_close(biased(inner), inner @ weight.t() + weight[:, 0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(product(inner), inner @ weight.t(), atol=1e-4, rtol=1e-5)
    expected = x + inner @ weight.t()
    torch.testing.assert_close(product.add_to(x, inner), expected, atol=1e-4, rtol=1e-5)
