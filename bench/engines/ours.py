"""Our model as the worker runs it: ``load_model``, then launch and collect."""

from pathlib import Path

import numpy as np
import torch

from asr_worker.core.model import StepPlan
from asr_worker.model.loading import ModelFiles, load_model
from asr_worker.model.seeded import seeded_audio
from asr_worker.model.step import TorchAsrModel
from bench.engines.process import Spec, serve
from bench.sizes import lm_config, mimi_config
from shared.config import ModuleConfig


class OurEngine:
    """Steps ``TorchAsrModel``."""

    def __init__(self, spec: Spec) -> None:
        self._model = _load(spec)
        _fill(self._model, spec.fill)
        pcm = np.repeat(seeded_audio("bench", 1, 1), spec.batch, axis=0)
        active = np.zeros(spec.batch, np.bool_)
        active[spec.active_rows()] = True
        self._plan = StepPlan(pcm=pcm, active=active, reset=np.zeros(spec.batch, np.bool_))

    def step(self) -> None:
        """Launch and collect."""
        self._model.launch(self._plan)
        self._model.collect()


def _load(spec: Spec) -> TorchAsrModel:
    folder = Path(spec.folder)
    names = ("lm.safetensors", "mimi.safetensors", "tokenizer.model")
    lm, mimi, tokenizer = (folder / name for name in names)
    module = ModuleConfig(
        name="bench",
        path="/bench",
        lm_model_file=str(lm),
        text_tokenizer_file=str(tokenizer),
        audio_tokenizer_file=str(mimi),
        asr_delay_in_tokens=6,
        batch_size=spec.batch,
        model=lm_config(spec.model),
        mimi=mimi_config(spec.mimi),
        dtype_override=spec.dtype,
    )
    files = ModelFiles(lm=lm, mimi=mimi, tokenizer=tokenizer)
    model = load_model(
        module,
        files,
        device=spec.device,
        threads=spec.threads,
        seed=1,
        kv_cache=spec.kv_cache,
        cpu_weights=spec.cpu_weights,
        attention=spec.attention,
    )
    print(*model.started.items(), *model.warnings, sep="\n")
    return model


def _fill(model: TorchAsrModel, share: float) -> None:
    """Move every row to where ``share`` of its rings is visible: 60 s of real audio would outlast the measurement."""
    step = model._step  # noqa: SLF001  (no caller but a benchmark wants to skip audio)
    for ring in (step._ring, step._mimi_state.ring):  # noqa: SLF001
        with torch.inference_mode():
            ring.position.fill_(int(share * ring.cache.keys.shape[3]))


if __name__ == "__main__":
    serve(OurEngine, {"torch": torch.__version__})
