import math

import pytest
import torch
from torch.nn import functional

from asr_worker.model.carry import Carry, Silence
from asr_worker.model.seanet import MANY_WINDOWS, CausalConv, SeanetEncoder
from shared.config import MimiConfig

CPU = torch.device("cpu")


def filled(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[-1]))
    return module.requires_grad_(requires_grad=False)


@pytest.mark.parametrize("n_windows", [3, MANY_WINDOWS])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 1), (3, 1), (1, 1), (8, 4), (4, 2)])
def test_a_causal_convolution_is_the_usual_one_after_zeros(kernel: int, stride: int, n_windows: int) -> None:
    conv = CausalConv(5, 6, kernel, stride=stride)
    weight, bias = torch.randn(6, 5, kernel), torch.randn(6)
    conv.put_weight(weight)
    conv.bias = torch.nn.Parameter(bias)
    x = torch.randn(2, n_windows * stride, 5)
    padded = functional.pad(x.transpose(1, 2), (kernel - stride, 0))
    expected = functional.conv1d(padded, weight, bias, stride=stride).transpose(1, 2)
    torch.testing.assert_close(conv(x, Silence()).detach(), expected, atol=1e-5, rtol=1e-5)


def test_a_weight_normalised_weight_is_its_direction_with_its_gain() -> None:
    conv, plain = CausalConv(5, 6, 3), CausalConv(5, 6, 3)
    gain, direction = torch.rand(6, 1, 1) + 1, torch.randn(6, 5, 3)
    conv.put_normed_weight(gain, direction)
    plain.put_weight(torch._weight_norm(direction, gain, 0))
    torch.testing.assert_close(conv.weight, plain.weight)


def carry_floats(encoder: SeanetEncoder) -> int:
    total = 0
    for _, conv in encoder.published_convs():
        conv.carry_offset = total
        total += conv.n_carried * conv.n_in
    return total


def test_streaming_equals_offline_whatever_rows_step() -> None:
    config = MimiConfig(n_filters=4, dimension=8)
    encoder = filled(SeanetEncoder(config))
    n_rows, n_frames = 3, 5
    pcm = torch.randn(n_rows, n_frames * 1920, 1)
    expected = encoder(pcm, Silence())
    carry = Carry(n_rows=n_rows, n_floats=carry_floats(encoder), device=CPU)
    random = torch.Generator().manual_seed(0)
    done = [0] * n_rows
    while min(done) < n_frames:
        active = (torch.rand(n_rows, generator=random) < 0.6) & (torch.tensor(done) < n_frames)
        frames = torch.randn(n_rows, 1920, 1)
        for row in range(n_rows):
            if active[row]:
                frames[row] = pcm[row, done[row] * 1920 : (done[row] + 1) * 1920]
        step = carry.begin(active)
        out = encoder(frames, step)
        step.commit()
        for row in range(n_rows):
            if active[row]:
                torch.testing.assert_close(
                    out[row], expected[row, 2 * done[row] : 2 * done[row] + 2], atol=1e-5, rtol=1e-4
                )
                done[row] += 1


def test_a_reset_makes_a_row_silent_even_after_nan() -> None:
    encoder = filled(SeanetEncoder(MimiConfig(n_filters=4, dimension=8)))
    carry = Carry(n_rows=2, n_floats=carry_floats(encoder), device=CPU)
    everyone = torch.ones(2, dtype=torch.bool)
    frame = torch.randn(2, 1920, 1)
    step = carry.begin(everyone)
    encoder(torch.stack((torch.full((1920, 1), torch.nan), frame[1])), step)
    step.commit()
    carry.reset(torch.tensor([True, False]))
    torch.testing.assert_close(encoder(frame, carry.begin(everyone))[0], encoder(frame, Silence())[0])


def test_the_published_size_carries_what_the_specification_says() -> None:
    with torch.device("meta"):
        encoder = SeanetEncoder(MimiConfig())
    assert carry_floats(encoder) == 11_526 - 1_024  # the downsample's are not the encoder's
    names = [name for name, _ in encoder.published_convs()]
    assert names == [
        "encoder.model.0.conv.conv",
        "encoder.model.1.block.1.conv.conv",
        "encoder.model.1.block.3.conv.conv",
        "encoder.model.3.conv.conv",
        "encoder.model.4.block.1.conv.conv",
        "encoder.model.4.block.3.conv.conv",
        "encoder.model.6.conv.conv",
        "encoder.model.7.block.1.conv.conv",
        "encoder.model.7.block.3.conv.conv",
        "encoder.model.9.conv.conv",
        "encoder.model.10.block.1.conv.conv",
        "encoder.model.10.block.3.conv.conv",
        "encoder.model.12.conv.conv",
        "encoder.model.14.conv.conv",
    ]


def test_gradients_flow_through_the_offline_forward() -> None:
    encoder = filled(SeanetEncoder(MimiConfig(n_filters=4, dimension=8))).requires_grad_()
    encoder(torch.randn(1, 1920, 1), Silence()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
