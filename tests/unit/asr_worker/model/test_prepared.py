"""The step as CUDA runs it, in prepared sizes over an index of slots, beside the step as the CPU runs it."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from asr_worker.model.prepared import ladder
from asr_worker.model.ring import RingAttention
from asr_worker.model.seeded import seeded_audio

N_SLOTS = 9
N_STEPS = 60  # the small model's rings hold 12 and 8 frames
AUDIO = seeded_audio("prepared", N_STEPS * N_SLOTS, 1).reshape(N_STEPS, N_SLOTS, 1920)

BatchOf = Callable[..., Any]
Steps = Iterator[tuple[dict[int, np.ndarray], tuple[int, ...]]]


def scattered_steps() -> Steps:
    """Yield the frames and the resets of each step: any number of slots, none at times, resets of idle ones too."""
    random = np.random.default_rng(1)
    for k in range(N_STEPS):
        share = random.choice([0.0, 0.2, 0.5, 0.9, 1.0])
        active = np.flatnonzero(random.random(N_SLOTS) < share)
        reset = np.flatnonzero(random.random(N_SLOTS) < 0.04)
        yield {int(slot): AUDIO[k, slot] for slot in active}, tuple(map(int, reset))


def shrinking_steps() -> Steps:
    for k in range(N_STEPS):
        slots = range(N_SLOTS) if k < 20 else (1, 4, 8)
        yield {slot: AUDIO[k, slot] for slot in slots}, ()


def test_sizes_are_powers_of_two_and_the_halves_between_up_to_the_batch() -> None:
    assert ladder(1) == (1,)
    assert ladder(2) == (1, 2)
    assert ladder(9) == (1, 2, 3, 4, 6, 8, 9)
    assert ladder(64) == (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    sizes = ladder(1280)
    assert sizes[-4:] == (512, 768, 1024, 1280)
    assert all(larger <= 2 * smaller for smaller, larger in pairwise(sizes))


@pytest.mark.parametrize("steps", [scattered_steps, shrinking_steps])
def test_prepared_sizes_say_what_exact_sizes_say(batch_of: BatchOf, steps: Callable[[], Steps]) -> None:
    exact, prepared = batch_of(N_SLOTS), batch_of(N_SLOTS, is_prepared=True)
    for frames, reset in steps():
        exact.step(frames, reset=reset)
        prepared.step(frames, reset=reset)
    assert prepared.said == exact.said
    assert all(len(said) > 15 for said in exact.said)
    for found, expected in zip(prepared.pauses, exact.pauses, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kv_cache", ["bf16", "int8", "fp8"])
def test_caches_in_other_formats_say_the_same_in_prepared_sizes(batch_of: BatchOf, kv_cache: str) -> None:
    exact, prepared = (batch_of(N_SLOTS, kv_cache=kv_cache, is_prepared=is_prepared) for is_prepared in (False, True))
    for frames, reset in scattered_steps():
        exact.step(frames, reset=reset)
        prepared.step(frames, reset=reset)
    assert prepared.said == exact.said


@pytest.mark.parametrize("kv_cache", [None, "int8"])
def test_a_kernel_that_reads_rings_in_place_says_what_torch_says(
    batch_of: BatchOf, kernel: RingAttention, kv_cache: str | None
) -> None:
    exact, prepared = (batch_of(N_SLOTS, kv_cache=kv_cache, is_prepared=is_prepared) for is_prepared in (False, True))
    times_ms = iter([2.0, 1.0] * 2)
    verdicts = prepared.model._step.choose_attention(ladder(N_SLOTS), lambda: kernel, lambda _run: next(times_ms))
    assert [verdict.is_kernel for verdict in verdicts.values()] == [True, True]
    for frames, reset in scattered_steps():
        exact.step(frames, reset=reset)
        prepared.step(frames, reset=reset)
    assert prepared.said == exact.said


def kept(model: Any) -> list[torch.Tensor]:
    """Return all that is kept between steps, slots first. Only its own eyes can see a bit that flips unheard."""
    step = model._step
    rings = [step._ring, step._mimi_state.ring]
    caches = [cache.transpose(0, 1) for ring in rings for cache in (ring.cache.keys, ring.cache.values)]
    positions = [ring.position for ring in rings]
    return [*caches, *positions, step._mimi_state.carry.kept, step._last_text, step._waiting]


def test_slots_that_do_not_step_keep_every_bit(batch_of: BatchOf) -> None:
    batch = batch_of(N_SLOTS, is_prepared=True)
    for frames, _ in shrinking_steps():
        batch.step(frames)
    stepping = (0, 3, 4, 7, 8)  # five of nine: with padding
    resting = [slot for slot in range(N_SLOTS) if slot not in stepping]
    before = [tensor[resting].clone() for tensor in kept(batch.model)]
    for k in range(20):
        batch.step({slot: AUDIO[k, slot] for slot in stepping}, reset=(3, 4) if k == 10 else ())
    for tensor, old in zip(kept(batch.model), before, strict=True):
        assert torch.equal(tensor[resting], old)
        assert not torch.equal(tensor[list(stepping)], tensor[list(stepping)].zero_())


def test_nothing_of_the_scratch_slot_reaches_another(batch_of: BatchOf) -> None:
    clean, poisoned = batch_of(N_SLOTS, is_prepared=True), batch_of(N_SLOTS, is_prepared=True)
    for k, (frames, reset) in enumerate(scattered_steps()):
        if k % 5 == 0:
            for tensor in kept(poisoned.model):
                tensor[N_SLOTS] = 1 if tensor.dtype == torch.int64 else torch.nan
        clean.step(frames, reset=reset)
        poisoned.step(frames, reset=reset)
    assert poisoned.said == clean.said
    assert np.isfinite(np.concatenate([np.array(pauses) for pauses in poisoned.pauses])).all()


def test_the_scratch_slot_stays_fresh(batch_of: BatchOf) -> None:
    batch = batch_of(N_SLOTS, is_prepared=True)
    for frames, reset in scattered_steps():
        batch.step(frames, reset=reset)
    *caches, lm_position, mimi_position, carry, text, waiting = (tensor[N_SLOTS] for tensor in kept(batch.model))
    assert (int(lm_position), int(mimi_position), int(text)) == (0, 0, 0)
    assert not carry.any()
    assert not waiting.any()
    assert all(cache.isfinite().all() for cache in caches)
