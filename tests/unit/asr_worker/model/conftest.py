"""A small model with seeded random weights, loaded from files like any other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr_worker.core.model import StepPlan
from asr_worker.model.kv_cache import LayerCache
from asr_worker.model.loading import ModelFiles, load_model
from asr_worker.model.ring import RingAttention
from asr_worker.model.seeded_files import write_seeded_files
from asr_worker.model.step import TorchAsrModel
from shared.config import ExtraHeadsConfig, LmConfig, MimiConfig, ModuleConfig, TransformerConfig

ROOT = Path(__file__).parents[4]
DEMO = ROOT / "asr_worker" / "demo"

SMALL = ModuleConfig(
    name="small",
    path="/api/small",
    lm_model_file="lm.safetensors",
    text_tokenizer_file="tokenizer.model",
    audio_tokenizer_file="mimi.safetensors",
    asr_delay_in_tokens=6,
    batch_size=4,
    model=LmConfig(
        audio_vocab_size=33,
        text_in_vocab_size=49,
        text_out_vocab_size=48,
        audio_codebooks=4,
        transformer=TransformerConfig(
            d_model=32, num_heads=2, num_layers=2, dim_feedforward=48, context=12, max_period=100_000.0
        ),
        extra_heads=ExtraHeadsConfig(num_heads=4, dim=6),
    ),
    mimi=MimiConfig(
        n_filters=4,
        dimension=32,
        num_layers=2,
        num_heads=4,
        dim_feedforward=64,
        context=16,
        codebook_size=32,
        codebook_dim=16,
    ),
)


class Small:
    """Loads ``SMALL`` or a variation of it; weights are written once for each."""

    module = SMALL
    demo = DEMO

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, module: ModuleConfig = SMALL) -> ModelFiles:
        sized = replace(module, batch_size=1, temperature=0.0, dtype_override=None)
        folder = self._folder / f"{hash(repr(sized)):x}"
        if not folder.exists():
            folder.mkdir()
            write_seeded_files(module, folder, tokenizer=DEMO / "tokenizer.model", seed=1)
        return ModelFiles(
            lm=folder / "lm.safetensors", mimi=folder / "mimi.safetensors", tokenizer=DEMO / "tokenizer.model"
        )

    def load(self, module: ModuleConfig = SMALL, *, seed: int = 1, **options: Any) -> TorchAsrModel:
        return load_model(module, self.files(module), device="cpu", threads=1, seed=seed, **options)

    def of_batch(self, n_slots: int, **options: Any) -> TorchAsrModel:
        return self.load(replace(SMALL, batch_size=n_slots), **options)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("small"))


class Batch:
    """Steps a model and remembers what each row said."""

    def __init__(self, model: TorchAsrModel) -> None:
        self.model = model
        n_slots = model.facts.n_slots
        self.said: list[list[tuple[int, list[int]]]] = [[] for _ in range(n_slots)]
        """For each row and frame the text token and the codes."""
        self.pauses: list[list[np.ndarray]] = [[] for _ in range(n_slots)]
        self.plan = StepPlan(
            pcm=np.zeros((n_slots, 1920), np.float32), active=np.zeros(n_slots, bool), reset=np.ones(n_slots, bool)
        )
        self._noise = np.random.default_rng(0)

    def step(self, frames: dict[int, np.ndarray], *, reset: tuple[int, ...] = ()) -> None:
        """Step the rows in ``frames``; the others are masked and hold noise."""
        self.plan.pcm[:] = self._noise.uniform(-1, 1, self.plan.pcm.shape)
        self.plan.active[:] = False
        for row, frame in frames.items():
            self.plan.pcm[row] = frame
            self.plan.active[row] = True
        self.plan.reset[list(reset)] = True
        self.model.launch(self.plan)
        result = self.model.collect()
        self.plan.reset[:] = False
        for row in frames:
            self.said[row].append((int(result.text[row]), result.codes[row].tolist()))
            self.pauses[row].append(result.pauses[row].copy())


@pytest.fixture(scope="session")
def batch_of(small: Small) -> Callable[..., Batch]:
    return lambda n_slots, **options: Batch(small.of_batch(n_slots, **options))


def attend_in_place(queries: Tensor, cache: LayerCache, slots: Tensor, newest: Tensor, counts: Tensor) -> Tensor:
    """Attend row by row to the cells that a row has filled; of two queries the first does not see the newest cell."""
    answers = []
    for row, slot in enumerate(slots.tolist()):
        keys, values = (
            kept[slot, :, : counts[row]].float() * (1 if scales is None else scales[slot, :, : counts[row], None])
            for kept, scales in ((cache.keys, cache.key_scales), (cache.values, cache.value_scales))
        )
        scores = torch.einsum("thd,hcd->htc", queries[row], keys) * queries.shape[-1] ** -0.5
        if queries.shape[1] > 1:
            scores[:, 0, newest[row]] = -torch.inf
        answers.append(torch.einsum("htc,hcd->htd", scores.softmax(-1), values))
    return torch.stack(answers)


@pytest.fixture(scope="session")
def kernel() -> RingAttention:
    """Stands for the kernel where there is no GPU; whoever calls it waits for no device."""
    return attend_in_place
