from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_worker.core.admission import Admission, CapacitySearch, admit, is_enough
from asr_worker.core.model import ModelFacts
from shared.config import WorkerConfig

FACTS = ModelFacts(
    n_slots=64,
    n_heads=0,
    n_codebooks=8,
    n_text_tokens=100,
    n_codes=32,
    delay_frames=6,
    context_frames=750,
    codec_context_frames=125,
    whole_words=False,
    fingerprint="",
    device="cuda:0",
    dtype="bfloat16",
)
ON_CPU = replace(FACTS, device="cpu", dtype="float32")


def run(search: CapacitySearch, step_s: Callable[[int], float]) -> list[int]:
    """Answer a search with steps that all take the same; return what it asked for."""
    asked = []
    while (n := search.next_count()) is not None:
        asked.append(n)
        search.add(n, [step_s(n)] * 5)
    return asked


def test_a_device_that_steps_all_slots_in_time_is_asked_for_doubled_numbers() -> None:
    search = CapacitySearch(n_slots=20, budget_s=100)
    assert run(search, lambda _: 0.06) == [1, 2, 4, 8, 16, 20]
    assert search.measured == 20


def test_the_gap_is_halved_until_it_is_small() -> None:
    search = CapacitySearch(n_slots=1280, budget_s=100)
    assert run(search, lambda n: n * 0.0001) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 768, 640, 576, 608]
    assert search.measured == 576  # of 600: less than a sixteenth is lost
    assert [timing.n_active for timing in search.timings] == sorted(timing.n_active for timing in search.timings)


@given(n_slots=st.integers(1, 3000), most=st.integers(0, 3000))
def test_the_answer_holds_and_is_at_most_a_sixteenth_too_small(n_slots: int, most: int) -> None:
    search = CapacitySearch(n_slots=n_slots, budget_s=1e9)
    asked = run(search, lambda n: 0.05 if n <= most else 0.07)
    assert len(asked) == len(set(asked)) < 30
    best = min(most, n_slots)
    assert search.measured is not None
    assert search.measured <= best <= search.measured + max(1, (best + 1) // 8)


def test_a_device_too_slow_for_one_session_holds_none() -> None:
    search = CapacitySearch(n_slots=8, budget_s=100)
    assert run(search, lambda _: 0.061) == [1]
    assert search.measured == 0


def test_the_search_ends_when_its_time_is_spent() -> None:
    search = CapacitySearch(n_slots=64, budget_s=0.5)
    assert run(search, lambda n: 0.01 * n) == [1, 2, 4, 8]  # 5 x (10 + 20 + 40 + 80) ms
    assert search.measured == 4


def test_without_time_nothing_is_measured() -> None:
    search = CapacitySearch(n_slots=64, budget_s=0)
    assert search.next_count() is None
    assert search.measured is None


def test_one_hiccup_is_looked_at_twice() -> None:
    search = CapacitySearch(n_slots=2, budget_s=100)
    search.add(1, [0.01, 0.01, 0.2])
    assert search.next_count() == 1
    search.add(1, [0.01, 0.02, 0.01])
    assert (search.next_count(), search.timings[0].p99_s) == (2, 0.02)


def test_slow_steps_that_come_back_count() -> None:
    search = CapacitySearch(n_slots=2, budget_s=100)
    search.add(1, [0.01, 0.01, 0.2])
    search.add(1, [0.01, 0.01, 0.3])
    assert (search.next_count(), search.measured, search.timings[0].p99_s) == (None, 0, 0.2)


def test_steps_that_are_mostly_slow_are_not_looked_at_twice() -> None:
    search = CapacitySearch(n_slots=2, budget_s=100)
    search.add(1, [0.01, 0.1, 0.2])
    assert search.next_count() is None


@pytest.mark.parametrize(
    ("times_s", "enough"),
    [
        ([], False),
        ([0.07, 0.07], False),
        ([0.07, 0.07, 0.07], True),
        ([0.07, 0.07, 0.05], False),
        ([0.02] * 5, True),
        ([0.05] * 4, False),
        ([0.001] * 29, False),
        ([0.001] * 30, True),
    ],
)
def test_how_many_steps_are_enough(times_s: list[float], enough: bool) -> None:  # noqa: FBT001
    assert is_enough(times_s) is enough


@pytest.mark.parametrize(
    ("facts", "config", "measured", "admission"),
    [
        (FACTS, WorkerConfig(), None, Admission(sessions=64, files=16)),
        (FACTS, WorkerConfig(), 64, Admission(sessions=64, files=16, measured=64)),
        (FACTS, WorkerConfig(), 40, Admission(sessions=36, files=9, measured=40, reserve=4)),
        (FACTS, WorkerConfig(reserve_share=0.0), 40, Admission(sessions=40, files=10, measured=40)),
        (FACTS, WorkerConfig(), 1, Admission(sessions=1, files=1, measured=1)),
        (FACTS, WorkerConfig(max_sessions=30), 40, Admission(sessions=30, files=7, measured=40)),
        (FACTS, WorkerConfig(max_sessions=100), 64, Admission(sessions=64, files=16, measured=64)),
        (ON_CPU, WorkerConfig(), 64, Admission(sessions=64, files=16, measured=64)),
    ],
)
def test_what_is_admitted(facts: ModelFacts, config: WorkerConfig, measured: int | None, admission: Admission) -> None:
    assert admit(facts, config, measured) == admission


@pytest.mark.parametrize(
    ("facts", "config", "measured", "sessions"),
    [
        (ON_CPU, WorkerConfig(), 40, 64),  # a CPU's batch size is taken as it is
        (FACTS, WorkerConfig(max_sessions=50), 40, 50),  # so is what the operator says
        (FACTS, WorkerConfig(), 0, 1),  # and somebody must be admitted
    ],
)
def test_a_warning_names_the_numbers_where_more_are_admitted_than_measured(
    facts: ModelFacts, config: WorkerConfig, measured: int, sessions: int
) -> None:
    admission = admit(facts, config, measured)
    assert admission.sessions == sessions
    assert admission.warning is not None
    assert f"{sessions} sessions are admitted, but with more than {measured} a step" in admission.warning


@pytest.mark.parametrize(
    ("facts", "config", "is_hinted"),
    [
        (ON_CPU, WorkerConfig(), True),
        (ON_CPU, WorkerConfig(cpu_weights="int8"), False),
        (replace(ON_CPU, dtype="bfloat16"), WorkerConfig(), False),
        (FACTS, WorkerConfig(max_sessions=50), False),
    ],
)
def test_a_slow_cpu_that_reads_exact_weights_is_told_of_others(
    *, facts: ModelFacts, config: WorkerConfig, is_hinted: bool
) -> None:
    assert ('cpu_weights = "auto"' in str(admit(facts, config, 40).warning)) == is_hinted
