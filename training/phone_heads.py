"""Phone heads for an encoder that has none: a published checkpoint keeps nothing that only training needs.

Heads that know nothing yet would push a trained encoder about for its first few hundred steps. So they are taught what
its codes say first, while it stands still.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from training.encoder import latents_of
from training.losses import phone_loss
from training.net import Net
from training.precision import mixed
from training.quantise import quantise
from training.utterance import Batch

_BATCHES: Final = 120
_LESSONS: Final = 5
"""Steps for each new batch, all but one of them on earlier ones: hearing a batch costs as much as many such steps."""
_PEAK: Final = 3e-3


def fit_phone_heads(
    net: Net,
    next_batch: Callable[[], Batch],
    device: str,
    *,
    n_batches: int = _BATCHES,
    stopped: Callable[[], bool] = lambda: False,
) -> float:
    """Teach the phone heads until that is done or somebody ``stopped`` it; all else stays as it is.

    Returns:
        Their loss on the last batch.
    """
    optimiser = torch.optim.AdamW([*net.phone_head.parameters(), *net.first_head.parameters()], lr=_PEAK)
    heard: list[tuple[Tensor, Tensor, Tensor]] = []
    loss = torch.zeros(())
    for number in range(n_batches):
        if stopped():
            break
        heard.append(_hear(net, next_batch(), device))
        earlier = torch.randint(len(heard), (_LESSONS - 1,)).tolist()
        for first, rest, phones in (*(heard[index] for index in earlier), heard[-1]):
            of_all, of_first = net.phone_scores(first, rest)
            loss = phone_loss(of_all, phones)
            optimiser.zero_grad(set_to_none=True)
            (loss + phone_loss(of_first, phones)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        for group in optimiser.param_groups:
            group["lr"] = _PEAK * (1 - number / n_batches)
    return float(loss.detach())


@torch.no_grad()
def _hear(net: Net, batch: Batch, device: str) -> tuple[Tensor, Tensor, Tensor]:
    with mixed(device):
        latents = latents_of(net.mimi, torch.as_tensor(batch.pcm).to(device))
    quantised = quantise(net.mimi.quantizer, latents.flatten(0, 1).float())
    return quantised.first, quantised.rest, torch.as_tensor(batch.phones).to(device)
