import numpy as np

from asr_worker.core.model import StepPlan
from asr_worker.io.rehearsal import measure_capacity, warm_up
from asr_worker.model.fake import FakeModel
from asr_worker.model.fake_speech import FakeSettings


def said(model: FakeModel) -> list[int]:
    """What slot 0 answers to noise."""
    pcm = np.random.default_rng(5).normal(0, 0.1, (12, 2, 1920)).astype(np.float32)
    tokens = []
    for frames in pcm:
        model.launch(StepPlan(pcm=frames, active=np.ones(2, bool), reset=np.zeros(2, bool)))
        tokens.append(int(model.collect().text[0]))
    return tokens


def test_sessions_are_counted_by_the_time_of_their_steps() -> None:
    # 37 ms with two, 55 with three, 73 with four: a busy machine may add to a step, never take away.
    model = FakeModel(FakeSettings(n_slots=8, step_ms=1, row_ms=18))
    search = measure_capacity(model, budget_s=10)
    assert search.measured in {2, 3}
    assert [timing.n_active for timing in search.timings] == [1, 2, 3, 4]


def test_no_session_can_tell_what_was_rehearsed() -> None:
    settings = FakeSettings(n_slots=2)
    rehearsed = FakeModel(settings)
    warm_up(rehearsed)
    measure_capacity(rehearsed, budget_s=1)
    assert said(rehearsed) == said(FakeModel(settings))


def test_without_time_no_step_is_measured() -> None:
    assert measure_capacity(FakeModel(FakeSettings(n_slots=2)), budget_s=0).measured is None
