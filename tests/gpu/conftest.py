"""The demo model with many slots on a CUDA device, and how the tests step it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr_worker.core.model import StepPlan
from asr_worker.model.loading import ModelFiles, load_model
from asr_worker.model.seeded import seeded_audio
from shared.config import ModuleConfig
from shared.config_file import load_config

DEMO = Path(__file__).parents[2] / "asr_worker" / "demo"
N_SLOTS = 64
N_STEPS = 60  # the demo model's rings hold 40 and 25 frames

Said = list[tuple[int, list[int]]]


class Demo:
    """Loads the demo model and steps it."""

    n_slots = N_SLOTS
    n_steps = N_STEPS
    speech = seeded_audio("speech", N_STEPS, 1)
    others = seeded_audio("others", N_STEPS * N_SLOTS, 1).reshape(N_STEPS, N_SLOTS, 1920)

    @staticmethod
    def module() -> ModuleConfig:
        (module,) = load_config(DEMO / "demo.toml", {}).service.modules
        return replace(module, batch_size=N_SLOTS)

    @staticmethod
    def files() -> ModelFiles:
        return ModelFiles(
            lm=DEMO / "lm.safetensors", mimi=DEMO / "mimi.safetensors", tokenizer=DEMO / "tokenizer.model"
        )

    def load(self, *, device: str = "cuda", temperature: float = 0.0, dtype: str | None = None, **options: Any) -> Any:
        module = replace(self.module(), temperature=temperature, dtype_override=dtype)
        return load_model(module, self.files(), device=device, threads=1, seed=1, **options)

    @staticmethod
    def step(model: Any, frames: dict[int, np.ndarray], *, reset: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Step the slots in ``frames``; return every slot's text token and codes."""
        plan = StepPlan(
            pcm=np.full((N_SLOTS, 1920), np.nan, np.float32),
            active=np.zeros(N_SLOTS, bool),
            reset=np.full(N_SLOTS, reset),
        )
        for slot, frame in frames.items():
            plan.pcm[slot] = frame
            plan.active[slot] = True
        model.launch(plan)
        result = model.collect()
        return result.text.copy(), result.codes.copy()

    def said(self, model: Any, slot: int, beside: Callable[[int], dict[int, np.ndarray]]) -> Said:
        """Let a slot hear the speech, with other slots' frames in each step; return what it said."""
        said = []
        for k, frame in enumerate(self.speech):
            text, codes = self.step(model, {**beside(k), slot: frame}, reset=k == 0)
            said.append((int(text[slot]), codes[slot].tolist()))
        return said


@pytest.fixture(scope="session")
def demo() -> Demo:
    return Demo()
