"""Who reads the rings on a CUDA device, in which formats, and that this costs what the sessions are worth."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from asr_worker.core.model import StepPlan, StepResult
from asr_worker.model.contest import Verdict, decide
from asr_worker.model.cuda import make_ring_kernel, time_ms
from asr_worker.model.device_step import DeviceStep
from asr_worker.model.kv_cache import KV_FORMATS
from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import MimiEncoder
from asr_worker.model.prepared import PreparedRunner, ladder
from asr_worker.model.ring import Ring
from asr_worker.model.sampling import Sampler
from shared.config import LmConfig, MimiConfig, TransformerConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

LM_RING = {"context": 750, "n_heads": 16, "head_dim": 128}
MIMI_RING = {"context": 250, "n_heads": 8, "head_dim": 64}


def ring(sizes: dict[str, int], n_slots: int, dtype: torch.dtype, form: str | None = None) -> Ring:
    return Ring(
        n_layers=1,
        n_rows=n_slots + 1,
        max_period=100_000.0,
        device=torch.device("cuda"),
        dtype=dtype,
        form=None if form is None else KV_FORMATS[form],
        **sizes,
    )


def second_wins() -> Callable[[Callable[[], object]], float]:
    times_ms = iter([2.0, 1.0])
    return lambda _run: next(times_ms)


def held(contested: Ring, n_slots: int, n_new: int) -> Verdict:
    with torch.inference_mode():
        return decide(
            contested, sizes=ladder(n_slots), n_new=n_new, make_kernel=make_ring_kernel, time_ms=second_wins()
        )


@pytest.mark.parametrize("n_slots", [1, 5, 64])
@pytest.mark.parametrize("form", [None, "int8", "fp8"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=["bf16", "f16", "f32"])
def test_the_kernel_agrees_with_torch_for_the_language_model(
    dtype: torch.dtype, form: str | None, n_slots: int
) -> None:
    if form == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this device has no 8-bit floats")
    assert held(ring(LM_RING, n_slots, dtype, form), n_slots, 1).trouble is None


@pytest.mark.parametrize("n_slots", [1, 5, 64])
def test_the_kernel_agrees_with_torch_for_mimi(n_slots: int) -> None:
    assert held(ring(MIMI_RING, n_slots, torch.float32), n_slots, 2).trouble is None


def test_the_contest_is_timed_and_leaves_the_rings_empty() -> None:
    contested = ring(LM_RING, 64, torch.bfloat16)
    with torch.inference_mode():
        verdict = decide(contested, sizes=ladder(64), n_new=1, make_kernel=make_ring_kernel, time_ms=time_ms)
    assert verdict.trouble is None
    assert verdict.torch_ms is not None
    assert verdict.kernel_ms is not None
    assert verdict.is_kernel == (verdict.kernel_ms < verdict.torch_ms)
    assert not contested.cache.keys.any()
    assert not contested.position.any()


def with_kernel(demo: Any, **options: Any) -> Any:
    """Load the demo model and let it read its rings by the kernel, faster or not."""
    model = demo.load(**options)
    with torch.inference_mode():
        times_ms = iter([2.0, 1.0] * 2)
        verdicts = model._step.choose_attention(model._runner.sizes, make_ring_kernel, lambda _run: next(times_ms))
        assert [verdict.trouble for verdict in verdicts.values()] == [None, None]
        model._runner.capture()
        model.restart()
    return model


def tokens_and_codes(demo: Any, model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Let the sessions come and go, in steps of every size; return what those that step say."""
    random = np.random.default_rng(1)
    texts, all_codes = [], []
    for k in range(demo.n_steps):
        slots = np.flatnonzero(random.random(demo.n_slots) < random.choice([0.05, 0.4, 1.0]))
        text, codes = demo.step(model, {int(slot): demo.others[k, slot] for slot in slots}, reset=k == 0)
        texts.append(text[slots])
        all_codes.append(codes[slots])
    return np.concatenate(texts), np.concatenate(all_codes)


def test_a_model_says_the_same_with_the_kernel_and_without(demo: Any) -> None:
    text, codes = tokens_and_codes(demo, demo.load(dtype="f32", attention="torch"))
    kernel_text, kernel_codes = tokens_and_codes(demo, with_kernel(demo, dtype="f32"))
    assert (kernel_codes == codes).mean() > 0.995
    assert (kernel_text == text).mean() > 0.97


@pytest.mark.parametrize("form", ["bf16", "int8", "fp8"])
@pytest.mark.parametrize("has_kernel", [True, False], ids=["kernel", "torch"])
def test_a_cache_in_fewer_bits_changes_few_tokens(demo: Any, form: str, *, has_kernel: bool) -> None:
    # Not "auto": two contests of one device may end differently, and then a code near a border may, too.
    def load(**options: Any) -> Any:
        return (
            with_kernel(demo, dtype="f32", **options)
            if has_kernel
            else demo.load(dtype="f32", attention="torch", **options)
        )

    text, codes = tokens_and_codes(demo, load())
    found_text, found_codes = tokens_and_codes(demo, load(kv_cache=form))
    np.testing.assert_array_equal(found_codes, codes)
    assert (found_text == text).mean() > 0.95


N_MANY = 256
BIG_LM = LmConfig(
    audio_vocab_size=2049,
    text_in_vocab_size=8001,
    text_out_vocab_size=8000,
    audio_codebooks=8,
    transformer=TransformerConfig(
        d_model=2048, num_heads=16, num_layers=4, dim_feedforward=8192, context=750, max_period=100_000.0
    ),
)


@pytest.fixture(scope="module")
def runner() -> PreparedRunner:
    """Four layers of the published width, with so many old sessions that the device has work."""
    free_bytes, _ = torch.cuda.mem_get_info()
    if free_bytes < 20e9:
        pytest.skip("this device has less than 20 GB free")
    with torch.device("cuda"):
        lm = LanguageModel(BIG_LM, hidden=BIG_LM.transformer.hidden, dtype=torch.bfloat16)
        mimi = MimiEncoder(MimiConfig(), BIG_LM.audio_codebooks)
    for parameter in (*lm.parameters(), *mimi.parameters()):
        parameter.data.normal_(0.0, parameter.shape[-1] ** -0.5)
        parameter.requires_grad_(requires_grad=False)
    mimi.quantizer.minus_half_norms.zero_()
    sampler = Sampler(temperature=0.0, seed=1, device=torch.device("cuda"))
    step = DeviceStep(lm=lm, mimi=mimi, sampler=sampler, n_slots=N_MANY)
    prepared = PreparedRunner(step)
    with torch.inference_mode():
        prepared.choose_attention()
        prepared.capture()
        step.reset_all(age_frames=BIG_LM.transformer.context)
    return prepared


def step_s(runner: PreparedRunner, slots: tuple[int, ...]) -> float:
    """Return the median time of a step of ``slots``."""
    result = StepResult(
        text=np.zeros(N_MANY, np.int64),
        codes=np.zeros((N_MANY, BIG_LM.audio_codebooks), np.int64),
        pauses=np.zeros((N_MANY, 0), np.float32),
    )
    active = np.zeros(N_MANY, bool)
    active[list(slots)] = True
    plan = StepPlan(pcm=np.full((N_MANY, 1920), 0.1, np.float32), active=active, reset=np.zeros(N_MANY, bool))
    times_s = []
    with torch.inference_mode():
        for _ in range(20):
            started_s = time.perf_counter()
            runner.launch(plan)
            runner.collect(result)
            times_s.append(time.perf_counter() - started_s)
    return float(np.median(times_s))


def test_after_256_sessions_shrank_to_3_scattered_ones_a_step_costs_what_3_cost(runner: PreparedRunner) -> None:
    all_s = step_s(runner, tuple(range(N_MANY)))
    scattered_s = step_s(runner, (3, 100, 255))
    packed_s = step_s(runner, (0, 1, 2))
    assert scattered_s < 0.5 * all_s
    assert scattered_s < 1.25 * packed_s
