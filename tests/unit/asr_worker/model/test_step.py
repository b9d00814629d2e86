from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from asr_worker.core.model import NO_TOKEN, StepPlan
from asr_worker.model.seeded import seeded_audio
from shared.errors import ConfigError

N = 40
SPEECH = seeded_audio("speech", N, 1)
OTHER = seeded_audio("other", N, 1)

BatchOf = Callable[[int], Any]


@pytest.fixture(scope="module")
def expected(batch_of: BatchOf) -> list[Any]:
    """What a session says that has the whole batch to itself."""
    batch = batch_of(4)
    for frame in SPEECH:
        batch.step({1: frame})
    return batch.said[1]


def test_facts_tell_the_sizes_of_the_configuration(small: Any) -> None:
    facts = small.load().facts
    assert (facts.n_slots, facts.n_heads, facts.n_codebooks, facts.delay_frames) == (4, 4, 4, 6)
    assert (facts.context_frames, facts.codec_context_frames) == (12, 8)
    assert (facts.device, facts.dtype) == ("cpu", "float32")


def test_a_random_model_says_many_things(expected: list[Any]) -> None:
    assert len({text for text, _ in expected}) > 8
    assert len({code for _, codes in expected for code in codes}) > 8


def test_a_model_that_just_started_is_fresh_though_it_warmed_up(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    batch.plan.reset[:] = False
    for frame in SPEECH:
        batch.step({1: frame})
    assert batch.said[1] == expected


def test_a_session_alone_equals_the_same_session_among_busy_neighbours(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    for frame, other in zip(SPEECH, OTHER, strict=True):
        batch.step({0: other, 1: frame, 2: -other, 3: other / 2})
    assert batch.said[1] == expected


def test_neighbours_that_come_and_go_change_nothing(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    for k, (frame, other) in enumerate(zip(SPEECH, OTHER, strict=True)):
        neighbours = {row: other for row in (0, 2, 3) if (k >> row) % 2}
        batch.step({1: frame, **neighbours}, reset=(0, 2) if k % 7 == 0 else ())
    assert batch.said[1] == expected


def test_a_reset_row_equals_a_fresh_one(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    for other in OTHER:
        batch.step({1: other})
    batch.said[1].clear()
    for k, frame in enumerate(SPEECH):
        batch.step({1: frame}, reset=(1,) if k == 0 else ())
    assert batch.said[1] == expected


def test_a_reset_while_masked_works_as_well(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    for other in OTHER:
        batch.step({1: other})
    batch.said[1].clear()
    batch.step({}, reset=(1,))
    for frame in SPEECH:
        batch.step({1: frame})
    assert batch.said[1] == expected


def test_without_a_reset_the_past_is_heard(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    for other in OTHER:
        batch.step({1: other})
    batch.said[1].clear()
    for frame in SPEECH:
        batch.step({1: frame})
    assert batch.said[1] != expected


def test_a_masked_row_continues_as_if_nothing_happened(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    for k, (frame, other) in enumerate(zip(SPEECH, OTHER, strict=True)):
        for _ in range(k % 4):
            batch.step({0: other, 3: other})
        batch.step({1: frame, 0: other})
    assert batch.said[1] == expected


def test_a_reused_slot_serves_session_after_session(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    for n_frames in (3, 1, 17, 0, N):
        batch.said[1].clear()
        for k, frame in enumerate(SPEECH[:n_frames]):
            batch.step({1: frame, 2: OTHER[k]}, reset=(1,) if k == 0 else ())
        assert batch.said[1] == expected[:n_frames]


@pytest.mark.parametrize("n_slots", [1, 2, 9])
def test_tokens_and_codes_do_not_depend_on_the_batch_size_or_the_row(
    batch_of: BatchOf, expected: list[Any], n_slots: int
) -> None:
    batch = batch_of(n_slots)
    for frame in SPEECH:
        batch.step(dict.fromkeys(range(n_slots), frame))
    for said in batch.said:
        assert said == expected


def test_pauses_are_probabilities_and_nearly_equal_in_every_batch(batch_of: BatchOf) -> None:
    one, many = batch_of(1), batch_of(6)
    for frame in SPEECH:
        one.step({0: frame})
        many.step(dict.fromkeys(range(6), frame))
    np.testing.assert_allclose(one.pauses[0], many.pauses[5], atol=1e-5)
    assert np.min(one.pauses[0]) > 0
    assert np.max(one.pauses[0]) < 1


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3e38])
def test_samples_that_are_no_numbers_hurt_nobody_and_leave_nothing_behind(
    batch_of: BatchOf, expected: list[Any], poison: float
) -> None:
    batch = batch_of(4)
    poisoned = np.full(1920, poison, np.float32)
    for frame in SPEECH[:20]:
        batch.step({1: frame, 2: poisoned})
    assert batch.said[1] == expected[:20]
    assert np.isfinite(batch.pauses[2]).all()
    batch.said[2].clear()
    for k, frame in enumerate(SPEECH):
        batch.step({2: frame}, reset=(2,) if k == 0 else ())
    assert batch.said[2] == expected


def test_a_masked_row_may_hold_anything(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    for k, frame in enumerate(SPEECH):
        if k % 3 == 0:
            batch.plan.pcm[1] = np.nan
            batch.plan.active[:] = False
            batch.model.launch(batch.plan)
            batch.model.collect()
            batch.plan.reset[:] = False
        batch.step({1: frame})
    assert batch.said[1] == expected


def test_a_forced_token_comes_out_and_is_fed_back(batch_of: BatchOf, expected: list[Any]) -> None:
    batch, forced = batch_of(4), batch_of(4)
    tokens = [text for text, _ in expected]
    for k, frame in enumerate(SPEECH):
        batch.step({1: frame, 2: frame})
        # Row 1 is told one other word in the middle, row 2 what it would have said anyway.
        forced.plan.text = np.array([NO_TOKEN, 7 if k == 10 else NO_TOKEN, tokens[k], NO_TOKEN])
        forced.step({1: frame, 2: frame})
    assert forced.said[2] == batch.said[2]
    assert forced.said[1][:10] == batch.said[1][:10]
    assert forced.said[1][10][0] == 7
    assert forced.said[1][11:] != batch.said[1][11:]


def test_given_codes_replace_encoded_ones(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    batch.plan.codes = np.full((4, 4), NO_TOKEN)
    for _, codes in expected:
        batch.plan.codes[1] = codes
        batch.step({1: np.zeros(1920, np.float32)})
    assert batch.said[1] == expected


def test_a_row_with_given_codes_may_leave_its_codec_where_it_is(batch_of: BatchOf, expected: list[Any]) -> None:
    """A replay: the first frames come from the log, and only the last of them are encoded as well."""
    batch = batch_of(4)
    batch.plan.codes = np.full((4, 4), NO_TOKEN)
    batch.plan.encode = np.zeros(4, bool)
    for _, codes in expected[:10]:
        batch.plan.codes[1] = codes
        batch.step({1: OTHER[0]})
    batch.plan.codes[1] = NO_TOKEN
    for frame in SPEECH:
        batch.step({1: frame})
    assert [codes for _, codes in batch.said[1][10:]] == [codes for _, codes in expected]


def test_encode_beside_given_codes_moves_the_codec(batch_of: BatchOf, expected: list[Any]) -> None:
    batch = batch_of(4)
    batch.plan.codes = np.full((4, 4), NO_TOKEN)
    for (_, codes), frame in zip(expected[:20], SPEECH[:20], strict=True):
        batch.plan.codes[1] = codes
        batch.step({1: frame})
    batch.plan.codes = None
    for frame in SPEECH[20:]:
        batch.step({1: frame})
    assert batch.said[1] == expected


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("text", 48, "a forced text token is 48; allowed are -1 to 47"),
        ("text", -2, "a forced text token is -2; allowed are -1 to 47"),
        ("codes", 32, "a given code is 32; allowed are 0 to 31"),
    ],
)
def test_tokens_and_codes_of_another_model_are_refused_before_the_step(
    batch_of: BatchOf, expected: list[Any], field: str, value: int, message: str
) -> None:
    batch = batch_of(4)
    plan = batch.plan
    plan.active[:] = True
    setattr(plan, field, np.full((4, 4) if field == "codes" else 4, value))
    with pytest.raises(ValueError, match="^" + message):
        batch.model.launch(plan)
    plan.text = plan.codes = None
    batch.step({1: SPEECH[0]})
    assert batch.said[1] == expected[:1]


def test_a_given_code_below_zero_in_the_middle_is_refused(batch_of: BatchOf) -> None:
    batch = batch_of(4)
    batch.plan.codes = np.array([[3, -1, 3, 3]] * 4)
    with pytest.raises(ValueError, match="a given code is -1"):
        batch.model.launch(batch.plan)


def test_the_plan_may_be_overwritten_once_launched_and_the_result_lives_until_the_next_collect(small: Any) -> None:
    model = small.load()
    everyone = np.ones(4, bool)
    plan = StepPlan(pcm=np.repeat(SPEECH[:1], 4, axis=0), active=everyone, reset=everyone)
    model.launch(plan)
    assert model.is_done(), "a launch computes at once on a CPU"
    plan.pcm[:] = 0
    first = model.collect()
    kept = (first.text.copy(), first.codes.copy())
    model.launch(plan)
    np.testing.assert_array_equal(first.text, kept[0])
    np.testing.assert_array_equal(first.codes, kept[1])
    assert first.text.dtype == np.int64
    assert first.codes.dtype == np.int64
    assert first.pauses.dtype == np.float32
    model.collect()


def test_a_model_without_heads_has_no_pauses(small: Any) -> None:
    module = replace(small.module, model=replace(small.module.model, extra_heads=None))
    model = small.load(module)
    everyone = np.ones(4, bool)
    model.launch(StepPlan(pcm=np.repeat(SPEECH[:1], 4, axis=0), active=everyone, reset=everyone))
    assert model.collect().pauses.shape == (4, 0)
    assert model.facts.n_heads == 0


def test_sampling_is_repeatable_with_a_seed_and_different_with_another(small: Any) -> None:
    module = replace(small.module, temperature=1.0)

    def said(seed: int) -> list[int]:
        model = small.load(module, seed=seed)
        everyone = np.ones(4, bool)
        tokens = []
        for k, frame in enumerate(SPEECH):
            model.launch(StepPlan(pcm=np.repeat(frame[None], 4, axis=0), active=everyone, reset=everyone & (k == 0)))
            tokens += model.collect().text.tolist()
        return tokens

    assert said(5) == said(5)
    assert said(5) != said(6)


def test_a_start_makes_every_slot_fresh_and_repeats_the_draws(small: Any) -> None:
    model = small.load(replace(small.module, temperature=1.0))
    everyone = np.ones(4, bool)

    def said() -> list[int]:
        tokens = []
        for frame in SPEECH[:15]:
            model.launch(StepPlan(pcm=np.repeat(frame[None], 4, axis=0), active=everyone, reset=~everyone))
            tokens += model.collect().text.tolist()
        return tokens

    first = said()
    assert said() != first
    model.start()
    assert said() == first


def test_a_device_without_room_for_a_step_is_a_setting_that_is_wrong(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small.load()

    def no_room(*_: object) -> None:
        message = "CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation"
        raise torch.OutOfMemoryError(message)

    monkeypatch.setattr(model._runner, "launch", no_room)
    with pytest.raises(
        ConfigError, match=r"^no room on cpu for steps of batch_size = 4: CUDA out of memory\. Tried to .*GiB\.$"
    ):
        model.start()


def test_a_restart_leaves_nothing_of_what_old_slots_heard(small: Any) -> None:
    model = small.load(replace(small.module, temperature=1.0))
    everyone = np.ones(4, bool)

    def said() -> list[int]:
        tokens = []
        for frame in SPEECH[:15]:
            model.launch(StepPlan(pcm=np.repeat(frame[None], 4, axis=0), active=everyone, reset=~everyone))
            tokens += model.collect().text.tolist()
        return tokens

    first = said()
    model.restart(age_frames=100)
    assert said() != first
    model.restart()
    assert said() == first


def test_detokenize_gives_the_text_of_a_word(small: Any) -> None:
    model = small.load()
    texts = {model.detokenize([token]) for token in range(4, 48)}
    assert {"one", "two", "yes"} <= texts
    assert model.detokenize([]) == ""
