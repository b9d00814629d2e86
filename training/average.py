"""Averages of checkpoints: two runs that began at the same one are better together than either alone.

    0.4 of a, 0.4 of b, 0.2 of the one before ──► the same files, every number the average of theirs

The codebooks are averaged too: sums and counts are what their files hold. It works for what the checkpoints have in
common; words that each began with rows of its own are lost (README.md, *Tried*).

A run that is settled only averages its language model along the way as well (`Trail`).
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shared.errors import CheckpointError, ConfigError
from training.published import CONFIG_FILE, LM_FILE, MIMI_FILE, TOKENIZER_FILE, write_weights

_TOLERANCE: Final = 1e-6
_LATER: Final = 3
"""The power of its step with which a step's weights count: their mean age is a fifth of the run."""


class Trail:
    """The average of a module's weights along a run; later ones count more."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.n_steps = 0
        self.mean = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    @torch.no_grad()
    def add(self) -> None:
        """Count the weights as they are now."""
        self.n_steps += 1
        share = (_LATER + 1) / (self.n_steps + _LATER)
        for name, parameter in self._module.named_parameters():
            self.mean[name].lerp_(parameter, share)

    @torch.no_grad()
    def take(self) -> None:
        """Put the average into the module, if there is one."""
        if self.n_steps:
            for name, parameter in self._module.named_parameters():
                parameter.copy_(self.mean[name])


def average(parts: Sequence[tuple[float, Path]], out: Path) -> None:
    """Write the average of published checkpoints into a folder; all else is the first one's.

    Args:
        parts: the weight of each, together 1, and the folder of its files.
        out: folder to write, none of those.

    Raises:
        ConfigError: a weight is not above 0, or their sum not 1; ``out`` is one of the folders; a file is missing.
        CheckpointError: the checkpoints are not of the same sizes; names every tensor.
    """
    weights = [weight for weight, _ in parts]
    if min(weights) <= 0 or not math.isclose(sum(weights), 1, abs_tol=_TOLERANCE):
        message = f"weights {', '.join(f'{weight:g}' for weight in weights)}: each must be above 0, their sum 1"
        raise ConfigError(message)
    if any(folder.resolve() == out.resolve() for _, folder in parts):
        message = f"{out}: is one of the checkpoints; choose another folder"
        raise ConfigError(message)
    files = [folder / name for _, folder in parts for name in (LM_FILE, MIMI_FILE, TOKENIZER_FILE, CONFIG_FILE)]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        message = f"{', '.join(missing)}: no such file; a checkpoint's folder has all that training exports"
        raise ConfigError(message)
    averages = {name: _average([(weight, folder / name) for weight, folder in parts]) for name in (LM_FILE, MIMI_FILE)}
    out.mkdir(parents=True, exist_ok=True)
    for name, tensors in averages.items():
        write_weights(tensors, out / name)
    for name in (TOKENIZER_FILE, CONFIG_FILE):
        shutil.copyfile(parts[0][1] / name, out / name)


def _average(parts: Sequence[tuple[float, Path]]) -> dict[str, Tensor]:
    weights, files = [weight for weight, _ in parts], [(path, load_file(path)) for _, path in parts]
    first_path, first = files[0]
    problems = [
        f"{path}: {name} has {_said(tensors.get(name))}, in {first_path} {_said(first.get(name))}"
        for path, tensors in files[1:]
        for name in sorted(first.keys() | tensors.keys())
        if _said(tensors.get(name)) != _said(first.get(name))
    ]
    if problems:
        raise CheckpointError(*problems)
    return {
        name: torch.stack([weight * tensors[name].float() for weight, (_, tensors) in zip(weights, files, strict=True)])
        .sum(dim=0)
        .to(tensor.dtype)
        for name, tensor in first.items()
    }


def _said(tensor: Tensor | None) -> str:
    return "no such tensor" if tensor is None else f"shape {list(tensor.shape)}"
