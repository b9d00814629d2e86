"""What must hold of the step on a CUDA device: rows apart, resets, stalls, graph equals eager, nothing waits.

Steps of different prepared sizes multiply matrices of different shapes, whose sums may be added in another order. So
what is compared bit for bit is stepped in equal sizes.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from asr_worker.core.model import StepPlan
from asr_worker.model.checkpoint import fill, read_header
from asr_worker.model.lm import LanguageModel
from asr_worker.model.needs import lm_needs
from asr_worker.model.prepared import ladder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

SLOT = 5
SCATTERED = (1, 20, 33, SLOT, 63)  # five: a prepared size with padding


@pytest.mark.parametrize("others", [tuple(range(64)), SCATTERED], ids=["full", "padded"])
def test_a_session_says_the_same_whatever_its_neighbours_hear(demo: Any, others: tuple[int, ...]) -> None:
    model = demo.load()
    first = demo.said(model, SLOT, lambda k: {slot: demo.others[k, slot] for slot in others})
    second = demo.said(model, SLOT, lambda k: {slot: -0.5 * demo.others[-k, slot] for slot in others})
    assert second == first
    assert len({token for token, _ in first}) > 1


def test_a_session_alone_says_nearly_what_it_says_beside_63_others(demo: Any) -> None:
    model = demo.load(dtype="f32")
    alone = demo.said(model, SLOT, lambda _k: {})
    beside = demo.said(model, SLOT, lambda k: dict(enumerate(demo.others[k])))
    codes = [np.array([codes for _, codes in said]) for said in (alone, beside)]
    assert (codes[0] == codes[1]).mean() > 0.995
    assert np.mean([one[0] == other[0] for one, other in zip(alone, beside, strict=True)]) > 0.95


def test_a_reused_slot_says_what_a_fresh_one_says(demo: Any) -> None:
    model = demo.load()
    first = demo.said(model, SLOT, lambda _k: {})
    demo.said(model, SLOT, lambda k: dict(enumerate(demo.others[k])))
    assert demo.said(model, SLOT, lambda _k: {}) == first


def test_a_masked_row_continues_as_if_nothing_happened(demo: Any) -> None:
    model = demo.load()
    expected = demo.said(model, SLOT, lambda k: {9: demo.others[k, 9]})
    stalling = []
    for k in range(demo.n_steps):
        for _ in range(k % 3):
            demo.step(model, {slot: demo.others[k, slot] for slot in range(demo.n_slots) if slot != SLOT})
        text, codes = demo.step(model, {SLOT: demo.speech[k], 9: demo.others[k, 9]}, reset=k == 0)
        stalling.append((int(text[SLOT]), codes[SLOT].tolist()))
    assert stalling == expected


@pytest.mark.parametrize("temperature", [0.0, 0.5], ids=["greedy", "sampling"])
def test_the_graphs_equal_the_eager_step_in_every_size(demo: Any, temperature: float) -> None:
    captured, eager = (
        demo.load(capture=capture, temperature=temperature, attention="torch") for capture in (True, False)
    )
    random = np.random.default_rng(1)
    for k in range(demo.n_steps):
        n_active = random.integers(1, demo.n_slots + 1) if k % 2 else (1, 2, 3, 5, 63, 64)[k // 2 % 6]
        slots = np.sort(random.permutation(demo.n_slots)[:n_active])
        frames = {int(slot): demo.others[k, slot] for slot in slots}
        # A reset makes slots of the step that do not step, so it is the full size.
        found, expected = (demo.step(model, frames, reset=k in {0, 30}) for model in (captured, eager))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one[slots], other[slots])


def test_a_graph_is_captured_for_every_size_and_the_log_is_told_how_long_that_took(demo: Any) -> None:
    started = demo.load().started
    assert started["n_graphs"] == len(ladder(demo.n_slots))
    assert 0 < started["capture_s"] < 60


def kept(model: Any) -> list[torch.Tensor]:
    """Return all that is kept between steps, slots first."""
    step = model._step
    rings = [step._ring, step._mimi_state.ring]
    caches = [cache.transpose(0, 1) for ring in rings for cache in (ring.cache.keys, ring.cache.values)]
    return [*caches, *(ring.position for ring in rings), step._mimi_state.carry.kept, step._last_text, step._waiting]


def test_slots_that_do_not_step_keep_every_bit(demo: Any) -> None:
    model = demo.load()
    for k in range(30):
        demo.step(model, dict(enumerate(demo.others[k])), reset=k == 0)
    resting = [slot for slot in range(demo.n_slots) if slot not in SCATTERED]
    before = [tensor[resting].clone() for tensor in kept(model)]
    for k in range(30, 60):
        demo.step(model, {slot: demo.others[k, slot] for slot in SCATTERED})
    for tensor, old in zip(kept(model), before, strict=True):
        assert torch.equal(tensor[resting], old)


def test_nothing_of_the_scratch_slot_reaches_another(demo: Any) -> None:
    model = demo.load()
    said = []
    for poison in (None, torch.nan):
        for k in range(40):
            if poison is not None:
                for tensor in kept(model):
                    tensor[demo.n_slots] = 1 if tensor.dtype == torch.int64 else poison
            frames = {slot: demo.others[k, slot] for slot in SCATTERED}
            text, codes = demo.step(model, frames, reset=k == 0)
            said.append((text[list(SCATTERED)].tolist(), codes[list(SCATTERED)].tolist()))
        with torch.inference_mode():
            for tensor in kept(model):
                tensor[demo.n_slots] = 0
    assert said[40:] == said[:40]


@pytest.fixture
def sync_debug_mode() -> Iterator[Callable[[str], None]]:
    with warnings.catch_warnings():
        # torch says once that this mode is a prototype.
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("default")
    yield torch.cuda.set_sync_debug_mode
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("temperature", [0.0, 0.5], ids=["greedy", "sampling"])
@pytest.mark.parametrize("capture", [True, False], ids=["graph", "eager"])
def test_a_step_waits_for_nothing_but_its_end(
    demo: Any, sync_debug_mode: Callable[[str], None], *, capture: bool, temperature: float
) -> None:
    model = demo.load(capture=capture, temperature=temperature)
    sync_debug_mode("error")
    for k, n_active in enumerate((64, 1, 5, 40, 64)):
        active = np.arange(demo.n_slots) < n_active
        model.launch(StepPlan(pcm=demo.others[k], active=active, reset=active & (k == 2)))
        model.is_done()
        model.collect()
        assert model.is_done()


def test_float32_on_the_device_says_what_the_cpu_says(demo: Any) -> None:
    """Sums in another order: a code near a border may differ, and with it what follows, but hardly any does."""
    on_cpu, on_gpu = (demo.load(device=device, dtype="f32") for device in ("cpu", "cuda"))
    same = []
    for k in range(demo.n_steps):
        frames = dict(enumerate(demo.others[k]))
        (_, here), (_, there) = (demo.step(model, frames, reset=k == 0) for model in (on_cpu, on_gpu))
        same.append((here == there).mean())
    assert np.mean(same) > 0.995


def test_bfloat16_scores_are_within_the_known_spread(demo: Any) -> None:
    config = demo.module().model
    header = read_header("lm", demo.files().lm)
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
