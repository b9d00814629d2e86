"""A bias of padding, written into a checkpoint: the more, the less it says, falsely or rightly.

    scores = W h        row of padding + bias * u, where u . h is about 1 at every step

The published layout has no bias of the scores. But what the last norm gives has nearly the same component along some
direction at every step; moving padding's row along it is a bias, nearly. The direction is found by least squares on a
bank's utterances.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from shared.errors import ConfigError
from training.bank import Bank
from training.encoder import latents_of
from training.losses import fed_text
from training.net import Net
from training.published import module_of, read_published, words_of, write_weights
from training.targets import PAD
from training.utterance import UtteranceSource

_FRAMES: Final = 64
_ROWS, _BATCHES, _NOISES = 8, 8, 8
_RIDGE: Final = 1e-3
_SCORES: Final = "text_linear.weight"


def bias_padding(toml: Path, bank: Bank, bias: float, out: Path, say: Callable[[str], None]) -> None:
    """Write a checkpoint with so much added to padding's score into the folder ``out``; all else stays as it is.

    Raises:
        ConfigError: ``out`` is the checkpoint's own folder.
    """
    if out.resolve() == toml.parent.resolve():
        message = f"{out}: is the checkpoint's own folder; choose another"
        raise ConfigError(message)
    module = module_of(toml)
    net = Net(module, seed=1).eval()
    read_published(net, module, toml.parent, _ROWS * _FRAMES)
    source = UtteranceSource(
        bank, n_frames=_FRAMES, delay=module.delay_frames, n_words=len(words_of(module)), seed=1, n_noises=_NOISES
    )
    direction, missed = direction_of_one(_hidden(net, source))
    out.mkdir(parents=True, exist_ok=True)
    for name in (toml.name, module.audio_tokenizer_file, module.text_tokenizer_file):
        shutil.copyfile(toml.parent / name, out / name)
    tensors = load_file(toml.parent / module.lm_model_file)
    scores = tensors[_SCORES]
    scores[PAD] = (scores[PAD].float() + bias * direction).to(scores.dtype)
    write_weights(tensors, out / module.lm_model_file)
    say(f"a bias of {bias:+g} in {out}, wrong by {100 * missed:.0f} % of it (root mean square)")


def direction_of_one(hidden: Tensor) -> tuple[Tensor, float]:
    """Return u ``[d]`` with u . h nearly 1 for rows h of ``[n, d]``, and by how much it misses (root mean square)."""
    square = hidden.T @ hidden / len(hidden)
    ridge = _RIDGE * square.diagonal().mean() * torch.eye(len(square))
    direction: Tensor = torch.linalg.solve(square + ridge, hidden.mean(dim=0))
    return direction, float((hidden @ direction - 1).square().mean().sqrt())


@torch.no_grad()
def _hidden(net: Net, source: UtteranceSource) -> Tensor:
    """Return what the last norm gives at every step of some utterances, ``[n, d]``."""
    found: list[Tensor] = []
    hook = net.lm.out_norm.register_forward_hook(lambda _norm, _inputs, out: found.append(out.flatten(0, 1)))
    generator, start = torch.Generator().manual_seed(1), net.module.model.text_in_vocab_size - 1
    for _ in range(_BATCHES):
        batch = source.batch(_ROWS)
        latents = latents_of(net.mimi, torch.from_numpy(batch.pcm))
        codes = net.mimi.quantizer(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        net.speak(net.audio_vectors(codes), fed_text(torch.from_numpy(batch.said), start, generator, corrupted=0.0))
    hook.remove()
    return torch.cat(found)
