"""Files of seeded random weights for a module of any size: what tests and benchmarks load instead of a trained model.

The files have the published names and shapes and go through the same loader as real ones.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

from asr_worker.model.checkpoint import Need
from asr_worker.model.lm import LanguageModel
from asr_worker.model.loading import ModelFiles
from asr_worker.model.mimi import MimiEncoder
from asr_worker.model.needs import lm_needs, mimi_needs
from asr_worker.model.seeded import seeded_weights
from shared.config import ModuleConfig


def shapes_of(needs: Iterable[Need]) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that is needed."""
    return {wanted.name: wanted.shape for need in needs for wanted in need.wanted}


def published_shapes(module: ModuleConfig) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the tensors that a module's language model and its Mimi are made of; takes no memory."""
    with torch.device("meta"):
        lm = LanguageModel(module.model, hidden=module.model.transformer.hidden, dtype=torch.float32)
        mimi = MimiEncoder(module.mimi, module.model.audio_codebooks)
    return shapes_of(lm_needs(lm)), shapes_of(mimi_needs(mimi))


def write_weights(path: Path, shapes: dict[str, tuple[int, ...]], seed: int, dtype: torch.dtype) -> None:
    """Write seeded weights of the given shapes to a safetensors file."""
    weights = seeded_weights(shapes, seed)
    save_file({name: torch.from_numpy(weight).to(dtype) for name, weight in weights.items()}, path)


def write_seeded_files(
    module: ModuleConfig, folder: Path, *, tokenizer: Path, seed: int, dtype: torch.dtype = torch.float32
) -> ModelFiles:
    """Write a module's two weight files into ``folder``; ``dtype`` is the language model's.

    A condition is not among them.
    """
    lm_shapes, mimi_shapes = published_shapes(module)
    files = ModelFiles(lm=folder / "lm.safetensors", mimi=folder / "mimi.safetensors", tokenizer=tokenizer)
    write_weights(files.lm, lm_shapes, seed, dtype)
    write_weights(files.mimi, mimi_shapes, seed, torch.float32)
    return files
