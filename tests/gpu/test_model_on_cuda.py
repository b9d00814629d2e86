"""What must hold of the step on a CUDA device: rows apart, resets, stalls, graph equals eager, nothing waits."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr_worker.core.model import StepPlan
from asr_worker.model.checkpoint import fill, read_header
from asr_worker.model.lm import LanguageModel
from asr_worker.model.loading import ModelFiles, load_model
from asr_worker.model.needs import lm_needs
from asr_worker.model.seeded import seeded_audio
from shared.config import ModuleConfig
from shared.config_file import load_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

DEMO = Path(__file__).parents[2] / "asr_worker" / "demo"
N_SLOTS = 64
N_STEPS = 60  # the demo model's rings hold 40 and 25 frames
SPEECH = seeded_audio("speech", N_STEPS, 1)
OTHERS = seeded_audio("others", N_STEPS * N_SLOTS, 1).reshape(N_STEPS, N_SLOTS, 1920)

Said = list[tuple[int, list[int]]]
Load = Callable[..., Any]


def demo_module() -> ModuleConfig:
    (module,) = load_config(DEMO / "demo.toml", {}).service.modules
    return replace(module, batch_size=N_SLOTS)


def demo_files() -> ModelFiles:
    return ModelFiles(lm=DEMO / "lm.safetensors", mimi=DEMO / "mimi.safetensors", tokenizer=DEMO / "tokenizer.model")


@pytest.fixture(scope="module", params=[0.0, 0.5], ids=["greedy", "sampling"])
def load(request: pytest.FixtureRequest) -> Load:
    def loaded(*, device: str = "cuda", capture: bool = True, dtype: str | None = None) -> Any:
        module = replace(demo_module(), temperature=request.param, dtype_override=dtype)
        return load_model(module, demo_files(), device=device, threads=1, seed=1, capture=capture)

    return loaded


@pytest.fixture
def greedy() -> Load:
    return lambda **kw: load_model(demo_module(), demo_files(), threads=1, seed=1, **{"device": "cuda", **kw})


def step(model: Any, frames: dict[int, np.ndarray], *, reset: bool = False) -> tuple[np.ndarray, np.ndarray]:
    plan = StepPlan(
        pcm=np.full((N_SLOTS, 1920), np.nan, np.float32),
        active=np.zeros(N_SLOTS, bool),
        reset=np.full(N_SLOTS, reset),
    )
    for row, frame in frames.items():
        plan.pcm[row] = frame
        plan.active[row] = True
    model.launch(plan)
    result = model.collect()
    return result.text.copy(), result.codes.copy()


def said_alone(model: Any, row: int = 5) -> Said:
    said = []
    for k, frame in enumerate(SPEECH):
        text, codes = step(model, {row: frame}, reset=k == 0)
        said.append((int(text[row]), codes[row].tolist()))
    return said


def test_a_session_alone_equals_the_same_session_beside_63_others_and_after_a_reset(greedy: Load) -> None:
    model = greedy()
    alone = said_alone(model)
    beside: Said = []
    for k in range(N_STEPS):
        frames = {**dict(enumerate(OTHERS[k])), 5: SPEECH[k]}
        text, codes = step(model, frames, reset=k == 0)
        beside.append((int(text[5]), codes[5].tolist()))
    assert beside == alone
    assert said_alone(model) == alone


def test_a_masked_row_continues_as_if_nothing_happened(greedy: Load) -> None:
    model = greedy()
    alone = said_alone(model)
    stalling: Said = []
    for k in range(N_STEPS):
        for _ in range(k % 3):
            step(model, {row: OTHERS[k, row] for row in range(N_SLOTS) if row != 5}, reset=False)
        text, codes = step(model, {5: SPEECH[k], 9: OTHERS[k, 9]}, reset=k == 0)
        stalling.append((int(text[5]), codes[5].tolist()))
    assert stalling == alone


def test_the_graph_equals_the_eager_step(load: Load) -> None:
    captured, eager = load(capture=True), load(capture=False)
    for k in range(N_STEPS):
        frames = {row: OTHERS[k, row] for row in range(N_SLOTS) if (row + k) % 5}
        for found, expected in zip(
            step(captured, frames, reset=k in {0, 30}), step(eager, frames, reset=k in {0, 30}), strict=True
        ):
            np.testing.assert_array_equal(found[list(frames)], expected[list(frames)])


@pytest.fixture
def sync_debug_mode() -> Iterator[Callable[[str], None]]:
    yield torch.cuda.set_sync_debug_mode
    torch.cuda.set_sync_debug_mode("default")


def test_a_launch_waits_for_nothing(load: Load, sync_debug_mode: Callable[[str], None]) -> None:
    models = [load(capture=True), load(capture=False)]
    everyone = np.ones(N_SLOTS, bool)
    sync_debug_mode("error")
    for model in models:
        for k in range(5):
            model.launch(StepPlan(pcm=OTHERS[k], active=everyone, reset=~everyone))
            model.collect()


def test_float32_on_the_device_says_what_the_cpu_says() -> None:
    """Sums in another order: a code near a border may differ, and with it what follows, but hardly any does."""
    module = replace(demo_module(), dtype_override="f32")
    on_cpu = load_model(module, demo_files(), device="cpu", threads=1, seed=1)
    on_gpu = load_model(module, demo_files(), device="cuda", threads=1, seed=1)
    same = []
    for k in range(N_STEPS):
        frames = dict(enumerate(OTHERS[k]))
        (_, here), (_, there) = step(on_cpu, frames, reset=k == 0), step(on_gpu, frames, reset=k == 0)
        same.append((here == there).mean())
    assert np.mean(same) > 0.995


def test_bfloat16_scores_are_within_the_known_spread() -> None:
    config = demo_module().model
    header = read_header("lm", demo_files().lm)
    scores = []
    random = torch.Generator().manual_seed(0)
    text = torch.randint(0, config.text_in_vocab_size, (8, 30), generator=random).cuda()
    audio = torch.randint(0, config.audio_vocab_size, (8, 30, config.audio_codebooks), generator=random).cuda()
    for dtype in (torch.float32, torch.bfloat16):
        with torch.device("cuda"):
            lm = LanguageModel(config, hidden=config.transformer.hidden, dtype=dtype).requires_grad_(
                requires_grad=False
            )
        fill(header, lm_needs(lm))
        scores.append(lm(text, audio)[0].float())
    assert (scores[0] - scores[1]).abs().max() < 0.15 * scores[0].std()
