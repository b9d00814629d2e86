import torch

from shared.config import ModuleConfig
from training.bank import Bank
from training.net import Net
from training.phone_heads import fit_phone_heads
from training.utterance import UtteranceSource


def test_heads_learn_what_a_still_encoder_says(micro: ModuleConfig, tone_bank: Bank) -> None:
    torch.manual_seed(4)
    net = Net(micro, seed=4)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    source = UtteranceSource(tone_bank, n_frames=24, delay=6, n_words=42, seed=4, n_noises=2)

    losses = [fit_phone_heads(net, lambda: source.batch(4), "cpu", n_batches=n) for n in (1, 12)]

    assert losses[1] < 0.6 * losses[0]
    changed = {name.split(".")[0] for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"phone_head", "first_head"}
