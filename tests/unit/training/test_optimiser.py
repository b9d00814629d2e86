"""Muon and AdamW together."""

import pytest
import torch
from torch import nn

from shared.config import ModuleConfig
from training.net import Net
from training.optimiser import Muon, Optimiser, orthogonal


@pytest.mark.parametrize("shape", [(24, 80), (80, 24), (32, 32)])
def test_an_orthogonal_matrix_has_even_singular_values_and_the_same_directions(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1e-3
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    nearest = left @ right
    assert float((orthogonal(matrix) * nearest).sum() / nearest.square().sum()) > 0.8


def test_no_gradient_at_all_is_no_direction() -> None:
    assert torch.equal(orthogonal(torch.zeros(16, 8)), torch.zeros(16, 8))


def test_a_step_of_muon_is_as_large_as_one_of_adam() -> None:
    weight = nn.Parameter(torch.zeros(64, 256))
    weight.grad = torch.randn(64, 256, generator=torch.Generator().manual_seed(2))
    Muon([{"params": [weight]}], lr=0.01).step()
    assert 0.8 < float(weight.detach().square().mean().sqrt()) / (0.2 * 0.01) < 1.2


def test_every_weight_that_may_learn_does_and_follows_the_rate(micro: ModuleConfig) -> None:
    net = Net(micro, seed=3)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    optimiser = Optimiser(net, 1.0)
    optimiser.set_rate(1e-3)
    generator = torch.Generator().manual_seed(4)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimiser.step()
    for name, parameter in net.named_parameters():
        moved = float((parameter.detach() - before[name]).abs().mean())
        assert (0 < moved < 1e-2) if parameter.requires_grad else moved == 0, name
    optimiser.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters() if parameter.requires_grad)
