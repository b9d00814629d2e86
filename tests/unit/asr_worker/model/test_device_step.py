"""A step that is captured in a graph may not look at data. Tensors on torch's meta device have none to look at."""

from typing import Any

import pytest
import torch

from asr_worker.model.device_step import DeviceStep
from asr_worker.model.kv_cache import KV_FORMATS
from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import MimiEncoder
from asr_worker.model.packing import Selection
from asr_worker.model.sampling import Sampler

N_SLOTS = 9
META = torch.device("meta")


def step_without_data(small: Any, dtype: torch.dtype, form: str | None) -> DeviceStep:
    config = small.module.model
    with META:
        lm = LanguageModel(config, hidden=config.transformer.hidden, dtype=dtype)
        mimi = MimiEncoder(small.module.mimi, config.audio_codebooks)
    return DeviceStep(
        lm=lm.requires_grad_(requires_grad=False),
        mimi=mimi.requires_grad_(requires_grad=False),
        sampler=Sampler(temperature=0.0, seed=1, device=META),
        n_slots=N_SLOTS,
        kv_format=None if form is None else KV_FORMATS[form],
    )


@pytest.mark.parametrize("form", [None, "int8", "fp8"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "f32"])
@pytest.mark.parametrize("has_kernel", [False, True], ids=["torch", "kernel"])
def test_a_step_by_index_looks_at_no_data(
    small: Any, dtype: torch.dtype, form: str | None, *, has_kernel: bool
) -> None:
    step = step_without_data(small, dtype, form)
    if has_kernel:
        for ring in (step._ring, step._mimi_state.ring):
            ring.kernel = lambda queries, *_: torch.empty_like(queries.transpose(1, 2))
    with torch.inference_mode():
        for size in (6, N_SLOTS):  # with padding, and all
            step.run(size)
        step.reset_all(age_frames=3)


def test_the_step_on_the_host_does_look(small: Any) -> None:
    """So the test above can fail."""
    step = step_without_data(small, torch.float32, None)
    selection = Selection(slots=torch.arange(3).numpy(), n_active=3, has_reset=False)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="meta"):
        step.run_on_host(selection)
