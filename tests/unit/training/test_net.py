import pytest
import torch
from torch.nn import functional

from shared.config import ModuleConfig
from training.encoder import elu, latents_of
from training.losses import fed_text
from training.net import Net
from training.quantise import quantise


@pytest.fixture
def net(micro: ModuleConfig) -> Net:
    net = Net(micro, seed=3)
    generator = torch.Generator().manual_seed(1)
    rows = latents_of(net.mimi, speech(8, 24)).flatten(0, 1).detach()
    net.codebooks.fit(net.mimi.quantizer, rows, generator)
    net.codebooks.follow(net.mimi.quantizer, per_batch=192)
    net.tables_from_bridge()
    return net.eval()


def speech(n_rows: int, n_frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return 0.1 * torch.randn(n_rows, n_frames * 1920, generator=generator)


def test_training_encodes_as_the_worker_does(net: Net) -> None:
    pcm = speech(2, 12)
    with torch.no_grad():
        rows = latents_of(net.mimi, pcm)
        codes = net.mimi.quantizer(rows.flatten(0, 1)).unflatten(0, (2, -1))
        assert torch.equal(codes, net.mimi(pcm))


def test_training_speaks_as_the_worker_does(net: Net) -> None:
    pcm = speech(2, 12)
    text = torch.randint(0, 46, (2, 13), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        heard = net(pcm, text, discrete=True)
        pad = net.module.model.audio_vocab_size - 1
        scores, heads = net.lm(text, functional.pad(net.mimi(pcm), (0, 0, 1, 0), value=pad))
    torch.testing.assert_close(heard.text, scores, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(heard.pauses, heads, atol=1e-4, rtol=1e-4)


def test_the_text_loss_reaches_the_first_convolution_through_the_quantiser(net: Net) -> None:
    text = torch.full((1, 9), 3)
    heard = net(speech(1, 8), text, discrete=True)
    heard.text[..., 5].sum().backward()
    gradient = net.mimi.encoder.first.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_the_first_stage_can_be_left_alone(net: Net) -> None:
    heard = net(speech(1, 8), torch.full((1, 9), 3), discrete=True, learn_front=False)
    heard.text[..., 5].sum().backward()
    assert net.mimi.encoder.first.weight.grad is None
    assert net.mimi.encoder.last.weight.grad is not None


def test_the_bridge_is_found_again_from_the_tables_it_made(net: Net) -> None:
    before = net.bridge.weight.detach().clone()
    assert net.bridge_from_tables() < 1e-3
    torch.testing.assert_close(net.bridge.weight.detach(), before, atol=0.02, rtol=0.02)


def test_an_entry_that_nothing_uses_moves_to_where_something_is(net: Net) -> None:
    rows = latents_of(net.mimi, speech(4, 24)).flatten(0, 1).detach()
    with torch.no_grad():
        net.codebooks.sums[0, 7] = 1000.0
        net.codebooks.usage[0, 7] = 1e-3
        net.codebooks.write(net.mimi.quantizer)
    codes = quantise(net.mimi.quantizer, rows).codes
    assert not (codes[:, 0] == 7).any()
    assert net.codebooks.learn(net.mimi.quantizer, rows, codes) >= 1
    assert net.mimi.quantizer.entries[0, 7].abs().max() < 100


def test_fed_text_is_the_text_one_step_later_with_some_errors() -> None:
    text = torch.arange(4, 44).repeat(50, 1)
    fed = fed_text(text, 70, torch.Generator().manual_seed(1), corrupted=0.2)
    assert fed[:, 0].tolist() == [70] * 50
    wrong = (fed[:, 1:] != text[:, :-1]).float().mean()
    assert 0.15 < wrong < 0.25
    assert torch.equal(fed_text(text, 70, torch.Generator(), corrupted=0.0)[:, 1:], text[:, :-1])


def test_the_quick_activation_in_bfloat16_is_the_librarys() -> None:
    x = torch.linspace(-12, 12, 4001).bfloat16().requires_grad_()
    exact = x.detach().clone().requires_grad_()
    quick, slow = elu(x), torch.nn.functional.elu(exact)
    torch.testing.assert_close(quick, slow, atol=4e-3, rtol=0)
    weight = torch.linspace(-1, 1, 4001).bfloat16()
    (quick * weight).sum().backward()
    (slow * weight).sum().backward()
    torch.testing.assert_close(x.grad, exact.grad, atol=4e-3, rtol=2e-2)
