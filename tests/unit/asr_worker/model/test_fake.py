"""The fake model: says what its oracle says, and behaves like a real one in rows, resets, stalls and replays."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from asr_worker.core.model import NO_TOKEN, StepPlan
from asr_worker.core.words import WordAssembler, WordEnded, WordEvent, WordSaid
from asr_worker.model.fake import FakeModel
from asr_worker.model.fake_oracle import FakeTranscript, expected_events
from asr_worker.model.fake_speech import PAD_CODE, FakeSettings, encode
from shared.errors import ModelFaultError
from shared.units import FRAME_SAMPLES

Pcm = NDArray[np.float32]


def speech(seed: int, n_frames: int) -> Pcm:
    """Noise with pauses: ``[n_frames, 1920]``."""
    random = np.random.default_rng(seed)
    pcm = (random.standard_normal((n_frames, FRAME_SAMPLES)) * 0.1).astype(np.float32)
    start = int(random.integers(0, 8))
    while start < n_frames:
        stop = start + int(random.integers(1, 7))
        pcm[start:stop] = 0
        start = stop + int(random.integers(1, 14))
    return pcm


def tokens_of(model: FakeModel, pcm: Pcm, row: int = 0, *, reset: bool = True) -> tuple[list[int], NDArray[np.int64]]:
    """Step ``pcm`` through one row alone; return its tokens and codes."""
    text, codes = [], []
    for place, frame in enumerate(pcm):
        plan = empty_plan(model.facts.n_slots)
        plan.pcm[row], plan.active[row], plan.reset[row] = frame, True, reset and place == 0
        model.launch(plan)
        result = model.collect()
        text.append(int(result.text[row]))
        codes.append(result.codes[row].copy())
    return text, np.array(codes)


def empty_plan(n_slots: int) -> StepPlan:
    return StepPlan(
        pcm=np.zeros((n_slots, FRAME_SAMPLES), np.float32),
        active=np.zeros(n_slots, np.bool_),
        reset=np.zeros(n_slots, np.bool_),
    )


def words_of(model: FakeModel, tokens: list[int]) -> list[WordEvent]:
    delay = model.facts.delay_frames
    words = WordAssembler(model.detokenize)
    return [
        event
        for steps, token in enumerate(tokens, 1)
        if steps >= delay
        for event in words.feed(token, (steps - delay) / 12.5)
    ]


@pytest.mark.parametrize(
    "chosen",
    [
        FakeSettings(n_slots=2),
        FakeSettings(n_slots=2, n_heads=0, delay_frames=32),
        FakeSettings(n_slots=2, delay_frames=2, context_frames=100, n_codebooks=2),
        FakeSettings(n_slots=2, words=("yes", "no", "maybe")),
    ],
)
def test_the_model_says_what_the_oracle_says(chosen: FakeSettings) -> None:
    model = FakeModel(chosen)
    for seed in range(2):
        pcm = speech(seed, 260)
        said = words_of(model, tokens_of(model, pcm, row=1)[0])
        assert said == expected_events(pcm, chosen)
        assert len(said) > 20


def test_words_begin_and_end_with_speech_to_the_frame() -> None:
    pcm = np.zeros((60, FRAME_SAMPLES), np.float32)
    pcm[10:14] = speech(1, 100)[90:94].std() + 0.1
    events = expected_events(pcm)
    assert [type(event) for event in events] == [WordSaid, WordEnded]
    assert (events[0].start_s, events[-1].stop_s) == (0.8, 1.12)  # type: ignore[union-attr]


def test_custom_words_are_said_as_they_are() -> None:
    events = expected_events(speech(3, 100), FakeSettings(words=("yes", "no")))
    assert {event.text for event in events if isinstance(event, WordSaid)} == {"yes", "no"}


def test_a_row_says_the_same_alone_and_among_busy_neighbours_stalled_or_not() -> None:
    streams = [speech(seed, 80) for seed in range(3)]
    alone = [tokens_of(FakeModel(FakeSettings(n_slots=3)), pcm, row) for row, pcm in enumerate(streams)]
    model = FakeModel(FakeSettings(n_slots=3))
    random = np.random.default_rng(0)
    text: list[list[int]] = [[], [], []]
    while any(len(said) < 80 for said in text):
        plan = empty_plan(3)
        for row in range(3):
            if len(text[row]) < 80:
                plan.active[row] = random.random() < 0.6
                plan.pcm[row] = streams[row][len(text[row])] if plan.active[row] else np.inf
        model.launch(plan)
        result = model.collect()
        for row in np.flatnonzero(plan.active):
            text[row].append(int(result.text[row]))
    assert text == [tokens for tokens, _ in alone]


def test_a_step_is_done_when_its_time_has_passed() -> None:
    model = FakeModel(FakeSettings(n_slots=1, step_ms=50))
    model.launch(empty_plan(1))
    assert not model.is_done()
    model.collect()
    assert model.is_done()


def test_a_reset_row_is_as_good_as_new_and_its_neighbour_does_not_notice() -> None:
    model = FakeModel(FakeSettings(n_slots=2))
    first, second = speech(1, 60), speech(2, 60)
    neighbour = tokens_of(model, first[:30], row=0)[0]
    used = tokens_of(model, first, row=1)
    again = tokens_of(model, second, row=1)
    neighbour += tokens_of(model, first[30:], row=0, reset=False)[0]
    fresh = FakeModel(FakeSettings(n_slots=2))
    assert again[0] == tokens_of(fresh, second, row=0)[0]
    assert neighbour == used[0] == tokens_of(fresh, first, row=0)[0]


@pytest.mark.parametrize("harm", ["lost", "doubled", "altered by one bit"])
def test_one_wrong_frame_changes_every_later_word(harm: str) -> None:
    right = speech(4, 600)
    wrong = right.copy()
    match harm:
        case "lost":
            wrong = np.delete(right, 100, axis=0)
        case "doubled":
            wrong = np.insert(right, 100, right[100], axis=0)
        case _:
            wrong[100, 500] += 1 / 32767
    words, wrong_words = ([e for e in expected_events(pcm) if isinstance(e, WordSaid)] for pcm in (right, wrong))
    n_before = sum(word.start_s < 90 / 12.5 for word in words)
    assert words[:n_before] == wrong_words[:n_before]
    later, wrong_later = words[n_before + 4 :], wrong_words[n_before + 4 :]
    assert len(later) > 60
    assert not [word for word, other in zip(later, wrong_later, strict=False) if word.text == other.text]


@pytest.mark.parametrize("seed", range(4))
def test_a_row_rebuilt_from_the_last_frames_goes_on_as_if_nothing_had_happened(seed: int) -> None:
    """Forced tokens and given codes of C frames are all that a replay needs."""
    chosen = FakeSettings(n_slots=2, context_frames=100)
    pcm = speech(seed, 200)
    text, codes = tokens_of(FakeModel(chosen), pcm)
    model = FakeModel(chosen)
    for place in range(50, 150):
        plan = empty_plan(2)
        plan.active[1], plan.reset[1] = True, place == 50
        plan.text, plan.codes = np.full(2, NO_TOKEN), np.full((2, chosen.n_codebooks), -1)
        plan.encode = np.zeros(2, np.bool_)
        plan.text[1], plan.codes[1] = text[place], codes[place]
        model.launch(plan)
        result = model.collect()
        assert int(result.text[1]) == text[place]
        assert result.codes[1].tolist() == codes[place].tolist()
    assert tokens_of(model, pcm[150:], row=1, reset=False)[0] == text[150:]


def test_codes_do_not_depend_on_the_batch_and_every_sample_counts() -> None:
    pcm = speech(5, 40)
    together = encode(pcm, 8)
    assert [encode(frame[None], 8)[0].tolist() for frame in pcm] == together.tolist()
    assert together.min() >= 0
    assert together.max() < PAD_CODE
    pcm[7, 1919] += 1 / 32767
    assert (encode(pcm, 8) != together).any(axis=1).tolist() == [place == 7 for place in range(40)]


def test_the_pause_heads_follow_the_silence() -> None:
    model = FakeModel(FakeSettings(n_slots=1))
    pcm = np.zeros((60, FRAME_SAMPLES), np.float32)
    pcm[:20] = 0.3
    pauses = []
    for frame in pcm:
        plan = empty_plan(1)
        plan.pcm[0], plan.active[0] = frame, True
        model.launch(plan)
        pauses.append(model.collect().pauses[0].tolist())
    assert pauses[20] == [0.0, 0.0, 0.0, 0.0]
    assert pauses[20 + 25] == [1.0, 1.0, 1.0, pytest.approx(25 / 37.5)]
    assert all(later >= sooner for later, sooner in zip(pauses[59], pauses[45], strict=True))


def test_a_step_takes_as_long_as_it_was_told_to() -> None:
    model = FakeModel(FakeSettings(n_slots=1, step_ms=30))
    started_s = time.perf_counter()
    tokens_of(model, np.zeros((2, FRAME_SAMPLES), np.float32))
    assert time.perf_counter() - started_s >= 0.06


def test_a_failing_device_fails_for_good() -> None:
    model = FakeModel(FakeSettings(n_slots=1, fail_at_step=2))
    tokens_of(model, np.zeros((1, FRAME_SAMPLES), np.float32))
    for _ in range(2):
        with pytest.raises(ModelFaultError, match="from step 2 on"):
            tokens_of(model, np.zeros((1, FRAME_SAMPLES), np.float32))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("n_slots", 0, "1 to 4096"),
        ("n_heads", 5, "0 to 4"),
        ("delay_frames", 1, "2 to 112"),
        ("context_frames", 99, "100"),
    ],
)
def test_impossible_settings_are_refused(name: str, value: int, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"{name} of the fake model must be from {allowed}.*not {value}"):
        FakeSettings(**{name: value})  # type: ignore[arg-type]


def test_fingerprints_differ_where_words_or_shapes_would() -> None:
    def fingerprint(chosen: FakeSettings) -> str:
        return FakeModel(chosen).facts.fingerprint

    same = fingerprint(FakeSettings(n_slots=3, step_ms=5))
    assert same == fingerprint(FakeSettings(n_slots=8))
    others = [FakeSettings(n_heads=0), FakeSettings(delay_frames=32), FakeSettings(words=("a",))]
    assert len({same, *map(fingerprint, others)}) == 4


def test_the_oracle_knows_flushes_resets_and_prefixes() -> None:
    pcm = speech(6, 80)
    plain = expected_events(pcm, flush=True)
    prefixed = expected_events(pcm, flush=True, prefix_frames=12)
    assert prefixed != plain, "a prefix is heard"
    assert prefixed[-1] == plain[-1] == WordEnded(80 / 12.5), "but belongs to no client time"
    transcript = FakeTranscript(FakeSettings())
    events = transcript.feed(pcm) + transcript.flush(pad_samples=960)
    transcript.reset()
    events += transcript.feed(pcm) + transcript.flush()
    times = [event.stop_s for event in events if isinstance(event, WordEnded)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(2 * 80 / 12.5 - 0.04)
