import numpy as np

from asr_worker.core.model import StepPlan, StepResult
from asr_worker.model.packing import PlanWords, ResultWords, plan_words, select

B = 5
N_CODEBOOKS = 2


def plan_of(active: str, reset: str = "00000") -> StepPlan:
    pcm = np.repeat(np.arange(B, dtype=np.float32)[:, None], 1920, axis=1)
    bits = [np.array([letter == "1" for letter in letters]) for letters in (active, reset)]
    return StepPlan(pcm=pcm, active=bits[0], reset=bits[1])


def written(plan: StepPlan, n_rows: int) -> tuple[list[float], list[list[int]]]:
    """Return of each row the sample that it repeats, and its words."""
    buffer = np.full(plan_words(B, N_CODEBOOKS), 9, np.float32)
    PlanWords(buffer, n_slots=B, n_codebooks=N_CODEBOOKS).write(plan, select(plan).slots, n_rows)
    assert (buffer[plan_words(n_rows, N_CODEBOOKS) :] == 9).all()
    samples = buffer[: n_rows * 1920].reshape(n_rows, 1920)
    assert (samples == samples[:, :1]).all()
    words = buffer[n_rows * 1920 : plan_words(n_rows, N_CODEBOOKS)].view(np.int32)
    return samples[:, 0].tolist(), words.reshape(n_rows, -1).tolist()


def test_slots_that_step_come_before_those_that_are_only_reset() -> None:
    selection = select(plan_of("01001", "11010"))
    assert (selection.slots.tolist(), selection.n_active, selection.has_reset) == ([1, 4, 0, 3], 2, True)
    selection = select(plan_of("01001"))
    assert (selection.slots.tolist(), selection.n_active, selection.has_reset) == ([1, 4], 2, False)
    assert len(select(plan_of("00000")).slots) == 0


def test_a_row_holds_its_slot_flags_forced_text_and_codes() -> None:
    plan = plan_of("01001", "01010")
    plan.text = np.array([-1, 7, -1, -1, 8])
    plan.codes = np.array([[-1, -1], [5, 6], [-1, -1], [-1, -1], [-1, -1]])
    plan.encode = np.zeros(B, bool)
    samples, words = written(plan, 3)
    assert samples == [1, 4, 3]
    assert words == [
        [1, 1, 1, 0, 7, 5, 6],  # its codes are given and its codec rests
        [4, 1, 0, 1, 8, -1, -1],  # it has no codes, so its codec steps
        [3, 0, 1, 0, -1, -1, -1],
    ]


def test_padding_is_the_inactive_scratch_slot() -> None:
    _, words = written(plan_of("01001"), 4)
    assert words[2:] == [[B, 0, 0, 0, -1, -1, -1]] * 2


def test_all_slots_lie_in_their_order_unless_some_are_only_reset() -> None:
    samples, words = written(plan_of("11111", "10000"), B)
    assert samples == [0, 1, 2, 3, 4]
    assert [row[0] for row in words] == [0, 1, 2, 3, 4]
    samples, words = written(plan_of("01000", "11111"), B)
    assert samples == [1, 0, 2, 3, 4]
    assert [row[0] for row in words] == [1, 0, 2, 3, 4]


def test_a_result_reaches_the_slots_of_its_rows_only() -> None:
    buffer = np.zeros((B, 1 + N_CODEBOOKS + 1), np.float32)
    buffer.view(np.int32)[:2, :3] = [[40, 1, 2], [41, 3, 4]]
    buffer[:2, 3] = [0.5, 0.25]
    result = StepResult(text=np.full(B, 7), codes=np.full((B, N_CODEBOOKS), 7), pauses=np.full((B, 1), 7, np.float32))
    ResultWords(buffer, n_codebooks=N_CODEBOOKS).read(result, np.array([3, 1]))
    assert result.text.tolist() == [7, 41, 7, 40, 7]
    assert result.codes.tolist() == [[7, 7], [3, 4], [7, 7], [1, 2], [7, 7]]
    assert result.pauses[:, 0].tolist() == [7, 0.25, 7, 0.5, 7]
